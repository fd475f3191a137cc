"""Verdict on a trained ensemble, from the errors of random labels on the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from amp.nft.errors import InputError
from amp.nft.records import as_plain
from amp.nft.run.state import RunState
from amp.nft.uncertainty.calibration import MEAN_OVER_RMS, Bounds, bound_errors, error95_floor, is_label_error
from amp.nft.uncertainty.forces import VANISHING

State = Literal["GOOD", "LABEL-LIMITED", "FIT-LIMITED", "NOT YET", "UNKNOWN", "FAILED"]
Color = Literal["green", "amber", "grey", "red"]
COLORS: dict[State, Color] = {
    "GOOD": "green",
    "LABEL-LIMITED": "amber",
    "FIT-LIMITED": "amber",
    "NOT YET": "amber",
    "UNKNOWN": "grey",
    "FAILED": "red",
}
SURPRISING_FACTOR = 1.2  # out-of-bag factor above which members agree better than they predict
FLAT = 1.1  # ratio of the out-of-bag errors of the last three iterations that have levelled off
PART_OF_FIT = 0.5  # of the mean square error; a fit that causes more than this limits it
HALF = 0.5  # of the out-of-bag error; a label error above this may limit it
TEST_LABELS = 10  # number that is advised
ALL_TRAINED = "no atom of the target is left for a test, since all are trained; compare it with other labelled images (amp-nft evaluate)"
SAME_FORCES = "all members predict the same forces, which independent fits never do; rattle the target if symmetry makes them vanish"


@dataclass(frozen=True)
class Verdict:
    """State of a trained ensemble, in one word and one sentence.

    Attributes
    ----------
    state : str
        'GOOD', 'LABEL-LIMITED', 'FIT-LIMITED', 'NOT YET', 'UNKNOWN' or 'FAILED'.
    sentence : str
    mean_bound, max_bound : float
        95 % bounds on the mean and the largest force error on the target, eV/Å; nan without random labels.
    label_error : float
        Mean length of the labels' own errors, eV/Å; nan where none was labelled again in a larger chunk.
    n_test : int
        Number of random labels.
    error95_floor : float
        Least width of the 95 % band of the force error, from the same labels as `label_error`, eV/Å; nan where it is nan.
    """

    state: State
    sentence: str
    mean_bound: float = np.nan
    max_bound: float = np.nan
    label_error: float = np.nan
    n_test: int = 0
    error95_floor: float = np.nan

    @property
    def color(self) -> Color:
        """Color of the state: 'green', 'amber', 'grey' or 'red'."""
        return COLORS[self.state]

    def __str__(self) -> str:
        return f"{self.state}: {self.sentence}"

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for the journal.

        Returns
        -------
        dict
        """
        return as_plain(self)


@dataclass(frozen=True, eq=False)
class RandomErrors:
    """Errors of an ensemble on atoms drawn at random before any of their labels was known.

    Attributes
    ----------
    errors_k : array_like, shape (labels,)
        Lengths of the errors of the mean force, eV/Å.
    std_k : array_like, shape (labels,)
        Predicted standard deviation there, eV/Å: the uncertainty over 2.58.
    std_i : array_like, shape (atoms,)
        The same on all atoms from which the labels were drawn.
    differences_l : array_like, shape (larger labels,)
        Lengths of the differences between labels of these atoms and labels of larger chunks around them, eV/Å.
    energy_error : float, optional
        Mean absolute error of independent energies, eV/atom.
    """

    errors_k: ArrayLike = ()
    std_k: ArrayLike = ()
    std_i: ArrayLike = ()
    differences_l: ArrayLike = ()
    energy_error: float | None = None


NOT_TESTED = RandomErrors()


def judge(
    *,
    converged: bool,
    aim: float,
    errors: RandomErrors = NOT_TESTED,
    force_rmse: float | None = None,
    oob_rmse: Sequence[float] = (),
    factor: float | None = None,
    failed: str = "",
    remedy: str = "",
) -> Verdict:
    """Judge an ensemble by random labels.

    Parameters
    ----------
    converged : bool
        True if the run met its own stop criterion.
    aim : float
        Mean force error that is sufficient, eV/Å.
    errors : RandomErrors
    force_rmse : float, optional
        Criterion of the members, per component, eV/Å; None for an out-of-bag stop.
    oob_rmse : sequence of float
        Out-of-bag force error of each iteration, per component, eV/Å.
    factor : float, optional
        Out-of-bag factor of the 95 % band, c.
    failed : str
        Reason why the run failed or diverged; empty if it did not.
    remedy : str
        How to test it, where it is not tested; `how_to_test` of nothing known if not given.

    Returns
    -------
    Verdict

    Raises
    ------
    InputError
        The aim is not positive, or the numbers bound nothing; see :func:`amp.nft.uncertainty.bound_errors`.
    """
    if not aim > 0:
        raise InputError(f"aim is {aim!r} eV/Å: it must be above 0, 0.03 for example.")
    errors_k, std_i, differences_l = (np.asarray(a, dtype=float) for a in (errors.errors_k, errors.std_i, errors.differences_l))
    if not failed and len(std_i) and std_i.max() < VANISHING:
        failed = SAME_FORCES
    if failed:
        return Verdict("FAILED", f"not usable: {failed}.")
    if not len(errors_k):
        return Verdict("UNKNOWN", _untested(converged, factor, remedy or how_to_test(None)))
    squared_label = float(np.mean(differences_l**2)) if len(differences_l) else np.nan
    std_k, std_i = (np.maximum(std, VANISHING) for std in (np.asarray(errors.std_k, dtype=float), std_i))  # 0 on an atom without neighbours
    bounds = bound_errors(errors_k, std_k, std_i, float(np.sqrt(np.nan_to_num(squared_label))))
    state, why = _state(errors_k, differences_l, bounds, aim, force_rmse, oob_rmse)
    label_error = MEAN_OVER_RMS * float(np.sqrt(squared_label))
    sentence = f"{_bounds_in_words(bounds, label_error, len(differences_l))}; {why}. {_energies(errors.energy_error)}"
    floor = error95_floor(differences_l)
    return Verdict(state, sentence, bounds.mean, bounds.max, label_error, bounds.n, np.nan if floor is None else floor)


