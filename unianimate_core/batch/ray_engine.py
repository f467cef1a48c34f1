"""Runs a batch on a Ray cluster: as many workers as there are GPUs, on however many machines."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from ..errors import InputError
from ..optional import require
from .table import Job
from .worker import Outcome, Worker

TRIALS = 3  # of a job whose worker dies: a machine that is lost, not a job that no machine can do


def run_on_ray(
    jobs: Sequence[Job], models: dict[str, Any], workers: int | None = None, address: str | None = None
) -> Iterator[Outcome]:
    """Make all videos; a worker that dies is started again, and goes on with its video after the last whole segment.

    Args:
        jobs: From `read_jobs`; their files must have the same paths on all machines.
        models: The arguments of `choose_models`, paths likewise.
        workers: How many videos are made at once; None for one a GPU, or one where there is none.
        address: Of the cluster; None for the one that Ray knows of, or a new one on this machine.

    Returns:
        What became of each job, as they end.

    Raises:
        InputError: Ray is missing, there is no cluster at the address, or it has no room for so many workers.
    """
    ray = require("ray", "the extra `ray` of this package")
    try:
        ray.init(address=address, logging_level=logging.WARNING, ignore_reinit_error=True)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(
            f"no Ray cluster at {address or 'the address that Ray knows'} ({error}): start one with `ray start --head`"
        ) from error
    try:
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0))
        room = gpus or int(resources.get("CPU", 1))
        if (workers or 1) > room:
            kind = "GPUs" if gpus else "CPUs"
            raise InputError(f"--workers {workers}: the cluster has {room} {kind}, and each worker takes one")
        count = min(len(jobs), workers or gpus or 1)
        kind = ray.remote(Worker).options(
            num_cpus=1, num_gpus=1 if gpus else 0, max_restarts=-1, max_task_retries=TRIALS - 1
        )
        idle = [kind.remote(models) for _ in range(count)]
        waiting = list(reversed(jobs))
        running: dict[Any, tuple[Any, Job]] = {}
        while waiting or running:
            while waiting and idle:
                worker, job = idle.pop(), waiting.pop()
                running[worker.make.remote(job)] = worker, job
            (ready,), _ = ray.wait(list(running), num_returns=1)
            worker, job = running.pop(ready)
            try:
                yield ray.get(ready)
            except ray.exceptions.RayTaskError as error:  # of the worker's making: it has no models, no package
                yield Outcome(job.row, str(job.output), "failed", _last(error))
            except ray.exceptions.RayError as error:
                reason = f"its worker died, {TRIALS} times at most ({_last(error)})"
                yield Outcome(job.row, str(job.output), "failed", reason)
            idle.append(worker)
    finally:
        ray.shutdown()


def _last(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]
