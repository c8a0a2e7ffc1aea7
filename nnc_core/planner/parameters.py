"""What an encoder is told: the wishes of a user for a whole model, and rules for single tensors."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

from nnc_core.planner.patterns import finder
from nnc_core.records import dataclass

if TYPE_CHECKING:
    from nnc_core.nnr_model import ParameterType

__all__ = ["WEIGHTS", "CodingParameters", "Rule"]

WEIGHTS: Final = ("conv.weight", "fc.weight")
"""The roles of weights; what has another one is coded more finely."""
_ABSOLUTE: Final = {"qp": -38, "nonweight_qp": -75}
"""What an absolute quantization parameter is where only the other one is given."""

_COARSE, _FINE, _TARGETED = 2, 4, 7
"""``qp_density`` where absolute quantization parameters are given, and where steps follow from the tensors."""

_CHANGEABLE = (
    "qp",
    "dq_flag",
    "param_opt_flag",
    "cabac_unary_length_minus1",
    "scan_order",
    "row_skip_enabled_flag",
    "exact",
)
_SHORT = {"dq": "dq_flag", "param_opt": "param_opt_flag", "row_skip": "row_skip_enabled_flag"}
_SHORT |= {"unary": "cabac_unary_length_minus1", "scan": "scan_order"}


@dataclass(frozen=True, slots=True)
class Rule:
    """Other parameters for the tensors whose name matches ``pattern`` somewhere; the last rule that sets one wins.

    ``exact`` 1 keeps a tensor as it is, 0 lets it be quantized whatever it is; so does a ``qp``.

    >>> Rule.parse("conv.*bias=qp=-60,dq=0")
    Rule(pattern='conv.*bias', changes=(('qp', -60), ('dq_flag', False)))
    """

    pattern: str
    changes: tuple[tuple[str, int | bool], ...]

    def __post_init__(self) -> None:
        finder(self.pattern)
        unknown = [name for name, _ in self.changes if name not in _CHANGEABLE]
        if unknown:
            raise ValueError(f"a rule cannot set {unknown[0]!r}, only {', '.join(_CHANGEABLE)}")
        object.__setattr__(self, "changes", tuple((name, _number(name, value)) for name, value in self.changes))

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Read ``regex=key=value,key=value``; keys as in `CodingParameters`, with or without ``_flag``."""
        found = re.fullmatch(r"(.+?)=(\w+=-?\d+(?:,\w+=-?\d+)*)", text)
        if not found:
            raise ValueError(f"{text!r} is not a rule; one looks like 'conv.*=qp=-30,dq=0'")
        pairs = (pair.split("=") for pair in found[2].split(","))
        return cls(found[1], tuple((_SHORT.get(key, key), int(value)) for key, value in pairs))

    def applies_to(self, name: str) -> bool:
        """Whether the tensor called ``name`` is meant."""
        return finder(self.pattern)(name)


