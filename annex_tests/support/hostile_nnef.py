"""What tests of hostile NNEF archives have in common."""

from __future__ import annotations

import io
import tarfile
import zipfile

import numpy as np
from hypothesis import HealthCheck, settings

from nnc_adapters.nnef.dat import Header
from nnc_core.tables.code_points import TopologyStorageFormat

NNEF = TopologyStorageFormat.NNR_TPL_NNEF
QUICK = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
SLOW = settings(QUICK, max_examples=20)  # a process for each
WEIGHT = Header((4, 5)).pack() + np.arange(20, dtype="<f4").tobytes()
EXTENSIONS = "version 1.0;\nextension KHR_enable_fragment_definitions;\nextension KHR_enable_operator_expressions;\n"


def text_of(*labels: str, body: str = "y = copy(x);", start: str = "version 1.0;\n") -> bytes:
    variables = [f"v{i} = variable<scalar>(shape = [4, 5], label = '{label}');" for i, label in enumerate(labels)]
    lines = ["graph g(x) -> (y) {", "x = external<scalar>(shape = [1, 5]);", *variables, body, "}"]
    return (start + "\n".join(lines)).encode()


def tar_of(*members, **kinds) -> bytes:
    """A tar archive of members (name, data); ``kinds`` are the types and links of further ones."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name, (kind, link) in kinds.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            archive.addfile(info)
    return stream.getvalue()


def zip_of(*members, method=zipfile.ZIP_STORED) -> bytes:
    """A zip archive of members (name, data), where a name may be all that a member says of itself."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members:
            # a mere name would come with the time of day
            archive.writestr(zipfile.ZipInfo(name) if isinstance(name, str) else name, data, method)
    return stream.getvalue()


GOOD = (("graph.nnef", text_of("w")), ("w.dat", WEIGHT))
