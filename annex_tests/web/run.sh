#!/bin/sh
# Test pages in a headless browser: the one that NNC_BROWSER names, one that is installed, or one that is installed now.
# Where none can be had the tests are skipped, and it is said why. Usage: run.sh PYTHON [pytest arguments]
set -eu
python=$1
shift

browser() {
    for name in ${NNC_BROWSER:-chromium chromium-browser google-chrome google-chrome-stable}; do
        if command -v "$name"; then return; fi
    done
    false
}

install() {
    [ "$(id -u)" = 0 ] || { echo "only root may install packages"; return 1; }
    command -v apt-get > /dev/null || { echo "there is no apt-get to install chromium with"; return 1; }
    export DEBIAN_FRONTEND=noninteractive
    timeout 240 sh -c 'apt-get -qq update && apt-get -qq install -y --no-install-recommends chromium' > /dev/null 2>&1 ||
        { echo "apt-get cannot install chromium"; return 1; }
}

skip() {
    echo "skipped: no browser was found, and $1"
    exit 0
}

if ! browser > /dev/null; then
    reason=$(install) || skip "$reason"
fi
NNC_BROWSER=$(browser) || skip "none is called $NNC_BROWSER"
export NNC_BROWSER
exec "$python" -m pytest annex_tests/web "$@"
