"""Weights from a model in one framework into the same network in another.

The way of a conversion: `reading` finds out what the files say about their networks (a front end follows each and
leaves a `trace`), `matching` which tensor is which and what tells it, `flattening` in which order axes are stored,
`deciding` whether that is proven, `moving` makes the weights.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import nnc_core
from nnc_adapters import api, registry
from nnc_adapters.base import Options
from nnc_adapters.convert.deciding import CheckError, Pair
from nnc_adapters.convert.mapping import Entry, MappingFile, answers_from, load, to_json
from nnc_adapters.convert.matching import By, Matched
from nnc_adapters.convert.moving import moved
from nnc_adapters.convert.network import Network
from nnc_adapters.convert.parts import PartOf
from nnc_adapters.convert.reading import Model
from nnc_adapters.convert.remarks import differences, losses
from nnc_adapters.convert.running import Input, module_from
from nnc_adapters.reports import Meter, Watched, passing
from nnc_adapters.shared.files import about, check_free, size_of
from nnc_adapters.shared.logs import inform
from nnc_adapters.targets import BITSTREAMS, check_fits
from nnc_core import CodingParameters, Limits, ModelError

__all__ = ["By", "CheckError", "ConvertReport", "convert", "plan"]

Mapping_ = str | Path | Mapping[str, Any]
"""A JSON file, or what is in it: ``{target name: source name, null, or {"from": ..., "steps": [...]}}``."""
Flatten = Mapping[str, Sequence[int] | bool | None]
Modules = Sequence[Any]


@dataclass(frozen=True, slots=True)
class ConvertReport:
    """What `convert` did.

    ``plan`` is what `plan` returns, ``kept`` the tensors that the target had already, ``unused`` those of the source
    that went nowhere. ``difference`` is that of the outputs in the check, relative to their range, None where there was
    no check, for the reason ``unchecked``. ``doubtful`` are tensors that order alone told apart, ``proven`` those of
    them that a run confirmed, ``remarks`` what else differs.
    """

    target: Path
    tensors: int
    weights: int
    plan: dict[str, Any]
    kept: list[str]
    unused: list[str]
    doubtful: list[str]
    proven: list[str]
    difference: float | None
    unchecked: str
    remarks: list[str]
    seconds: float


@dataclass(frozen=True)
class _Said:
    """What the user says about a conversion."""

    mapping: Mapping_ | None = None
    by: By | None = None
    flatten: Flatten | None = None
    modules: Modules = ()
    inputs: Sequence[Sequence[int]] = ()
    fold: bool = False
    limits: Limits = field(default_factory=Limits)
    threads: int | None = None


def convert(
    source: str | Path,
    target: str | Path,
    *,
    into: str | Path,
    mapping: Mapping_ | None = None,
    by: By | None = None,
    flatten: Flatten | None = None,
    check: bool | None = None,
    module: Any = None,
    inputs: Sequence[Sequence[int]] = (),
    fold: bool = False,
    parameters: CodingParameters | None = None,
    threads: int | None = None,
    force: bool = False,
    meter: Meter | None = None,
    limits: Limits | None = None,
) -> ConvertReport:
    """Write the model ``into`` to ``target``, with the weights of ``source``, the same network in another framework.

    Each of the three is a model in any format, or an NNR bitstream (``.nnr``) of one; ``parameters`` are those of a
    bitstream as ``target``. Tensors that a ``mapping`` does not name are matched, with ``by`` in one way only.
    ``flatten`` has the images that tensors take flattened, by name. ``module`` is the PyTorch network of a state dict
    (two if both sides are PyTorch), as an object, a callable or ``FILE.py:NAME``; ``inputs`` are the shapes it takes.

    Both models are run and compared if that is possible; always with ``check``, never if it is false. With ``fold``,
    one side may have batch normalization that the other has folded into convolutions.

    Raises `CheckError` if the outputs differ, `ModelError` if the models do not match or a question is open,
    `FileExistsError` if ``target`` exists, unless ``force``, and what `compress` and `decompress` raise.
    """
    started = time.perf_counter()
    target = Path(target)
    check_free(target, force=force)
    said = _Said(mapping, by, flatten, _modules(module), inputs, fold, limits or Limits(), threads)
    with _pair(Path(source), Path(into), said) as pair:
        _check_name(target, pair.target)
        decision = pair.decide(check)
        result = pair.verified(decision, check)
        matched, tensors = decision.matched, moved(decision.matched, pair.source.content.tensors)
        remarks = [
            *differences(matched, checked=result.passed),
            *losses(tensors, pair.target.content.tensors),
            *pair.notes(),
        ]
        _tell(matched)
        weights = sum(prod(pair.target.shapes[name]) for name in tensors)
        with _written(target, pair.target, parameters, threads, force, meter) as path:
            watched = Watched(tensors, passed=passing(meter, "converting", 4 * weights))
            pair.target.write(watched, path, force=force)
        return ConvertReport(
            target, len(tensors), weights, _plan(matched),
            list(matched.kept), matched.unused, list(decision.doubtful), list(decision.proven), result.difference,
            result.reason, [*([result.note] if result.note else []), *remarks], time.perf_counter() - started,
        )  # fmt: skip


def plan(
    source: str | Path,
    into: str | Path,
    *,
    mapping: Mapping_ | None = None,
    by: By | None = None,
    flatten: Flatten | None = None,
    module: Any = None,
    inputs: Sequence[Sequence[int]] = (),
    fold: bool = False,
    limits: Limits | None = None,
) -> dict[str, Any]:
    """What `convert` would do, as the content of a mapping file that can be edited and used.

    ``matched`` has the source of each tensor of the target, ``candidates`` the possible sources of the others,
    ``questions`` the images whose flattening is not known, ``flatten`` the answers (``[C, H, W]``, or false if both
    sides store them in the same order), ``doubtful`` what was told apart by order alone, ``unused`` what remains of
    the source.
    """
    said = _Said(mapping, by, flatten, _modules(module), inputs, fold, limits or Limits())
    with _pair(Path(source), Path(into), said) as pair:
        return _plan(pair.matched())


def _tell(matched: Matched) -> None:
    """Log which tensor is which, and what says so."""
    for part, source in matched.pairs.items():
        if not part.place:
            evidence = matched.evidence.get(part, "the mapping")
            inform(__name__, "%s: from %s, by %s", part.name, source.name, evidence)


def _plan(matched: Matched) -> dict[str, Any]:
    return {
        "matched": {name: to_json(entry) for name, entry in _entries(matched).items()},
        "questions": {question.name: list(question.image) for question in matched.orders.questions},
        "flatten": {name: False if image is None else list(image) for name, image in matched.answers.items()},
        "candidates": {name: list(matched.candidates.get(name, ())) for name in matched.missing},
        "doubtful": matched.doubtful,
        "unused": matched.unused,
    }


def _entries(matched: Matched) -> dict[str, Entry | None]:
    found: dict[str, Entry | None] = dict.fromkeys(matched.kept)
    missing = set(matched.missing)
    for name, parameter in matched.target.parameters.items():
        if name in matched.raw:
            found[name] = matched.raw[name]
        elif PartOf(name, 0) in matched.pairs and name not in missing and name not in found and parameter.fill is None:
            parts = [matched.pairs[PartOf(name, k)] for k in range(len(parameter.parts))]
            found[name] = _entry(parts, matched.source)
    return {name: found[name] for name in matched.target.parameters if name in found}


def _entry(parts: Sequence[PartOf], source: Network) -> Entry:
    """The entry that takes ``parts``, in this order."""
    sources = tuple(dict.fromkeys(part.name for part in parts))
    offered = [PartOf(name, k) for name in sources for k in range(len(source.parameters[name].parts))]
    chosen = tuple(offered.index(part) for part in parts)
    return Entry(sources, None if chosen == tuple(range(len(offered))) else chosen)


def _modules(module: Any) -> Modules:
    given = module if isinstance(module, list | tuple) else [module] if module is not None else []
    return [module_from(item) if isinstance(item, str) else item for item in given]


@contextmanager
def _pair(source: Path, into: Path, said: _Said) -> Iterator[Pair]:
    modules = [item() if callable(item) and not hasattr(item, "state_dict") else item for item in said.modules]
    modules = [item() if isinstance(item, type) else item for item in modules]
    ours, theirs = (modules[0], modules[-1]) if modules else (None, None)
    declared = tuple(Input(tuple(shape)) for shape in said.inputs)
    given = load(said.mapping) if said.mapping is not None else MappingFile()
    answers = answers_from(said.flatten or {})
    with _opened(source, said, ours, declared) as first, _opened(into, said, theirs, declared) as second:
        yield Pair(first, second, said.by, given, answers, said.fold)


@contextmanager
def _opened(path: Path, said: _Said, module: Any, declared: tuple[Input, ...]) -> Iterator[Model]:
    """The model in a file, or the one that a bitstream restores to: small tensors are in its topology."""
    if not _is_bitstream(path):
        yield _read(path, said.limits, module, declared)
        return
    with about(path), nnc_core.open(path, limits=said.limits) as file:
        topology = file.topology
    if topology is None:
        raise ModelError("carries no topology: what its tensors are to the network is not known", file=str(path))
    with tempfile.TemporaryDirectory() as folder:
        adapter = registry.adapter(topology.storage_format)
        restored = Path(folder, "model" + adapter.default_suffix(topology))
        with about(path):
            api.decompress(path, restored, threads=said.threads, limits=said.limits)
        yield _read(restored, said.limits, module, declared)


def _read(path: Path, limits: Limits, module: Any, declared: tuple[Input, ...]) -> Model:
    adapter = registry.find(path)
    with about(path):
        content = adapter.read(path, Options(limits.following(size_of(path)), all_floats=True))
    return Model(path, adapter, content, limits, module if adapter.layout == "pytorch" else None, declared)


def _is_bitstream(path: Path) -> bool:
    return path.suffix.lower() in BITSTREAMS


def _check_name(target: Path, template: Model) -> None:
    """`ModelError` where ``target`` is neither a bitstream nor called like its template's format."""
    if template.content.topology is not None and not _is_bitstream(target):
        check_fits(template.content.topology, target)


@contextmanager
def _written(
    target: Path,
    like: Model,
    parameters: CodingParameters | None,
    threads: int | None,
    force: bool,
    meter: Meter | None,
) -> Iterator[Path]:
    """Where a model like ``like`` is to be written: ``target``, or where it is compressed from."""
    if not _is_bitstream(target):
        yield target
        return
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, "model" + like.suffix)
        yield model
        api.compress(model, target, parameters=parameters, threads=threads, force=force, meter=meter)
