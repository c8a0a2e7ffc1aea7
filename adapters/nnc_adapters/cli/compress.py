"""``nnc compress``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from nnc_adapters.cli import console
from nnc_adapters.cli.batch import Job, batch_options, jobs, run
from nnc_adapters.cli.config import forget_configured
from nnc_adapters.cli.json_output import plain
from nnc_adapters.cli.options import (
    PIPE,
    any_path,
    file_path,
    force_option,
    json_option,
    limit_option,
    readable,
    reading_options,
    rule_option,
    stdout,
    talking_options,
    threads_option,
)
from nnc_adapters.cli.sections import Sectioned
from nnc_adapters.cli.workers import executor_of, worker_options
from nnc_adapters.program import give_linear_algebra_all_cores
from nnc_adapters.shared.files import about, check_free, replacing
from nnc_core.lazy import LazyModule
from nnc_core.limits import Limits
from nnc_core.planner.parameters import CodingParameters

if TYPE_CHECKING:
    from nnc_adapters import api, registry
    from nnc_core import ModelPlan, Prediction
else:
    api, registry = LazyModule("nnc_adapters.api"), LazyModule("nnc_adapters.registry")

_DEFAULT = CodingParameters()
_LISTED = 5
_TARGETS = ("qp", "nonweight_qp", "sqnr", "bits_per_weight", "target_size", "lossless")
_PROFILES = {"2022": 0, "2024": 1}
_DECISIONS = {*_TARGETS, "level", "qp_density", "no_dq", "no_param_opt", "no_row_skip", "scan_order", "unary"}
_DECISIONS |= {"profile", "index_names", "rules"}
"""Options in whose place a plan speaks."""


@click.command(cls=Sectioned)
@click.argument("sources", metavar="IN...", type=any_path, nargs=-1, required=True)
@click.option("-o", "--output", type=any_path, help="The bitstream to write, - for stdout [default: IN.nnr].")
@click.option("--qp", type=int, help="Absolute step for weights [default: relative to the model's scale].")
@click.option("--nonweight-qp", type=int, help="The same for all other tensors [default: -75 if --qp is given].")
@click.option("--sqnr", type=float, metavar="DB", help="Signal-to-noise ratio over all weights.")
@click.option("--bits-per-weight", type=float, metavar="X", help="Maximum number of bits per weight, on average.")
@click.option("--target-size", metavar="SIZE", help="Maximum size of the bitstream, such as 2.5MB or 10%.")
@click.option("--lossless", is_flag=True, help="Keep every bit of every tensor.")
@click.option(
    "--level", type=click.IntRange(1, 9), default=_DEFAULT.level, show_default=True, help="1: fast, 9: small."
)
@click.option(
    "--calibrate",
    type=file_path,
    metavar="NPZ",
    help="Inputs of an ONNX or Keras model, by name: reduces the error of its outputs.",
)
@click.option("--save-plan", type=file_path, metavar="JSON", help="Save what is decided about each tensor.")
@click.option(
    "--plan",
    "plan_file",
    type=file_path,
    metavar="JSON",
    help="Code as a saved plan says, instead of targets and coding tools; you may edit it.",
)
@click.option("--dry-run", is_flag=True, help="Predict size and error of each tensor; write nothing.")
@click.option(
    "--qp-density", type=int, metavar="N", help="The step doubles with every 2^N of qp [default: 2 with a qp, else 4]."
)
@click.option("--no-dq", is_flag=True, help="Use uniform instead of dependent quantization.")
@click.option("--no-param-opt", is_flag=True, help="Keep the adaptation rates of contexts at their defaults.")
@click.option("--no-row-skip", is_flag=True, help="Code rows of zeros like any other.")
@click.option(
    "--scan-order",
    type=click.IntRange(0, 4),
    default=_DEFAULT.scan_order,
    show_default=True,
    help="0: row by row; 1 to 4: square blocks of 8, 16, 32 or 64, with entry points.",
)
@click.option(
    "--unary",
    type=int,
    default=_DEFAULT.cabac_unary_length_minus1,
    show_default=True,
    help="cabac_unary_length_minus1 of the binarization.",
)
@click.option("--profile", type=click.Choice(list(_PROFILES)), default="2024", show_default=True, help="Edition.")
@click.option("--index-names", is_flag=True, help="Send names in one compressed list; few other decoders support that.")
@click.option("--sharded", is_flag=True, help="Write a folder with a bitstream for each file of a model.")
@worker_options
@batch_options
@rule_option
@reading_options
@threads_option
@limit_option
@force_option
@talking_options
@json_option
def compress(
    sources: tuple[Path, ...],
    output: Path | None,
    output_dir: Path | None,
    recurse: bool,
    remove: bool,
    threads: int | None,
    limits: Limits,
    force: bool,
    as_json: bool,
    dry_run: bool,
    calibrate: Path | None,
    plan_file: Path | None,
    save_plan: Path | None,
    reading: dict[str, Any],
    sharded: bool,
    workers: int | None,
    dask: str | None,
    ray: str | None,
    **coding: Any,
) -> None:
    """Compress a model into an NNR bitstream.

    IN is a model's file or folder, or - for a file from stdin. Each of several models gets its own bitstream; -r takes
    all models below folders.

    With --sharded, or with processes or other machines as workers, a folder or an index of shards becomes a folder of
    bitstreams. If that is interrupted, run the same command again to resume.
    """
    if calibrate is not None:
        give_linear_algebra_all_cores()
    if len(sources) > 1 or recurse:
        _check_one(plan_file=plan_file, save_plan=save_plan)
    plan, keep_plan = _plan(plan_file), _keeping(save_plan, force=force)
    options = {
        **reading,
        "parameters": _parameters(**forget_configured(click.get_current_context(), coding, _TARGETS)),
        "plan": plan,
        "calibrate": calibrate,
        "threads": threads,
        "limits": limits,
    }
    if dry_run:
        _predict(sources, options, keep_plan, as_json=as_json)
        return
    found = jobs(
        sources, output=output, output_dir=output_dir, recurse=recurse, remove=remove, members=registry.models_in
    )

    options |= {"keep_plan": keep_plan, "sharded": sharded, "force": force}

    def work(job: Job) -> dict[str, Any]:
        target = stdout(as_json=as_json, force=force) if str(output) == PIPE else output
        with executor_of(workers=workers, dask=dask, ray=ray) as executor:
            report = _compressed(job, target, {**options, "executor": executor})
        _tell(report, job.source if len(found) > 1 else None, calibrated=calibrate is not None, as_json=as_json)
        derived = {"percent": report.percent, "bits_per_weight": report.bits_per_weight}
        return {**plain(report), **derived}

    run(found, work, remove=remove, as_json=as_json)


def _compressed(job: Job, target: Path | BinaryIO | None, options: dict[str, Any]) -> api.CompressReport:
    with readable(job.source) as model, console.progress("compressing") as meter:
        return api.compress(model, target, folder=job.folder, meter=meter, **options)


def _tell(report: api.CompressReport, source: Path | None, *, calibrated: bool, as_json: bool) -> None:
    """Warnings, and what was done; with the name of the ``source`` where there are several."""
    if calibrated:
        console.message(_calibration(report))
    name = "" if source is None else f"{source}: "
    for warning in report.warnings:
        console.message(f"warning: {name}{warning}")
    if not as_json:
        console.message(name + _summary(report))


def _check_one(**files: Path | None) -> None:
    for name, path in files.items():
        if path is not None:
            raise click.UsageError(f"--{name.removesuffix('_file').replace('_', '-')} takes one model")


def _plan(path: Path | None) -> ModelPlan | None:
    """What a file says; a usage error beside options that say otherwise."""
    if path is None:
        return None
    context = click.get_current_context()
    for param in context.command.params:
        source = context.get_parameter_source(param.name or "")
        if param.name in _DECISIONS and source == click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--plan and {param.opts[-1]} are mutually exclusive")
    from nnc_core.coder.plan import ModelPlan

    with about(path):
        return ModelPlan.from_json(path.read_text("utf-8", errors="replace"))


def _keeping(path: Path | None, *, force: bool) -> Callable[[ModelPlan], None] | None:
    """What writes a plan to a file."""
    if path is None:
        return None
    check_free(path, force=force)

    def keep(plan: ModelPlan) -> None:
        with replacing(path, force=force) as stream:
            stream.write(f"{plan.to_json()}\n".encode())

    return keep


def _predict(
    sources: tuple[Path, ...], options: dict[str, Any], keep_plan: Callable[[ModelPlan], None] | None, *, as_json: bool
) -> None:
    if len(sources) > 1:
        raise click.UsageError("--dry-run takes one model")
    with readable(sources[0]) as model:
        plan, predictions = api.predict(model, **options)
    if keep_plan is not None:
        keep_plan(plan)
    _show_prediction(plan, predictions, as_json=as_json)


def _calibration(report: api.CompressReport) -> str:
    known, others = len(report.calibrated), report.uncalibrated
    listed = ", ".join(map(console.printable, others[:_LISTED])) + (", ..." if len(others) > _LISTED else "")
    rest = f"; the inputs of {len(others)} are not known: {listed}" if others else ""
    return f"calibrated {known} of {known + len(others)} weights{rest}"


def _show_prediction(plan: ModelPlan, predictions: dict[str, Prediction], *, as_json: bool) -> None:
    if as_json:
        tensors = {name: {**asdict(plan.tensors[name]), **each._asdict()} for name, each in predictions.items()}
        console.print_json({"qp_density": plan.qp_density, "tensors": tensors})
        return
    from nnc_core.coder.plan import Method

    table = console.table("~tensor", "method", ">qp", ">bytes", ">SQNR dB", "~reason")
    for name, (size, sqnr) in predictions.items():
        tensor = plan.tensors[name]
        qp = str(tensor.qp) if tensor.method in (Method.QUANTIZED, Method.CODEBOOK) else ""
        quality = "exact" if tensor.exact else f"{sqnr:.1f}"
        table.add_row(console.printable(name), tensor.method.value, qp, str(size), quality, tensor.reason)
    console.print_table(table)
    console.message(f"about {sum(size for size, _ in predictions.values())} bytes of tensors")


def _parameters(
    *,
    no_dq: bool,
    no_param_opt: bool,
    no_row_skip: bool,
    unary: int,
    profile: str,
    index_names: bool,
    **same_names: Any,
) -> CodingParameters:
    try:
        return CodingParameters(
            dq_flag=not no_dq,
            param_opt_flag=not no_param_opt,
            row_skip_enabled_flag=not no_row_skip,
            cabac_unary_length_minus1=unary,
            general_profile_idc=_PROFILES[profile],
            indexed_reference_flag=index_names,
            **same_names,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _summary(report: api.CompressReport) -> str:
    density = "" if report.bits_per_weight is None else f" at {report.bits_per_weight:.3f} bits"
    return (
        f"{report.bytes_before} to {report.bytes_after} bytes ({report.percent:.2f} %), "
        f"{console.counted(report.tensors, 'tensor')}, {report.weights} weights{density}, {report.seconds:.2f} s"
    )
