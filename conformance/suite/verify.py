"""Foreign bitstreams (Part 18, 4.6): one conforms if it breaks no rule and the reference decoder decodes it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nnc_core
from nnc_core.bitstream.validate import violations
from nnc_core.coder.data import input_parameters_from_json
from nnc_core.errors import BitstreamError


@dataclass
class Verified:
    """A bitstream, what is wrong with it, and how many tensors it has; ``problems`` are texts for people."""

    path: Path
    tensors: int = 0
    problems: list[str] = field(default_factory=list)

    def described(self) -> dict[str, Any]:
        """For programs."""
        return {
            "file": str(self.path),
            "conforms": not self.problems,
            "tensors": self.tensors,
            "problems": self.problems,
        }


def verified(paths: Sequence[Path], *, updates: bool = False, profile: str = "2024") -> Iterator[Verified]:
    """Verify bitstreams, each on its own, or as ``updates`` in this order.

    Parameters that are sent out of band lie in a JSON file beside the bitstream, as in the suite.
    """
    decoder = nnc_core.UpdateDecoder()
    for path in paths:
        found = Verified(path)
        try:
            _verify(found, decoder if updates else None, profile)
        except (nnc_core.NncError, OSError) as error:
            found.problems.append(error.explain() if isinstance(error, BitstreamError) else str(error))
        yield found


def _verify(found: Verified, decoder: nnc_core.UpdateDecoder | None, profile: str) -> None:
    data, file = found.path.read_bytes(), found.path.with_name(f"{found.path.stem}_oob.json")
    beside = input_parameters_from_json(file.read_bytes()) if file.is_file() else {}
    found.problems = [v.explain() for v in violations(data, None, beside.get, profile)]
    if found.problems:
        return
    if decoder is not None:
        decoder.apply(data, unverified=True)
        found.tensors = len(decoder.model)
    else:
        found.tensors = len(nnc_core.decode(data, input_parameters=beside))


def report(found: Sequence[Verified], *, as_json: bool) -> str:
    """The findings as text, or as JSON."""
    if as_json:
        return json.dumps([each.described() for each in found], indent=1)
    return "\n".join(_line(each) for each in found)


def _line(found: Verified) -> str:
    if not found.problems:
        return f"{found.path}: conforms, {found.tensors} tensors"
    return "\n".join([f"{found.path}: does not conform", *(f"  {problem}" for problem in found.problems)])
