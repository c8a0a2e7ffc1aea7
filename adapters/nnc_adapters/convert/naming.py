"""Names of tensors that mean the same: with a prefix, or as another framework calls them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping

from nnc_adapters.convert.network import Network, Parameter
from nnc_adapters.convert.parts import PartOf
from nnc_adapters.convert.trace import Trace

__all__ = ["equal_names", "layers", "layers_by_bias", "plain", "role_free", "same_layers"]

_PREFIX = re.compile(r"^(?:module\.|model\.|_orig_mod\.)+")
_SEPARATORS = re.compile(r"[./]+")

Pairs = dict[PartOf, PartOf]


def equal_names(source: Network, target: Network) -> Pairs:
    """Parts of tensors that have the same name and hold the same: as it is, without prefixes, as a suffix, or as
    another framework would call it."""
    found: Pairs = {}
    for key in (lambda n: n, plain):
        found = {**_by_tensor(source, target, key), **found}
    found = {**_by_suffix(source, target, found), **found}
    taken = set(found.values())
    ours, theirs = _by_layer(source), _by_layer(target)
    for layer, refs in theirs.items():
        others = ours.get(layer, [])
        if len(refs) == len(others) == 1 and refs[0] not in found and others[0] not in taken:
            found[refs[0]] = others[0]
    return found


def plain(name: str) -> str:
    """The name without what data parallelism, compilation and trainers put before it."""
    return _PREFIX.sub("", name).replace("._orig_mod.", ".")


def _by_tensor(source: Network, target: Network, key: Callable[[str], str]) -> Pairs:
    ours, theirs = (_grouped(n, key) for n in (source, target))
    pairs = [(theirs[name], ours[name]) for name in theirs if name in ours]
    return _parts([(t[0], s[0]) for t, s in pairs if len(t) == len(s) == 1])


def _grouped(network: Network, key: Callable[[str], str]) -> dict[str, list[Parameter]]:
    found: defaultdict[str, list[Parameter]] = defaultdict(list)
    for parameter in network.parameters.values():
        if parameter.fill is None:
            found[key(parameter.name)].append(parameter)
    return found


def _parts(pairs: list[tuple[Parameter, Parameter]]) -> Pairs:
    same = [(t, s) for t, s in pairs if [*map(role_free, t.parts)] == [*map(role_free, s.parts)]]
    return {PartOf(t.name, k): PartOf(s.name, k) for t, s in same for k in range(len(t.parts))}


def role_free(part: tuple[str, Hashable]) -> tuple[str, Hashable]:
    """A part without the difference between what normalization and what other layers add."""
    return (part[0].replace("shift", "bias"), part[1])


def _by_suffix(source: Network, target: Network, found: Pairs) -> Pairs:
    """Every tensor of one side is one of the other with the same prefix before its name."""
    ours = [p for p in source.parameters.values() if p.fill is None]
    theirs = [p for p in target.parameters.values() if p.fill is None]
    if found or not ours or not theirs:
        return {}
    for long, short, turn in ((ours, theirs, True), (theirs, ours, False)):
        prefixes = [p.name.removesuffix(plain(short[0].name)) for p in long if p.name.endswith(plain(short[0].name))]
        prefix = min(prefixes, key=len, default="")
        named = {p.name.removeprefix(prefix): p for p in long}
        if prefix and len(named) == len(long) and {plain(p.name) for p in short} <= named.keys():
            pairs = [(p, named[plain(p.name)]) for p in short]
            return _parts(pairs if turn else [(long_, short_) for short_, long_ in pairs])
    return {}


def layers(network: Network) -> dict[str, str]:
    """The layer of each tensor, by its name where nothing better is known."""
    return {name: network.layers.get(name) or _layer(name) for name in network.parameters}


def _layer(name: str) -> str:
    path, _, last = _SEPARATORS.sub(".", plain(name).partition(":")[0]).rpartition(".")
    recurrent = re.fullmatch(r"(?:weight|bias)_[ih]h_l(\d+)(?:_reverse)?", last)
    return f"{path}.l{recurrent[1]}" if recurrent and recurrent[1] != "0" else path


def layers_by_bias(trace: Trace) -> dict[str, str]:
    """The layers of matrices that have lost their names in an export, by the biases that follow them."""
    found: dict[str, str] = {}
    for part, reaches in trace.before.items():
        origins = {reach.origin for reach in reaches}
        layer = _layer(part.name)
        if len(origins) == 1 and layer:
            (origin,) = origins
            if isinstance(origin, PartOf) and not _layer(origin.name):
                found[origin.name] = layer
    return found


def _by_layer(network: Network) -> dict[Hashable, list[PartOf]]:
    names = layers(network)
    found: defaultdict[Hashable, list[PartOf]] = defaultdict(list)
    for parameter in network.parameters.values():
        layer = re.sub(r"[./_]+", ".", names[parameter.name])
        for place, part in enumerate(parameter.parts):
            if layer:
                found[layer, role_free(part), _beside(parameter, place)].append(PartOf(parameter.name, place))
    return found


def _beside(parameter: Parameter, place: int) -> int:
    """Which of several parts that look alike in one tensor this is."""
    return parameter.parts[:place].count(parameter.parts[place])


def same_layers(source: Network, target: Network, pairs: Mapping[PartOf, PartOf]) -> Pairs:
    """Parts that are alone with their role and shape in layers of which others are paired already."""
    ours, theirs = layers(source), layers(target)
    paired: defaultdict[str, set[str]] = defaultdict(set)
    for wanted, given in pairs.items():
        paired[theirs[wanted.name]].add(ours[given.name])
    taken = set(pairs.values())
    given_parts = _open(source, ours, taken)
    found: Pairs = {}
    for (layer, part), refs in _open(target, theirs, set(pairs)).items():
        if len(paired[layer]) == 1 and layer:
            (other,) = paired[layer]
            others = given_parts.get((other, part), [])
            if len(refs) == len(others) == 1 and other:
                found[refs[0]] = others[0]
    return found


def _open(network: Network, names: Mapping[str, str], taken: set[PartOf]) -> dict[tuple[str, Hashable], list[PartOf]]:
    found: defaultdict[tuple[str, Hashable], list[PartOf]] = defaultdict(list)
    for ref, part in network.parts().items():
        if ref not in taken:
            found[names[ref.name], role_free(part)].append(ref)
    return found
