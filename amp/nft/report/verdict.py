"""Verdict on a run in words: its state, the reasons, and the next step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from amp.nft.report.checks import Checks
from amp.nft.report.comparison import Comparison
from amp.nft.run import verdict
from amp.nft.run.history import Run, Step
from amp.nft.run.rounds import RoundRecord
from amp.nft.run.status import duration
from amp.nft.uncertainty.forces import CONFIDENCE

Grade = Literal["good", "caution", "bad", "none"]
GRADES: dict[verdict.Color, Grade] = {"green": "good", "amber": "caution", "red": "bad", "grey": "none"}
COVERED = 0.8  # of the labels that were not trained on, within the predicted uncertainty: below, it is not reliable
ENOUGH = 5  # labels from which a coverage is stated
AT_CRITERIA = 5.0  # times force_rmse: about the level of the uncertainty once all members meet their criteria
EARLY = 4  # iterations needed to see a trend
FLAT = 1.6  # the last uncertainties differ by less than this factor once they have levelled off


@dataclass(frozen=True)
class Verdict:
    """Verdict on a run, for its report.

    Attributes
    ----------
    grade : str
        'good' where random labels support it, 'caution', 'bad', or 'none' where nothing was tested.
    headline : str
        State and sentence of :class:`amp.nft.run.Verdict`.
    reasons : list of str
    advice : str
        The next step.
    """

    grade: Grade
    headline: str
    reasons: list[str]
    advice: str


def judge(run: Run, checks: Checks, rounds: Sequence[RoundRecord] = ()) -> Verdict:
    """Put a run's verdict into words, with reasons from its uncertainty, members and labels.

    Parameters
    ----------
    run : Run
    checks : Checks
    rounds : sequence of RoundRecord, optional
        Of the refinement that the run belongs to.

    Returns
    -------
    Verdict
    """
    if not run.steps:
        return Verdict("none", "UNKNOWN: no iteration is finished.", _state(run), _go_on(run))
    best, stop = run.best, run.settings.get("stop_delta", 0.0)
    largest = float(best.delta.max())
    found = run.verdict or verdict.judge(
        converged=largest < stop,
        aim=np.inf,
        errors=verdict.RandomErrors(std_i=best.delta / CONFIDENCE),
        factor=best.error95_factor,
        remedy=verdict.how_to_test(run.status.state.untrained),
    )
    reasons = [*_state(run), *_about_rounds(run, rounds), *_about_uncertainty(run, stop)]
    reasons += [*_about_members(best, _floor(run)), *_about_labels(run, checks)]
    reasons += [f"In doubt: {doubt}." for doubt in _doubts(best, checks)]
    advice = _if_converged(run, stop, largest) if largest < stop else _if_not_converged(run, rounds)
    if found.state == "FAILED":
        advice = "Rattle the target: all forces on it seem to vanish by symmetry."
    elif found.state == "UNKNOWN" and largest < stop:
        how = verdict.how_to_test(run.status.state.untrained)
        advice = f"Test it: {how}. {advice}" if run.status.state.untrained != 0 else f"{how[0].upper()}{how[1:]}. {advice}"
    return Verdict(GRADES[found.color], str(found), reasons, advice)


# -- reasons ---------------------------------------------------------------------------------------------------


def _state(run: Run) -> list[str]:
    """Say that the run is not finished, if so."""
    status = run.status
    if status.phase == "finished":
        return []
    if status.phase == "interrupted" or status.alive is False:
        return [f"The run was interrupted in iteration {status.iteration} ({status.message or status.driver})."]
    return [f"The run has not ended: {status.phase} in iteration {status.iteration}; driver: {status.driver}."]


def _about_rounds(run: Run, rounds: Sequence[RoundRecord]) -> list[str]:
    """Say which structures the uncertainty of a round of a refinement is about."""
    here = next((one for one in rounds if one.label == run.label), None)
    if here is None:
        return []
    if here.number == 0:
        return [f"It was refined: the report on {rounds[-1].label}-training shows the last of {len(rounds) - 1} rounds."]
    if not here.n_frames:
        return [
            f"Round {here.number} of a refinement that labels chunks of explored frames. Uncertainty and convergence are those on the "
            "target, not on the frames; the table of rounds shows what was learned about their chunks."
        ]
    return [f"Round {here.number} of a refinement, for the target and {here.n_frames} frames of explorations. {here.outcome}"]


def _about_uncertainty(run: Run, stop: float) -> list[str]:
    best = run.best
    above = int((best.delta >= stop).sum())
    text = f"In the best ensemble, of iteration {best.iteration} with {_counted(best.n_chunks, 'chunk')}, the uncertainty is "
    text += f"{best.delta.max():.3g} eV/Å at most and {best.delta.mean():.3g} on average"
    return [
        text
        + (
            f"; {above} of {len(best.delta)} atoms {'is' if above == 1 else 'are'} above stop_delta."
            if above
            else ", and no atom is above stop_delta."
        )
    ]


def _floor(run: Run) -> float:
    """Return the uncertainty below which the members' criteria, not missing chunks, set it; eV/Å."""
    criteria = run.settings.get("criteria") or {}
    return AT_CRITERIA * (criteria.get("force_rmse") or criteria.get("force_maxresid") or 0.0)


