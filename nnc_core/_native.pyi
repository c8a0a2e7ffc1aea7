"""The native engine, as `nnc_core.entropy.native` and `nnc_core.approximator.native` use it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Entry = tuple[int, int, int]

class CodewordError(ValueError):
    """A payload that no conforming encoder writes."""

class TruncatedCodewordError(CodewordError):
    """A payload that ends before its tensors do."""

class TensorParameters:
    """What the headers say about one tensor."""

    def __init__(
        self,
        rows: int,
        width: int,
        general_profile_idc: int,
        cabac_unary_length_minus1: int,
        dq_flag: bool,
        scan_order: int,
        parent_node_id_present_flag: bool,
        codebook_size: int,
        codebook_zero_offset: int,
        base: NDArray[np.int32] | None = None,
        history: NDArray[np.uint8] | None = None,
    ) -> None: ...

class Encoder:
    """Codes values and tensors into one payload."""

    def __init__(self) -> None: ...
    def iae(self, value: int, bits: int) -> None: ...
    def tensor(
        self,
        parameters: TensorParameters,
        levels: NDArray[np.int32],
        row_skip_enabled_flag: bool,
        hist_dep_sig_prob_enabled_flag: bool,
        shift_indices: bytes | None = None,
        threads: int = 1,
    ) -> None: ...
    def finish(self) -> bytes: ...
    @property
    def entry_points(self) -> list[list[_Entry]]: ...

class Decoder:
    """Reads values and tensors from a payload."""

    def __init__(self, payload: NDArray[np.uint8]) -> None: ...
    def iae(self, bits: int) -> int: ...
    def tensor(
        self,
        parameters: TensorParameters,
        levels: NDArray[np.int32],
        entry_points: Sequence[_Entry] = ...,
        threads: int = 1,
    ) -> tuple[bool, bool, bytes, list[_Entry]]: ...
    def finish(self) -> int: ...

def shift_indices(
    parameters: TensorParameters,
    levels: NDArray[np.int32],
    row_skip_enabled_flag: bool,
    hist_dep_sig_prob_enabled_flag: bool,
    threads: int = 1,
    sampled: bool = True,
) -> bytes: ...
def shift_candidates(
    parameters: TensorParameters,
    levels: NDArray[np.int32],
    row_skip_enabled_flag: bool,
    hist_dep_sig_prob_enabled_flag: bool,
) -> tuple[bytes, bool, bool]: ...
def encode(
    parameters: TensorParameters,
    levels: NDArray[np.int32],
    qp: int | None,
    qp_bits: int,
    row_skip_enabled_flag: bool,
    hist_dep_sig_prob_enabled_flag: bool,
    optimised: bool,
    threads: int,
) -> tuple[bytes, list[_Entry], bytes, bool]: ...
def decode(
    payload: NDArray[np.uint8],
    parameters: TensorParameters,
    levels: NDArray[np.int32],
    qp_bits: int,
    entry_points: Sequence[_Entry],
    threads: int,
) -> tuple[int, bool, bool, bytes, list[_Entry], int]: ...
def quantize_uniform(
    values: NDArray[np.float32],
    step: float,
    scan_order: int,
    lambda_: float,
    cabac_unary_length_minus1: int,
    shift_indices: bytes | None,
    levels: NDArray[np.int32],
) -> bool: ...
def quantize_dependent(
    values: NDArray[np.float32],
    step: float,
    scan_order: int,
    lambda_: float,
    cabac_unary_length_minus1: int,
    shift_indices: bytes | None,
    levels: NDArray[np.int32],
) -> bool: ...
def quantize_calibrated(
    values: NDArray[np.float32],
    step: float,
    factor: NDArray[np.float32],
    importance: NDArray[np.float64],
    input_first: bool,
    dq_flag: bool,
    lambda_: float,
    cabac_unary_length_minus1: int,
    shift_indices: bytes | None,
    levels: NDArray[np.int32],
) -> bool: ...
def force_portable_kernels(force: bool) -> None:
    """Use no instructions beyond those of every machine; for tests."""

def reconstruct(levels: NDArray[np.int32], step: float, values: NDArray[np.float32]) -> None: ...
def reconstruct_in_place(levels: NDArray[np.int32], step: float) -> None: ...
def tables() -> dict[str, Any]: ...
