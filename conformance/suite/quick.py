"""The rows that the tests use: those of small networks, some that no small row replaces, and three trainings."""

from __future__ import annotations

from conformance.suite.rows import all_rows, selected

_RUNS = ("vgg16_uniform_qp-48_TCA_classifier_only", "vgg16_uniform_qp-48_HDSP_classifier_only", "bidir")
_LARGER = ("1.11", "1.17", "1.25")

QUICK = [
    row
    for row in selected(all_rows())
    if row.name in _LARGER or (row.small and (row.table != 2 or row.run.endswith(_RUNS)))
]
