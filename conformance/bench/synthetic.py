"""Random tensors with the distributions that weights have; the same for the same seed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Tensors = dict[str, NDArray[Any]]

STEP = 6 * 2.0**-12  # of qp -38 at qp_density 2


def laplace(shape: tuple[int, ...], scale: float, seed: int = 0) -> NDArray[np.float32]:
    """Laplace-distributed values whose scale is ``scale`` steps."""
    return (np.random.default_rng(seed).laplace(size=shape) * (scale * STEP)).astype(np.float32)


def matrices() -> Tensors:
    """Tensors of two and more dimensions, none of them thin: what every scan order can be used with."""
    g = np.random.default_rng(17)
    sparse = laplace((70, 45), 6, 3) * (g.random((70, 45)) < 0.05)
    empty_rows = laplace((64, 33), 3, 4)
    empty_rows[g.random(64) < 0.6] = 0
    return {
        "fc.laplace": laplace((96, 80), 1.5, 1),
        "fc.wide_laplace": laplace((40, 70), 30, 2),
        "fc.gauss": (g.normal(size=(33, 129)) * (3 * STEP)).astype(np.float32),
        "fc.sparse": sparse.astype(np.float32),
        "fc.empty_rows": empty_rows,
        "fc.empty_rows_even": np.ascontiguousarray(np.tile(empty_rows[:, :32], (1, 3))),
        "fc.zeros": np.zeros((20, 12), np.float32),
        "conv/4d:weight": laplace((24, 16, 3, 3), 1, 5),
        "conv.depthwise": laplace((50, 1, 3, 3), 8, 6),
        "tiny": laplace((2, 2), 4, 7),
        "integers": g.integers(-40, 40, size=(30, 17), dtype=np.int32),
        "integers.large": g.integers(-(2**30), 2**30, size=(6, 5), dtype=np.int32),
    }


def vectors() -> Tensors:
    """Tensors with one row or column, and one element."""
    g = np.random.default_rng(18)
    return {
        "bias": laplace((100,), 40, 8),
        "bn.var": np.abs(g.normal(1, 0.2, size=64)).astype(np.float32),
        "row": laplace((1, 300), 2, 9),
        "column": laplace((300, 1), 2, 10),
        "one": np.array([0.125], np.float32),
        "counter": np.array([78200], np.int32),
    }


def network(weights: int = 25_000_000, seed: int = 0) -> Tensors:
    """About a hundred tensors shaped like those of a residual network with an embedding, of ``weights`` in total."""
    shapes: list[tuple[int, ...]] = [(64, 3, 7, 7), (1000, 2048), (4096, 1024)]
    for width, depth in ((64, 3), (128, 4), (256, 6), (512, 3)):
        shapes += [(width, width, 3, 3), (4 * width, width, 1, 1), (width, 4 * width, 1, 1)] * depth
    factor = (weights / sum(np.prod(shape) for shape in shapes)) ** 0.5
    shapes = [(round(shape[0] * factor), max(1, round(shape[1] * factor)), *shape[2:]) for shape in shapes]
    scales = np.random.default_rng(seed).uniform(0.3, 3, len(shapes))
    tensors: Tensors = {}
    for i, (shape, scale) in enumerate(zip(shapes, scales, strict=True)):
        tensors[f"layer{i}.weight"] = laplace(shape, scale, seed + i)
        tensors[f"layer{i}.bias"] = laplace(shape[:1], 20, seed + i)
    return tensors
