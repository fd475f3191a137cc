"""A baseline: a calculator that is subtracted from all labels on the way in, and added to all predictions on the way out."""

from __future__ import annotations

import json
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.singlepoint import SinglePointCalculator

from amp.nft.amp_io import AmpModel
from amp.nft.amp_io.baseline_data import KEY, baseline_of_texts, class_of, described, stored_baseline, with_baseline
from amp.nft.errors import InputError, LabellingError, RunStoreError
from amp.nft.labels.gate import Label, LabelFailure
from amp.nft.labels.identity import Identity, differences, identify, is_calculator, structure_key
from amp.nft.labels.single_point import Parent, make_calculator, parent_name, single_point

AGREE = 1e-4  # eV/Å, and eV per atom: between two evaluations of one baseline
NOTHING = 1e-6  # the same, of a remainder that leaves nothing to learn


class _Kept(Protocol):
    """Labels by a baseline, each of which is made once; `amp.nft.run.second_labels` keeps them in a journal."""

    def get(self, atoms: Atoms) -> Label | None:
        """Return the label of a structure, if there is one."""

    def keep(self, found: Sequence[tuple[Atoms, Label]]) -> None:
        """Keep labels."""


class _Memory:
    """Labels in this process alone."""

    def __init__(self) -> None:
        self._labels: dict[str, Label] = {}

    def get(self, atoms: Atoms) -> Label | None:
        """Return the label of a structure, if there is one."""
        return self._labels.get(structure_key(atoms))

    def keep(self, found: Sequence[tuple[Atoms, Label]]) -> None:
        """Keep labels."""
        self._labels |= {structure_key(atoms): label for atoms, label in found}


