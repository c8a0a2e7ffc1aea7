"""Compressed models where transformers and safetensors expect theirs; both are imported when they are used.

::

    from nnc_adapters import huggingface

    huggingface.save_pretrained(model, "llama.nnr", tokenizer)              # a folder with config.json and bitstreams
    model = huggingface.from_pretrained(AutoModelForCausalLM, "llama.nnr")

    huggingface.save_file(tensors, "weights.nnr")                           # as those of safetensors
    tensors = huggingface.load_file("weights.nnr")
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import nnc_core
from nnc_adapters import export
from nnc_adapters.api import compress_model
from nnc_adapters.base import Options
from nnc_adapters.pytorch import layout, reader
from nnc_adapters.pytorch.views import Data
from nnc_adapters.pytorch.writer import Description
from nnc_adapters.reports import CompressReport
from nnc_adapters.sharded import compress as compress_files
from nnc_adapters.sharded.index import checked, read_index
from nnc_adapters.sharded.names import index_of
from nnc_adapters.shared.dtypes import named
from nnc_adapters.shared.files import check_free, replacing
from nnc_core import CodingParameters, Limits, MissingDependencyError, ModelError
from nnc_core.tables.code_points import TopologyStorageFormat

__all__ = ["from_pretrained", "load_file", "save_file", "save_pretrained"]


def save_file(
    tensors: Mapping[str, Any],
    target: str | Path,
    metadata: Mapping[str, str] | None = None,
    *,
    parameters: CodingParameters | None = None,
    threads: int | None = None,
    force: bool = False,
) -> CompressReport:
    """Write named tensors, of PyTorch or numpy, to an NNR bitstream from which a safetensors file can be restored.

    As ``safetensors.torch.save_file`` and ``safetensors.numpy.save_file``, but that an existing file is replaced only
    with ``force``: `FileExistsError`. `ModelError` for a type that safetensors does not have.
    """
    stream = io.BytesIO()
    export.write_safetensors({name: _array(tensor) for name, tensor in tensors.items()}, stream, metadata or {})
    data = Data(stream.getbuffer())
    found = layout.scan(data, Limits())
    model = reader.described(layout.Model(found.kind, [layout.File("", data, found)]), Options())
    with replacing(Path(target), force=force) as output:
        return compress_model(model, output, parameters=parameters, threads=threads, source=len(data.view))


def _array(tensor: Any) -> NDArray[Any]:
    """The numbers of a tensor of PyTorch, or of what numpy makes an array of."""
    if not hasattr(tensor, "detach"):
        return np.asarray(tensor)
    import torch

    plain = tensor.detach().cpu().contiguous()
    kind = str(plain.dtype).removeprefix("torch.")
    if kind == "bfloat16" or kind.startswith("float8"):  # which numpy does not have itself
        words: NDArray[Any] = plain.view(torch.int16 if kind == "bfloat16" else torch.uint8).numpy()
        return words.view(named(kind))
    array: NDArray[Any] = plain.numpy()
    return array


def load_file(
    source: str | Path,
    framework: Literal["pt", "np"] = "pt",
    *,
    threads: int | None = None,
    limits: Limits | None = None,
) -> dict[str, Any]:
    """All tensors in a bitstream or a sharded model, by name: of PyTorch, or arrays of numpy with ``"np"``.

    As ``safetensors.torch.load_file`` and ``safetensors.numpy.load_file``. Single tensors come from `nnc_core.open` and
    `nnc_adapters.sharded.open_sharded`. Raises what `nnc_adapters.load_tensors` raises.
    """
    if framework == "np":
        return export.load_tensors(source, threads=threads, limits=limits)
    if framework != "pt":
        raise ValueError(f"framework is {framework!r}, expected 'pt' or 'np'")
    from nnc_adapters.pytorch import state_dict

    source = Path(source)
    if index_of(source) is None:
        return state_dict(source, threads=threads, limits=limits)
    index, found = read_index(source, limits), {}
    for shard in index.shards:
        path = checked(index.folder / shard.file, shard.content)
        tensors = state_dict(path, threads=threads, limits=limits)
        found.update({shard.prefix + name: tensor for name, tensor in tensors.items()})
    return found


def save_pretrained(
    model: Any,
    target: str | Path,
    *others: Any,
    executor: Executor | None = None,
    parameters: CodingParameters | None = None,
    threads: int | None = None,
    force: bool = False,
    **options: Any,
) -> CompressReport:
    """Save a model of transformers, and ``others`` such as its tokenizer, and compress that into the folder ``target``.

    ``options`` are those of the model's ``save_pretrained``, such as ``max_shard_size``; what it writes lies beside
    ``target`` in the meantime. The rest as `nnc_adapters.sharded.compress`.
    """
    target = Path(target).absolute()
    check_free(target, force=force)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".nnc-") as name:
        folder = Path(name, "model")
        model.save_pretrained(folder, **options)
        for each in others:
            each.save_pretrained(folder)
        how: dict[str, Any] = {"executor": executor, "parameters": parameters, "threads": threads, "force": force}
        return compress_files(folder, target, **how)


def from_pretrained(
    model_class: Any,
    source: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    threads: int | None = None,
    limits: Limits | None = None,
    **options: Any,
) -> Any:
    """A model of transformers from a compressed one: what ``model_class.from_pretrained`` makes of the original.

    ``source`` is a folder that has ``config.json`` and a bitstream or a sharded model, a bitstream of such a whole
    folder, or the name of a repository on a hub. ``options`` go to ``model_class.from_pretrained``; automatic classes
    will do. All weights are in memory once. `ModelError` where there is not one bitstream or no configuration,
    `MissingDependencyError` without transformers.
    """
    place = _place(source, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only)
    weights = _weights(place)
    with _configuration(place, weights) as folder:
        config = options.pop("config", None) or _config(model_class, folder)
        state = load_file(weights, threads=threads, limits=limits)
        model = _concrete(model_class, config).from_pretrained(None, config=config, state_dict=state, **options)
        if (folder / "generation_config.json").is_file() and model.can_generate():
            model.generation_config = type(model.generation_config).from_pretrained(folder)
    return model


def _place(source: str | Path, **options: Any) -> Path:
    """The folder or file, fetched from a hub if it is not there."""
    if Path(source).exists():
        return Path(source)
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise MissingDependencyError("huggingface_hub", "huggingface", f"a model of a hub, {source},") from None
    return Path(snapshot_download(str(source), **options))


def _weights(place: Path) -> Path:
    """The bitstream or the sharded model."""
    if index_of(place) is not None or not place.is_dir():
        return place
    found = sorted(place.glob("*.nnr"))
    if len(found) != 1:
        raise ModelError(f"has {len(found)} files that end in .nnr and no index of them, expected one", file=str(place))
    return found[0]


@contextmanager
def _configuration(place: Path, weights: Path) -> Iterator[Path]:
    """The folder that has the configuration; a temporary one for what is in the bitstream of a whole folder."""
    folder = place if place.is_dir() else place.parent
    if (folder / "config.json").is_file():
        yield folder
        return
    with tempfile.TemporaryDirectory() as name:
        for file, data in _carried(weights):
            Path(name, file).write_bytes(data)
        if not Path(name, "config.json").is_file():
            raise ModelError("has no config.json beside it or in it", file=str(weights))
        yield Path(name)


def _carried(weights: Path) -> Iterator[tuple[str, bytes]]:
    """The configurations that a bitstream of a whole folder has in its topology."""
    if weights.is_dir():
        return
    with nnc_core.open(weights) as file:
        topology = file.topology
        if topology is None or topology.storage_format != TopologyStorageFormat.NNR_TPL_PYT:
            return
        description = Description(topology.data, Limits().following(weights.stat().st_size))
    for each in description.files:
        if each.name.endswith(".json") and "/" not in each.name and not each.gaps():
            yield each.name, each.data


def _config(model_class: Any, folder: Path) -> Any:
    if (config_class := getattr(model_class, "config_class", None)) is not None:
        return config_class.from_pretrained(folder)
    try:
        from transformers import AutoConfig
    except ImportError:
        raise MissingDependencyError("transformers", "huggingface", "from_pretrained") from None
    return AutoConfig.from_pretrained(folder)


def _concrete(model_class: Any, config: Any) -> Any:
    """The class that an automatic one chooses for a configuration."""
    if not hasattr(model_class, "from_config"):
        return model_class
    import torch

    with torch.device("meta"):  # without memory for its weights
        return type(model_class.from_config(config))
