# shellcheck shell=bash
# A small shop on two "hosts", network namespaces with an overlay between them. To be sourced: lab_up, lab_load, lab_down.
#
#   host 1                                                    host 2
#     client ---------\                                         /--- stock   Node (stock.js)
#     web      nginx --+-- pods --- VXLAN --[ switch ]-- VXLAN --+--- goods   Go (goods.go), over TLS
#     app     Python --+    |                   |                \--- db      MariaDB
#     cache    Redis --+    |                   |
#     dns    dnsmasq --/ mirror port       mirror port
#
# client -> web -> app -> cache, stock -> goods -> db. The switch is a bridge in a namespace of its own, so that neither the
# addresses nor the firewall of this machine play a part. Every frame that enters it is copied to a mirror port, once, and so is
# every frame of host 1's own bridge; the other ends of these ports are $LAB_MIRROR and $LAB_PODS on this machine, which have
# no address and answer nothing: as on a real mirror port, one only listens.

demo=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
PATH=$PATH:/usr/sbin:/sbin

# name=last byte of its address, of each host's namespaces
lab_pods_1=(client=10 web=20 app=30 cache=50 dns=53)
lab_pods_2=(stock=60 goods=70 db=40)

# Makes the network and starts the servers. Sets LAB, a directory that is gone after lab_down, LAB_MIRROR, LAB_PODS.
lab_up() {
    lab_clear_leftovers
    LAB=$(mktemp -d "${TMPDIR:-/tmp}/wirespan-demo.XXXX")
    chmod 711 "$LAB"
    exec 9>"$LAB/lock"
    flock 9
    LAB_MIRROR=$(lab_name mirror)
    LAB_PODS=$(lab_name pods)
    lab_network
    lab_config
    lab_servers
}

# Drives requests: lab_load [--rounds N].
lab_load() {
    lab_run client /usr/bin/python3 "$demo/load.py" --ca "$LAB/www.crt" "$@"
}

lab_down() {
    [[ -n ${LAB:-} ]] || return 0
    lab_remove "$LAB"
    unset LAB
}

# The name of a namespace or an interface of this lab.
lab_name() {
    echo "ws-${LAB##*.}-$1"
}

# Runs a command as a host of the lab: in its network, and with the lab's name server.
lab_run() {
    local host=$1
    shift
    # shellcheck disable=SC2016
    nsenter --net="/run/netns/$(lab_name "$host")" unshare --mount bash -c '
        mount --bind "$0/resolv.conf" /etc/resolv.conf
        mount --bind "$0/nsswitch.conf" /etc/nsswitch.conf
        [[ ! -d /run/nscd ]] || mount -t tmpfs none /run/nscd
        exec "$@"' "$LAB" "$@" 9>&-
}

# Starts a server as a host of the lab; what it says goes to a file of its name.
lab_start() {
    lab_run "$@" >"$LAB/$1.log" 2>&1 </dev/null 9>&- &
}

lab_network() {
    local switch
    switch=$(lab_name switch)
    lab_namespace "$switch"
    ip -n "$switch" link add name switch type bridge
    ip -n "$switch" link set dev switch up
    lab_host 1 192.0.2.1 192.0.2.2 "${lab_pods_1[@]}"
    lab_host 2 192.0.2.2 192.0.2.1 "${lab_pods_2[@]}"
    lab_mirror "$switch" "$LAB_MIRROR" host1 host2
    lab_mirror "$(lab_name host1)" "$LAB_PODS" overlay "${lab_pods_1[@]%=*}"
}

lab_namespace() {
    ip netns add "$1"
    ip netns exec "$1" sysctl -qw net.ipv6.conf.default.disable_ipv6=1
    ip -n "$1" link set dev lo up
}

# lab_host NUMBER ADDRESS PEER POD...: a host with its uplink to the switch, a bridge for its pods, and VXLAN to the other host.
lab_host() {
    local number=$1 address=$2 peer=$3 host pod name
    shift 3
    host=$(lab_name "host$number")
    lab_namespace "$host"
    ip -n "$host" link add name uplink mtu 1600 type veth peer name "host$number" mtu 1600 netns "$(lab_name switch)"
    ip -n "$(lab_name switch)" link set dev "host$number" master switch up
    ip -n "$host" address add "$address/24" dev uplink
    ip -n "$host" link set dev uplink up
    ip -n "$host" link add name pods type bridge
    ip -n "$host" link set dev pods up
    ip -n "$host" link add name overlay type vxlan id 88 local "$address" remote "$peer" dstport 4789 dev uplink
    ip -n "$host" link set dev overlay mtu 1500 master pods up
    for pod in "$@"; do
        name=$(lab_name "${pod%=*}")
        lab_namespace "$name"
        ip -n "$host" link add name "${pod%=*}" type veth peer name eth0 netns "$name"
        ip -n "$host" link set dev "${pod%=*}" master pods up
        ip -n "$name" link set dev eth0 up
        ip -n "$name" address add "10.88.0.${pod#*=}/24" dev eth0
    done
}

# lab_mirror NAMESPACE INTERFACE PORT...: copies every frame that enters by the ports to an interface of this machine.
lab_mirror() {
    local namespace=$1 interface=$2
    shift 2
    ip link add name "$interface" type veth peer name mirror netns "$namespace"
    ip link set dev "$interface" addrgenmode none arp off mtu 1600 up
    ip -n "$namespace" link set dev mirror mtu 1600 up
    ip netns exec "$namespace" nft -f - <<END
table netdev mirror {
    chain copy {
        type filter hook ingress devices = { $(IFS=,; echo "$*") } priority 0; policy accept
        dup to "mirror"
    }
}
END
}

