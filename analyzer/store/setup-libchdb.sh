#!/bin/sh
# Installs the embedded ClickHouse engine (libchdb.so) into the user's cache, checked by checksum. Does nothing when it is
# there and right. Needs npm (Debian: apt-get install npm), which knows the registry; npm's own settings apply.
set -eu

version=26.5.3 # the same as LIBCHDB_VERSION in src/engine/locate.rs
case "$(uname -m)" in
x86_64)
    package=@chdb/lib-linux-x64-gnu
    checksum=4330da79405733f7572f27c1442f46c03a08301f00859dce0368645731b1e1dc
    ;;
*)
    echo "No package of libchdb $version for $(uname -m): build libchdb.so and name it with WIRESPAN_LIBCHDB." >&2
    exit 1
    ;;
esac

target=${XDG_CACHE_HOME:-$HOME/.cache}/wirespan/libchdb/$version
is_right() { [ -f "$1" ] && [ "$(sha256sum <"$1" | cut -d ' ' -f 1)" = "$checksum" ]; }

if is_right "$target/libchdb.so"; then
    echo "libchdb $version is in $target"
    exit 0
fi
command -v npm >/dev/null || { echo "npm is missing: apt-get install npm" >&2; exit 1; }

mkdir -p "$target"
scratch=$(mktemp -d "$target/fetch.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' INT TERM
echo "Fetching $package $version (160 MB) into $target"
(cd "$scratch" && npm pack --loglevel=error "$package@$version" >/dev/null && tar -xzf ./*.tgz package/libchdb.so)
is_right "$scratch/package/libchdb.so" || { echo "libchdb.so is not the one expected: its checksum differs" >&2; exit 1; }
mv "$scratch/package/libchdb.so" "$target/libchdb.so"
echo "libchdb $version is in $target"
