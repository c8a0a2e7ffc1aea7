"""graph.nnef: the variables that it declares, and what they are for; the package ``nnef`` checks what is read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from nnc_adapters.nnef import parser
from nnc_core.errors import ModelError
from nnc_core.nnr_model import ParameterType

_TOKEN: Final = re.compile(
    r"\s+|\#[^\n]*"
    r"|(?P<string>'[^']*'|\"[^\"]*\")"
    r"|(?P<word>\w+)"
    r"|(?P<mark>[^\s\w'\"])",
)

_ROLES: dict[str, dict[str, ParameterType]] = {
    "conv": {"filter": "conv.weight", "bias": "conv.bias"},
    "deconv": {"filter": "conv.weight", "bias": "conv.bias"},
    "separable_conv": {"plane_filter": "conv.weight", "point_filter": "conv.weight", "bias": "conv.bias"},
    "separable_deconv": {"plane_filter": "conv.weight", "point_filter": "conv.weight", "bias": "conv.bias"},
    "linear": {"filter": "fc.weight", "bias": "fc.bias"},
    "matmul": {"A": "fc.weight", "B": "fc.weight"},
    "gather": {"input": "fc.weight"},  # an embedding: a matrix product with a one-hot vector
    "batch_normalization": {"mean": "bn.mean", "variance": "bn.var", "offset": "bn.beta", "scale": "bn.gamma"},
}
# Inputs that are arguments of an operation, not weights: a small change of value can change what it does.
_ARGUMENTS: dict[str, tuple[str, ...]] = {
    "clamp": ("a", "b"),
    "pow": ("y",),
    **dict.fromkeys(("lt", "gt", "le", "ge", "eq", "ne"), ("x", "y")),
    "select": ("condition",),
    "update": ("variable", "value"),
    "gather": ("indices",),
}
_PASSING = ("transpose", "reshape", "squeeze", "unsqueeze", "copy")


@dataclass(frozen=True, slots=True)
class Graph:
    """What a graph says of its variables, by label: their shapes, roles where these are known, and which are arguments.

    ``arguments`` are not weights, and must be exact.
    """

    shapes: Mapping[str, tuple[int, ...]]
    roles: Mapping[str, ParameterType]
    arguments: frozenset[str]


class _Token(NamedTuple):
    kind: str
    text: str


def parsed(data: bytes, quantization: bytes | None) -> Graph:
    """Parse and check a graph and what graph.quant says of it.

    Raises `ModelError` where the package ``nnef`` finds fault, `MissingDependencyError` without it.
    """
    text = _text(data, "graph.nnef")
    shapes = variables(data)
    operations = parser.operations(text, None if quantization is None else _text(quantization, "graph.quant"))
    found = {operation.label: operation.shape for operation in operations if operation.name == "variable"}
    if found != shapes:
        raise ModelError(f"graph.nnef declares variables {sorted(found)}, and {sorted(shapes)} can be seen")
    uses = list(_uses(operations))
    return Graph(shapes, _roles(uses), frozenset(label for label, op, slot in uses if slot in _ARGUMENTS.get(op, ())))


def _text(data: bytes, name: str) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ModelError(f"{name} is not UTF-8: {error}") from None
    if "\0" in text:
        raise ModelError(f"{name} has a zero byte")
    return text


def variables(data: bytes) -> dict[str, tuple[int, ...]]:
    """The variables that a graph declares, label and shape, in order; `ModelError` for what cannot be one.

    Needs no package: variables are declared with literals, and nowhere but in the graph itself.
    """
    tokens = list(_tokens(_text(data, "graph.nnef")))
    found: dict[str, tuple[int, ...]] = {}
    for at, token in enumerate(tokens):
        if token == ("word", "variable"):
            arguments = _arguments(tokens, at + 1)
            if arguments is not None:
                _add(found, *_declared(arguments))
    return found


def _add(found: dict[str, tuple[int, ...]], label: str, shape: tuple[int, ...]) -> None:
    if found.setdefault(label, shape) != shape:
        raise ModelError(f"is declared with shapes {list(found[label])} and {list(shape)}", tensor=label)


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ModelError("not an NNEF graph: a string has no end")
        at = match.end()
        if match.lastgroup is not None:
            yield _Token(match.lastgroup, match[match.lastgroup])


def _arguments(tokens: list[_Token], at: int) -> list[_Token] | None:
    """The tokens between the parentheses of the call whose name is before ``at``; None where it is no call."""
    if [token.text for token in tokens[at : at + 1]] == ["<"]:
        at += 3
    if [token.text for token in tokens[at : at + 1]] != ["("]:
        return None
    end = next((i for i in range(at, len(tokens)) if tokens[i] == ("mark", ")")), len(tokens))
    return tokens[at + 1 : end]


def _declared(arguments: list[_Token]) -> tuple[str, tuple[int, ...]]:
    """The label and the shape of a declaration ``shape = [...], label = '...'``."""
    labels = [token.text[1:-1] for token in _value(arguments, "label") if token.kind == "string"]
    sizes = [token.text for token in _value(arguments, "shape") if token.text != ","]
    if len(labels) != 1 or not all(size.isascii() and size.isdecimal() and len(size) <= 10 for size in sizes):
        text = " ".join(token.text for token in arguments)
        raise ModelError(f"graph.nnef has a variable whose label and shape cannot be seen: {text[:80]}")
    return labels[0], tuple(map(int, sizes))


def _value(arguments: list[_Token], name: str) -> list[_Token]:
    """What follows ``name =``: the items of an array, or a single token."""
    for at in range(len(arguments) - 2):
        if arguments[at] == ("word", name) and arguments[at + 1].text == "=":
            value = arguments[at + 2 :]
            if value[0].text != "[":
                return value[:1]
            return value[1 : next((i for i, token in enumerate(value) if token.text == "]"), None)]
    return []


def _uses(operations: list[parser.Operation]) -> Iterator[tuple[str, str, str]]:
    """Label, operation and name of the input, for each use of a variable; reshaping is looked through."""
    labels: dict[str, str] = {}
    for operation in operations:
        if operation.name == "variable":
            labels |= dict.fromkeys(operation.outputs, operation.label)
            continue
        used = [(slot, labels[value]) for slot, value in operation.inputs.items() if value in labels]
        if operation.name in _PASSING:
            labels |= {output: label for output in operation.outputs for _, label in used}
        else:
            yield from ((label, operation.name, slot) for slot, label in used)


def _roles(uses: list[tuple[str, str, str]]) -> dict[str, ParameterType]:
    """The roles of variables that have one and the same wherever they are used."""
    found: dict[str, set[ParameterType | None]] = {}
    for label, operation, slot in uses:
        found.setdefault(label, set()).add(_ROLES.get(operation, {}).get(slot))
    alone = {label: roles.pop() for label, roles in found.items() if len(roles) == 1}
    return {label: role for label, role in alone.items() if role is not None}
