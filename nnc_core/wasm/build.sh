#!/bin/sh
# Builds the decoder for browsers and Node into dist/: the arithmetic decoder with emscripten, the rest with esbuild.
# Run by `make wasm`. Exit code 3 says that a tool is missing.
set -eu
cd "$(dirname "$0")"

need() {
    command -v "$1" > /dev/null && return
    echo "$1 is not installed; $2" >&2
    exit 3
}
need emcc "try: apt-get install emscripten (about 800 MB), or see https://emscripten.org"
need node "version 18 or newer is needed; try: apt-get install nodejs, or see https://nodejs.org"
need npm "it comes with Node; try: apt-get install npm"

npm ci --silent --no-audit --no-fund || {
    echo "npm cannot install esbuild and typescript, which package-lock.json names" >&2
    exit 3
}
rm -rf dist
mkdir dist
# Debian's emscripten finds its own modules only with Debian's node.
NODE_PATH=${NODE_PATH:-/usr/share/nodejs} emcc -std=c++20 -O3 -DNDEBUG -flto -fno-unroll-loops -Wall -Wextra -ffp-contract=off \
    -fwasm-exceptions -mbulk-memory -fvisibility=hidden -I../native api.cpp ../native/decoder.cpp -o dist/nnr.wasm \
    -s STANDALONE_WASM=1 --no-entry -s ALLOW_MEMORY_GROWTH=1 -s MAXIMUM_MEMORY=4GB -s MALLOC=emmalloc \
    -s BINARYEN_EXTRA_PASSES=--one-caller-inline-max-function-size=10
chmod 644 dist/nnr.wasm
npx tsc --project . --emitDeclarationOnly
npx tsc --project demo
npx esbuild src/index.ts src/engine.ts src/report.ts src/worker.ts --bundle --splitting --minify --format=esm \
    --target=es2022 --platform=neutral '--external:node:*' --outdir=dist --log-level=warning
node demo/build.mjs
cp ../../LICENSE dist/
