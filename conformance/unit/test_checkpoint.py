"""The reader of checkpoints reads what is a state dict and runs nothing that a file asks for."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conformance.bench.checkpoint import read_checkpoint
from conformance.support.corpus import model_steps, needs_corpus
from conformance.support.shared import SHARED

RESNET = SHARED / "models" / "ResNet56_CIFAR100.pt"


@needs_corpus
def test_the_tensors_of_resnet56_are_those_that_the_corpus_was_made_of() -> None:
    tensors = read_checkpoint(RESNET)
    (step,) = model_steps("resnet56_tensors_dq1")
    coded = [tensor for tensor in step.config["tensors"] if tensor["method"] == "uniform"]
    assert len(coded) > 100
    for tensor in coded:
        name, size = tensor["name"], tensor["step_size"]
        assert np.abs(tensors[name] - size * step.expected[f"{name}.int"]).max() < 2 * size


def write_archive(path: Path, obj: Any) -> Path:
    data = io.BytesIO()
    pickle.dump(obj, data, protocol=2)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", data.getvalue())
    return path


class _Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("made by a checkpoint",)


def test_a_call_to_anything_but_the_parts_of_a_state_dict_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_archive(tmp_path / "hostile.pt", {"w": _Hostile()})
    with pytest.raises(pickle.UnpicklingError, match="has no place in a state dict"):
        read_checkpoint(path)
    assert list(tmp_path.iterdir()) == [path]
