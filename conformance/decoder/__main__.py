"""An NNR decoder to learn from: plain Python that follows the syntax tables and pseudo-code of ISO/IEC 15938-17.

    python conformance/decoder IN.nnr OUT.npz [--state DIR] [--oob FILE]

It needs numpy only. OUT.npz gets the tensors of the model; with a state, those after the updates so far. What the
bitstream says of the model beside them is in arrays called model_info/... . Exit code 3 means that the bitstream is not
valid.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from decoder.decode import Decoder, described
from decoder.errors import InvalidError
from decoder.state import State


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bitstream", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--state", type=Path, help="the folder for what one bitstream of a set leaves for the next")
    parser.add_argument("--oob", type=Path, help="JSON with parameters that are not in the bitstream")
    options = parser.parse_args()
    state = State.load(options.state) if options.state else State()
    decoder = Decoder(state, json.loads(options.oob.read_bytes()) if options.oob else {})
    try:
        tensors = decoder.decode(options.bitstream.read_bytes())
    except InvalidError as error:
        print(f"not valid: {error}", file=sys.stderr)
        return 3
    np.savez(options.target, **tensors, **dict(described(decoder.model_info)))
    if options.state:
        state.save(options.state)
    return 0


if __name__ == "__main__":
    sys.exit(main())
