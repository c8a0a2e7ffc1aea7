"""The trace of a PyTorch module: it runs once, and every function that it calls is looked at.

This needs PyTorch, and the module; a state dict alone has no network in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from nnc_adapters.convert.described import Described
from nnc_adapters.convert.torch_functions import HANDLERS
from nnc_adapters.convert.torch_recorder import Recorder, tensors_in

__all__ = ["describe_module"]


def describe_module(module: Any, inputs: Sequence[Any], names: Mapping[str, str], *, joint: bool) -> Described:
    """Run ``module`` on ``inputs``; its tensors are called by ``names``. ``joint`` takes the projections of
    self-attention as one matrix."""
    recorder = Recorder(module.eval(), names, HANDLERS, joint)
    values = [recorder.name(tensor, recorder.result.trace.input(tuple(tensor.shape))) for tensor in inputs]
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), recorder:
            found = module(*values)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    for tensor in tensors_in(found):
        recorder.result.trace.result(recorder.value(tensor))
    return recorder.result
