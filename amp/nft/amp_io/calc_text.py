"""Calculator that the user's ``calc_text`` builds, as plain data: descriptor, model and loss function."""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from amp.nft.amp_io.model import (
    AmpModel,
    hidden_layers,
    model_from_parameters,
    require_supported,
    symmetry_functions,
)
from amp.nft.errors import AmpFileError, UnsupportedModel

# from these Amp guesses a number of cores, and raises where it cannot
QUEUE_VARIABLES = ("SLURM_NODELIST", "PBS_NODEFILE", "LOADL_PROCESSOR_LIST", "PE_HOSTFILE")
CRITERIA = ("energy_rmse", "energy_maxresid", "force_rmse", "force_maxresid")


@dataclass(frozen=True)
class CalculatorSpec:
    """A Gaussian + NeuralNetwork calculator before its training.

    Attributes
    ----------
    gs : dict, list or None
        Amp's symmetry functions per element, for all elements, or None for Amp's defaults.
    elements : tuple of str or None
        The elements that the descriptor was told, sorted.
    cutoff : dict
        Amp's ``{'name': ..., 'kwargs': {'Rc': Å, ...}}``.
    hiddenlayers : dict, tuple or int
        Per element or for all.
    activation : str
        'tanh', 'sigmoid' or 'linear'.
    energy_coefficient, overfit : float
    force_coefficient : float or None
        None if forces are not trained, also if no force criterion is set.
    maxiter : int
        Bound on the evaluations of the loss.
    convergence : dict of str to (float or None)
        The criteria energy_rmse, energy_maxresid (eV/atom), force_rmse, force_maxresid (eV/Å).
    model : AmpModel or None
        The trained parameters where ``calc_text`` starts from such.
    given_force_coefficient : float or None
        As given, also where no force criterion is set; acts where criteria do not.
    """

    gs: dict[str, list[dict[str, Any]]] | Any
    elements: tuple[str, ...] | None
    cutoff: dict[str, Any]
    hiddenlayers: dict[str, tuple[int, ...]] | Any
    activation: str
    energy_coefficient: float
    force_coefficient: float | None
    overfit: float
    maxiter: int
    convergence: dict[str, float | None]
    model: AmpModel | None
    given_force_coefficient: float | None = None

    def resolved(self, elements: Sequence[str]) -> CalculatorSpec:
        """Return a copy with symmetry functions (by default Amp's) and layers per element.

        Parameters
        ----------
        elements : sequence of str
            The elements of the images.

        Returns
        -------
        CalculatorSpec

        Raises
        ------
        ValueError
            ``calc_text`` lacks one of `elements`.
        """
        names = tuple(sorted(set(elements)))
        known = self.elements or names  # Amp's defaults contain a function for each known neighbour
        gs = _default_symmetry_functions(known) if self.gs is None else self.gs
        given = {"elements": dict.fromkeys(known), "Gs": gs, "hiddenlayers": self.hiddenlayers}
        for name, value in given.items():
            if isinstance(value, dict) and set(names) - set(value):
                raise _missing(name, value, names)
        layers = hidden_layers(self.hiddenlayers, names)
        return replace(self, gs=symmetry_functions(gs, names), elements=names, hiddenlayers=layers)


def read_calc_text(calc_text: str, headerlines: str = "", directory: str | os.PathLike[str] = "al-training") -> CalculatorSpec:
    """Return the settings of the calculator that `calc_text` builds.

    The text runs as it will in a job: after `headerlines`, with the names that Amp's job script has defined
    by then, in a scratch directory as deep as a member's, so that relative paths are valid.

    Parameters
    ----------
    calc_text : str
        The user's Python code; it must leave an ``Amp`` calculator in ``calc``.
    headerlines : str
        Lines at the top of the job script.
    directory : path
        The training directory, ``<label>-training``, in which the members' directories are, or will be.

    Returns
    -------
    CalculatorSpec

    Raises
    ------
    ValueError
        The text is no Python, fails, or defines no ``calc``.
    UnsupportedModel
        ``calc`` is something else than Gaussian + NeuralNetwork with Amp's own loss function and optimizer.
    """
    with _scratch_directory(Path(directory)), _outside_any_queue():
        return spec_of(_calculator_of(headerlines, calc_text))


