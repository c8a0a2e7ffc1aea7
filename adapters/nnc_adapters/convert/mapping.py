"""What a mapping file says: which tensor comes from which, and how."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnc_adapters.shared import strict_json
from nnc_core.errors import ModelError
from nnc_core.records import dataclass

__all__ = ["Entry", "MappingFile", "Step", "answers_from", "apply", "load", "shape_after", "to_json"]

_FIELDS = {"from", "part", "transpose", "flatten", "steps"}
_PARTS_OF_PLAN = {"matched", "questions", "flatten", "candidates", "doubtful", "unused"}


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happens to an array: ``transpose``, ``reshape``, ``take`` positions, ``slice``, or ``join``."""

    name: str
    numbers: tuple[int, ...]
    axis: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a tensor comes from.

    ``part`` chooses, in this order, from the parts that the tensors ``sources`` hold together. ``steps`` take the
    tensors as they are stored, and replace what the table of layouts says.
    """

    sources: tuple[str, ...]
    part: tuple[int, ...] | None = None
    steps: tuple[Step, ...] | None = None


@dataclass(frozen=True, slots=True)
class MappingFile:
    """``entries`` for tensors of the target, None for one that stays as it is; ``flatten`` answers questions."""

    entries: Mapping[str, Entry | None] = field(default_factory=dict)
    flatten: Mapping[str, tuple[int, ...] | None] = field(default_factory=dict)


def load(content: str | Path | Mapping[str, Any]) -> MappingFile:
    """Read a mapping file, or what is in one; `ModelError` where it is not in the form that ``--print-map`` prints."""
    if not isinstance(content, Mapping):
        return _read(Path(content))
    tensors, flatten = content, {}
    if isinstance(content.get("matched"), Mapping) and content.keys() <= _PARTS_OF_PLAN:
        tensors, flatten = content["matched"], content.get("flatten", {})
        if not isinstance(flatten, Mapping):
            raise ModelError(f'"flatten" is {_short(flatten)}, expected an object of names')
    answers = dict(answers_from(flatten))
    for name, value in tensors.items():
        if isinstance(value, Mapping) and value.get("flatten") is not None:
            answers.update(answers_from({name: value["flatten"]}))
    return MappingFile({name: _entry(name, value) for name, value in tensors.items()}, answers)


def answers_from(flatten: Mapping[str, Any]) -> dict[str, tuple[int, ...] | None]:
    """The answers to questions; what has a zero in it is still one."""
    found = {name: None if value is False else _numbers(name, "flatten", value) for name, value in flatten.items()}
    return {name: value for name, value in found.items() if value is None or 0 not in value}


def _read(path: Path) -> MappingFile:
    try:
        value = strict_json.document(path.read_bytes())
    except ValueError as error:
        raise ModelError(f"not JSON: {error}", file=str(path)) from error
    if not isinstance(value, dict):
        raise ModelError("not an object of target name: source name", file=str(path))
    return load(value)


def _entry(name: str, value: Any) -> Entry | None:
    if value is None:
        return None
    fields = value if isinstance(value, Mapping) else {"from": value}
    given = fields.get("from")
    sources = [given] if isinstance(given, str) else given if isinstance(given, list) else []
    if not fields.keys() <= _FIELDS or not sources or not all(isinstance(source, str) for source in sources):
        expected = 'a source name, null, or {"from": name or names, "part", "transpose", "steps", "flatten"}'
        raise ModelError(f"the mapping has {_short(value)}, expected {expected}", tensor=name)
    part, steps = fields.get("part"), fields.get("steps")
    if fields.get("transpose") is not None:
        steps = [{"transpose": fields["transpose"]}, *(steps or [])]
    numbers = None if part is None else _numbers(name, "part", part)
    return Entry(tuple(sources), numbers, None if steps is None else _steps(name, steps))


def _steps(name: str, value: Any) -> tuple[Step, ...]:
    if not isinstance(value, list) or not all(isinstance(step, Mapping) for step in value):
        raise ModelError(f'"steps" is {_short(value)}, expected a list of objects', tensor=name)
    return tuple(_step(name, step) for step in value)


def _step(name: str, value: Mapping[str, Any]) -> Step:
    for key in ("transpose", "reshape", "take", "slice", "join"):
        if key in value and value.keys() <= {key, "axis"}:
            (axis,) = _numbers(name, "axis", value.get("axis", 0))
            numbers = _numbers(name, key, value[key])
            if key in ("join", "slice") and len(numbers) != (1 if key == "join" else 2):
                break
            return Step(key, numbers, axis)
    expected = '{"transpose": axes}, {"reshape": shape}, {"take": positions, "axis"}, {"slice": [start, stop], "axis"}'
    raise ModelError(f'the mapping has the step {_short(value)}, expected {expected} or {{"join": axis}}', tensor=name)


def _numbers(name: str, field_name: str, value: Any) -> tuple[int, ...]:
    numbers = [value] if type(value) is int else value
    if not isinstance(numbers, list | tuple) or not all(type(n) is int and n >= 0 for n in numbers):
        raise ModelError(f"the mapping's {field_name!r} is {_short(value)}, expected whole numbers", tensor=name)
    return tuple(numbers)


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 200 else text[:200] + "..."


def to_json(entry: Entry | None) -> Any:
    """An entry as it is in a mapping file."""
    if entry is None:
        return None
    sources: Any = entry.sources[0] if len(entry.sources) == 1 else list(entry.sources)
    options: dict[str, Any] = {} if entry.part is None else {"part": list(entry.part)}
    if entry.steps is not None:
        options["steps"] = [_plain(step) for step in entry.steps]
    return {"from": sources, **options} if options or len(entry.sources) > 1 else sources


def _plain(step: Step) -> dict[str, Any]:
    numbers: Any = step.numbers[0] if step.name == "join" else list(step.numbers)
    return {step.name: numbers, **({"axis": step.axis} if step.axis else {})}


def shape_after(steps: Sequence[Step], shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The shape of what ``steps`` make of tensors; ValueError where that is not possible."""
    found = list(shapes)
    for step in steps:
        found = [_joined(step, found)] if step.name == "join" else [_after(step, shape) for shape in found]
    if len(found) > 1:
        raise ValueError("several tensors need a step that joins them")
    return found[0]


