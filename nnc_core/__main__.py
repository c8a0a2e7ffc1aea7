"""``python -m nnc_core FILE.nnr...``: what is in bitstreams, with nothing but the codec; ``nnc`` does more."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import nnc_core


def main(arguments: Sequence[str] | None = None) -> int:
    """List the tensors of each file; 1 if one cannot be read."""
    parser = argparse.ArgumentParser("python -m nnc_core", description="List the tensors in NNR bitstreams.")
    parser.add_argument("files", metavar="FILE.nnr", nargs="+")
    parser.add_argument("--version", action="version", version=nnc_core.__version__)
    return max(map(_listed, parser.parse_args(arguments).files))


def _listed(path: str) -> int:
    try:
        with nnc_core.open(path) as file:
            print(f"{path}:")
            for t in file.tensors.values():
                print(f"  {t.name!a}  {t.dtype} {list(t.shape)}  {t.size} bytes")
        return 0
    except (nnc_core.NncError, OSError) as error:
        print(f"error: {path}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
