"""A small model that is trained, and chains of updates of it."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from nnc_core import LossyOptions, UpdateEncoder, UpdateOptions

EXACT = UpdateOptions(exact=True)
OPTIONS = {
    "exact": EXACT,
    "exact, as they lie": UpdateOptions(exact=True, order="none"),
    "exact, by the model before": UpdateOptions(exact=True, order="parent"),
    "lossy": UpdateOptions(),
    "lossy, uniform": UpdateOptions(lossy=LossyOptions(dq_flag=False)),
    "lossy, sparse": UpdateOptions(lossy=LossyOptions(sparsity=0.9)),
    "lossy, rows": UpdateOptions(lossy=LossyOptions(sparsity=0.5, structured=True)),
}
Model = dict[str, np.ndarray]


def model(dtype: str = "float32", seed: int = 0) -> Model:
    rng = np.random.default_rng(seed)
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    return {
        "conv.weight": rng.normal(0, 0.1, (6, 4, 3, 3)).astype(kind),
        "fc.weight": rng.normal(0, 0.05, (24, 16)).astype(kind),
        "fc.bias": rng.normal(0, 0.5, 24).astype(kind),
        "scalar": np.asarray(rng.normal(), kind),
        "steps": np.asarray(seed, np.int64),
        "mask": rng.random((5, 7)) < 0.5,
    }


def trained(tensors: Model, seed: int, rate: float = 1e-3) -> Model:
    """The model after a step that changes about half of the weights."""
    rng = np.random.default_rng(seed)
    after = {}
    for name, array in tensors.items():
        if array.dtype.kind in "iu":
            after[name] = array + 1
        elif array.dtype.kind == "b":
            after[name] = array ^ (rng.random(array.shape) < 0.1)
        else:
            step = rate * rng.normal(size=array.shape) * (rng.random(array.shape) < 0.5)
            after[name] = (array.astype(np.float64) + step).astype(array.dtype)
    return after


def assert_equal(a: Model, b: Model) -> None:
    assert list(a) == list(b)
    for name in a:
        assert (a[name].dtype, a[name].shape) == (b[name].dtype, b[name].shape), name
        assert a[name].tobytes() == b[name].tobytes(), name


def chain_of(base: Model, length: int, options: UpdateOptions = EXACT) -> tuple[list[bytes], list[Model]]:
    """Updates of a chain, and the receiver's model before the first and after each."""
    encoder, updates, models, new = UpdateEncoder(base, options), [], [dict(base)], base
    for seed in range(length):
        new = trained(new, seed)
        updates.append(encoder.encode(new))
        encoder.commit(updates[-1])
        models.append(dict(encoder.model))
    return updates, models
