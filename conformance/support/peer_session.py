"""Runs in the environment of the public codec NNCodec: codes or decodes a sequence of models that build on each other.

    python peer_session.py PEER_DRIVER JOB.json

The job says ``what`` (``encode`` or ``decode``), the ``files`` as pairs of source and target (.npz and .nnr), the
``options`` of the package's function, and whether the models are ``updates``. It prints one JSON line: sizes in bytes.
"""

import contextlib
import importlib.util
import io
import json
import sys
from pathlib import Path

import numpy as np


def main(driver, job_file):
    spec = importlib.util.spec_from_file_location("peer_driver", driver)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    peer, job = module.load_peer(), json.loads(Path(job_file).read_text())
    options = dict(job["options"])
    if job["updates"]:
        base = {"parameters": {}, "put_node_depth": {}, "device_id": 0, "parameter_id": {}}
        options.update(approx_param_base=base, update_base_param=True)
    sizes = []
    for source, target in job["files"]:
        with contextlib.redirect_stdout(io.StringIO()):
            sizes.append({"encode": encode, "decode": decode}[job["what"]](peer, source, target, options))
    print(json.dumps(sizes))


def encode(peer, source, target, options):
    with np.load(source) as archive:
        arrays = {name: archive[name] for name in archive.files}
    data = peer.compress(arrays, bitstream_path=target, return_bitstream=True, **options)
    Path(target).write_bytes(data)
    return len(data)


def decode(peer, source, target, options):
    data = bytearray(Path(source).read_bytes())
    arrays = peer.decompress(data, **options)
    np.savez(target, **{name: np.asarray(array) for name, array in arrays.items()})
    return len(data)


if __name__ == "__main__":
    main(*sys.argv[1:])
