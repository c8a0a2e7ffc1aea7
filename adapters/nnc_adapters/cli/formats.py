"""``nnc formats``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec

import click

from nnc_adapters import containers, registry
from nnc_adapters.cli import console
from nnc_adapters.cli.options import json_option
from nnc_core.tables.code_points import TopologyStorageFormat

_ANNEXES: dict[int, str] = {
    TopologyStorageFormat.NNR_TPL_NNEF: "A",
    TopologyStorageFormat.NNR_TPL_ONNX: "B",
    TopologyStorageFormat.NNR_TPL_PYT: "C",
    TopologyStorageFormat.NNR_TPL_TEF: "D",
}
_PACKAGES = {
    "onnx": ("onnx", "ml_dtypes"),
    "nnef": ("nnef",),
    "pytorch": ("torch", "ml_dtypes"),
    "tensorflow": ("h5py", "google_crc32c", "ml_dtypes"),
}


@dataclass(frozen=True, slots=True)
class _Format:
    """A line of the table; ``install`` is what is missing, as an extra of this package."""

    name: str
    kind: str
    annex: str
    suffixes: tuple[str, ...]
    installed: bool
    install: str | None


@click.command()
@json_option
def formats(as_json: bool) -> None:
    """List the formats of models and the containers, and what to install for those that lack something."""
    found = [*_models(), *_containers(), *_codecs()]
    if as_json:
        console.print_json(found)
        return
    table = console.table("name", "kind", "annex", "~suffixes", "~to install")
    for each in found:
        table.add_row(each.name, each.kind, each.annex, " ".join(each.suffixes), each.install or "")
    console.print_table(table)


def _models() -> Iterator[_Format]:
    for adapter in registry.adapters():
        annex = _ANNEXES.get(adapter.topology_storage_format, "")
        packages = _PACKAGES.get(adapter.name, ())
        yield _format(adapter.name, "model", annex, adapter.suffixes, packages, adapter.name)


def _containers() -> Iterator[_Format]:
    for each in containers.carriers():
        extra = each.name if each.name in registry.OWN else "containers"
        yield _format(each.name, "container", "E", each.suffixes, each.packages, extra)


def _codecs() -> Iterator[_Format]:
    for name in ("zarr", "numcodecs"):
        yield _format(name, "array codec", "E", (), (name,), "zarr")


def _format(
    name: str, kind: str, annex: str, suffixes: tuple[str, ...], packages: tuple[str, ...], extra: str
) -> _Format:
    installed = all(find_spec(package) is not None for package in packages)
    return _Format(name, kind, annex, suffixes, installed, None if installed else f"pip install 'nnc-suite[{extra}]'")
