#!/bin/bash
# Records a little of the demo's traffic, for tests: record-fixtures.sh FILE.pcap [ROUNDS]. Needs root.
set -euo pipefail
file=$(realpath "$1")
rounds=${2:-2}
((EUID == 0)) || { echo "recording needs root: run it with sudo" >&2; exit 1; }
cd "$(dirname "$0")/../.."
.ci/packages.sh demo record
# shellcheck source=SCRIPTDIR/lab.sh
source deploy/demo/lab.sh

trap lab_down EXIT
trap 'exit 130' INT TERM
lab_up
tcpdump -Z root -q -i "$LAB_MIRROR" --time-stamp-precision=nano -w "$file" 9>&- &
recorder=$!
sleep 1
lab_load --rounds "$rounds"
sleep 1
kill "$recorder"
wait "$recorder" || true
ls -l "$file"