def _about_members(best: Step, floor: float) -> list[str]:
    """Describe the meaning of the members' residuals for the uncertainty."""
    missed = _missed(best)
    if missed:
        return [
            f"{len(missed)} of {len(best.reports)} members did not meet their training criteria (members "
            f"{', '.join(map(str, missed))}): their residuals add to the errors and to the uncertainty."
        ]
    if not best.reports:
        return []
    text = f"All {len(best.reports)} members meet their training criteria"
    if best.delta.max() > floor:
        return [text + ": the remaining uncertainty comes from environments outside the training set, and shows their places."]
    return [
        text + ", and the uncertainty has reached the size of these criteria. From here on it hardly separates good atoms from bad "
        "ones (on a platinum cluster its rank correlation with the true error fell from 0.9 to 0.2): the criteria, the fingerprints "
        "and networks, and the size of the chunks set the remaining error, not a lack of chunks."
    ]


def _about_labels(run: Run, checks: Checks) -> list[str]:
    """Compare predictions with known forces."""
    lines = [checks.why_not] if checks.why_not else []
    unseen = _last_unseen(checks)
    if unseen is not None:
        lines.append(_about_unseen(unseen))
    if checks.target is not None:
        target = checks.target
        text = f"Against the true forces on all {len(target)} atoms: error {target.errors.mean():.3g} eV/Å on average, "
        text += f"{target.errors.max():.3g} at most; {target.coverage:.1%} within the uncertainty"
        rank = target.correlation
        lines.append(text + ("." if np.isnan(rank) else f"; rank correlation of the two {rank:.2f}."))
    if run.failures:
        lines.append(f"{_counted(len(run.failures), 'label')} failed; the next most uncertain atoms replaced them.")
    return lines


def _about_unseen(unseen: Comparison) -> str:
    """Compare the last predictions made before their labels were known."""
    errors, n = unseen.errors, len(unseen)
    if n == 1:
        relation = "within" if unseen.coverage == 1.0 else "above"
        return (
            f"The last label, as the ensemble of iteration {unseen.iteration[0]} predicted it before training on it: error {errors[0]:.3g} "
            f"eV/Å, {relation} the predicted uncertainty of {unseen.delta[0]:.3g} eV/Å. One label says little."
        )
    return (
        f"The last {n} labels, as the ensemble of iteration {unseen.iteration[0]} predicted them before it "
        f"was trained on them: error {errors.mean():.3g} eV/Å on average, {errors.max():.3g} at most; "
        f"{unseen.coverage:.0%} within the predicted uncertainty. These were its most uncertain atoms."
    )


def _counted(n: int, what: str) -> str:
    return f"{n} {what}" + ("" if n == 1 else "s")


