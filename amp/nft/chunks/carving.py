"""Carve the environment of an atom out of a large target as a free cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from ase import Atoms

from amp.nft.chunks.bonds import BondGraph
from amp.nft.chunks.sites import MARGIN, Site, depths, sites_within
from amp.nft.chunks.termination import Cut, Termination, check_termination, terminate, termination_name
from amp.nft.errors import ChunkError
from amp.nft.inputs.arguments import check_lengths, checked_indices
from amp.nft.inputs.geometry import check_atoms, neighbor_pairs

VACUUM = 5.0  # Å of empty space around a chunk on every side, as in the paper
RADIUS_STEP = 0.5  # Å by which the radius grows where a chunk has fewer than `min_atoms`
_AT_A_TIME = 1000  # centres of one neighbour search
_NOT_CARRIED = ("positions", "numbers", "momenta", "target_index", "depth")


def carve_chunks(
    target: Atoms, indices: Iterable[int], cutoff: float = 6.5, vacuum: float = VACUUM,
    *, termination: Termination = "sphere", min_atoms: int | None = None,
) -> list[Atoms]:  # fmt: skip
    """Carve one chunk around each of several atoms, with one neighbour search and one search for bonds.

    Parameters
    ----------
    target : Atoms
        The structure to carve from; never changed. It may be periodic in any direction,
        also with cells smaller than `cutoff`: periodic images become atoms of the chunk.
    indices : iterable of int, or of bool
        The central atoms, or a mask with one value for each atom of the target.
    cutoff : float
        Radius of a chunk in Å.
    vacuum : float
        Empty space around a chunk in Å.
    termination : {'sphere', 'hydrogen', 'molecules', 'neutral', 'auto'} or callable
        Treatment of the bonds that the surface of a chunk would cut.

        - 'sphere': all atoms within `cutoff`, nothing else.
        - 'molecules': each molecule that the sphere touches is completed.
        - 'hydrogen': covalent bonds are completed where one atom is enough, and capped with hydrogen elsewhere.
        - 'neutral': molecules, then the nearest counter-ions until the formal charges sum to zero.
        - 'auto': molecules are completed, networks capped with hydrogen, ions and metals stay as carved.
        - a function ``f(target, centre, radius)`` that returns Atoms in the frame of the target, with an array
          'target_index' (-1 for a hydrogen cap) and, where it is not 0, the total charge in ``info['charge']``, e.
    min_atoms : int, optional
        The radius of a chunk with fewer atoms of the target grows in steps of 0.5 Å until it has that many.

    Returns
    -------
    list of Atoms
        Free clusters (no periodic boundaries, constraints, velocities or calculator): the central atom first, then the other
        atoms of the target, then caps.

        Arrays: 'target_index', index in the target (-1 for caps), and 'depth', distance of an atom to the nearest atom of the
        target that the chunk lacks (Å; periodic images count; inf if it lacks none; nan for caps).
        Initial magnetic moments, tags and masses of the target are kept. Initial charges are kept by 'sphere' alone;
        with any other termination they sum to the total charge, which is zero unless a callable returns one.

        Info: 'target_atom' (index of the central atom), 'termination', 'radius' (Å), 'n_caps', and 'clashes', the number of
        pairs of caps closer than 1.2 Å.

    Raises
    ------
    InputError
        If `cutoff` is not a positive length or contains too many images of the cell, `indices` are neither indices nor a
        mask, or the target cannot be carved: without atoms or elements, periodic without a cell, two atoms in one place.
    ChunkError
        For an unknown termination or `min_atoms`, or a callable that returns atoms that are not the target's.
    AtomIndexError
        If an index is not one of the target's; also an IndexError.

    Notes
    -----
    Step 3 of the method: C. Zeng, X. Chen, A. A. Peterson, J. Chem. Phys. 156, 064104 (2022).
    """
    centres = _checked(target, indices, cutoff, termination, min_atoms)
    graph = None if termination == "sphere" else BondGraph(target)
    chunks, reach = [], cutoff + MARGIN
    surroundings = zip(centres, _spheres(target, centres, cutoff), _spheres(target, centres, reach), strict=True)
    for centre, sphere, near in surroundings:
        radius, cut = _cut(target, graph, centre, set(map(tuple, sphere.tolist())), cutoff, termination, min_atoms)
        sites = _in_order(target, centre, cut.sites)
        chunk = _cluster(target, sites, depths(target, sites, near, reach), cut, keep_charges=termination == "sphere")
        chunk.center(vacuum=vacuum)
        chunk.info.update(target_atom=int(centre), termination=termination_name(termination), radius=float(radius))
        chunk.info.update(n_caps=len(cut.caps), clashes=cut.clashes)
        chunks.append(chunk)
    return chunks


def carve_chunk(
    target: Atoms, index: int, cutoff: float = 6.5, vacuum: float = VACUUM,
    *, termination: Termination = "sphere", min_atoms: int | None = None,
) -> Atoms:  # fmt: skip
    """Carve the chunk around one atom.

    Parameters
    ----------
    target : Atoms
        The structure to carve from; never changed.
    index : int
        The central atom.
    cutoff, vacuum : float
        Radius of the chunk, and empty space around it, Å.
    termination, min_atoms : as there
        As for `carve_chunks`.

    Returns
    -------
    Atoms
        As `carve_chunks` makes it, with the same errors. For many atoms that is quicker: it searches for neighbours once.
    """
    return carve_chunks(target, [index], cutoff, vacuum, termination=termination, min_atoms=min_atoms)[0]


def _checked(target: Atoms, indices: Iterable[int], cutoff: float, termination: Termination, min_atoms: int | None) -> list[int]:
    check_lengths(cutoff=cutoff)
    check_termination(termination)
    if min_atoms is not None and not (isinstance(min_atoms, int | np.integer) and min_atoms > 0):
        raise ChunkError(f"min_atoms = {min_atoms!r} must be a positive integer, for example 25, or None.")
    check_atoms(target, "the target")
    return checked_indices("indices", indices, len(target), "atoms of the target").tolist()


def _spheres(target: Atoms, centres: list[int], radius: float) -> Iterator[np.ndarray]:
    """Yield the sites within a radius of each centre, itself first, from one neighbour search for some centres at a time."""
    for k in range(0, len(centres), _AT_A_TIME):
        some = centres[k : k + _AT_A_TIME]
        pairs = neighbor_pairs(target, radius, some)
        table = np.column_stack([pairs.second, pairs.shift])
        for centre, a, b in zip(some, pairs.start, pairs.start[1:], strict=False):
            yield np.vstack([[[centre, 0, 0, 0]], table[a:b]])


def _cut(
    target: Atoms, graph: BondGraph | None, centre: int, sphere: set[Site], radius: float, termination: Termination,
    min_atoms: int | None,
) -> tuple[float, Cut]:  # fmt: skip
    """Return the terminated sphere and its radius, which grows until the chunk has `min_atoms`, or all atoms of the target."""
    while True:
        cut = Cut(sphere) if graph is None else terminate(graph, sphere, centre, radius, termination)
        if len(cut.sites) >= (min_atoms or 0) or (len(cut.sites) == len(target) and not target.pbc.any()):
            return radius, cut
        radius += RADIUS_STEP
        sphere = set(map(tuple, sites_within(target, target.positions[centre], radius).tolist()))


def _cluster(target: Atoms, sites: np.ndarray, depth: np.ndarray, cut: Cut, keep_charges: bool) -> Atoms:
    members, n_caps, centre = sites[:, 0], len(cut.caps), sites[0, 0]
    positions = np.vstack([target.positions[centre] + _vectors(target, centre, sites), *cut.caps])
    chunk = Atoms(numbers=np.append(target.numbers[members], np.ones(n_caps, dtype=int)), positions=positions, pbc=False)
    for name, values in target.arrays.items():
        if name not in _NOT_CARRIED and (keep_charges or name != "initial_charges"):
            chunk.set_array(name, _with_caps(name, values[members], n_caps))
    if cut.charge:
        chunk.set_initial_charges(np.append(cut.charge, np.zeros(len(chunk) - 1)))
    chunk.set_array("target_index", np.append(members, np.full(n_caps, -1)))
    chunk.set_array("depth", np.append(depth, np.full(n_caps, np.nan)))
    return chunk


def _vectors(target: Atoms, centre: int, sites: np.ndarray) -> np.ndarray:
    """Return the vectors from the centre to sites, Å."""
    return target.positions[sites[:, 0]] - target.positions[centre] + sites[:, 1:] @ target.cell.array


def _in_order(target: Atoms, centre: int, sites: set[Site]) -> np.ndarray:
    """Sort sites, the centre first: by atom, then images by their vectors, so that a chunk's hash depends on nothing else."""
    table = np.array(sorted(sites - {(centre, 0, 0, 0)}), dtype=int).reshape(-1, 4)
    vectors = np.round(_vectors(target, centre, table), 9)
    return np.vstack([[[centre, 0, 0, 0]], table[np.lexsort((*vectors.T, table[:, 0]))]])


def _with_caps(name: str, values: np.ndarray, n_caps: int) -> np.ndarray:
    """Return a per-atom array of the target, with entries for caps: zeros, but the mass of hydrogen."""
    caps = np.zeros((n_caps, *values.shape[1:]), dtype=values.dtype)
    if name == "masses":
        caps[:] = Atoms("H").get_masses()[0]
    return np.concatenate([values, caps])
