"""What a model is to the codec: tensors, their roles and a topology (ISO/IEC 15938-18, Table 3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from nnc_core.lazy import imported_on_use
from nnc_core.nnr_model.model_info import ModelInfo, ParameterType, check_model_info, model_info_of
from nnc_core.records import dataclass

if TYPE_CHECKING:
    from nnc_core.approximator.calibrated import LayerInputs
    from nnc_core.nnr_model.evaluation import Evaluate, Evaluation
    from nnc_core.nnr_model.qp_search import QpSearch
else:
    __getattr__ = imported_on_use(__name__, {"evaluation": ("Evaluate", "Evaluation"), "qp_search": ("QpSearch",)})

__all__ = [
    "Evaluate",
    "Evaluation",
    "ModelInfo",
    "ParameterType",
    "QpSearch",
    "SourceModel",
    "Topology",
    "check_model_info",
    "model_info_of",
]


@dataclass(frozen=True, slots=True)
class Topology:
    """What a topology unit carries: the storage format (`TopologyStorageFormat`, or an application-private number) and
    the description's bytes, not compressed.

    ``quantization`` is what a quantization unit carries beside it, in terms of the same format. ``private`` is what an
    adapter needs besides to restore the files and the format has no words for; it travels in a topology unit of an
    application-private format, which other decoders pass over. `None`: no such unit.
    """

    storage_format: int
    data: bytes
    quantization: bytes | None = None
    private: bytes | None = None


@dataclass(frozen=True, slots=True)
class SourceModel:
    """A model between an adapter and the coder.

    ``tensors`` maps each ``topology_elem_id`` to its array, in model order; it may be lazy, and an array is fetched
    once for each use. ``topology`` carries everything else, so that both together make the model again. ``exact``
    names the floating-point tensors that must not change, each with the reason in a few words for a person, such as
    "divisor of a quantization". ``remarks`` are sentences for a person about what was read: what is carried without
    being looked at, or takes much room.

    ``inputs`` is what was measured of the inputs of weights: these are quantized for the least error of their outputs.
    ``sensitivities`` is what a squared error of each weight does to the model's output, see
    `nnc_core.planner.sensitivity`: those that matter more get finer steps, and others coarser ones.
    """

    tensors: Mapping[str, NDArray[Any]]
    topology: Topology | None = None
    model_info: ModelInfo = field(default_factory=ModelInfo)
    exact: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    inputs: Mapping[str, LayerInputs] = field(default_factory=dict)
    sensitivities: Mapping[str, float] = field(default_factory=dict)