def _joined(step: Step, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    (axis,) = step.numbers
    rests = {(*shape[:axis], *shape[axis + 1 :]) for shape in shapes if axis < len(shape)}
    if len(rests) != 1 or any(axis >= len(shape) for shape in shapes):
        raise ValueError(f"tensors of the shapes {list(map(list, shapes))} cannot be joined along axis {axis}")
    return (*shapes[0][:axis], sum(shape[axis] for shape in shapes), *shapes[0][axis + 1 :])


def _after(step: Step, shape: tuple[int, ...]) -> tuple[int, ...]:
    fits = {
        "transpose": sorted(step.numbers) == list(range(len(shape))),
        "reshape": prod(step.numbers) == prod(shape),
        "take": step.axis < len(shape) and all(n < shape[step.axis] for n in step.numbers),
        "slice": step.axis < len(shape) and 0 <= step.numbers[0] < step.numbers[-1] <= shape[step.axis]
        if step.numbers
        else False,
    }
    if not fits[step.name]:
        raise ValueError(f"{step.name} {list(step.numbers)} is not possible for the shape {list(shape)}")
    if step.name == "transpose":
        return tuple(shape[axis] for axis in step.numbers)
    if step.name == "reshape":
        return step.numbers
    count = len(step.numbers) if step.name == "take" else step.numbers[1] - step.numbers[0]
    return (*shape[: step.axis], count, *shape[step.axis + 1 :])


def apply(steps: Sequence[Step], arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """What ``steps`` make of ``arrays``; see `shape_after`."""
    found: list[NDArray[Any]] = list(arrays)
    for step in steps:
        if step.name == "join":
            found = [np.concatenate(found, step.numbers[0])]
        else:
            found = [_applied(step, array) for array in found]
    return found[0]


def _applied(step: Step, array: NDArray[Any]) -> NDArray[Any]:
    match step.name:
        case "transpose":
            return np.transpose(array, step.numbers)
        case "reshape":
            return np.reshape(array, step.numbers)
        case "take":
            return np.take(array, step.numbers, step.axis)
        case _:
            return np.take(array, np.arange(*step.numbers), step.axis)
