"""What was decided about each tensor before anything is coded: to be looked at, changed, kept and used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, field, fields, replace
from enum import Enum
from functools import lru_cache
from typing import Any, Final

from nnc_core.approximator.rates import MAX_LAMBDA_SCALE
from nnc_core.errors import ModelError
from nnc_core.nnr_model.blocks import Block
from nnc_core.records import dataclass
from nnc_core.tables.blocks import Member

__all__ = ["Method", "ModelPlan", "TensorPlan"]

_VERSION = 1
_OF_MODEL = ("qp_density", "general_profile_idc", "indexed_reference_flag", "thorough")


class Method(str, Enum):
    """How the values of a tensor travel."""

    QUANTIZED = "quantized"
    """Multiples of a step (NNR_PT_FLOAT); nothing is lost where all values are such multiples and ``dq_flag`` is 0."""

    CODEBOOK = "codebook"
    """Indices into the list of all values, which are multiples of a step (NNR_PT_FLOAT)."""

    RAW = "raw"
    """The float32 values as they are (NNR_PT_RAW_FLOAT)."""

    PATTERNS = "patterns"
    """Bit patterns of 8 or 16 bits as integers (NNR_PT_INT), see `nnc_core.bitstream.marks`."""

    PALETTE = "palette"
    """Indices into the list of all bit patterns (NNR_PT_INT), see `nnc_core.bitstream.marks`."""

    PLANES = "planes"
    """The exponents coded (NNR_PT_INT), signs and mantissas as they are, see `nnc_core.bitstream.marks`."""

    INTEGERS = "integers"
    """Integers (NNR_PT_INT), less ``offset``."""


@dataclass(frozen=True, slots=True)
class TensorPlan:
    """The decisions about one tensor; its coding parameters are those of ISO/IEC 15938-18, Tables 7, 8 and 11.

    ``qp`` counts in the plan's ``qp_density`` and is used by the methods that have a step. ``exact`` says that the
    tensor comes back as it is, and ``reason`` why, or where the step comes from, in a few words.
    """

    method: Method = Method.QUANTIZED
    qp: int = 0
    offset: int = 0
    dq_flag: bool = True
    param_opt_flag: bool = True
    cabac_unary_length_minus1: int = 10
    scan_order: int = 0
    row_skip_enabled_flag: bool = True
    lambda_scale: float = 0.0
    exact: bool = False
    reason: str = ""


@lru_cache(maxsize=1024, typed=True)
def varied(plan: TensorPlan, **changes: Any) -> TensorPlan:
    """The plan with these changes, made once: many tensors have the same plan."""
    return replace(plan, **changes)


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """The decisions about all tensors of a model, by name and in model order; made by `nnc_core.plan`.

    ``blocks`` are tensors that share a data unit; ``indexed_reference_flag`` has names sent in one list where that is
    smaller; with ``thorough`` descriptions are deflated as far as is possible.
    ``nnc_core.write(stream, model, plan=plan)`` codes the model as the plan says.
    """

    qp_density: int
    general_profile_idc: int = 1
    tensors: Mapping[str, TensorPlan] = field(default_factory=dict)
    blocks: tuple[Block, ...] = ()
    indexed_reference_flag: bool = False
    thorough: bool = False

    def changed(self, name: str, **changes: Any) -> ModelPlan:
        """A plan with other decisions about the tensor called ``name``; KeyError if there is none."""
        return replace(self, tensors={**self.tensors, name: replace(self.tensors[name], **changes)})

    def to_json(self) -> str:
        """The plan as text, for `from_json`."""
        tensors = {name: asdict(plan) for name, plan in self.tensors.items()}
        head = {"nnc_plan": _VERSION, **{name: getattr(self, name) for name in _OF_MODEL}}
        blocks = {b.identifier: {member.value: name for member, name in b.names.items()} for b in self.blocks}
        return json.dumps({**head, "tensors": tensors, "blocks": blocks}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> ModelPlan:
        """Read what `to_json` wrote; `ModelError` for anything else."""
        try:
            data = json.loads(text)
            if data["nnc_plan"] != _VERSION:
                raise ModelError(f"is a plan of version {data['nnc_plan']}, expected {_VERSION}")
            tensors = {name: _tensor_plan(name, plan) for name, plan in data["tensors"].items()}
            blocks = tuple(_block(identifier, names) for identifier, names in data.get("blocks", {}).items())
            if missing := {name for block in blocks for name in (block.weight, *block.names.values())} - tensors.keys():
                raise ModelError("is in a block of the plan that does not have it", tensor=min(missing))
            indexed = bool(data.get("indexed_reference_flag", False))
            density, profile, thorough = int(data["qp_density"]), int(data["general_profile_idc"]), data.get("thorough")
            _check("qp_density", density)
            _check("general_profile_idc", profile)
            return cls(density, profile, tensors, blocks, indexed, bool(thorough))
        except RecursionError:
            raise ModelError("is not a plan of nnc_core: it is nested too deep") from None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ModelError(f"is not a plan of nnc_core: {error!r}") from None


_RANGES: Final = {
    "qp": (-(1 << 12), (1 << 12) - 1),
    "offset": (-(1 << 63), (1 << 64) - 1),
    "cabac_unary_length_minus1": (0, 255),
    "scan_order": (0, 4),
    "lambda_scale": (0, MAX_LAMBDA_SCALE),
    "qp_density": (0, 7),
    "general_profile_idc": (0, 1),
}


def _tensor_plan(name: str, data: dict[str, Any]) -> TensorPlan:
    plan = TensorPlan(**{**data, "method": Method(data["method"])})
    for each in fields(TensorPlan):
        value = getattr(plan, each.name)
        expected = (int, float) if each.name == "lambda_scale" else type(each.default)
        if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
            raise TypeError(f"{each.name} is {value!r}")
        _check(each.name, value, name)
    return plan


def _check(field_name: str, value: Any, tensor: str | None = None) -> None:
    least, most = _RANGES.get(field_name, (value, value))
    if not least <= value <= most:
        raise ModelError(f"has {field_name} {value} in its plan, expected {least}..{most}", tensor=tensor)


def _block(identifier: str, names: Mapping[str, str]) -> Block:
    return Block(identifier, {Member(member): name for member, name in names.items()})
