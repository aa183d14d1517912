#!/bin/bash
# Boots kernels of Debian in qemu, which emulates the machine, and runs tests of live capture and tracing on them: kernels.sh [SUITE...]
# Takes three to five minutes for each on a quiet machine. What a kernel lacks is in `lacks`; everything else has to work.
# `kernels.sh --nics [SUITE...]` emulates NICs as well, and runs the tests that need one.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin

# Oldest kernel first: Linux 5.10, 6.1, 6.12, and the newest.
suites=(bullseye-security bookworm trixie trixie-backports)
nics=
if [[ ${1:-} == --nics ]]; then
    nics=yes suites=(trixie trixie-backports)
    shift
fi
(($# == 0)) || suites=("$@")

# PACKAGE TARGET TESTS. Each start of the tracer takes the emulated machine up to a minute, so there is one test of each kind.
checks=(
    "wirespan-bpf wirespan_bpf xdp:: tracer::object tracer::probes tracer::tests::calls::every_call tracer::tests::closes::close_range
        tracer::tests::mptcp tracer::tests::process::a_process tracer::tests::process::threads_whose tracer::tests::tcp::ipv4
        tracer::tests::uprobe::entries tracer::tests::uring"
    "wirespan-capture wirespan_capture kernels_from_6_6"
    "wirespan-capture af_packet"
    "wirespan-capture af_xdp"
    "wirespan-capture af_xdp_fallbacks"
    "wirespan-offload wirespan_offload tests::veth"
    "wirespan-syscalls live processes_are_told"
    "wirespan-syscalls tls openssl gnutls ktls"
)

# By the beginning of a kernel's version: tests, and targets, of what it does not have.
declare -A lacks=(
    # Of veth, it has no channels that could be set.
    [5.10]="af_xdp af_xdp_fallbacks xdp::tests a_fanout_group_looks close_range uring a_start_on_the_same auto_sets_up refusals_are_told
        the_next_start"
    [6.1.]="the_nic_tells each_mode jumbo_frames the_longest_frames uring"
    # Of 40 threads at once, it leaves out runs of the tracer's programs, and counts them.
    [7.]="threads_whose"
)

# For the disk of the host, then for what the tests make or ask for.
modules=(virtio_pci 9pnet_virtio 9p overlay veth tun dummy vxlan sch_netem tls aesni_intel gcm ghash_generic ctr)

# With --nics: two of each, with a wire between them. NAME DEVICE QUEUES; 0 queues are as many as the device has by itself.
devices=("igb igb 0" "vio virtio-net-pci 4" "viq virtio-net-pci 8" "vmx vmxnet3 0" "e1k e1000e 0")
# How AF_XDP best takes frames from them, by the beginning of a kernel's version; where it is not said, in generic mode. viq has
# more queues than CPUs, so that its driver adds some for the XDP program.
declare -A modes=(
    [6.12]="igb:copy vio:copy viq:copy vmx:copy"
    [7.]="igb:zero-copy vio:zero-copy viq:copy vmx:copy"
)
cpus=2
if [[ $nics ]]; then
    cpus=4
    checks=("wirespan-capture nics --ignored --skip until_killed")
    modules+=(igb e1000e vmxnet3 virtio_net)
fi

cache=${XDG_CACHE_HOME:-$HOME/.cache}/wirespan/kernels
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# apt of a suite, apart from the machine's own.
apt_of() {
    local suite=$1 command=$2 lists=$cache/$1/apt
    shift 2
    "$command" -o Dir::Etc::sourcelist="$lists/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$lists/lists" \
        -o Dir::Cache="$lists" -o Acquire::Languages=none -o APT::Sandbox::User=root "$@"
}

# Reads what a suite has.
update() {
    local suite=$1 label=Debian mirror
    mkdir -p "$cache/$suite"/apt/lists/partial
    [[ $suite != *-security ]] || label=Debian-Security
    mirror=$(apt-get indextargets --format "\$(LABEL) \$(REPO_URI)" | awk -v label="$label" '$1 == label { print $2; exit }')
    [[ $mirror ]] || { echo "apt knows no mirror of $label: this needs Debian" >&2; exit 1; }
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$cache/$suite/apt/sources.list"
    apt_of "$suite" apt-get -qq update
}

# Unpacks the kernel of a suite into the cache.
fetch() {
    local suite=$1 image packages
    local directory=$cache/$1
    update "$suite"
    image=$(apt_of "$suite" apt-cache depends linux-image-amd64 | awk '/Depends: linux-image/ { print $2 }')
    [[ ! -e $directory/$image ]] || return 0
    echo "==> fetching $image"
    # The newest are in several packages.
    packages=$(apt_of "$suite" apt-cache depends "$image" | awk '/Depends: linux-(binary|modules)/ { print $2 }')
    rm -rf "$directory"/{new,linux-image-*}
    mkdir "$directory/new"
    # shellcheck disable=SC2086 # these are names
    (cd "$scratch" && apt_of "$suite" apt-get -qq download "$image" $packages)
    for package in "$scratch"/*.deb; do
        dpkg-deb -x "$package" "$directory/new"
        rm "$package"
    done
    [[ ! -e $directory/new/usr/lib/modules ]] || mv "$directory/new/usr/lib" "$directory/new/lib"
    depmod -b "$directory/new" "$(ls "$directory/new/lib/modules")" 2>/dev/null
    mv "$directory/new" "$directory/$image"
}

# The emulator: that of the machine, or where it is older than 8.0 and has no igb, the newer one that is made for this Debian.
fetch_qemu() {
    local release usr=$cache/qemu/usr
    [[ $(qemu-system-x86_64 -device help) != *'"igb"'* ]] || return 0
    if [[ ! -e $cache/qemu ]]; then
        release=$(. /etc/os-release && echo "$VERSION_CODENAME-backports")
        echo "==> fetching the qemu of $release"
        update "$release"
        rm -rf "$cache/qemu.new"
        (cd "$scratch" && apt_of "$release" apt-get -qq download qemu-system-{x86,common,data} seabios)
        for package in "$scratch"/*.deb; do
            dpkg-deb -x "$package" "$cache/qemu.new"
            rm "$package"
        done
        mv "$cache/qemu.new" "$cache/qemu"
    fi
    export QEMU_MODULE_DIR=$usr/lib/x86_64-linux-gnu/qemu
    qemu=("$usr/bin/qemu-system-x86_64" -L "$usr/share/seabios" -L "$usr/share/qemu")
}

# What emulates the NICs. Several queues of virtio need a tap for each end, and a bridge; else qemu's own hub is the wire.
write_nics() {
    local device name kind queues end wire=0 id backend options arguments=(-M q35)
    # The kernel that has the wires sends nothing of its own.
    local wires=("sysctl -qw net.ipv6.conf.default.disable_ipv6=1")
    for device in "${devices[@]}"; do
        read -r name kind queues <<<"$device"
        wire=$((wire + 1))
        ((queues == 0)) || wires+=("ip link add bridge$wire type bridge mcast_snooping 0")
        for end in 0 1; do
            id=$name$end options=romfile=,mac=52:54:00:00:0$wire:0$end backend=hubport,hubid=$wire
            if ((queues > 0)); then
                wires+=("ip tuntap add $id mode tap multi_queue vnet_hdr" "ip link set $id mtu 9100 master bridge$wire up")
                backend=tap,ifname=$id,script=no,downscript=no,queues=$queues
                # Without the last two, the driver leaves DMA to the device, and has no zero-copy.
                options+=,mq=on,vectors=$((2 * queues + 2)),rss=on,hash=on,iommu_platform=on,disable-legacy=on
            fi
            arguments+=(-netdev "$backend,id=$id" -device "pcie-root-port,id=port-$id,chassis=$wire$end"
                -device "$kind,netdev=$id,bus=port-$id,$options")
        done
        ((queues == 0)) || wires+=("ip link set bridge$wire up")
    done
    # The wires are in a network namespace of the emulator's own, and go with it.
    printf '%s || exit\n' "${wires[@]}" 'exec "$@"' >"$scratch/wires"
    qemu=(unshare -n bash "$scratch/wires" "${qemu[@]}" "${arguments[@]}")
}

# What boots: loads modules, lays a file system in memory over the host's, which stays as it is, and runs a script there.
write_initrd() {
    local kernel=$1 version=$2 root=$scratch/root number=100 module
    rm -rf "$root"
    mkdir -p "$root"/{bin,modules,proc,sys,dev,host,memory,new}
    cp "$(command -v busybox)" "$root/bin/busybox"
    for module in "${modules[@]}"; do
        # What is built in has none.
        modprobe -d "$kernel" -S "$version" --show-depends "$module" 2>/dev/null || true
    done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r module; do
        number=$((number + 1))
        case $module in
        *.xz) xz -dc "$module" >"$root/modules/$number" ;;
        *) cp "$module" "$root/modules/$number" ;;
        esac
    done
    cat >"$root/init" <<'END'
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in /modules/*; do insmod "$module"; done
mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=512000 host /host
mount -t tmpfs -o size=2g memory /memory
mkdir /memory/upper /memory/work
mount -t overlay -o lowerdir=/host,upperdir=/memory/upper,workdir=/memory/work overlay /new
for directory in proc sys dev; do mount --move /$directory /new/$directory; done
mkdir -p /new/dev/pts /new/dev/shm
mount -t devpts devpts /new/dev/pts
mount -t tmpfs memory /new/dev/shm
mount -t tmpfs memory /new/run
mount -t tmpfs memory /new/var/tmp
mount -t cgroup2 cgroup /new/sys/fs/cgroup
mount -t tracefs tracefs /new/sys/kernel/tracing
ip link set lo up
script=$(sed 's/.*script=\([^ ]*\).*/\1/' /new/proc/cmdline)
exec switch_root /new /bin/bash "$script" </new/dev/null
END
    chmod +x "$root/init"
    (cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$scratch/initrd"
}

# The programs of the tests, `PACKAGE TARGET DIRECTORY FILE` a line.
build() {
    local check packages=()
    for check in "${checks[@]}"; do packages+=(-p "${check%% *}"); done
    cargo test --no-run --locked "${packages[@]}" --message-format=json-render-diagnostics | python3 -c '
import json, os, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("executable") and message["profile"]["test"]:
        directory = os.path.dirname(message["manifest_path"])
        package = open(directory + "/Cargo.toml").read().split("name = \"", 1)[1].split("\"")[0]
        print(package, message["target"]["name"], directory, message["executable"])
'
}

# What the guest does for a kernel of a version: looks at itself, then runs the tests, and switches itself off.
write_script() {
    local version=$1 check package target names directory file name skip="" key
    for key in "${!lacks[@]}"; do
        [[ $version != "$key"* ]] || for name in ${lacks[$key]}; do skip+=" --skip $name"; done
    done
    echo "export CI=true HOME='$HOME' PATH='$PATH' WIRESPAN_LIBCHDB='${WIRESPAN_LIBCHDB:-}'"
    [[ ${WIRESPAN_LIBCHDB:-} ]] || echo "unset WIRESPAN_LIBCHDB"
    if [[ $nics ]]; then
        name_nics "$version"
    else
        echo "ip link add veth0 type veth peer name veth1"
        echo "'$wirespan' probe -i veth0; ip link del veth0"
    fi
    for check in "${checks[@]}"; do
        read -r -d '' package target names <<<"$check" || true
        [[ "$skip " != *" --skip $target "* ]] || continue
        read -r directory file < <(awk -v p="$package" -v t="$target" '$1 == p && $2 == t { print $3, $4 }' "$scratch/programs")
        echo "cd '$directory' && echo '=== $package $target' && timeout 2400 '$file' --test-threads=1 --show-output ${names//$'\n'/ }$skip" \
            "&& echo 'RESULT ok $package $target' || echo 'RESULT failed $package $target'"
    done
    echo "echo RESULT end; sync; echo o >/proc/sysrq-trigger; exec sleep 60"
}

# Gives the NICs their names, by their addresses, and tells the tests of them.
name_nics() {
    local version=$1 device name wire=0 key known="" mode pairs=()
    for key in "${!modes[@]}"; do [[ $version != "$key"* ]] || known=${modes[$key]}; done
    for device in "${devices[@]}"; do
        name=${device%% *} wire=$((wire + 1)) mode=generic
        [[ " $known " != *" $name:"* ]] || { mode=${known#*"$name:"} mode=${mode%% *}; }
        pairs+=("${name}0:${name}1:$mode")
        for end in 0 1; do
            echo "found=\$(grep -l 52:54:00:00:0$wire:0$end /sys/class/net/*/address) && ip link set \$(basename \${found%/address}) name $name$end"
        done
    done
    echo "export WIRESPAN_TEST_NICS=$(IFS=, && echo "${pairs[*]}")"
}

.ci/packages.sh build test kernels
echo "==> building the tests"
build >"$scratch/programs"
cargo build --locked -p wirespan
wirespan=$(realpath "${CARGO_TARGET_DIR:-target}")/debug/wirespan

qemu=(qemu-system-x86_64)
if [[ $nics ]]; then
    fetch_qemu
    write_nics
fi

failed=0
for suite in "${suites[@]}"; do
    fetch "$suite"
    kernel=$(echo "$cache/$suite"/linux-image-*)
    version=$(ls "$kernel/lib/modules")
    log=$cache/$version${nics:+.nics}.log
    echo "==> Linux $version ($suite); what it says is in $log"
    write_initrd "$kernel" "$version"
    write_script "$version" >"$scratch/script"
    cp "$scratch/script" "${log%.log}.script"
    vmlinuz=$(find "$kernel" -name 'vmlinuz*')
    timeout 3600 "${qemu[@]}" -accel tcg,thread=multi -cpu max -smp "$cpus" -m 4G -nographic -nodefaults -no-reboot -serial stdio \
        -kernel "$vmlinuz" -initrd "$scratch/initrd" -append "console=ttyS0 quiet no_timer_check panic=-1 script=${log%.log}.script" \
        -virtfs local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap </dev/null >"$log" 2>&1 || true
    grep -a '^RESULT\|^skipped\|^test .*FAILED' "$log" || true
    if ! grep -aq '^RESULT end' "$log" || grep -aq '^RESULT failed' "$log"; then
        echo "Linux $version failed" >&2
        failed=1
    fi
done
exit "$failed"
