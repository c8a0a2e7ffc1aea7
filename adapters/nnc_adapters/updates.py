"""Updates of model files: what makes one model of another, as a bitstream, and the way back."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

import nnc_core
from nnc_adapters import api, export, registry, targets
from nnc_adapters.anchors import is_anchor, read_anchor
from nnc_adapters.base import EVERYTHING, Adapter, Options, SourceModel, Topology
from nnc_adapters.containers import plain
from nnc_adapters.containers.concatenation import Concatenation
from nnc_adapters.reports import CompressReport, Meter, Progress, Watched, passing
from nnc_adapters.shared.files import about, check_free, replacing, size_of
from nnc_core import CodingParameters, InputParameters, Limits, ModelError, NnrFile, ReplayError, UpdateOptions
from nnc_core.records import dataclass
from nnc_core.updates import (
    Chain,
    Manifest,
    PatchedModel,
    fold_exact,
    fold_onto,
    known_dimensions,
    load_chain,
    manifest_of,
    save_chain,
    write_update,
)

__all__ = ["DiffReport", "LinkReport", "PatchReport", "diff", "fold", "fold_whole", "is_update", "links", "patch"]


class _Model(NamedTuple):
    """A model with all its numbers among the tensors, and what writes it."""

    source: SourceModel
    topology: Topology
    adapter: Adapter


@dataclass(frozen=True, slots=True)
class DiffReport:
    """What `diff` wrote; without ``same_structure`` the models differ in more than numbers, which the update leaves."""

    size: int
    tensors: int
    elements: int
    manifest: Manifest
    same_structure: bool


@dataclass(frozen=True, slots=True)
class PatchReport:
    """What `patch` did: the file it wrote, the updates that it applied and skipped, and the tensors that changed."""

    target: Path
    applied: int
    skipped: int
    tensors: int


@dataclass(frozen=True, slots=True)
class LinkReport:
    """One update among several: its place in its chain, and whether the one before it is there, too.

    ``follows`` is the file that it follows on, `None` for the first of a chain, and ``missing`` says that no file has
    the update before.
    """

    file: Path
    manifest: Manifest
    follows: Path | None
    missing: bool


def diff(
    base: str | Path,
    new: str | Path,
    target: str | Path,
    options: UpdateOptions | None = None,
    *,
    state: str | Path | None = None,
    restart: bool = False,
    threads: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
    meter: Meter | None = None,
    limits: Limits | None = None,
) -> DiffReport:
    """Write what makes the model ``new`` of the model ``base`` to the bitstream ``target``.

    Both are models of any format, or bitstreams, of the same network. What an adapter knows must be exact is exact in
    a lossy update, too. ``state`` is a file that is kept from update to update, and makes them a chain: ``base`` is
    then the model as the receivers have it after the last one, and later updates take fewer bytes; it is written once
    the update is. Without it, or with ``restart``, the update needs nothing but ``base``. Raises `WrongBaseError` for
    a ``base`` that the state does not belong to, `ModelError` where the models differ in more than values.
    """
    bounds, chosen = limits or Limits(), options or UpdateOptions()
    target = Path(target)
    with ExitStack() as stack:
        before, after = (stack.enter_context(_opened(Path(p), bounds)) for p in (base, new))
        chain = _chain(before.source.tensors, state, restart)
        exact = before.source.exact
        keeps = chosen.keeps
        chosen = replace(chosen, keeps=lambda name: keeps(name) or name in exact)
        same = before.topology == after.topology
        with replacing(target, force=force) as stream:
            moved, report = write_update(
                stream,
                chain,
                before.source.tensors,
                after.source.tensors,
                chosen,
                threads=threads,
                progress=_both(progress, meter, size_of(Path(new))),
                limits=bounds,
                remember=state is not None,
            )
    if state is not None:
        save_chain(moved, state)
    return DiffReport(report.size, report.tensors, report.elements, report.manifest, same)


def _both(progress: Progress | None, meter: Meter | None, size: int) -> Progress | None:
    """Tells ``progress`` the tensors that are done, and ``meter`` their share of ``size`` bytes."""
    if meter is None:
        return progress

    def told(done: int, total: int) -> None:
        if progress is not None:
            progress(done, total)
        meter("comparing", size * done // max(total, 1), size)

    return told


def _chain(base: Mapping[str, NDArray[Any]], state: str | Path | None, restart: bool) -> Chain:
    if state is None or restart or not Path(state).exists():
        return Chain.of(base)
    chain = load_chain(state)
    chain.check_base(base)
    return chain


def patch(
    base: str | Path,
    updates: Sequence[str | Path],
    target: str | Path,
    *,
    state: str | Path | None = None,
    skip_applied: bool = False,
    unverified: bool = False,
    threads: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
    meter: Meter | None = None,
    limits: Limits | None = None,
) -> PatchReport:
    """Apply ``updates``, in order, to the model ``base``, and write the result as ``target``, in its format.

    ``base`` is a model or a bitstream. ``state`` is the file that an earlier `patch` left, and is written anew once
    ``target`` is; updates that begin a chain do without. ``skip_applied`` passes over updates that are part of
    ``base`` already, ``unverified`` admits bitstreams that do not say which model they are for. Raises an
    `UpdateError` where an update does not come next; then nothing is written.
    """
    bounds, target = limits or Limits(), Path(target)
    check_free(target, force=force)
    with _opened(Path(base), bounds) as model:
        passed = passing(meter, "patching", size_of(Path(base)))
        return _patch(model, updates, target, bounds, state, skip_applied, unverified, force, progress, passed, threads)


def _patch(
    model: _Model,
    updates: Sequence[str | Path],
    target: Path,
    limits: Limits,
    state: str | Path | None = None,
    skip_applied: bool = False,
    unverified: bool = False,
    force: bool = False,
    progress: Progress | None = None,
    passed: Callable[[int], None] | None = None,
    threads: int | None = None,
) -> PatchReport:
    skipped = 0
    with ExitStack() as stack:
        chain = _chain(model.source.tensors, state, restart=False)
        patched = PatchedModel(chain, model.source.tensors, remember=state is not None)
        for path in updates:
            known = known_dimensions(chain) if unverified else None
            try:
                with about(Path(path)):
                    file = stack.enter_context(_update(Path(path), limits, known))
                    patched.add(file, unverified=unverified)
            except ReplayError:
                if not skip_applied:
                    raise
                skipped += 1
        with patched.decoding_ahead(threads) as tensors:
            _write(model, Watched(tensors, progress, passed=passed), target, limits, force)
        chain = patched.chain_after()
    if state is not None:
        save_chain(chain, state)
    return PatchReport(target, len(updates) - skipped, skipped, len(patched.changed))


@contextmanager
def _update(path: Path, limits: Limits, known: Mapping[str, InputParameters] | None = None) -> Iterator[NnrFile]:
    """A bitstream, or the one in a container; `ModelError` for a model."""
    if path.exists() and not is_bitstream(path) and any(adapter.sniff(path) for adapter in registry.adapters()):
        raise ModelError("is a model, not an update; nnc diff makes an update of two models", file=str(path))
    with plain(path, limits) as bitstream, nnc_core.open(bitstream, limits=limits, input_parameters=known) as file:
        yield file


def _write(model: _Model, tensors: Mapping[str, NDArray[Any]], target: Path, limits: Limits, force: bool) -> None:
    """Write a model in its own format, or its tensors to a file of safetensors or npz."""
    if export.takes(target) and not targets.fits(model.topology, target):
        export.export(tensors, target, force=force)
    else:
        targets.check_fits(model.topology, target)
        model.adapter.write(tensors, model.topology, target, Options(limits), force=force)


@contextmanager
def _opened(path: Path, limits: Limits) -> Iterator[_Model]:
    """A model with all its numbers; a bitstream is restored beside itself for the time being."""
    with tempfile.TemporaryDirectory() as folder:
        if is_bitstream(path):
            if is_update(path, limits=limits):
                message = "is an update, not a model: the model that it applies to is needed here"
                raise ModelError(message, file=str(path))
            with plain(path, limits) as bitstream:
                path = _restored(bitstream, Path(folder, path.stem), limits)
        adapter = registry.find(path)
        source = adapter.read(path, Options(limits, chosen=EVERYTHING, bits=True))
        if source.topology is None:
            raise ModelError("the model has no structure that could be kept", file=str(path))
        yield _Model(source, source.topology, adapter)


def _restored(bitstream: Path, target: Path, limits: Limits) -> Path:
    """The model in a bitstream, as a file; named tensors without a model around them, as safetensors."""
    with nnc_core.open(bitstream, limits=limits) as file:
        topology = file.topology
    if topology is None or is_anchor(topology):
        target = target.with_name(target.name + ".safetensors")
    if topology is not None and is_anchor(topology):
        export.export(read_anchor(bitstream.read_bytes(), limits=limits), target)
        return target
    api.decompress(bitstream, target, limits=limits)
    return target


def is_bitstream(path: Path) -> bool:
    """Whether a file is an NNR bitstream and not a model."""
    return path.is_file() and Concatenation().sniff(path)


def is_update(path: str | Path, *, limits: Limits | None = None) -> bool:
    """Whether a file is an update of this suite."""
    return _found(Path(path), limits) is not None


def fold(
    updates: Sequence[str | Path],
    target: str | Path,
    *,
    base: str | Path | None = None,
    threads: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
    meter: Meter | None = None,
    limits: Limits | None = None,
) -> Manifest:
    """Make one update of consecutive ones, see `nnc_core.updates.fold`; return what it says about itself.

    Lossy updates need the model ``base`` that the first one applies to.
    """
    bounds = limits or Limits()
    with ExitStack() as stack:
        files = [stack.enter_context(_update(Path(path), bounds)) for path in updates]
        stream = stack.enter_context(replacing(Path(target), force=force))
        if base is None:
            return fold_exact(stream, files, limits=bounds)
        model = stack.enter_context(_opened(Path(base), bounds))
        told = _both(progress, meter, size_of(Path(base)))
        tensors = model.source.tensors
        return fold_onto(stream, tensors, files, threads=threads, progress=told, limits=bounds).manifest


def fold_whole(
    base: str | Path,
    updates: Sequence[str | Path],
    target: str | Path,
    *,
    threads: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
    meter: Meter | None = None,
    limits: Limits | None = None,
) -> CompressReport:
    """Fold a whole model, as a bitstream or a file, and updates into the bitstream ``target``, which loses nothing.

    A receiver that starts from it has what one has that started from ``base`` and took every update.
    """
    bounds = limits or Limits()
    check_free(Path(target), force=force)
    with tempfile.TemporaryDirectory() as folder, _opened(Path(base), bounds) as model:
        patched = Path(folder, "model" + model.adapter.default_suffix(model.topology))
        passed = passing(meter, "patching", size_of(Path(base)))
        _patch(model, updates, patched, bounds, progress=progress, passed=passed, threads=threads)
        lossless = CodingParameters(lossless=True)
        return api.compress(
            patched, target, parameters=lossless, threads=threads, force=force, meter=meter, limits=limits
        )


def links(paths: Iterable[str | Path], *, limits: Limits | None = None) -> list[LinkReport]:
    """Put updates in order, chain by chain, and say which are missing; files in folders count, if they are updates."""
    found = {path: manifest for path in _files(paths) if (manifest := _found(path, limits)) is not None}
    results = {manifest.result: path for path, manifest in found.items()}
    ordered = sorted(found.items(), key=lambda item: (item[1].chain, item[1].sequence, str(item[0])))
    return [LinkReport(path, m, results.get(m.base), not m.restart and m.base not in results) for path, m in ordered]


def _files(paths: Iterable[str | Path]) -> Iterator[Path]:
    for path in map(Path, paths):
        yield from (sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path])


def _found(path: Path, limits: Limits | None) -> Manifest | None:
    if not Concatenation().sniff(path):
        return None
    with nnc_core.open(path, limits=limits) as file:
        return manifest_of(file)
