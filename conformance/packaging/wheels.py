"""Build the wheels that this machine's versions of Python can, install each in a bare environment, and try it.

    python -m conformance.packaging.wheels OUTPUT_FOLDER

A version of Python takes part if `python3.N` is found, or pyenv has it. Versions of 3.12 and later share one wheel,
built by the oldest.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
OLDEST, NEWEST, OLDEST_STABLE = 10, 14, 12


def interpreters() -> dict[int, str]:
    """Interpreters that run, by minor version."""
    found = {}
    for minor in range(OLDEST, NEWEST + 1):
        paths = (path for path in _paths(minor) if _runs(path))
        if path := next(paths, None):
            found[minor] = path
    return found


def _paths(minor: int) -> Iterator[str]:
    """Where a version may be: on the path, or among those that pyenv has, which are not all on the path."""
    if path := shutil.which(f"python3.{minor}"):
        yield path
    versions = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser() / "versions"
    yield from map(str, sorted(versions.glob(f"3.{minor}.*/bin/python3.{minor}")))


def _runs(python: str) -> bool:
    return subprocess.run([python, "-c", "import venv"], capture_output=True).returncode == 0


def run(*command: str | Path) -> str:
    return subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True).stdout


def build(python: str, output: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run(python, "-m", "venv", folder)
        run(f"{folder}/bin/python", "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", output, ROOT)


def wheel_for(minor: int, output: Path) -> Path:
    tag = f"cp3{minor}-cp3{minor}" if minor < OLDEST_STABLE else "abi3"
    return next(output.glob(f"*{tag}*.whl"))


def try_out(python: str, wheel: Path) -> str:
    """What the smoke test prints in an environment that has the wheel and its dependencies, away from the sources."""
    with tempfile.TemporaryDirectory() as folder:
        run(python, "-m", "venv", folder)
        run(f"{folder}/bin/python", "-m", "pip", "install", "--quiet", wheel)
        smoke = shutil.copy(ROOT / "conformance" / "packaging" / "smoke.py", folder)
        return run(f"{folder}/bin/python", smoke).strip()


def main(output: Path) -> int:
    found = interpreters()
    first_stable = min((minor for minor in found if minor >= OLDEST_STABLE), default=None)
    checksums = set()
    for minor, python in found.items():
        if minor < OLDEST_STABLE or minor == first_stable:
            build(python, output)
        result = try_out(python, wheel_for(minor, output))
        print(result, flush=True)
        checksums.add(result.split()[-1])
    for wheel in sorted(output.glob("*.whl")):
        print(f"{wheel.name}: {wheel.stat().st_size} bytes")
    return 0 if len(checksums) == 1 else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
