"""The label error against radius and termination: table, figure, recommendation."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from amp.nft.chunks.correction import Gate, judge
from amp.nft.chunks.estimate import Estimate, mean_error
from amp.nft.errors import ChunkError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GROWTH = 1.5  # of the atoms of a chunk from one radius to the next; below it, their difference hides the error
UNDERESTIMATED = 2.0  # the error may be this times the difference from the largest radius
FAILURES = 0.1  # a termination and radius at which more of the labels fail is not recommended
ENOUGH = 0.1  # default tolerance of the mean error, of the mean force


@dataclass(frozen=True)
class CheapForces:
    """Forces of a cheap calculator on all atoms of the target, eV/Å.

    Attributes
    ----------
    chunks_trnx : ndarray, shape (terminations, radii, target atoms, 3)
        On the central atom of the chunk around each atom; nan where it failed.
    target_nx : ndarray, shape (target atoms, 3)
        In the target.
    """

    chunks_trnx: np.ndarray
    target_nx: np.ndarray

    @property
    def errors_trn(self) -> np.ndarray:
        """Label errors of the cheap calculator, eV/Å."""
        return np.linalg.norm(self.chunks_trnx - self.target_nx, axis=-1)


@dataclass(frozen=True)
class Choice:
    """Recommended termination and radius; print it.

    Attributes
    ----------
    termination : str
    radius : float
        In Å.
    estimate : Estimate
        Label error there.
    adequate : bool
        False if no chunk that was compared meets the tolerance; then this is the one with the smallest error.
    sentence : str
        The recommendation, and why.
    """

    termination: str
    radius: float
    estimate: Estimate
    adequate: bool
    sentence: str

    def __str__(self) -> str:
        return self.sentence


@dataclass(frozen=True)
class Convergence:
    """The force on central atoms against the radius and the termination of their chunks.

    Attributes
    ----------
    terminations : tuple of str
    radii : ndarray, shape (radii,)
        In Å, rising.
    atoms : ndarray of int, shape (atoms,)
        Central atoms that the parent labelled.
    forces_trax : ndarray, shape (terminations, radii, atoms, 3)
        The parent's force on each central atom, eV/Å; nan where a label failed.
    sizes_tra : ndarray of int, shape (terminations, radii, atoms)
        Atoms of each chunk.
    seconds_tra : ndarray, shape (terminations, radii, atoms)
        Time of each label.
    reference_ax : ndarray, shape (atoms, 3)
        Forces that the others are compared with, eV/Å.
    reference : str
        Their origin.
    absolute : bool
        False if the reference is itself a chunk, of the largest radius.
    n_target : int
        Atoms of the target.
    cheap : CheapForces or None
        Of a cheap calculator, if one was given.
    """

    terminations: tuple[str, ...]
    radii: np.ndarray
    atoms: np.ndarray
    forces_trax: np.ndarray
    sizes_tra: np.ndarray
    seconds_tra: np.ndarray
    reference_ax: np.ndarray
    reference: str
    absolute: bool
    n_target: int
    cheap: CheapForces | None = None

    @property
    def errors_tra(self) -> np.ndarray:
        """Length of the difference from the reference, eV/Å; nan where a label failed."""
        return np.linalg.norm(self.forces_trax - self.reference_ax, axis=-1)

    @property
    def errors_ra(self) -> np.ndarray:
        """The same, of the first termination."""
        return self.errors_tra[0]

    @property
    def sizes_ra(self) -> np.ndarray:
        """Atoms of the chunks of the first termination."""
        return self.sizes_tra[0]

    @property
    def mean_force(self) -> float:
        """Mean force of the reference, eV/Å."""
        return float(np.nanmean(np.linalg.norm(self.reference_ax, axis=1)))

    @property
    def compared(self) -> int:
        """Number of radii that are compared: all, or all but the largest."""
        return len(self.radii) if self.absolute else len(self.radii) - 1

    def estimate(self, termination: str, radius: float) -> Estimate:
        """Return the mean label error of all atoms, from those that the parent labelled.

        With a cheap calculator whose errors are proportional to the parent's, its mean error over all atoms sharpens the estimate.

        Parameters
        ----------
        termination : str
        radius : float
            In Å.

        Returns
        -------
        Estimate
            Against the largest radius, the upper end is doubled: the difference of two radii underestimates the error.
        """
        t, r = self._place(termination, radius)
        if self.cheap is None:
            found = mean_error(self.errors_tra[t, r])
        else:
            cheap = self.cheap.errors_trn[t, r]
            found = mean_error(self.errors_tra[t, r], cheap[self.atoms], float(np.nanmean(cheap)))
        return found if self.absolute else replace(found, high=UNDERESTIMATED * found.high)

    def choice(self, tolerance: float | None = None) -> Choice:
        """Recommend the termination and radius with the fewest atoms of which the mean label error is within a tolerance.

        Parameters
        ----------
        tolerance : float, optional
            In eV/Å; a tenth of the mean force if not given.

        Returns
        -------
        Choice
            Not adequate if no chunk that was compared is good enough.
        """
        limit = ENOUGH * self.mean_force if tolerance is None else tolerance
        sizes = self.sizes_tra.mean(axis=2)
        found = [
            (float(sizes[t, r]), name, float(self.radii[r]), self.estimate(name, self.radii[r]))
            for t, name in enumerate(self.terminations) for r in range(self.compared)
            if np.isnan(self.errors_tra[t, r]).mean() <= FAILURES
        ]  # fmt: skip
        if not found:
            raise ChunkError("More than a tenth of the labels failed at each radius: no chunk can be recommended. See the log for reasons.")
        good = [one for one in found if one[3].mean <= limit]
        size, name, radius, estimate = min(good, key=lambda one: one[0]) if good else min(found, key=lambda one: one[3].mean)
        what = f"termination {name!r} at {radius:g} Å ({size:.0f} atoms)"
        where = f"{what}: mean label error {estimate} eV/Å, of a mean force of {self.mean_force:.3g}"
        if good:
            return Choice(name, radius, estimate, True, f"Use {where}.")
        return Choice(name, radius, estimate, False, (
            f"No chunk up to {self.radii[self.compared - 1]:g} Å, of a target of {self.n_target} atoms, stands for the target within "
            f"{limit:.3g} eV/Å. Best: {where}. Try larger radii, a correction by a cheap calculator, or label whole targets."
        ))  # fmt: skip

    def recommended(self, tolerance: float) -> float:
        """Return the smallest radius from which on no central force is off by more than `tolerance`, for the first termination.

        Parameters
        ----------
        tolerance : float
            In eV/Å.

        Returns
        -------
        float
            In Å.

        Raises
        ------
        ChunkError
            If the largest radius that was compared does not meet it; also a ValueError.
        """
        worst = self.errors_ra[: self.compared].max(axis=1)
        bad = np.flatnonzero(~(worst <= tolerance))
        if len(bad) and bad[-1] == self.compared - 1:
            raise ChunkError(
                f"At {self.radii[bad[-1]]:g} Å, the largest radius that was compared, a central force is still off by "
                f"{worst[-1]:.3g} eV/Å, more than tolerance = {tolerance:g}: add larger radii, or ask for less."
            )
        return float(self.radii[bad[-1] + 1 if len(bad) else 0])

    def gate(self, termination: str, radius: float) -> Gate:
        """Judge the correction by the cheap calculator, at one radius against the largest.

        Parameters
        ----------
        termination : str
        radius : float
            In Å; not the largest.

        Returns
        -------
        Gate

        Raises
        ------
        ChunkError
            If no cheap calculator was given, or this is the largest radius.
        """
        t, r = self._place(termination, radius)
        if self.cheap is None or r == len(self.radii) - 1:
            raise ChunkError("A gate needs convergence(..., cheap=...) and a radius below the largest.")
        plain = self.forces_trax[t, r]
        corrected = plain + self.cheap.target_nx[self.atoms] - self.cheap.chunks_trnx[t, r][self.atoms]
        return judge(plain, corrected, self.forces_trax[t, -1])

    def _place(self, termination: str, radius: float) -> tuple[int, int]:
        near = np.flatnonzero(np.isclose(self.radii, radius))
        if termination not in self.terminations or not len(near):
            raise ChunkError(
                f"{termination!r} at {radius:g} Å was not scanned: {', '.join(self.terminations)} at {self.radii.tolist()} Å were."
            )
        return self.terminations.index(termination), int(near[0])

    def __str__(self) -> str:
        lines = [
            f"Error of the central force against {self.reference}, {len(self.atoms)} atoms, mean force {self.mean_force:.3g} eV/Å:",
            "termination  radius (Å)   atoms: mean (min-max)   error, eV/Å: mean (95 % interval), largest   seconds per label",
        ]
        for t, name in enumerate(self.terminations):
            lines += [self._line(t, name, r) for r in range(len(self.radii))]
        lines += self._notes()
        return "\n".join(lines)

    def _line(self, t: int, name: str, r: int) -> str:
        sizes, seconds = self.sizes_tra[t, r], self.seconds_tra[t, r]
        failed = int(np.isnan(self.errors_tra[t, r]).sum())
        size = f"{sizes.mean():.1f} ({sizes.min()}-{sizes.max()})"
        took = f"{np.nanmean(seconds):.3g}" if np.isfinite(seconds).any() else "-"
        is_reference = not self.absolute and not np.nan_to_num(self.errors_tra[t, r]).any()
        error = "reference" if is_reference else str(self.estimate(name, self.radii[r]))
        return f"{name:<12}{self.radii[r]:10.2f}   {size:>21}   {error:<46}   {took:>17}" + (f"   {failed} failed" if failed else "")

    def _notes(self) -> list[str]:
        sizes = self.sizes_tra.mean(axis=2)
        small = [
            f"{a:g} to {b:g} Å" for a, b, x, y in zip(self.radii, self.radii[1:], sizes[0], sizes[0][1:], strict=False) if y < GROWTH * x
        ]
        notes = []
        if small and not self.absolute:
            notes.append(f"Chunks grow by less than {GROWTH} times from {', '.join(small)}: such steps underestimate the error.")
        if self.cheap is not None:
            from scipy.stats import spearmanr  # half a second: only where it is needed

            pairs = [(self.errors_tra[t, r], self.cheap.errors_trn[t, r][self.atoms])
                     for t in range(len(self.terminations)) for r in range(self.compared)]  # fmt: skip
            ours, cheap = (np.concatenate(side) for side in zip(*pairs, strict=True))
            both = np.isfinite(ours) & np.isfinite(cheap)
            rank = spearmanr(ours[both], cheap[both]).statistic if both.sum() > 2 else np.nan
            notes.append(f"Label errors of the cheap calculator follow the parent's with a rank correlation of {rank:.2f}.")
        return notes

    def plot(self, path: str | os.PathLike[str] | None = None, *, ax: Axes | None = None) -> Axes:
        """Draw the errors of the first termination against the radius: each atom, their mean, their maximum; means of the others.

        Parameters
        ----------
        path : str or path, optional
            A picture to write.
        ax : matplotlib Axes, optional
            Where to draw; a new figure if not given.

        Returns
        -------
        matplotlib Axes
        """
        from matplotlib.figure import Figure  # slow to import, and not needed for the numbers

        if ax is None:
            ax = Figure(figsize=(5.5, 4), layout="constrained").subplots()
        radii, errors_tra = self.radii[: self.compared], self.errors_tra[:, : self.compared]
        lines = ax.semilogy(radii, errors_tra[0], color="0.75", linewidth=0.8, zorder=1)
        lines[0].set_label("one atom")
        for t, name in list(enumerate(self.terminations))[1:]:
            ax.semilogy(radii, np.nanmean(errors_tra[t], axis=1), ".--", label=f"mean, {name}")
        ax.semilogy(radii, np.nanmean(errors_tra[0], axis=1), "o-", color="tab:blue", label=f"mean, {self.terminations[0]}")
        ax.semilogy(radii, np.nanmax(errors_tra[0], axis=1), "s-", color="tab:red", label=f"max, {self.terminations[0]}")
        ax.set_xlabel("radius of the chunk (Å)")
        ax.set_ylabel("error of the central force (eV/Å)")
        ax.set_title(f"against {self.reference}", fontsize="medium", loc="left")
        ax.legend(frameon=False)
        ax.grid(alpha=0.3)
        sizes = ax.secondary_xaxis("top")
        sizes.set_xticks(radii, [f"{size:.0f}" for size in self.sizes_ra[: self.compared].mean(axis=1)])
        sizes.set_xlabel("atoms of a chunk, on average")
        if path is not None:
            ax.figure.savefig(path, dpi=150)  # type: ignore[union-attr]
        return ax
