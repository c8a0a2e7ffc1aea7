"""``python -m nnc_adapters``: the program ``nnc``."""

from __future__ import annotations

from nnc_adapters.program import main

if __name__ == "__main__":
    main()
