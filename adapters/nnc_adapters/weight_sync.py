"""Weights from a trainer to many receivers over a folder, or any place that fsspec reaches.

The publisher writes, for every version, an update from the version before, and for every so-many-th version the whole
model as well, the *anchor*. A file is complete and safe before ``head.json`` names it. A receiver that is up to date
takes the next update; one that is late, or new, takes the newest anchor and what follows.

::

    anchor_000010.nnr    the model of version 10
    update_000011.nnr    from version 10 to version 11
    head.json            the newest version, its digest, and the files that lead to it
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from numpy.typing import NDArray

from nnc_adapters.anchors import read_anchor, write_anchor
from nnc_adapters.remote import file_system
from nnc_core import MissingLinkError, ModelError, UpdateDecoder, UpdateEncoder, UpdateOptions
from nnc_core.records import dataclass
from nnc_core.stored import replacing
from nnc_core.updates import fingerprints, model_digest

__all__ = ["Published", "WeightPublisher", "WeightReceiver"]

HEAD: Final = "head.json"
_VERSION: Final = 1
Tensors = Mapping[str, NDArray[Any]]


class Store(Protocol):
    """Where the files lie."""

    def write(self, name: str, data: bytes) -> None:
        """Write a file that appears complete and safe, or not at all; it replaces one of this name."""
        ...

    def read(self, name: str) -> bytes:
        """Read a file; `FileNotFoundError` if there is none."""
        ...

    def names(self) -> set[str]:
        """The names of all files."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        ...


