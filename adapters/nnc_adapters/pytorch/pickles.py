"""Pickles of PyTorch, read without running them: what would be called is only written down.

Known are the globals that ``torch.load(weights_only=True)`` admits, and classes of mere data. All others are refused,
unless the caller takes objects as they are: these are not called and not imported either.
"""

from __future__ import annotations

import pickletools
import sys
import warnings
from collections.abc import Callable
from dataclasses import field
from typing import Any

from nnc_adapters.pytorch.admitted import ALLOWED, REBUILD, STORAGES
from nnc_adapters.pytorch.data_classes import DATA
from nnc_core.records import dataclass


class PickleError(ValueError):
    """The bytes are not a pickle, or one that only running it could make sense of."""


class ObjectError(PickleError):
    """A pickle refers to something else than data, which is called ``name``: a module and what is in it."""

    def __init__(self, message: str, name: str) -> None:
        super().__init__(message)
        self.name = name


@dataclass(frozen=True, slots=True)
class Global:
    """A function or class, as ``module name``."""

    name: str


@dataclass(eq=False, slots=True)
class Call:
    """What a call of ``function`` would have made."""

    function: Global


@dataclass(eq=False, slots=True)
class Object:
    """An instance of the class ``name``, or what a function of this name gives, with all that would go into it."""

    name: str
    arguments: Any = ()
    state: Any = None
    elements: list[Any] = field(default_factory=list)
    items: dict[Any, Any] = field(default_factory=dict)

    @property
    def registers(self) -> list[dict[Any, Any]]:
        """What a module has registered: parameters, buffers and modules; nothing for any other object."""
        state = self.state if isinstance(self.state, dict) else {}
        found = [state.get(register) for register in ("_parameters", "_buffers", "_modules")]
        return [each for each in found if isinstance(each, dict)]

    def parts(self) -> list[Any]:
        """What may have tensors inside."""
        return [self.items, self.elements, *(self.registers or [self.state]), self.arguments]


@dataclass(frozen=True, slots=True)
class Storage:
    """A reference to ``elements`` numbers, from element ``offset`` of those stored under ``key``."""

    key: str
    dtype: str
    elements: int
    offset: int = 0


