"""The decoders that can be tested: ours, the one in plain Python, the public peer, and any command."""

from __future__ import annotations

import json
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

import nnc_core
from conformance.decoder.decode import Decoder as PlainDecoder
from conformance.decoder.decode import described as plainly_described
from conformance.decoder.errors import InvalidError
from conformance.decoder.state import State
from conformance.suite.files import described, load
from conformance.suite.rows import Row
from nnc_core.bitstream import Bitstream
from nnc_core.coder.data import input_parameters_from_json
from nnc_core.coder.metadata import describe
from nnc_core.nnr_model.model_info import ModelInfo

Arrays = dict[str, NDArray[Any]]

REFUSED, UNSUPPORTED = 3, 4
"""The exit codes of a command: the bitstream is not valid, or has something that the decoder does not support."""


class RefusedError(Exception):
    """The decoder says that the bitstream is not valid."""


class UnsupportedError(Exception):
    """The decoder says that it does not support something."""


class CrashedError(Exception):
    """The decoder failed in some other way."""


class MissingDecoderError(Exception):
    """The decoder is not installed."""


class Session(Protocol):
    """A decoder with one row before it: knows nothing at first, and what the bitstreams before left later on."""

    def decode(self, stream: Path, out_of_band: Path | None) -> Arrays:
        """The tensors of the model after this bitstream."""


class Decoder(Protocol):
    """A decoder under test."""

    name: str

    def session(self, row: Row | None) -> Any:
        """A context manager of a `Session`, for the bitstreams of a row, or for a single one."""


class Native:
    """The decoder of this project."""

    name = "native"

    @contextmanager
    def session(self, row: Row | None) -> Iterator[Session]:
        yield _Updates() if row and len(row.files) > 1 else _Whole()


class _Whole:
    def decode(self, stream: Path, out_of_band: Path | None) -> Arrays:
        beside = input_parameters_from_json(out_of_band.read_bytes()) if out_of_band else None
        data = stream.read_bytes()
        with _errors():
            tensors = nnc_core.decode(data, input_parameters=beside)
            info = ModelInfo()
            describe(Bitstream(data, input_parameters=(beside or {}).get), info)
        return {**tensors, **described(info)}


class _Updates:
    def __init__(self) -> None:
        self._decoder = nnc_core.UpdateDecoder()

    def decode(self, stream: Path, out_of_band: Path | None) -> Arrays:
        with _errors():
            self._decoder.apply(stream.read_bytes(), unverified=True)
        return dict(self._decoder.model)


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except nnc_core.UnsupportedError as error:
        raise UnsupportedError(str(error)) from error
    except nnc_core.NncError as error:
        raise RefusedError(str(error)) from error


class Plain:
    """The decoder in plain Python, in the folder ``decoder``."""

    name = "plain"

    @contextmanager
    def session(self, row: Row | None) -> Iterator[Session]:
        yield _PlainSession()


class _PlainSession:
    def __init__(self) -> None:
        self._state = State()

    def decode(self, stream: Path, out_of_band: Path | None) -> Arrays:
        beside = json.loads(out_of_band.read_bytes()) if out_of_band else {}
        decoder = PlainDecoder(self._state, beside)
        try:
            tensors = decoder.decode(stream.read_bytes())
        except InvalidError as error:
            raise RefusedError(str(error)) from error
        return {**tensors, **plainly_described(decoder.model_info)}


@dataclass
class Command:
    """Any program: ``COMMAND IN.nnr OUT.npz [--state DIR] [--oob FILE]``."""

    command: str
    timeout: float = 600.0

    @property
    def name(self) -> str:
        return self.command

    @contextmanager
    def session(self, row: Row | None) -> Iterator[Session]:
        with tempfile.TemporaryDirectory() as folder:
            (state := Path(folder) / "state").mkdir()
            yield _Runs(self, Path(folder) / "out.npz", state if row and len(row.files) > 1 else None)


@dataclass
class _Runs:
    decoder: Command
    out: Path
    state: Path | None

    def decode(self, stream: Path, out_of_band: Path | None) -> Arrays:
        self.out.unlink(missing_ok=True)
        arguments = [*shlex.split(self.decoder.command), str(stream), str(self.out)]
        arguments += ["--state", str(self.state)] if self.state else []
        arguments += ["--oob", str(out_of_band)] if out_of_band else []
        self._run(arguments)
        try:
            return load(self.out)
        except (OSError, ValueError) as error:
            raise CrashedError(f"wrote no .npz file: {error}") from error

    def _run(self, arguments: list[str]) -> None:
        try:
            done = subprocess.run(
                arguments, capture_output=True, text=True, errors="replace", timeout=self.decoder.timeout, check=False
            )
        except subprocess.TimeoutExpired:
            raise CrashedError(f"did not end within {self.decoder.timeout:g} s") from None
        except OSError as error:
            raise CrashedError(f"cannot be run: {error}") from error
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        if done.returncode:
            raise {REFUSED: RefusedError, UNSUPPORTED: UnsupportedError}.get(done.returncode, CrashedError)(said)
