"""Still pictures of a structure: atoms as discs, seen from one side, coloured by a value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.data import covalent_radii

if TYPE_CHECKING:
    from matplotlib.axes import Axes

VIEW = (-72.0, 12.0, 0.0)  # degrees about x, then y, then z
MANY = 4000  # atoms among which one is still well seen
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
    _discs(axes, turned[rest], radii[rest], facecolors=FAINT, alpha=SHADOW, linewidths=0)
    if 0 < len(front) < len(atoms) / 50:  # a few among many: larger than they are, to be seen
        radii[front] *= max((len(atoms) / MANY) ** (1 / 3), 1.0)
    edge = np.clip(12.0 / np.sqrt(len(front) + 1), 0.0, 0.5)
    _discs(axes, turned[front], radii[front], facecolors=colours(norm(values[front])), edgecolors="#00000066", linewidths=edge)
    _draw_cell(axes, atoms, turn)
    low, high = (turned - radii[:, None]).min(axis=0), (turned + radii[:, None]).max(axis=0)
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
    axes.set_axis_off()


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
    """Edges of a periodic cell."""
    for start, end in cell_edges(atoms):
        line = np.array([start, end]) @ turn.T
        axes.plot(line[:, 0], line[:, 1], color=FAINT, linewidth=0.8, zorder=0)


def cell_edges(atoms: Atoms) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the ends of the twelve edges of a periodic structure's cell; none for a free cluster."""
    if not atoms.pbc.any():
        return []
    corners = np.array(np.meshgrid([0, 1], [0, 1], [0, 1], indexing="ij")).reshape(3, -1).T
    pairs = [(a, b) for a in corners for b in corners if (b - a).min() >= 0 and (b - a).sum() == 1]
    return [(a @ atoms.cell.array, b @ atoms.cell.array) for a, b in pairs]


def rotation(x: float, y: float, z: float) -> np.ndarray:
    """Return the matrix that rotates about x, then y, then z, by degrees."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_euler("xyz", [x, y, z], degrees=True).as_matrix()