def _state(
    errors_k: np.ndarray, differences_l: np.ndarray, bounds: Bounds, aim: float, force_rmse: float | None, oob_rmse: Sequence[float]
) -> tuple[State, str]:
    """Return the state of a tested ensemble, with its reason and remedy."""
    if bounds.mean <= aim:
        return "GOOD", f"trust its forces on this target within the aim of {aim:.3g} eV/Å"
    if is_label_error(errors_k, differences_l):
        why = "the rest cannot be told from the error of the labels: use a larger cutoff or another termination, not more labels"
        return "LABEL-LIMITED", why
    squared_label = float(np.mean(differences_l**2)) if len(differences_l) else 0.0
    if force_rmse is not None:
        if 3.0 * force_rmse**2 > PART_OF_FIT * max(float(np.mean(errors_k**2)) - squared_label, 0.0):
            return "FIT-LIMITED", f"the criteria of the members (force_rmse {force_rmse:.3g} eV/Å) cause most of it: tighten them"
    elif len(differences_l) and _is_flat(oob_rmse) and np.sqrt(squared_label / 3.0) < HALF * oob_rmse[-1]:
        why = f"the out-of-bag error has levelled off at {oob_rmse[-1]:.3g} eV/Å: use more fingerprints or wider hidden layers"
        return "FIT-LIMITED", why
    return "NOT YET", f"above the aim of {aim:.3g} eV/Å: label more"


def _is_flat(oob_rmse: Sequence[float]) -> bool:
    """Return True if the out-of-bag error changed by less than 10 % over the last two iterations."""
    last = np.asarray(oob_rmse[-3:], dtype=float)
    return len(last) == 3 and bool(last.max() < FLAT * last.min())


def how_to_test(untrained: int | None) -> str:
    """Return what a user does to test a run, in words.

    Parameters
    ----------
    untrained : int or None
        Atoms of the target that random labels can be drawn from; None if it is not known.

    Returns
    -------
    str
    """
    return ALL_TRAINED if untrained == 0 else f"rerun with test_labels={min(TEST_LABELS, untrained or TEST_LABELS)}"


def _untested(converged: bool, factor: float | None, remedy: str) -> str:
    text = ("converged by its criterion" if converged else "not converged by its criterion") + f"; not tested: {remedy}"
    if factor is not None and factor > SURPRISING_FACTOR:
        text += f"; out of bag, 95 % of the errors lie within {factor:.2g} times the uncertainty, so its criterion means less than it says"
    return text


def _bounds_in_words(bounds: Bounds, label_error: float, n_larger: int) -> str:
    text = (
        f"mean force error on the target below {bounds.mean:.3g} eV/Å, none above {bounds.max:.3g} "
        f"(95 % confidence, {bounds.n} random label{_s(bounds.n)}; estimate of the mean {bounds.estimate:.3g})"
    )
    larger = f"; labels have a mean error of {label_error:.3g} eV/Å ({n_larger} larger chunk{_s(n_larger)})"
    return text + (larger if n_larger else "")


def _s(n: int) -> str:
    return "" if n == 1 else "s"


def _energies(energy_error: float | None) -> str:
    if energy_error is None:
        return "Energies are not tested."
    return f"Energies have a mean error of {energy_error:.3g} eV/atom."


# -- from a run's files ----------------------------------------------------------------------------------------


def recorded_verdict(state: RunState) -> Verdict | None:
    """Return the verdict on the last ensemble in the journal.

    Parameters
    ----------
    state : RunState

    Returns
    -------
    Verdict or None
    """
    if state.verdict is None:
        return None
    known: dict[str, Any] = {name: np.nan if value is None else value for name, value in state.verdict.items()}
    return Verdict(**{field.name: known[field.name] for field in fields(Verdict)})


def verdict_of(state: RunState) -> Verdict | None:
    """Return the verdict on a finished run; None while the run has not ended.

    Parameters
    ----------
    state : RunState

    Returns
    -------
    Verdict or None
        The recorded one, else that of a run without random labels.
    """
    found, end = recorded_verdict(state), state.ending
    if found is not None or end is None or not end.finished:
        return found
    last = state.iterations[-1].evaluated if state.iterations else None
    failed = SAME_FORCES if end.reason == "vanishing" else ""
    if last is None:
        return Verdict("UNKNOWN", "no ensemble is trained yet: start again.")
    remedy = "its labels are not finished; start again" if end.reason == "until" and state.test else how_to_test(state.untrained)
    return judge(converged=end.converged, aim=np.inf, factor=last.error95_factor, failed=failed, remedy=remedy)
