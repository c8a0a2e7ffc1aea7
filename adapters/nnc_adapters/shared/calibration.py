"""What a model does with calibration inputs: the inputs of its layers, and how much its output minds each weight.

For every framework alike; each has a module that runs its models.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from nnc_core.approximator.calibrated import Covariance, LayerInputs
from nnc_core.errors import ModelError
from nnc_core.nnr_model import SourceModel
from nnc_core.planner.sensitivity import probe, sensitivity
from nnc_core.records import dataclass

__all__ = ["Convolution", "Recorder", "measured", "patches", "probing", "same_pads"]

WIDEST: Final = 8192
"""Inputs of a layer, at most; for each pair of them 8 bytes are kept."""

PROBED: Final = 64
"""Batches, at most, that each weight is probed with: these tell enough, and there are many weights."""

_AT_ONCE: Final = 1 << 23
"""Elements of patches that are looked at together."""

Array = NDArray[Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Convolution:
    """How a convolution takes patches of its input (batch, channels, ...): one number for each spatial dimension.

    ``pads`` has pairs, before and after; ``mode`` is what `numpy.pad` calls what is there.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    groups: int = 1
    mode: str = "constant"


def same_pads(
    sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[tuple[int, int], ...]:
    """The padding that makes one output of so many inputs as the stride takes at once; of an odd one more after."""
    totals = (
        max(0, (-(-size // s) - 1) * s + (k - 1) * d + 1 - size)
        for size, k, s, d in zip(sizes, kernel, strides, dilations, strict=True)
    )
    return tuple((total // 2, total - total // 2) for total in totals)


def patches(inputs: Array, convolution: Convolution, *, channels_last: bool = False) -> Iterator[Array]:
    """What each group of a convolution multiplies its kernels with: (patches, width), in the kernels' order.

    With ``channels_last`` that is (patches, ..., channels), and otherwise (patches, channels, ...).
    """
    for group in np.split(_windows(inputs, convolution), convolution.groups, axis=1):
        yield _flat(group, len(convolution.kernel), channels_last)


def _windows(inputs: Array, convolution: Convolution) -> Array:
    """A view of the patches: (batch, channels, places..., kernel...)."""
    c, spatial = convolution, len(convolution.kernel)
    padded = np.pad(inputs, [(0, 0), (0, 0), *c.pads], mode=c.mode)  # type: ignore[call-overload]
    reach = tuple((k - 1) * d + 1 for k, d in zip(c.kernel, c.dilations, strict=True))
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, tuple(range(2, 2 + spatial)))
    steps = (slice(None), slice(None), *(slice(None, None, step) for step in (*c.strides, *c.dilations)))
    found: Array = windows[steps]
    return found


def _flat(windows: Array, spatial: int, channels_last: bool) -> Array:
    within = range(2 + spatial, 2 + 2 * spatial)
    order = (0, *range(2, 2 + spatial), *((*within, 1) if channels_last else (1, *within)))
    width = windows.shape[1] * int(np.prod(windows.shape[2 + spatial :]))
    flat: Array = windows.transpose(order).reshape(-1, width)
    return flat


@dataclass(slots=True)
class Recorder:
    """The inputs of layers, called by their weights, as a model runs; not of layers with more than `WIDEST`."""

    layers: dict[str, LayerInputs] = field(default_factory=dict)

    def product(self, name: str, inputs: Array, *, input_first: bool = False) -> None:
        """Take in inputs (..., width) of a matrix, which is stored with outputs first or with ``input_first``."""
        self._add(name, [inputs], input_first=input_first)

    def products(self, name: str, inputs: Sequence[Array]) -> None:
        """Take in inputs of a matrix whose rows form equal groups, for each group its own (..., width)."""
        self._add(name, inputs)

    def convolution(self, name: str, inputs: Array, convolution: Convolution, *, input_first: bool = False) -> None:
        """Take in inputs of a convolution, piece by piece: its patches take far more room.

        With ``input_first`` the kernels are stored as (..., channels, outputs), and otherwise (outputs, channels, ...).
        """
        spatial = len(convolution.kernel)
        for image in range(len(inputs)):
            windows = _windows(inputs[image : image + 1], convolution)
            lines = max(1, _AT_ONCE // max(1, windows[:, :, :1].size))
            for first in range(0, windows.shape[2], lines):
                groups = np.split(windows[:, :, first : first + lines], convolution.groups, axis=1)
                flat = [_flat(group, spatial, input_first) for group in groups]
                self._add(name, flat, input_first=input_first)

    def _add(self, name: str, groups: Sequence[Array], *, input_first: bool = False) -> None:
        if groups[0].shape[-1] > WIDEST:
            return
        new = LayerInputs(tuple(Covariance(each.shape[-1]) for each in groups), input_first)
        layer = self.layers.setdefault(name, new)
        if layer.input_first != input_first or len(layer.covariances) != len(groups):
            raise ModelError("is used in different ways, and cannot be calibrated", tensor=name)
        try:
            for covariance, inputs in zip(layer.covariances, groups, strict=True):
                covariance.add(inputs)
        except ValueError as error:
            raise ModelError(f"cannot be calibrated: {error}", tensor=name) from None


def probing(batches: Sequence[T]) -> Sequence[T]:
    """As many of the batches as weights are probed with, evenly chosen."""
    return batches[:: -(-len(batches) // PROBED)]


def measured(
    model: SourceModel,
    layers: Mapping[str, LayerInputs],
    names: Container[str],
    run: Callable[[str | None, Array | None], Iterable[Array]],
) -> SourceModel:
    """The model with what was measured of it.

    ``layers`` are its recorded inputs. ``run`` gives the outputs of the model, floating-point numbers, for calibration
    inputs (see `probing`), with one tensor replaced by other values if it is among the ``names``. `ModelError` where
    outputs are not finite.
    """
    reference = list(run(None, None))
    if not all(np.isfinite(each).all() for each in reference):
        raise ModelError("the outputs for the calibration inputs are not finite")
    fitting = {name: inputs for name, inputs in layers.items() if _is_weight(model, name, inputs)}
    gains = {
        name: _gain(name, np.asarray(model.tensors[name]), reference, run) for name in _probed(model) if name in names
    }
    gains = {name: gain for name, gain in gains.items() if gain >= 0}
    if not fitting and not gains:
        raise ModelError("there is nothing to calibrate: none of the weights is in a layer that shows its inputs")
    return replace(model, inputs=fitting, sensitivities=gains)


def _is_weight(model: SourceModel, name: str, inputs: LayerInputs) -> bool:
    return name in model.tensors and name not in model.exact and inputs.fits(np.shape(model.tensors[name]))


def _probed(model: SourceModel) -> Iterator[str]:
    """The tensors whose steps are to follow from what their errors do: weights."""
    types = model.model_info.get("parameter_type", {})
    for name in model.tensors:
        array = np.asarray(model.tensors[name])
        if types.get(name) in ("conv.weight", "fc.weight") and array.ndim > 1 and name not in model.exact:
            yield name


def _gain(
    name: str,
    array: Array,
    reference: Sequence[Array],
    run: Callable[[str | None, Array | None], Iterable[Array]],
) -> float:
    """The sensitivity of a tensor; -1 where there is none to be had."""
    values = np.ascontiguousarray(array, np.float32)
    if not np.isfinite(values).all():
        return -1.0
    probed = probe(values)
    error = sum(_error(*pair) for pair in zip(reference, run(name, probed), strict=True))
    return sensitivity(error, values, probed) if np.isfinite(error) else -1.0


def _error(expected: Array, found: Array) -> float:
    """The power of an error over that of the output."""
    power = float(np.square(expected, dtype=np.float64).sum())
    return float(np.square(np.subtract(expected, found, dtype=np.float64)).sum()) / power if power else 0.0