class Folder:
    """A folder of the file system, which is made if it is not there."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._path.mkdir(parents=True, exist_ok=True)

    def write(self, name: str, data: bytes) -> None:
        """As `Store`; on the disk before it has its name."""
        with replacing(self._path / name, durable=True) as stream:
            stream.write(data)
        self._sync()

    def _sync(self) -> None:
        """Let the name reach the disk, too, where the system can do that for a folder."""
        if os.name == "posix":
            folder = os.open(self._path, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def read(self, name: str) -> bytes:
        """As `Store`."""
        return (self._path / name).read_bytes()

    def names(self) -> set[str]:
        """As `Store`."""
        return {each.name for each in self._path.iterdir()}

    def remove(self, name: str) -> None:
        """As `Store`."""
        (self._path / name).unlink(missing_ok=True)


class Remote:
    """A place that fsspec reaches, such as ``s3://bucket/run`` or ``memory://run``; needs the package fsspec.

    Its files appear complete where the place itself is like that, as object stores are.
    """

    def __init__(self, url: str) -> None:
        self._system, self._path = file_system(url)
        self._system.makedirs(self._path, exist_ok=True)

    def write(self, name: str, data: bytes) -> None:
        """As `Store`."""
        self._system.pipe_file(f"{self._path}/{name}", data)

    def read(self, name: str) -> bytes:
        """As `Store`."""
        self._system.invalidate_cache(self._path)
        data: bytes = self._system.cat_file(f"{self._path}/{name}")
        return data

    def names(self) -> set[str]:
        """As `Store`."""
        self._system.invalidate_cache(self._path)
        return {str(each).rsplit("/", 1)[-1] for each in self._system.ls(self._path, detail=False)}

    def remove(self, name: str) -> None:
        """As `Store`."""
        if name in self.names():
            self._system.rm_file(f"{self._path}/{name}")


def store_at(place: str | os.PathLike[str]) -> Store:
    """The store at a path, or at a URL that fsspec knows."""
    return Remote(place) if isinstance(place, str) and "://" in place else Folder(place)


@dataclass(frozen=True, slots=True)
class Published:
    """What was published: the version, the digest of the model, and the sizes of its update and its anchor."""

    version: int
    digest: str
    update_bytes: int
    anchor_bytes: int


class WeightPublisher:
    """Publishes versions of one model; there is one publisher for a place.

    ``options`` say how updates are coded, exactly by default. Every ``anchor_every``-th version has an anchor, and the
    last two anchors are kept with all that follows. A publisher that starts where another stopped begins with an
    anchor.
    """

    def __init__(
        self,
        place: str | os.PathLike[str],
        options: UpdateOptions | None = None,
        *,
        anchor_every: int = 10,
        threads: int | None = None,
    ) -> None:
        if anchor_every < 1:
            raise ValueError(f"anchor_every is {anchor_every}, expected 1 or more")
        self._store = store_at(place)
        self._options = options or UpdateOptions(exact=True)
        self._every = anchor_every
        self._threads = threads
        self._encoder: UpdateEncoder | None = None
        head = _head(self._store)
        self._version = 0 if head is None else head["version"]

    def publish(self, model: Tensors) -> Published:
        """Publish the next version of the model; it is announced once all its files are safe.

        If this fails, the version before stays the newest, and the model may be published again.
        """
        version = self._version + 1
        encoder, update = self._encoder, b""
        if encoder is None:
            encoder = UpdateEncoder(model, self._options, threads=self._threads)
        else:
            update = encoder.encode(model, restart=self._version % self._every == 0)
            self._store.write(_update(version), update)
        anchor = b""
        if not update or version % self._every == 0:
            anchor = write_anchor(encoder.encoded, threads=self._threads)
            self._store.write(_anchor(version), anchor)
        digest = model_digest(fingerprints(encoder.encoded))
        self._store.write(HEAD, json.dumps({"nnc_head": _VERSION, "version": version, "digest": digest}).encode())
        if update:
            encoder.commit(update)
        self._encoder, self._version = encoder, version
        self._prune()
        return Published(version, digest, len(update), len(anchor))

    def _prune(self) -> None:
        names = self._store.names()
        anchors = sorted(name for name in names if name.startswith("anchor_"))
        if len(anchors) > 2:
            oldest = _number(anchors[-2])
            for name in names:
                if name.startswith(("anchor_", "update_")) and _number(name) < oldest:
                    self._store.remove(name)


class WeightReceiver:
    """Follows what a `WeightPublisher` publishes; any number of receivers may."""

    def __init__(self, place: str | os.PathLike[str], *, threads: int | None = None) -> None:
        self._store = store_at(place)
        self._threads = threads
        self._decoder: UpdateDecoder | None = None
        self.version = 0

    @property
    def model(self) -> Tensors:
        """The model of the version that was pulled last; the names and their order are the publisher's."""
        return {} if self._decoder is None else self._decoder.model

    def pull(self, version: int | None = None) -> bool:
        """Get the newest version, or another one that is not older than the one at hand; say whether it is new.

        The model changes as a whole or not at all. `MissingLinkError` where the files do not lead to this version,
        `BitstreamError` or an `UpdateError` where they are damaged.
        """
        head = _head(self._store)
        wanted = version if version is not None else 0 if head is None else head["version"]
        if head is None or wanted > head["version"]:
            raise MissingLinkError(f"version {wanted} is not published", have=self.version, need=wanted)
        if wanted == self.version:
            return False
        if wanted < self.version:
            raise ValueError(f"version {wanted} is older than {self.version}, the one at hand")
        start, decoder = self._start(wanted)
        for number in range(start + 1, wanted + 1):
            decoder.apply(self._store.read(_update(number)))
        if version is None and decoder.chain.digest != head["digest"]:
            raise ModelError("the model is not the one that was published", file=HEAD)
        self._decoder, self.version = decoder, wanted
        return True

    def _start(self, wanted: int) -> tuple[int, UpdateDecoder]:
        """The version to start from, and a decoder of it that may be moved."""
        names = self._store.names()
        if self._decoder is not None and _leads(names, self.version, wanted):
            return self.version, self._decoder.copy()
        for anchor in sorted((_number(n) for n in names if n.startswith("anchor_")), reverse=True):
            if anchor <= wanted and _leads(names, anchor, wanted):
                model = read_anchor(self._store.read(_anchor(anchor)), threads=self._threads)
                return anchor, UpdateDecoder(model, threads=self._threads)
        raise MissingLinkError(f"no files lead to version {wanted}", have=self.version, need=wanted)


def _leads(names: set[str], start: int, wanted: int) -> bool:
    return all(_update(number) in names for number in range(start + 1, wanted + 1))


def _anchor(version: int) -> str:
    return f"anchor_{version:06d}.nnr"


def _update(version: int) -> str:
    return f"update_{version:06d}.nnr"


def _number(name: str) -> int:
    return int(name.split("_")[1].split(".")[0])


def _head(store: Store) -> dict[str, Any] | None:
    """What the newest version is; None before the first."""
    try:
        data = store.read(HEAD)
    except FileNotFoundError:
        return None
    try:
        head = json.loads(data)
        if head["nnc_head"] == _VERSION and isinstance(head["version"], int) and isinstance(head["digest"], str):
            return dict(head)
    except (ValueError, KeyError, TypeError):
        pass
    raise ModelError("does not say which version is the newest", file=HEAD)
