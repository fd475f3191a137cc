"""Label error against depth: the difference between a force in a chunk and in the target, from chunks that overlap."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from ase import Atoms
from scipy.optimize import minimize

from amp.nft.errors import ChunkError

REFERENCE_DEPTH = 3.0  # Å, at which `scale` is given
DEEPEST = 15.0  # Å; atoms below have the label error of this depth
LEAST_WEIGHT = 0.05  # rows below it are not trained, unless they are the centre's
FLOOR_FRACTION = 0.1  # default floor of the weights, of the mean force of the labels
MOST_ROWS = 20_000  # for the fit; more are thinned by whole atoms

# Weak priors of the logarithms: scale 0.3 eV/Å within a factor 2.7, length 1.7 Å within 1.3, floor 0.01 eV/Å within 2.7.
_PRIOR = np.array([-1.2, 0.53, -4.6])
_WIDTH = np.array([1.0, 0.25, 1.0])
_FACTOR_WIDTH = 0.5  # of the logarithm of an element's factor
_SAFE = 6.0  # widths of the priors, within which the fit stays


@dataclass(frozen=True)
class LabelRows:
    """Forces of labelled chunks on atoms of the target, one row for each atom and chunk.

    Attributes
    ----------
    atoms : ndarray of int, shape (rows,)
        Atom of the target; a row of a periodic image has the index of the atom.
    depths : ndarray, shape (rows,)
        Distance of the atom to the nearest atom that its chunk lacks, Å.
    forces_rx : ndarray, shape (rows, 3)
        In eV/Å.
    centres : ndarray of bool, shape (rows,)
        True if the atom is the central one of its chunk.
    numbers : ndarray of int, shape (rows,)
        Atomic number.
    """

    atoms: np.ndarray
    depths: np.ndarray
    forces_rx: np.ndarray
    centres: np.ndarray
    numbers: np.ndarray


def label_rows(chunks: Sequence[Atoms], forces: Iterable[np.ndarray], first: Iterable[int] | None = None) -> LabelRows:
    """Collect the forces of labelled chunks, without those on caps.

    Parameters
    ----------
    chunks : sequence of Atoms
        As `carve_chunks` makes them.
    forces : iterable of ndarray, shape (atoms, 3)
        Forces of each chunk, eV/Å.
    first : iterable of int, optional
        For each chunk the number of the first atom of its target, where there are several targets; 0 if not given.

    Returns
    -------
    LabelRows

    Raises
    ------
    ChunkError
        If there is no chunk, or one lacks the arrays 'target_index' and 'depth'.
    """
    if not len(chunks):
        raise ChunkError("chunks is empty: give at least one labelled chunk.")
    offsets = [0] * len(chunks) if first is None else list(first)
    parts = []
    for chunk, forces_ax, offset in zip(chunks, forces, offsets, strict=True):
        if not {"target_index", "depth"} <= set(chunk.arrays):
            raise ChunkError(
                f"The chunk around atom {chunk.info.get('target_atom')} has no 'target_index' or no 'depth': use carve_chunks."
            )
        kept = chunk.arrays["target_index"] >= 0
        parts.append((
            chunk.arrays["target_index"][kept] + offset, chunk.arrays["depth"][kept], np.asarray(forces_ax)[kept],
            np.arange(kept.sum()) == 0, chunk.numbers[kept],
        ))  # fmt: skip
    return LabelRows(*(np.concatenate(column) for column in zip(*parts, strict=True)))


@dataclass(frozen=True)
class LabelError:
    """Label error per force component: sigma(d)² = factor² (scale² exp(-2 (d - 3 Å) / length) + floor²).

    Attributes
    ----------
    scale : float
        Decaying part at a depth of 3 Å, eV/Å.
    length : float
        Length of its decay, Å.
    floor : float
        Part that does not decay, eV/Å.
    n_atoms : int
        Atoms of the target in several chunks; 0 if nothing was measured, and the numbers are prior guesses.
    common : float or None
        Error per component of central forces that chunks of one radius share, eV/Å, from `common_error`: overlapping chunks cannot
        show it.
    factors : dict
        By atomic number; 1 for an element that it lacks. Stiff bonds make the errors of heavy atoms larger than those of hydrogen.
    """

    scale: float
    length: float
    floor: float
    n_atoms: int = 0
    common: float | None = None
    factors: dict[int, float] = field(default_factory=dict)

    @classmethod
    def fit(cls, rows: LabelRows) -> LabelError:
        """Fit the label error by restricted maximum likelihood, with no knowledge of the true forces.

        An atom in several chunks has a force from each. Their differences come from label errors only, regardless of the force in the
        target is.

        Parameters
        ----------
        rows : LabelRows

        Returns
        -------
        LabelError
        """
        chosen = _overlapping(rows)
        if not len(chosen):
            return cls(*np.exp(_PRIOR).tolist())
        depths, forces_rx = rows.depths[chosen], rows.forces_rx[chosen]
        _, first, counts = np.unique(rows.atoms[chosen], return_index=True, return_counts=True)
        elements, code = np.unique(rows.numbers[chosen], return_inverse=True)
        several = len(elements) > 1
        prior = np.append(_PRIOR, np.zeros(len(elements))) if several else _PRIOR
        width = np.append(_WIDTH, np.full(len(elements), _FACTOR_WIDTH)) if several else _WIDTH

        def minus_log_posterior(logs: np.ndarray) -> float:
            variance = _variance(np.exp(logs[:3]), depths) * (np.exp(2 * logs[3:])[code] if several else 1.0)
            precision = np.add.reduceat(1 / variance, first)
            mean = np.add.reduceat(forces_rx / variance[:, None], first) / precision[:, None]
            squares = ((forces_rx - np.repeat(mean, counts, axis=0)) ** 2).sum(axis=1)
            likelihood = 3 * np.log(variance).sum() + (squares / variance).sum() + 3 * np.log(precision).sum()
            return 0.5 * (likelihood + (((logs - prior) / width) ** 2).sum())

        bounds = list(zip(prior - _SAFE * width, prior + _SAFE * width, strict=True))
        logs = minimize(minus_log_posterior, prior, method="L-BFGS-B", bounds=bounds).x
        shift = float(logs[3:][code].mean()) if several else 0.0  # so that sigma without elements is that of a typical row
        scale, length, floor = np.exp(logs[:3] + np.array([shift, 0.0, shift])).tolist()
        factors = dict(zip(elements.tolist(), np.exp(logs[3:] - shift).tolist(), strict=True)) if several else {}
        return cls(scale, length, floor, n_atoms=len(first), factors=factors)

    def sigma(self, depths: np.ndarray | float, numbers: np.ndarray | int | None = None) -> np.ndarray:
        """Return the label error at depths.

        Parameters
        ----------
        depths : ndarray or float
            In Å.
        numbers : ndarray of int or int, optional
            Atomic numbers; without them the factors of elements are 1.

        Returns
        -------
        ndarray
            Standard deviation per component, eV/Å.
        """
        sigma = np.sqrt(_variance(np.array([self.scale, self.length, self.floor]), np.asarray(depths, dtype=float)))
        if numbers is None or not self.factors:
            return sigma
        return sigma * np.vectorize(lambda number: self.factors.get(int(number), 1.0), otypes=[float])(numbers)

    def weights(self, depths: np.ndarray | float, floor: float, numbers: np.ndarray | int | None = None) -> np.ndarray:
        """Return the weights of rows in the training, floor² / (sigma² + floor²).

        Parameters
        ----------
        depths : ndarray or float
            In Å.
        floor : float
            Approximate error that the model cannot avoid, eV/Å; see `default_floor`.
        numbers : ndarray of int or int, optional
            Atomic numbers.

        Returns
        -------
        ndarray
        """
        return floor**2 / (self.sigma(depths, numbers) ** 2 + floor**2)

    def rows(self, chunk: Atoms, floor: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the atoms of a chunk to train, and their weights.

        Parameters
        ----------
        chunk : Atoms
            As `carve_chunks` makes it.
        floor : float
            As for `weights`.

        Returns
        -------
        atoms : ndarray of int, shape (rows,)
            Indices in the chunk: the centre, and atoms of the target with a weight of at least 0.05.
        weights : ndarray, shape (rows,)
        """
        kept = np.flatnonzero(chunk.arrays["target_index"] >= 0)
        weights = self.weights(chunk.arrays["depth"][kept], floor, chunk.numbers[kept])
        trained = (weights >= LEAST_WEIGHT) | (kept == 0)
        return kept[trained], weights[trained]

    def with_common(self, common: float) -> LabelError:
        """Return a copy with the error that chunks of one radius share.

        Parameters
        ----------
        common : float
            From `common_error`, eV/Å per component.

        Returns
        -------
        LabelError
        """
        return replace(self, common=float(common))

    def at_centres(self, depths: np.ndarray, numbers: np.ndarray | None = None) -> float:
        """Return the label error of central atoms: the larger of the overlaps' estimate and of the common error.

        Parameters
        ----------
        depths : ndarray
            Of central atoms, Å.
        numbers : ndarray of int, optional
            Their atomic numbers.

        Returns
        -------
        float
            Root mean square per component, eV/Å.
        """
        return float(max(np.sqrt(np.mean(self.sigma(depths, numbers) ** 2)), self.common or 0.0))


