"""Still pictures of a structure: atoms as discs, seen from one side, coloured by a value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.data import covalent_radii

from amp.nft.run.history import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

VIEW = (-72.0, 12.0, 0.0)  # degrees about x, then y, then z
MANY = 4000  # atoms among which one is still well seen
LAYERS = 3  # of shadows that are drawn over each other
RASTER_FROM = 2000  # atoms from which they are drawn as pixels also in SVG
BEHIND = (-72.0, 192.0, 0.0)
FAINT, SHADOW = "#8a8f98", 0.12


def draw_atoms(axes: Axes, atoms: Atoms, values: np.ndarray, chosen: np.ndarray, colours: Any, norm: Any, *, behind: bool = False) -> None:
    """Draw a structure, those atoms in colour that are chosen, the others behind them as shadows.

    Parameters
    ----------
    axes : matplotlib Axes
    atoms : Atoms
    values : ndarray, shape (atoms,)
    chosen : ndarray of bool, shape (atoms,)
    colours : matplotlib Colormap
    norm : matplotlib Normalize
    behind : bool
        Seen from the other side.
    """
    turn = rotation(*BEHIND if behind else VIEW)
    turned = atoms.positions @ turn.T
    radii = 0.92 * covalent_radii[atoms.numbers]
    back_to_front = np.argsort(turned[:, 2])
    rest, front = (back_to_front[mask[back_to_front]] for mask in (~chosen, chosen))
    if 0 < len(front) < len(atoms) / 50:  # a few among many: larger than they are, to be seen
        radii[front] *= max((len(atoms) / MANY) ** (1 / 3), 1.0)
    edge = np.clip(12.0 / np.sqrt(len(front) + 1), 0.0, 0.5)
    rest, front = rest[_seen(turned[rest], radii[rest], LAYERS)], front[_seen(turned[front], radii[front], 1)]
    _discs(axes, turned[rest], radii[rest], facecolors=FAINT, alpha=SHADOW, linewidths=0)
    _discs(axes, turned[front], radii[front], facecolors=colours(norm(values[front])), edgecolors="#00000066", linewidths=edge)
    _draw_cell(axes, atoms, turn)
    low, high = (turned - radii[:, None]).min(axis=0), (turned + radii[:, None]).max(axis=0)
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
    axes.set_axis_off()


def _seen(points: np.ndarray, radii: np.ndarray, layers: int) -> np.ndarray:
    """Mask of the discs, from back to front, of which anything is seen through fewer than `layers` others; all where there are few."""
    seen = np.zeros(len(points), dtype=bool)
    if len(points) <= RASTER_FROM:
        return ~seen
    side = radii.min() / 2
    reach = int(np.ceil(radii.max() / side))
    steps = np.stack(np.meshgrid(*2 * [np.arange(-reach, reach + 1)], indexing="ij"), axis=-1).reshape(-1, 2)
    cell = np.floor((points[:, :2] - points[:, :2].min(axis=0)) / side).astype(np.int64) + reach
    width = int(cell[:, 1].max()) + reach + 1
    for _ in range(layers):
        left = np.flatnonzero(~seen)
        nearest = np.full((int(cell[:, 0].max()) + reach + 1) * width, -1)
        for step in steps:
            covered = left[np.hypot(*step) * side <= radii[left]]
            np.maximum.at(nearest, (cell[covered] + step) @ [width, 1], covered)
        seen[nearest[nearest >= 0]] = True
    return seen


def _discs(axes: Axes, points: np.ndarray, radii: np.ndarray, **style: Any) -> None:
    from matplotlib.collections import EllipseCollection

    if len(points):
        axes.add_collection(
            EllipseCollection(
                2 * radii,
                2 * radii,
                np.zeros(len(radii)),
                units="xy",
                offsets=points[:, :2],
                offset_transform=axes.transData,
                rasterized=len(points) > RASTER_FROM,
                **style,
            )
        )


def _draw_cell(axes: Axes, atoms: Atoms, turn: np.ndarray) -> None:
    """Draw the edges of a periodic cell."""
    for start, end in cell_edges(atoms):
        line = np.array([start, end]) @ turn.T
        axes.plot(line[:, 0], line[:, 1], color=FAINT, linewidth=0.8, zorder=0)


def taken(run: Run) -> list[np.ndarray]:
    """Return for each atom the iteration after which its chunk was added.

    Parameters
    ----------
    run : Run

    Returns
    -------
    list of ndarray of int, shape (atoms,)
        One array per target; -1 for an atom without a chunk.
    """
    when = np.full(len(run.best.delta), -1)
    when[list(run.status.state.begun or ())] = 0
    for iteration, atoms in enumerate(run.new_atoms):
        when[atoms] = iteration
    return run.split(when)


def cell_edges(atoms: Atoms) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the ends of the twelve edges of a periodic structure's cell.

    Parameters
    ----------
    atoms : Atoms

    Returns
    -------
    list of (ndarray, ndarray)
        Two points each, Å; empty for a free cluster.
    """
    if not atoms.pbc.any():
        return []
    corners = np.array(np.meshgrid([0, 1], [0, 1], [0, 1], indexing="ij")).reshape(3, -1).T
    pairs = [(a, b) for a in corners for b in corners if (b - a).min() >= 0 and (b - a).sum() == 1]
    return [(a @ atoms.cell.array, b @ atoms.cell.array) for a, b in pairs]


def rotation(x: float, y: float, z: float) -> np.ndarray:
    """Return the matrix that rotates about x, then y, then z.

    Parameters
    ----------
    x, y, z : float
        Angles in degrees.

    Returns
    -------
    ndarray, shape (3, 3)
    """
    from scipy.spatial.transform import Rotation

    return Rotation.from_euler("xyz", [x, y, z], degrees=True).as_matrix()
