"""Verdict on a run in words: its state, the reasons, and the next step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from amp.nft.amp_io import read_amp
from amp.nft.errors import UnsupportedModel
from amp.nft.report.checks import Checks, Comparison
from amp.nft.run import verdict
from amp.nft.run.history import Run, Step
from amp.nft.run.status import duration
from amp.nft.uncertainty.forces import CONFIDENCE

Grade = Literal["good", "caution", "bad", "none"]
GRADES: dict[verdict.Color, Grade] = {"green": "good", "amber": "caution", "red": "bad", "grey": "none"}
COVERED = 0.8  # of the labels that were not trained on, within the predicted uncertainty: below, it is not to be believed
ENOUGH = 5  # labels from which a coverage is stated
AT_CRITERIA = 5.0  # times force_rmse: about where the uncertainty comes to rest when all members meet their criteria
EARLY = 4  # iterations, fewer of which tell no tendency
FLAT = 1.6  # the last uncertainties differ by less than this factor where they have come to rest


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


def judge(run: Run, checks: Checks) -> Verdict:
    """Put a run's verdict into words, with what its uncertainty, members and labels say.

    Parameters
    ----------
    run : Run
    checks : Checks

    Returns
    -------
    Verdict
    """
    if not run.steps:
        return Verdict("none", "UNKNOWN: no iteration is finished.", _state(run), _go_on(run))
    best, stop = run.best, run.settings.get("stop_delta", 0.0)
    largest = float(best.delta.max())
    found = run.verdict or verdict.judge(
        converged=largest < stop, aim=np.inf, std_i=best.delta / CONFIDENCE, factor=_error95_factor(run, best)
    )
    reasons = [*_state(run), *_about_uncertainty(run, stop), *_about_members(best, _floor(run)), *_about_labels(run, checks)]
    reasons += [f"In doubt: {doubt}." for doubt in _doubts(best, checks)]
    advice = _if_converged(run, stop, largest) if largest < stop else _if_not_converged(run)
    if found.state == "FAILED":
        advice = "Rattle the target: every force on it seems to vanish by symmetry."
    elif found.state == "UNKNOWN" and largest < stop:
        advice = f"Test it: {verdict.TEST}. {advice}"
    return Verdict(GRADES[found.color], str(found), reasons, advice)


def _error95_factor(run: Run, step: Step) -> float | None:
    """Out-of-bag factor that the members carry; None where they carry none or are of a kind that only Amp reads."""
    try:
        return read_amp(run.members(step)[0]).error95_factor
    except UnsupportedModel:
        return None


# -- reasons ---------------------------------------------------------------------------------------------------


def _state(run: Run) -> list[str]:
    """Whether the run is over."""
    status = run.status
    if status.phase == "finished":
        return []
    if status.phase == "interrupted" or status.alive is False:
        return [f"The run was interrupted in iteration {status.iteration} ({status.message or status.driver})."]
    return [f"The run has not ended: {status.phase} in iteration {status.iteration}; driver: {status.driver}."]


def _about_uncertainty(run: Run, stop: float) -> list[str]:
    best = run.best
    above = int((best.delta >= stop).sum())
    text = f"In the best ensemble, of iteration {best.iteration} with {best.n_chunks} chunks, the uncertainty is "
    text += f"{best.delta.max():.3g} eV/Å at most and {best.delta.mean():.3g} on average"
    return [text + (f"; {above} of {len(best.delta)} atoms are above stop_delta." if above else ", and no atom is above stop_delta.")]


def _floor(run: Run) -> float:
    """The uncertainty below which the members' criteria, rather than missing chunks, set it; eV/Å."""
    criteria = run.settings.get("criteria") or {}
    return AT_CRITERIA * (criteria.get("force_rmse") or criteria.get("force_maxresid") or 0.0)


def _about_members(best: Step, floor: float) -> list[str]:
    """What the members' residuals say about the uncertainty itself."""
    missed = _missed(best)
    if missed:
        return [
            f"{len(missed)} of {len(best.reports)} members did not meet their training criteria (members "
            f"{', '.join(map(str, missed))}): what they miss by adds to the errors, and to the uncertainty."
        ]
    if not best.reports:
        return []
    text = f"All {len(best.reports)} members meet their training criteria"
    if best.delta.max() > floor:
        return [text + ": the uncertainty that is left comes from surroundings that they have not seen, and shows where these are."]
    return [
        text + ", and their uncertainty is down to the size of these. From here on it hardly tells good atoms from bad ones (on a "
        "platinum cluster its rank correlation with the true error fell from 0.9 to 0.2): what error is left is set by the criteria, "
        "the fingerprints and networks, and the size of the chunks, not by a lack of chunks."
    ]


