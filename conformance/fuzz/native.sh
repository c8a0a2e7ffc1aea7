#!/bin/sh
# Fuzzes the arithmetic coder guided by coverage, under sanitizers, where clang with libFuzzer is at hand. Run by
# `make fuzz-native`; takes CLANG (default: the newest there is), SECONDS_ (default 120) and CORPUS (a folder that is kept).
set -eu

cd "$(dirname "$0")/../.."
clang=${CLANG:-$(command -v clang++ || ls /usr/bin/clang++-* 2>/dev/null | sort -V | tail -n 1 || true)}
if [ -z "$clang" ]; then
    echo "left out: clang++ is not installed (Debian: clang and libclang-rt-dev)"
    exit 0
fi
corpus=${CORPUS:-build/fuzz-corpus}
mkdir -p build "$corpus"
native=nnc_core/native
# shellcheck disable=SC2046
"$clang" -std=c++20 -O1 -g -pthread -ffp-contract=off -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined \
    -I"$native" conformance/fuzz/payload.cpp \
    "$native"/binarizer.cpp "$native"/decoder.cpp "$native"/encoder.cpp "$native"/statistics.cpp -o build/fuzz_payload
exec build/fuzz_payload -max_len=512 -timeout=10 -rss_limit_mb=1024 -max_total_time="${SECONDS_:-120}" \
    -print_final_stats=1 -verbosity=0 "$corpus"
