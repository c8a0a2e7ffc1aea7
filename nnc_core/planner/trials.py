"""What is measured of a model to choose its steps: by coding it here, or in the places where its parts are."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from nnc_core.bitstream.references import with_reference_list
from nnc_core.coder.plan import ModelPlan, TensorPlan
from nnc_core.coder.planned import frame_size, squared_errors, unit_sizes, write_planned
from nnc_core.nnr_model import SourceModel
from nnc_core.records import dataclass

if TYPE_CHECKING:
    from concurrent.futures import Executor

__all__ = ["Trials", "Whole"]


class Trials(Protocol):
    """Measures a model as a plan says."""

    def nbytes(self) -> int:
        """The bytes of its tensors and topology."""
        ...

    def frame_size(self, plan: ModelPlan) -> int:
        """The bytes of its bitstreams besides their data units."""
        ...

    def saved_by_list(self, plan: ModelPlan) -> int:
        """How many bytes fewer names take in one list."""
        ...

    def sizes(self, plan: ModelPlan, names: Iterable[str]) -> Mapping[str, int]:
        """The bytes of the data units of these tensors; those of a block count for its weight."""
        ...

    def errors(self, plan: ModelPlan, names: Iterable[str]) -> Mapping[str, float]:
        """The sums of squared errors of these tensors, which are quantized."""
        ...

    def tuned(self, plan: ModelPlan, worths: Mapping[str, float]) -> Mapping[str, TensorPlan]:
        """The tensors with what a byte is ``worth`` in them, as `nnc_core.planner.tuning.tuned` plans them."""
        ...


@dataclass(frozen=True, slots=True)
class Whole:
    """A model in one piece."""

    model: SourceModel
    threads: int | None = None
    executor: Executor | None = None

    def nbytes(self) -> int:
        """As `Trials`."""
        topology = len(self.model.topology.data) if self.model.topology else 0
        return topology + sum(np.asarray(self.model.tensors[name]).nbytes for name in self.model.tensors)

    def frame_size(self, plan: ModelPlan) -> int:
        """As `Trials`."""
        return frame_size(self.model, plan)

    def saved_by_list(self, plan: ModelPlan) -> int:
        """As `Trials`."""
        whole = io.BytesIO()
        write_planned(whole, self.model, plan, **self._run)
        return len(whole.getvalue()) - len(with_reference_list(whole.getvalue()))

    def sizes(self, plan: ModelPlan, names: Iterable[str]) -> Mapping[str, int]:
        """As `Trials`."""
        return unit_sizes(self.model, plan, names, **self._run)

    def errors(self, plan: ModelPlan, names: Iterable[str]) -> Mapping[str, float]:
        """As `Trials`."""
        return squared_errors(self.model, plan, names, **self._run)

    def tuned(self, plan: ModelPlan, worths: Mapping[str, float]) -> Mapping[str, TensorPlan]:
        """As `Trials`."""
        from nnc_core.planner.tuning import tuned

        return tuned(plan, self.model, worths, **self._run)

    @property
    def _run(self) -> dict[str, Any]:
        return {"threads": self.threads, "executor": self.executor}