def _about_labels(run: Run, checks: Checks) -> list[str]:
    """How predictions compare with what is known."""
    lines = [checks.why_not] if checks.why_not else []
    unseen = _last_unseen(checks)
    if unseen is not None:
        lines.append(
            f"The last {len(unseen)} labels, as the ensemble of iteration {unseen.iteration[0]} predicted them before it "
            f"was trained on them: error {unseen.errors.mean():.3g} eV/Å on average, {unseen.errors.max():.3g} at most; "
            f"{unseen.coverage:.0%} within the predicted uncertainty. These were its most uncertain atoms."
        )
    if checks.target is not None:
        target = checks.target
        text = f"Against the true forces on all {len(target)} atoms: error {target.errors.mean():.3g} eV/Å on average, "
        text += f"{target.errors.max():.3g} at most; {target.coverage:.1%} within the uncertainty"
        rank = target.correlation
        lines.append(text + ("." if np.isnan(rank) else f"; rank correlation of the two {rank:.2f}."))
    if run.failures:
        lines.append(f"{len(run.failures)} labels could not be had; the next most uncertain atoms took their places.")
    return lines


def _missed(step: Step) -> list[int]:
    return [report.member for report in step.reports if not report.converged]


def _last_unseen(checks: Checks) -> Comparison | None:
    """The last predictions of labels that were not known yet."""
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
        return "Run the same script again: it goes on where it stopped."
    return "Wait: python -m amp.nft status shows where it stands."


def _if_converged(run: Run, stop: float, largest: float) -> str:
    script = f'EnsembleCalculator("best.{run.label}.ensemble")'
    text = f"Use {script}, with an UncertaintyMonitor of threshold={max(stop, largest):.3g} eV/Å or somewhat more in relaxations "
    text += "and molecular dynamics, and label a few chunks of what you find there to check it."
    if _missed(run.best):
        text += " Members miss their criteria where the networks need more fingerprints or wider layers, or the criteria are too tight."
    return text


def _if_not_converged(run: Run) -> str:
    """What to do about a run that has not come below its mark."""
    if run.status.phase != "finished":
        return _go_on(run)
    largest = [float(step.delta.max()) for step in run.steps]
    recent = largest[-3:]
    if len(recent) == 3 and max(recent) < FLAT * min(recent) and largest[0] > 2 * min(recent):
        return _at_a_floor(run, min(recent))
    if len(largest) >= 2 and largest[-1] <= 1.05 * min(largest):
        spent = sum(step.seconds for step in run.steps[-3:]) / len(run.steps[-3:])
        return (
            f"It is falling: run the same script again with max_iterations={_more(run)} (training took {duration(spent)} per iteration "
            "lately); what is there is kept."
        )
    if len(largest) < EARLY:
        return f"Too early to say: run the same script again with max_iterations={_more(run)}; what is there is kept."
    return (
        "It goes up and down: run the same script again with a larger steps_not_improved (5, say) and max_iterations; if it "
        "does not help, label more atoms at a time (a threshold nearer to 0 takes more), or use more fingerprints."
    )


def _more(run: Run) -> int:
    """Twice as many iterations as were allowed."""
    return 2 * max(run.settings.get("max_iterations", 5), 5)


def _at_a_floor(run: Run, floor: float) -> str:
    """What to do where more chunks do not help."""
    if _missed(run.best):
        return (
            f"It has come to rest near {floor:.2g} eV/Å while members miss their criteria: give them more fingerprints or wider "
            "hidden layers under another label; more chunks will not help."
        )
    criteria = (run.settings.get("criteria") or {}).get("force_rmse")
    tighter = "" if not criteria else f" (force_rmse below {criteria:g} eV/Å)"
    return (
        f"It has come to rest near {floor:.2g} eV/Å with all members within their criteria, which set this floor: if "
        f"{floor:.2g} eV/Å will do, raise stop_delta above it and run the same script again; if not, tighten the "
        f"criteria in calc_text{tighter} under another label. More chunks will not help."
    )
