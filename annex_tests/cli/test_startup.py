"""What a command imports before it does anything: people wait for that."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

from nnc_adapters import cli

PROGRAM = """
import sys
from nnc_adapters.cli import main
main(sys.argv[1:], standalone_mode=False)
print("imported:", *sorted(sys.modules))
"""


def imported(*arguments: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=True)
    return set(done.stdout.partition("imported:")[2].split())


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_imports_no_command_and_no_numpy(option: str) -> None:
    modules = imported(option)
    assert "nnc_adapters.cli" in modules
    assert not modules & {"numpy", "rich", "importlib.metadata", "concurrent.futures"}
    assert not {f"nnc_adapters.cli.{name}" for name in cli.SUMMARIES} & modules


def test_help_of_a_command_imports_no_other_command() -> None:
    modules = imported("inspect", "--help")
    assert {name for name in cli.SUMMARIES if f"nnc_adapters.cli.{name}" in modules} == {"inspect"}
    assert not modules & {"rich", "importlib.metadata", "concurrent.futures", "nnc_core.writing"}


@pytest.mark.parametrize("name", sorted(cli.SUMMARIES))
def test_the_list_of_commands_says_what_their_help_says(name: str) -> None:
    command = cli.main.commands[name]
    assert command.name == name
    assert cli.SUMMARIES[name] == " ".join((command.help or "").split("\n\n")[0].split())


def test_there_is_no_other_command() -> None:
    assert sorted(cli.main.commands) == sorted(cli.SUMMARIES)
    with pytest.raises(KeyError):
        cli.main.commands["nothing"]


LAZY = ["nnc_core", "nnc_core.approximator", "nnc_core.bitstream", "nnc_core.coder", "nnc_adapters"]


@pytest.mark.parametrize("package", [*LAZY, "nnc_adapters.containers"])
def test_whatever_a_package_offers_is_there(package: str) -> None:
    module = import_module(package)
    for name in module.__all__:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        _ = module.nothing


def test_modules_are_found_in_a_package_that_did_not_import_them() -> None:
    program = "import nnc_core; print(nnc_core.coder.encode.__module__, nnc_core.pipeline.__name__)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["nnc_core.coder.part18", "nnc_core.pipeline"]
