"""Prints the answer of /api/map as lines: who calls whom."""

import json
import sys

for edge in json.load(sys.stdin)["edges"]:
    client = edge["client_name"] or edge["client_ip"]
    server = f"{edge['server_name'] or edge['server_ip']}:{edge['server_port']}"
    print(
        f"{client:>12} -> {server:16} {','.join(edge['l7_protocols']):8} {edge['rate']:7.1f} req/s "
        f"{edge['error_ratio']:6.1%} errors  p95 {edge['p95_us'] / 1000:8.2f} ms"
    )
