"""Three small networks on data that scikit-learn brings: what does compression at the default settings cost them?

    python examples/accuracy_by_task.py

Each network is trained ten times, each time without another tenth of the data, and measured with that tenth before and
after. So the accuracies count an answer to every item of the data.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.model_selection import StratifiedKFold
from torch import nn

import nnc_adapters.pytorch

EPOCHS = 25
BATCH = 60  # leaves no batch of one, which cannot be normalized


class Dense(nn.Module):
    """Measurements of cells to a diagnosis: three layers, normalized over the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm1d(30), nn.Linear(30, 96), nn.ReLU(), nn.Linear(96, 48), nn.BatchNorm1d(48), nn.ReLU()
        )
        self.out = nn.Linear(48, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (n, 2) of measurements (n, 30)."""
        return self.out(self.layers(x))


class Recurrent(nn.Module):
    """An image of a digit, row after row, through a GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(8, 64, batch_first=True, bidirectional=True)
        self.out = nn.Linear(128, 10)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Logits (n, 10) of images (n, 8, 8)."""
        return self.out(self.gru(rows)[0].mean(1))


class Attention(nn.Module):
    """An image of a digit, whose rows attend to each other, in two layers of a transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 48)
        self.place = nn.Parameter(torch.randn(8, 48) / 10)
        layer = nn.TransformerEncoderLayer(48, 4, 96, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.out = nn.Linear(48, 10)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Logits (n, 10) of images (n, 8, 8)."""
        return self.out(self.layers(self.embed(rows) + self.place).mean(1))


Data = tuple[NDArray[np.float32], NDArray[np.int64]]


def cells() -> Data:
    inputs, labels = load_breast_cancer(return_X_y=True)
    return inputs.astype(np.float32), labels.astype(np.int64)


def digits() -> Data:
    pixels, labels = load_digits(return_X_y=True)
    return (pixels.reshape(-1, 8, 8) / 16).astype(np.float32), labels.astype(np.int64)


@dataclass(frozen=True)
class Task:
    """A network, and what it learns."""

    name: str
    network: Callable[[], nn.Module]
    data: Callable[[], Data]


TASKS = (
    Task("dense, cells", Dense, cells),
    Task("recurrent, rows of digits", Recurrent, digits),
    Task("attention, rows of digits", Attention, digits),
)


def train(network: nn.Module, inputs: torch.Tensor, labels: torch.Tensor, epochs: int) -> None:
    steps = epochs * -(-len(labels) // BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    network.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(labels)).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(inputs[batch]), labels[batch]).backward()
            optimizer.step()
            schedule.step()
    network.eval()


@torch.no_grad()
def right(network: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> int:
    return int((network(inputs).argmax(1) == labels).sum())


def row(task: Task, folds: int, epochs: int) -> list[str]:
    """Train, compress, restore and measure a network, once for each fold."""
    inputs, labels = (torch.from_numpy(array) for array in task.data())
    before = after = answers = 0
    for fold, (own, held_out) in enumerate(StratifiedKFold(10, shuffle=True, random_state=1).split(inputs, labels)):
        if fold == folds:
            break
        torch.manual_seed(fold)
        network = task.network()
        train(network, inputs[own], labels[own], epochs)
        before += right(network, inputs[held_out], labels[held_out])
        data = nnc_adapters.pytorch.compress(network)
        restored = nnc_adapters.pytorch.load(data, task.network()).eval()
        after += right(restored, inputs[held_out], labels[held_out])
        answers += len(held_out)
    size = sum(4 * p.numel() for p in network.state_dict().values())
    shares = (100 * before / answers, 100 * after / answers)
    return [task.name, str(size), str(len(data)), f"{100 * len(data) / size:.1f} %", *(f"{s:.2f} %" for s in shares)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folds", type=int, default=10, help="how often each is trained")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = Table(title=f"{options.folds} trainings of each network, before and after coding")
    for column in ("network", "bytes", "after", "size", "accuracy", "after"):
        table.add_column(column, justify="left" if column == "network" else "right")
    for task in TASKS:
        table.add_row(*row(task, options.folds, options.epochs))
    Console().print(table)


if __name__ == "__main__":
    main()
