"""MiniLM-L6 as a network that makes embeddings of sentences, and sentences to calibrate and to measure it with.

The tokens are those of its vocabulary. Sentences to calibrate with come from the documentation of Python's library,
those to measure with from that of scikit-learn's data sets.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module

import torch
from sklearn import datasets
from torch import nn
from torch.nn import functional

from conformance.bench import minilm

WIDTH, HEADS, LAYERS, LONGEST = 384, 12, 6, 48
TAUGHT: tuple[str, ...] = ()
TAUGHT += ("argparse", "asyncio", "collections", "csv", "decimal", "difflib", "doctest", "email", "enum", "fractions")
TAUGHT += ("heapq", "inspect", "json", "locale", "logging", "optparse", "pickle", "random", "sched", "shlex", "shutil")
TAUGHT += ("statistics", "string", "tarfile", "textwrap", "threading", "timeit", "unittest", "zipfile", "turtle")
HELD_OUT = ("load_wine", "load_diabetes", "load_breast_cancer", "load_iris", "load_linnerud")


class MiniLM(nn.Module):
    """The network, with the names of its file."""

    def __init__(self, state: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.state = {name: tensor.clone() for name, tensor in state.items()}
        self.layers = nn.ModuleDict()
        for name, tensor in state.items():
            if tensor.ndim == 2 and name.startswith("encoder"):
                layer = nn.Linear(tensor.shape[1], tensor.shape[0])
                layer.load_state_dict({"weight": tensor, "bias": state[name.replace("weight", "bias")]})
                self.layers[name.removesuffix(".weight").replace(".", "/")] = layer

    def _dense(self, name: str, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layers[name.replace(".", "/")](x)
        return result

    def _norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(x, (WIDTH,), self.state[f"{name}.weight"], self.state[f"{name}.bias"], 1e-12)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """The embedding of one sentence (1, n)."""
        tables = (self.state[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type"))
        words, positions, types = tables
        x = self._norm("embeddings.LayerNorm", words[tokens] + positions[: tokens.shape[1]] + types[0])
        for index in range(LAYERS):
            at = f"encoder.layer.{index}"
            q, k, v = (
                self._dense(f"{at}.attention.self.{name}", x).unflatten(-1, (HEADS, -1)).transpose(1, 2)
                for name in ("query", "key", "value")
            )
            mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            x = self._norm(f"{at}.attention.output.LayerNorm", x + self._dense(f"{at}.attention.output.dense", mixed))
            inner = functional.gelu(self._dense(f"{at}.intermediate.dense", x))
            x = self._norm(f"{at}.output.LayerNorm", x + self._dense(f"{at}.output.dense", inner))
        return functional.normalize(x.mean(1))


@cache
def vocabulary() -> dict[str, int]:
    path = minilm.weights_file()
    assert path is not None
    return {word: index for index, word in enumerate(path.with_name("vocab.txt").read_text().splitlines())}


def tokens(sentence: str) -> torch.Tensor:
    words, found = vocabulary(), ["[CLS]"]
    for word in re.findall(r"[a-z0-9]+|[^\w\s]", sentence.lower()):
        begin = 0
        while begin < len(word):
            prefix = "##" if begin else ""
            ends = (e for e in range(len(word), begin, -1) if prefix + word[begin:e] in words)
            end = next(ends, 0)
            if not end:
                found.append("[UNK]")
                break
            found.append(prefix + word[begin:end])
            begin = end
    return torch.tensor([[words[each] for each in [*found[: LONGEST - 1], "[SEP]"]]])


def sentences(text: str) -> Iterator[str]:
    for each in re.split(r"(?<=[.!?])\s+|\n\s*\n", text):
        words = each.split()
        if len(words) >= 8 and sum(word.isalpha() for word in words) > 0.6 * len(words):
            yield " ".join(words)


def taught() -> list[torch.Tensor]:
    texts = []
    for name in TAUGHT:
        module = import_module(name)
        members = (value for _, value in sorted(inspect.getmembers(module)) if inspect.isclass(value))
        texts += [inspect.getdoc(each) or "" for each in (module, *members)]
    return [tokens(each) for each in dict.fromkeys(s for text in texts for s in sentences(text))]


def held_out() -> list[torch.Tensor]:
    texts = (getattr(datasets, name)().DESCR for name in HELD_OUT)
    return [tokens(each) for text in texts for each in sentences(text)]
