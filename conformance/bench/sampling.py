"""What a sampled choice of contexts' parameters costs in size, against following every bin of a tensor.

    python -m conformance.bench.sampling [--seeds N]

The limit is 0.01 % of the bytes of each kind of made-up tensor; one tensor alone may be a few bytes larger or smaller,
since either choice goes by estimates.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from conformance.bench import synthetic
from nnc_core.approximator.native import quantize_dependent, quantize_uniform
from nnc_core.entropy.native import Encoder, shift_indices
from nnc_core.entropy.parameters import TensorChoices, TensorParameters

KINDS = ((0.15, 0.0), (1, 0.0), (10, 0.0), (3, 0.9), (3, 0.99), (3, 0.999))
"""The scale in steps, and the share of zeros."""

SHAPES = ((1024, 1024, 0), (1024, 1024, 1), (64, 576, 0))
"""Rows, width and scan order: a large tensor without and with entry points, and one that is not large."""


def tensors(scale: float, zeros: float, seed: int) -> Iterator[tuple[NDArray[np.int32], TensorParameters]]:
    """Levels of every shape, with dependent quantization and without."""
    for rows, width, scan_order in SHAPES:
        kept = np.random.default_rng(seed).random((rows, width)) >= zeros
        values = (synthetic.laplace((rows, width), scale, seed) * kept).astype(np.float32)
        for dq_flag in (False, True):
            step = np.float32(synthetic.STEP)
            levels = (quantize_dependent if dq_flag else quantize_uniform)(values, float(step), scan_order)
            yield levels, TensorParameters(dq_flag=dq_flag, scan_order=scan_order)


def sizes(levels: NDArray[np.int32], parameters: TensorParameters) -> tuple[int, int]:
    """Bytes with a sampled choice, and with one that follows every bin."""
    found = []
    for sampled in (True, False):
        encoder = Encoder()
        indices = shift_indices(levels, parameters, TensorChoices(), sampled=sampled)
        encoder.tensor(levels, parameters, TensorChoices(shift_indices=indices))
        found.append(len(encoder.finish()))
    return found[0], found[1]


def excess(kinds: Iterable[tuple[float, float]], seeds: int) -> float:
    """By which part tensors of these kinds are larger with a sampled choice."""
    pairs = [sizes(*each) for kind in kinds for seed in range(seeds) for each in tensors(*kind, seed)]
    return sum(sampled for sampled, _ in pairs) / sum(followed for _, followed in pairs) - 1


def main() -> None:
    """Print a line for each kind."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--seeds", type=int, default=4, help="tensors of each kind, shape and quantization [default: 4]"
    )
    options = parser.parse_args()
    for scale, zeros in KINDS:
        print(f"scale {scale:5}, {zeros:6.1%} zeros: {excess([(scale, zeros)], options.seeds):+.4%}")


if __name__ == "__main__":
    main()
