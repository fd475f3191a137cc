"""Parts that the examples of this directory share: the parent, targets with their true forces, the model, figures and texts."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from ase import Atoms
from ase.io import read

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.colors import LogNorm
from matplotlib.ticker import LogLocator

from amp.nft.calculator import EnsembleCalculator
from amp.nft.report.pictures import draw_atoms

DATA = Path(__file__).parents[2] / "benchmarks" / "data" / "realparents"
BLUE, ORANGE, GREY = "#4c8dd6", "#e08a2e", "#8a8f98"


def xtb(directory: str, method: str = "GFN1-xTB") -> Any:
    """Return the parent of a label: xTB at an electronic temperature of 300 K."""
    from tblite.ase import TBLite

    return TBLite(method=method, electronic_temperature=300.0, verbosity=0)


def known_target(name: str, forces: str = "forces") -> tuple[Atoms, np.ndarray]:
    """Return a structure, and the parent's forces on it, which no training uses."""
    atoms = read(DATA / f"{name}.extxyz")
    true = atoms.arrays[forces].copy() if forces in atoms.arrays else atoms.get_forces()
    return Atoms(atoms.symbols, atoms.positions), true


def model(elements: Iterable[str], cutoff: float, layers: tuple[int, ...] = (8, 8)) -> str:
    """Return the text that builds the Amp calculator of a member."""
    return f"""
from amp import Amp
from amp.descriptor.gaussian import Gaussian
from amp.model import LossFunction
from amp.model.neuralnetwork import NeuralNetwork
from amp.nft.features import g2x

calc = Amp(descriptor=Gaussian(cutoff={cutoff}, Gs=g2x({sorted(set(elements))}, radial=6)), model=NeuralNetwork(hiddenlayers={layers}))
calc.model.lossfunction = LossFunction(force_coefficient=0.04, convergence={{'energy_rmse': 0.001, 'force_rmse': 0.005}})
"""


class Result:
    """Text and picture of an example, in the directory that its command line names, or one with its name.

    Parameters
    ----------
    name : str
        Of the example.
    """

    def __init__(self, name: str) -> None:
        self.directory = Path(sys.argv[1] if len(sys.argv) > 1 else name).absolute()
        self.directory.mkdir(exist_ok=True, parents=True)
        os.chdir(self.directory)
        self.name, self.begin, self.lines = name, time.process_time(), list[str]()

    def say(self, text: object) -> None:
        """Print a text, and keep it for the page."""
        print(text, flush=True)
        self.lines.append(str(text))
        Path(f"{self.name}.txt").write_text("\n".join(self.lines) + "\n", encoding="utf-8")

    def finish(self, al: Any, atoms: Atoms, true: np.ndarray, groups: dict[str, np.ndarray] | None = None) -> None:
        """Say the true errors after each training and the verdict of the run, and draw them.

        Parameters
        ----------
        al : NFT
            After its run.
        atoms : Atoms
            The target.
        true : ndarray, shape (atoms, 3)
            The parent's forces on it, eV/Å.
        groups : dict of str to ndarray of bool, shape (atoms,)
            Atoms whose errors are shown separately.
        """
        groups = {"all atoms": np.ones(len(atoms), dtype=bool)} | (groups or {})
        self.say(f"{len(atoms)} atoms, mean force {np.linalg.norm(true, axis=1).mean():.2f} eV/Å.")
        curve = []
        for entry in al.history:
            calc = EnsembleCalculator(f"al.{entry.iteration}.ensemble")
            error = np.linalg.norm(calc.get_property("forces", atoms) - true, axis=1)
            curve.append((entry.n_chunks, {name: error[mask].mean() for name, mask in groups.items()}, error.max()))
            text = "; ".join(f"{name} {value:.3f}" for name, value in curve[-1][1].items())
            self.say(f"{entry.n_chunks:3d} labels: mean error of the force: {text}; largest {error.max():.3f} eV/Å.")
        best = EnsembleCalculator("best.al.ensemble")
        forces = best.get_property("forces", atoms)
        error = np.linalg.norm(forces - true, axis=1)
        band = best.get_property("forces_error95", atoms)
        inside = np.mean(error <= band)
        self.say(
            f"Best ensemble: error {error.mean():.3f} in the mean, {error.max():.3f} at most; {inside:.0%} of the atoms in the 95 % band."
        )
        self.say(f"{al.verdict}")
        self.say(f"{time.process_time() - self.begin:.0f} s of processor time.")
        draw(f"{self.name}.png", atoms, true, forces, error, curve, groups)


def draw(
    path: str, atoms: Atoms, true: np.ndarray, forces: np.ndarray, error: np.ndarray, curve: list[Any], groups: dict[str, np.ndarray]
) -> None:
    """Draw the target with its errors, the forces against the true ones, and the errors against the labels."""
    figure, (picture, parity, learning) = pyplot.subplots(1, 3, figsize=(10.5, 3.4), layout="constrained")
    norm = LogNorm(max(np.percentile(error, 2), 1e-4), error.max())
    draw_atoms(picture, atoms, error, np.ones(len(atoms), dtype=bool), pyplot.get_cmap("viridis"), norm)
    scale = pyplot.cm.ScalarMappable(norm, cmap="viridis")
    bar = figure.colorbar(scale, ax=picture, location="bottom", label="error of the force, eV/Å", shrink=0.8, format="%g")
    low, high = norm.vmin, norm.vmax
    bar.set_ticks([tick for tick in (0.003, 0.01, 0.03, 0.1, 0.3, 1, 3) if low <= tick <= high])
    bar.minorticks_off()
    reach = 1.05 * np.abs(true).max()
    parity.plot([-reach, reach], [-reach, reach], color=GREY, linewidth=0.8)
    for colour, (name, mask) in zip((BLUE, ORANGE), list(groups.items())[:2], strict=False):
        parity.plot(true[mask].ravel(), forces[mask].ravel(), ".", markersize=3, color=colour, label=name)
    parity.set(xlabel="force of the parent, eV/Å", ylabel="force of the ensemble, eV/Å", aspect="equal")
    labels = [point[0] for point in curve]
    for colour, name in zip((BLUE, ORANGE), list(groups)[:2], strict=False):
        learning.plot(labels, [point[1][name] for point in curve], "o-", color=colour, label=f"mean, {name}", markersize=4)
    learning.plot(labels, [point[2] for point in curve], "s--", color=GREY, label="largest", markersize=4)
    learning.set(xlabel="labels", ylabel="true error of the force, eV/Å", yscale="log")
    learning.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    learning.yaxis.set_major_formatter("{x:g}")
    learning.yaxis.set_minor_formatter("")
    learning.legend(frameon=False)
    for axes in (parity, learning):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
