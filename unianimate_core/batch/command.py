"""The command `unianimate batch`."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from ..animate_options import AnimateOptions
from ..console import note
from ..errors import InputError
from ..model_options import CheckpointOption, ClipOption, DeviceOption, DTypeOption, VaeOption, choose_models
from ..output import check_output, replacing
from .table import Job, read_jobs
from .worker import Outcome, Worker, is_finished


class Engine(str, Enum):
    """Where the videos are made."""

    local = "local"
    ray = "ray"


def batch(
    jobs: Annotated[
        Path,
        typer.Argument(
            help="Table of jobs, .csv or .json: reference, motion and output in each row, and any other option of "
            "`unianimate animate` as a further column. Files are relative to the table's folder."
        ),
    ],
    checkpoint: CheckpointOption = None,
    vae: VaeOption = None,
    clip: ClipOption = None,
    dtype: DTypeOption = None,
    device: DeviceOption = None,
    report: Annotated[Path | None, typer.Option(help="Also write the report at the end as .csv or .json.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make existing videos anew, too.")] = False,
    engine: Annotated[Engine, typer.Option(help="This process, or a Ray cluster (`ray start --head`).")] = Engine.local,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Videos made at once on Ray.", show_default="one a GPU, or one without any"),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Of the Ray cluster.", show_default="one that runs, or a new one here")
    ] = None,
) -> None:
    """Make many videos from a table.

    A video that is there is skipped, one that was begun is gone on with, and none that fails stops the others. The exit
    code is 1 where one failed.
    """
    models = {"checkpoint": checkpoint, "vae": vae, "clip": clip}
    models = {name: path and path.absolute() for name, path in models.items()} | {"dtype": dtype, "device": device}
    table = read_jobs(jobs.absolute(), AnimateOptions, {**models, "overwrite": overwrite})
    if engine is Engine.local and (workers is not None or address is not None):
        raise InputError("--workers and --address are for --engine ray: add it, or leave them out")
    if report is not None:
        check_output(report, (".csv", ".json"), overwrite)
    if engine is Engine.local:
        choose_models(**models)  # checked before the first job; loaded with it

    waiting, skipped, bad = _sorted(table)
    note(f"{jobs}: {len(waiting)} videos to make, {len(skipped)} there already, {len(bad)} that cannot be made.")
    outcomes = [*skipped, *bad]
    for outcome in bad:
        _tell(outcome, len(table))
    try:
        for outcome in _make(waiting, models, engine, workers, address):
            outcomes.append(outcome)
            _tell(outcome, len(table))
    finally:
        outcomes.sort(key=lambda outcome: outcome.row)
        if report is not None:
            _write(outcomes, report)
        _show(outcomes)
    if any(outcome.state == "failed" for outcome in outcomes):
        raise typer.Exit(1)


def _sorted(table: list[Job]) -> tuple[list[Job], list[Outcome], list[Outcome]]:
    """Jobs to do, those that are done, those that cannot be."""
    waiting, skipped, bad = [], [], []
    for job in table:
        if job.problem:
            bad.append(Outcome(job.row, str(job.output), "failed", job.problem))
        elif is_finished(job):
            skipped.append(Outcome(job.row, str(job.output), "skipped"))
        else:
            waiting.append(job)
    return waiting, skipped, bad


def _make(
    jobs: list[Job], models: dict[str, Any], engine: Engine, workers: int | None, address: str | None
) -> Iterator[Outcome]:
    if engine is Engine.ray and jobs:
        from .ray_engine import run_on_ray

        yield from run_on_ray(jobs, models, workers, address)
        return
    worker = Worker(models)
    for number, job in enumerate(jobs, start=1):
        note(f"Job {job.row}, {number} of {len(jobs)}: {job.output}")
        yield worker.make(job)


def _tell(outcome: Outcome, jobs: int) -> None:
    reason = f": {outcome.reason}" if outcome.reason else f" in {outcome.seconds:.0f} s"
    note(f"Job {outcome.row} of {jobs} {outcome.state}{reason}")


def _show(outcomes: list[Outcome]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("job", "video", "", "seconds", "reason")
    for outcome in outcomes:
        seconds = f"{outcome.seconds:.0f}" if outcome.seconds else ""
        cells = str(outcome.row), outcome.output, outcome.state, seconds, outcome.reason
        table.add_row(*map(Text, cells))  # not as markup: names may have brackets
    Console(stderr=True).print(table)
    counts = Counter(outcome.state for outcome in outcomes)
    note(", ".join(f"{counts[state]} {state}" for state in ("done", "skipped", "failed")))


def _write(outcomes: list[Outcome], report: Path) -> None:
    rows = [asdict(replace(outcome, seconds=round(outcome.seconds, 1))) for outcome in outcomes]
    with replacing(report) as partial:
        if report.suffix.lower() == ".json":
            partial.write_text(json.dumps(rows, indent=1), encoding="utf-8")
        else:
            with partial.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, rows[0])
                writer.writeheader()
                writer.writerows(rows)