lab_config() {
    echo "nameserver 10.88.0.53" >"$LAB/resolv.conf"
    echo "hosts: files dns" >"$LAB/nsswitch.conf"
    printf '10.88.0.%s %s\n' 10 client.demo 20 www.demo 30 app.demo 40 db.demo 50 cache.demo \
        53 dns.demo 60 stock.demo 70 goods.demo >"$LAB/hosts"
    mkdir -p "$LAB/nginx/static"
    cp "$demo/nginx.conf" "$LAB/nginx/"
    echo "<!doctype html><title>Shop</title><h1>Shop</h1>" >"$LAB/nginx/static/index.html"
    lab_certificate www
    lab_certificate goods
    cat >"$LAB/taps.yaml" <<END
taps:
  - {name: switch, kind: physical-port, device: switch, port: mirror, match: {interface: $LAB_MIRROR}}
  - {name: host 1 bridge, kind: hypervisor, device: host1, match: {interface: $LAB_PODS}}
END
    chmod -R a+rX "$LAB/nginx" "$LAB/www.crt" "$LAB/goods.crt" "$LAB/resolv.conf" "$LAB/nsswitch.conf"
}

lab_certificate() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/CN=$1.demo" \
        -addext "subjectAltName=DNS:$1.demo" -keyout "$LAB/$1.key" -out "$LAB/$1.crt" 2>/dev/null
}

lab_servers() {
    # With the driver of Debian's package, which lies outside of any Go module.
    GO111MODULE=off GOFLAGS='' GOPATH=/usr/share/gocode GOCACHE="${XDG_CACHE_HOME:-$HOME/.cache}/wirespan/go" \
        go build -o "$LAB/goods" "$demo/goods.go" 9>&-
    lab_start dns dnsmasq --keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --addn-hosts="$LAB/hosts" \
        --local=/demo/ --listen-address=10.88.0.53 --bind-interfaces --user=root --pid-file= --log-facility=-
    mariadb-install-db --no-defaults --datadir="$LAB/db" --user=root --skip-test-db --force \
        --auth-root-authentication-method=normal >"$LAB/db-install.log" 2>&1 || lab_failed db-install
    lab_start db mariadbd --no-defaults --user=root --datadir="$LAB/db" --socket="$LAB/db.sock" \
        --pid-file="$LAB/db.pid" --bind-address=10.88.0.40 --skip-name-resolve --init-file="$demo/shop.sql" \
        --innodb-buffer-pool-size=32M --innodb-flush-log-at-trx-commit=2
    lab_start cache redis-server --bind 10.88.0.50 --protected-mode no --save "" --dir "$LAB" --loglevel warning
    lab_wait db 3306
    lab_start goods "$LAB/goods" "$LAB/goods.crt" "$LAB/goods.key"
    lab_start stock node "$demo/stock.js" "$LAB/goods.crt"
    lab_start app /usr/bin/python3 "$demo/app.py"
    lab_wait cache 6379
    lab_wait goods 8443
    lab_wait stock 8001
    lab_wait app 8000
    lab_start web nginx -e "$LAB/web.log" -p "$LAB/nginx" -c nginx.conf
    lab_wait web 443
}

# Waits until a host of the lab listens on a TCP port, without a packet that would show in the demo.
lab_wait() {
    local tries
    for ((tries = 0; tries < 300; tries++)); do
        [[ -z $(nsenter --net="/run/netns/$(lab_name "$1")" ss -Hltn "sport = :$2") ]] || return 0
        sleep 0.2
    done
    lab_failed "$1"
}

lab_failed() {
    echo "the demo's $1 did not start; it said:" >&2
    tail -n 20 "$LAB/$1.log" >&2
    return 1
}

# Removes the labs of runs that were killed: their lock is free.
lab_clear_leftovers() {
    local old
    for old in "${TMPDIR:-/tmp}"/wirespan-demo.????; do
        [[ -d $old && ! -L $old && -O $old ]] || continue
        (flock --nonblock 9 && lab_remove "$old") 9>"$old/lock" || true
    done
}

# Ends every process of a lab, then removes its namespaces (and with them its links) and its directory.
lab_remove() {
    local LAB=$1 name pids signal namespaces
    namespaces=$(find /run/netns -maxdepth 1 -name "$(lab_name '*')" -printf '%f\n' 2>/dev/null || true)
    for signal in TERM KILL; do
        # Also what runs outside the namespaces on the lab's data, such as wirespan itself.
        pids=$(for name in $namespaces; do ip netns pids "$name"; done; pgrep -f -- "$LAB/data" || true)
        # shellcheck disable=SC2086
        [[ -z $pids ]] || kill -"$signal" $pids 2>/dev/null || true
        lab_wait_end "$pids"
    done
    for name in $namespaces; do ip netns del "$name"; done
    ip link del dev "$(lab_name mirror)" 2>/dev/null || true
    ip link del dev "$(lab_name pods)" 2>/dev/null || true
    rm -rf "$LAB"
}

# Waits up to 10 s for processes to end.
lab_wait_end() {
    local tries
    for ((tries = 0; tries < 100; tries++)); do
        # shellcheck disable=SC2086
        [[ -n $1 ]] && kill -0 $1 2>/dev/null || return 0
        sleep 0.1
    done
}
