"""The program that `nnc_adapters.nnef.parser` runs: a graph as JSON from stdin, its operations as JSON to stdout."""

from __future__ import annotations

import json
import sys
from typing import Any

_BYTES = 4 << 30


def main() -> None:
    """Parse one graph."""
    request = json.load(sys.stdin)
    sys.path[:] = request["path"]
    import nnef  # type: ignore[import-untyped]

    _limit_memory()
    try:
        graph = nnef.parse_string(request["graph"], request["quantization"])
    except nnef.Error as error:
        answer: dict[str, Any] = {"error": str(error)}
    else:
        answer = {"operations": [_described(operation) for operation in graph.operations]}
    print(json.dumps(answer))


def _limit_memory() -> None:
    try:
        import resource
    except ModuleNotFoundError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _described(operation: Any) -> dict[str, Any]:
    is_variable = operation.name == "variable"
    return {
        "name": operation.name,
        "inputs": {slot: value for slot, value in operation.inputs.items() if isinstance(value, str)},
        "outputs": [value for value in operation.outputs.values() if isinstance(value, str)],
        "label": operation.attribs["label"] if is_variable else "",
        "shape": operation.attribs["shape"] if is_variable else [],
    }


if __name__ == "__main__":
    main()
