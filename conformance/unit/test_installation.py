import subprocess
import sys
from pathlib import Path


def test_an_installed_package_works_away_from_its_sources(tmp_path: Path) -> None:
    smoke = Path(__file__).resolve().parents[1] / "packaging" / "smoke.py"
    done = subprocess.run([sys.executable, smoke], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("nnc-suite ")
