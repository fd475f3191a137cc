"""Report on a run: one HTML page, the same figures as files, and the verdict in words."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from amp.nft.errors import RunStoreError
from amp.nft.report.checks import Checks, Comparison, check
from amp.nft.report.truth import read_truth
from amp.nft.report.verdict import Verdict, judge
from amp.nft.run.history import Run, read_run
from amp.nft.system import files

__all__ = ["Checks", "Comparison", "Run", "Verdict", "check", "judge", "read_run", "report", "write_figures"]


def report(
    directory: str | os.PathLike[str],
    output: str | os.PathLike[str] = "report.html",
    *,
    figures: str | os.PathLike[str] | None = None,
    truth: Any = None,
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
    from amp.nft.report import figures as drawing
    from amp.nft.report import view3d
    from amp.nft.report.page import page

    run = read_run(directory)
    checks = check(run, read_truth(truth, run))
    verdict = judge(run, checks)
    drawn = {}
    for name, figure in drawing.draw_figures(run, checks):
        drawn[name] = drawing.svg(figure)
        if figures is not None:
            Path(figures).mkdir(parents=True, exist_ok=True)
            drawing.save(figure, Path(figures) / name)
    scenes = {number: view3d.scene(run, number) for number in drawing.most_uncertain(run)} if run.steps else {}
    text = page(run, verdict, drawn, scenes, view3d.script() if scenes else "")
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
    from amp.nft.report import figures as drawing

    run = read_run(directory)
    if not run.steps:
        raise RunStoreError(f"{os.fspath(directory)} has no finished iteration yet: wait for the first one.")
    Path(output).mkdir(parents=True, exist_ok=True)
    names = []
    for name, figure in drawing.draw_figures(run, check(run, None)):
        drawing.save(figure, Path(output) / name)
        names.append(name)
    return names
