"""Options that several commands share."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO, TypeVar

import click

from nnc_adapters.cli import console
from nnc_adapters.cli.config import config_options, with_configured
from nnc_adapters.remote import Url, fetched, is_url, located
from nnc_adapters.shared.files import about
from nnc_core.lazy import LazyModule
from nnc_core.limits import Limits

if TYPE_CHECKING:
    import shutil
    import tempfile

    from nnc_core import Rule
else:  # for pipes and rules
    shutil, tempfile = LazyModule("shutil"), LazyModule("tempfile")

PIPE = "-"
_PIECE = 1 << 24
_KEPT_FREE = 1 << 28
_Output = TypeVar("_Output", Path, "Path | None")
_Command = TypeVar("_Command", bound="Callable[..., Any]")


class _FilePath(click.Path):
    """Any path; ``-`` only where it means a pipe, a URL only where one will do. What can be read shows when it is read.

    A `Url` stands for what is not a file of this machine.
    """

    def __init__(self, *, pipe: bool = False, url: bool = False) -> None:
        super().__init__(readable=False, path_type=Path)
        self.pipe, self.url = pipe, url

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not str(value):
            self.fail("a path cannot be empty", param, ctx)
        if str(value) == PIPE and not self.pipe:
            self.fail("this cannot be a pipe; ./- names a file called -", param, ctx)
        if isinstance(place := located(str(value)), Url):
            return place if self.url else self.fail(f"{value} is a URL; this has to be a file", param, ctx)
        value = place
        return super().convert(value, param, ctx)


def _rules(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[Rule, ...]:
    from nnc_core.planner.parameters import Rule

    try:
        return tuple(Rule.parse(text) for text in with_configured(ctx, param, value))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _limits(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> Limits:
    return replace(Limits(), **dict(_limit(text) for text in with_configured(ctx, param, value)))


def _limit(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    names = [f.name for f in fields(Limits)]
    if name not in names:
        raise click.BadParameter(f"{name!r} is not a limit; limits are {', '.join(names)}")
    if not number.isdecimal():
        raise click.BadParameter(f"{number!r} is not a whole number")
    return name, int(number)


def _kept(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    """What notes the value of an option for `console`."""

    def keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        console.keep(ctx, name, value)

    return keep


file_path = _FilePath()
pipe_path = _FilePath(pipe=True)
url_path = _FilePath(url=True)
any_path = _FilePath(pipe=True, url=True)

limit_option = click.option(
    "--limit",
    "limits",
    metavar="NAME=VALUE",
    multiple=True,
    callback=_limits,
    help="Raise or lower a limit on what a file may ask for; may be repeated.",
)
rule_option = click.option(
    "--rule",
    "rules",
    metavar="REGEX=KEY=VALUE,...",
    multiple=True,
    callback=_rules,
    help="Other settings for tensors whose name contains a match of REGEX; later rules take precedence. "
    "Keys: exact (1 keeps a tensor exact, 0 quantizes even what should be exact), qp, dq, param_opt, row_skip, "
    "scan, unary.",
)
threads_option = click.option("--threads", type=click.IntRange(min=1), help="Worker threads [default: one per core].")
_drop_optimizer_option = click.option(
    "--drop-optimizer",
    is_flag=True,
    help="Set what an optimizer keeps for each weight (momenta, variances) to zero; otherwise it is stored losslessly.",
)
_drop_masked_option = click.option(
    "--drop-masked", is_flag=True, help="Set the weights that pruning masks hide to zero; the masks stay."
)
opaque_option = click.option(
    "--opaque-objects",
    "opaque",
    is_flag=True,
    help="Carry objects of any class in pickles as they are: not run here, but perhaps where the result is loaded.",
)
_strip_debug_option = click.option(
    "--strip-debug", is_flag=True, help="Drop comments, documentation and stack traces, which no program needs."
)
_progress_option = click.option(
    "--progress/--no-progress",
    default=None,
    expose_value=False,
    callback=_kept("progress"),
    help="Show progress [default: on a terminal].",
)
_quiet_option = click.option(
    "-q",
    "--quiet",
    is_flag=True,
    expose_value=False,
    callback=_kept("quiet"),
    help="Print only errors and results.",
)
_verbose_option = click.option(
    "-v",
    "--verbose",
    count=True,
    expose_value=False,
    callback=_kept("verbose"),
    help="Report what is decided for each tensor, and why; -vv: in more detail.",
)


def reading_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What becomes of the parts of a model that is read: one argument ``reading``, which `api` takes apart."""

    @wraps(command)
    def read(*, drop_optimizer: bool, drop_masked: bool, opaque: bool, strip_debug: bool, **others: Any) -> Any:
        reading = {
            "keep_optimizer": not drop_optimizer,
            "drop_masked": drop_masked,
            "opaque": opaque,
            "strip_debug": strip_debug,
        }
        return command(reading=reading, **others)

    return _drop_optimizer_option(_drop_masked_option(opaque_option(_strip_debug_option(read))))


