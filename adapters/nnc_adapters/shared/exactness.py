"""Which floating-point tensors must not change, as far as their names and their neighbours tell.

What is missed here is still harmless: a tensor that is coded keeps a useful accuracy. But a quantization multiplies its
scales by every weight, an optimizer divides by the square roots of its second moments, and so small errors grow.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from nnc_adapters.shared.dtypes import FLOATS

__all__ = ["OPTIMIZER", "Declared", "reasons"]

OPTIMIZER = "optimizer state"
_QUANTIZER = "parameter of a quantization"


class Declared(NamedTuple):
    """What a model says about a tensor; a type that the codec does not know has any name."""

    dtype: str
    shape: tuple[int, ...]


_Tensors = Mapping[str, Declared]
_Parts = tuple[str, ...]

# What stands beside integers or packed numbers and turns them into weights.
_BESIDE_INTEGERS = re.compile(
    r"scale|zero|absmax|amax|quant|codebook|centroid|^\d+$"
    r"|(^|_)(zp|scb|su|sv|lut|shift|offset|min|max|min_val|max_val|range|eps|alpha|step_size|delta)s?(_|$)"
)
# The same by names that mean nothing else, wherever the integers are.
_ANYWHERE = re.compile(
    r"scale_inv|(^|_)(absmax\d?|quant_map|qmap\d?|qzeros|scb|zero_points?|pre_quant_scale)$"
    r"|^(weight|input|output|act|activation|q|k|v|kv|prob|global)_(global_)?scales?(_\d+)?$"
)
_FREQUENCIES = re.compile(r"inv_freq|(^|_)freqs?(_|$)|frequenc|timescale|div_term|(^|_)(cos|sin)_cached?$")
_DIVISORS = re.compile(r"(^|_)(eps|epsilon|stds?|stddev|sigmas?|divisors?|denom|denominator|temperatures?)$")
# Tables of a diffusion process, whose smallest entries matter as much as the largest.
_SCHEDULES = re.compile(r"^(betas|alphas|(sqrt|log|posterior|alphas?)_\w*(alphas?|variance|mean|cumprod)\w*)$")

# What optimizers call the numbers that they keep for each weight, and nobody else.
_SLOTS = re.compile(
    r"(max_)?exp_avg(_sqs?|_slow|_diff|_var|_fisher|s)?(_row|_col)?|exp_inf|square_avg|grad_avg|acc_delta"
    r"|momentum_buffer|(row|col)_momentum|prev_grad|previous_grad|linear_accumulator|slow_buffer"
    r"|(adam|lamb|adafactor|slot)_(m|v|vr|vc|vhat)|qmap[12]|new_max[12]|(inv_)?preconditioners?"
)
# The same, if it stands behind the name of a weight.
_SLOTS_OF_WEIGHTS = re.compile(
    r"[mv]|v[rc]|vhat|momentum|velocity|hessian|(grad_)?accumulator|(first|second)_moment|moment_?[12]|state[12]|max[12]"
)
# The same, if the other one is there, too, and none of attention's.
_PAIRS = ({"m", "v"}, {"mu", "nu"}, {"vr", "vc"}, {"m", "u"}, {"state1", "state2"}, {"max1", "max2"})
_FACTORS = {"vr", "vc"}  # of different shapes: rows and columns of a matrix
_ATTENTION = {"q", "k", "o"}
_SEPARATOR = re.compile(r"[./:]")


def reasons(tensors: _Tensors) -> dict[str, str]:
    """Why tensors of floating-point numbers must be exact, by name; of most nothing is known.

    Names are keys joined by dots or slashes.
    """
    floats = {name: t for name, t in tensors.items() if t.dtype in FLOATS}
    integers = set(_around_integers(tensors))
    meant = {name: reason for name, t in floats.items() if (reason := _reason(name, t.shape, integers))}
    return {**meant, **dict.fromkeys(_optimizer(tensors), OPTIMIZER)}


def _leaf(name: str) -> str:
    return _SEPARATOR.split(name)[-1].lower()


def _module(name: str) -> str:
    return name[: max(0, len(name) - len(_SEPARATOR.split(name)[-1]) - 1)]


def _around_integers(tensors: _Tensors) -> Iterator[str]:
    """The modules in which numbers are not floating-point, and the names of these, below which scales can be."""
    for name, tensor in tensors.items():
        if tensor.dtype not in FLOATS | {"bool"} and math.prod(tensor.shape) > 1:
            yield _module(name)
            yield name


def _reason(name: str, shape: tuple[int, ...], integers: set[str]) -> str | None:
    leaf = _leaf(name)
    if _ANYWHERE.search(leaf) or (_module(name) in integers and _BESIDE_INTEGERS.search(leaf)):
        return _QUANTIZER
    if _FREQUENCIES.search(leaf):
        return "frequencies"
    if sum(size > 1 for size in shape) > 1:
        return None
    if _SCHEDULES.search(leaf):
        return "schedule of a diffusion"
    return "divisor" if _DIVISORS.search(leaf) else None


def _optimizer(tensors: _Tensors) -> Iterator[str]:
    """The names of what optimizers keep for each weight."""
    split = {name: tuple(_SEPARATOR.split(name)) for name in tensors}
    shapes = {parts: tensors[name].shape for name, parts in split.items()}
    for name, parts in split.items():
        if tensors[name].dtype in FLOATS and (
            any(map(_SLOTS.fullmatch, parts)) or _is_of_a_pair(parts, shapes) or _is_of_a_weight(name, tensors)
        ):
            yield name


def _is_of_a_pair(parts: _Parts, shapes: Mapping[_Parts, tuple[int, ...]]) -> bool:
    """Whether there is the other one of two moments: of the same name but for one part of it."""

    def is_there(place: int, other: str) -> bool:
        shape = shapes.get((*parts[:place], other, *parts[place + 1 :]))
        return shape is not None and (shape == shapes[parts] or other in _FACTORS)

    for place, part in enumerate(parts):
        others = [other for pair in _PAIRS if part in pair for other in pair - {part}]
        if any(is_there(place, o) for o in others) and not any(is_there(place, o) for o in _ATTENTION):
            return True
    return False


def _is_of_a_weight(name: str, tensors: _Tensors) -> bool:
    """Whether the name is that of a weight, and behind it what an optimizer has for it."""
    places = (at for at, letter in enumerate(name) if letter in "_./")
    return any(name[:at] in tensors and _is_slot(name[at + 1 :]) for at in places)


def _is_slot(name: str) -> bool:
    return bool(_SLOTS.fullmatch(name) or _SLOTS_OF_WEIGHTS.fullmatch(name))
