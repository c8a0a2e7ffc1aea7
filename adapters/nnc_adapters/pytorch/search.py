"""The tensors in what a pickle describes, and the keys that lead to them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nnc_adapters.pytorch.pickles import Object, PickleError, Tensor

_ALONE = "tensor"  # the key of a tensor that is in no container
_Found = Iterator[tuple[tuple[str, ...], Tensor, bool]]


def tensors(value: Any, most: int) -> _Found:
    """The tensors inside containers, with the keys that lead there, and whether an optimizer keeps them.

    Raises `PickleError` for containers nested more than ``most`` deep.
    """
    yield from _Search(most).inside({_ALONE: value} if isinstance(value, Tensor) else value, (), False)


class _Search:
    """Looks for tensors in containers, into each of them once."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.depth = 0
        self.seen: set[int] = set()

    def inside(self, value: Any, path: tuple[str, ...], optimizer: bool) -> _Found:
        if isinstance(value, Tensor):
            yield path, value, optimizer
        if not isinstance(value, (dict, list, tuple, Object)) or id(value) in self.seen:
            return
        self.seen.add(id(value))
        self.depth += 1
        if self.depth > self.most:
            raise PickleError(f"containers are nested more than {self.most} deep")
        yield from self._parts(value, path, optimizer)
        self.depth -= 1

    def _parts(self, value: Any, path: tuple[str, ...], optimizer: bool) -> _Found:
        if isinstance(value, Object):
            if value.registers:
                yield from self._registered(value, path, "", optimizer)
            for part in value.parts():
                yield from self.inside(part, path, optimizer)
            return
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        optimizer = optimizer or (isinstance(value, dict) and value.keys() >= {"state", "param_groups"})
        for key, inner in pairs:
            yield from self.inside(inner, (*path, _text(key)), optimizer)

    def _registered(self, module: Object, path: tuple[str, ...], before: str, optimizer: bool) -> _Found:
        """The tensors in a module and those below it, by the names that they have in its state dict."""
        for register in module.registers:
            self.seen.add(id(register))
            for key, inner in register.items():
                name = before + _text(key)
                if isinstance(inner, Object) and inner.registers and id(inner) not in self.seen:
                    self.seen.add(id(inner))
                    yield from self._registered(inner, path, name + ".", optimizer)
                else:
                    yield from self.inside(inner, (*path, name), optimizer)


def _text(key: Any) -> str:
    if isinstance(key, tuple):
        return "tuple"
    return str(key) if isinstance(key, (str, int, float, bytes, type(None))) else type(key).__name__
