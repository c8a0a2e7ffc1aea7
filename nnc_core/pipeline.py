"""Coding as a chain of replaceable stages (ISO/IEC 15938-17, 5.3, and 15938-18, Figure 1).

What passes from one section of the chain to the next does so at an interface with a number:

    #1 reduction #2 approximation #3 coding #4 decoding #5 reconstruction #6

From #1 to #3 that are the tensors of a model, at #4 a bitstream, from #5 on tensors again. A pipeline is a value:
changing it makes another one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import field, replace
from enum import IntEnum
from functools import partial
from typing import NamedTuple

from nnc_core.approximator import part18 as approximator
from nnc_core.approximator.data import ApproxData, ApproxInfo
from nnc_core.coder import part18 as coder
from nnc_core.coder.data import EncInfo
from nnc_core.nnr_model.evaluation import Evaluation
from nnc_core.nnr_model.model_info import ModelInfo
from nnc_core.records import dataclass


class Section(IntEnum):
    """A section of the chain, by the number of the interface in front of it."""

    REDUCTION = 1
    APPROXIMATION = 2
    CODING = 3
    DECODING = 4
    RECONSTRUCTION = 5


@dataclass(frozen=True, slots=True)
class Package:
    """What passes an interface: a model as Part 18 describes it, or its bitstream."""

    model_info: ModelInfo = field(default_factory=ModelInfo)
    approx_data: ApproxData = field(default_factory=ApproxData)
    bitstream: bytes = b""


class Stage(NamedTuple):
    """A step of a section, which makes a package of another and leaves that as it is."""

    name: str
    section: Section
    run: Callable[[Package], Package]


Observer = Callable[[int, Package], None]
"""Is shown the number of each interface and what passes it."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Stages in the order of their sections, and within a section in the order given; no name is there twice.

    >>> import numpy as np
    >>> from nnc_core.nnr_model import model_info_of
    >>> tensors = {"w": np.array([[0.5, -0.25], [0.0, 1.0]], np.float32)}
    >>> pipeline = standard({"qp": {"w": -20}}, {})
    >>> coded = pipeline.encode(Package(model_info_of(tensors), {"parameters": tensors, "qp_density": 2}))
    >>> pipeline.decode(coded).approx_data["parameters"]["w"].tolist()
    [[0.5, -0.25], [0.0, 1.0]]
    >>> print(pipeline)
    #1 reduction: -
    #2 approximation: approx
    #3 coding: encode
    #4 decoding: decode
    #5 reconstruction: rec, unfold_bn, apply_lsa, recompose
    """

    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"two stages of the same name: {', '.join(names)}")
        object.__setattr__(self, "stages", tuple(sorted(self.stages, key=lambda stage: stage.section)))

    def of(self, section: Section) -> tuple[Stage, ...]:
        """The stages of a section."""
        return tuple(stage for stage in self.stages if stage.section == section)

    def with_stage(self, stage: Stage, *, before: str | None = None) -> Pipeline:
        """A pipeline with one more stage, at the end of its section or ``before`` the stage of that name."""
        place = len(self.stages) if before is None else self._place(before)
        return Pipeline((*self.stages[:place], stage, *self.stages[place:]))

    def replaced(self, name: str, run: Callable[[Package], Package]) -> Pipeline:
        """A pipeline in which the stage called ``name`` does something else; KeyError if there is none."""
        place = self._place(name)
        return Pipeline((*self.stages[:place], self.stages[place]._replace(run=run), *self.stages[place + 1 :]))

    def without(self, name: str) -> Pipeline:
        """A pipeline that lacks the stage called ``name``; KeyError if there is none."""
        place = self._place(name)
        return Pipeline((*self.stages[:place], *self.stages[place + 1 :]))

    def encode(self, package: Package, observer: Observer | None = None) -> Package:
        """From interface #1 to interface #4."""
        return self.run(package, (Section.REDUCTION, Section.APPROXIMATION, Section.CODING), observer)

    def decode(self, package: Package, observer: Observer | None = None) -> Package:
        """From interface #4 to interface #6."""
        return self.run(package, (Section.DECODING, Section.RECONSTRUCTION), observer)

    def run(self, package: Package, sections: Iterable[Section], observer: Observer | None = None) -> Package:
        """Through some sections that follow each other; ``observer`` sees each interface from the first to the last."""
        number = None
        for section in sections:
            if observer is not None:
                observer(section, package)
            for stage in self.of(section):
                package = stage.run(package)
            number = section + 1
        if observer is not None and number is not None:
            observer(number, package)
        return package

    def __str__(self) -> str:
        return "\n".join(
            f"#{section} {section.name.lower()}: {', '.join(stage.name for stage in self.of(section)) or '-'}"
            for section in Section
        )

    def _place(self, name: str) -> int:
        for place, stage in enumerate(self.stages):
            if stage.name == name:
                return place
        raise KeyError(name)


def standard(approx_info: ApproxInfo, enc_info: EncInfo, evaluation: Evaluation | None = None) -> Pipeline:
    """Approximation and coding as the dictionaries of Part 18 say, and everything that undoes them.

    The ``evaluation`` is for options such as ``opt_qp``; see `nnc_core.approximator.approx`.
    """
    return Pipeline(
        (
            Stage("approx", Section.APPROXIMATION, partial(_approx, approx_info, evaluation)),
            Stage("encode", Section.CODING, partial(_encode, enc_info)),
            Stage("decode", Section.DECODING, _decode),
            Stage("rec", Section.RECONSTRUCTION, changing(lambda info, data: approximator.rec(data, info))),
            Stage("unfold_bn", Section.RECONSTRUCTION, changing(approximator.unfold_bn)),
            Stage("apply_lsa", Section.RECONSTRUCTION, changing(approximator.apply_lsa)),
            Stage("recompose", Section.RECONSTRUCTION, changing(approximator.recompose)),
        )
    )


def changing(function: Callable[[ModelInfo, ApproxData], object]) -> Callable[[Package], Package]:
    """A stage's ``run`` that has ``function`` change the dictionaries of a model, as functions of Part 18 do."""
    return partial(_changed, function)


def _changed(function: Callable[[ModelInfo, ApproxData], object], package: Package) -> Package:
    info, data = _copied(package)
    function(info, data)
    return replace(package, model_info=info, approx_data=data)


def _copied(package: Package) -> tuple[ModelInfo, ApproxData]:
    """The dictionaries anew, with the same arrays."""
    arrays = {id(array): array for array in package.approx_data.get("parameters", {}).values()}
    arrays |= {id(array): array for array in package.approx_data.get("codebooks", {}).values()}
    return deepcopy(package.model_info), deepcopy(package.approx_data, arrays)


def _approx(approx_info: ApproxInfo, evaluation: Evaluation | None, package: Package) -> Package:
    data = approximator.approx(approx_info, package.model_info, package.approx_data, evaluation)
    return replace(package, approx_data=data)


def _encode(enc_info: EncInfo, package: Package) -> Package:
    bitstream = coder.encode(enc_info, package.model_info, package.approx_data)
    return Package(model_info=package.model_info, bitstream=bitstream)


def _decode(package: Package) -> Package:
    info = deepcopy(package.model_info)
    return replace(package, approx_data=coder.decode(package.bitstream, info), model_info=info)