class Baseline:
    """A calculator whose energy, forces and stress the networks do not learn; without one, all is returned as it is.

    Parameters
    ----------
    calculator : ASE calculator, callable or None
        A callable ``f(directory)`` returns a calculator. None: the networks learn everything.

    Raises
    ------
    InputError
        It is something else, or cannot be made.
    """

    def __init__(self, calculator: Parent | None = None) -> None:
        self._source = _checked(calculator)
        self._kept: _Kept = _Memory()
        self._remainders: dict[tuple[str, float, bytes], Atoms] = {}
        self._probe: Atoms | None = None
        self._live: Any = None  # a calculator for predictions
        self.identity: Identity = {} if calculator is None else _identity(calculator)

    # -- where it begins -----------------------------------------------------------------------------------

    def begin(self, structures: Sequence[Atoms], parent: Parent | None = None) -> Baseline:
        """Check the baseline on a few structures, which contain all elements, before any work.

        Parameters
        ----------
        structures : sequence of Atoms
            To be labelled; those that have labels already first.
        parent : ASE calculator, or callable, optional
            Makes the labels.

        Returns
        -------
        Baseline
            This one.

        Raises
        ------
        InputError
            It fails, lacks forces, or gives the labels themselves, so that nothing is left to learn.
        """
        if self._source is None:
            return self
        same = f"baseline = {self.name} is the parent itself: nothing is left to learn. Give a cheaper calculator, or no baseline."
        if parent is not None and (parent is self._source or identify(parent) in (self.identity, identify(self._source))):
            raise InputError(same)
        chosen = _covering(structures)
        self._probe = chosen[0]
        for atoms in chosen:
            label = self._label(atoms)
            if isinstance(label, LabelFailure):
                raise InputError(
                    f"baseline = {self.name} cannot label {atoms.get_chemical_formula()}: {label}. It needs energies and forces of all "
                    "elements of the images, of the target and of the caps of chunks."
                )
            if atoms.calc is not None and _close(atoms, label, _label_of(atoms), NOTHING):
                raise InputError(same)
            self._kept.keep([(atoms, label)])
        return self

    def open(self, kept: _Kept) -> None:
        """Keep labels in a journal from now on, and take those that it has.

        Parameters
        ----------
        kept : object with `get` and `keep`
            `amp.nft.run.second_labels.SecondLabels`.

        Raises
        ------
        RunStoreError
            The baseline gives other numbers than those in the journal.
        """
        if self._source is None:
            return
        probe = self._probe
        assert probe is not None  # begin() has been called
        now, before, self._kept = self._kept.get(probe), kept.get(probe), kept
        assert now is not None
        if before is None:
            kept.keep([(probe, now)])
        elif not _close(probe, now, before, AGREE):
            raise RunStoreError(
                f"baseline = {self.name} gives other forces on {probe.get_chemical_formula()} than in the run that is resumed "
                f"({_difference(probe, now, before)}): use the same files and version of it, or another label=."
            )

    @classmethod
    def of(cls, calculator: Parent | None, models: Sequence[AmpModel]) -> Baseline:
        """Return the baseline with which members were trained.

        Parameters
        ----------
        calculator : ASE calculator, callable or None
        models : sequence of AmpModel

        Returns
        -------
        Baseline

        Raises
        ------
        InputError
            The members need one and none is given, or the reverse, or another one is given.
        """
        found, stored = cls(calculator), stored_baseline(models)
        if stored is None:
            if calculator is not None:
                raise InputError(f"baseline = {found.name}: this ensemble was trained without one. Use baseline=None.")
        elif calculator is None:
            raise InputError(
                f"This ensemble adds to the baseline it was trained with, {described(stored)}: give that calculator as baseline=. Its "
                "networks contain the remainder alone."
            )
        else:
            found.check_same(stored)
        return found

    def check_same(self, stored: dict[str, Any]) -> None:
        """Raise InputError unless a description in a member is of this baseline: class, settings, and numbers on one structure.

        Parameters
        ----------
        stored : dict
            As `description` returns it.
        """
        probe = Atoms(**{name: stored["probe"][name] for name in ("numbers", "positions", "cell", "pbc")})
        before = Label(stored["probe"]["energy"], np.array(stored["probe"]["forces"]), 0.0)
        now = self._label(probe)
        was, is_now = _comparable(stored["identity"]), _comparable(self.identity)
        other = was["calculator"] != is_now["calculator"]
        lines = [f"  was {described(stored)}, is {is_now['calculator']}"] if other else list(differences(was, is_now))
        if isinstance(now, LabelFailure):
            lines.append(f"  forces on {probe.get_chemical_formula()}: {now}")
        elif not _close(probe, now, before, AGREE):
            lines.append(f"  forces on {probe.get_chemical_formula()}: {_difference(probe, now, before)}")
        if lines:
            text = "\n".join(lines)
            raise InputError(f"baseline = {self.name} is not the one with which this ensemble was trained:\n{text}\nGive that one.")

    @property
    def name(self) -> str:
        """Name of the calculator, or of the function that makes it; empty without one."""
        return "" if self._source is None else parent_name(self._source)

    @property
    def settings(self) -> dict[str, Any]:
        """The identity as a setting of a run, which must not change; empty without one."""
        return {} if self._source is None else {KEY: self.identity}

    @property
    def description(self) -> dict[str, Any] | None:
        """Plain data from which `check_same` recognizes it: identity, and energy and forces on one structure."""
        if self._probe is None:
            return None
        label, probe = self._kept.get(self._probe), self._probe
        assert label is not None
        geometry = {"numbers": probe.numbers, "positions": probe.positions, "cell": probe.cell.array, "pbc": probe.pbc}
        return {
            "identity": self.identity,
            "probe": {name: values.tolist() for name, values in geometry.items()}
            | {"energy": label.energy, "forces": label.forces.tolist()},
        }

    # -- in: subtract --------------------------------------------------------------------------------------

    def remainders(self, images: Sequence[Atoms]) -> list[Atoms]:
        """Subtract the baseline from labels.

        Parameters
        ----------
        images : sequence of Atoms
            Labelled.

        Returns
        -------
        list of Atoms
            Copies with what is left of energy and forces, the same objects each time; the images themselves without a baseline.

        Raises
        ------
        LabellingError
            The baseline cannot label an image.
        """
        if self._source is None:
            return list(images)
        self.label(images)
        return [self._remainder(image) for image in images]

    def label(self, structures: Sequence[Atoms]) -> None:
        """Label structures that have no label by the baseline yet.

        Parameters
        ----------
        structures : sequence of Atoms

        Raises
        ------
        LabellingError
            It cannot label one of them.
        """
        if self._source is None:
            return
        missing = [atoms for atoms in structures if self._kept.get(atoms) is None]
        found = [(atoms, self._label(atoms)) for atoms in missing]
        if good := [(atoms, label) for atoms, label in found if isinstance(label, Label)]:
            self._kept.keep(good)
        for atoms, label in found:
            if isinstance(label, LabelFailure):
                raise LabellingError(f"The baseline {self.name} cannot label {atoms.get_chemical_formula()}: {label}. Give another one.")

    def label_too(self, chunk: Atoms, label: Label) -> Label | LabelFailure:
        """Label a chunk that its parent has labelled.

        Parameters
        ----------
        chunk : Atoms
        label : Label
            By the parent.

        Returns
        -------
        Label or LabelFailure
            The parent's label, or the failure of the baseline.
        """
        try:
            self.label([chunk])
        except LabellingError as error:
            return LabelFailure("BaselineFailed", str(error))
        return label

    def _label(self, atoms: Atoms) -> Label | LabelFailure:
        with tempfile.TemporaryDirectory() as scratch:
            return single_point(self._source, atoms, Path(scratch) / "baseline")

    def _remainder(self, image: Atoms) -> Atoms:
        own, whole = self._kept.get(image), _label_of(image)
        assert own is not None
        key = structure_key(image), whole.energy, whole.forces.tobytes()
        if key not in self._remainders:
            rest = image.copy()
            rest.calc = SinglePointCalculator(rest, energy=whole.energy - own.energy, forces=whole.forces - own.forces)
            self._remainders[key] = rest
        return self._remainders[key]

    # -- out: add ------------------------------------------------------------------------------------------

    def added(self, results: dict[str, Any], atoms: Atoms, properties: Sequence[str] = ()) -> dict[str, Any]:
        """Add the baseline to the predictions of an ensemble; uncertainties stay as they are.

        Parameters
        ----------
        results : dict
            As `EnsembleCalculator` has them.
        atoms : Atoms
        properties : sequence of str
            Those that are requested.

        Returns
        -------
        dict
            Without energies and stresses of atoms, and without the stress, where the baseline has none.

        Raises
        ------
        PropertyNotImplementedError
            One of these is requested.
        """
        if self._source is None:
            return results
        bare = atoms.copy()
        bare.set_constraint()
        bare.calc = self._calculator()
        energy, forces = bare.get_potential_energy(), bare.get_forces()
        found = dict(results)
        for name in ("energy", "free_energy", "energy_comm"):
            if name in results:
                found[name] = results[name] + energy
        for name in ("forces", "forces_ensemble", "forces_comm"):
            if name in results:
                found[name] = results[name] + forces
        if "forces_comm" in found:
            found["forces_comm"] = found["forces_ensemble"]
        sums = {"energies": energy, "stress": None, "stresses": None}
        for name in [name for name in sums if name in results]:
            values = self._optional(bare, name, sums)
            if values is not None:
                found[name] = results[name] + values
            elif name in properties:
                raise PropertyNotImplementedError(f"The baseline {self.name} has no {name}, to which this ensemble adds its own.")
            else:
                del found[name]
        return found

    def _optional(self, atoms: Atoms, name: str, sums: dict[str, Any]) -> np.ndarray | None:
        """Return a property that not every calculator has; values of atoms only if they add up to those of the structure."""
        if name not in getattr(atoms.calc, "implemented_properties", ()):
            return None
        try:
            values = np.asarray(atoms.calc.get_property(name, atoms), dtype=float)
        except (NotImplementedError, PropertyNotImplementedError):
            return None
        if name == "stress":
            sums["stresses"] = values
            return values
        whole = sums[name]
        right = whole is not None and values.shape == (len(atoms), *np.shape(whole)) and np.allclose(values.sum(axis=0), whole, rtol=1e-6)
        return values if right else None

    def _calculator(self) -> Any:
        if self._live is None:
            place = tempfile.mkdtemp(prefix="baseline-")
            weakref.finalize(self, shutil.rmtree, place, ignore_errors=True)
            self._live = make_calculator(self._source, place)
        return self._live

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the calculator that works, which is made again."""
        return self.__dict__ | {"_live": None}

    # -- members -------------------------------------------------------------------------------------------

    def marked(self, texts: Sequence[str]) -> list[str]:
        """Return members that say what they add to, and that plain Amp refuses to load.

        Parameters
        ----------
        texts : sequence of str
            ``.amp`` texts.

        Returns
        -------
        list of str
            The texts themselves without a baseline.
        """
        description = self.description
        return list(texts) if description is None else [with_baseline(text, description) for text in texts]

    def unmarked(self, texts: Sequence[str] | None) -> list[str] | None:
        """Return members of this baseline as texts of Amp, from which a training can start.

        Parameters
        ----------
        texts : sequence of str or None

        Returns
        -------
        list of str or None
            None for None.

        Raises
        ------
        InputError
            They were trained with another one.
        """
        if texts is None:
            return None
        stored, now = baseline_of_texts(texts), self.description
        if stored is None and now is None:
            return list(texts)
        if stored is None or now is None:
            had, has = ("no baseline" if one is None else f"the baseline {described(one)}" for one in (stored, now))
            raise InputError(f"load was trained with {had}, and this run has {has}: a training starts from members of its own baseline.")
        self.check_same(stored)
        return [with_baseline(text, None) for text in texts]


def _checked(calculator: Any) -> Any:
    if isinstance(calculator, type):
        raise InputError(f"baseline is the class {calculator.__name__}: give an instance, {calculator.__name__}().")
    if calculator is None or is_calculator(calculator) or callable(calculator):
        return calculator
    raise InputError(f"baseline is {calculator!r}: give an ASE calculator such as EMT(), or a function f(directory) that returns one.")


def _identity(calculator: Any) -> Identity:
    """Return class and settings of the calculator, also of one that a function makes."""
    with tempfile.TemporaryDirectory() as scratch:
        try:
            found = identify(make_calculator(calculator, scratch))
        except Exception as error:  # a function of the user's
            raise InputError(f"baseline = {parent_name(calculator)} cannot be made ({type(error).__name__}: {error}).") from error
        return json.loads(json.dumps(found).replace(json.dumps(scratch)[1:-1], "<directory>"))


def _comparable(identity: Identity) -> Identity:
    """Return an identity without the module: a script and an import of it name the same class differently."""
    return json.loads(json.dumps({**identity, "calculator": class_of(identity)}))


def _covering(structures: Sequence[Atoms]) -> list[Atoms]:
    """Return a few structures that contain all elements, the one with the most elements and the fewest atoms first."""
    chosen: list[Atoms] = []
    missing = {symbol for atoms in structures for symbol in atoms.symbols}
    while missing:
        best = max(structures, key=lambda atoms: (len(missing & set(atoms.symbols)), -len(atoms)))
        chosen.append(best)
        missing -= set(best.symbols)
    return chosen


def _label_of(image: Atoms) -> Label:
    return Label(image.get_potential_energy(apply_constraint=False), image.get_forces(apply_constraint=False), 0.0)


def _gaps(atoms: Atoms, one: Label, other: Label) -> tuple[float, float]:
    """Return the largest difference of a force component, eV/Å, and that of the energy, eV per atom."""
    return float(np.abs(one.forces - other.forces).max(initial=0.0)), abs(one.energy - other.energy) / max(len(atoms), 1)


def _close(atoms: Atoms, one: Label, other: Label, tolerance: float) -> bool:
    return max(_gaps(atoms, one, other)) <= tolerance


def _difference(atoms: Atoms, one: Label, other: Label) -> str:
    force, energy = _gaps(atoms, one, other)
    return f"they differ by up to {force:.3g} eV/Å, and the energy by {energy:.3g} eV per atom"
