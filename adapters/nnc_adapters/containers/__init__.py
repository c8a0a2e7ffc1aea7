"""NNR in files of other formats (ISO/IEC 15938-17, Annex E): one bitstream, or one for each tensor.

A container maps keys to bitstreams; `embed` and `extract` go between them and plain ``.nnr`` files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnc_core.lazy import imported_on_use

if TYPE_CHECKING:
    from nnc_adapters.containers.base import Container, Extendable, Items
    from nnc_adapters.containers.embedding import EmbedReport, embed, extract
    from nnc_adapters.containers.plain_files import plain
    from nnc_adapters.containers.registry import ARRAY_CODECS, CONTAINERS, Carrier, carriers, find, for_target
else:
    __getattr__ = imported_on_use(
        __name__,
        {
            "base": ("Container", "Extendable", "Items"),
            "embedding": ("EmbedReport", "embed", "extract"),
            "plain_files": ("plain",),
            "registry": ("ARRAY_CODECS", "CONTAINERS", "Carrier", "carriers", "find", "for_target"),
        },
    )

__all__ = [
    "ARRAY_CODECS",
    "CONTAINERS",
    "Carrier",
    "Container",
    "EmbedReport",
    "Extendable",
    "Items",
    "carriers",
    "embed",
    "extract",
    "find",
    "for_target",
    "plain",
]
