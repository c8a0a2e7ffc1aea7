#!/bin/sh
# Compares what the native code makes of the same numbers on this processor and on others, which qemu emulates, where
# compilers for these and qemu are at hand (Debian: g++-aarch64-linux-gnu, qemu-user-static). Run by `make
# other-processors`.
set -eu

cd "$(dirname "$0")/../.."
native=nnc_core/native
mkdir -p build
sources=""
for source in "$native"/*.cpp; do
    case $source in */bindings.cpp | */calibrated.cpp) ;; *) sources="$sources $source" ;; esac
done

build() {  # COMPILER TARGET
    # shellcheck disable=SC2086
    "$1" -std=c++20 -O2 -pthread -static -ffp-contract=off -I"$native" conformance/packaging/digest.cpp $sources -o "$2"
}

build "${CXX:-g++}" build/digest
expected=$(build/digest)
echo "$(uname -m): $expected"
for machine in aarch64 riscv64 s390x; do
    compiler=$machine-linux-gnu-g++
    emulator=$(command -v "qemu-$machine-static" || command -v "qemu-$machine" || true)
    if ! command -v "$compiler" >/dev/null || [ -z "$emulator" ]; then
        echo "$machine: left out, $compiler or qemu-$machine is not installed"
        continue
    fi
    build "$compiler" "build/digest-$machine"
    found=$("$emulator" "build/digest-$machine")
    echo "$machine: $found"
    [ "$found" = "$expected" ] || { echo "the results differ"; exit 1; }
done
