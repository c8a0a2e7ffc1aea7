"""The public codec NNCodec as a decoder under test: driven as a black box, for the rows that it supports."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance.suite.decoders import CrashedError, MissingDecoderError, Session, UnsupportedError
from conformance.suite.rows import Row
from conformance.support import peer_codec

Arrays = dict[str, NDArray[Any]]

_NO_HISTORY = "its interface for the history is not documented"
_BEYOND_THE_TABLES = {
    "contexts": _NO_HISTORY,
    "data_formats": "it disregards the data format that is asked for",
    "inputs_out_of_band": "its function for bitstreams takes no parameters out of band",
    "parameter_sets": "it cannot decode bitstreams with layer parameter sets or aggregate units",
    "metadata": "it reads topology units of the formats 0, 3 and 4 only",
    "references": "it reads topology units of the formats 0, 3 and 4 only",
    "decomposition": "its function for bitstreams fails where factors are to be multiplied",
    "dimensions": "it does not move, cut or exchange dimensions",
    "parents": "it writes parents by number only, and has no history of digests",
}


def reason_against(row: Row) -> str | None:
    """Why the peer does not support a row."""
    options = row.configuration
    if row.table == 3:
        return _BEYOND_THE_TABLES.get(row.key)
    if options.get("max_ndu_nnr_unit_size"):
        return "it stops at data units in parts"
    if options.get("encode_tpl_only"):
        return "it reads topology units of the formats 0, 3 and 4 only"
    if row.out_of_band:
        return "its function for bitstreams takes no parameters out of band"
    if options.get("hdsp") and not options.get("pre"):
        return _NO_HISTORY
    if options.get("pre"):
        return "it passes nnr_pre_flag on, and does not add predictions"
    return None


class Peer:
    """The peer; `MissingDecoderError` where it is not set up."""

    name = "NNCodec"

    def __init__(self) -> None:
        if reason := peer_codec.missing():
            raise MissingDecoderError(reason)

    @contextmanager
    def session(self, row: Row | None) -> Iterator[Session]:
        if row is not None and (reason := reason_against(row)) is not None:
            raise UnsupportedError(reason)
        with tempfile.TemporaryDirectory() as folder:
            yield _Session(Path(folder), row is not None and len(row.files) > 1)


class _Session:
    """Its decoder knows nothing of a model: updates are added up here, and those before are decoded anew."""

    def __init__(self, folder: Path, updates: bool) -> None:
        self._folder, self._updates = folder, updates
        self._files: list[tuple[Path, Path]] = []
        self._model: Arrays = {}

    def decode(self, stream: Path, out_of_band: Path | None) -> Arrays:
        self._files.append((stream, self._folder / f"{len(self._files)}.npz"))
        try:
            peer_codec.session("decode", self._files, {}, self._updates)
        except peer_codec.PeerError as error:
            raise CrashedError(str(error)) from error
        with np.load(self._files[-1][1]) as archive:
            for name in archive.files:
                values = archive[name].astype(_usual(archive[name]))
                self._model[name] = self._model[name] + values if name in self._model else values
        return dict(self._model)


def _usual(array: NDArray[Any]) -> np.dtype[Any]:
    """The type that a decoder returns where none is asked for; the peer has codebooks in float64."""
    return np.dtype(np.float32 if array.dtype.kind == "f" else np.int32)