def talking_options(command: _Command) -> _Command:
    """The options of commands that work for a while: what they say meanwhile, and where other options come from."""
    return _progress_option(_quiet_option(_verbose_option(config_options(command))))


force_option = click.option("-f", "--force", is_flag=True, help="Replace an existing output file.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON to stdout, for programs.")


def data_folder() -> Path:
    """Where a user's own programs keep their data (XDG base directories)."""
    named = os.environ.get("XDG_DATA_HOME")
    return Path(named) if named else Path.home() / ".local" / "share"


@contextmanager
def readable(source: Path) -> Iterator[Path]:
    """The file to read: ``source`` itself, or a temporary copy of what comes out of a pipe or is behind a URL.

    Errors name ``source``.
    """
    with about(source), ExitStack() as stack:
        if is_url(source):
            yield stack.enter_context(fetched(source))
            return
        pipe = _pipe(source, stack)
        if pipe is None:
            yield source
            return
        copy = Path(stack.enter_context(tempfile.TemporaryDirectory()), "stdin")
        with copy.open("wb") as stream:
            _copy(pipe, stream, copy.parent)
        yield copy


def _copy(pipe: BinaryIO, stream: BinaryIO, folder: Path) -> None:
    """Copy what comes out of a pipe, unless it does not end before the disk is all but full."""
    while piece := pipe.read(_PIECE):
        if shutil.disk_usage(folder).free < _KEPT_FREE:
            full = f"{stream.tell()} bytes from the pipe have all but filled the disk"
            raise OSError(errno.ENOSPC, full, str(folder))
        stream.write(piece)


def _pipe(source: Path, stack: ExitStack) -> BinaryIO | None:
    if str(source) == PIPE:
        return _standard(sys.stdin, "stdin")
    if source.exists() and not source.is_file() and not source.is_dir():
        return stack.enter_context(source.open("rb"))
    return None


def stdout(*, as_json: bool, force: bool) -> BinaryIO:
    """Where output called ``-`` goes; a usage error where JSON goes there, and for a terminal, unless ``force``."""
    if as_json:
        raise click.UsageError("--json and the output cannot both go to stdout")
    stream = _standard(sys.stdout, "stdout")
    if stream.isatty() and not force:
        raise click.UsageError("binary data go to a terminal only with --force")
    return stream


@contextmanager
def writable(output: _Output, *, as_json: bool, force: bool) -> Iterator[_Output]:
    """The file to write: ``output`` itself, or a temporary one that goes to stdout in the end, for ``-``."""
    if str(output) != PIPE:
        yield output
        return
    target = stdout(as_json=as_json, force=force)
    with tempfile.TemporaryDirectory() as folder:
        yield (whole := Path(folder, "stdout"))
        if not whole.is_file() or len(list(whole.parent.iterdir())) > 1:
            raise click.UsageError("the output is several files, and cannot go to stdout")
        with whole.open("rb") as stream:
            shutil.copyfileobj(stream, target)


def _standard(stream: TextIO | None, name: str) -> BinaryIO:
    if stream is None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF), name)
    return stream.buffer
