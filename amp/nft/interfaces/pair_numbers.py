"""Energy and forces of a deck's pair style on the structure by which members recognize their baseline."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.lammps import Prism

from amp.nft.amp_io import AmpModel
from amp.nft.amp_io.baseline_data import described, stored_baseline
from amp.nft.errors import InputError
from amp.nft.interfaces.commands import commands, words
from amp.nft.interfaces.lammps import elements_of_types
from amp.nft.interfaces.pair_baseline import check_pair_styles

VACUUM = 10.0  # Å
TOLERANCE = 0.005  # eV/Å, and eV per atom
RELATIVE = 0.01  # of the largest force; two programs that read one table of an embedded-atom potential differ by 0.004
_NOT = "The numbers of the pair style were not compared with those of the baseline: "
_QUIET = ("-screen", "none", "-log", "none")
# commands that compute, move or write; none of them defines a potential
_SKIPPED = re.compile(
    r"(un)?fix|fix_modify|(un)?compute|compute_modify|(un)?dump|dump_modify|thermo\w*|log|shell|print|info|run|rerun|minimize|velocity|"
    r"restart|write_\w+|timer|timestep|reset_\w+|processors|balance|displace_atoms"
)


def check_numbers(
    lammps: Any, comm: Any, head: str, variables: Sequence[str], path: Path, models: Sequence[AmpModel],
    arguments: Sequence[str] = (), species: Sequence[str] | None = None, named: str | None = None,
) -> str:  # fmt: skip
    """Compare the pair style of a deck with the baseline to which members add, in a LAMMPS instance of one process.

    Parameters
    ----------
    lammps : class
    comm : mpi4py.MPI.Comm
        Of this process alone.
    head : str
        Commands of the deck up to its ``fix external``.
    variables : sequence of str
        Commands before it.
    path : Path
        File for the commands, which is written.
    models : sequence of AmpModel
        With a baseline.
    arguments, species, named : as there
        As for `run_deck`.

    Returns
    -------
    str
        By how much they differ, or the reason for which they were not compared.

    Raises
    ------
    InputError
        The pair style is missing, or it gives other numbers.
    """
    stored = stored_baseline(models)
    assert stored is not None
    probe = Atoms(**{name: stored["probe"][name] for name in ("numbers", "positions", "cell", "pbc")})
    lmp = lammps(cmdargs=[*arguments, *_QUIET], comm=comm)
    try:
        kept = [one for one in commands(head) if not (found := words(one)) or not _SKIPPED.fullmatch(found[0])]
        lmp.commands_list(["box tilt large", *variables])
        path.write_text("".join(kept), encoding="utf-8")
        lmp.file(str(path))
        check_pair_styles(lmp, models, named)
        elements = elements_of_types(lmp, list(models), species)
        if reason := _cannot_compare(lmp, probe, elements):
            return _NOT + reason
        energy, forces = _evaluate(lmp, probe, elements)
    except InputError:
        raise
    except Exception as error:  # LAMMPS's own are plain
        return f"{_NOT}{error}"
    finally:
        lmp.close()
    before, formula = np.array(stored["probe"]["forces"]), probe.get_chemical_formula()
    gap, rest = float(np.abs(forces - before).max()), abs(energy - stored["probe"]["energy"]) / len(probe)
    limit = max(TOLERANCE, RELATIVE * float(np.abs(before).max()))
    if gap > limit or rest > TOLERANCE:
        raise InputError(
            f"the pair style of the deck is not the baseline {described(stored)}, to which this ensemble adds: on {formula} its forces "
            f"differ by up to {gap:.3g} eV/Å (limit {limit:.3g}), and its energy by {rest:.3g} eV per atom (limit {TOLERANCE:g}). Write "
            "the pair_coeff, file, cutoff and shift of the baseline."
        )
    return f"Pair style and baseline agree on {formula} to {gap:.1g} eV/Å and {rest:.1g} eV per atom."


def _cannot_compare(lmp: Any, probe: Atoms, elements: dict[int, str]) -> str:
    """Return the reason for which a structure cannot take the place of the deck's atoms, or an empty text."""
    if missing := sorted({*probe.symbols} - {*elements.values()}):
        return f"the deck has no type for {', '.join(missing)}"
    if lmp.extract_setting("q_flag") or lmp.extract_setting("molecule_flag"):
        return "the atoms of the deck have charges or bonds"
    return ""


def _evaluate(lmp: Any, probe: Atoms, elements: dict[int, str]) -> tuple[float, np.ndarray]:
    """Return energy and forces of the pair style on a structure, which replaces the atoms of an instance."""
    atoms = probe.copy()
    if free := [axis for axis in range(3) if not atoms.pbc[axis]]:
        atoms.center(vacuum=VACUUM, axis=free)
    prism, type_of = Prism(atoms.cell.array, pbc=atoms.pbc), {element: number for number, element in elements.items()}
    xx, yy, zz, xy, xz, yz = map(float, prism.get_lammps_prism())
    tilted = lmp.extract_setting("triclinic") or max(abs(xy), abs(xz), abs(yz)) > 1e-10  # that of the deck would stay
    lmp.commands_list([
        "delete_atoms group all",
        *(["change_box all triclinic"] if tilted else []),
        "change_box all boundary p p p",
        f"change_box all x final 0 {xx!r} y final 0 {yy!r} z final 0 {zz!r}",
        *([f"change_box all xy final {xy!r} xz final {xz!r} yz final {yz!r}"] if tilted else []),
        f"change_box all boundary {' '.join('p' if one else 'f' for one in atoms.pbc)}",
        "mass * 1.0",
    ])  # fmt: skip
    places = prism.vector_to_lammps(atoms.positions, wrap=False)
    n = len(atoms)
    lmp.create_atoms(n, list(range(1, n + 1)), [type_of[symbol] for symbol in atoms.symbols], places.ravel().tolist())
    lmp.command("run 0 post no")
    order = np.argsort(lmp.numpy.extract_atom("id", nelem=n))
    forces = np.array(lmp.numpy.extract_atom("f", nelem=n, dim=3))[order]
    return float(lmp.get_thermo("pe")), prism.vector_to_ase(forces)