def common_error(forces_cx: np.ndarray, larger_cx: np.ndarray) -> float:
    """Return the error that central forces of one radius share, from labels of the same atoms at a larger radius.

    Parameters
    ----------
    forces_cx : ndarray, shape (chunks, 3)
        Forces on central atoms, eV/Å.
    larger_cx : ndarray, shape (chunks, 3)
        The same in chunks whose radius is larger by 1.5 to 3 Å.

    Returns
    -------
    float
        Root mean square difference per component, eV/Å.

    Raises
    ------
    ChunkError
        If the shapes differ, or there is no chunk.
    """
    forces_cx, larger_cx = np.asarray(forces_cx, dtype=float), np.asarray(larger_cx, dtype=float)
    if forces_cx.shape != larger_cx.shape or not forces_cx.size:
        raise ChunkError(f"Forces have shapes {forces_cx.shape} and {larger_cx.shape}: give the same atoms twice, at least one.")
    return float(np.sqrt(np.mean((forces_cx - larger_cx) ** 2)))


def default_floor(forces_rx: np.ndarray) -> float:
    """Return the default floor of the weights: a tenth of the mean force of the labels.

    Parameters
    ----------
    forces_rx : ndarray, shape (rows, 3)
        In eV/Å.

    Returns
    -------
    float
        In eV/Å.
    """
    return FLOOR_FRACTION * float(np.linalg.norm(forces_rx, axis=1).mean())


def _variance(values: np.ndarray, depths: np.ndarray) -> np.ndarray:
    scale, length, floor = values
    return (scale * np.exp(-(np.minimum(depths, DEEPEST) - REFERENCE_DEPTH) / length)) ** 2 + floor**2


def _overlapping(rows: LabelRows) -> np.ndarray:
    """Return the rows of atoms that occur more than once, by atom; evenly thinned where there are too many."""
    order = np.argsort(rows.atoms, kind="stable")
    _, place, counts = np.unique(rows.atoms[order], return_inverse=True, return_counts=True)
    several = np.flatnonzero(counts > 1)
    thinning = int(np.ceil(counts[several].sum() / MOST_ROWS)) or 1
    return order[np.isin(place, several[::thinning])]
