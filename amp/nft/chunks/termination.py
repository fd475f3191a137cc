"""Terminations of a chunk: the treatment of the bonds that its surface would cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from scipy.spatial.distance import pdist

from amp.nft.chunks.bonds import BondGraph
from amp.nft.chunks.sites import Site, site_positions, sites_within
from amp.nft.errors import ChunkError

Termination = str | Callable[[Atoms, int, float], Atoms]

CLASH = 1.2  # Å; two caps that are closer repel each other
_ROUNDS = 6  # of adding atoms that would otherwise be cut off by a single or multiple bond
_SAME_PLACE = 1e-3  # Å between an atom that a user's termination returns, and its site in the target
_NEUTRAL = 0.01  # e; formal charges below it are zero
_ION_REACH = 3.0  # times the radius of the chunk: counter-ions farther away are not added

# Charges of ions, e, where the target carries no initial charges.
FORMAL_CHARGES = {
    **dict.fromkeys(("Li", "Na", "K", "Rb", "Cs", "Ag"), 1.0),
    **dict.fromkeys(("Be", "Mg", "Ca", "Sr", "Ba", "Zn", "Cd", "Ni", "Co", "Mn", "Fe", "Cu"), 2.0),
    **dict.fromkeys(("Al", "Ga", "In", "Sc", "Y", "La", "Cr"), 3.0),
    **dict.fromkeys(("Ti", "Zr", "Hf", "Ce"), 4.0),
    **dict.fromkeys(("F", "Cl", "Br", "I", "H"), -1.0),
    **dict.fromkeys(("O", "S", "Se", "Te"), -2.0),
    **dict.fromkeys(("N", "P", "As"), -3.0),
}


@dataclass(frozen=True)
class Cut:
    """Atoms of a terminated chunk.

    Attributes
    ----------
    sites : set of Site
        Atoms of the target, the central one among them.
    caps : list of ndarray, shape (3,)
        Positions of the hydrogen atoms that were added, Å, in the frame of the target.
    charge : float
        Total charge, e.
    """

    sites: set[Site]
    caps: list[np.ndarray] = field(default_factory=list)
    charge: float = 0.0

    @property
    def clashes(self) -> int:
        """Number of pairs of caps closer than 1.2 Å."""
        return int((pdist(self.caps) < CLASH).sum()) if len(self.caps) > 1 else 0


def check_termination(termination: Termination) -> None:
    """Raise ChunkError unless a termination is a known name or callable.

    Parameters
    ----------
    termination : str or callable
    """
    if not (callable(termination) or (isinstance(termination, str) and termination in TERMINATIONS)):
        names = ", ".join(repr(name) for name in TERMINATIONS)
        raise ChunkError(f"termination = {termination!r} must be one of {names}, or a function f(target, centre, radius) -> Atoms.")


def termination_name(termination: Termination) -> str:
    """Return the name of a termination, for logs and tables.

    Parameters
    ----------
    termination : str or callable

    Returns
    -------
    str
    """
    return termination if isinstance(termination, str) else getattr(termination, "__name__", type(termination).__name__)


def terminate(graph: BondGraph, sites: set[Site], centre: int, radius: float, termination: Termination) -> Cut:
    """Terminate a chunk.

    Parameters
    ----------
    graph : BondGraph
        Bonds of the target.
    sites : set of Site
        Atoms within `radius` of the central one, which is at shift 0.
    centre : int
        Central atom.
    radius : float
        In Å.
    termination : str or callable
        See `amp.nft.chunks.carve_chunks`.

    Returns
    -------
    Cut

    Raises
    ------
    ChunkError
        If the termination is not known, or a callable returns atoms that are not the target's.
    """
    check_termination(termination)
    if isinstance(termination, str):
        return TERMINATIONS[termination](graph, set(sites), (centre, 0, 0, 0), radius)
    return _from_user(graph.target, centre, termination(graph.target.copy(), centre, radius))


def complete_molecules(graph: BondGraph, sites: set[Site]) -> set[Site]:
    """Return sites with each molecule that they touch completed.

    Parameters
    ----------
    graph : BondGraph
    sites : set of Site

    Returns
    -------
    set of Site
    """
    return sites.union(*(graph.molecule(site) for site in sites))


def saturate(graph: BondGraph, sites: set[Site], centre: Site) -> Cut:
    """Complete and cap the covalent bonds that a surface cuts.

    A hydrogen atom without its partner is dropped; where it is the centre, its partner is added. Then, in up to six rounds, an
    outside atom is added that has one bond only, that is bonded to two or more atoms of the chunk, or whose bond to one is a
    multiple one. A hydrogen atom, at the sum of covalent radii, caps each bond that is still cut.

    Parameters
    ----------
    graph : BondGraph
    sites : set of Site
    centre : Site
        Never dropped.

    Returns
    -------
    Cut
    """
    kept = {site for site in sites if site == centre or not _is_lone_hydrogen(graph, site, sites)}
    if graph.target.numbers[centre[0]] == 1:
        kept.update(graph.partners(centre))
    for _ in range(_ROUNDS):
        added = {outside for site in kept for outside, multiple in graph.bonds(site) if outside not in kept and (
            multiple or _is_held(graph, outside, kept))}  # fmt: skip
        if not added:
            break
        kept |= added
    cut = [(site, outside) for site in sorted(kept) for outside in graph.partners(site) if outside not in kept]
    return Cut(kept, [_cap(graph.target, site, outside) for site, outside in cut])


def neutralise(graph: BondGraph, sites: set[Site], centre: Site, radius: float) -> set[Site]:
    """Add the nearest counter-ions until the formal charges of the ions sum to zero, or none is left within three radii.

    Parameters
    ----------
    graph : BondGraph
    sites : set of Site
    centre : Site
    radius : float
        Of the chunk, Å.

    Returns
    -------
    set of Site
    """
    charges = ion_charges(graph)
    total = sum(charges[atom] for atom, *_ in sites)
    if abs(total) < _NEUTRAL:
        return sites
    origin = site_positions(graph.target, [centre])[0]
    around = sites_within(graph.target, origin, _ION_REACH * radius)
    distances = np.linalg.norm(site_positions(graph.target, around) - origin, axis=1)
    near = [tuple(around[k].tolist()) for k in np.lexsort((*around.T, np.round(distances, 6))) if charges[around[k][0]]]
    outside = [site for site in near if site not in sites]
    kept = set(sites)
    while abs(total) >= _NEUTRAL:
        counter = next((site for site in outside if charges[site[0]] * total < 0), None)
        if counter is None:
            break
        outside.remove(counter)
        kept.add(counter)
        total += charges[counter[0]]
    return kept


def ion_charges(graph: BondGraph) -> np.ndarray:
    """Return the formal charge of each atom.

    Parameters
    ----------
    graph : BondGraph

    Returns
    -------
    ndarray, shape (atoms,)
        In e: the target's initial charges if it has any, else those of a table; 0 for an atom that is not ionic.
    """
    charges = graph.target.get_initial_charges()
    if not charges.any():
        charges = np.array([FORMAL_CHARGES.get(symbol, 0.0) for symbol in graph.target.symbols])
    return np.where(graph.kinds == "ionic", charges, 0.0)


def _is_lone_hydrogen(graph: BondGraph, site: Site, sites: set[Site]) -> bool:
    partners = graph.partners(site) if graph.target.numbers[site[0]] == 1 else []
    return bool(partners) and sites.isdisjoint(partners)


def _is_held(graph: BondGraph, outside: Site, kept: set[Site]) -> bool:
    """Return True if an atom has no bond but that to the chunk, or two and more to it."""
    partners = graph.partners(outside)
    return len(partners) == 1 or len(kept.intersection(partners)) > 1


def _cap(target: Atoms, site: Site, outside: Site) -> np.ndarray:
    here, there = site_positions(target, [site, outside])
    length = covalent_radii[target.numbers[site[0]]] + covalent_radii[1]
    return here + (there - here) * length / np.linalg.norm(there - here)


def _sphere(graph: BondGraph, sites: set[Site], centre: Site, radius: float) -> Cut:
    return Cut(sites)


def _hydrogen(graph: BondGraph, sites: set[Site], centre: Site, radius: float) -> Cut:
    return saturate(graph, sites, centre)


def _molecules(graph: BondGraph, sites: set[Site], centre: Site, radius: float) -> Cut:
    return Cut(complete_molecules(graph, sites))


def _neutral(graph: BondGraph, sites: set[Site], centre: Site, radius: float) -> Cut:
    return Cut(neutralise(graph, complete_molecules(graph, sites), centre, radius))


def _auto(graph: BondGraph, sites: set[Site], centre: Site, radius: float) -> Cut:
    """Complete molecules, cap networks; ions and metals stay as carved."""
    return saturate(graph, complete_molecules(graph, sites), centre)


TERMINATIONS = {"sphere": _sphere, "hydrogen": _hydrogen, "molecules": _molecules, "neutral": _neutral, "auto": _auto}


def _from_user(target: Atoms, centre: int, made: Atoms) -> Cut:
    """Cut from the atoms that a user's function returned; ChunkError if they are not the target's."""
    rule = "a termination must return ase.Atoms in the frame of the target"
    if not isinstance(made, Atoms):
        raise ChunkError(f"The termination returned a {type(made).__name__}: {rule}.")
    if "target_index" not in made.arrays:
        raise ChunkError(f"The termination returned no array 'target_index': {rule}, with the index of each atom in it, -1 for a cap.")
    index = made.arrays["target_index"].astype(int)
    kept = np.flatnonzero(index >= 0)
    if not len(kept) or index.max() >= len(target):
        raise ChunkError(f"The termination returned target_index = {index.tolist()}: give indices below {len(target)}, and -1 for caps.")
    shifts = np.zeros((len(kept), 3), dtype=int)
    if target.pbc.any():
        cell = target.cell.complete().array
        fractions = (made.positions[kept] - target.positions[index[kept]]) @ np.linalg.inv(cell)
        shifts = np.where(target.pbc, np.round(fractions), 0).astype(int)
    table = np.column_stack([index[kept], shifts])
    off = np.linalg.norm(site_positions(target, table) - made.positions[kept], axis=1)
    other = made.numbers[kept] != target.numbers[index[kept]]
    if (off > _SAME_PLACE).any() or other.any():
        atom = int(kept[np.flatnonzero((off > _SAME_PLACE) | other)[0]])
        raise ChunkError(
            f"The termination returned atom {atom} ({made.symbols[atom]}) as atom {index[atom]} of the target, but element or position "
            f"differ: {rule}."
        )
    sites = {(int(row[0]), int(row[1]), int(row[2]), int(row[3])) for row in table}
    if (centre, 0, 0, 0) not in sites:
        raise ChunkError(f"The termination returned a chunk without its central atom {centre}: keep it.")
    if (made.numbers[index < 0] != 1).any():
        raise ChunkError("The termination returned caps that are not hydrogen: caps must be hydrogen atoms.")
    return Cut(sites, list(made.positions[index < 0]), float(made.info.get("charge", 0.0)))