@dataclass(eq=False, slots=True)
class Tensor:
    """A view of a storage; ``plain`` where it shows the stored numbers as they are."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    plain: bool = True


_Stack = list[Any]
_MARK = object()
_MOST_REMEMBERED = 1 << 32
_INTEGER_HASHES = sys.hash_info.modulus
"""From here on integers have the hashes of smaller ones."""


@dataclass(eq=False, slots=True)
class Pickle:
    """What a pickle describes: its ``value``, and everything that refers to storages, wherever it is.

    ``opaque`` are the names of what is admitted only because the caller takes objects as they are.
    """

    value: Any = None
    storages: list[Storage] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    opaque: set[str] = field(default_factory=set)


def load(stream: Any, *, classes: tuple[str, ...] = (), opaque: bool = False) -> Pickle:
    """Read one pickle from a binary file object, up to its end; names that begin like one of ``classes`` are admitted.

    So are all others where objects are taken ``opaque``. Raises `PickleError` for what is not a pickle, `ObjectError`
    for one that refers to anything else than mere data.
    """
    machine = _Machine(classes, opaque)
    try:
        with warnings.catch_warnings():
            # Escapes in strings that Python does not know; they are the file's affair, not its reader's.
            warnings.simplefilter("ignore", DeprecationWarning)
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name == "STOP":
                    machine.pickle.value = machine.pop()
                    return machine.pickle
                machine.run(opcode.name, argument)
    except PickleError:
        raise
    except (ValueError, TypeError, LookupError, OverflowError, AttributeError) as error:
        fault = str(error).partition("; use sys.set_int_max_str_digits")[0]  # which is advice for programmers
        raise PickleError(f"a pickle is damaged: {fault}") from error
    raise PickleError("a pickle has no end")


class _Machine:
    """The stack machine of pickles, without anything that calls."""

    def __init__(self, classes: tuple[str, ...], opaque: bool) -> None:
        self.pickle = Pickle()
        self.classes = classes
        self.opaque = opaque
        self.stack: _Stack = []
        self.memo: dict[int, Any] = {}

    def run(self, name: str, argument: Any) -> None:
        if name in _CONSTANTS:
            self.stack.append(argument)
        elif name in _VALUES:
            self.stack.append(_VALUES[name]())
        elif name in _INSTRUCTIONS:
            _INSTRUCTIONS[name](self, argument)
        else:
            raise PickleError(f"a pickle has an instruction {name}")

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise PickleError("a pickle has a stack underflow")
        return value

    def top(self, kind: type[Any]) -> Any:
        if not self.stack or not isinstance(self.stack[-1], kind):
            raise PickleError(f"a pickle needs a {kind.__name__} that is not there")
        return self.stack[-1]

    def above_mark(self) -> _Stack:
        for place in range(len(self.stack) - 1, -1, -1):
            if self.stack[place] is _MARK:
                values = self.stack[place + 1 :]
                del self.stack[place:]
                return values
        raise PickleError("a pickle refers to a mark that it has not set")

    def put(self, index: int | None) -> None:
        if index is not None and not 0 <= index < _MOST_REMEMBERED:
            raise PickleError(f"a pickle remembers a value as number {index}")
        self.memo[len(self.memo) if index is None else index] = self.top(object)

    def global_(self, name: str) -> None:
        self.stack.append(Global(self.allowed(name.replace("__builtin__ ", "builtins "))))

    def stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        if not (isinstance(name, str) and isinstance(module, str)) or " " in module + name:
            raise PickleError("a pickle refers to something without a name")
        self.global_(f"{module} {name}")

    def allowed(self, name: str) -> str:
        if name in ALLOWED or name in DATA or name.startswith(self.classes):
            return name
        if not self.opaque:
            raise ObjectError(f"its pickle refers to {name.replace(' ', '.')}, which could run code", name)
        self.pickle.opaque.add(name.replace(" ", "."))
        return name

    def extend(self, values: _Stack) -> None:
        target = self.top(object)
        held = target.elements if isinstance(target, Object) else self.top(list)
        held.extend(values)

    def set_items(self, values: _Stack) -> None:
        target = self.top(object)
        held = target.items if isinstance(target, Object) else self.top(dict)
        held.update((_key(key), value) for key, value in zip(values[::2], values[1::2], strict=True))

    def persistent(self) -> None:
        reference = self.pop()
        if isinstance(reference, tuple) and len(reference) == 4 and isinstance(reference[1], Global):
            self.stack.append(reference[1])  # a class of a module, and its source code in older files
            return
        self.stack.append(_storage(reference))
        self.pickle.storages.append(self.stack[-1])

    def new_object(self) -> None:
        arguments = self.pop()
        function = self.made(self.top(object))
        name = getattr(function, "name", "")
        if name in ALLOWED - DATA and not name.startswith(self.classes):
            raise PickleError(f"its pickle makes a {name.replace(' ', '.')}, which is not a class of data")
        self.stack[-1] = Object(name, arguments)

    def new_object_with_keywords(self) -> None:
        keywords, arguments = self.pop(), self.pop()
        self.stack.append((arguments, keywords))
        self.new_object()

    def frozenset(self) -> None:
        self.above_mark()
        self.stack.append(Call(Global("builtins frozenset")))

    def old_object(self, name: str | None) -> None:
        """Of a class in the instruction, or in front of its arguments."""
        arguments = self.above_mark()
        made = arguments.pop(0) if name is None else Global(self.allowed(name.replace("__builtin__ ", "builtins ")))
        if not isinstance(made, Global):
            raise PickleError("a pickle makes an object without a class")
        self.stack.append(Object(made.name, tuple(arguments)))

    def build(self) -> None:
        state = self.pop()
        target = self.top(object)
        if isinstance(target, Object):
            target.state = state
        elif not isinstance(target, (dict, Tensor)) and not self.opaque:
            raise PickleError("its pickle gives a state to something that has none")

    def reduce(self) -> None:
        arguments = self.pop()
        function = self.made(self.top(object))
        self.stack[-1] = self.call(function, arguments) if isinstance(function, Global) else Object("", arguments)

    def made(self, function: Any) -> Any:
        """``function``, if it is a name; among opaque objects it can be anything that was called for."""
        if isinstance(function, Global) or (self.opaque and isinstance(function, (Object, Call))):
            return function
        raise PickleError("a pickle calls something that has no name")

    def call(self, function: Global, arguments: Any) -> Any:
        if not isinstance(arguments, tuple):
            raise PickleError("a pickle calls something without arguments")
        if function.name == "torch Size":
            return tuple(*arguments)
        if function.name == "collections OrderedDict":
            return _ordered(*arguments)
        if function.name in _WRAPPERS or function.name.startswith("torch.jit._pickle "):
            return arguments[0]
        if function.name == "torch._tensor _rebuild_from_type_v2" and isinstance(arguments[0], Global):
            return self.call(arguments[0], arguments[2])
        if function.name in _TENSORS:
            tensor = _tensor(arguments[:4], *_TENSORS[function.name](arguments))
            self.pickle.tensors.append(tensor)
            return tensor
        return Call(function) if function.name in ALLOWED else Object(function.name, arguments)


class _Tuple(tuple[Any, ...]):
    """A tuple as a key; its own hash is that of many others, as -1 and -2 have the same."""

    __slots__ = ()

    def __hash__(self) -> int:
        return hash(str([repr(part) if isinstance(part, (int, float)) else hash(part) for part in self]))


def _key(key: Any) -> Any:
    """``key``, or what stands for it in a dictionary where a file could have many keys with the same hash."""
    if isinstance(key, int) and abs(key) >= _INTEGER_HASHES:
        return str(key)
    if not isinstance(key, tuple):
        return key
    # looking up tuples inside tuples without end would exhaust the interpreter's stack
    if any(isinstance(inner, tuple) for inner in key):
        raise PickleError("a pickle has a key made of keys")
    return _Tuple(key)


def _ordered(pairs: Any = ()) -> dict[Any, Any]:
    return {_key(key): value for key, value in pairs}


_WRAPPERS = (f"{REBUILD}parameter", f"{REBUILD}parameter_with_state")
_TENSORS: dict[str, Callable[[Any], tuple[Any, Any]]] = {
    f"{REBUILD}tensor": lambda a: (None, None),
    f"{REBUILD}tensor_v2": lambda a: (None, a[6] if len(a) > 6 else None),
    f"{REBUILD}tensor_v3": lambda a: (a[6], a[7] if len(a) > 7 else None),
}


def _tensor(view: tuple[Any, ...], dtype: Any, metadata: Any) -> Tensor:
    storage, offset, shape, strides = view
    if not isinstance(storage, Storage) or not _is_count(offset):
        raise PickleError("a tensor has no storage")
    if not all(isinstance(sizes, tuple) and all(map(_is_count, sizes)) for sizes in (shape, strides)):
        raise PickleError("a tensor has no shape")
    kind = dtype.name.rpartition(" ")[2] if isinstance(dtype, Global) else storage.dtype
    return Tensor(storage, kind, offset, shape, strides, not metadata)


def _storage(reference: Any) -> Storage:
    """The storage that a persistent id means: ("storage", type, key, place, elements, and what part of it)."""
    if not isinstance(reference, tuple) or len(reference) not in (5, 6) or reference[0] != "storage":
        raise PickleError("a pickle refers to something that is not a storage")
    _, kind, key, _, elements, *part = reference
    name = kind.name.rpartition(" ")[2] if isinstance(kind, Global) else ""
    if name not in STORAGES or not isinstance(key, (str, int)) or not _is_count(elements):
        raise PickleError("a pickle refers to a storage of an unknown kind")
    if not part or part[0] is None:
        return Storage(str(key), STORAGES[name], elements)
    _, offset, _ = part[0]
    if not _is_count(offset):
        raise PickleError("a pickle refers to a strange part of a storage")
    return Storage(str(key), STORAGES[name], elements, offset)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value < 1 << 63


_CONSTANTS = frozenset(
    {
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
        *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    }
)
_VALUES: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": lambda: Call(Global("builtins set")),
    "MARK": lambda: _MARK,
}


def _tuple(machine: _Machine, size: int) -> None:
    values = [machine.pop() for _ in range(size)]
    machine.stack.append(tuple(reversed(values)))


def _dict(machine: _Machine) -> None:
    values = machine.above_mark()
    machine.stack.append({})
    machine.set_items(values)


_INSTRUCTIONS: dict[str, Callable[[_Machine, Any], object]] = {
    "PROTO": lambda m, a: None,
    "FRAME": lambda m, a: None,
    "POP": lambda m, a: m.stack.pop(),
    "POP_MARK": lambda m, a: m.above_mark(),
    "DUP": lambda m, a: m.stack.append(m.top(object)),
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.put,
    "GET": lambda m, a: m.stack.append(m.memo[a]),
    "BINGET": lambda m, a: m.stack.append(m.memo[a]),
    "LONG_BINGET": lambda m, a: m.stack.append(m.memo[a]),
    "TUPLE": lambda m, a: m.stack.append(tuple(m.above_mark())),
    "TUPLE1": lambda m, a: _tuple(m, 1),
    "TUPLE2": lambda m, a: _tuple(m, 2),
    "TUPLE3": lambda m, a: _tuple(m, 3),
    "LIST": lambda m, a: m.stack.append(m.above_mark()),
    "DICT": lambda m, a: _dict(m),
    "APPEND": lambda m, a: m.extend([m.pop()]),
    "APPENDS": lambda m, a: m.extend(m.above_mark()),
    "SETITEM": lambda m, a: m.set_items([m.pop(), m.pop()][::-1]),
    "SETITEMS": lambda m, a: m.set_items(m.above_mark()),
    "ADDITEMS": lambda m, a: (m.above_mark(), m.top(object)),
    "FROZENSET": lambda m, a: m.frozenset(),
    "GLOBAL": _Machine.global_,
    "STACK_GLOBAL": lambda m, a: m.stack_global(),
    "BINPERSID": lambda m, a: m.persistent(),
    "REDUCE": lambda m, a: m.reduce(),
    "NEWOBJ": lambda m, a: m.new_object(),
    "NEWOBJ_EX": lambda m, a: m.new_object_with_keywords(),
    "OBJ": lambda m, a: m.old_object(None),
    "INST": _Machine.old_object,
    "BUILD": lambda m, a: m.build(),
}
