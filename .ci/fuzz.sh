#!/bin/bash
# Builds and runs every fuzz target of the project for so many seconds each: fuzz.sh SECONDS [TARGET...]
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=$1
shift
# The sanitizers need unstable options, which a stable compiler takes only with this.
export RUSTC_BOOTSTRAP=1

failed=()
for manifest in $(git ls-files --cached --others --exclude-standard '*fuzz/Cargo.toml'); do
    directory=$(dirname "$manifest")
    for target in $(cargo fuzz list --fuzz-dir "$directory"); do
        [[ $# == 0 || " $* " == *" $target "* ]] || continue
        echo "==> $directory: $target for $seconds s"
        cargo fuzz run --fuzz-dir "$directory" --target-dir "$CARGO_TARGET_DIR/fuzz" "$target" -- \
            -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 || failed+=("$directory:$target")
    done
done
if ((${#failed[@]})); then
    echo "these fuzz targets failed, their inputs are under artifacts/: ${failed[*]}" >&2
    exit 1
fi
