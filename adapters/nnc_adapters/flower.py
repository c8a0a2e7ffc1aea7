"""Federated learning with Flower over compressed updates: two lines in an existing app.

On the clients a mod, on the server a grid around the one that Flower gives::

    app = ClientApp(mods=[nnc_mod()])
    strategy.start(grid=NncGrid(grid), ...)

Every message then carries NNR bitstreams in place of arrays. The server sends the model once and from then on what
changed, which it codes once for all clients; a client answers with the difference between what it trained and what it
got. Differences are taken from what the other end really has, so that errors do not add up. Clients may miss rounds or
lose their state. Mods that need plain arrays act before this one on the way out: list them after it. It cannot be
combined with secure aggregation, which adds up numbers that must not be recognisable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import nnc_core
from nnc_core import MissingDependencyError, ModelError, UpdateDecoder, UpdateEncoder, UpdateOptions
from nnc_core.updates import fingerprints, model_digest

try:
    from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
    from flwr.serverapp import Grid
except ModuleNotFoundError as error:
    raise MissingDependencyError("flwr", "flower") from error

__all__ = ["NncGrid", "nnc_mod"]

STYPE: Final = "nnc.nnr"
_INFO: Final = "nnc"
_STATE: Final = "nnc.model."
_MISSING: Final = "missing"

Tensors = Mapping[str, NDArray[Any]]
_Application = Callable[[Message, Context], Message]


def nnc_mod(options: UpdateOptions | None = None) -> Callable[[Message, Context, _Application], Message]:
    """A mod for clients that decodes the arrays of each message and codes those of the reply.

    ``options`` say how the replies are coded.
    """
    chosen = options or UpdateOptions()

    def mod(message: Message, context: Context, call_next: _Application) -> Message:
        models: dict[str, Tensors] = {}
        for key in _announced(message.content):
            model = _received(message.content, key, _kept(context, key))
            if model is None:
                return Message(RecordDict({_INFO: ConfigRecord({_MISSING: True})}), reply_to=message)
            models[key] = model
            message.content[key] = context.state[_STATE + key] = _record(model)
        reply = call_next(message, context)
        for key in models:
            if reply.has_content() and key in reply.content.array_records:
                trained = _arrays(reply.content[key])
                reply.content[key] = _coded([UpdateEncoder(models[key], chosen).encode(trained)])
        return reply

    return mod


def _received(content: RecordDict, key: str, known: Tensors | None) -> Tensors | None:
    """The arrays that a message stands for; None where they build on a model that is not here."""
    parts = [array.data for array in content[key].values()]
    info = content[_INFO]
    start = info[key]
    if start == "":
        known, parts = nnc_core.decode(parts[0]), parts[1:]
    elif known is None or model_digest(fingerprints(known)) != start:
        return None
    decoder = UpdateDecoder(known)
    for part in parts:
        decoder.apply(part)
    return decoder.model


def _announced(content: RecordDict) -> list[str]:
    """The records that a message carries coded."""
    return list(content[_INFO]) if _INFO in content else []


def _kept(context: Context, key: str) -> Tensors | None:
    return _arrays(context.state[_STATE + key]) if _STATE + key in context.state else None


@dataclass
class _Broadcast:
    """The models that were sent, as the clients have them: the first as a whole, then what changed."""

    options: UpdateOptions
    first: bytes = b""
    updates: list[bytes] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    encoder: UpdateEncoder | None = None
    target: dict[str, Any] = field(default_factory=dict)

    def send(self, model: Tensors) -> str:
        """Take over the model that is to be sent; return the digest of what the clients will have."""
        prints = fingerprints(model)
        if self.encoder is None:
            self.first = nnc_core.encode(model)
            self.encoder = UpdateEncoder(nnc_core.decode(self.first), self.options)
            self.digests.append(self.encoder.chain.digest)
        elif prints != self.target:
            self.updates.append(self.encoder.encode(model, restart=True))
            self.encoder.commit(self.updates[-1])
            self.digests.append(self.encoder.chain.digest)
        self.target = prints
        return self.digests[-1]

    def parts(self, known: str) -> tuple[str, list[bytes]]:
        """What a client needs that has the model with the digest ``known``, and with which model that starts."""
        if known in self.digests:
            return known, self.updates[self.digests.index(known) :]
        return "", [self.first, *self.updates]


class NncGrid(Grid):
    """A grid that codes the arrays of messages to the clients and decodes those of their replies.

    ``options`` say how the updates of the model are coded. ``sent`` and ``received`` count the bytes of arrays that
    travelled.
    """

    def __init__(self, grid: Grid, options: UpdateOptions | None = None) -> None:
        self._grid = grid
        self._options = options or UpdateOptions()
        self._broadcasts: dict[str, _Broadcast] = {}
        self._known: dict[tuple[int, str], str] = {}
        self.sent = self.received = 0

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Send ``messages`` and wait for the replies."""
        plain = list(messages)
        arrays = [{key: _arrays(m.content[key]) for key in m.content.array_records} for m in plain]
        for message, models in zip(plain, arrays, strict=True):
            self._code(message, models)
        replies = list(self._grid.send_and_receive(plain, timeout=timeout))
        again = [r.metadata.src_node_id for r in replies if r.has_content() and _INFO in r.content]
        if again:
            replies = [r for r in replies if r.metadata.src_node_id not in again]
            lost = [(m, models) for m, models in zip(plain, arrays, strict=True) if m.metadata.dst_node_id in again]
            for message, models in lost:
                for key in models:
                    self._known.pop((message.metadata.dst_node_id, key), None)
                self._code(message, models)
            replies += self._grid.send_and_receive([_again(message) for message, _ in lost], timeout=timeout)
        for reply in replies:
            if reply.has_content():
                self._decode(reply)
        return replies

    def _code(self, message: Message, models: Mapping[str, Tensors]) -> None:
        node, info = message.metadata.dst_node_id, {}
        for key, model in models.items():
            broadcast = self._broadcasts.setdefault(key, _Broadcast(self._options))
            digest = broadcast.send(model)
            start, parts = broadcast.parts(self._known.get((node, key), ""))
            message.content[key] = _coded(parts)
            info[key] = start
            self._known[node, key] = digest
            self.sent += sum(map(len, parts))
        if info:
            message.content[_INFO] = ConfigRecord(info)

    def _decode(self, reply: Message) -> None:
        for key in _coded_records(reply.content):
            broadcast = self._broadcasts.get(key)
            if broadcast is None or broadcast.encoder is None:
                raise ModelError(f"a reply has a record {key!r} that no message had")
            decoder = UpdateDecoder(broadcast.encoder.model)
            for array in reply.content[key].values():
                self.received += len(array.data)
                decoder.apply(array.data)
            reply.content[key] = _record(decoder.model)

    def set_run(self, *args: Any, **kwargs: Any) -> None:
        """As the grid inside."""
        self._grid.set_run(*args, **kwargs)

    @property
    def run(self) -> Any:
        """As the grid inside."""
        return self._grid.run

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        """As the grid inside."""
        return self._grid.create_message(*args, **kwargs)

    def get_node_ids(self) -> Iterable[int]:
        """As the grid inside."""
        return self._grid.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """As the grid inside: the arrays are not coded."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """As the grid inside: the arrays are not decoded."""
        return self._grid.pull_messages(message_ids)


def _again(message: Message) -> Message:
    m = message.metadata
    return Message(message.content, m.dst_node_id, m.message_type, ttl=m.ttl, group_id=m.group_id)


def _coded_records(content: RecordDict) -> list[str]:
    return [key for key, record in content.array_records.items() if _is_coded(record)]


def _is_coded(record: ArrayRecord) -> bool:
    return bool(record) and all(array.stype == STYPE for array in record.values())


def _arrays(record: ArrayRecord) -> dict[str, NDArray[Any]]:
    return {name: array.numpy() for name, array in record.items()}


def _record(model: Tensors) -> ArrayRecord:
    return ArrayRecord({name: Array(np.asarray(array)) for name, array in model.items()})


def _coded(parts: Iterable[bytes]) -> ArrayRecord:
    arrays = {str(j): Array(dtype="uint8", shape=(len(p),), stype=STYPE, data=bytes(p)) for j, p in enumerate(parts)}
    return ArrayRecord(arrays)
