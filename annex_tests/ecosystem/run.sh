#!/bin/sh
# Test what needs environments of its own, part by part; what cannot be had is skipped, and it is said why.
# Usage: run.sh PYTHON [PART...]. A part is a function below that names its environment, what is installed there, and its
# tests, or that runs others. Environments lie in .ecosystem, on top of the one of PYTHON: what is there is not installed again.
set -u
python=$1
shift

flower() { part clusters 'flwr[simulation]>=1.42 distributed>=2024 psutil' test_flower.py; }
machines() { part clusters 'flwr[simulation]>=1.42 distributed>=2024 psutil' test_machines.py; }
huggingface() { part hub 'transformers>=5' test_huggingface.py; }

wasm() { nnc_core/wasm/test.sh && annex_tests/web/run.sh "$python" -k wasm; }

INSTALLING=240 TESTING=300 # seconds; in an environment that is slower the part is skipped

part() {
    env=.ecosystem/$1
    reason=$(ready "$env" "$2" 2>&1) || { echo "skipped: $reason"; return 0; }
    id=nnc-$$-$(date +%s)
    NNC_PART=$id timeout "$TESTING" "$env/bin/python" -m pytest "annex_tests/ecosystem/$3"
    result=$?
    end_what_is_left "$id"
    [ $result != 124 ] || { echo "skipped: $3 takes longer than $TESTING seconds here"; return 0; }
    return $result
}

ready() {
    [ "$(cat "$1/.ready" 2> /dev/null)" != "$2" ] || return 0
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "needs Python 3.11 or newer"; return 1; }
    base=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
    rm -rf "$1"
    "$python" -m venv "$1" || { echo "venv cannot make $1"; return 1; }
    # Flower's clients would load TensorFlow, each for many seconds, if they found it.
    echo "import site, sys; site.addsitedir('$base'); sys.modules['tensorflow'] = None" > \
        "$("$1/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/base.pth"
    # shellcheck disable=SC2086  # several requirements
    timeout "$INSTALLING" "$1/bin/python" -m pip --quiet --disable-pip-version-check install --no-compile $2 > "$1/log" 2>&1 ||
        { echo "pip cannot install $2: $(tail -1 "$1/log")"; return 1; }
    echo "$2" > "$1/.ready"
}

# Clusters end with their tests; where a test was stopped, they are told apart by what they have inherited.
end_what_is_left() {
    for file in $(grep -lszx "NNC_PART=$1" /proc/[0-9]*/environ); do
        process=${file#/proc/}
        kill -9 "${process%/environ}" 2> /dev/null
    done
}

failed=0
for name in "${@:-flower machines huggingface wasm}"; do
    for each in $name; do
        echo "test-ecosystem: $each"
        "$each" || failed=1
    done
done
exit $failed
