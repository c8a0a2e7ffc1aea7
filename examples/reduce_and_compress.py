"""Train for a small bitstream, prune, train on, and code as coarsely as the accuracy allows.

    pip install nnc-suite[pytorch] scikit-learn
    python examples/reduce_and_compress.py

Each row has the smallest bitstream that keeps 95 % of held-out digits right, found by `nnc_core.optimize`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from digits_data import Digits, split
from torch import nn

import nnc_core
from nnc_adapters import pytorch
from nnc_core.reduction import prune_and_sparsify

GOOD_ENOUGH = 0.95
EPOCHS = 40

Term = Callable[[nn.Module], torch.Tensor]


def network() -> nn.Sequential:
    torch.manual_seed(4)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 10))


def train(net: nn.Module, data: Digits, optimizer: torch.optim.Optimizer, term: Term | None = None) -> None:
    images, labels = torch.from_numpy(data.images), torch.from_numpy(data.labels)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(labels)).split(128):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(images[chosen]), labels[chosen])
            torch.autograd.backward(loss if term is None else loss + term(net))
            optimizer.step()


def accuracy(net: nn.Module, data: Digits) -> float:
    return float((net(torch.from_numpy(data.images)).argmax(1) == torch.from_numpy(data.labels)).float().mean())


def report(name: str, net: nn.Module, data: Digits) -> None:
    state = {key: tensor.numpy() for key, tensor in net.state_dict().items()}
    measure = pytorch.evaluation(net, lambda net: accuracy(net, data), bound=GOOD_ENOUGH)
    stream = nnc_core.encode(state, plan=nnc_core.optimize(state, measure))
    kept = sum(int((array != 0).sum()) for array in state.values())
    reached = accuracy(pytorch.load(stream, net), data)
    print(f"{name:32}{len(stream):6} bytes {100 * reached:7.2f} % right, {kept} parameters other than zero")


def main() -> None:
    torch.set_num_threads(1)
    training, held_out = split()

    plain = network()
    train(plain, training, torch.optim.Adam(plain.parameters(), lr=5e-3))
    report("plain", plain, held_out)

    net = network()
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    train(net, training, optimizer, lambda net: pytorch.compressibility_loss(net) + pytorch.diversity_loss(net))
    state = {key: tensor.numpy().copy() for key, tensor in net.state_dict().items()}
    report("with loss terms", net, held_out)

    net.load_state_dict({key: torch.from_numpy(array) for key, array in state.items()})
    reduced = prune_and_sparsify(state, p=0.5, q=0.5, inputs={"3.weight": "1.weight"})
    gone = {key: reduced.pruned[key] | reduced.sparse.get(key, False) for key in reduced.pruned}
    pytorch.keep_zeros(net, optimizer, gone)
    train(net, training, optimizer)
    report("pruned, sparsified, trained on", net, held_out)


if __name__ == "__main__":
    main()
