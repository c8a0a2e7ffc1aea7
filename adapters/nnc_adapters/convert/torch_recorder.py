"""Following the tensors of a PyTorch module while it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from nnc_adapters.convert.axes import Axis
from nnc_adapters.convert.described import Described
from nnc_adapters.convert.parts import PartOf
from nnc_adapters.convert.trace import Traced

__all__ = ["Args", "Handler", "Kwargs", "Recorder", "Weight", "tensors_in"]

Args = tuple[Any, ...]
Kwargs = Mapping[str, Any]


@dataclass(frozen=True)
class Weight:
    """A tensor of the state dict, perhaps transposed."""

    name: str
    transposed: bool = False


def tensors_in(value: Any) -> list[Any]:
    """Every tensor in arguments or results."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, Mapping):
        return tensors_in(list(value.values()))
    if isinstance(value, list | tuple):
        return [tensor for item in value for tensor in tensors_in(item)]
    return []


class Recorder(TorchFunctionMode):
    """Follows the tensors of a run; those that are weights stay weights until something is computed with them."""

    def __init__(self, module: Any, names: Mapping[str, str], handlers: Mapping[str, Handler], joint: bool) -> None:
        super().__init__()
        self.handlers = handlers
        self.result = Described(joint=joint)
        self.known: dict[int, Traced | Weight] = {}
        self.alive: list[Any] = []
        named = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
        for name, tensor in named:
            if name in names and id(tensor) not in self.known:
                self.known[id(tensor)] = Weight(names[name])
                self.alive.append(tensor)

    def name(self, tensor: Any, value: Traced | Weight) -> Any:
        """Remember what a tensor is."""
        self.known[id(tensor)] = value
        self.alive.append(tensor)
        return tensor

    def value(self, tensor: Any) -> Traced:
        """What a tensor is; a weight becomes a value."""
        found = self.known.get(id(tensor))
        if isinstance(found, Weight) and tensor.numel() == 1:
            return Traced(tuple(Axis(1) for _ in tensor.shape))  # a number, not a weight
        if isinstance(found, Weight):
            shape = tuple(tensor.shape)
            found = self.result.trace.constant(self.result.part(found.name, "bias"), shape)
            if len(shape) > 1 and self.weight(tensor).transposed:
                found = self.result.trace.opaque([found], shape)
        return found or Traced(self.result.trace.opaque([], tuple(tensor.shape)).axes)

    def weight(self, tensor: Any) -> Weight:
        """The weight that a tensor is; LookupError for none."""
        found = self.known.get(id(tensor))
        if isinstance(found, Weight):
            return found
        raise LookupError

    def is_weight(self, tensor: Any) -> bool:
        """Whether a tensor is a weight."""
        return isinstance(self.known.get(id(tensor)), Weight)

    def part(self, tensor: Any, kind: str, place: int = 0) -> PartOf:
        """A part of the weight that a tensor is."""
        return self.result.part(self.weight(tensor).name, kind, place)

    def __torch_function__(self, func: Any, types: Any, args: Args = (), kwargs: Kwargs | None = None) -> Any:
        """Run a function, and follow it."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        tensors = tensors_in(out)
        if tensors and (tensors_in(list(args)) or tensors_in(kwargs)):
            self._follow(func, args, kwargs, out, tensors)
        return out

    def _follow(self, func: Any, args: Args, kwargs: Kwargs, out: Any, tensors: list[Any]) -> None:
        name = getattr(func, "__name__", "").rstrip("_").removeprefix("__").removeprefix("i" * _in_place(func))
        if name == "get":  # of a property
            name = getattr(getattr(func, "__self__", None), "__name__", "")
        try:
            found = self.handlers[name](self, args, kwargs, out) if name in self.handlers else None
        except (LookupError, TypeError, ValueError, AttributeError):
            found = None
        if found is None:
            values = [self.value(tensor) for tensor in tensors_in([list(args), dict(kwargs)])]
            found = [self.result.trace.opaque(values, tuple(t.shape), f"{name} {k}") for k, t in enumerate(tensors)]
        for tensor, value in zip(tensors, found if isinstance(found, list) else [found], strict=False):
            self.name(tensor, value)


def _in_place(func: Any) -> bool:
    name = getattr(func, "__name__", "")
    return name.startswith("__i") and name not in ("__invert__", "__index__", "__int__")


Handler = Callable[[Recorder, Args, Kwargs, Any], "Traced | Weight | list[Traced] | None"]
"""What a function makes of a recorder, its arguments and its result; None if that is not known."""