def spec_of(calc: Any) -> CalculatorSpec:
    """Return the settings of an Amp calculator.

    Parameters
    ----------
    calc : Amp

    Returns
    -------
    CalculatorSpec

    Raises
    ------
    UnsupportedModel
        Names the part that the kernels do not support.
    """
    _require_own_classes(calc)
    descriptor, model = calc.descriptor.parameters, calc.model.parameters
    require_supported(descriptor, model)
    elements = tuple(sorted(descriptor.elements)) if descriptor.elements else None
    if descriptor.Gs is not None:
        symmetry_functions(descriptor.Gs, descriptor.Gs if hasattr(descriptor.Gs, "keys") else ("any",))
    return CalculatorSpec(
        gs=descriptor.Gs,
        elements=elements,
        cutoff=descriptor.cutoff,
        hiddenlayers=model.hiddenlayers,
        activation=model.activation,
        model=_starting_model(descriptor, model),
        **_loss_settings(calc.model.lossfunction.parameters),
    )


def _calculator_of(headerlines: str, calc_text: str) -> Any:
    """Run the user's text and return its ``calc``."""
    names = _names_in_job()
    name = ""
    try:
        for text, name in ((headerlines, "<headerlines>"), (calc_text, "<calc_text>")):
            exec(compile(text, name, "exec", dont_inherit=True), names)  # the user's own code, as in the job
    except SyntaxError as error:
        raise ValueError(
            f"{(error.filename or 'calc_text').strip('<>')} is not valid Python: {error.msg}, "
            f"line {error.lineno}: {(error.text or '').strip()!r}; correct that line"
        ) from error
    except (Exception, SystemExit) as error:
        raise ValueError(
            f"{name.strip('<>')} fails with {type(error).__name__}: {error}{_place(error, name)}; it must run by itself"
            + (" and define `calc`" if name == "<calc_text>" else "")
        ) from error
    if "calc" not in names:
        raise ValueError(
            f"calc_text defines no `calc`: {calc_text.strip()[:80]!r}; it must leave an Amp calculator "
            "under that name, such as calc = Amp(descriptor=Gaussian(), model=NeuralNetwork())"
        )
    return names["calc"]


def _place(error: BaseException, name: str) -> str:
    """Return the last line of the user's text that ran."""
    lines = [entry.lineno for entry in traceback.extract_tb(error.__traceback__) if entry.filename == name]
    return f" in line {lines[-1]}" if lines else ""


def _names_in_job() -> dict[str, Any]:
    """Return the names that Amp's job script defines before the calc_text."""
    from amp.utilities import TrainingConvergenceError
    from ase.parallel import paropen

    return {
        "__name__": "__main__",
        "os": os,
        "pickle": pickle,
        "paropen": paropen,
        "TrainingConvergenceError": TrainingConvergenceError,
        "ensemble_index": 0,
        "trainfile": "../training-images/0.traj",
    }


