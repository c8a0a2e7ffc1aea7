"""The conformance suite of ISO/IEC 15938-18: ``python -m conformance generate | run | verify | list``."""

from __future__ import annotations

import sys

from conformance.suite.cli import main

if __name__ == "__main__":
    sys.exit(main())
