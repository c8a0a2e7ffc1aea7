"""Classes and functions that make mere data, and that people put beside their weights: as ``module name``.

A pickle that refers to these is read; what it makes of them is never looked at, but for tensors inside.
"""

from __future__ import annotations

from collections.abc import Iterable


def _of(modules: Iterable[str], names: str) -> set[str]:
    return {f"{module} {name}" for module in modules for name in names.split()}


_NUMPY_TYPES = (
    "bool_ bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 intc uintc longlong ulonglong float16 float32 "
    "float64 longdouble complex64 complex128 str_ bytes_ void datetime64 timedelta64 object_"
)
_NUMPY_DTYPES = (
    "BoolDType Int8DType Int16DType Int32DType Int64DType UInt8DType UInt16DType UInt32DType UInt64DType Float16DType "
    "Float32DType Float64DType Complex64DType Complex128DType StrDType BytesDType ObjectDType LongDoubleDType "
    "DateTime64DType TimeDelta64DType VoidDType"
)
_PATHS = "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath"
_NODES = (
    "AnyNode ValueNode StringNode IntegerNode FloatNode BooleanNode EnumNode BytesNode PathNode InterpolationResultNode"
)
_LIGHTNING = ("pytorch_lightning", "lightning.pytorch", "lightning", "lightning_fabric", "lightning.fabric")

DATA = frozenset(
    _of(["builtins"], "int float str bytes bool list tuple dict object range xrange slice frozenset long unicode")
    | _of(["builtins"], "Ellipsis NotImplemented")
    | _of(["collections"], "defaultdict deque ChainMap UserDict UserList UserString")
    | _of(["UserDict"], "UserDict IterableUserDict")
    | _of(["UserList"], "UserList")
    | _of(["copyreg", "copy_reg"], "_reconstructor __newobj__")
    | _of(["types"], "SimpleNamespace MappingProxyType")
    | _of(["argparse"], "Namespace")
    | _of(["optparse"], "Values")
    | _of(["datetime"], "datetime date time timedelta timezone")
    | _of(["_io", "io"], "BytesIO")
    | _of(["zoneinfo"], "ZoneInfo ZoneInfo._unpickle")
    | _of(["decimal"], "Decimal")
    | _of(["fractions"], "Fraction")
    | _of(["uuid"], "UUID SafeUUID")
    | _of(["random"], "Random")
    | _of(["re"], "_compile")
    | _of(["pathlib", "pathlib._local"], _PATHS)
    | _of(["typing"], "Any Union Optional Dict List Tuple Set Sequence Mapping")
    | _of(["numpy", "numpy.matrixlib.defmatrix"], "matrix")
    | _of(["numpy"], f"ndarray dtype memmap record recarray {_NUMPY_TYPES}")
    | _of(["numpy.rec", "numpy.core.records", "numpy._core.records"], "record recarray")
    | _of(["numpy.ma", "numpy.ma.core"], "MaskedArray _mareconstruct")
    | _of(["numpy.dtypes"], _NUMPY_DTYPES)
    | _of(["numpy.core.multiarray", "numpy._core.multiarray"], "scalar _reconstruct")
    | _of(["numpy.core.numeric", "numpy._core.numeric"], "_frombuffer")
    | _of(["numpy.random._pickle"], "__randomstate_ctor __bit_generator_ctor __generator_ctor")
    | _of(["numpy.random.bit_generator"], "SeedSequence __pyx_unpickle_SeedSequence")
    | _of(["numpy.random._mt19937"], "MT19937")
    | _of(["numpy.random._pcg64"], "PCG64 PCG64DXSM")
    | _of(["numpy.random._philox"], "Philox")
    | _of(["numpy.random._sfc64"], "SFC64")
    | _of(["torch"], "Generator")
    | _of(["torch.torch_version"], "TorchVersion")
    | _of(["omegaconf.dictconfig"], "DictConfig")
    | _of(["omegaconf.listconfig"], "ListConfig")
    | _of(["omegaconf.base"], "Metadata ContainerMetadata Node Container")
    | _of(["omegaconf.nodes"], _NODES)
    | _of(["easydict"], "EasyDict")
    | _of(["munch"], "Munch DefaultMunch")
    | _of(["addict.addict"], "Dict")
    | _of(["box.box"], "Box")
    | _of(["box.box_list"], "BoxList")
    | _of(["yacs.config", "fvcore.common.config", "detectron2.config.config"], "CfgNode")
    | _of(["ml_collections.config_dict.config_dict"], "ConfigDict FrozenConfigDict")
    | _of(["mmengine.config.config", "mmcv.utils.config", "mmengine.config"], "Config ConfigDict")
    | _of([f"{module}.utilities.parsing" for module in _LIGHTNING], "AttributeDict")
    | _of([f"{module}.utilities.data" for module in _LIGHTNING], "AttributeDict")
)
