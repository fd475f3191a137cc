"""Checks and notes at the first start of a run, before anything is trained: first images, terminations, charges, the method."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ase import Atoms

from amp.nft.activelearner.method import Method
from amp.nft.activelearner.setup import Setup
from amp.nft.chunks import charge_warning, check_magnetic_moments, summarise_terminations
from amp.nft.chunks.bonds import BondGraph
from amp.nft.errors import LabellingError
from amp.nft.initialization.parent_check import check_cell_sizes, compare_with_parent
from amp.nft.labels.identity import is_calculator
from amp.nft.labels.single_point import Parent, check_parent, parent_name

Log = Callable[[str], object]

ADSORBATE_ATOMS = 25  # least number of atoms of a chunk where molecules lie on a surface: a sphere there is half empty
LEAST_SOLID = 25  # atoms of a solid on which molecules may lie
SHORT_RANGED = ("EMT", "LennardJones", "MorsePotential")  # calculators whose forces in a chunk are those in the target


def check_start(setup: Setup, directory: Path, log: Log) -> None:
    """Check the first images by the parent, and log the effects of chunks and method on this target.

    Parameters
    ----------
    setup : Setup
    directory : Path
        Where files of these labels go.
    log : callable
        Takes a message.

    Raises
    ------
    ParentMismatch
        If the images have labels of another parent, unless `check_parent` only warns, or cells that are too small.
    LabellingError
        If the parent cannot label one of the images.
    """
    for message in (summary_of_chunks(setup), gain_from_robust(setup.method, setup.targets, setup.labels.parent)):
        if message:
            log(message)
    if not setup.images:
        return
    check_parent_of_images(setup, directory, log)
    if setup.images_calc is not None:
        for check in check_cell_sizes(setup.images, setup.images_calc, directory, setup.labels.executor):
            check.raise_if_different()
            log(str(check))


def check_parent_of_images(setup: Setup, directory: Path, log: Log) -> None:
    """Compare the label of one image with a new label by the parent, as `Method.check_parent` says.

    Parameters
    ----------
    setup : Setup
    directory : Path
        Directory in which the parent works.
    log : callable
        Takes a message.

    Raises
    ------
    ParentMismatch
        They differ; with 'warn' this is a warning.
    LabellingError
        The parent cannot label the image; with 'warn' this is a warning.
    """
    mode = setup.method.check_parent
    if mode is False:
        return
    try:
        comparison = compare_with_parent(setup.images, setup.labels.parent, directory, setup.labels.executor)
    except LabellingError as error:
        if mode == "error":
            raise
        warnings.warn(str(error), UserWarning, stacklevel=5)
        log(str(error))
        return
    if mode == "error":
        comparison.raise_if_different()
    elif not comparison.agrees:
        warnings.warn(str(comparison), UserWarning, stacklevel=5)
    log(str(comparison))


def summary_of_chunks(setup: Setup) -> str:
    """Describe the treatment of cut bonds, and warn if chunks are ions.

    Parameters
    ----------
    setup : Setup

    Returns
    -------
    str
        Empty for spheres of a target without charges.
    """
    carving = setup.carving
    charged = any(target.get_initial_charges().any() for target in setup.targets)
    if carving.termination == "sphere" and not charged:
        return ""
    chunks = carving.sample()
    if message := charge_warning(chunks):
        warnings.warn(message, UserWarning, stacklevel=5)
    summary = "" if carving.termination == "sphere" else str(summarise_terminations(setup.targets, chunks))
    return "\n".join(filter(None, (summary, message)))


def gain_from_robust(method: Method, targets: Sequence[Atoms], parent: Parent) -> str:
    """Return one line if a run with spheres and central forces would gain from the robust method; empty if it would not.

    Parameters
    ----------
    method : Method
    targets : sequence of Atoms
    parent : ASE calculator, or callable
        Never called.

    Returns
    -------
    str
        Spheres cut covalent bonds and separate ions. A metal gains too, unless the parent is known for short-ranged forces.
    """
    if method.forces != "centre" or method.termination != "sphere":
        return ""
    kinds = Counter(kind for target in targets for kind in BondGraph(target).kinds.tolist())
    bonded, total = kinds["molecule"] + kinds["network"], kinds.total()
    if bonded:
        reason = f"spheres cut covalent bonds ({bonded} of {total} atoms of the targets have them)"
    elif kinds["ionic"]:
        reason = f"spheres separate ions ({kinds['ionic']} of {total} atoms of the targets are ionic)"
    elif is_calculator(parent) and type(parent).__name__ in SHORT_RANGED:
        return ""
    else:
        reason = f"the force of {parent_name(parent)} in a chunk may differ from that in the target, see amp.nft.chunks.convergence"
    return f"This run would gain from NFT(method='robust'): {reason}."


def fitting_method(method: Method, targets: Sequence[Atoms], parent: Parent | None) -> Method:
    """Return the method with the least number of atoms of a chunk that suits the targets.

    Parameters
    ----------
    method : Method
    targets : sequence of Atoms
    parent : ASE calculator, or callable

    Returns
    -------
    Method
        "robust" takes 25 atoms where molecules lie on a surface; a number that the user gave stays.

    Raises
    ------
    ChunkError
        If the parent would add up the magnetic moments of each chunk to a total spin.
    """
    for target in targets:
        check_magnetic_moments(target, check_parent(parent))
    if method.name == "robust" and method.min_atoms is None and has_adsorbate(targets):
        return replace(method, min_atoms=ADSORBATE_ATOMS)
    return method


def has_adsorbate(targets: Sequence[Atoms]) -> bool:
    """Return True if molecules lie on a metal, an ionic crystal or a network in one of the targets.

    Parameters
    ----------
    targets : sequence of Atoms

    Returns
    -------
    bool
        A target with more atoms in molecules than in the solid is a liquid or a solution, and none of these.
    """
    for target in targets:
        kinds = Counter(BondGraph(target).kinds.tolist())
        solid = kinds["metal"] + kinds["ionic"] + kinds["network"]
        if solid >= LEAST_SOLID and 0 < kinds["molecule"] < solid:
            return True
    return False
