"""NNEF archives that carry their own bitstreams (ISO/IEC 15938-17, Annex A)."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import nnc_core
from nnc_adapters.base import Options
from nnc_adapters.nnef import NnefAdapter, archive, output, private, reader, syntax, writer
from nnc_adapters.nnef.dat import Header
from nnc_adapters.shared.files import replacing
from nnc_adapters.shared.lazy import LazyTensors
from nnc_core import CodingParameters
from nnc_core.bitstream import Bitstream, BitstreamWriter
from nnc_core.bitstream.parts import MODEL, Parts, joined, split
from nnc_core.errors import ModelError, NncError
from nnc_core.limits import Limits
from nnc_core.nnr_model import Topology
from nnc_core.stored import StoredBytes
from nnc_core.syntax import Buffer
from nnc_core.tables.code_points import NnrUnitType, TopologyStorageFormat

__all__ = ["NnefArchive"]


class NnefArchive:
    """One bitstream for each variable, ``<label>.nnr`` in place of ``<label>.dat``; graph.nnef is unchanged.

    Units are copied: what was embedded is extracted byte for byte. `NnefAdapter.embed` codes an archive's tensors
    instead.
    """

    name: str = "nnef"
    suffixes: tuple[str, ...] = NnefAdapter.suffixes
    packages: tuple[str, ...] = ()
    annex: str = NnefAdapter.annex
    way: str = "each tensor file (.dat) is replaced by a bitstream (.nnr)"

    def sniff(self, path: Path) -> bool:
        """Whether it is an archive with a bitstream in it."""
        try:
            return self.takes(path) and _has_bitstreams(archive.files_of(path, Limits()))
        except (NncError, OSError):
            return False

    def takes(self, path: Path) -> bool:
        """Whether it is an archive."""
        return archive.looks_like_archive(path)

    def embed(self, source: Path, target: Path, *, into: Path | None, force: bool, limits: Limits) -> None:
        """Write the archive that the bitstream describes, or ``into`` with its tensors.

        `ModelError` where the bitstream has no NNEF topology, and where its tensors are not those of the model.
        """
        data = StoredBytes(source)
        parts = split(data, limits)
        options = Options(limits, chosen=frozenset(parts.keys() - {MODEL}), only=True)
        topology = Bitstream(data, limits).topology if into is None else reader.read(into, options).topology
        if topology is None or topology.storage_format != TopologyStorageFormat.NNR_TPL_NNEF:
            raise ModelError("an NNEF archive needs an NNEF topology, or an existing archive")
        _write_archive(parts, topology, target, limits, force)

    def extract(self, source: Path, target: Path, *, force: bool, limits: Limits) -> None:
        """Write the bitstream of all tensors, with the archive's other files in its topology.

        Tensors that are not coded in the archive are coded without loss, or stay files.
        """
        model = reader.read(source, Options(limits), lossless=True)
        files = archive.files_of(source, limits)
        coded = {label: name for label in model.tensors if (name := reader.file_stem(label) + reader.NNR) in files}
        others = LazyTensors({n: partial(model.tensors.__getitem__, n) for n in model.tensors if n not in coded})
        density = next((_density(files[name].data(), limits) for name in coded.values()), None)
        plan = nnc_core.plan(replace(model, tensors=others), CodingParameters(qp_density=density))
        parts: dict[str, Buffer] = {}
        for label in model.tensors:
            data = files[coded[label]].data() if label in coded else memoryview(writer.alone(model, label, plan))
            parts[label] = split(data, limits)[label]
        if parts and model.topology:
            parts = {MODEL: _beginning(Bitstream(next(iter(parts.values())), limits), model.topology), **parts}
        with replacing(target, force=force) as stream:
            stream.writelines(joined(parts, limits))


def _has_bitstreams(files: archive.Files) -> bool:
    """Whether a variable has one; any other file may be called as it likes."""
    named_so = {name for name in files if name.endswith(reader.NNR)}
    labels = syntax.variables(bytes(files[archive.GRAPH].data())) if named_so else ()
    return any(reader.file_stem(label) + reader.NNR in named_so for label in labels)


def _density(data: Buffer, limits: Limits) -> int | None:
    """The ``qp_density`` that all parts must agree on."""
    mps = Bitstream(data, limits).mps
    return mps.mps_qp_density if mps else None


def _write_archive(parts: Parts, topology: Topology, target: Path, limits: Limits, force: bool) -> None:
    labels = cast(Mapping[str, Any], dict.fromkeys(parts.keys() - {MODEL}))
    plan = writer.planned(labels, topology, limits)

    def content(label: str) -> output.Pieces:
        return (_with_header(parts[label], label, plan.headers.get(label)),)

    output.write(target, writer.members(plan, reader.NNR, content), force=force)


def _with_header(part: bytes, label: str, header: Header | None) -> bytes:
    """A tensor's bitstream, with the header of its file where the tensor does not say it."""
    described = None if header is None else private.pack(private.Private({label: header}))
    if described is None:
        return part
    bitstream = Bitstream(part)
    unnamed = Topology(TopologyStorageFormat.NNR_TPL_UNREC, b"", private=described)
    rest = (u for u in bitstream.units if u.type not in (NnrUnitType.NNR_STR, NnrUnitType.NNR_MPS))
    return b"".join((_beginning(bitstream, unnamed), *(part[u.offset : u.offset + u.size] for u in rest)))


def _beginning(bitstream: Bitstream, topology: Topology) -> bytes:
    """Start unit and model parameter set as in ``bitstream``, and the topology."""
    if bitstream.mps is None:
        raise ModelError("a bitstream without model parameter set")
    stream = io.BytesIO()
    mps = replace(bitstream.mps, topology_carriage_flag=True)
    BitstreamWriter(stream, mps, bitstream.general_profile_idc).topology(topology)
    return stream.getvalue()
