"""Radius of a chunk at which the parent's force on its central atom equals that in the target."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from amp.nft.chunks.carving import carve_chunks
from amp.nft.errors import InputError
from amp.nft.inputs.arguments import checked_indices
from amp.nft.labels.executors import Executors
from amp.nft.labels.pool import LabelPool, check_label_options, numbered
from amp.nft.labels.single_point import Label, Parent, single_point
from amp.nft.records import LabelOptions

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REFERENCES = ("largest", "target")


@dataclass(frozen=True)
class Convergence:
    """The force on central atoms against the radius of their chunks.

    Attributes
    ----------
    radii : ndarray, shape (radii,)
        In Å, rising.
    atoms : ndarray of int, shape (atoms,)
        Central atoms.
    errors_ra : ndarray, shape (radii, atoms)
        Length of the difference between the parent's force on the central atom and the reference, eV/Å; nan where a label
        failed.
    sizes_ra : ndarray of int, shape (radii, atoms)
        Atoms of each chunk.
    seconds_ra : ndarray, shape (radii, atoms)
        What each label took.
    reference : str
        What the forces are compared with.
    absolute : bool
        False if the reference is the largest radius itself.
    """

    radii: np.ndarray
    atoms: np.ndarray
    errors_ra: np.ndarray
    sizes_ra: np.ndarray
    seconds_ra: np.ndarray
    reference: str
    absolute: bool

    @property
    def compared(self) -> int:
        """Number of radii that are compared: all, or all but the largest."""
        return len(self.radii) if self.absolute else len(self.radii) - 1

    def recommended(self, tolerance: float) -> float:
        """Return the smallest radius from which on no central force has an error above `tolerance`.

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
        ValueError
            If the largest radius that was compared does not meet it.
        """
        worst = self.errors_ra[: self.compared].max(axis=1)
        bad = np.flatnonzero(~(worst <= tolerance))
        if len(bad) and bad[-1] == self.compared - 1:
            raise ValueError(
                f"At {self.radii[bad[-1]]:g} Å, the largest radius that was compared, a central force is still off by "
                f"{worst[-1]:.3g} eV/Å, more than tolerance = {tolerance:g}: add larger radii, or ask for less."
            )
        return float(self.radii[bad[-1] + 1 if len(bad) else 0])

    def __str__(self) -> str:
        lines = [
            f"Error of the central force against {self.reference}, {len(self.atoms)} atoms, eV/Å:",
            "radius (Å)   atoms: mean (min-max)   error: mean      max   seconds per label",
        ]
        for radius, errors, sizes, seconds in zip(self.radii, self.errors_ra, self.sizes_ra, self.seconds_ra, strict=True):
            size = f"{sizes.mean():.1f} ({sizes.min()}-{sizes.max()})"
            took = f"{seconds[np.isfinite(seconds)].mean():.3g}" if np.isfinite(seconds).any() else "-"
            known = errors[np.isfinite(errors)]
            error = f"{known.mean():11.2g} {known.max():8.2g}" if len(known) else f"{'-':>11} {'-':>8}"
            if not self.absolute and radius == self.radii[-1]:
                error = f"{'reference':>20}"
            failed = f"   {len(errors) - len(known)} failed" if len(known) < len(errors) else ""
            lines.append(f"{radius:10.2f}   {size:>21}   {error}   {took:>17}{failed}")
        return "\n".join(lines)

    def plot(self, path: str | os.PathLike[str] | None = None, *, ax: Axes | None = None) -> Axes:
        """Draw the errors against the radius: each atom, their mean, their maximum.

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
        radii, errors_ra = self.radii[: self.compared], self.errors_ra[: self.compared]
        lines = ax.semilogy(radii, errors_ra, color="0.75", linewidth=0.8, zorder=1)
        lines[0].set_label("one atom")
        ax.semilogy(radii, np.nanmean(errors_ra, axis=1), "o-", color="tab:blue", label="mean")
        ax.semilogy(radii, np.nanmax(errors_ra, axis=1), "s-", color="tab:red", label="max")
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