@dataclass(frozen=True, slots=True)
class CodingParameters:
    """What an encoder is told about a whole model.

    Without a ``qp`` each tensor gets a step from its own values and the model's, and what is exact by its values stays
    so. These steps are scaled together where weights are to reach an ``sqnr`` in dB all in all, take so many
    ``bits_per_weight`` at most, or the whole bitstream so many bytes (``target_size``; also a text such as "2.5MB",
    or "10%" of the model's bytes). ``lossless`` keeps every bit.
    A ``qp`` is an absolute step for weights, ``nonweight_qp`` one for everything else; where only one is given, the
    other is -38 or -75. With them, a tensor whose role is not known is a weight if it has more than one dimension. At
    most one of all these is given.

    A step size is (2**d + qp mod 2**d) * 2**(floor(qp / 2**d) - d) with d = ``qp_density``: 2**d steps to the doubling;
    `None` is 2 where a ``qp`` is given, if only by a rule, 7 for a target, and 4 otherwise. ``level`` 1 (fast) to 9
    (small) is the effort; from 8 on the package zopfli deflates descriptions, if it is installed.
    ``general_profile_idc`` 1 is the tool set of the 2024 edition, 0 that of 2022 for older decoders. Raises ValueError
    for values that the bitstream cannot carry, TypeError for what is not a number, or not a `Rule`.

    ``blocks_flag`` lets a weight share a data unit with the bias and batch-norm that belong to it, which saves a few
    bytes for each, but then they are decoded together. ``codebook_flag`` has weights coded by codebooks where that is
    smaller, which takes time to find out. ``indexed_reference_flag`` has names sent in one compressed list where that
    is smaller (``mps_topology_indexed_reference_flag``), which few other decoders can read; the bitstream is then put
    together in memory.
    """

    qp: int | None = None
    nonweight_qp: int | None = None
    qp_density: int | None = None
    sqnr: float | None = None
    bits_per_weight: float | None = None
    target_size: int | str | None = None
    lossless: bool = False
    level: int = 5
    dq_flag: bool = True
    param_opt_flag: bool = True
    cabac_unary_length_minus1: int = 10
    scan_order: int = 0
    row_skip_enabled_flag: bool = True
    general_profile_idc: int = 1
    blocks_flag: bool = False
    codebook_flag: bool = False
    indexed_reference_flag: bool = False
    rules: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        for name in (f.name for f in fields(self) if f.name not in ("rules", "target_size", *_REAL)):
            value = getattr(self, name)
            if value is not None or name not in _OPTIONAL:
                object.__setattr__(self, name, _number(name, value))
        self._check_target()
        object.__setattr__(self, "rules", tuple(self.rules))
        strange = [rule for rule in self.rules if not isinstance(rule, Rule)]
        if strange:
            raise TypeError(f"{strange[0]!r} is not a Rule; Rule.parse makes one of a text")
        _check("general_profile_idc", self.general_profile_idc, 0, 1)
        _check("qp_density", self.density, 0, 7)
        self._check_values(vars_of(self))
        for rule in self.rules:
            self._check_values(dict(rule.changes), f"rule {rule.pattern!r}: ")

    def _check_target(self) -> None:
        targets = {name: getattr(self, name) for name in (*_REAL, "target_size") if getattr(self, name) is not None}
        for name in targets.keys() & set(_REAL):
            object.__setattr__(self, name, _positive(name, targets[name]))
        if self.target_size is not None:
            object.__setattr__(self, "target_size", _size(self.target_size))
        _check("level", self.level, 1, 9)
        wanted = [*targets, *["lossless"] * self.lossless, *["qp"] * self.absolute]
        if len(wanted) > 1:
            raise ValueError(f"{' and '.join(sorted(wanted))} are mutually exclusive")

    @property
    def absolute(self) -> bool:
        """Whether quantization parameters are given for all tensors."""
        return self.qp is not None or self.nonweight_qp is not None

    @property
    def targeted(self) -> bool:
        """Whether the steps of weights are to meet a target all in all."""
        return any(each is not None for each in (self.sqnr, self.bits_per_weight, self.target_size))

    @property
    def density(self) -> int:
        """The ``qp_density`` of the bitstream."""
        if self.qp_density is not None:
            return self.qp_density
        by_rule = any(name == "qp" for rule in self.rules for name, _ in rule.changes)
        if self.absolute or by_rule:
            return _COARSE
        return _TARGETED if self.targeted else _FINE

    def absolute_qp(self, parameter_type: ParameterType | None, dimensions: int) -> int | None:
        """The given quantization parameter of a tensor of this role; `None` where its values are to decide."""
        if not self.absolute:
            return None
        weight = parameter_type in WEIGHTS if parameter_type else dimensions > 1
        name = "qp" if weight else "nonweight_qp"
        given: int | None = getattr(self, name)
        return _ABSOLUTE[name] if given is None else given

    def changes(self, name: str) -> dict[str, int | bool]:
        """What the rules set for the tensor called ``name``."""
        return dict(change for rule in self.rules if rule.applies_to(name) for change in rule.changes)

    def _check_values(self, values: Mapping[str, Any], where: str = "") -> None:
        reach = 1 << (5 + self.density)
        for qp in ("qp", "nonweight_qp"):
            if values.get(qp) is not None:
                _check(where + qp, values[qp], -reach, reach - 1, f" with qp_density {self.density}")
        _check(where + "scan_order", values.get("scan_order", 0), 0, 4)
        _check(where + "cabac_unary_length_minus1", values.get("cabac_unary_length_minus1", 0), 0, 255)


_OPTIONAL = ("qp", "nonweight_qp", "qp_density")
_REAL = ("sqnr", "bits_per_weight")


_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}


def _size(value: Any) -> int | str:
    """A size as a number of bytes, or a percentage as it is."""
    if isinstance(value, str):
        found = re.fullmatch(r"(\d+(?:\.\d+)?) ?(%|[A-Z]*)", value.strip().upper())
        if not found or found[2] not in (*_UNITS, "%"):
            raise ValueError(f"target_size is {value!r}, expected something like 250000, 2.5MB or 10%")
        if found[2] == "%":
            _positive("target_size", found[1])
            return f"{found[1]}%"
        value = int(float(found[1]) * _UNITS[found[2]])
    number = _number("target_size", value)
    _check("target_size", number, 1, 1 << 62)
    return number


def _positive(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} is {value!r}, expected a number") from None
    if not 0 < number < math.inf:
        raise ValueError(f"{name} is {value}, expected a number above 0")
    return number


def vars_of(parameters: CodingParameters) -> dict[str, Any]:
    """The fields by name, as `dataclasses.asdict` has them, without going into the rules."""
    return {field.name: getattr(parameters, field.name) for field in fields(parameters)}


def _number(name: str, value: Any) -> int:
    """``value`` as a plain int, or as a bool where ``name`` is that of a flag."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}, expected a whole number") from None
    if name.endswith("_flag") or name in ("exact", "lossless"):
        _check(name, number, 0, 1)
        return bool(number)
    return number


def _check(name: str, value: int, lowest: int, highest: int, condition: str = "") -> None:
    if not lowest <= value <= highest:
        raise ValueError(f"{name} is {value}, expected {lowest}..{highest}{condition}")
