"""Bonds of a target and the kinds of matter that they make, found once for all its chunks."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from amp.nft.chunks.sites import Site
from amp.nft.inputs.geometry import neighbor_pairs

STRETCH = 1.2  # a bond is shorter than this times the sum of the covalent radii
MULTIPLE = 0.95  # a bond below this times the sum of the covalent radii is taken for a multiple one
POLAR = 1.7  # difference of electronegativities from which a bond is not covalent
LARGEST_MOLECULE = 30  # atoms; a larger covalent component is a network

KINDS = ("molecule", "network", "ionic", "metal", "unbonded")

# Pauling's electronegativities of the elements that form covalent bonds; every other element counts as a metal, but noble gases.
_ELECTRONEGATIVITY = {
    "H": 2.20, "B": 2.04, "C": 2.55, "N": 3.04, "O": 3.44, "F": 3.98, "Si": 1.90, "P": 2.19, "S": 2.58, "Cl": 3.16,
    "Ge": 2.01, "As": 2.18, "Se": 2.55, "Br": 2.96, "Sb": 2.05, "Te": 2.10, "I": 2.66,
}  # fmt: skip
_NOBLE = ("He", "Ne", "Ar", "Kr", "Xe", "Rn")


def _by_number(values: dict[str, float]) -> np.ndarray:
    table = np.full(len(covalent_radii), np.nan)
    for symbol, value in values.items():
        table[atomic_numbers[symbol]] = value
    return table


ELECTRONEGATIVITY = _by_number(_ELECTRONEGATIVITY)  # by atomic number; nan for elements without covalent bonds
IS_METAL = np.isnan(ELECTRONEGATIVITY) & np.isnan(_by_number(dict.fromkeys(_NOBLE, 0.0)))


class BondGraph:
    """Covalent bonds of a target, its molecules, and the kind of matter of each atom.

    Two atoms are bonded where they are closer than 1.2 times the sum of their covalent radii (ASE's ``natural_cutoffs``). The bond
    is covalent if neither is a metal and their electronegativities differ by less than 1.7. A finite covalent component of
    2 to 30 atoms is a molecule; a larger or endless one is a network. Atoms without a covalent bond are ionic where a metal
    meets a non-metal, and metal otherwise.

    Parameters
    ----------
    target : Atoms
        Never changed. It may be periodic, also with cells smaller than a bond is long.

    Attributes
    ----------
    target : Atoms
    kinds : ndarray of str, shape (atoms,)
        'molecule', 'network', 'ionic', 'metal', or 'unbonded' for a non-metal without any of those bonds.
    """

    def __init__(self, target: Atoms) -> None:
        self.target = target
        first, second, shifts, short = _bonds(target)
        numbers = target.numbers
        with np.errstate(invalid="ignore"):
            covalent = np.abs(ELECTRONEGATIVITY[numbers[first]] - ELECTRONEGATIVITY[numbers[second]]) < POLAR
        self._start = np.searchsorted(first[covalent], np.arange(len(target) + 1))
        self._bonds = np.column_stack([second, shifts])[covalent].tolist()
        heavy = (numbers[first] > 1) & (numbers[second] > 1)
        self._multiple = (short & heavy)[covalent].tolist()
        self._molecules = self._find_molecules(first[covalent], second[covalent])
        self.kinds = self._find_kinds(first[~covalent], second[~covalent])

    def bonds(self, site: Site) -> list[tuple[Site, bool]]:
        """Return the covalent partners of a site.

        Parameters
        ----------
        site : Site

        Returns
        -------
        list of (Site, bool)
            Each with True if its bond is a multiple one.
        """
        atom, x, y, z = site
        here = slice(self._start[atom], self._start[atom + 1])
        return [
            ((j, x + a, y + b, z + c), multiple) for (j, a, b, c), multiple in zip(self._bonds[here], self._multiple[here], strict=True)
        ]

    def partners(self, site: Site) -> list[Site]:
        """Return the covalent partners of a site.

        Parameters
        ----------
        site : Site

        Returns
        -------
        list of Site
        """
        return [partner for partner, _ in self.bonds(site)]

    def molecule(self, site: Site) -> list[Site]:
        """Return the sites of the molecule that a site belongs to.

        Parameters
        ----------
        site : Site

        Returns
        -------
        list of Site
            The site alone if it belongs to no molecule.
        """
        atom, *shift = site
        molecule = self._molecules.get(atom)
        if molecule is None:
            return [site]
        x, y, z = (a - b for a, b in zip(shift, molecule[atom], strict=True))
        return [(j, x + a, y + b, z + c) for j, (a, b, c) in molecule.items()]

    def _find_molecules(self, first: np.ndarray, second: np.ndarray) -> dict[int, dict[int, tuple[int, int, int]]]:
        """Return for each atom of a molecule the shifts of the molecule's atoms by their indices."""
        n = len(self.target)
        _, label = connected_components(coo_array((np.ones(len(first)), (first, second)), shape=(n, n)), directed=False)
        sizes = np.bincount(label, minlength=n)
        found: dict[int, dict[int, tuple[int, int, int]]] = {}
        self._in_network = sizes[label] > 1
        for atom in np.flatnonzero((sizes[label] > 1) & (sizes[label] <= LARGEST_MOLECULE)).tolist():
            if atom not in found and self._in_network[atom]:
                self._follow(atom, found)
        return found

    def _follow(self, atom: int, found: dict[int, dict[int, tuple[int, int, int]]]) -> None:
        """Follow the bonds from an atom; a component that meets its own image is endless, and not a molecule."""
        shifts, waiting = {atom: (0, 0, 0)}, [atom]
        while waiting:
            here = waiting.pop()
            for j, *shift in self.partners((here, *shifts[here])):
                if j not in shifts:
                    shifts[j] = (shift[0], shift[1], shift[2])
                    waiting.append(j)
                elif shifts[j] != tuple(shift):
                    return
        for j in shifts:
            found[j] = shifts
            self._in_network[j] = False

    def _find_kinds(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        kinds = np.full(len(self.target), "unbonded", dtype="<U8")
        metal = IS_METAL[self.target.numbers]
        kinds[metal] = "metal"
        bonded = np.diff(self._start) > 0
        salt = (metal[first] != metal[second]) & ~bonded[first] & ~bonded[second]
        kinds[first[salt]] = kinds[second[salt]] = "ionic"
        kinds[bonded] = "molecule"
        kinds[self._in_network] = "network"
        return kinds


def _bonds(target: Atoms) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return first and second atom of each bond, in both directions and a fixed order; shift of the second; True if the bond is short."""
    radii = covalent_radii[target.numbers]
    pairs = neighbor_pairs(target, 2 * STRETCH * float(radii.max()))
    first, second, shifts, lengths = pairs.first, pairs.second, pairs.shift, np.linalg.norm(pairs.vector, axis=1)
    natural = radii[first] + radii[second]
    order = np.lexsort((*shifts.T, second, first))
    order = order[(lengths < STRETCH * natural)[order]]
    return first[order], second[order], shifts[order], (lengths < MULTIPLE * natural)[order]
