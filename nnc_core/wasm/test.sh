#!/bin/sh
# Builds and tests the decoder for browsers and Node; where a tool is missing it says so and does nothing.
# Run by `make test-wasm`.
set -eu
cd "$(dirname "$0")"

code=0
reason=$(./build.sh 2>&1) || code=$?
if [ "$code" = 3 ]; then
    echo "skipped: $reason"
    exit 0
fi
echo "$reason"
[ "$code" = 0 ] || exit "$code"
exec node --test "$@" test/*.test.mjs
