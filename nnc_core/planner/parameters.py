"""How each tensor is to be coded: resolved once, before anything is coded."""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass, fields, replace
from typing import Any

from nnc_core.nnr_model import ParameterType

_WEIGHTS = ("conv.weight", "fc.weight")


@dataclass(frozen=True, slots=True)
class TensorPlan:
    """The coding parameters of one tensor (ISO/IEC 15938-18, Tables 7, 8 and 11)."""

    qp: int = -38
    dq_flag: bool = True
    param_opt_flag: bool = True
    cabac_unary_length_minus1: int = 10
    scan_order: int = 0
    row_skip_enabled_flag: bool = True


@dataclass(frozen=True, slots=True)
class Rule:
    """Other parameters for the tensors whose name matches ``pattern`` somewhere; the last rule that sets one wins.

    >>> Rule.parse("conv.*bias=qp=-60,dq=0")
    Rule(pattern='conv.*bias', changes=(('qp', -60), ('dq_flag', False)))
    """

    pattern: str
    changes: tuple[tuple[str, int | bool], ...]

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(f"{self.pattern!r} is no regular expression: {error}") from None
        unknown = [name for name, _ in self.changes if name not in _CHANGEABLE]
        if unknown:
            raise ValueError(f"a rule cannot set {unknown[0]!r}, only {', '.join(_CHANGEABLE)}")
        object.__setattr__(self, "changes", tuple((name, _number(name, value)) for name, value in self.changes))

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Read ``regex=key=value,key=value``; keys as in `TensorPlan`, with or without ``_flag``."""
        found = re.fullmatch(r"(.+?)=(\w+=-?\d+(?:,\w+=-?\d+)*)", text)
        if not found:
            raise ValueError(f"{text!r} is no rule; one looks like 'conv.*=qp=-30,dq=0'")
        pairs = (pair.split("=") for pair in found[2].split(","))
        return cls(found[1], tuple((_SHORT.get(key, key), int(value)) for key, value in pairs))

    def applies_to(self, name: str) -> bool:
        """Whether the tensor called ``name`` is meant."""
        return re.search(self.pattern, name) is not None

    def change(self, plan: TensorPlan) -> TensorPlan:
        """``plan`` with what the rule sets."""
        changes: dict[str, Any] = dict(self.changes)
        return replace(plan, **changes)


_CHANGEABLE = tuple(f.name for f in fields(TensorPlan))
_SHORT = {"dq": "dq_flag", "param_opt": "param_opt_flag", "row_skip": "row_skip_enabled_flag"}
_SHORT |= {"unary": "cabac_unary_length_minus1", "scan": "scan_order"}


@dataclass(frozen=True, slots=True)
class CodingParameters:
    """What an encoder is told about a whole model.

    ``qp`` holds for weights, ``nonweight_qp`` for everything else; a tensor whose role is not known is a weight if it
    has more than one dimension. A step size is (2**d + qp mod 2**d) * 2**(floor(qp / 2**d) - d) with
    d = ``qp_density``: 2**d steps to the doubling. ``general_profile_idc`` 1 is the tool set of the 2024 edition, 0
    that of 2022 for older decoders. Raises ValueError for values that the bitstream cannot carry, TypeError for what is
    no whole number, or no `Rule`.
    """

    qp: int = -38
    nonweight_qp: int = -75
    qp_density: int = 2
    dq_flag: bool = True
    param_opt_flag: bool = True
    cabac_unary_length_minus1: int = 10
    scan_order: int = 0
    row_skip_enabled_flag: bool = True
    general_profile_idc: int = 1
    rules: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        for name in (f.name for f in fields(self) if f.name != "rules"):
            object.__setattr__(self, name, _number(name, getattr(self, name)))
        object.__setattr__(self, "rules", tuple(self.rules))
        strange = [rule for rule in self.rules if not isinstance(rule, Rule)]
        if strange:
            raise TypeError(f"{strange[0]!r} is no Rule; Rule.parse makes one of a text")
        _check("general_profile_idc", self.general_profile_idc, 0, 1)
        _check("qp_density", self.qp_density, 0, 7)
        for name, qp in (("qp", self.qp), ("nonweight_qp", self.nonweight_qp)):
            plan = self._plan(qp)
            self._check_plan(plan, name)
            for rule in self.rules:
                self._check_plan(rule.change(plan), "qp", f"rule {rule.pattern!r}: ")

    def plan(self, name: str, parameter_type: ParameterType | None, dimensions: int) -> TensorPlan:
        """The parameters for one tensor."""
        weight = parameter_type in _WEIGHTS if parameter_type else dimensions > 1
        plan = self._plan(self.qp if weight else self.nonweight_qp)
        for rule in self.rules:
            if rule.applies_to(name):
                plan = rule.change(plan)
        return plan

    def _plan(self, qp: int) -> TensorPlan:
        return TensorPlan(
            qp,
            self.dq_flag,
            self.param_opt_flag,
            self.cabac_unary_length_minus1,
            self.scan_order,
            self.row_skip_enabled_flag,
        )

    def _check_plan(self, plan: TensorPlan, qp: str, where: str = "") -> None:
        reach = 1 << (5 + self.qp_density)
        _check(where + qp, plan.qp, -reach, reach - 1, f" with qp_density {self.qp_density}")
        _check(where + "scan_order", plan.scan_order, 0, 4)
        _check(where + "cabac_unary_length_minus1", plan.cabac_unary_length_minus1, 0, 255)


def _number(name: str, value: Any) -> int:
    """``value`` as a plain int, or as a bool where ``name`` is that of a flag."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}, expected a whole number") from None
    if name.endswith("_flag"):
        _check(name, number, 0, 1)
        return bool(number)
    return number


def _check(name: str, value: int, lowest: int, highest: int, condition: str = "") -> None:
    if not lowest <= value <= highest:
        raise ValueError(f"{name} is {value}, expected {lowest}..{highest}{condition}")
