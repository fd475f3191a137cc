"""An ensemble as a force field of LAMMPS, with MPI: forces, energy, virial and uncertainties through ``fix external``."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from ctypes import POINTER, c_double
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from ase.data import atomic_numbers

from amp.nft.amp_io import AmpModel, read_ensemble
from amp.nft.amp_io.committee_file import refuse_committee
from amp.nft.errors import InputError, NFTError
from amp.nft.interfaces.ghosts import GhostMap
from amp.nft.interfaces.pair_baseline import check_pair_styles
from amp.nft.interfaces.waiting import exit_code

if TYPE_CHECKING:
    from lammps import lammps

    from amp.nft.kernels.prediction.domain import Domain

SKIN = 0.5  # Å
DELTA, EXTRAPOLATING = "d_delta", "i_extrapolating"  # properties of atoms, where the deck defines them
VECTOR = 3  # numbers in f_ID: largest uncertainty, atoms that extrapolate, mean uncertainty
_CHECK = "nft_cutoff"  # compute whose check of its cutoff LAMMPS makes at each run
_VOIGT = ([0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2])  # order of LAMMPS


def attach(
    lmp: lammps,
    ensemble: str | os.PathLike[str] | Sequence[AmpModel],
    species: Sequence[str] | None = None,
    *,
    fix: str = "nft",
    skin: float = SKIN,
    baseline: str | None = None,
) -> Attached:
    """Let an ensemble give the forces in a LAMMPS instance; all processes call it together.

    Parameters
    ----------
    lmp : lammps.lammps
        With a box, atoms, and a pair style with at least the cutoff of the fingerprints, such as ``pair_style zero``.
    ensemble : path, or sequence of AmpModel
    species : sequence of str, optional
        Element of each atom type; from ``labelmap atom`` if not given.
    fix : str
        ID of the ``fix ID all external pf/callback 1 1``. It is defined, with ``fix_modify ID energy yes virial yes``, if there is none.
    skin : float
        Neighbour lists are valid until an atom has moved half of this, Å.
    baseline : str, optional
        Pair style of the instance that gives the baseline to which the members add, such as ``lj/cut``, alone or in ``hybrid/overlay``.
        It is known where the baseline is LAMMPS itself.

    Returns
    -------
    Attached

    Raises
    ------
    InputError
        If units, types, IDs of atoms, the MPI library or the baseline do not fit.
    AmpFileError, UnsupportedModel, FileNotFoundError
        If the ensemble cannot be read.

    Notes
    -----
    The fix gives energy (eV), virial and a vector: ``f_nft[1]``, the largest uncertainty of a force (eV/Å); ``f_nft[2]``, the number of
    atoms with a fingerprint outside the range of the training; ``f_nft[3]``, the mean uncertainty. Where ``fix property/atom`` defines
    ``d_delta`` or ``i_extrapolating``, each atom has its own. If an error occurs during a run, its message is printed and all processes
    end with exit status 1, since LAMMPS cannot stop on one process alone.
    """
    models = networks(ensemble)
    comm = _communicator(lmp)
    _check_instance(lmp)
    check_pair_styles(lmp, models, baseline)
    elements = elements_of_types(lmp, models, species)
    if not lmp.has_id("fix", fix):
        lmp.command(f"fix {fix} all external pf/callback 1 1")
        lmp.command(f"fix_modify {fix} energy yes virial yes")
    radius = float(models[0].cutoff["kwargs"]["Rc"])
    if not lmp.has_id("compute", _CHECK):
        lmp.command(f"compute {_CHECK} all coord/atom cutoff {radius!r}")  # never evaluated: LAMMPS compares it with the pair cutoff
    attached = Attached(lmp, comm, fix, models, elements, skin)
    lmp.fix_external_set_vector_length(fix, VECTOR)
    lmp.set_fix_external_callback(fix, attached.compute, None)
    return attached


def networks(ensemble: str | os.PathLike[str] | Sequence[AmpModel]) -> list[AmpModel]:
    """Return the members, which must be networks of Amp.

    Parameters
    ----------
    ensemble : path, or sequence of AmpModel

    Returns
    -------
    list of AmpModel

    Raises
    ------
    AmpFileError, UnsupportedModel, FileNotFoundError
        The file cannot be read, or has models of another program.
    """
    remedy = "Use the pair style of that program, or dynamics of ASE with amp.nft.calculator.load and an UncertaintyMonitor."
    refuse_committee(ensemble, "only networks of Amp run in LAMMPS, by the kernels of amp.nft on all processes", remedy)
    return read_ensemble(ensemble) if isinstance(ensemble, str | os.PathLike) else list(ensemble)


class Attached:
    """An ensemble in one process of a LAMMPS instance; `attach` makes it.

    Parameters
    ----------
    lmp : lammps.lammps
    comm : mpi4py.MPI.Comm
    fix : str
        ID of the fix.
    models : list of AmpModel
    elements : dict of int to str
        Element of each atom type; a type that is missing must have no atom.
    skin : float
        Å.

    Attributes
    ----------
    delta_max, delta_mean : float
        Largest and mean uncertainty of the force on an atom in the last step, eV/Å.
    extrapolating : int
        Atoms with a fingerprint outside the range of the training in the last step.
    energy : float
        eV.
    delta_i : ndarray, shape (atoms of this process,)
        Uncertainty of the force on each atom, eV/Å.
    builds : int
        Number of times that this process listed neighbours.
    elements : dict of int to str
    first : callable or None
        Called once, with the step, before the first step.
    again : callable or None
        Called, with the step, before a step that is computed a second time, as at the begin of each ``run``.
    """

    def __init__(self, lmp: lammps, comm: Any, fix: str, models: list[AmpModel], elements: dict[int, str], skin: float) -> None:
        from amp.nft.kernels.prediction.domain import Domain

        self._lmp, self._comm, self._fix, self._skin, self.elements = lmp, comm, fix, skin, elements
        self._make_domain = Domain
        self._kinds = np.full(lmp.extract_setting("ntypes") + 1, -1, dtype=np.int64)
        self.first: Callable[[int], object] | None = None
        self.again: Callable[[int], object] | None = None
        self._step = -1
        self.reload(models)
        self._tags = np.empty(0, dtype=np.int64)
        self._n = -1  # no step so far
        self._ghosts: GhostMap | None = None
        self.delta_max = self.delta_mean = self.energy = np.nan
        self.extrapolating = self.builds = 0
        self.delta_i = np.empty(0)

    def reload(self, ensemble: str | os.PathLike[str] | Sequence[AmpModel]) -> None:
        """Continue with another ensemble from the next step on; all processes call it.

        Parameters
        ----------
        ensemble : path, or sequence of AmpModel
            Of the same elements and cutoff.

        Raises
        ------
        InputError
            If it lacks an element, or has another cutoff.
        """
        from amp.nft.kernels.prediction.evaluate import Evaluator

        models = networks(ensemble)
        radius = float(models[0].cutoff["kwargs"]["Rc"])
        if radius != getattr(self, "_radius", radius) or not {*self.elements.values()} <= {*models[0].elements}:
            raise InputError(
                f"the new ensemble has elements {', '.join(models[0].elements)} and cutoff {radius} Å: it must have the elements "
                f"{', '.join(self.elements.values())} and the cutoff of the first one."
            )
        self._radius, self._evaluator = radius, Evaluator(models)
        for number, element in self.elements.items():
            self._kinds[number] = self._evaluator.fingerprints.kinds(np.array([atomic_numbers[element]]))[0]
        self._domain: Domain | None = None

    def compute(self, _: object, step: int, n_atoms: int, __: object, ___: object, forces: np.ndarray | None) -> None:
        """Compute a step; LAMMPS calls it.

        Parameters
        ----------
        _ : object
        step : int
        n_atoms : int
            Of this process.
        __, ___ : object
        forces : ndarray, shape (atoms, 3), or None
            Is overwritten, eV/Å.
        """
        try:
            if self._step == -1 and self.first is not None:
                self.first(step)
            if step == self._step and self.again is not None:
                self.again(step)
            self._step = step
            self._compute(step, n_atoms, forces)
        except BaseException as error:  # ctypes would print it and continue
            _end_all(self._comm, step, error)

    def _compute(self, step: int, n: int, forces: np.ndarray | None) -> None:
        lmp = self._lmp
        total = n + lmp.extract_setting("nghost")
        positions, tags, types = self._atoms(total)
        changed = n != self._n or len(tags) != len(self._tags) or bool((tags != self._tags).any())
        if self._any(changed):
            if n and tags[:n].min() < 1:
                raise InputError("the atoms have no IDs, by which ghosts find their atoms: remove `atom_modify id no`.")
            self._n, self._tags = n, tags.copy()
            self._domain, self._ghosts = None, GhostMap(self._comm, tags[:n], tags[n:])
        if self._domain is None or not self._domain.holds(positions):
            self.builds += 1
            self._domain = self._make_domain(self._evaluator, positions, self._checked_kinds(types), n, self._skin)
        assert self._ghosts is not None
        each = lmp.extract_global("vflag_atom") == step
        stress = each or lmp.extract_global("vflag_global") == step
        self._domain.evaluate(positions, stress)
        rows = self._domain.ghost_forces(self._ghosts.row_g, self._ghosts.rows)
        self._domain.add_forces(self._ghosts.bring_home(rows), self._ghosts.atom_r)
        mean, self.delta_i = self._domain.summary()
        if n:
            assert forces is not None
            forces[:] = mean
        self._report(n, stress)
        self._report_atoms(n, each, lmp.extract_global("eflag_atom") == step)

    def _atoms(self, total: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return positions, IDs and types of atoms and ghosts, views of LAMMPS's own."""
        if not total:
            return np.empty((0, 3)), np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        get = self._lmp.numpy.extract_atom
        return get("x", nelem=total, dim=3), get("id", nelem=total), get("type", nelem=total)

    def _any(self, value: bool) -> bool:
        """Return True if it is True in any process."""
        return bool(self._comm.allreduce(int(value)))

    def _checked_kinds(self, types: np.ndarray) -> np.ndarray:
        kind = self._kinds[types]
        if (kind < 0).any():
            raise InputError(
                f"an atom has type {int(types[kind < 0][0])}, whose element is not known: name it by `labelmap atom`, or give an element "
                "for each type (--elements, species)."
            )
        return kind

    def _report(self, n: int, stress: bool) -> None:
        """Give the sums over all processes to LAMMPS."""
        domain, lmp = self._domain, self._lmp
        assert domain is not None
        virial = domain.virial_ab if stress else np.zeros((3, 3))
        sums = np.array([domain.energy_i.sum(), domain.outside_i.sum(), self.delta_i.sum(), n, *((virial + virial.T) / 2)[_VOIGT]])
        self._comm.Allreduce(_mpi().IN_PLACE, sums)
        most = np.array([self.delta_i.max(initial=0.0)])
        self._comm.Allreduce(_mpi().IN_PLACE, most, _mpi().MAX)
        self.energy, self.extrapolating = float(sums[0]), int(sums[1])
        self.delta_max, self.delta_mean = float(most[0]), float(sums[2] / max(sums[3], 1))
        lmp.fix_external_set_energy_global(self._fix, self.energy)
        if stress:
            lmp.fix_external_set_virial_global(self._fix, sums[4:].tolist())
        for number, value in enumerate((self.delta_max, self.extrapolating, self.delta_mean), start=1):
            lmp.fix_external_set_vector(self._fix, number, float(value))

    def _report_atoms(self, n: int, stresses: bool, energies: bool) -> None:
        """Give each atom its uncertainty, and energy and virial where LAMMPS wants them."""
        domain, lmp = self._domain, self._lmp
        assert domain is not None
        if not n:
            return
        for name, values in ((DELTA, self.delta_i), (EXTRAPOLATING, domain.outside_i)):
            if lmp.extract_atom_datatype(name) >= 0:
                lmp.numpy.extract_atom(name, nelem=n)[:] = values
        if energies:
            pointer = domain.energy_i.ctypes.data_as(POINTER(c_double))
            lmp.lib.lammps_fix_external_set_energy_peratom(lmp.lmp, self._fix.encode(), pointer)
        if stresses:
            symmetric = (domain.virial_iab + domain.virial_iab.transpose(0, 2, 1)) / 2
            rows = np.ascontiguousarray(symmetric[:, _VOIGT[0], _VOIGT[1]])
            lines = rows.ctypes.data + rows.strides[0] * np.arange(n, dtype=np.uintp)
            pointers = lines.astype(np.uintp).ctypes.data_as(POINTER(POINTER(c_double)))
            lmp.lib.lammps_fix_external_set_virial_peratom(lmp.lmp, self._fix.encode(), pointers)


