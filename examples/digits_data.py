"""scikit-learn's handwritten digits as the examples use them: one split for training and for measuring."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

SEED = 17


class Digits(NamedTuple):
    """Images are float32 (n, 1, 8, 8) in [0, 1], labels int64 (n,)."""

    images: NDArray[np.float32]
    labels: NDArray[np.int64]


def split() -> tuple[Digits, Digits]:
    """Return the training images and the held-out quarter, always the same ones."""
    pixels, labels = load_digits(return_X_y=True)
    images = (pixels.reshape(-1, 1, 8, 8) / 16).astype(np.float32)
    parts = train_test_split(images, labels.astype(np.int64), test_size=0.25, stratify=labels, random_state=SEED)
    train_images, held_out_images, train_labels, held_out_labels = parts
    return Digits(train_images, train_labels), Digits(held_out_images, held_out_labels)
