"""The text of an NNEF graph: the variables that it declares, and its operations, as far as they can be understood.

The text is never changed, so nothing needs to be understood to carry it; statements in the language of an extension are
passed over. Nothing is executed, and each token is looked at a bounded number of times.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from itertools import pairwise
from typing import Final, NamedTuple

from nnc_core.errors import ModelError
from nnc_core.records import dataclass

__all__ = ["Fragment", "Operation", "Text", "Value", "checked", "parsed", "variables", "without_comments"]

_TOKEN: Final = re.compile(
    r"(?:\s|\#[^\n]*){0,1000}"  # a search that can go back to each of them takes memory for it
    r"(?:(?P<blank>(?=[\s#]))"
    r"|(?P<string>'[^']*'|\"[^\"]*\")"
    r"|(?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<word>[^\W\d]\w*)"
    r"|(?P<mark>->|<=|>=|==|!=|&&|\|\||[^\s\w'\"#])"
    r"|(?P<end>\Z)|(?P<strange>['\"]|\w+))"
)
_COMMENT: Final = re.compile(rb"('[^']*'|\"[^\"]*\")|\#[^\n]*")
_OPEN, _CLOSE = {"(": ")", "[": "]", "{": "}"}, {")", "]", "}"}
_DEEPEST, _SHALLOW = 64, 4

# What infix operators stand for, and how closely they bind.
_INFIX: Final = {
    "||": ("or", 1),
    "&&": ("and", 2),
    "in": ("in", 3),
    "<": ("lt", 4),
    ">": ("gt", 4),
    "<=": ("le", 4),
    ">=": ("ge", 4),
    "==": ("eq", 4),
    "!=": ("ne", 4),
    "+": ("add", 5),
    "-": ("sub", 5),
    "*": ("mul", 6),
    "/": ("div", 6),
    "^": ("pow", 7),
}
_PREFIX: Final = {"-": "neg", "!": "not", "+": "copy"}

# The inputs of standard operations in their order, where others than the first matter.
_PARAMETERS: Final = {
    **dict.fromkeys(
        ("copy", "neg", "abs", "sign", "exp", "log", "log2", "sqr", "sqrt", "rsqr", "rsqrt", "rcp"), ("x",)
    ),
    **dict.fromkeys(("rsqrt", "sin", "cos", "tan", "floor", "ceil", "round", "relu", "softplus", "leaky_relu"), ("x",)),
    **dict.fromkeys(("split", "unstack"), ("value", "axis")),
    **dict.fromkeys(("concat", "stack"), ("values", "axis")),
    "tract_core_einsum": ("inputs", "expr"),
    **dict.fromkeys(("conv", "depthwise_conv", "deconv", "linear"), ("input", "filter", "bias")),
    **dict.fromkeys(("separable_conv", "separable_deconv"), ("input", "plane_filter", "point_filter", "bias")),
    **dict.fromkeys(("add", "sub", "mul", "div", "pow", "min", "max"), ("x", "y")),
    **dict.fromkeys(("lt", "gt", "le", "ge", "eq", "ne", "and", "or"), ("x", "y")),
    **dict.fromkeys(("gather", "tract_core_gather"), ("input", "indices", "axis")),
    **dict.fromkeys(("variable", "external"), ("shape", "label")),
    "matmul": ("A", "B", "transposeA", "transposeB"),
    "batch_normalization": ("input", "mean", "variance", "offset", "scale", "epsilon"),
    "clamp": ("x", "a", "b"),
    "select": ("condition", "true_value", "false_value"),
    "update": ("variable", "value"),
    "prelu": ("x", "alpha"),
    **dict.fromkeys(("linear_quantize", "min_max_linear_quantize"), ("x", "min", "max", "bits")),
    "zero_point_linear_quantize": ("x", "zero_point", "scale", "bits"),
    "logarithmic_quantize": ("x", "max", "bits"),
    "tract_core_cast": ("input", "to"),
}


class _Token(NamedTuple):
    kind: str
    text: str


class Value(NamedTuple):
    """A name, and the fragment in which it has a meaning; empty for the graph."""

    scope: str
    name: str


@dataclass(frozen=True, slots=True)
class Operation:
    """A call, or an operator: its arguments by the names of the parameters, or numbered where these are unknown.

    An argument is a `Value`, a number, a truth value, a text, several of these as a tuple, or None for anything else.
    """

    name: str
    arguments: Mapping[str, object]
    results: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Fragment:
    """The names of what a fragment takes and gives."""

    parameters: tuple[str, ...]
    results: tuple[str, ...]


@dataclass(slots=True)
class Text:
    """What is understood of a graph; operations are in order, those of a fragment before those that call it."""

    operations: list[Operation] = field(default_factory=list)
    fragments: dict[str, Fragment] = field(default_factory=dict)


class _UnknownSyntaxError(Exception):
    """A statement in no language known here."""


def checked(data: bytes, name: str) -> str:
    """The text of a file; comments may be in any encoding. `ModelError` for a zero byte."""
    if b"\0" in data:
        raise ModelError(f"{name} has a zero byte")
    return data.decode("utf-8", "surrogateescape")


def without_comments(data: bytes) -> bytes:
    """The text without its comments."""
    return _COMMENT.sub(lambda match: match[1] or b"", data)


def variables(data: bytes) -> dict[str, tuple[int, ...]]:
    """The variables whose label and shape are literals, in order; of others nothing is known.

    `ModelError` for what is not the text of a graph, and a label that is declared with different shapes or is not text.
    """
    tokens = _tokens(checked(data, "graph.nnef"))
    found: dict[str, tuple[int, ...]] = {}
    for at, token in enumerate(tokens):
        if token == ("word", "variable") and tokens[at - 1] != ("word", "fragment"):
            declared = _declared(tokens, at + 1)
            if declared is not None:
                _add(found, *declared)
    return found


def _add(found: dict[str, tuple[int, ...]], label: str, shape: tuple[int, ...]) -> None:
    if any("\ud800" <= letter <= "\udfff" for letter in label):
        raise ModelError(f"the label {label!a} is not UTF-8")
    if found.setdefault(label, shape) != shape:
        raise ModelError(f"is declared with shapes {list(found[label])} and {list(shape)}", tensor=label)


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    known: dict[str, _Token] = {}
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or "end"
        if kind in ("blank", "end"):
            continue
        word = match[kind]
        if kind == "strange" and word in "'\"":
            raise ModelError("not an NNEF graph: a string has no end")
        token = known.get(word)
        if token is None:
            token = known[word] = _Token(kind, word)
        found.append(token)
    _check_brackets(found)
    if ("word", "graph") not in found:
        raise ModelError("not an NNEF graph: it declares none")
    return found


def _check_brackets(tokens: Sequence[_Token]) -> None:
    expected: list[str] = []
    for kind, text in tokens:
        if kind == "mark" and text in _OPEN:
            expected.append(_OPEN[text])
        elif kind == "mark" and text in _CLOSE and (not expected or expected.pop() != text):
            raise ModelError(f"not an NNEF graph: {text!r} closes what is not open")
    if expected:
        raise ModelError(f"not an NNEF graph: {expected[-1]!r} is missing at the end")


def _declared(tokens: Sequence[_Token], at: int) -> tuple[str, tuple[int, ...]] | None:
    """Label and shape in the call whose name is before ``at``; None where they are not plain to see."""
    parser = _Parser(tokens, at, "", Text(), _SHALLOW)
    try:
        operation = parser.call("variable")
    except _UnknownSyntaxError:
        return None
    label, shape = operation.arguments.get("label"), operation.arguments.get("shape")
    if not isinstance(label, str) or not isinstance(shape, tuple):
        return None
    sizes = [size for size in shape if isinstance(size, float) and size.is_integer() and 0 <= size < 1 << 32]
    return (label, tuple(map(int, sizes))) if len(sizes) == len(shape) else None


def parsed(data: bytes) -> Text:
    """The operations of a graph and of its fragments, without the statements that cannot be understood."""
    tokens = _tokens(checked(data, "graph.nnef"))
    text = Text()
    bodies = list(_bodies(tokens, text))
    for scope, body in bodies:
        for statement in _statements(body):
            _Statement(statement, scope, text).read()
    return text


def _bodies(tokens: Sequence[_Token], text: Text) -> Iterator[tuple[str, Sequence[_Token]]]:
    """The scope and the body of every fragment and graph."""
    at = 0
    while at < len(tokens):
        kind = tokens[at]
        at += 1
        if kind not in (("word", "fragment"), ("word", "graph")) or at >= len(tokens):
            continue
        name = tokens[at].text
        is_graph = kind.text == "graph"
        start = next((i for i in range(at, len(tokens)) if tokens[i].text in ("{", ";")), len(tokens))
        if not is_graph:
            text.fragments[name] = _signature(tokens[at + 1 : start])
        end = _closing(tokens, start) if start < len(tokens) and tokens[start].text == "{" else start
        yield "" if is_graph else name, tokens[start + 1 : end]
        at = end + 1


def _signature(tokens: Sequence[_Token]) -> Fragment:
    """The names before the colons, to both sides of the arrow."""
    arrow = next((i for i, token in enumerate(tokens) if token.text == "->"), len(tokens))

    def names(some: Sequence[_Token]) -> tuple[str, ...]:
        pairs = pairwise(some)
        return tuple(name.text for name, colon in pairs if name.kind == "word" and colon.text == ":")

    return Fragment(names(tokens[:arrow]), names(tokens[arrow:]))


def _closing(tokens: Sequence[_Token], at: int) -> int:
    """Where the bracket at ``at`` closes; brackets are known to be in pairs."""
    depth = 0
    for end in range(at, len(tokens)):
        text = tokens[end].text if tokens[end].kind == "mark" else ""
        depth += (text in _OPEN) - (text in _CLOSE)
        if depth == 0:
            return end
    return len(tokens)


def _statements(body: Sequence[_Token]) -> Iterator[Sequence[_Token]]:
    start = 0
    for at, token in enumerate(body):
        if token == ("mark", ";"):
            yield body[start:at]
            start = at + 1


class _Parser:
    """Reads expressions from ``tokens``; the operations that they consist of are added to ``text``."""

    def __init__(self, tokens: Sequence[_Token], at: int, scope: str, text: Text, deepest: int = _DEEPEST) -> None:
        self.tokens, self.at, self.scope, self.text = tokens, at, scope, text
        self.left = deepest

    def peek(self) -> str:
        """The next token; empty at the end, and for a string."""
        token = self.tokens[self.at] if self.at < len(self.tokens) else _Token("end", "")
        return "" if token.kind == "string" else token.text

    def take(self, *expected: str) -> _Token:
        """The next token, which must be one of ``expected``, if there are any."""
        if self.at >= len(self.tokens) or (expected and self.peek() not in expected):
            raise _UnknownSyntaxError
        self.at += 1
        return self.tokens[self.at - 1]

    def expression(self, closeness: int = 0) -> object:
        """What is before the next operator that binds less than ``closeness``, or before a comma or bracket."""
        self.left -= 1
        if self.left < 0:
            raise _UnknownSyntaxError
        left = self.operand()
        while self.peek() in _INFIX and _INFIX[self.peek()][1] > closeness:
            name, strength = _INFIX[self.take().text]
            left = self.done(name, {"x": left, "y": self.expression(strength)})
        if self.peek() == "if" and closeness == 0:
            left = self.choice(left)
        self.left += 1
        return left

    def choice(self, left: object) -> object:
        """The rest of ``left if condition else right``."""
        self.take("if")
        condition = self.expression(1)
        self.take("else")
        return self.done("select", {"condition": condition, "true_value": left, "false_value": self.expression()})

    def operand(self) -> object:
        """A literal, a name, a call, a list, or an operator and its operand."""
        token = self.take()
        if token.kind == "string":
            return token.text[1:-1]
        if token.kind == "number":
            return float(token.text)
        if token.kind == "word":
            return self.named(token.text)
        if token.text in _PREFIX:
            value = self.expression(7)
            return (
                -value
                if token.text == "-" and isinstance(value, float)
                else self.done(_PREFIX[token.text], {"x": value})
            )
        if token.text in ("(", "["):
            return self.several(_OPEN[token.text])
        raise _UnknownSyntaxError

    def named(self, name: str) -> object:
        """A truth value, a call, or the value of this name."""
        if name in ("true", "false"):
            return name == "true"
        if self.peek() == "(" or (self.peek() == "<" and self.is_typed()):
            operation = self.call(name)
            self.text.operations.append(operation)
            return operation.results[0]
        if self.peek() == "[":
            raise _UnknownSyntaxError
        return Value(self.scope, name)

    def is_typed(self) -> bool:
        """Whether a call goes on with its type, as in ``variable<scalar>(``."""
        return [token.text for token in self.tokens[self.at + 2 : self.at + 4]] == [">", "("]

    def several(self, end: str) -> object:
        """The items before ``end``; a single one in parentheses is itself."""
        items: list[object] = []
        while self.peek() != end:
            items.append(self.expression())
            if self.peek() != end:
                self.take(",")
        self.take(end)
        return items[0] if end == ")" and len(items) == 1 else tuple(items)

    def call(self, name: str) -> Operation:
        """The call of ``name`` whose type or arguments come next."""
        if self.peek() == "<":
            self.at += 3
        self.take("(")
        fragment = self.text.fragments.get(name)
        names = fragment.parameters if fragment else _PARAMETERS.get(name, ("input",))
        arguments: dict[str, object] = {}
        while self.peek() != ")":
            ahead = self.tokens[self.at : self.at + 2]
            if len(ahead) == 2 and ahead[0].kind == "word" and ahead[1] == ("mark", "="):
                slot = ahead[0].text
                self.at += 2
            else:
                slot = names[len(arguments)] if len(arguments) < len(names) else str(len(arguments))
            arguments[slot] = self.expression()
            if self.peek() != ")":
                self.take(",")
        self.take(")")
        return Operation(name, arguments, (self.fresh(),))

    def done(self, name: str, arguments: dict[str, object]) -> Value:
        """The result of an operation."""
        result = self.fresh()
        self.text.operations.append(Operation(name, arguments, (result,)))
        return result

    def fresh(self) -> Value:
        """A value without a name; no identifier begins with a dollar sign."""
        return Value(self.scope, f"${self.at}.{len(self.text.operations)}")


class _Statement:
    """An assignment: the operation on its right is given the names on its left."""

    def __init__(self, tokens: Sequence[_Token], scope: str, text: Text) -> None:
        self.tokens, self.scope, self.text = tokens, scope, text

    def read(self) -> None:
        """Add its operations; none where it is not understood."""
        equals = next((i for i, token in enumerate(self.tokens) if token == ("mark", "=")), None)
        if equals is None:
            return
        results = tuple(Value(self.scope, t.text) for t in self.tokens[:equals] if t.kind == "word")
        before = len(self.text.operations)
        try:
            parser = _Parser(self.tokens, equals + 1, self.scope, self.text)
            value = parser.expression()
            if parser.at != len(self.tokens):
                raise _UnknownSyntaxError
        except _UnknownSyntaxError:
            del self.text.operations[before:]
            return
        self.name(value, results)

    def name(self, value: object, results: tuple[Value, ...]) -> None:
        """Let the results of the outermost operation be called ``results``."""
        operations = self.text.operations
        if operations and operations[-1].results == (value,):
            last = operations.pop()
            operations.append(Operation(last.name, last.arguments, results))
        else:
            operations.append(Operation("copy", {"x": value}, results))
