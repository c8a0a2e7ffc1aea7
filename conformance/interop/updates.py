"""Exchanges chains of updates with the public codec NNCodec: what our `UpdateEncoder` writes, and what it writes.

For each chain: the peer decodes all our updates to the same bits as we do, and what it writes makes, applied by our
`UpdateDecoder`, the model that the sum of its own decoded updates makes. The peer's interface for the history (HDSP) is
not documented, so the chains go without.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from rich.table import Table

import nnc_core
from conformance.support import peer_codec
from nnc_core import LossyOptions, NnrFile, UpdateDecoder, UpdateEncoder, UpdateOptions
from nnc_core.coder.encoder import Coding, Effort
from nnc_core.coder.history import Histories

Tensors = dict[str, NDArray[Any]]
LENGTH = 5
_CODING = Coding(qp_density=4, temporal_context_modeling_flag=True, effort=Effort())
_PEER = {"qp": -40, "nonweight_qp": -75, "compress_differences": True, "tca": True, "row_skipping": True}


@dataclass(frozen=True)
class Chain:
    """Updates that we write, or with ``theirs`` the options of the peer's encoder."""

    name: str
    options: UpdateOptions = field(default_factory=UpdateOptions)
    dtype: str = "float32"
    theirs: dict[str, Any] | None = None


@dataclass
class ChainResult:
    """The bytes of all updates, how many units they have, and what went wrong."""

    chain: str
    size: int
    units: int
    failures: list[str] = field(default_factory=list)


def chains() -> Iterator[Chain]:
    """All that the peer can read, and what it can write."""
    lossy = UpdateOptions(coding=_CODING)
    uniform, sparse = LossyOptions(dq_flag=False), LossyOptions(sparsity=0.9, structured=True)
    yield Chain("ours, lossy", lossy)
    yield Chain("ours, lossy, no dq", replace(lossy, lossy=uniform))
    yield Chain("ours, lossy, sparse rows", replace(lossy, lossy=sparse))
    yield Chain("ours, lossy, nothing but the standard", replace(lossy, manifest=False))
    yield Chain("ours, residuals", replace(lossy, lossy=uniform, predict="always"))
    yield Chain("ours, bfloat16, lossy", lossy, "bfloat16")
    for dtype in ("float32", "bfloat16", "float16"):
        yield Chain(f"ours, {dtype}, exact", UpdateOptions(exact=True, coding=_CODING), dtype)
    yield Chain("ours, exact, as they lie", UpdateOptions(exact=True, order="none", coding=_CODING), "bfloat16")
    yield Chain("theirs", theirs={**_PEER, "use_dq": True})
    yield Chain("theirs, no dq", theirs={**_PEER, "use_dq": False})
    yield Chain("theirs, no contexts", theirs={**_PEER, "use_dq": True, "tca": False})
    yield Chain("theirs, flagged as residuals", theirs={**_PEER, "use_dq": False, "pre_signalling": True})


def models(dtype: str) -> list[Tensors]:
    """Versions of a network: some weights move often, a bias seldom, one matrix once."""
    kind, rng = np.dtype(getattr(ml_dtypes, dtype, dtype)), np.random.default_rng(3)
    weights = {
        "conv.weight": rng.normal(0, 0.1, (12, 6, 3, 3)),
        "conv.bias": rng.normal(0, 0.1, 12),
        "fc.weight": rng.normal(0, 0.1, (30, 44)),
        "head.weight": rng.normal(0, 0.1, (10, 30)),
    }
    often = {name: rng.random(array.shape) for name, array in weights.items()}
    found = [weights]
    for number in range(LENGTH):
        moved = {n: rng.random(a.shape) < often[n] ** 2 for n, a in weights.items()}
        still = {"head.weight"} if number != 2 else {"conv.bias"}
        found.append(
            {n: a if n in still else a + rng.normal(0, 0.01, a.shape) * moved[n] for n, a in found[-1].items()}
        )
    return [{name: array.astype(kind) for name, array in model.items()} for model in found]


