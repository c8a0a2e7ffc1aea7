"""The one error family: what is wrong, where, and what was expected."""

from __future__ import annotations

from typing import ClassVar

from nnc_core.tables.rules import ELEMENTS, RULES, Rule


class NncError(Exception):
    """Base of every error this suite raises on purpose; ``file`` is what it is about, where that is known."""

    file: str | None = None

    def __reduce__(self) -> tuple[object, ...]:
        return _restored, (type(self), self.args, self.__dict__.copy())


def _restored(kind: type[NncError], arguments: tuple[object, ...], state: dict[str, object]) -> NncError:
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(state)
    return error


class BitstreamError(NncError):
    """The bitstream violates ISO/IEC 15938-17.

    ``unit`` is the index of the NNR unit, ``bit_offset`` counts from the start of that unit, ``element`` names the
    syntax element, ``tensor`` the tensor, ``expected`` says what a conforming bitstream has there. ``rule_id`` names
    the rule in `nnc_core.tables.rules`, where it is not the one of the element or of the kind of error.
    """

    kind: ClassVar[str] = "element-range"

    def __init__(
        self,
        message: str,
        *,
        unit: int | None = None,
        bit_offset: int | None = None,
        element: str | None = None,
        tensor: str | None = None,
        expected: str | None = None,
        rule: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.rule_id = rule
        self.unit = unit
        self.bit_offset = bit_offset
        self.element = element
        self.tensor = tensor
        self.expected = expected

    def __str__(self) -> str:
        place = self.place()
        text = f"{place}: {self.message}" if place else self.message
        return f"{text} (expected {self.expected})" if self.expected else text

    def place(self) -> str:
        """Where in the bitstream, as far as known: ``unit 3, bit 17, topology_elem_id``."""
        parts = []
        if self.unit is not None:
            parts.append(f"unit {self.unit}")
        if self.bit_offset is not None:
            parts.append(f"bit {self.bit_offset}")
        if self.element is not None:
            parts.append(self.element)
        if self.tensor is not None:
            parts.append(f"tensor {self.tensor!r}")
        return ", ".join(parts)

    @property
    def rule(self) -> Rule:
        """The rule that is broken."""
        return RULES[self.rule_id or self.kind]

    def explain(self) -> str:
        """The violation together with the rule it breaks, for a person."""
        rule = self.rule
        return f"{self}\n{rule.sentence} (ISO/IEC 15938-17, {rule.clause}; rule {rule.id})"


class TruncatedError(BitstreamError):
    """The data end before the syntax does."""

    kind = "truncated"


class UnitSizeError(BitstreamError):
    """``nnr_unit_size`` disagrees with what the unit holds."""

    kind = "unit-size"


class UnitOrderError(BitstreamError):
    """Units are missing, repeated or in the wrong order."""


class ElementValueError(BitstreamError):
    """A syntax element has a value that is reserved or out of range."""

    @property
    def rule(self) -> Rule:
        """The rule that is broken; many elements have one of their own."""
        return RULES[self.rule_id or ELEMENTS.get((self.element or "").partition("[")[0], self.kind)]


class AlignmentError(BitstreamError):
    """``byte_alignment()`` is not a one followed by zeros."""

    kind = "byte-alignment"


class PayloadError(BitstreamError):
    """The arithmetic-coded bytes do not end where and how they must."""

    kind = "codeword"


class UnsupportedError(NncError):
    """The input is valid, but uses a feature that is not supported; ``feature`` names it."""

    def __init__(self, feature: str, message: str | None = None) -> None:
        super().__init__(message or f"{feature} is not supported")
        self.feature = feature


class ModelError(NncError):
    """A model file or its tensors cannot be used; ``file`` and ``tensor`` say which."""

    def __init__(self, message: str, *, file: str | None = None, tensor: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.file = file
        self.tensor = tensor

    def __str__(self) -> str:
        parts = [p for p in (self.file, f"tensor {self.tensor!r}" if self.tensor is not None else None) if p]
        return f"{', '.join(parts)}: {self.message}" if parts else self.message


class LimitError(NncError):
    """The input exceeds one of the `Limits`; ``limit`` names it, ``value`` and ``maximum`` say by how much."""

    def __init__(self, limit: str, value: int, maximum: int, where: str = "") -> None:
        place = f" in {where}" if where else ""
        super().__init__(f"{value}{place} exceeds the limit {limit} = {maximum}")
        self.limit = limit
        self.value = value
        self.maximum = maximum


class UpdateError(NncError):
    """An update does not follow on what is at hand; ``tensor`` says where, ``have`` and ``need`` which step it is."""

    def __init__(self, message: str, *, tensor: str | None = None, have: object = None, need: object = None) -> None:
        super().__init__(message)
        self.message = message
        self.tensor = tensor
        self.have = have
        self.need = need

    def __str__(self) -> str:
        return self.message if self.tensor is None else f"tensor {self.tensor!r}: {self.message}"


class MissingLinkError(UpdateError):
    """An update before this one is missing: it builds on ``need``, at hand is ``have``."""


class ReplayError(UpdateError):
    """The update was applied before, or comes too late."""


class WrongBaseError(UpdateError):
    """The update belongs to something else than what is at hand."""


class IntegrityError(UpdateError):
    """A tensor or a model after an update is not the one that its sender has."""


class MissingDependencyError(NncError):
    """An optional package is not installed, which a ``feature`` needs; ``extra`` of this suite brings it, if any."""

    def __init__(self, package: str, extra: str = "", feature: str = "") -> None:
        needs = f"{feature} needs the package {package!r}, which" if feature else f"the package {package!r}"
        install = f"'nnc-suite[{extra}]'" if extra else package
        super().__init__(f"{needs} is not installed; try: pip install {install}")
        self.package = package
        self.extra = extra
