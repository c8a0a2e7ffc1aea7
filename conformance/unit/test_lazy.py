"""A module is imported when something in it is asked for, and stands for what it names in every way."""

from __future__ import annotations

import subprocess
import sys

import pytest

from nnc_core.lazy import LazyModule

PROGRAM = """
import sys
from nnc_core.lazy import LazyModule
module = LazyModule("wave")
print("wave" in sys.modules, module.Wave_read.__name__, "wave" in sys.modules)
"""


def test_a_module_is_imported_on_use() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "Wave_read", "True"]


def test_what_is_changed_changes_in_the_module(monkeypatch: pytest.MonkeyPatch) -> None:
    import wave

    monkeypatch.setattr(LazyModule("wave"), "WAVE_FORMAT_PCM", 7)
    assert wave.WAVE_FORMAT_PCM == 7


def test_what_is_not_there_is_an_error_that_names_the_module() -> None:
    with pytest.raises(AttributeError, match="module 'wave' has no attribute 'nothing'"):
        _ = LazyModule("wave").nothing
    with pytest.raises(ModuleNotFoundError, match="nowhere"):
        _ = LazyModule("nowhere").anything
