"""Train the digits network and export it as ``digits.onnx``.

The result is part of the repository, so nobody needs to run this. To run it all the same, in an environment of its own:

    pip install torch==2.13.0 onnx onnxscript scikit-learn
    python examples/train_digits.py

The seed is fixed, as is the number of threads. The export keeps the batch normalizations as nodes of their own:
their parameters are what the folding tool of ISO/IEC 15938-17 works on.
"""

from __future__ import annotations

from pathlib import Path

import torch
from digits_data import SEED, Digits, split
from torch import nn

TARGET = Path(__file__).with_name("digits.onnx")
EPOCHS = 40
BATCH = 64


class DigitsNet(nn.Module):
    """Conv, BN, conv, BN, dense, dense: 38 thousand parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(32)
        self.pool = nn.MaxPool2d(2)
        self.hidden = nn.Linear(32 * 4 * 4, 64)
        self.out = nn.Linear(64, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the logits (n, 10) of images (n, 1, 8, 8)."""
        x = torch.relu(self.bn1(self.conv1(image)))
        x = self.pool(torch.relu(self.bn2(self.conv2(x))))
        return self.out(torch.relu(self.hidden(x.flatten(1))))


def train(net: DigitsNet, data: Digits) -> None:
    images, labels = torch.from_numpy(data.images), torch.from_numpy(data.labels)
    steps = EPOCHS * -(-len(labels) // BATCH)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    net.train()
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(labels)).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images[batch]), labels[batch]).backward()
            optimizer.step()
            schedule.step()


def accuracy(net: DigitsNet, data: Digits) -> float:
    net.eval()
    with torch.no_grad():
        guesses = net(torch.from_numpy(data.images)).argmax(1)
    return float((guesses.numpy() == data.labels).mean())


def export(net: DigitsNet, target: Path) -> None:
    net.eval()
    torch.onnx.export(
        net,
        (torch.zeros(1, 1, 8, 8),),
        str(target),
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "n"}, "logits": {0: "n"}},
        opset_version=17,
        do_constant_folding=False,
        training=torch.onnx.TrainingMode.PRESERVE,  # the default folds each batch normalization into its convolution
        dynamo=False,
    )


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    training, held_out = split()
    net = DigitsNet()
    train(net, training)
    export(net, TARGET)
    parameters = sum(p.numel() for p in net.parameters())
    share = 100 * accuracy(net, held_out)
    print(f"{TARGET.name}: {parameters} parameters, {share:.2f} % on {len(held_out.labels)} images")


if __name__ == "__main__":
    main()
