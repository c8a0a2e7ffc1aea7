"""Updates of model files: every format, exactly and with loss, in chains; wrong orders write nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from annex_tests.support.every_format import MODELS, written
from annex_tests.support.program import nnc
from nnc_adapters import registry, updates
from nnc_adapters.base import EVERYTHING, Options
from nnc_core import IntegrityError, Limits, MissingLinkError, ReplayError, UpdateOptions, WrongBaseError

EXACT = UpdateOptions(exact=True)
Tensors = dict[str, Any]


def tensors(path: Path) -> Tensors:
    """All numbers of a model."""
    model = registry.find(path).read(path, Options(Limits(), chosen=EVERYTHING, bits=True))
    return {name: np.array(model.tensors[name]) for name in model.tensors}


def changed(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Some elements changed, in the array's own type."""
    if array.dtype.kind == "b":
        return ~array
    if array.dtype.kind in "iu":
        return array ^ array.dtype.type(1)
    return (array.astype(np.float64) * (1 + 0.01 * rng.normal(size=array.shape))).astype(array.dtype)


def trained(path: Path, target: Path, seed: int = 0) -> Path:
    """The model after a step of training, in the same format."""
    adapter = registry.find(path)
    model = adapter.read(path, Options(Limits(), chosen=EVERYTHING, bits=True))
    rng = np.random.default_rng(seed)
    new = {name: changed(np.array(model.tensors[name]), rng) for name in model.tensors}
    assert model.topology is not None
    adapter.write(new, model.topology, target)
    return target


def assert_same(a: Path, b: Path) -> None:
    found, right = tensors(a), tensors(b)
    assert list(found) == list(right)
    for name, array in right.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes(), name


def content(path: Path) -> Any:
    return {p: p.read_bytes() for p in path.rglob("*") if p.is_file()} if path.is_dir() else path.read_bytes()


@pytest.fixture(params=MODELS)
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    name, files = MODELS[request.param]
    return written(name, files(), tmp_path / "source")


