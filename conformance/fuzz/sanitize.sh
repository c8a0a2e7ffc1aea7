#!/bin/sh
# Builds the native code with AddressSanitizer and UndefinedBehaviorSanitizer, and runs its tests and the fuzzer on it.
# Run by `make sanitize`; takes PYTHON (default python3), CASES, CUTS and SEED. Any report of a sanitizer ends it with
# an error.
set -eu

cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
PATH=$(dirname "$(command -v "$python")"):$PATH  # for its cmake
tree=$PWD/build/sanitize

# A tree of its own, so that the package that is imported is the one with the sanitized module.
rm -rf "$tree/nnc_core" "$tree/conformance"
mkdir -p "$tree"
cp -R nnc_core conformance pyproject.toml "$tree"
rm -f "$tree"/nnc_core/_native*.so "$tree"/nnc_core/_native*.dylib
# An editable installation would come before anything in PYTHONPATH.
cat >"$tree/sitecustomize.py" <<'SITE'
import sys

sys.meta_path[:] = [finder for finder in sys.meta_path if "ScikitBuild" not in type(finder).__name__]
SITE

cmake -S nnc_core/native -B "$tree/cmake" -DCMAKE_BUILD_TYPE=RelWithDebInfo -DNNC_SANITIZE=ON \
    -DPython_EXECUTABLE="$(command -v "$python")" \
    -Dnanobind_DIR="$("$python" -m nanobind --cmake_dir)" >"$tree/cmake.log" || { cat "$tree/cmake.log"; exit 1; }
cmake --build "$tree/cmake" --parallel
cp "$tree"/cmake/_native*.so "$tree/nnc_core"

cd "$tree"
runtime=$(${CXX:-c++} -print-file-name=libasan.so)
cxx=$(${CXX:-c++} -print-file-name=libstdc++.so)  # or the sanitizer would not see its exceptions
export PYTHONPATH="$tree"
export PYTHONMALLOC=malloc  # every object is an allocation of its own, and guarded
export NNC_SHARED="${NNC_SHARED:-$tree/../../../shared}"
# The interpreter does not free everything when it ends; a limit on memory makes allocations fail, which is no error.
export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:detect_stack_use_after_return=1:strict_init_order=1
export UBSAN_OPTIONS=print_stacktrace=1

sanitized() {
    LD_PRELOAD="$runtime $cxx" "$python" "$@"
}

sanitized - <<'CHECK'
import nnc_core._native as native, os
if "sanitize" not in native.__file__ or b"__asan_init" not in open(native.__file__, "rb").read():
    raise SystemExit(f"not sanitized: {native.__file__}")
CHECK
# Reports go to file descriptor 2, past what pytest captures here.
sanitized -m pytest -q -x --capture=sys -p no:cacheprovider -o timeout=1200 \
    conformance/unit/test_entropy_native.py conformance/unit/test_quantization_native.py conformance/unit/test_quantization_rates.py \
    conformance/unit/test_calibrated.py conformance/unit/test_attacks.py
sanitized -m conformance.fuzz.codec --cases "${CASES:-7000}" --cuts "${CUTS:-3000}" --seed "${SEED:-2}" --megabytes 0 \
    --seconds 60 --findings "$tree/findings"