def convergence(
    target: Atoms,
    parent: Parent,
    radii: Iterable[float] = (5.0, 6.0, 7.0, 8.0),
    atoms: int | Sequence[int] = 6,
    *,
    reference: str | np.ndarray = "largest",
    executor: Executors | None = None,
    directory: str | os.PathLike[str] | None = None,
    log: Callable[[str], object] = lambda message: None,
) -> Convergence:
    """Find the necessary radius of chunks: the parent's force on some central atoms against the radius.

    Parameters
    ----------
    target : Atoms
    parent : ASE calculator, or callable
        A callable ``f(directory)`` returns a fresh calculator.
    radii : iterable of float
        In Å.
    atoms : int, or sequence of int or of bool
        Central atoms, or a mask; a number takes that many, evenly from those with the fewest neighbours to those with the most.
    reference : 'largest', 'target' or ndarray of shape (target atoms, 3)
        What the forces are compared with: those at the largest radius, which then says nothing about itself; those of one
        single point of the whole target, where the parent can do that; or forces that are known, eV/Å.
    executor : concurrent.futures.Executor, or callable that returns a new one, optional
        Makes the labels, as in :meth:`amp.nft.activelearner.NFT.run`.
    directory : path, optional
        Where the parent's files and the labels go; a second call takes the labels that it finds there, so give each parent
        its own. Nothing is kept if not given.
    log : callable
        Is told of labels that fail.

    Returns
    -------
    Convergence
        Print it, ``plot`` it, ask it for the ``recommended`` radius.

    Raises
    ------
    ValueError, IndexError, TypeError
        For radii, atoms or a reference that cannot be, before any work starts.
    RuntimeError
        If the reference, or every label, failed.
    """
    if not isinstance(target, Atoms):
        raise TypeError(f"target is {target!r}: give an ase.Atoms, such as ase.io.read(...) returns.")
    radii = _checked_radii(radii, reference)
    check_label_options(LabelOptions(parent, executor))
    chosen = _chosen_atoms(target, atoms, radii[0])
    if isinstance(reference, str) and reference not in REFERENCES:
        raise ValueError(f"reference is {reference!r}: it must be 'largest', 'target', or forces of the target.")
    if not isinstance(reference, str) and np.shape(reference) != (len(target), 3):
        raise ValueError(f"reference has shape {np.shape(reference)}: forces of the target have {(len(target), 3)}.")
    with _place(directory) as place:
        chunks = {(r, a): chunk for r, radius in enumerate(radii)
                  for a, chunk in enumerate(carve_chunks(target, chosen, radius))}  # fmt: skip
        true, name = _reference(target, parent, reference, chosen, place)
        labels = _labels(chunks, radii, chosen, parent, executor, place, log)
    shape = (len(radii), len(chosen))
    forces_rax, seconds_ra = np.full((*shape, 3), np.nan), np.full(shape, np.nan)
    for key, label in labels.items():
        forces_rax[key], seconds_ra[key] = label.forces[0], label.seconds
    errors_ra = np.linalg.norm(forces_rax - (forces_rax[-1] if true is None else true), axis=2)
    sizes_ra = np.array([[len(chunks[r, a]) for a in range(len(chosen))] for r in range(len(radii))])
    name = name or f"chunks of {radii[-1]:g} Å"
    return Convergence(radii, chosen, errors_ra, sizes_ra, seconds_ra, name, absolute=true is not None)


def _checked_radii(radii: Iterable[float], reference: Any) -> np.ndarray:
    """Radii in rising order, each once."""
    found = np.unique(np.asarray(list(radii), dtype=float))
    least = 2 if isinstance(reference, str) and reference == "largest" else 1
    if len(found) < least or not (np.isfinite(found).all() and (found > 0).all()):
        raise ValueError(f"radii are {found.tolist()} Å: give at least {least}, all above 0, such as 5, 6, 7, 8.")
    return found


def _chosen_atoms(target: Atoms, atoms: int | Sequence[int], radius: float) -> np.ndarray:
    """Central atoms: as given, or so many between the one with the fewest neighbours and the one with the most."""
    if not isinstance(atoms, int | np.integer):
        chosen = checked_indices("atoms", atoms, len(target), "atoms of the target")
        if not len(chosen):
            raise InputError(f"atoms is {atoms!r}: give a number of atoms, or a list of their indices.")
        return np.array(list(dict.fromkeys(chosen.tolist())))  # there is one label of each
    if isinstance(atoms, bool) or not 1 <= atoms <= len(target):
        raise InputError(f"atoms is {atoms}: it must be between 1 and the {len(target)} atoms of the target.")
    neighbours = [len(chunk) for chunk in carve_chunks(target, range(len(target)), radius)]
    places = np.round(np.linspace(0, len(target) - 1, int(atoms))).astype(int)
    return np.argsort(neighbours, kind="stable")[places]


@contextlib.contextmanager
def _place(directory: str | os.PathLike[str] | None) -> Iterator[Path]:
    """Yield the directory, or a temporary one."""
    if directory is not None:
        yield Path(directory)
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield Path(scratch)


def _reference(
    target: Atoms, parent: Parent, reference: str | np.ndarray, chosen: np.ndarray, place: Path
) -> tuple[np.ndarray | None, str | None]:
    """Return the true forces on the chosen atoms and their description; None if the largest chunks are the reference."""
    if not isinstance(reference, str):
        return np.asarray(reference, dtype=float)[chosen], "the forces given"
    if reference == "largest":
        return None, None
    label = single_point(parent, target, place / "target")
    if not isinstance(label, Label):
        raise RuntimeError(f"The parent cannot label the whole target ({label}): take reference='largest'.")
    return label.forces[chosen], "the whole target"


def _labels(
    chunks: dict[tuple[int, int], Atoms], radii: np.ndarray, chosen: np.ndarray, parent: Parent,
    executor: Executors | None, place: Path, log: Callable[[str], object],
) -> dict[tuple[int, int], Label]:  # fmt: skip
    """Labels by place of radius and atom, those that failed left out."""
    numbers = numbered((int(chosen[a]), float(radii[r])) for r, a in chunks)  # a second call finds the labels by these
    keys = dict(zip(numbers, chunks, strict=True))
    labels, failures = {}, []
    with LabelPool(LabelOptions(parent, executor), place) as pool:
        for name, key in keys.items():
            pool.request(name, chunks[key])
        for name, outcome in pool.done():
            r, a = keys[name]
            if isinstance(outcome, Label):
                labels[r, a] = outcome
            else:
                failures.append(f"the chunk of {radii[r]:g} Å around atom {chosen[a]}: {outcome}")
                log(f"No label for {failures[-1]}")
    if not labels:
        raise RuntimeError(f"None of {len(chunks)} chunks could be labelled; {failures[0]}.")
    return labels
