"""What a bitstream is decompressed to: the model it was, an existing model's structure, or named tensors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from nnc_adapters import registry
from nnc_adapters.base import DEFAULTS, EVERYTHING, Adapter, Options
from nnc_adapters.shared.dtypes import FLOATS
from nnc_adapters.shared.lazy import LazyTensors, overlay
from nnc_core.errors import ModelError
from nnc_core.lazy import LazyModule
from nnc_core.nnr_model import Topology
from nnc_core.tables.code_points import TopologyStorageFormat

if TYPE_CHECKING:
    from nnc_adapters import export
    from nnc_adapters.shared import exactness
    from nnc_core import NnrFile
else:  # for what is not written as the model that it was
    export, exactness = LazyModule("nnc_adapters.export"), LazyModule("nnc_adapters.shared.exactness")

__all__ = ["BITSTREAM", "BITSTREAMS", "check_fits", "default_target", "fits", "pruned_writer", "write_into", "writer"]

BITSTREAM = ".nnr"
"""How the names of bitstreams end that are written."""
BITSTREAMS = (BITSTREAM, ".nnc", ".nctm")
"""How the names of bitstreams end."""

_Tensors = Mapping[str, NDArray[Any]]
_Writer = Callable[[_Tensors, Options, bool], None]

_NO_TOPOLOGY = (
    "carries no topology, the model that its tensors belong to; name a model to decompress into (--into), or write "
    "them to a file that ends in .safetensors or .npz"
)


def default_target(source: Path, topology: Topology | None, into: Path | None) -> Path:
    """Beside ``source``, with the suffix that the model should have; `ModelError` where that is not known."""
    if into is not None:
        return source.with_suffix(into.suffix)
    if topology is None:
        raise ModelError(_NO_TOPOLOGY, file=str(source))
    return source.with_suffix(_adapter(source, topology).default_suffix(topology))


def _adapter(source: Path, topology: Topology) -> Adapter:
    if topology.storage_format == TopologyStorageFormat.NNR_TPL_UNREC and _is_update(topology):
        raise ModelError("is an update, not a model; nnc patch applies it to its base", file=str(source))
    return registry.adapter(topology.storage_format)


def _is_update(topology: Topology) -> bool:
    from nnc_core.updates.manifest import BEGINNING

    return topology.data.startswith(BEGINNING)


def writer(source: Path, topology: Topology | None, target: Path, into: Path | None) -> _Writer:
    """What writes tensors, given as options and whether to replace a file say, to ``target``.

    `ModelError` where the bitstream carries no model, or the suffix of ``target`` is that of another format.
    """
    if into is not None:
        return partial(_into, into, topology, target)
    if topology is not None:
        adapter = _adapter(source, topology)
        if fits(topology, target):
            return lambda tensors, options, force: adapter.write(tensors, topology, target, options, force=force)
    if not export.takes(target):
        raise ModelError(_NO_TOPOLOGY, file=str(source)) if topology is None else _contradiction(topology, target)
    return lambda tensors, options, force: _export(tensors, topology, target, options, force)


def _into(
    into: Path, topology: Topology | None, target: Path, tensors: _Tensors, options: Options, force: bool
) -> None:
    """Write ``into`` with the tensors of a bitstream, and with the small ones that travel in its topology."""
    adapter = registry.find(into)
    if topology is None or topology.storage_format != adapter.topology_storage_format:
        write_into(adapter, tensors, into, target, options, force=force)
        return
    # a temporary file is not loaded, so that it may have any objects
    with export.every_tensor(tensors, topology, replace(options, opaque=True)) as every:
        scalars, state = replace(options, bits=True), _optimizer_state(every)
        given = {name: partial(every.__getitem__, name) for name in every if name in tensors or name not in state}
        write_into(adapter, LazyTensors(given), into, target, scalars, needed=frozenset(tensors), force=force)


def _optimizer_state(tensors: _Tensors) -> set[str]:
    """The names of tensors that are not weights but optimizer state, which may have been left behind."""
    declared = {name: exactness.Declared(array.dtype.name, array.shape) for name, array in tensors.items()}
    return {name for name, reason in exactness.reasons(declared).items() if reason == exactness.OPTIMIZER}


def _same_floats(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.dtype.name in FLOATS


def pruned_writer(file: NnrFile, target: Path, into: Path | None) -> _Writer:
    """What writes the tensors of a bitstream in their shapes after pruning; `ModelError` for what it cannot write."""
    if into is not None or not export.takes(target):
        alone = " or ".join(export.SUFFIXES)
        raise ModelError(f"tensors in their shapes after pruning go to files that end in {alone}", file=str(target))
    from nnc_adapters.shared.masks import in_shape_after_pruning

    if not file.model_info.keys() & {"prune_bit_mask", "sparse_bit_mask"}:
        raise ModelError("the bitstream does not tell what was pruned; decompress it without --pruned (pruned=True)")
    shapes = {name: info.shape for name, info in file.tensors.items()}

    def write(tensors: _Tensors, options: Options, force: bool) -> None:
        with export.every_tensor(tensors, file.topology, options) as every:
            masks = registry.adapter(file.topology.storage_format).masks(every) if file.topology else {}
            export.export(in_shape_after_pruning(every, file.model_info, shapes, masks), target, force=force)

    return write


def check_fits(topology: Topology, target: Path) -> None:
    """`ModelError` where ``target`` is called like a model of another format than that of ``topology``."""
    if not fits(topology, target):
        raise _contradiction(topology, target)


def fits(topology: Topology, target: Path) -> bool:
    """Whether a file of this name may be such a model: its suffix says so, or nothing."""
    name = target.name.lower()
    if name.endswith(registry.adapter(topology.storage_format).suffixes_of(topology)):
        return True
    known = (*BITSTREAMS, *export.SUFFIXES, *(suffix for each in registry.adapters() for suffix in each.suffixes))
    return not name.endswith(known)


def _contradiction(topology: Topology, target: Path) -> ModelError:
    adapter = registry.adapter(topology.storage_format)
    usual = adapter.default_suffix(topology) or "a folder"
    alone = " and ".join(export.SUFFIXES)
    return ModelError(
        f"the suffix contradicts the format: the bitstream has a model of {adapter.name} ({usual}); nnc convert writes "
        f"the weights into a model of another framework, {alone} hold them alone",
        file=str(target),
    )


def _export(tensors: _Tensors, topology: Topology | None, target: Path, options: Options, force: bool) -> None:
    with export.every_tensor(tensors, topology, options) as every:
        export.export(every, target, force=force)


def write_into(
    adapter: Adapter,
    tensors: _Tensors,
    into: Path,
    target: Path,
    options: Options = DEFAULTS,
    *,
    needed: Collection[str] = EVERYTHING,
    force: bool = False,
) -> None:
    """Write the model ``into`` as ``target``, with ``tensors`` in place of its own.

    `ModelError` for a tensor of those ``needed`` that it does not have; others go there only if they are floats of the
    same type and shape. Otherwise as `Adapter.write`.
    """
    names = _names_in(adapter, tensors, into, options)
    base = adapter.read(into, replace(options, chosen=frozenset(names), only=True))
    if base.topology is None:
        raise ModelError("the model has no structure that could be kept", file=str(into))
    own = base.tensors
    fitting = {n: o for n, o in names.items() if o in needed or (n in own and _same_floats(tensors[o], own[n]))}
    adapter.write(overlay(own, tensors, fitting), base.topology, target, options, force=force)


def _names_in(adapter: Adapter, tensors: _Tensors, into: Path, options: Options) -> Mapping[str, str]:
    """The names that the model ``into`` has for ``tensors``, and their own."""
    own = list(tensors)
    known = adapter.tensors(into, options)
    fitting = own if all(name in known for name in own) else adapter.fitting(own, known)
    return dict(zip(fitting, own, strict=True))
