"""Small files of PyTorch, made without it: honest ones, and such as it would never write."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections import OrderedDict

import numpy as np

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
SYSTEM = {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
WEIGHT = np.arange(20, dtype=np.float32)
DATA = WEIGHT.tobytes()


class Runs:
    """What calls ``function`` when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Reference:
    """What becomes a reference to a storage."""

    def __init__(self, key="0", elements=20, kind="torch FloatStorage", *more):
        self.id = ("storage", kind, key, "cpu", elements, *more)


class Call:
    """What becomes a call of the function ``name``."""

    def __init__(self, name, *arguments):
        self.function, self.arguments = name, arguments


class Tensor(Call):
    """What becomes a tensor."""

    def __init__(self, reference=None, offset=0, shape=(20,), strides=(1,), function="torch._utils _rebuild_tensor_v2"):
        super().__init__(function, reference or Reference(), offset, shape, strides, False, OrderedDict())


class Instance:
    """What becomes an instance of the class ``name``."""

    def __init__(self, name, **state):
        self.name, self.state = name, state


class Pickler(pickle._Pickler):
    """Writes all of these as PyTorch does, without its checks."""

    def save(self, value, save_persistent_id=True):
        if isinstance(value, Reference):
            tag, kind, *rest = value.id
            self.write(pickle.MARK)  # type: ignore[attr-defined]
            self.save(tag)
            self._global(kind)
            for item in rest:
                self.save(item)
            self.write(pickle.TUPLE + pickle.BINPERSID)  # type: ignore[attr-defined]
        elif isinstance(value, Call):
            self._global(value.function)
            self.save(value.arguments)
            self.write(pickle.REDUCE)  # type: ignore[attr-defined]
        elif isinstance(value, Instance):
            self._global(value.name)
            self.write(pickle.EMPTY_TUPLE + pickle.NEWOBJ)  # type: ignore[attr-defined]
            self.save(value.state)
            self.write(pickle.BUILD)  # type: ignore[attr-defined]
        else:
            super().save(value, save_persistent_id)  # type: ignore[misc]

    def _global(self, name):
        self.write(b"c" + name.replace(" ", "\n").encode() + b"\n")  # type: ignore[attr-defined]


def pickled(value, protocol=2):
    stream = io.BytesIO()
    Pickler(stream, protocol).dump(value)
    return stream.getvalue()


def archive(value, members=None, compression=zipfile.ZIP_STORED, prefix="m/", **more):
    """An archive with ``value`` as data.pkl, and a storage."""
    data = value if isinstance(value, bytes) else pickled(value)
    return zipped({"data.pkl": data, "data/0": DATA, **(members or {}), **more}, compression, prefix)


def zipped(members, compression=zipfile.ZIP_STORED, prefix="m/"):
    """An archive of these members."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as file:
        for name, content in members.items():
            member = zipfile.ZipInfo(prefix + name)
            member.compress_type = compression
            file.writestr(member, content)
    return stream.getvalue()


def zipped_large(members, prefix="m/"):
    """An archive of these members in the way in which large ones are written: with wide sizes, behind the data."""

    class Pipe(io.BytesIO):
        def seekable(self):
            return False

        def seek(self, *_):
            raise io.UnsupportedOperation

        tell = seek

    stream = Pipe()
    with zipfile.ZipFile(stream, "w") as file:
        for name, content in members.items():
            with file.open(zipfile.ZipInfo(prefix + name), "w", force_zip64=True) as member:
                member.write(content)
    data = bytearray(stream.getvalue())
    for at in (at for at in range(len(data)) if data.startswith(b"PK\1\2", at)):
        extra = struct.pack("<HHQQ", 1, 16, *struct.unpack_from("<4xII", data, at + 16)[::-1])
        (name,) = struct.unpack_from("<H", data, at + 28)
        if not struct.unpack_from("<H", data, at + 30)[0]:
            data[at + 46 + name : at + 46 + name] = extra
            data[at + 20 : at + 32] = struct.pack("<IIHH", 0xFFFFFFFF, 0xFFFFFFFF, name, len(extra))
    return with_wide_end(bytes(data))


def with_wide_end(data):
    """An archive with the numbers of its end where large ones have them."""
    end = data.rfind(b"PK\5\6")
    start = data.find(b"PK\1\2")
    count = data.count(b"PK\1\2", start)
    wide = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, end - start, start)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, end, 1)
    short = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return data[:end] + wide + locator + short


def legacy(value, keys=("0",), storages=None, system=SYSTEM, protocol=PROTOCOL):
    """A file of before there were archives."""
    head = b"".join(pickle.dumps(part, 2) for part in (MAGIC, protocol, system))
    stored = struct.pack("<Q", 20) + DATA if storages is None else storages
    return head + (value if isinstance(value, bytes) else pickled(value)) + pickle.dumps(list(keys), 2) + stored


CONFIG = {
    "config": {
        "w": {
            "path_name": "weight_0",
            "is_param": True,
            "use_pickle": False,
            "tensor_meta": {
                "dtype": 7,
                "sizes": [{"as_int": 20}],
                "strides": [{"as_int": 1}],
                "storage_offset": {"as_int": 0},
                "layout": 7,
            },
        }
    }
}


def exported(config):
    """An exported program with one weight."""
    text = config if isinstance(config, str) else json.dumps(config)
    members = {"archive_format": b"pt2", "data/weights/weight_0": DATA}
    return archive(b"", members, **{"data/weights/model_weights_config.json": text.encode()})


def safetensors(header, data=DATA, size=None):
    """A file of safetensors; ``size`` is what it says of its header instead of the truth."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if size is None else size).to_bytes(8, "little") + text + data
