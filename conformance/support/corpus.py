"""Finds the corpus of golden bitstreams and hands out its cases; tests that need it are skipped where it is absent.

It lies in ``$NNC_SHARED/corpus``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from conformance.support.shared import SHARED
from nnc_core.entropy.parameters import TensorParameters
from nnc_core.syntax import InputParameters
from nnc_core.tables.entry_point import EntryPoint

CORPUS = SHARED / "corpus"

needs_corpus = pytest.mark.skipif(not CORPUS.is_dir(), reason="no corpus: NNC_SHARED does not lead to one")


def for_each(argument: str, names: list[str]) -> pytest.MarkDecorator:
    """Run a test once for each name, or skip it (once) without a corpus."""
    return pytest.mark.parametrize(argument, names or [pytest.param("", marks=needs_corpus, id="no corpus")])


def cabac_names() -> list[str]:
    """The vectors of the entropy coder."""
    return sorted(path.parent.name for path in CORPUS.glob("cabac/*/params.json"))


def model_names() -> list[str]:
    """The cases with whole bitstreams."""
    return sorted(path.parent.name for path in CORPUS.glob("*/config.json"))


@dataclass(frozen=True)
class CabacLayer:
    """One tensor of a vector: its integers (rows x width) and what a coder has to know about it."""

    levels: NDArray[np.int32]
    parameters: TensorParameters
    row_skip_flag: bool
    entry_points: list[EntryPoint]


@dataclass(frozen=True)
class CabacVector:
    """A payload and what it holds: ``prefix`` are (value, bits) coded before the layers."""

    payload: bytes
    param_opt: bool
    prefix: list[tuple[int, int]]
    layers: list[CabacLayer]


def cabac_vector(name: str) -> CabacVector:
    """Load one vector of the entropy coder."""
    folder = CORPUS / "cabac" / name
    params = json.loads((folder / "params.json").read_text())
    return CabacVector(
        payload=(folder / "payload.bin").read_bytes(),
        param_opt=bool(params["param_opt"]),
        prefix=[(item["value"], item["bits"]) for item in params["prefix_iae_v"]],
        layers=[_cabac_layer(folder, params, layer) for layer in params["layers"]],
    )


def _cabac_layer(folder: Path, params: dict[str, Any], layer: dict[str, Any]) -> CabacLayer:
    def matrix(element: str, dtype: type) -> Any:
        return None if layer[element] is None else as_matrix(np.load(folder / layer[element]).astype(dtype))

    return CabacLayer(
        levels=matrix("levels", np.int32),
        parameters=TensorParameters(
            general_profile_idc=params["general_profile_idc"],
            cabac_unary_length_minus1=params["cabac_unary_length_minus1"],
            dq_flag=bool(layer["dq_flag"]),
            scan_order=layer["scan_order"],
            parent_node_id_present_flag=bool(layer["parent_node_id_present_flag"]),
            codebook_size=layer["codebook_size"],
            codebook_zero_offset=layer["codebook_zero_offset"],
            base=matrix("base", np.int32),
            history=matrix("hist", np.uint8),
        ),
        row_skip_flag=bool(layer["row_skip_flag"]),
        entry_points=[
            EntryPoint(point["bit_offset"], point["value"], point["dq_state"]) for point in layer["entry_points_split"]
        ],
    )


def as_matrix(array: NDArray[Any]) -> NDArray[Any]:
    """A tensor as the payload coder sees it: rows x width, one column if it has a single dimension."""
    return np.ascontiguousarray(array.reshape(array.shape[0], -1))


@dataclass(frozen=True)
class ModelStep:
    """One bitstream of a case, with its part of config.json and the folder both are in."""

    folder: Path
    config: dict[str, Any]

    @cached_property
    def bitstream(self) -> bytes:
        """The bitstream."""
        return (self.folder / self.config["bitstream"]).read_bytes()

    @cached_property
    def input_parameters(self) -> dict[str, InputParameters]:
        """What is not in the bitstream and must be handed to the decoder, by tensor name."""
        dimensions = self.config.get("dimensions_known_from_parent", {})
        known = {name: {"tensor_dimensions": shape} for name, shape in dimensions.items()}
        known |= self.config.get("out_of_band", {})
        return {
            name: InputParameters(tuple(values["tensor_dimensions"]), values.get("cabac_unary_length_minus1"))
            for name, values in known.items()
        }

    @cached_property
    def expected_names(self) -> list[str]:
        """The names in expected.npz, without reading the arrays."""
        with np.load(self.folder / self.config["expected"]) as archive:
            return list(archive.files)

    @cached_property
    def expected(self) -> dict[str, NDArray[Any]]:
        """Everything a decoder must return, under the names of expected.npz."""
        with np.load(self.folder / self.config["expected"]) as archive:
            return {name: archive[name] for name in archive.files}


def model_steps(name: str) -> Iterator[ModelStep]:
    """The bitstreams of a case, in decoding order."""
    folder = CORPUS / name
    config = json.loads((folder / "config.json").read_text())
    return (ModelStep(folder, step) for step in config["steps"])