def test_an_exact_update_restores_every_number_of_every_format(base: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    new = trained(base, tmp_path / "new" / base.name)
    updates.diff(base, new, tmp_path / "u.nnr", EXACT)
    (tmp_path / "patched").mkdir()
    updates.patch(base, [tmp_path / "u.nnr"], tmp_path / "patched" / base.name)
    assert_same(tmp_path / "patched" / base.name, new)


def test_a_lossy_update_comes_close_in_every_format(base: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    new = trained(base, tmp_path / "new" / base.name)
    report = updates.diff(base, new, tmp_path / "u.nnr")
    (tmp_path / "patched").mkdir()
    patched = tmp_path / "patched" / base.name
    updates.patch(base, [tmp_path / "u.nnr"], patched)
    before, found, right = tensors(base), tensors(patched), tensors(new)
    assert report.tensors > 0
    for name, array in right.items():
        if array.dtype.kind in "iub":
            assert np.array_equal(found[name], array), name
        else:
            errors = [np.linalg.norm(t[name].astype(np.float64) - array.astype(np.float64)) for t in (found, before)]
            assert errors[0] <= errors[1], name


def test_counters_masks_and_whatever_else_has_bits_are_part_of_a_model(tmp_path: Path) -> None:
    def version(number: int) -> Tensors:
        rng = np.random.default_rng(number)
        return {
            "bn.num_batches_tracked": np.asarray(number, np.int64),
            "mask": rng.random((3, 5)) < 0.5,
            "seed": rng.integers(0, 2**64, 4, np.uint64),
            "ids": rng.integers(-(2**63), 2**63, 5),
            "tiny": rng.normal(size=7).astype(ml_dtypes.float8_e4m3fn),
            "wide": np.array([1e300, np.nan, number]),
            "one": np.float32([number]),
            "w": rng.normal(size=(6, 4)).astype(np.float32),
        }

    paths = [tmp_path / f"v{number}.safetensors" for number in (0, 1)]
    for number, path in enumerate(paths):
        safetensors.numpy.save_file(version(number), path)
    for options in (EXACT, UpdateOptions()):
        report = updates.diff(*paths, tmp_path / "u.nnr", options, force=True)  # type: ignore[call-arg]
        assert (report.same_structure, report.tensors) == (True, 8)
        updates.patch(paths[0], [tmp_path / "u.nnr"], tmp_path / "out.safetensors", force=True)
        found, right = tensors(tmp_path / "out.safetensors"), version(1)
        lossy = set() if options.exact else {"tiny", "one", "w"}
        for name in right.keys() - lossy:
            assert found[name].tobytes() == right[name].tobytes(), name
        if options.exact:
            assert content(tmp_path / "out.safetensors") == content(paths[1])


def test_a_checkpoint_is_updated_with_what_its_optimizer_keeps(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    network = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.BatchNorm1d(5))
    optimizer = torch.optim.Adam(network.parameters())
    paths = [tmp_path / f"v{number}.pt" for number in (0, 1)]
    for path in paths:
        optimizer.zero_grad()
        network(torch.randn(8, 6)).square().sum().backward()
        optimizer.step()
        torch.save({"model": network.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}, path)
    updates.diff(*paths, tmp_path / "u.nnr", EXACT)  # type: ignore[call-arg]
    updates.patch(paths[0], [tmp_path / "u.nnr"], tmp_path / "out.pt")
    found, right = (torch.load(path) for path in (tmp_path / "out.pt", paths[1]))
    for part in ("model", "optimizer"):
        assert str(found[part]) == str(right[part])
    for name, tensor in right["model"].items():
        assert torch.equal(found["model"][name], tensor)


@pytest.fixture
def versions(tmp_path: Path) -> Callable[[int], Path]:
    """Versions of a bfloat16 model with a counter, as safetensors."""

    def version(number: int) -> Path:
        path = tmp_path / f"v{number}.safetensors"
        weights = np.random.default_rng(0).normal(0, 0.05, (32, 24)).astype(np.float32)
        for step in range(number):
            weights = weights + np.random.default_rng(step).normal(0, 1e-4, weights.shape).astype(np.float32)
        model = {"w": weights.astype(ml_dtypes.bfloat16), "b": weights[0] * 3, "n": np.array([number], np.int64)}
        safetensors.numpy.save_file(model, path)
        return path

    return version


@pytest.mark.parametrize("exact", [True, False])
def test_a_chain_with_states_and_one_in_a_single_call_give_the_same_model(
    versions: Callable[[int], Path], tmp_path: Path, exact: bool
) -> None:
    here, names = versions(0), []
    for number in range(1, 5):
        names.append(tmp_path / f"u{number}.nnr")
        updates.diff(here, versions(number), names[-1], UpdateOptions(exact=exact), state=tmp_path / "sender")
        target = tmp_path / f"r{number}.safetensors"
        updates.patch(here, [names[-1]], target, state=tmp_path / "receiver")
        here = target
    updates.patch(versions(0), names, tmp_path / "all.safetensors")
    assert content(tmp_path / "all.safetensors") == content(here)
    if exact:
        assert content(here) == content(versions(4))


def test_a_model_may_be_a_bitstream_or_in_another_container(versions: Callable[[int], Path], tmp_path: Path) -> None:
    assert nnc("compress", versions(0), "-o", tmp_path / "base.nnr").exit_code == 0
    updates.diff(tmp_path / "base.nnr", versions(1), tmp_path / "u.nnr", EXACT)
    updates.patch(tmp_path / "base.nnr", [tmp_path / "u.nnr"], tmp_path / "patched.safetensors")
    assert_same(tmp_path / "patched.safetensors", versions(1))


def test_a_difference_in_more_than_numbers_is_said(versions: Callable[[int], Path], tmp_path: Path) -> None:
    model = safetensors.numpy.load_file(versions(1))
    safetensors.numpy.save_file(model, tmp_path / "other.safetensors", metadata={"format": "np"})
    report = updates.diff(versions(0), tmp_path / "other.safetensors", tmp_path / "u.nnr", EXACT)
    assert not report.same_structure
    done = nnc("diff", versions(0), tmp_path / "other.safetensors", "-o", tmp_path / "v.nnr")
    assert (done.exit_code, "structure" in done.output) == (0, True)
    assert "structure" not in nnc("diff", versions(0), versions(1), "-o", tmp_path / "w.nnr").output


def test_updates_in_the_wrong_order_write_nothing(versions: Callable[[int], Path], tmp_path: Path) -> None:
    for number in (1, 2, 3):
        u = tmp_path / f"u{number}.nnr"
        updates.diff(versions(number - 1), versions(number), u, EXACT, state=tmp_path / "sender")
    target, state = tmp_path / "out.safetensors", tmp_path / "receiver"
    for base, order, kind in (
        (0, (1, 3), MissingLinkError),
        (0, (2,), MissingLinkError),
        (1, (2,), MissingLinkError),
        (1, (1,), ReplayError),
        (0, (1, 1), ReplayError),
    ):
        with pytest.raises(kind) as caught:
            updates.patch(versions(base), [tmp_path / f"u{n}.nnr" for n in order], target, state=state)
        assert caught.value.file == str(tmp_path / f"u{order[-1]}.nnr")
        assert not target.exists()
        assert not state.exists()
    report = updates.patch(versions(1), [tmp_path / "u1.nnr"], target, skip_applied=True)
    assert (report.applied, report.skipped) == (0, 1)


def test_a_model_that_comes_out_wrong_as_a_whole_is_not_written(
    versions: Callable[[int], Path], tmp_path: Path
) -> None:
    update, target = tmp_path / "u.nnr", tmp_path / "out.safetensors"
    updates.diff(versions(0), versions(1), update, EXACT)
    data = update.read_bytes()
    place = data.index(b'"result":"') + len(b'"result":"')
    update.write_bytes(data[:place] + b"AAAA" + data[place + 4 :])
    with pytest.raises(IntegrityError, match="its sender has"):
        updates.patch(versions(0), [update], target, state=tmp_path / "state")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["u.nnr", "v0.safetensors", "v1.safetensors"]


def test_a_state_of_another_model_is_refused(versions: Callable[[int], Path], tmp_path: Path) -> None:
    updates.diff(versions(0), versions(1), tmp_path / "u1.nnr", EXACT, state=tmp_path / "s")
    before = content(tmp_path / "s")
    with pytest.raises(WrongBaseError):
        updates.diff(versions(0), versions(2), tmp_path / "u2.nnr", EXACT, state=tmp_path / "s")
    assert content(tmp_path / "s") == before
    assert not (tmp_path / "u2.nnr").exists()


def test_tensors_alone_go_to_safetensors_from_any_format(tmp_path: Path) -> None:
    base = written("m.pt", MODELS["pytorch"][1](), tmp_path)
    new = trained(base, tmp_path / "new.pt")
    assert nnc("diff", base, new, "-o", tmp_path / "u.nnr", "--exact").exit_code == 0
    done = nnc("patch", base, tmp_path / "u.nnr", "-o", tmp_path / "out.safetensors")
    assert done.exit_code == 0, done.output
    found = safetensors.numpy.load_file(tmp_path / "out.safetensors")
    assert {name: array.tobytes() for name, array in found.items()} == {
        name: array.tobytes() for name, array in tensors(new).items()
    }


def test_diff_patch_fold_and_chain_work_together(versions: Callable[[int], Path], tmp_path: Path) -> None:
    names = [tmp_path / f"u{n}.nnr" for n in (1, 2, 3)]
    for number, name in enumerate(names, 1):
        done = nnc("diff", versions(number - 1), versions(number), "-o", name, "--exact", "--state", tmp_path / "s")
        assert done.exit_code == 0, done.output
    listed = nnc("chain", tmp_path, "--json")
    assert [link["manifest"]["sequence"] for link in json.loads(listed.stdout)] == [1, 2, 3]
    assert nnc("fold", *names, "-o", tmp_path / "all.nnr").exit_code == 0
    for updates_ in ([tmp_path / "all.nnr"], names):
        target = tmp_path / "out.safetensors"
        assert nnc("patch", versions(0), *updates_, "-o", target, "-f").exit_code == 0
        assert content(target) == content(versions(3))


@pytest.mark.parametrize("exact", [["--exact"], []])
@pytest.mark.parametrize("bitstream", [False, True])
def test_a_whole_model_and_its_updates_become_one_bitstream(
    versions: Callable[[int], Path], tmp_path: Path, exact: list[str], bitstream: bool
) -> None:
    here = versions(0)
    if bitstream:
        nnc("compress", here, "-o", tmp_path / "base.nnr")
        nnc("decompress", tmp_path / "base.nnr", "-o", tmp_path / "base.safetensors")
        here = tmp_path / "base.safetensors"
    base, names = tmp_path / "base.nnr" if bitstream else here, []
    for number in (1, 2, 3):
        names.append(tmp_path / f"u{number}.nnr")
        nnc("diff", here, versions(number), "-o", names[-1], "--state", tmp_path / "s", *exact)
        nnc("patch", here, names[-1], "-o", tmp_path / f"p{number}.safetensors", "--state", tmp_path / "r")
        here = tmp_path / f"p{number}.safetensors"
    done = nnc("fold", base, *names, "-o", tmp_path / "whole.nnr")
    assert done.exit_code == 0, done.output
    nnc("decompress", tmp_path / "whole.nnr", "-o", tmp_path / "late.safetensors")
    assert_same(tmp_path / "late.safetensors", here)
    done = nnc("fold", *names, "-o", tmp_path / "one.nnr", *([] if exact else ["--base", base]))
    assert done.exit_code == 0, done.output
    assert nnc("patch", base, tmp_path / "one.nnr", "-o", tmp_path / "one.safetensors").exit_code == 0
    assert_same(tmp_path / "one.safetensors", here)


def test_exit_codes_tell_apart_what_is_wrong(versions: Callable[[int], Path], tmp_path: Path) -> None:
    u = [tmp_path / f"u{n}.nnr" for n in range(4)]
    for n in (1, 2, 3):
        nnc("diff", versions(n - 1), versions(n), "-o", u[n], "--exact", "--state", tmp_path / "s")
    out = tmp_path / "o.safetensors"
    gap = nnc("patch", versions(0), u[1], u[3], "-o", out)
    assert (gap.exit_code, "apply update 2 first" in gap.output) == (8, True)
    for wrong, words in (
        (("patch", versions(0), versions(1), "-o", out), "is a model, not an update; nnc diff"),
        (("patch", u[1], u[2], "-o", out), "is an update, not a model"),
        (("patch", versions(0), u[1], "-o", tmp_path / "o.onnx"), "the suffix contradicts the format"),
        (("patch", versions(0), tmp_path / "nowhere.nnr", "-o", out), "No such file"),
    ):
        done = nnc(*wrong)
        assert (done.exit_code, words in done.output) == (5, True), done.output
    assert nnc("diff", versions(0), versions(1), "-o", u[1]).exit_code == 5
    assert nnc("diff", versions(0), versions(1), "-o", u[0], "--only", "(").exit_code == 2
    assert nnc("chain", u[1], u[3]).exit_code == 1


def test_a_whole_model_is_not_an_update_without_a_word(versions: Callable[[int], Path], tmp_path: Path) -> None:
    nnc("compress", versions(1), "-o", tmp_path / "whole.nnr")
    done = nnc("patch", versions(0), tmp_path / "whole.nnr", "-o", tmp_path / "o.safetensors")
    assert done.exit_code == 5
    assert "not an update" in done.output
