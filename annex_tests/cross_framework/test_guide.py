"""The commands of docs/convert.md, typed as they stand there."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from nnc_adapters.cli import main

GUIDE = (Path(__file__).parents[2] / "docs" / "convert.md").read_text("utf-8")
# exporters warn about themselves and each other
pytestmark = pytest.mark.filterwarnings("ignore")

NORMALIZED = """
import torch


def Net():
    return torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU()).eval()
"""


def blocks(section: str, language: str) -> list[str]:
    text = GUIDE.partition(f"## {section}\n")[2].partition("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def typed(block: str) -> Result:
    """The last command of a block, whose output may go to a file."""
    command, _, output = block.strip().splitlines()[-1].partition(" > ")
    result = CliRunner().invoke(main, shlex.split(command)[1:], prog_name="nnc")
    if output:
        Path(output).write_text(result.stdout)
    return result


@pytest.fixture
def made(torch: Any, keras: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the guide makes."""
    monkeypatch.chdir(tmp_path)
    network, template = blocks("PyTorch to Keras", "python")
    (tmp_path / "net.py").write_text(network)
    names: dict[str, Any] = {}
    exec(network, names)
    torch.save(names["Net"]().state_dict(), "net.pt")
    exec(template, {})
    return tmp_path


def test_from_pytorch_to_keras_with_the_module_and_with_an_answer(made: Path) -> None:
    by_module, asking, answered = blocks("PyTorch to Keras", "sh")
    result = typed(by_module)
    assert result.exit_code == 0, result.stderr
    assert "checked by running: outputs differ by" in result.stderr
    expected = (made / "net.keras").read_bytes()
    (made / "net.keras").unlink()
    (shown,) = blocks("PyTorch to Keras", "text")
    said = typed(asking)
    assert said.exit_code == 5
    assert " ".join(shown.split()).removesuffix("; ...") in said.stderr
    assert not (made / "net.keras").exists()
    assert typed(answered).exit_code == 0
    assert (made / "net.keras").read_bytes() == expected


def test_a_printed_mapping_is_used(made: Path) -> None:
    printing, using = blocks("By a mapping", "sh")
    assert typed(printing).exit_code == 0
    file = made / "map.json"
    assert '"layers/conv2d/vars/0": "conv.weight"' in file.read_text()
    assert "takes a flattened image" in typed(using).stderr  # what it asks for is not answered by printing it
    found = json.loads(file.read_text())
    file.write_text(json.dumps({**found, "flatten": found["questions"]}))
    assert typed(using).exit_code == 0


def test_folded_batch_normalization_goes_both_ways(torch: Any, made: Path) -> None:
    (made / "net.py").write_text(NORMALIZED)
    names: dict[str, Any] = {}
    exec(NORMALIZED, names)
    for name in ("net.pt", "template.pt"):
        net = names["Net"]()
        net[1].running_var.uniform_(0.5, 1.5)
        net[1].running_mean.uniform_(-1, 1)
        torch.save(net.state_dict(), name)
    torch.onnx.export(net, torch.zeros(1, 1, 8, 8), "folded.onnx", dynamo=False)
    (block,) = blocks("ONNX with folded batch normalization", "sh")
    for command in block.splitlines():
        arguments = [*shlex.split(command)[1:], "-f"]
        result = CliRunner().invoke(main, arguments, prog_name="nnc")
        assert result.exit_code == 0, result.stderr
        assert "checked by running" in result.stderr


def test_the_examples_of_python_are_python() -> None:
    for block in re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL):
        compile(block, "guide", "exec")
    assert sys.version_info >= (3, 10)
