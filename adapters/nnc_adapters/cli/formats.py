"""``nnc formats``."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import click

from nnc_adapters import containers, registry
from nnc_adapters.cli import console
from nnc_adapters.cli.options import json_option
from nnc_adapters.sharded.names import INDEX
from nnc_core.records import dataclass


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
    """List the formats of models and containers, and what to install for those that are missing."""
    found = [*_models(), *_containers(), *_folders(), *_codecs()]
    if as_json:
        console.print_json(found)
        return
    table = console.table("name", "kind", "annex", "~suffixes", "~to install")
    for each in found:
        table.add_row(each.name, each.kind, each.annex, " ".join(each.suffixes), each.install or "")
    console.print_table(table)


def _models() -> Iterator[_Format]:
    for adapter in registry.adapters():
        yield _format(adapter.name, "model", adapter.annex, adapter.suffixes, adapter.packages, adapter.install)


def _containers() -> Iterator[_Format]:
    for each in containers.carriers():
        extra = each.name if each.name in registry.OWN else "containers"
        yield _format(
            each.name, "container", getattr(each, "annex", "E"), each.suffixes, each.packages, f"nnc-suite[{extra}]"
        )


def _folders() -> Iterator[_Format]:
    yield _format("sharded", "folder of bitstreams", "", (INDEX,), (), "")


def _codecs() -> Iterator[_Format]:
    for name in containers.ARRAY_CODECS:
        yield _format(name, "array codec", "E", (), (name,), "nnc-suite[zarr]")


def _format(
    name: str, kind: str, annex: str, suffixes: tuple[str, ...], packages: tuple[str, ...], install: str
) -> _Format:
    installed = all(find_spec(package) is not None for package in packages)
    return _Format(name, kind, annex, suffixes, installed, None if installed else f"pip install '{install}'")
