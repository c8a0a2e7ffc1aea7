"""From whatever may carry NNR to a plain bitstream. What a plain one does not need is imported when needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nnc_adapters.containers.concatenation import Concatenation
from nnc_adapters.sharded.names import is_sharded
from nnc_core.errors import ModelError
from nnc_core.limits import Limits

__all__ = ["plain"]


@contextmanager
def plain(source: Path, limits: Limits) -> Iterator[Path]:
    """A file with one bitstream and nothing else: ``source`` itself, or a temporary one of what it carries.

    `ModelError` for what is something else, such as a model; what carries no NNR, and nothing tells what it is, is not
    touched: whoever opens it says what is wrong.
    """
    if is_sharded(source):
        raise ModelError("is a sharded model of several bitstreams; name one of them", file=str(source))
    concatenation = Concatenation()
    if concatenation.sniff(source):
        with concatenation.open(source, limits) as items:
            alone = len(items) == 1
    else:
        alone = not _is_carrier(source)
    if alone:
        yield source
        return
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        yield _extracted(source, Path(folder, "carried.nnr"), limits)


def _is_carrier(source: Path) -> bool:
    from nnc_adapters import registry
    from nnc_adapters.containers.registry import carriers
    from nnc_adapters.recognition import instead_of_a_bitstream

    if any(carrier.sniff(source) for carrier in carriers()):
        return True
    if (message := instead_of_a_bitstream(source, registry.adapters())) is not None:
        raise ModelError(message, file=str(source))
    return False


def _extracted(source: Path, target: Path, limits: Limits) -> Path:
    from nnc_adapters.containers.embedding import extract

    extract(source, target, limits=limits)
    return target
