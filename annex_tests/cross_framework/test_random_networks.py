"""Random networks of PyTorch and Keras: a few of those that ``make convert-check`` takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from annex_tests.cross_framework import random_networks

# Keras 3.15 with numpy 2.4
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


@pytest.mark.parametrize("seed", range(500, 510))
def test_weights_of_a_random_network_move_both_ways_or_are_refused_but_never_wrong(
    torch: Any, keras: Any, tmp_path: Path, seed: int
) -> None:
    for outcome in random_networks.outcomes(seed, tmp_path):
        assert outcome.result != "wrong", outcome
        assert outcome.result == "right" or "without" in outcome.way, outcome
        if outcome.result == "refused":
            assert "told apart by order alone" in outcome.reason
