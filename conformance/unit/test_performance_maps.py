"""Performance maps: dictionaries to parameter sets and back, and all readings of the counts."""

from __future__ import annotations

from dataclasses import fields, replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.support import every_unit
from conformance.support.every_unit import ALL_MAPS, LAYER, made
from nnc_core.bitstream import Bitstream
from nnc_core.coder.performance_maps import parameter_set_fields, performance_maps
from nnc_core.errors import BitstreamError, ModelError
from nnc_core.syntax import ModelParameterSet, SyntaxContext, nnr_model_parameter_set_payload, sample
from nnc_core.syntax.layer_parameter_set import LayerParameterSet, nnr_layer_parameter_set
from nnc_core.syntax.performance_maps import MAP_COUNTS, MapCounts

MAP_NAMES = ("sparsification", "pruning", "unification", "decomposition")


def maps_in(record: ModelParameterSet | LayerParameterSet) -> dict[str, Any]:
    names = {f.name for f in fields(record)}
    return {name: getattr(record, name) for name in names if name.endswith("performance_map")}


@pytest.mark.parametrize("counts", MAP_COUNTS)
def test_all_maps_are_read_whatever_their_counts_say(counts: MapCounts) -> None:
    data = made(
        lambda w: w.layer_parameter_set(replace(LAYER, map_counts=counts)), replace(ALL_MAPS, map_counts=counts)
    )
    bitstream = Bitstream(data)
    assert bitstream.mps == replace(ALL_MAPS, map_counts=counts)
    assert bitstream.units[2].header == replace(LAYER, map_counts=counts)


def test_counts_are_written_as_known_decoders_read_them() -> None:
    """The bytes of a map that a known decoder has accepted (two entries, count 3)."""
    mps = ModelParameterSet(
        mps_sparsification_flag=True,
        mps_quantization_method_flags=1,
        mps_qp_density=2,
        mps_quantization_parameter=0,
    )
    entry: Any = type(every_unit.SPARSIFICATION[0])
    classes = ((5, (0.7, 0.6)), (200, (0.5,)))
    entries = zip((0.1, 0.2), (0.5, 0.25), (0.9, 0.8), classes, strict=True)
    mps.sparsification_performance_map = tuple(
        entry(*numbers, mask, accuracies) for *numbers, (mask, accuracies) in entries
    )
    data = made(lambda w: None, mps, general_profile_idc=0)
    assert data[4:] == bytes.fromhex(
        "0031064100400003cdcccc3d0000003f6666663f0285 3333333f9a99193fcdcc4c3e0000803ecdcc4c3f0152 0000000fe0"
    )


def test_a_map_with_too_many_entries_is_refused() -> None:
    data = bytearray(made(lambda w: None, replace(ALL_MAPS)))
    place = data.index(b"\x03\x00\x00\x00\x3f")  # the count, and the first threshold
    data[place] = 200
    with pytest.raises(BitstreamError) as caught:
        Bitstream(bytes(data))
    assert caught.value.rule.id == "performance-maps-size"


@settings(max_examples=40, deadline=None)
@given(source=st.randoms(use_true_random=True))
def test_dictionaries_say_all_that_the_maps_of_a_parameter_set_say(source: Random) -> None:
    mps = sample(lambda s, p: nnr_model_parameter_set_payload(s, p, SyntaxContext()), ModelParameterSet, source)
    again = replace(mps, **parameter_set_fields(performance_maps(mps)))
    assert maps_in(again) == maps_in(mps)
    assert again == mps


@settings(max_examples=20, deadline=None)
@given(source=st.randoms(use_true_random=True))
def test_the_same_holds_for_a_layer(source: Random) -> None:
    lps = sample(lambda s, p: nnr_layer_parameter_set(s, p, SyntaxContext()), LayerParameterSet, source)
    assert replace(lps, **parameter_set_fields(performance_maps(lps), layer=True)) == lps


def test_counts_in_a_dictionary_are_those_of_its_lists() -> None:
    maps = performance_maps(ALL_MAPS)
    assert list(maps) == list(MAP_NAMES)
    assert maps["sparsification"]["count_thresholds"] == 2
    assert maps["sparsification"]["count_classes"] == [2, 1]
    assert maps["pruning"]["count_pruning_ratios"] == 2
    assert maps["unification"]["super_block_dimensions"] == [[8, 3], []]
    assert maps["decomposition"]["nn_class_accuracy"] == [[0.5, 0.125, 0.25], []]


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        ({"speed": {}}, "no performance map 'speed'"),
        ({"pruning": {"count_pruning_ratios": 3, "pruning_ratio": [0.5], "nn_accuracy": [0.5]}}, "there are 1"),
        ({"pruning": {"pruning_ratio": [0.5, 0.25], "nn_accuracy": [0.5]}}, "nn_accuracy .* 1 entries, expected 2"),
    ],
)
def test_lists_that_do_not_fit_together_are_refused_by_name(maps: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        parameter_set_fields(maps)


def test_a_layer_has_no_decomposition_map() -> None:
    with pytest.raises(ModelError, match="decomposition"):
        parameter_set_fields({"decomposition": {}}, layer=True)
