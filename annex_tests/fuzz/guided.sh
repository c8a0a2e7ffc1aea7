#!/bin/sh
# Fuzzes every reader guided by the coverage of its Python code, where atheris can be had. Run by `make fuzz-python`;
# takes PYTHON (default python3), SECONDS_ (default 120) and CORPUS (a folder that is kept, and kept small).
set -eu

cd "$(dirname "$0")/../.."
root=$PWD environment=$PWD/build/fuzz-python
corpus=${CORPUS:-$root/build/fuzz-python-corpus}
python=$environment/bin/python
[ -x "$python" ] || "${PYTHON:-python3}" -m venv "$environment"
if ! "$python" -m pip install --quiet --disable-pip-version-check --no-compile atheris flatbuffers; then
    echo "left out: atheris cannot be had for $("$python" --version)"
    exit 0
fi
# A copy: what is installed as editable is imported in a way that atheris does not see.
"$python" -m pip install --quiet --disable-pip-version-check --no-compile \
    --config-settings=build-dir=build/fuzz-python/native '.[onnx,tensorflow,zarr]'
"$python" -m pip install --quiet --disable-pip-version-check --no-compile --no-deps --force-reinstall \
    --config-settings=build-dir=build/fuzz-python/native .
echo "$root" >"$(echo "$environment"/lib/python3*/site-packages)/tests.pth"

cd build
"$python" -m annex_tests.fuzz.guided "$corpus" -max_total_time="${SECONDS_:-120}" -timeout=30 -rss_limit_mb=2048 \
    -print_final_stats=1 -verbosity=0 -artifact_prefix="$root/build/"
if [ "$(find "$corpus" -type f | wc -l)" -gt 5000 ]; then
    rm -rf "$corpus.large"
    mv "$corpus" "$corpus.large"
    "$python" -m annex_tests.fuzz.guided "$corpus" -merge=1 "$corpus.large"
    rm -r "$corpus.large"
fi
