"""One plan for all files of a model, from what workers find in each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from itertools import chain
from typing import Any, NamedTuple

from nnc_adapters.reports import Meter
from nnc_adapters.sharded.running import run
from nnc_adapters.sharded.work import Source, Surveyed, measure, survey_part
from nnc_core import CodingParameters, ModelError, ModelPlan, SourceModel, TensorPlan
from nnc_core.nnr_model import ModelInfo
from nnc_core.planner.planning import decided
from nnc_core.records import dataclass

__all__ = ["Planned", "planned"]


class Planned(NamedTuple):
    """The ``plan`` of the whole model, and that of each file, with the names that tensors have in it."""

    plan: ModelPlan
    local: list[ModelPlan]


def planned(
    sources: Sequence[Source],
    parameters: CodingParameters,
    plan: ModelPlan | None,
    executor: Executor | None,
    meter: Meter | None,
) -> Planned:
    """Decide about all tensors, or split the ``plan`` that is given."""
    parameters = _in_bytes(parameters, sum(source.size for source in sources))
    surveyed = _surveyed(sources, parameters, executor, meter)
    trials = _Scattered(sources, [list(each.findings) for each in surveyed], parameters, executor)
    if plan is None:
        findings = dict(chain.from_iterable(each.findings.items() for each in surveyed))
        info = ModelInfo(parameter_type={}, block_identifier={})
        for each in surveyed:
            info["parameter_type"].update(each.info.get("parameter_type", {}))
            info["block_identifier"].update(each.info.get("block_identifier", {}))
        plan = decided(findings, parameters, SourceModel({}, model_info=info), trials)
    return Planned(plan, trials.split(plan))


def _in_bytes(parameters: CodingParameters, size: int) -> CodingParameters:
    """A target in percent counts the bytes of the files of weights."""
    if not isinstance(parameters.target_size, str):
        return parameters
    return replace(parameters, target_size=int(size * float(parameters.target_size.rstrip("%")) / 100))


def _surveyed(
    sources: Sequence[Source], parameters: CodingParameters, executor: Executor | None, meter: Meter | None
) -> list[Surveyed]:
    found: dict[int, Surveyed] = {}
    total, done = sum(source.size for source in sources), 0
    for number, each in run(executor, survey_part, [(source, parameters) for source in sources]):
        found[number] = each
        done += sources[number].size
        if meter is not None:
            meter("planning", done, total)
    return [found[number] for number in range(len(sources))]


@dataclass(frozen=True, slots=True)
class _Scattered:
    """The trials of a model whose files are measured by workers; ``names`` are the tensors in each, in the whole."""

    sources: Sequence[Source]
    names: Sequence[Sequence[str]]
    parameters: CodingParameters
    executor: Executor | None

    def split(self, plan: ModelPlan) -> list[ModelPlan]:
        """The plan of each file; `ModelError` where the plan lacks a tensor."""
        return [_local(plan, names, source.part.prefix) for source, names in zip(self.sources, self.names, strict=True)]

    def nbytes(self) -> int:
        """As `Trials`; not asked for, as targets are in bytes here."""
        return sum(source.size for source in self.sources)

    def frame_size(self, plan: ModelPlan) -> int:
        """As `Trials`."""
        return sum(self._ask("frame_size", plan).values())

    def saved_by_list(self, plan: ModelPlan) -> int:
        """As `Trials`."""
        return sum(self._ask("saved_by_list", plan).values())

    def sizes(self, plan: ModelPlan, names: Iterable[str]) -> Mapping[str, int]:
        """As `Trials`."""
        return self._of_tensors("sizes", plan, names)

    def errors(self, plan: ModelPlan, names: Iterable[str]) -> Mapping[str, float]:
        """As `Trials`."""
        return self._of_tensors("errors", plan, names)

    def tuned(self, plan: ModelPlan, worths: Mapping[str, float]) -> Mapping[str, TensorPlan]:
        """As `Trials`."""
        return self._of_tensors("tuned", plan, worths)

    def _of_tensors(self, what: str, plan: ModelPlan, wanted: Iterable[str]) -> dict[str, Any]:
        """What files say of their own among the ``wanted`` tensors, in model order."""
        wanted = wanted if isinstance(wanted, Mapping) else dict.fromkeys(wanted)
        asked: dict[int, Any] = {}
        for number, (source, names) in enumerate(zip(self.sources, self.names, strict=True)):
            here = {name.removeprefix(source.part.prefix): wanted[name] for name in names if name in wanted}
            if here:
                asked[number] = here
        found = self._ask(what, plan, asked)
        prefixes = [source.part.prefix for source in self.sources]
        return {prefixes[number] + name: each for number in asked for name, each in found[number].items()}

    def _ask(self, what: str, plan: ModelPlan, asked: Mapping[int, Any] | None = None) -> dict[int, Any]:
        plans = self.split(plan)
        numbers = list(range(len(self.sources)) if asked is None else asked)
        tasks = [
            (self.sources[number], self.parameters, plans[number], what, *([] if asked is None else [asked[number]]))
            for number in numbers
        ]
        return {numbers[place]: result for place, result in run(self.executor, measure, tasks)}


def _local(plan: ModelPlan, names: Iterable[str], prefix: str) -> ModelPlan:
    tensors = {}
    for name in names:
        if name not in plan.tensors:
            raise ModelError("is not in the plan", tensor=name)
        tensors[name.removeprefix(prefix)] = plan.tensors[name]
    blocks = tuple(
        replace(
            block,
            identifier=block.identifier.removeprefix(prefix),
            names={member: name.removeprefix(prefix) for member, name in block.names.items()},
        )
        for block in plan.blocks
        if block.weight in plan.tensors and block.weight.removeprefix(prefix) in tensors
    )
    return replace(plan, tensors=tensors, blocks=blocks)