def _mpi() -> Any:
    from mpi4py import MPI

    return MPI


def _end_all(comm: Any, step: int, error: BaseException) -> NoReturn:
    """Print an error and end all processes."""
    if not isinstance(error, NFTError | KeyboardInterrupt | SystemExit):
        traceback.print_exception(error)
    if not isinstance(error, SystemExit):  # after a message
        print(f"amp-nft lammps: step {step}, rank {comm.rank}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    comm.Abort(exit_code(error))
    raise SystemExit(1)  # Abort does not return


def _communicator(lmp: lammps) -> Any:
    """Return the communicator of LAMMPS; InputError unless it and mpi4py use one MPI library."""
    comm = lmp.get_mpi_comm() if lmp.has_mpi_support else _mpi().COMM_SELF
    started = int(os.environ.get("PMI_SIZE") or os.environ.get("OMPI_COMM_WORLD_SIZE") or 1)
    if comm is None or comm.size != lmp.extract_setting("world_size") or (started > 1 and _mpi().COMM_WORLD.size == 1):
        raise InputError(
            f"mpirun started {started} processes, LAMMPS sees {lmp.extract_setting('world_size')} and mpi4py {_mpi().COMM_WORLD.size}: all "
            "three must use one MPI library. Use the mpirun that `pip install lammps[mpi] mpi4py` puts next to this Python."
        )
    return comm


def _check_instance(lmp: lammps) -> None:
    """Raise InputError for units, or a state, that the ensemble cannot use."""
    if (units := lmp.extract_global("units")) != "metal":
        raise InputError(f"units are {units!r}: an ensemble gives eV and Å, so write `units metal`.")
    if not lmp.extract_setting("box_exist"):
        raise InputError("there is no box: `fix external` must come after read_data, read_restart or create_box.")
    if lmp.extract_setting("dimension") != 3:
        raise InputError("dimension is 2: an ensemble needs `dimension 3`.")


def elements_of_types(lmp: lammps, models: list[AmpModel], species: Sequence[str] | None) -> dict[int, str]:
    """Return the element of each atom type, from 1 on.

    Parameters
    ----------
    lmp : lammps.lammps
    models : list of AmpModel
    species : sequence of str or None
        Element of each type, in place of the labels of the instance.

    Returns
    -------
    dict of int to str

    Raises
    ------
    InputError
        The elements do not fit.
    """
    known, n_types = models[0].elements, lmp.extract_setting("ntypes")
    found = _labelled_types(lmp, known) if species is None else dict(enumerate(species, start=1))
    if species is not None and len(species) != n_types:
        raise InputError(f"{len(species)} elements are given for {n_types} atom types: give one for each type, in their order.")
    if not found:
        raise InputError(
            f"the atom types have no labels of {', '.join(known)}: write `labelmap atom 1 {known[0]} ...` before `fix external`, or give "
            "an element for each type (--elements, species)."
        )
    if unknown := sorted(set(found.values()) - set(known)):
        raise InputError(f"the ensemble was trained on {', '.join(known)}, and not on {', '.join(unknown)}: train one on every element.")
    return found


def _labelled_types(lmp: lammps, elements: Sequence[str]) -> dict[int, str]:
    """Return the elements of atom types whose labels are elements of the ensemble."""
    found = {}
    before = lmp.lib.lammps_set_show_error(lmp.lmp, 0)
    try:
        for element in elements:
            try:
                found[int(lmp.eval(f"label2type(atom,{element})"))] = element
            except Exception:  # there is no such label
                continue
    finally:
        lmp.lib.lammps_set_show_error(lmp.lmp, before)
    return found
