"""Help in which the options of a command stand in sections."""

from __future__ import annotations

from typing import Final

import click

__all__ = ["Sectioned"]

_SECTIONS: Final = {
    "Targets": (
        "qp", "nonweight_qp", "sqnr", "bits_per_weight", "target_size", "lossless", "level", "calibrate", "rules",
        "min_sqnr",
    ),
    "Options": (),
    "Files": (
        "output", "output_dir", "recurse", "remove", "into", "force", "as_json", "as_markdown", "dry_run", "plan_file",
        "save_plan",
    ),
    "Several machines": ("sharded", "workers", "dask", "ray"),
    "What is carried": ("drop_optimizer", "drop_masked", "opaque", "strip_debug", "pruned"),
    "Coding tools": (
        "qp_density", "no_dq", "no_param_opt", "no_row_skip", "scan_order", "unary", "profile", "index_names",
    ),
    "General": ("threads", "limits", "progress", "quiet", "verbose", "config", "no_config", "help"),
}  # fmt: skip
_SECTION_OF: Final = {name: title for title, names in _SECTIONS.items() for name in names}


class Sectioned(click.Command):
    """A command with so many options that a flat list would hide the ones that matter."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under the titles of their sections, in the order of these."""
        found: dict[str, list[tuple[str, str]]] = {title: [] for title in _SECTIONS}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None:
                name = "help" if "--help" in param.opts else param.name or ""
                found[_SECTION_OF.get(name, "Options")].append(record)
        for title, records in found.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)
