"""Report on a run: one HTML page, the same figures as files, and the verdict in words."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from amp.nft.errors import RunStoreError
from amp.nft.report.checks import Checks, check, learned
from amp.nft.report.comparison import Comparison
from amp.nft.report.truth import read_truth
from amp.nft.report.verdict import Verdict, judge
from amp.nft.run.history import Run, read_run
from amp.nft.run.rounds import read_rounds
from amp.nft.system import files

__all__ = ["Checks", "Comparison", "Run", "Verdict", "check", "judge", "read_run", "report", "write_figures"]


def report(
    directory: str | os.PathLike[str],
    output: str | os.PathLike[str] = "report.html",
    *,
    figures: str | os.PathLike[str] | None = None,
    truth: Any = None,
    forces_key: str | None = None,
) -> Verdict:
    """Write a report on a run, from its files alone: during the run, after it, or on another machine.

    Parameters
    ----------
    directory : path
        The training directory, ``al-training`` for label 'al', or the directory in which it is.
    output : path
        The page, one file that opens without a network.
    figures : path, optional
        A directory for the figures as PNG and SVG.
    truth : list of Atoms, Atoms, or a file that ASE reads, optional
        The targets with the parent's true forces, where these can be had: errors are then shown on all atoms.
    forces_key : str, optional
        Name of these forces in the arrays, as ``REF_forces``; ASE's result if not given.

    Returns
    -------
    Verdict
        Judgement of the potential, with reasons and the next step; also on top of the page.

    Raises
    ------
    RunStoreError
        If there is no run, or its files are damaged.
    ValueError
        If `truth` is not the run's target, or carries no forces.

    Notes
    -----
    Predictions of central forces are made with the run's ensembles. Those of labels that an ensemble had not been trained
    on yet are independent: they are of the atoms about which it was least certain.
    """
    from amp.nft.report import view3d
    from amp.nft.report.figures import draw_charts
    from amp.nft.report.page import page

    run = read_run(directory)
    rounds = read_rounds(run.record.directory.parent)
    checks = check(run, read_truth(truth, run, forces_key))
    verdict = judge(run, checks, rounds)
    charts = draw_charts(run, checks)
    if figures is not None:
        from amp.nft.report.matplotlib_files import save_figures  # Matplotlib starts in a second: only where it is needed

        save_figures(run, charts, Path(figures))
    errors = None if checks.target is None else checks.target.errors
    scenes = {number: view3d.scene(run, number, errors) for number in view3d.most_uncertain(run)}
    text = page(run, verdict, checks, charts, scenes, view3d.script() if scenes else "", rounds, learned(rounds))
    files.write(output, text.encode())
    return verdict


def write_figures(directory: str | os.PathLike[str], output: str | os.PathLike[str]) -> list[str]:
    """Write the figures of a report as PNG and SVG.

    Parameters
    ----------
    directory : path
        The training directory, or the directory in which it is.
    output : path
        A directory for the figures.

    Returns
    -------
    list of str
        Their names.

    Raises
    ------
    RunStoreError
        If there is no run, or it has no finished iteration, or its files are damaged.
    """
    from amp.nft.report.figures import draw_charts
    from amp.nft.report.matplotlib_files import save_figures

    run = read_run(directory)
    if not run.steps:
        raise RunStoreError(f"{os.fspath(directory)} has no finished iteration yet: wait for the first one.")
    return save_figures(run, draw_charts(run, check(run, None)), Path(output))
