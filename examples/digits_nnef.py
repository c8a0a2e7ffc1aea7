"""The digits network as an NNEF archive, with the weights of ``digits.onnx``.

    python examples/digits_nnef.py digits.nnef.tgz

Labels are the names in the ONNX model, so the two can be compared; vectors have a first dimension of 1, as NNEF wants.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from nnc_adapters.nnef import NnefAdapter
from nnc_core import Topology
from nnc_core.tables.code_points import TopologyStorageFormat

SOURCE = Path(__file__).with_name("digits.onnx")

_BODY = """
    conv1 = conv(image, conv1_weight, conv1_bias, padding = [(1, 1), (1, 1)]);
    bn1 = batch_normalization(conv1, bn1_running_mean, bn1_running_var, bn1_bias, bn1_weight, epsilon = 1e-5);
    relu1 = relu(bn1);
    conv2 = conv(relu1, conv2_weight, conv2_bias, padding = [(1, 1), (1, 1)]);
    bn2 = batch_normalization(conv2, bn2_running_mean, bn2_running_var, bn2_bias, bn2_weight, epsilon = 1e-5);
    relu2 = relu(bn2);
    pool = max_pool(relu2, size = [1, 1, 2, 2], stride = [1, 1, 2, 2], padding = [(0, 0), (0, 0), (0, 0), (0, 0)]);
    flat = reshape(pool, shape = [0, -1]);
    hidden = linear(flat, hidden_weight, hidden_bias);
    relu3 = relu(hidden);
    logits = linear(relu3, out_weight, out_bias);
"""


def weights() -> dict[str, NDArray[np.float32]]:
    """The weights by name, vectors with a first dimension of 1."""
    tensors = onnx.load(SOURCE).graph.initializer
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in tensors}
    return {name: array[np.newaxis] if array.ndim == 1 else array for name, array in arrays.items()}


def graph(shapes: dict[str, tuple[int, ...]], images: int = 1) -> str:
    """The text of graph.nnef, for so many images at once."""
    variables = [
        f"    {name.replace('.', '_')} = variable<scalar>(shape = {list(shape)}, label = '{name}');"
        for name, shape in shapes.items()
    ]
    image = f"    image = external<scalar>(shape = [{images}, 1, 8, 8]);"
    return "\n".join(("version 1.0;\n", "graph digits(image) -> (logits)\n{", image, *variables)) + _BODY + "}\n"


def write(target: Path, images: int = 1) -> None:
    """Write the archive: a folder, or a tar or zip file, as the name says."""
    arrays = weights()
    text = graph({name: array.shape for name, array in arrays.items()}, images)
    NnefAdapter().write(arrays, Topology(TopologyStorageFormat.NNR_TPL_NNEF, text.encode()), target)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