def _missed(step: Step) -> list[int]:
    return [report.member for report in step.reports if not report.converged]


def _last_unseen(checks: Checks) -> Comparison | None:
    """Return the last predictions made before their labels were known."""
    if not len(checks.unseen):
        return None
    return checks.unseen.at(int(checks.unseen.iteration.max()))


def _doubts(best: Step, checks: Checks) -> list[str]:
    doubts = []
    if missed := _missed(best):
        doubts.append(f"{len(missed)} of {len(best.reports)} members missed their criteria")
    for known, what in ((_last_unseen(checks), "the last labels"), (checks.target, "the true forces")):
        if known is not None and len(known) >= ENOUGH and known.coverage < COVERED:
            doubts.append(f"only {known.coverage:.0%} of {what} were within the predicted uncertainty")
    return doubts


# -- advice ----------------------------------------------------------------------------------------------------


def _go_on(run: Run) -> str:
    if run.status.phase == "interrupted" or run.status.alive is False:
        return "Run the script or command again: the run resumes where it stopped."
    return "Wait: `amp-nft status` shows the progress."


def _if_converged(run: Run, stop: float, largest: float) -> str:
    more = ", baseline=..." if "baseline" in run.settings else ""
    script = f'EnsembleCalculator("best.{run.label}.ensemble"{more})'
    if "committee" in run.settings:
        script = f'amp.nft.calculator.load("best.{run.label}.committee")'
    text = f"Use {script}, with an UncertaintyMonitor of threshold={max(stop, largest):.3g} eV/Å or somewhat more in relaxations "
    text += "and molecular dynamics, and label a few chunks of what you find there to check it."
    if _missed(run.best):
        text += " Members miss their criteria where the networks need more fingerprints or wider layers, or the criteria are too tight."
    return text


def _if_not_converged(run: Run, rounds: Sequence[RoundRecord] = ()) -> str:
    """Return the next step for a run whose uncertainty is above stop_delta."""
    if run.status.phase != "finished":
        return _go_on(run)
    if any(one.label == run.label and one.n_frames for one in rounds):
        return f"Refine further: run again with rounds={rounds[-1].number + 1} or more; finished rounds are kept."
    largest = [float(step.delta.max()) for step in run.steps]
    recent = largest[-3:]
    if len(recent) == 3 and max(recent) < FLAT * min(recent) and largest[0] > 2 * min(recent):
        return _at_a_floor(run, min(recent))
    if len(largest) >= 2 and largest[-1] <= 1.05 * min(largest):
        spent = sum(step.seconds for step in run.steps[-3:]) / len(run.steps[-3:])
        return (
            f"It is falling: run again with max_iterations={_more(run)} (training recently took {duration(spent)} per iteration); "
            "finished work is kept."
        )
    if len(largest) < EARLY:
        return f"Too early to say: run again with max_iterations={_more(run)}; finished work is kept."
    return (
        "It goes up and down: run again with a larger steps_not_improved (for example 5) and max_iterations. If this "
        "does not help, label more atoms per iteration (a threshold nearer to 0 selects more), or use more fingerprints."
    )


def _more(run: Run) -> int:
    """Return twice the allowed number of iterations."""
    return 2 * max(run.settings.get("max_iterations", 5), 5)


def _at_a_floor(run: Run, floor: float) -> str:
    """Return the next step where more chunks do not help."""
    if _missed(run.best):
        return (
            f"It has levelled off near {floor:.2g} eV/Å while members miss their criteria: use more fingerprints or wider hidden "
            "layers under another label; more chunks will not help."
        )
    criteria = (run.settings.get("criteria") or {}).get("force_rmse")
    tighter = "" if not criteria else f" (force_rmse below {criteria:g} eV/Å)"
    return (
        f"It has levelled off near {floor:.2g} eV/Å. All members meet their criteria, which set this limit; more chunks will not "
        f"help. If {floor:.2g} eV/Å is enough, raise stop_delta above it and run again; if not, tighten the criteria in "
        f"calc_text{tighter} under another label."
    )
