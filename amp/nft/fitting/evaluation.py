"""Errors of an ensemble on labelled images: a table by element, a parity figure, an extended XYZ file."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import write

from amp.nft.amp_io import AmpModel, read_amp
from amp.nft.amp_io.committee_file import is_committee
from amp.nft.calculator import Committee, EnsembleCalculator, load
from amp.nft.errors import InputError
from amp.nft.fitting.ensemble import Ensemble
from amp.nft.inputs.structures import Images, read_training_images
from amp.nft.labels.single_point import Parent
from amp.nft.uncertainty.forces import are_covered


@dataclass(frozen=True)
class Errors:
    """Errors of one quantity.

    Attributes
    ----------
    quantity : str
        'energy' (eV/atom) or 'forces' (components, eV/Å).
    element : str
        A chemical symbol, or 'all'.
    n : int
        Number of energies, or of force components.
    mae, rmse, max : float
        Mean absolute, root mean square and largest absolute error.
    """

    quantity: str
    element: str
    n: int
    mae: float
    rmse: float
    max: float


@dataclass(frozen=True)
class Table:
    """Errors of an ensemble.

    Attributes
    ----------
    rows : tuple of Errors
        Energies, all forces, and the forces on each element.
    coverage : float
        Fraction of the force vectors whose error is within the raw uncertainty; nan for a single member.
    coverage95 : float
        The same for the calibrated 95 % band; nan where the ensemble carries no factor.
    """

    rows: tuple[Errors, ...]
    coverage: float
    coverage95: float

    def errors(self, quantity: str, element: str = "all") -> Errors:
        """Return one row.

        Parameters
        ----------
        quantity : {'energy', 'forces'}
        element : str

        Returns
        -------
        Errors

        Raises
        ------
        InputError
            There is no such row.
        """
        for row in self.rows:
            if (row.quantity, row.element) == (quantity, element):
                return row
        known = ", ".join(f"{row.quantity} {row.element}" for row in self.rows)
        raise InputError(f"There are no errors of {quantity!r} for {element!r}: the table has {known}.")

    def as_dicts(self) -> list[dict[str, Any]]:
        """Return the rows as plain data, for a data frame for example.

        Returns
        -------
        list of dict
        """
        return [asdict(row) for row in self.rows]

    def __str__(self) -> str:
        lines = [f"{'':8} {'':4} {'number':>8} {'MAE':>10} {'RMSE':>10} {'largest':>10}"]
        for row in self.rows:
            unit = "eV/atom" if row.quantity == "energy" else "eV/Å"
            lines.append(f"{row.quantity:8} {row.element:4} {row.n:8} {row.mae:10.4g} {row.rmse:10.4g} {row.max:10.4g} {unit}")
        coverages = ((self.coverage, "the uncertainty"), (self.coverage95, "the 95 % band"))
        lines += [f"{value:.1%} of the force errors are within {what}" for value, what in coverages if np.isfinite(value)]
        return "\n".join(lines)


def evaluate(
    ensemble: Ensemble | str | os.PathLike[str] | Sequence[AmpModel],
    images: Images,
    *,
    figure: str | os.PathLike[str] | None = None,
    extxyz: str | os.PathLike[str] | None = None,
    energy_key: str | None = None,
    forces_key: str | None = None,
    threads: int | None = None,
    baseline: Parent | None = None,
) -> Table:
    """Compare an ensemble's mean predictions with labels.

    Parameters
    ----------
    ensemble : Ensemble, path or sequence of AmpModel
        The path of an ``.ensemble`` file, or of a ``.committee``, whose models other programs trained.
    images : list of Atoms, dict, or a file that ASE reads
        Labelled images; duplicates count once.
    figure : path, optional
        A parity figure of energies and forces; the suffix sets its format.
    extxyz : path, optional
        An extended XYZ file of the images with their labels and ``nft_energy`` (eV), ``nft_forces``, ``nft_forces_uncertainty`` and,
        where the ensemble is calibrated, ``nft_forces_error95`` (eV/Å).
    energy_key, forces_key : str, optional
        Names of the energy in ``info`` and of the forces in the arrays of the images, where they are not ASE's results.
    threads : int, optional
        Of an ensemble; the result does not depend on it.
    baseline : ASE calculator, or callable, optional
        The one to which the members add, if they were trained with one.

    Returns
    -------
    Table

    Raises
    ------
    InputError
        An image has no labels, or contains an element that the ensemble was not trained on, or the baseline is missing or another one.
    """
    labelled = read_training_images(images, energy_key, forces_key)
    calculator = _calculator(ensemble, threads, baseline)
    predicted = [_predict(calculator, image) for image in labelled]
    if extxyz is not None:
        write(os.fspath(extxyz), [_annotated(*pair) for pair in zip(labelled, predicted, strict=True)], format="extxyz")
    if figure is not None:
        _draw(labelled, predicted, figure)
    return _table(labelled, predicted)


def _calculator(ensemble: Any, threads: int | None, baseline: Parent | None) -> EnsembleCalculator | Committee:
    if isinstance(ensemble, str | os.PathLike) and is_committee(ensemble):
        return load(ensemble, baseline=baseline)
    models = [read_amp(text) for text in ensemble.texts] if isinstance(ensemble, Ensemble) else ensemble
    return EnsembleCalculator(models, threads=threads, baseline=baseline)


def _predict(calculator: EnsembleCalculator | Committee, image: Atoms) -> dict[str, Any]:
    """Return the predictions for one image."""
    calculator.calculate(image)
    names = ("energy", "forces", "forces_uncertainty", "forces_error95")
    return {name: calculator.results[name] for name in names if name in calculator.results}


def _annotated(image: Atoms, predicted: dict[str, Any]) -> Atoms:
    """Return an image with its labels and predictions."""
    copy = image.copy()
    copy.calc = image.calc
    copy.info["nft_energy"] = predicted["energy"]
    for name in predicted.keys() - {"energy"}:
        copy.set_array(f"nft_{name}", np.asarray(predicted[name]))
    return copy


def _table(labelled: list[Atoms], predicted: list[dict[str, Any]]) -> Table:
    """Return the errors by element, and the coverages."""
    pairs = list(zip(labelled, predicted, strict=True))
    energy = np.array([(found["energy"] - image.get_potential_energy()) / len(image) for image, found in pairs])
    force = np.concatenate([found["forces"] - image.get_forces() for image, found in pairs])
    symbols = np.concatenate([np.array(image.get_chemical_symbols()) for image in labelled])
    rows = [_errors("energy", "all", energy), _errors("forces", "all", force)]
    rows += [_errors("forces", str(element), force[symbols == element]) for element in np.unique(symbols)]
    length = np.linalg.norm(force, axis=1)
    return Table(tuple(rows), *(_coverage(length, predicted, name) for name in ("forces_uncertainty", "forces_error95")))


def _errors(quantity: str, element: str, error: np.ndarray) -> Errors:
    size = np.abs(error)
    return Errors(quantity, element, error.size, float(size.mean()), float(np.sqrt((error**2).mean())), float(size.max()))


def _coverage(length: np.ndarray, predicted: list[dict[str, Any]], name: str) -> float:
    """Return the fraction of the errors within a width; nan if it is not known."""
    if any(name not in found for found in predicted):
        return float("nan")
    width = np.concatenate([found[name] for found in predicted])
    return float(np.mean(are_covered(length, width))) if np.isfinite(width).all() else float("nan")


def _draw(labelled: list[Atoms], predicted: list[dict[str, Any]], path: str | os.PathLike[str]) -> None:
    """Draw predicted against labelled energies and forces."""
    from matplotlib.figure import Figure

    pairs = list(zip(labelled, predicted, strict=True))
    quantities: dict[str, Callable[[Any, int], np.ndarray]] = {
        "energy (eV/atom)": lambda values, n: np.atleast_1d(values["energy"]) / n,
        "force components (eV/Å)": lambda values, n: values["forces"].ravel(),
    }
    drawing = Figure(figsize=(9, 4.2), layout="constrained")
    for axes, (name, of) in zip(drawing.subplots(1, 2), quantities.items(), strict=True):
        known = np.concatenate([of(image.calc.results, len(image)) for image in labelled])
        found = np.concatenate([of(values, len(image)) for image, values in pairs])
        axes.axline((known.mean(), known.mean()), slope=1.0, color="0.6", linewidth=1)
        axes.plot(known, found, ".", markersize=3, alpha=0.5, rasterized=True)
        axes.set(xlabel=f"label: {name}", ylabel=f"ensemble: {name}")
    drawing.savefig(os.fspath(path), dpi=160)
