"""Inside a job: fit the member with the kernels instead of Amp's optimizer, and write the files that Amp writes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from ase.io import read

from amp.nft.amp_io import spec_of
from amp.nft.records import ForceRows, TrainingTask
from amp.nft.system.liveness import Heartbeat
from amp.nft.training.amp_jobs.directory import ALL_IMAGES, CHECKPOINT, REPORT, STEP, TARGETS, TASK, TRAINED, UNTRAINED
from amp.nft.training.amp_jobs.loss_table import table_of
from amp.nft.training.batched_trainer import BatchedTrainer

PERIOD = 1.0  # s between two reports of progress to the driver


def fit(calc: Any, seed: int) -> None:
    """Train this directory's member.

    Parameters
    ----------
    calc : Amp
        The user's calculator, for its settings and its log.
    seed : int
        For the initial weights.

    Raises
    ------
    TrainingConvergenceError
        The member does not meet its criteria; its best parameters are in the file that Amp uses for this case.
    """
    from amp.utilities import TrainingConvergenceError

    calc._log("amp.nft: fitting with the kernels of amp.nft; Amp's descriptor and model give the settings.")
    trainer = BatchedTrainer(spec_of(calc), threads=1, log=calc._log)
    heartbeat = Heartbeat(Path(STEP), PERIOD)
    outcome = trainer.train(_this_members_task(seed), lambda step: heartbeat.beat(steps=step.steps, loss=step.loss, distance=step.distance))
    report = outcome.reports[0]
    calc._log(table_of(report, calc.model.lossfunction.parameters["convergence"]))
    Path(REPORT).write_text(json.dumps(report.as_dict()))
    Path(TRAINED if report.converged else UNTRAINED).write_text(outcome.texts[0])
    if not report.converged:
        raise TrainingConvergenceError(report.message)


def _this_members_task(seed: int) -> TrainingTask:
    """Return all images, with this member's weights."""
    samples = Path("../training-images")
    content = json.loads((samples / TASK).read_text())
    member = int(os.path.basename(os.getcwd()))
    start = Path(CHECKPOINT)
    return TrainingTask(
        images=read(samples / ALL_IMAGES, index=":"),  # type: ignore[arg-type]
        rows=[rows and ForceRows(tuple(rows["atoms"]), tuple(rows["weights"])) for rows in content["rows"]],
        weights_mi=np.array(content["weights_mi"][member : member + 1]),
        start=[start.read_text()] if start.exists() else None,
        seed=seed,
        iteration=0,
        retry_m=content["retry_m"] and (content["retry_m"][member],),
        targets=read(samples / TARGETS, index=":"),  # type: ignore[arg-type]
    )