def check(chain: Chain, folder: Path) -> ChainResult:
    """Write, and read on both sides."""
    versions = models(chain.dtype)
    try:
        updates = ours(versions, chain.options) if chain.theirs is None else theirs(versions, chain.theirs, folder)
        decoded = peer_decoded(updates, folder)
    except peer_codec.PeerError as error:
        return ChainResult(chain.name, 0, 0, [str(error)])
    result = ChainResult(chain.name, sum(map(len, updates)), sum(len(list(NnrFile(u))) for u in updates))
    histories: Histories = {}
    for number, (update, right) in enumerate(zip(updates, decoded, strict=True), 1):
        file = NnrFile(update, history=histories)
        result.failures += differences(f"update {number}", dict(file.decode_all()), right)
        histories = file.history_after()
    if chain.theirs is not None:
        right = summed(decoded, versions[0], bool(chain.theirs.get("pre_signalling")))
        result.failures += differences("the model", applied(updates, versions[0]), right)
    return result


def ours(versions: list[Tensors], options: UpdateOptions) -> list[bytes]:
    """Our updates; our own receiver has what the sender says."""
    encoder, decoder, updates = UpdateEncoder(versions[0], options), UpdateDecoder(versions[0]), []
    for version in versions[1:]:
        updates.append(encoder.encode(version))
        encoder.commit(updates[-1])
        decoder.apply(updates[-1], unverified=not options.manifest)
    if any(decoder.model[name].tobytes() != array.tobytes() for name, array in encoder.model.items()):
        raise RuntimeError("our receiver does not have what our sender has")
    return updates


def theirs(versions: list[Tensors], options: dict[str, Any], folder: Path) -> list[bytes]:
    """The peer's updates: the differences of the versions."""
    files = []
    for number, (old, new) in enumerate(pairwise(versions)):
        source, target = folder / f"{number}.npz", folder / f"{number}.nnr"
        np.savez(source, **{name: new[name] - old[name] for name in new})
        files.append((source, target))
    peer_codec.session("encode", files, options, updates=True)
    return [target.read_bytes() for _, target in files]


def peer_decoded(updates: list[bytes], folder: Path) -> list[Tensors]:
    """What the peer finds in each update."""
    files = []
    for number, update in enumerate(updates):
        source, target = folder / f"u{number}.nnr", folder / f"u{number}.npz"
        source.write_bytes(update)
        files.append((source, target))
    peer_codec.session("decode", files, {}, updates=True)
    found = []
    for _, target in files:
        with np.load(target) as archive:
            found.append({name: archive[name] for name in archive.files})
    return found


def applied(updates: list[bytes], base: Tensors) -> Tensors:
    """The model after foreign updates, by our decoder."""
    decoder = UpdateDecoder(base)
    try:
        for update in updates:
            decoder.apply(update, unverified=True)
    except nnc_core.NncError as error:
        return {str(error): np.zeros(0)}
    return dict(decoder.model)


def summed(decoded: list[Tensors], base: Tensors, residuals: bool) -> Tensors:
    """The model after foreign updates that were decoded elsewhere; ``residuals`` add to the update before."""
    model, last = dict(base), Tensors()
    for found in decoded:
        update = {name: array.astype(np.float32) for name, array in found.items()}
        if residuals:
            update = last | {name: array + last[name] if name in last else array for name, array in update.items()}
        model |= {name: model[name] + array for name, array in update.items()}
        last = update
    return model


def differences(what: str, found: Tensors, right: Tensors) -> list[str]:
    if found.keys() != right.keys():
        return [f"{what}: different tensors, {sorted(found)[:3]} and {sorted(right)[:3]}"]
    return [
        f"{what}: {name} differs"
        for name, array in found.items()
        if array.shape != right[name].shape or array.tobytes() != right[name].astype(array.dtype).tobytes()
    ]


def table_of(results: list[ChainResult]) -> Table:
    table = Table(title=f"chains of {LENGTH} updates, read by both")
    table.add_column("chain")
    table.add_column("bytes", justify="right")
    table.add_column("units", justify="right")
    table.add_column("")
    for r in results:
        table.add_row(
            r.chain, str(r.size), str(r.units), "[red]" + "; ".join(r.failures[:3]) if r.failures else "[green]ok"
        )
    return table
