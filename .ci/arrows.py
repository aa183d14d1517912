"""Fails when a crate depends on one that it must not know: dependencies point one way, along the data."""

import json
import subprocess
import sys

# crate: the workspace crates that it may use. See "Crates" in ARCHITECTURE.md.
ALLOWED = {
    "wirespan-frame": [],
    "wirespan-records": [],
    "wirespan-headers": ["wirespan-frame", "wirespan-records"],
    "wirespan-event": ["wirespan-records"],
    "wirespan-bpf": ["wirespan-frame", "wirespan-event"],
    "wirespan-controller": [],
    "wirespan-capture": ["wirespan-frame", "wirespan-headers", "wirespan-records", "wirespan-bpf"],
    "wirespan-dpdk": ["wirespan-capture", "wirespan-frame"],
    "wirespan-offload": ["wirespan-frame", "wirespan-bpf"],
    "wirespan-syscalls": ["wirespan-bpf", "wirespan-event", "wirespan-records"],
    "wirespan-l7": ["wirespan-records"],
    "wirespan-dataplane": ["wirespan-frame", "wirespan-headers", "wirespan-records", "wirespan-l7"],
    "wirespan-host": ["wirespan-event", "wirespan-records", "wirespan-l7"],
    "wirespan-stitch": ["wirespan-records"],
    "wirespan-store": ["wirespan-records"],
    "wirespan-analyzer": [
        "wirespan-controller",
        "wirespan-dataplane",
        "wirespan-l7",
        "wirespan-records",
        "wirespan-stitch",
        "wirespan-store",
    ],
}
# These wire everything together; nothing depends on them.
TOPS = ["wirespan", "wirespan-perf"]

command = ["cargo", "metadata", "--format-version", "1", "--no-deps", "--locked"]
packages = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)["packages"]
ours = {package["name"] for package in packages}
wrong = [f"{name} has no line in .ci/arrows.py" for name in sorted(ours - ALLOWED.keys() - set(TOPS))]
for package in packages:
    name = package["name"]
    allowed = ours - set(TOPS) if name in TOPS else ALLOWED.get(name, ours)
    for dependency in package["dependencies"]:
        if dependency["kind"] != "dev" and dependency["name"] in ours and dependency["name"] not in allowed:
            wrong.append(f"{name} depends on {dependency['name']}")
if wrong:
    sys.exit("the crates' dependencies must point along the data: " + "; ".join(wrong))
print(f"{len(packages)} crates, dependencies point one way")
