"""Dependencies point down only: what a module imports when it runs lies below it, and nothing runs the references."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import nnc_core

ROOT = Path(nnc_core.__file__).parent
LAYERS = (
    {"tables", "lazy", "logs", "records", "_native"},
    {"errors"},
    {"limits", "stored"},
    {"nnr_model"},
    {"syntax", "entropy"},
    {"bitstream", "approximator"},
    {"reduction", "inputs"},
    {"coder"},
    {"file", "approx_coder", "pipeline"},
    {"planner"},
    {"writing"},
    {"updates"},
    {"__init__"},
    {"__main__"},
)
"""Packages and modules of nnc_core, the lowest first; those in one set know nothing of each other."""
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
MODULES = [path.relative_to(ROOT).with_suffix("").as_posix() for path in sorted(ROOT.rglob("*.py"))]
REFERENCES = [
    module for module in MODULES if module.partition("/")[2].startswith("reference") and "bitstream" not in module
]


def imported(statements: list[ast.stmt]) -> Iterator[str]:
    """The modules that statements import, anywhere in them but for types alone."""
    for each in statements:
        if isinstance(each, ast.If) and isinstance(each.test, ast.Name) and each.test.id == "TYPE_CHECKING":
            yield from imported(each.orelse)
        elif isinstance(each, ast.ImportFrom) and each.module:
            yield from (f"{each.module}.{alias.name}" for alias in each.names)
        elif isinstance(each, ast.Import):
            yield from (alias.name for alias in each.names)
        else:
            yield from imported([part for part in ast.walk(each) if part is not each and isinstance(part, ast.stmt)])


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_what_is_below_it(module: str) -> None:
    own = module.split("/")[0]
    names = [name.split(".") for name in imported(ast.parse((ROOT / f"{module}.py").read_text()).body)]
    others = {(*name, "__init__")[1] for name in names if name[0] == "nnc_core"} - {own}
    assert not {name for name in others if RANK[name] >= RANK[own]}


@pytest.mark.parametrize("module", [module for module in MODULES if module not in (*REFERENCES, "entropy/tracing")])
def test_no_module_runs_a_reference(module: str) -> None:
    names = list(imported(ast.parse((ROOT / f"{module}.py").read_text()).body))
    forbidden = tuple(f"nnc_core.{each.replace('/', '.')}." for each in REFERENCES)
    assert not [name for name in names if name.startswith(forbidden)]


def test_there_are_references_and_tracing_shows_the_bins_of_one() -> None:
    assert len(REFERENCES) == 4
    names = imported(ast.parse((ROOT / "entropy/tracing.py").read_text()).body)
    assert "nnc_core.entropy.reference.Decoder" in names
