"""``nnc completion``: what lets a shell complete commands, options and files."""

from __future__ import annotations

import os
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from nnc_adapters.cli import console
from nnc_adapters.cli.options import data_folder, force_option
from nnc_adapters.shared.files import replacing

_SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS), required=False)
@click.option("--install", is_flag=True, help="Install it for this user.")
@force_option
def completion(shell: str | None, install: bool, force: bool) -> None:
    """Print the script that lets a shell complete nnc commands, or install it.

    SHELL is that of the environment unless it is given.
    """
    shell = shell or Path(os.environ.get("SHELL", "")).name
    if shell not in _SHELLS:
        raise click.UsageError(f"name one of the shells {', '.join(_SHELLS)}")
    text = _script(shell)
    if not install:
        click.echo(text, nl=False)
        return
    path = _place(shell)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, force=force) as stream:
        stream.write(text.encode())
    more = f"; {path.parent} must be in fpath before compinit runs" * (shell == "zsh")
    console.message(f"{path}: new shells complete the commands of nnc{more}")


def _script(shell: str) -> str:
    from nnc_adapters.cli import main

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"there is no completion for {shell}")
    made = kind(main, {}, "nnc", "_NNC_COMPLETE")
    return made.source_template % made.source_vars()


def _place(shell: str) -> Path:
    """Where a shell looks for what a user adds."""
    if shell == "bash":
        return data_folder() / "bash-completion" / "completions" / "nnc"
    if shell == "zsh":
        return data_folder() / "zsh" / "site-functions" / "_nnc"
    configured = os.environ.get("XDG_CONFIG_HOME")
    return (Path(configured) if configured else Path.home() / ".config") / "fish" / "completions" / "nnc.fish"
