"""NNEF models as engines write them: extensions, fragments, literals, items of vendors; archives of any kind."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from annex_tests.support.program import Nnc, checked
from conformance.support.shared import SHARED, shared
from nnc_adapters import registry
from nnc_adapters.nnef import NnefAdapter
from nnc_adapters.nnef.dat import HEADER_SIZE, Header, ItemType, dump

Files = dict[str, bytes]

FOLDER = SHARED / "cases" / "nnef"
RNG = np.random.default_rng(9)


def floats(*shape: int, scale: float = 0.1) -> NDArray[np.float32]:
    return (scale * RNG.standard_normal(shape)).astype(np.float32)


def dat(array: NDArray[Any]) -> bytes:
    kind = ItemType.FLOAT if array.dtype.kind == "f" else ItemType.QINT
    header = Header(array.shape, kind, 8 * array.dtype.itemsize)
    return header.pack() + bytes(dump(header, array))


def graph(body: str, before: str = "") -> bytes:
    return f"version 1.0;\n{before}\ngraph net(x) -> (y)\n{{\n    {body}\n}}\n".encode()


def put(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def files_in(path: Path) -> Files:
    if path.is_dir():
        return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}
    with tarfile.open(path) as archive:
        members = (member for member in archive if member.isfile())
        return {m.name.removeprefix("./"): archive.extractfile(m).read() for m in members}  # type: ignore[union-attr]


def tarred(files: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


@pytest.fixture
def nnc() -> Nnc:
    return checked


@pytest.fixture
def round_trip(nnc: Nnc, tmp_path: Path) -> Callable[[Path], Files]:
    """Compress, verify and restore with the command line: the files that come back."""

    def call(source: Path) -> Files:
        nnc("compress", source, "-o", tmp_path / "coded.nnr")
        nnc("verify", source, tmp_path / "coded.nnr")
        nnc("decompress", tmp_path / "coded.nnr", "-o", tmp_path / "restored")
        return files_in(tmp_path / "restored")

    return call


def sqnr(before: bytes, after: bytes) -> float:
    x, y = (np.frombuffer(data[HEADER_SIZE:], "<f4").astype(np.float64) for data in (before, after))
    noise = float(((x - y) ** 2).sum())
    return 10 * float(np.log10((x**2).sum() / noise)) if noise else np.inf


def check(before: Files, after: Files) -> None:
    """Everything but large tensors of floats is the same, and these are close."""
    assert after.keys() == before.keys()
    for name, data in before.items():
        is_float = name.endswith(".dat") and data[44:52] == bytes((32, 0, 0, 0, 0, 0, 0, 0))
        if is_float:
            assert after[name][:HEADER_SIZE] == data[:HEADER_SIZE]
            assert sqnr(data, after[name]) >= 30
        else:
            assert after[name] == data


TRACT = "extension tract_registry tract_core;\nextension tract_symbol S;"
PROPERTIES = (
    'fragment properties() -> (p: (string, tensor<scalar>)[]) { p = [("a", "b"), ("c", cast(6, to = "i64"))]; }'
)
W = "w = variable<scalar>(label = 'w', shape = [8, 16]);"
GRAPHS: dict[str, bytes] = {
    "extension": graph(f"{W} x = external(shape = [1, 16]); y = matmul(x, w, transposeB = true);", TRACT),
    "fragment first": graph(f"x = core_external(shape = [S, 16]); {W} y = matmul(x, w);", f"{TRACT}\n{PROPERTIES}"),
    "literal array": graph(
        f"x = external(shape = [1]); {W} k = [[[0.0, 0.0]]]; y = conv(x, k, w, border = 'constant');"
    ),
    "no type": graph('w = variable(shape = [8, 16], label = "w"); y = add(x, w);'),
    "by position": graph("w = variable<scalar>([8, 16], 'w'); y = add(x, w);"),
    "inside an expression": graph("y = x + 2.0 * variable<scalar>(shape = [8, 16], label = 'w') if true else x;"),
    "inside a fragment": graph(
        "y = f(x);", f"fragment f(a: tensor<scalar>) -> (b: tensor<scalar>) {{ {W} b = a * w; }}"
    ),
    "comment in Latin-1": graph(f"# Gr\xf6\xdfe\n {W} y = add(x, w);").decode().encode("latin-1"),
    "another language": graph(f"{W} y = scan(body = 'f', [for i in range_of(x) yield x[i]]); z = ?; "),
}


@pytest.mark.parametrize("kind", GRAPHS)
def test_variables_are_coded_and_the_text_is_carried_whatever_else_it_says(
    round_trip: Callable[[Path], Files], tmp_path: Path, kind: str
) -> None:
    source = put(tmp_path / "m", {"graph.nnef": GRAPHS[kind], "w.dat": dat(floats(8, 16)), "more.json": b"{}"})
    assert list(NnefAdapter().read(source).tensors) == ["w"]
    check(files_in(source), round_trip(source))


def test_labels_are_what_stands_between_the_quotes(round_trip: Callable[[Path], Files], tmp_path: Path) -> None:
    if os.name == "nt":
        pytest.skip("a backslash is not a letter of a file's name there")
    labels = [r"a\\b", r"c\d", "e'f", "onnx::g", "/h/i.0/j"]
    text = "".join(f'v{i} = variable(label = "{label}", shape = [4, 8]);' for i, label in enumerate(labels))
    files = {f"{label.removeprefix('/')}.dat": dat(floats(4, 8)) for label in labels}
    source = put(tmp_path / "m", {"graph.nnef": graph(text), **files})
    assert list(NnefAdapter().read(source).tensors) == labels
    check(files_in(source), round_trip(source))


def test_comments_are_left_behind_on_request_only(nnc: Nnc, tmp_path: Path) -> None:
    text = graph(f"# it's {'x' * 999}\n {W} y = add(x, w); # 'done\n")
    quantization = b'"w": linear_quantize(min = 0.0, max = 1.0, bits = 8); # "measured\n'
    files = {"graph.nnef": text, "graph.quant": quantization, "w.dat": dat(floats(8, 16))}
    source = put(tmp_path / "m", files)
    assert "bytes of comments were dropped" in nnc("compress", source, "-o", tmp_path / "m.nnr", "--strip-debug").output
    nnc("verify", source, tmp_path / "m.nnr", "--strip-debug")
    nnc("decompress", tmp_path / "m.nnr", "-o", tmp_path / "out")
    after = files_in(tmp_path / "out")
    assert after["graph.nnef"] == graph(f"\n {W} y = add(x, w); \n")
    assert after["graph.quant"] == b'"w": linear_quantize(min = 0.0, max = 1.0, bits = 8); \n'


# What variables are for -----------------------------------------------------------------------------------------------

CELL = """
fragment cell(x: tensor<scalar>, r: tensor<scalar>, b: tensor<scalar>) -> (y: tensor<scalar>) {
    y = tanh(matmul(x, r, transposeB = true) + b);
}
fragment layer(x: tensor<scalar>, w: tensor<scalar>, r: tensor<scalar>, b: tensor<scalar>) -> (y: tensor<scalar>) {
    z = matmul(x, w);
    y = tract_core_scan(body = "cell", scan = [("x", z, 0, 1)], full = [("r", r), ("b", b)]);
}
"""


def read(tmp_path: Path, body: str, before: str = "", **tensors: NDArray[Any]) -> Any:
    declared = "".join(f"{n} = variable<scalar>(label = '{n}', shape = {list(a.shape)}); " for n, a in tensors.items())
    files = {f"{name}.dat": dat(array) for name, array in tensors.items()}
    return NnefAdapter().read(put(tmp_path / "m", {"graph.nnef": graph(declared + body, before), **files}))


def test_roles_are_seen_through_fragments_and_loops(tmp_path: Path) -> None:
    weights = {name: floats(8, 8) for name in "wr"}
    model = read(tmp_path, "y = layer(x, w, b = b, r = r);", CELL, **weights, b=floats(1, 8, scale=1))
    assert model.model_info["parameter_type"] == {"w": "fc.weight", "r": "fc.weight"}


SENSITIVE = {
    "y = sin(x * v);": "reaches sin",
    "y = cos(matmul(v, x));": "reaches cos",
    "f = x * unsqueeze(v, axes = [0]); y = sin(concat([f, f], axis = 1));": "reaches sin",
    "y = x / (v + 0.01);": "divisor in div",
    "y = x * rcp(v);": "divisor in rcp",
    "y = x * v ^ -0.5;": "reaches pow",
    "y = floor(v) * x;": "reaches floor",
    "y = tract_core_gather(x, tract_core_cast(v, to = 'i64'));": "reaches tract_core_cast",
    "y = clamp(x, 0.0, v);": "argument of clamp",
    "y = (x - v) / s;": "subtracted before a division",
    "y = wave(v, x);": "reaches sin",
    "y = matmul(x, tract_core_cast(q, to = 'f32') * v);": "quantization scale or zero point of mul",
    "y = linear_quantize(x, -2.0, v, bits = 8);": "quantization scale or zero point of linear_quantize",
    "y = tract_matmul_of_blocks(x, q, v);": "quantization scale or zero point of tract_matmul_of_blocks",
}


@pytest.mark.parametrize("body", SENSITIVE)
def test_what_is_amplified_or_rounded_is_exact(tmp_path: Path, body: str) -> None:
    tensors = {"v": np.abs(floats(32, 1)), "s": np.abs(floats(32, 1)), "q": np.arange(64, dtype=np.int8).reshape(32, 2)}
    before = "fragment wave(a: tensor<scalar>, b: tensor<scalar>) -> (c: tensor<scalar>) { c = sin(a * b); }"
    used = {name: array for name, array in tensors.items() if re.search(rf"\b{name}\b", body)}
    assert read(tmp_path, body, before, **used).exact["v"] == SENSITIVE[body]


def test_weights_are_not_exact(tmp_path: Path) -> None:
    body = "y = sin(matmul(x, w)) / sqrt(mean_reduce(linear(x, w, b), axes = [1]) + 0.1);"
    model = read(tmp_path, body, w=floats(32, 32), b=floats(1, 32))
    assert not model.exact


# Archives -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def model() -> Files:
    label = (
        "w = variable<scalar>(label = 'a/w', shape = [40, 60]); v = variable<scalar>(label = 'v', shape = [20, 20]);"
    )
    return {
        "a/w.dat": dat(floats(40, 60)),
        "v.dat": dat(floats(20, 20)),
        "graph.nnef": graph(f"{label} y = linear(x, w) + v;"),
        "notes.txt": b"mine",
    }


COMPRESSORS = {
    "tar": bytes,
    "tgz": gzip.compress,
    "tar.gz": gzip.compress,
    "tar.bz2": bz2.compress,
    "tar.xz": lzma.compress,
}


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_archives_of_every_kind_are_read_and_written(
    round_trip: Callable[[Path], Files], nnc: Nnc, model: Files, tmp_path: Path, suffix: str
) -> None:
    source = put(tmp_path, {f"m.nnef.{suffix}": COMPRESSORS[suffix](tarred(model))}) / f"m.nnef.{suffix}"
    check(model, round_trip(source))
    nnc("decompress", tmp_path / "coded.nnr", "-o", tmp_path / f"again.nnef.{suffix}")
    check(model, files_in(tmp_path / f"again.nnef.{suffix}"))


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_an_archive_is_recognized_wherever_its_graph_is(tmp_path: Path, suffix: str) -> None:
    before = {f"{i:04}.nnr": RNG.bytes(1 << 14) for i in range(200)}
    archive = tmp_path / f"renamed.{suffix}"
    archive.write_bytes(COMPRESSORS[suffix](tarred({**before, "graph.nnef": graph("y = copy(x);")})))
    assert isinstance(registry.find(archive), NnefAdapter)


def test_an_embedded_archive_with_much_before_its_graph_is_decompressed(nnc: Nnc, model: Files, tmp_path: Path) -> None:
    model["a/w.dat"] = dat(floats(1 << 10, 400))
    model["graph.nnef"] = model["graph.nnef"].replace(b"[40, 60]", b"[1024, 400]")
    nnc("embed", put(tmp_path / "m", model), "-o", tmp_path / "e.nnef")
    embedded = files_in(tmp_path / "e.nnef")
    assert len(embedded["a/w.nnr"]) > 300_000
    more = {f"b/{i}.nnr": embedded["a/w.nnr"] for i in range(4)}
    (tmp_path / "e.nnef.tgz").write_bytes(gzip.compress(tarred({**more, **dict(sorted(embedded.items()))})))
    nnc("decompress", tmp_path / "e.nnef.tgz", "-o", tmp_path / "out")
    assert {name for name in files_in(tmp_path / "out") if name.endswith(".dat")} == {"a/w.dat", "v.dat"}


def test_a_bitstream_beside_the_tensors_is_not_an_embedded_one_and_is_mentioned(
    nnc: Nnc, model: Files, tmp_path: Path
) -> None:
    folder = put(tmp_path / "m", model)
    nnc("compress", folder / "graph.nnef")
    assert (folder / "graph.nnr").is_file()
    said = nnc("compress", folder, "-o", tmp_path / "coded.nnr").output
    assert "bitstreams in the folder of the model are carried along like any other file: graph.nnr" in said
    nnc("embed", folder, "-o", tmp_path / "embedded.nnef")
    assert files_in(tmp_path / "embedded.nnef").keys() == {"a/w.nnr", "v.nnr", "graph.nnef", "notes.txt", "graph.nnr"}


@pytest.mark.parametrize("coded", [["a/w"], ["v"], ["a/w", "v"]])
def test_archives_that_are_embedded_in_part_work_everywhere(
    nnc: Nnc, model: Files, tmp_path: Path, coded: list[str]
) -> None:
    said = nnc("embed", put(tmp_path / "m", model), "-o", tmp_path / "all.nnef").output
    assert "each tensor file (.dat) is replaced by a bitstream (.nnr)" in said
    whole = files_in(tmp_path / "all.nnef")
    assert whole.keys() == {"a/w.nnr", "v.nnr", "graph.nnef", "notes.txt"}
    kept = {f"{label}.nnr" if label in coded else f"{label}.dat" for label in ("a/w", "v")} | {
        "graph.nnef",
        "notes.txt",
    }
    files = {name: data for name, data in (whole | model).items() if name in kept}
    source = tmp_path / "part.nnef.tgz"
    source.write_bytes(gzip.compress(tarred(files)))
    nnc("decompress", source, "-o", tmp_path / "plain")
    check(model, files_in(tmp_path / "plain"))
    nnc("extract", source, "-o", tmp_path / "part.nnr")
    nnc("verify", tmp_path / "m", tmp_path / "part.nnr")
    nnc("verify", tmp_path / "m", source)
    nnc("embed", tmp_path / "part.nnr", "-o", tmp_path / "again.nnef")
    assert files_in(tmp_path / "again.nnef").keys() == whole.keys()


def test_links_inside_a_folder_are_followed(round_trip: Callable[[Path], Files], model: Files, tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "hub" / "blobs", tmp_path / "hub" / "snapshots" / "1"
    blobs.mkdir(parents=True)
    for number, (name, data) in enumerate(model.items()):
        (blobs / str(number)).write_bytes(data)
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(os.path.relpath(blobs / str(number), (snapshot / name).parent))
    (tmp_path / "link").symlink_to(snapshot)
    check(model, round_trip(tmp_path / "link"))


def test_a_graph_stands_for_the_model_around_it(
    round_trip: Callable[[Path], Files], model: Files, tmp_path: Path
) -> None:
    put(tmp_path / "m", {**model, "elsewhere.dat": b"other"})
    found = round_trip(tmp_path / "m" / "graph.nnef")
    check({name: data for name, data in model.items() if name != "notes.txt"}, found)


# The files themselves -------------------------------------------------------------------------------------------------

CASES = sorted(path.name for path in FOLDER.iterdir()) if FOLDER.is_dir() else []


@pytest.mark.parametrize("name", CASES)
def test_a_case_round_trips_and_is_small(round_trip: Callable[[Path], Files], tmp_path: Path, name: str) -> None:
    before = files_in(FOLDER / name)
    check(before, round_trip(FOLDER / name))
    size = (tmp_path / "coded.nnr").stat().st_size
    assert size <= len(zlib.compress(b"".join(before.values()), 9)) + 200


@pytest.mark.parametrize("name", ["gru_of_tract.nnef.tgz", "deconvolution_of_tract.nnef.tgz"])
def test_tract_runs_what_comes_back(round_trip: Callable[[Path], Files], tmp_path: Path, name: str) -> None:
    tract = pytest.importorskip("tract", reason="tract is not installed")
    original = shared(f"cases/nnef/{name}")
    round_trip(original)
    rng = np.random.default_rng(0)
    feed = rng.integers(0, 500, (20, 1)) if "gru" in name else rng.standard_normal((1, 3, 32, 32)).astype(np.float32)
    models = (tract.nnef().load(str(path)).into_runnable() for path in (original, tmp_path / "restored"))
    before, after = (model.run([feed])[0].to_numpy() for model in models)
    assert ((before - after) ** 2).sum() < 1e-3 * (before**2).sum()