@contextlib.contextmanager
def _scratch_directory(training: Path) -> Iterator[None]:
    """Work in a scratch directory as deep as a training directory; remove it and its files (Amp's log) afterwards."""
    here = Path.cwd()
    parents = training.absolute().parents
    depth, parent = next((depth, parent) for depth, parent in enumerate(parents) if parent.is_dir())
    scratch = tempfile.mkdtemp(prefix=".calc-text-", dir=parent if os.access(parent, os.W_OK) else None)
    try:
        member = Path(scratch, *["to-be-made"] * depth, "0")
        member.mkdir(parents=True)
        os.chdir(member)
        yield
    finally:
        os.chdir(here)
        shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def _outside_any_queue() -> Iterator[None]:
    """Hide a queue's allocation from Amp, which may fail to make sense of it."""
    hidden = {name: os.environ.pop(name) for name in QUEUE_VARIABLES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _require_own_classes(calc: Any) -> None:
    """Raise unless every part is of Amp's own class, with Amp's optimizer."""
    from amp import Amp  # type: ignore[attr-defined]
    from amp.descriptor.gaussian import Gaussian
    from amp.model import LossFunction
    from amp.model.neuralnetwork import NeuralNetwork

    if not isinstance(calc, Amp):
        raise ValueError(f"calc_text leaves a {type(calc).__name__} in `calc`; it must be an Amp calculator")
    parts = {"calculator": (calc, Amp), "descriptor": (calc.descriptor, Gaussian)}
    parts["model"] = (calc.model, NeuralNetwork)
    for name, (part, expected) in parts.items():
        _require_class(name, part, expected)
    _require_class("loss function", calc.model.lossfunction, LossFunction)
    if calc.model.lossfunction.d is not None:
        raise UnsupportedModel(f"the loss function's gradient is numerical (d={calc.model.lossfunction.d})")
    if not _is_default_regressor(calc.model.regressor):
        raise UnsupportedModel("the model brings a regressor of its own")


def _require_class(name: str, part: Any, expected: type) -> None:
    if type(part) is not expected:
        found = f"{type(part).__module__}.{type(part).__name__}"
        raise UnsupportedModel(f"the {name} is {found}, not {expected.__module__}.{expected.__name__}")


def _is_default_regressor(regressor: Any) -> bool:
    """Return True if the optimizer is Amp's default."""
    from amp.regression import Regressor

    default = Regressor()
    return regressor is None or (type(regressor) is Regressor and vars(regressor) == vars(default))


def _starting_model(descriptor: Any, model: Any) -> AmpModel | None:
    """Return the trained parameters in the calculator; None if it has none."""
    given = [name for name in ("weights", "scalings", "fprange") if model[name] is not None]
    if not given:
        return None
    if len(given) < 3 or not hasattr(descriptor.Gs, "keys"):
        raise UnsupportedModel(f"the model starts from {' and '.join(given)} given by hand")
    try:
        return model_from_parameters(descriptor, model)
    except AmpFileError as error:
        raise ValueError(f"the parameters in calc_text do not fit together: {error}") from error


def _loss_settings(p: Any) -> dict[str, Any]:
    """Return the effective settings of the loss function: without a force criterion Amp trains no forces."""
    if unknown := sorted(set(p.convergence) - set(CRITERIA)):
        raise ValueError(
            f"convergence in calc_text has {unknown[0]!r}, which Amp would silently ignore; allowed keys: {', '.join(CRITERIA)}"
        )
    convergence = {key: p.convergence[key] for key in CRITERIA}
    force_coefficient = p.force_coefficient
    if convergence["force_rmse"] is None and convergence["force_maxresid"] is None:
        force_coefficient = None
    if force_coefficient is None:
        convergence.update(force_rmse=None, force_maxresid=None)
    return {
        "energy_coefficient": p.energy_coefficient,
        "force_coefficient": force_coefficient,
        "given_force_coefficient": p.force_coefficient,
        "overfit": p.overfit,
        "maxiter": p.maxiter,
        "convergence": convergence,
    }


def _default_symmetry_functions(elements: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Return Amp's default symmetry functions."""
    from amp.descriptor.gaussian import make_default_symmetry_functions

    return make_default_symmetry_functions(list(elements))


def _missing(name: str, given: Any, elements: Sequence[str]) -> ValueError:
    missing = sorted(set(elements) - set(given))
    return ValueError(
        f"{name} in calc_text cover {', '.join(sorted(given))} but the images also contain {', '.join(missing)}; add them there"
    )
