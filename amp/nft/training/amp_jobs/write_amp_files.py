"""Write the files that Amp's own jobs would leave, after a training without jobs."""

from __future__ import annotations

from string import Template

from amp.nft.records import Ensemble, JobOptions, TrainingTask
from amp.nft.training.amp_jobs.directory import CONVERGED, LOG, TRAINED, TrainingDirectory
from amp.nft.training.amp_jobs.loss_table import table_of


def leave_training_directory(
    task: TrainingTask,
    outcome: Ensemble,
    *,
    options: JobOptions,
    criteria: dict[str, float | None],
) -> None:
    """Write samples, chunk ids, and for each member its job script, parameters and log.

    Parameters
    ----------
    task : TrainingTask
    outcome : Ensemble
        Result of the training.
    options : JobOptions
        The directory, and the texts of ``run.py``, Amp's own script.
    criteria : dict
        Amp's convergence dictionary, for the log.
    """
    from amp.nft.amp_io.bootstrap_texts import script

    directory = TrainingDirectory(options.directory)
    directory.lay_out(task, options.calc_text)
    text = Template(script).substitute(headerlines=options.headerlines, calc_text=options.calc_text, train_line=options.train_line)
    for report, parameters in zip(outcome.reports, outcome.texts, strict=True):
        member = directory.clear_member(report.member, None)
        (member / "run.py").write_text(text)
        (member / TRAINED).write_text(parameters)
        (member / CONVERGED).write_text(str(report.converged))
        note = f"amp.nft: trained in one process with all members. {report.message}"
        (member / LOG).write_text(f"{note}\n{table_of(report, criteria)}\n")
