"""SavedModel folders, and checkpoints in folders or by themselves."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path

from nnc_adapters.shared.files import walk
from nnc_adapters.shared.names import free
from nnc_adapters.shared.paths import files_below
from nnc_adapters.tensorflow import bundle, constants, object_graph, roles, stripping, table
from nnc_adapters.tensorflow.content import Content, of_file
from nnc_adapters.tensorflow.manifest import EMBEDDED, GRAPH
from nnc_adapters.tensorflow.model import Opened, Span, Variable
from nnc_core.errors import ModelError
from nnc_core.limits import Limits

__all__ = ["GRAPHS", "INDEX", "STATE", "is_folder", "is_index", "open_checkpoint", "open_folder", "prefixes"]

INDEX = ".index"
STATE = "checkpoint"
"""The file in a folder of checkpoints that says which one is the latest."""
GRAPHS = (GRAPH, "saved_model.pbtxt")
_SAVED_VARIABLES = "variables/variables"

_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
_SLOT = "/.OPTIMIZER_SLOT/"
# The optimizers of TensorFlow 1 have their variables below those of the model, and call them like themselves.
_OLD_SLOT = re.compile(
    r"/(ada(m|max|delta|grad|grad_?da|belief|factor)|lazy_?adam|[nr]adam|amsgrad|yogi|lamb|lars|lion|sm3|ftrl|momentum"
    r"|rms_?prop|novograd|shampoo|addsign|powersign|ggt|gradient_?descent)"
    r"(w|_?weight_?decay)?(_?optimizer)?(_[mv])?(_\d+)?$",
    re.IGNORECASE,
)
# Keras exports its variables a second time in this list.
_COPIES = "_all_variables/"


def is_folder(path: Path) -> bool:
    """Whether this is a SavedModel, or a folder with one checkpoint or more."""
    return any((path / name).is_file() for name in GRAPHS) or any(map(is_index, path.glob("*" + INDEX)))


def is_index(path: Path) -> bool:
    """Whether this is the index of a checkpoint."""
    try:
        return path.suffix == INDEX and of_file(path).raw()[-8:].tobytes() == table.MAGIC
    except (ModelError, OSError):
        return False


def open_folder(path: Path, limits: Limits, *, strip_debug: bool = False) -> Opened:
    """Open a SavedModel or a folder with one checkpoint, without debug information if that is to be stripped.

    `ModelError` where it is damaged or has links to elsewhere.
    """
    files = {name: of_file(file) for name, file in files_below(path, _markers(path))}
    left_out = files.pop(EMBEDDED, None)
    remarks = [] if left_out is None else [f"the bitstream that is embedded in it, {EMBEDDED}, is left out"]
    if strip_debug:
        files, remark = stripping.without_debug(files)
        remarks += [remark] if remark else []
    found = prefixes(files)
    if len(found) > 1:
        names = ", ".join(prefix + INDEX for prefix in found)
        raise ModelError(f"there are several checkpoints in the folder; name one of {names}")
    variables = [v for prefix in found for v in _variables(prefix, files, limits)]
    if GRAPH in files:
        variables += _not_called_like(variables, constants.of_saved_model(files[GRAPH], GRAPH, limits))
    kind = "saved_model" if any(name in files for name in GRAPHS) else "checkpoint"
    return Opened(kind, files, variables, tuple(_empty_folders(path)), remarks=tuple(remarks), checked=(GRAPH,))


def _not_called_like(variables: list[Variable], found: list[Variable]) -> list[Variable]:
    taken = Counter(variable.name for variable in variables)
    return [replace(variable, name=free(variable.name, taken)) for variable in found]


def open_checkpoint(path: Path, limits: Limits) -> Opened:
    """Open the checkpoint that has the index ``path``: this file and its data files, by their suffixes."""
    shards = bundle.read(of_file(path).raw().data, limits).shards
    suffixes = [INDEX, *(bundle.data_suffix(shard, shards) for shard in range(shards))]
    named = {suffix: path.with_suffix("").with_name(path.stem + suffix) for suffix in suffixes}
    files = {suffix: of_file(file) for suffix, file in named.items() if file.exists()}
    return Opened("checkpoint_files", files, list(_variables("", files, limits)))


def prefixes(files: Iterable[str]) -> list[str]:
    """The names of the checkpoints among files: in a SavedModel the variables, else those that have an index."""
    files = set(files)
    if any(name in files for name in GRAPHS):
        return [_SAVED_VARIABLES] if _SAVED_VARIABLES + INDEX in files else []
    return sorted(name.removesuffix(INDEX) for name in files if name.endswith(INDEX) and "/" not in name)


def _markers(folder: Path) -> Iterator[Path]:
    """The files that make a folder a model."""
    graphs = (folder / name for name in GRAPHS if (folder / name).is_file())
    return chain(graphs, filter(is_index, folder.glob("*" + INDEX)))


def _empty_folders(root: Path) -> Iterator[str]:
    for folder, folders, files in walk(root):
        folders.sort()
        if not folders and not files and Path(folder) != root:
            yield Path(folder).relative_to(root).as_posix()


def _variables(prefix: str, files: Mapping[str, Content], limits: Limits) -> Iterator[Variable]:
    index = bundle.read(files[prefix + INDEX].raw().data, limits)
    names = {shard: prefix + bundle.data_suffix(shard, index.shards) for shard in range(index.shards)}
    shards = {shard: files[name] for shard, name in names.items() if name in files}
    bundle.verify(index, shards)
    graph = _graph(index, shards)
    groups = _same([item for item in index.items if item.dtype and item.size], graph.full_names, shards)
    titles = _titles(groups, graph.full_names)
    role_of = roles.by_name({title: group[0].shape for title, group in zip(titles, groups, strict=True)})
    for title, group in zip(titles, groups, strict=True):
        first = group[0]
        spans = tuple(Span(names[item.shard], item.offset) for item in group)
        optimizer = all(_is_slot(item, graph) for item in group)
        yield Variable(title, first.dtype, first.shape, spans, role_of.get(title), optimizer)


def _graph(index: bundle.Index, shards: Mapping[int, Content]) -> object_graph.Variables:
    for item in index.items:
        if item.key == object_graph.KEY:
            return object_graph.read(bundle.string_scalar(item, shards[item.shard]))
    return object_graph.Variables()


def _same(
    items: list[bundle.Item], full_names: Mapping[str, str], shards: Mapping[int, Content]
) -> list[list[bundle.Item]]:
    """The items in groups of those that are the same variable, stored twice."""
    groups = {item.key: [item] for item in items}
    originals = {name: item for item, name in _programs_names(items, full_names).items()}
    for item in filter(_is_copy, items):
        original = originals.get(full_names.get(item.name, ""))
        if original is not None and _equal(item, groups[original][0], shards):
            groups[original] += groups.pop(item.key)
    return list(groups.values())


def _is_copy(item: bundle.Item) -> bool:
    return item.name.startswith(_COPIES)


def _programs_names(items: Iterable[bundle.Item], full_names: Mapping[str, str]) -> dict[bytes, str]:
    """By key, what variables were called in the program, where only one was called so."""
    named = {item.key: full_names.get(item.name, "") for item in items if not _is_copy(item)}
    times = Counter(named.values())
    return {key: name for key, name in named.items() if name and times[name] == 1}


def _equal(item: bundle.Item, other: bundle.Item, shards: Mapping[int, Content]) -> bool:
    if (item.data_type, item.shape, item.crc32c) != (other.data_type, other.shape, other.crc32c):
        return False
    pieces = zip(
        shards[item.shard].pieces(item.offset, item.size),
        shards[other.shard].pieces(other.offset, other.size),
        strict=True,
    )
    return all(one == another for one, another in pieces)


def _titles(groups: list[list[bundle.Item]], full_names: Mapping[str, str]) -> list[str]:
    """What the variables were called in the program, where that is unambiguous, else their keys."""
    programs = _programs_names((group[0] for group in groups), full_names)
    taken: Counter[str] = Counter()
    return [free(programs.get(group[0].key) or _key_name(group[0]), taken) for group in groups]


def _key_name(item: bundle.Item) -> str:
    if item.is_slice:
        return item.name.replace("\0", "\\0") + "/part"
    return item.name.removesuffix(_VALUE)


def _is_slot(item: bundle.Item, graph: object_graph.Variables) -> bool:
    name = item.name.removesuffix(_VALUE)
    return _SLOT in name or item.name in graph.optimizer or _OLD_SLOT.search(name) is not None
