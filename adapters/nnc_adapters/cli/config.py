"""A configuration file: options that a project wants every time, such as rules and targets.

Keys are the long names of options. Those at the top are for every command that has them, those in a table for the
command of its name; what is given on the command line counts more, and adds to rules and limits.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import click

__all__ = ["FILE", "NAME", "config_options", "forget_configured", "with_configured"]

NAME: Final = "nnc.toml"
_MOST_BYTES: Final = 1 << 16

_BY_HAND: Final = {"config", "no_config", "force", "module", "opaque", "output", "output_dir", "remove", "state"}
"""What a file cannot say: what runs code, trusts others, overwrites or removes."""
FILE: Final = f"{__name__}.file"
"""Where in a context the path of the file is that counts."""
_OFF: Final = f"{__name__}.off"
_Command = TypeVar("_Command", bound="Callable[..., Any]")


def _switched_off(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    ctx.meta[_OFF] = value or ctx.meta.get(_OFF, False)


def _configured(ctx: click.Context, param: click.Parameter, value: Path | None) -> None:
    """Let the values of a file take the place of defaults."""
    if ctx.resilient_parsing or (value is None and ctx.meta.get(_OFF)):
        return
    path = value or _nearest()
    if path is not None:
        ctx.meta[FILE] = path
        ctx.default_map = _values(_load(path), ctx.command, path)


def config_options(command: _Command) -> _Command:
    """The options that say which configuration file counts."""
    path = click.Path(dir_okay=False, path_type=Path)
    text = f"Read options from this file [default: {NAME} here or in a folder above]."
    for option in (
        click.option("--config", type=path, is_eager=True, expose_value=False, callback=_configured, help=text),
        click.option(
            "--no-config",
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_switched_off,
            help=f"Read no options from {NAME}.",
        ),
    ):
        command = option(command)
    return command


def with_configured(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """The values of an option that may be repeated, after those of the file."""
    given = param.name is not None and ctx.get_parameter_source(param.name) == click.core.ParameterSource.COMMANDLINE
    return (*(ctx.lookup_default(param.name) or ()), *value) if given and param.name else value


def forget_configured(ctx: click.Context, values: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """``values`` without those of a file for options of which the command line has another one, among ``names``."""
    sources = {name: ctx.get_parameter_source(name) for name in names}
    if click.core.ParameterSource.COMMANDLINE not in sources.values():
        return dict(values)
    defaults = {param.name: param.default for param in ctx.command.params}
    dropped = [name for name, source in sources.items() if source == click.core.ParameterSource.DEFAULT_MAP]
    return {**values, **{name: False if defaults[name] is False else None for name in dropped}}


def _nearest() -> Path | None:
    """The file in the working folder, or in the next folder above that has one."""
    here = Path.cwd()
    return next((folder / NAME for folder in (here, *here.parents) if (folder / NAME).is_file()), None)


def _load(path: Path) -> Mapping[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise click.UsageError(f"{path} has more than {_MOST_BYTES} bytes, which are enough for all options")
        content: Mapping[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        return content
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{path} is not a TOML file: {error}") from None
    except RecursionError:
        raise click.UsageError(f"{path} is nested too deep") from None
    except OSError as error:
        raise click.UsageError(f"{path}: {error.strerror}") from None


def _values(content: Mapping[str, Any], command: click.Command, path: Path) -> dict[str, Any]:
    """What a file says for a command, by the names of its parameters."""
    tables = {key: found for key, found in content.items() if isinstance(found, Mapping)}
    shared = {key: found for key, found in content.items() if key not in tables}
    _check(tables, shared, command, path)
    options = _options(command)
    found: dict[str, Any] = {}
    for key, value in (
        *((k, v) for k, v in shared.items() if k in options),
        *tables.get(command.name or "", {}).items(),
    ):
        if key not in options:
            raise click.UsageError(f"{path}: nnc {command.name} has no option --{key}")
        name, given = options[key].name or "", _value(options[key], value, path)
        found[name] = [*found.get(name, ()), *given] if options[key].multiple else given
    return found


def _check(tables: Iterable[str], shared: Iterable[str], command: click.Command, path: Path) -> None:
    """Refuse what no command knows; others are looked at only for what this one does not know."""
    from nnc_adapters.cli import main

    for key in tables:
        if key not in main.commands:
            raise click.UsageError(f"{path}: [{key}] is not a command; commands are {', '.join(sorted(main.commands))}")
    for key in shared:
        if key not in _options(command) and not any(key in _options(each) for each in main.commands.values()):
            raise click.UsageError(f"{path}: no command has an option --{key}")


def _options(command: click.Command) -> dict[str, click.Option]:
    """The options of a command by their long names, and by the plural of those that may be repeated."""
    options = [param for param in command.params if isinstance(param, click.Option)]
    found = {name.lstrip("-"): option for option in options for name in option.opts if name.startswith("--")}
    return found | {f"{name}s": option for name, option in found.items() if option.multiple}


def _value(option: click.Option, value: Any, path: Path) -> Any:
    if option.name in _BY_HAND:
        raise click.UsageError(f"{path}: --{option.opts[-1].lstrip('-')} can only be given on the command line")
    if option.multiple:
        return [_repeated(each) for each in (value if isinstance(value, list) else [value])]
    if isinstance(option.type, click.Path):
        return str(path.parent / str(value))
    return value


def _repeated(value: Any) -> str:
    """One of several values; a rule may be a table: the pattern called ``match``, and what it sets."""
    if not isinstance(value, Mapping):
        return str(value)
    changes = (f"{key}={int(found)}" for key, found in value.items() if key != "match")
    return f"{value.get('match', '')}={','.join(changes)}"
