"""What pickles of PyTorch may refer to: the globals that ``torch.load(weights_only=True)`` admits."""

from __future__ import annotations

from nnc_adapters.pytorch.views import ITEM_SIZES

__all__ = ["ALLOWED", "REBUILD", "STORAGES", "TORCHSCRIPT"]

STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "QInt8Storage": "qint8",
    "QUInt8Storage": "quint8",
    "QInt32Storage": "qint32",
    "QUInt4x2Storage": "quint4x2",
    "QUInt2x4Storage": "quint2x4",
    "UntypedStorage": "bits8",
}
_ODD_TYPES = ("bits16", "bits1x8", "bits2x4", "bits4x2", "float4_e2m1fn_x2", "quint2x4", "quint4x2")
_TYPES = {*ITEM_SIZES, *_ODD_TYPES, *(f"{sign}int{n}" for sign in ("", "u") for n in range(1, 8))}
REBUILD = "torch._utils _rebuild_"
ALLOWED = frozenset(
    {
        "_codecs encode",
        "builtins bytearray",
        "builtins complex",
        "builtins set",
        "collections Counter",
        "collections OrderedDict",
        "torch Size",
        "torch Tensor",
        "torch device",
        "torch.nn.parameter Parameter",
        "torch.serialization _get_layout",
        "torch._tensor _rebuild_from_type_v2",
        *(
            f"torch {scheme}"
            for scheme in (
                "per_channel_affine",
                "per_channel_affine_float_qparams",
                "per_channel_symmetric",
                "per_tensor_affine",
                "per_tensor_symmetric",
            )
        ),
        *(
            REBUILD + what
            for what in (
                "device_tensor_from_cpu_tensor",
                "device_tensor_from_numpy",
                "meta_tensor_no_storage",
                "nested_tensor",
                "parameter",
                "parameter_with_state",
                "qtensor",
                "sparse_tensor",
                "tensor",
                "tensor_v2",
                "tensor_v3",
                "wrapper_subclass",
            )
        ),
        *(f"torch {name}" for name in _TYPES),
        *(f"torch {name}" for name in STORAGES if name != "UntypedStorage"),
        *(f"torch.cuda {name}" for name in STORAGES if not name.startswith(("Q", "U"))),
        "torch.storage UntypedStorage",
    }
)
TORCHSCRIPT = ("__torch__.", "__torch__ ", "torch.jit._pickle ")
"""How the names of the classes begin that a TorchScript archive may define; of a script that ran, without a module."""
