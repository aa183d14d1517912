#!/bin/bash
# The demo: real servers and their requests on two "hosts" in network namespaces, watched by wirespan on two mirror ports and at
# their system calls.
# run.sh WIRESPAN. Ends on Ctrl-C, or with ONCE=1 as soon as it has shown what it saw. Needs root.
set -euo pipefail
wirespan=$(realpath "$1")
if ((EUID != 0)); then
    command -v sudo >/dev/null || { echo "the demo makes network namespaces, which needs root: run it as root" >&2; exit 1; }
    echo "==> the demo makes network namespaces, which needs root: asking sudo"
    exec sudo --preserve-env=ONCE,WIRESPAN_LIBCHDB,XDG_CACHE_HOME,HOME "$0" "$wirespan"
fi
# shellcheck source=SCRIPTDIR/lab.sh
source "$(dirname "$(realpath "$0")")/lab.sh"

# 7700 and 8123 unless they are taken.
free_port() {
    local port=$1
    while [[ -n $(ss -Hltn "sport = :$port") ]]; do port=$((port + 1)); done
    echo "$port"
}

expected="HTTP MySQL Redis DNS TLS"
# Programs that one trace goes through.
chain="nginx python3 node goods redis-server mariadbd"
# With ONCE=1, how long to wait until all of them were seen.
patience_s=60

say() {
    printf '\n==> %s\n' "$*"
}

ask() {
    "$wirespan" query "$1"
}

up() {
    "$wirespan" up -i "$LAB_MIRROR,$LAB_PODS" --taps "$LAB/taps.yaml" --tracer on --data "$LAB/data" --hosts "$LAB/hosts" --listen "$page" \
        --clickhouse-listen "$clickhouse" 9>&- >"$LAB/wirespan.log" 2>&1 </dev/null &
    wirespan_pid=$!
    local tries
    for ((tries = 0; tries < 150; tries++)); do
        curl -sf "http://$page/api/health" >/dev/null && return
        kill -0 "$wirespan_pid" 2>/dev/null || break
        sleep 0.2
    done
    echo "wirespan did not start; it said:" >&2
    cat "$LAB/wirespan.log" >&2
    return 1
}

# The expected protocols that have no request in the store.
missing() {
    local seen protocol
    seen=$(ask "SELECT DISTINCT l7_protocol FROM l7_log")
    for protocol in $expected; do
        grep -qw "$protocol" <<<"$seen" || echo "$protocol"
    done
}

# A trace that goes through most programs and was seen at most of their ends, as the latest was not yet; if possible one without errors.
whole_trace() {
    ask "SELECT lower(hex(trace_key)) AS trace FROM l7_log WHERE trace_key != 0 GROUP BY trace_key
        ORDER BY uniqExact(process_name) DESC, uniqExact(process_name, observation_point) DESC, countIf(response_status != 'ok'), count(), trace_key LIMIT 1" | tail -n 1
}

show() {
    say "rate, errors and duration of every service (wirespan top --once)"
    "$wirespan" top --once
    say "the service map (GET /api/map)"
    curl -sf "http://$page/api/map" | /usr/bin/python3 "$demo/show_map.py"
    say "latest requests, by SQL (wirespan query)"
    ask "SELECT start_time, l7_protocol, dictGet('names', 'name', client_ip) AS client,
        dictGet('names', 'name', server_ip) AS server, process_name, request_type, endpoint, response_status AS status,
        duration_us FROM l7_log WHERE observation_point = 's-p' AND l7_protocol != 'DNS' ORDER BY start_time DESC LIMIT 8"
    say "one request through every program and mirror port (wirespan trace ID)"
    "$wirespan" trace "$(whole_trace)" | tee "$LAB/trace"
    say "what the shop's database spent its time on, by SQL"
    ask "SELECT endpoint, count() AS requests, round(avg(duration_us) / 1000, 2) AS mean_ms,
        countIf(response_status = 'server_error') AS errors
        FROM l7_log WHERE l7_protocol = 'MySQL' AND observation_point = 's-p' GROUP BY endpoint ORDER BY sum(duration_us) DESC LIMIT 5"
}

trap 'trap "" INT TERM; lab_down' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say "starting nginx, Python, Node, Go, MariaDB, Redis and a DNS server on two hosts with VXLAN between them"
lab_up
page=127.0.0.1:$(free_port 7700)
clickhouse=127.0.0.1:$(free_port 8123)
# `wirespan query` and `wirespan top` ask there.
export WIRESPAN_SERVER=http://$page
say "watching mirror ports of their switch ($LAB_MIRROR) and of a host's bridge ($LAB_PODS), and their system calls"
up
lab_load --rounds 0 9>&- >"$LAB/load.log" 2>&1 &
say "requests are running; the first table comes in 20 s; the page is at http://$page/"
sleep 20 9>&- &
wait $!
if [[ ${ONCE:-} == 1 ]]; then
    for ((end = SECONDS + patience_s; SECONDS < end; )); do
        [[ -n $(missing) ]] || break
        sleep 2
    done
fi
show
if [[ ${ONCE:-} == 1 ]]; then
    lacking=$(missing)
    if [[ -n $lacking ]]; then
        echo "the demo failed: no request of ${lacking//$'\n'/, } was seen; wirespan said:" >&2
        cat "$LAB/wirespan.log" >&2
        exit 1
    fi
    for program in $chain; do
        grep -qw "$program" "$LAB/trace" || { echo "the demo failed: no trace goes through $program" >&2; exit 1; }
    done
    say "every expected protocol was seen ($expected), and one trace through $chain; stopping"
    kill -TERM "$wirespan_pid"
    wait "$wirespan_pid"
    tail -n 1 "$LAB/wirespan.log"
else
    say "the page is at http://$page/; Ctrl-C stops and removes everything"
    wait "$wirespan_pid"
fi
