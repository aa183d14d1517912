#!/bin/bash
# Installs the Debian packages that parts of the project need: packages.sh GROUP...
# What is there already is left alone. Services that come with a package are neither started nor enabled.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

# PACKAGE:PROBE. The package is needed when no PROBE (alternatives by |) is a command or an existing path.
declare -A groups=(
    [build]="gcc:cc libc6-dev:/usr/include/stdio.h ca-certificates:/etc/ssl/certs/ca-certificates.crt
        clang:clang|clang-19|clang-18|clang-17|clang-16|clang-15|clang-14
        libbpf-dev:/usr/include/bpf/bpf_helpers.h linux-libc-dev:/usr/include/linux/bpf.h"
    [lint]="python3:/usr/bin/python3 shellcheck:shellcheck"
    [test]="iproute2:ip procps:sysctl curl:curl openssl:openssl python3:/usr/bin/python3 nodejs:node nginx:nginx redis-server:redis-server
        gnutls-bin:gnutls-serv golang-go:go golang-google-grpc-dev:/usr/share/gocode/src/google.golang.org/grpc default-jdk-headless:javac"
    [web]="nodejs:node npm:npm chromium:chromium"
    [engine]="npm:npm"
    [fuzz]="g++:c++"
    [demo]="iproute2:ip nftables:nft procps:sysctl openssl:openssl curl:curl nginx:nginx redis-server:redis-server
        mariadb-server-core:mariadbd mariadb-client-core:mariadb dnsmasq-base:dnsmasq python3:/usr/bin/python3
        python3-aiohttp:/usr/lib/python3/dist-packages/aiohttp python3-redis:/usr/lib/python3/dist-packages/redis
        nodejs:node golang-go:go golang-github-go-sql-driver-mysql-dev:/usr/share/gocode/src/github.com/go-sql-driver/mysql"
    [accuracy]="iproute2:ip nftables:nft tcpdump:tcpdump curl:curl openssl:openssl python3:/usr/bin/python3 nodejs:node
        default-jdk-headless:javac golang-go:go golang-google-grpc-dev:/usr/share/gocode/src/google.golang.org/grpc
        nginx:nginx haproxy:haproxy redis-server:redis-server dnsmasq-base:dnsmasq"
    [dpdk]="libdpdk-dev:/usr/include/dpdk pkg-config:pkg-config"
    [instructions]="valgrind:valgrind"
    [bench]="iproute2:ip libndpi-bin:ndpiReader tcpdump:tcpdump nginx:nginx wrk:wrk
        python3:/usr/bin/python3 golang-go:go"
    [peers]="tshark:tshark python3-venv:/usr/share/doc/python3-venv"
    [record]="tcpdump:tcpdump"
    [kernels]="qemu-system-x86:qemu-system-x86_64 busybox-static:busybox cpio:cpio kmod:depmod xz-utils:xz"
)
# Packages that Debian enables as a service of the same name.
services=(nginx haproxy redis-server)

is_there() {
    local probe
    for probe in ${1//|/ }; do
        if [[ $probe == /* ]]; then [[ -e $probe ]] && return 0; else command -v "$probe" >/dev/null && return 0; fi
    done
    return 1
}

as_root() {
    if ((EUID == 0)); then "$@"; else sudo "$@"; fi
}

# A bare debootstrap lacks this line, and many programs rely on it.
if ! getent hosts localhost >/dev/null; then
    echo "==> naming 127.0.0.1 localhost in /etc/hosts"
    echo "127.0.0.1 localhost" | as_root tee -a /etc/hosts >/dev/null
fi

missing=()
for group in "$@"; do
    for entry in ${groups[$group]:?there is no group $group}; do
        package=${entry%%:*}
        [[ " ${missing[*]} " == *" $package "* ]] || is_there "${entry#*:}" || missing+=("$package")
    done
done
((${#missing[@]})) || exit 0

if ! command -v apt-get >/dev/null; then
    echo "wirespan needs these packages (Debian's names); install them with your package manager: ${missing[*]}" >&2
    exit 1
fi
if ((EUID != 0)) && ! command -v sudo >/dev/null; then
    echo "wirespan needs packages that only root may install; as root, run: apt-get install ${missing[*]}" >&2
    exit 1
fi

echo "==> installing Debian packages: ${missing[*]}"
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
    trap 'as_root rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod +x "$policy"
fi
apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0)
log=$(mktemp)
if ! { as_root "${apt[@]}" update && as_root "${apt[@]}" install -y --no-install-recommends "${missing[@]}"; } </dev/null >"$log" 2>&1; then
    cat "$log" >&2
    echo "apt-get failed, see above; what is missing: ${missing[*]}" >&2
    exit 1
fi
rm "$log"
if command -v systemctl >/dev/null; then
    for service in "${services[@]}"; do
        [[ " ${missing[*]} " != *" $service "* ]] || as_root systemctl --quiet disable "$service" 2>/dev/null || true
    done
fi
