from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from conformance.support.shared import shared
from nnc_adapters.nnef import NnefAdapter, dat
from nnc_adapters.nnef.dat import Header, ItemType

ROOT = Path(__file__).resolve().parents[2]

Variables = Mapping[str, "tuple[Header, NDArray[Any]]"]
Tree = dict[str, bytes]


@pytest.fixture
def adapter() -> NnefAdapter:
    return NnefAdapter()


@pytest.fixture
def tree() -> Callable[[Path], Tree]:
    """The files of a folder by name."""

    def files(folder: Path) -> Tree:
        return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}

    return files


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """Writes an archive as a folder: variables by label, further statements of the graph, other files."""

    def folder(variables: Variables, *, body: str = "y = copy(x);", files: Tree | None = None, name: str = "m") -> Path:
        root = tmp_path / name
        for label, (header, array) in variables.items():
            path = root / f"{label.removeprefix('/')}.dat"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(header.pack() + bytes(dat.dump(header, array)))
        for name_, data in {"graph.nnef": text_of(variables, body).encode(), **(files or {})}.items():
            path = root / name_
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return root

    return folder


def text_of(variables: Variables, body: str) -> str:
    kinds = {ItemType.INT: "integer", ItemType.UINT: "integer", ItemType.BOOL: "logical"}
    declared = [
        f"  v{i} = variable<{kinds.get(header.item_type, 'scalar')}>(shape = {list(header.shape)}, label = '{label}');"
        for i, (label, (header, _)) in enumerate(variables.items())
    ]
    start = "version 1.0;\ngraph g(x) -> (y)\n{\n  x = external<scalar>(shape = [1, 8]);"
    return "\n".join((start, *declared, f"  {body}", "}", ""))


@pytest.fixture
def floats() -> Callable[..., tuple[Header, NDArray[Any]]]:
    """A tensor of float items, with values as weights have them."""
    generator = np.random.default_rng(17)

    def tensor(*shape: int, bits: int = 32) -> tuple[Header, NDArray[Any]]:
        return Header(shape, ItemType.FLOAT, bits), generator.normal(0, 0.1, shape).astype(f"f{bits // 8}")

    return tensor


@pytest.fixture
def everything(make: Callable[..., Path], floats: Callable[..., Any]) -> Path:
    """An archive with something of each kind."""
    rng = np.random.default_rng(5)
    variables = {
        "layer/filter": floats(8, 4, 3, 3),
        "layer/bias": floats(1, 8),
        "/half": floats(20, 3, bits=16),
        "double": floats(20, 3, bits=64),
        "scalar": (Header(()), np.float32(0.1)),
        "exponents:0": (Header((3,), ItemType.FLOAT, 64), np.array([0.1, 1e300, -0.0])),
        "quantized": (Header((40, 10), ItemType.QUINT, 8), rng.integers(0, 256, (40, 10))),
        "nibbles": (Header((3, 5), ItemType.QINT, 4), rng.integers(-8, 8, (3, 5))),
        "mask": (Header((9,), ItemType.BOOL, 1), rng.integers(0, 2, 9)),
        "flags": (Header((2, 2), ItemType.BOOL, 8), rng.integers(0, 2, (2, 2))),
        "steps": (Header((300,), ItemType.INT, 64), rng.integers(-(10**6), 10**6, 300)),
        "large": (Header((2,), ItemType.UINT, 64), np.array([2**64 - 1, 3], np.uint64)),
        "old": (Header((4,), ItemType.UINT, 32, (1, 0, 7)), np.array([-3, 0, 3, 9])),
        "none": (Header((0, 4)), np.zeros((0, 4), np.float32)),
    }
    files = {
        "graph.quant": b'"v6": linear_quantize(min = -1.0, max = 1.0, bits = 8);\n'
        b'"v7": logarithmic_quantize(max = 1.0, bits = 4);\n',
        "README.md": b"how it was made",
        "notes/empty": b"",
    }
    return make(variables, files=files)


@pytest.fixture(scope="session")
def digits_nnef() -> Any:
    """The module ``examples/digits_nnef.py``."""
    pytest.importorskip("onnx", reason="the package onnx is not installed")
    spec = importlib.util.spec_from_file_location("digits_nnef", ROOT / "examples" / "digits_nnef.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def run() -> Iterator[Callable[..., NDArray[np.float32]]]:
    """The logits of an archive in the interpreter of the NNEF tools."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("nnef_tools", reason="nnef_tools is not installed")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def logits(folder: Path, images: NDArray[np.float32]) -> NDArray[np.float32]:
        from nnef_tools.interpreter.pytorch import Interpreter

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about how it is used there
            outputs: NDArray[np.float32] = Interpreter(str(folder))([images])["logits"]
        return outputs

    yield logits
    torch.set_num_threads(threads)


@pytest.fixture
def vendor_archive() -> Path:
    return shared("models/tract_conv_q40.nnef.tgz")
