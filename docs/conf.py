"""The site that `make docs` builds of the Markdown in this repository, and of docstrings."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import nnc_core

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "NNC Suite"
author = "the authors of NNC Suite"
release = version = nnc_core.__version__

# The source is the whole repository, so that documents link to each other as they do without a site.
root_doc = "docs/index"
include_patterns = ["docs/**", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "adapters/README.md"]
include_patterns += ["conformance/suite/README.md"]

extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_mock_imports = ["flwr"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "separated"
default_role = "code"
python_display_short_literal_types = True
python_maximum_signature_line_length = 88
add_module_names = False
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = f"NNC Suite {release}"
html_extra_path = ["site"]  # the first page of the site leads to that of docs
html_copy_source = False
html_show_sphinx = False


def setup(app: Sphinx) -> None:
    """Import what packages import when it is used; autodoc sees only what is there."""
    for name in ("nnc_core", "nnc_adapters", "nnc_adapters.sharded"):
        module = importlib.import_module(name)
        vars(module).update({member: getattr(module, member) for member in module.__all__})
