"""Labels of a run as training data of other programs: extxyz, FLARE, DeePMD-kit, SchNetPack, pacemaker and GRACE."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ase
import numpy as np
from ase.data import chemical_symbols
from ase.io import write

from amp.nft.amp_io import read_amp
from amp.nft.chunks.termination import Termination
from amp.nft.errors import InputError, UnsupportedModel
from amp.nft.inputs.arguments import check_new
from amp.nft.interfaces import snippets
from amp.nft.interfaces.flare import write_flare
from amp.nft.interfaces.frames import SPLITS, Frame, read_frames
from amp.nft.interfaces.schnetpack import check_schnetpack, write_schnetpack
from amp.nft.run.history import Run, read_run
from amp.nft.run.journal import JOURNAL
from amp.nft.training.columns import with_columns

FORMATS = ("extxyz", "flare", "deepmd", "schnetpack", "pacemaker", "grace")
OF_DATAFRAMES = ("pacemaker", "grace")
_CUTOFF = 6.0  # Å, in inputs of other trainers, where the run's is not known


def write_labels(
    directory: str | os.PathLike[str], output: str | os.PathLike[str], to: Sequence[str] = ("extxyz",), *, valid: float = 0.0,
    forces: str | None = None, energies: bool = False, termination: Termination | None = None,
) -> dict[str, int]:  # fmt: skip
    """Write the labelled images and chunks of a run as training data of other programs, with weights for each force.

    Parameters
    ----------
    directory : path
        The training directory of a run, or the directory above.
    output : path
        A new directory, with the data, an input for each trainer, ``README.md`` and ``provenance.json``.
    to : sequence of str
        'extxyz' (MACE, NequIP, GAP), 'flare', 'deepmd', 'schnetpack', 'pacemaker', 'grace'.
    valid : float
        Fraction of the targets' atoms whose forces validate. The same atoms at each export, whatever is labelled.
    forces : {'centre', 'weighted', 'all'}, optional
        Trained forces of chunks, as in `amp.nft.activelearner.NFT.run`; those of the run if not given.
    energies : bool
        Also train the energies of chunks, which are those of cut clusters. They are trained in any case if a run has no images.
    termination : str or callable, optional
        That of the run, where it is a function.

    Returns
    -------
    dict of str to int
        Number of structures in each split: 'train', 'valid', 'test'.

    Raises
    ------
    InputError
        An argument is out of range, `output` exists, a format cannot express a structure, or a package is missing.
    RunStoreError
        There is no run, or it has no label, or its files are damaged.
    """
    _check(to, output)
    run = read_run(directory)
    frames = read_frames(run, valid, forces, energies, termination)
    numbers = sorted({int(z) for frame in frames for z in frame.atoms.numbers})
    elements = [chemical_symbols[number] for number in numbers]
    for name, check in (("deepmd", _check_deepmd), ("schnetpack", check_schnetpack)):
        if name in to:
            check(frames)
    place, cutoff = Path(output), _cutoff(run)
    place.mkdir(parents=True)
    texts: dict[str, str] = {}
    if "extxyz" in to:
        for split in SPLITS:
            if some := [frame for frame in frames if frame.split == split]:
                write(place / f"{split}.extxyz", [_extended(run, frame) for frame in some], format="extxyz")
        texts |= snippets.of_extxyz(frames, cutoff)
    if "flare" in to:
        texts |= write_flare(place, frames, numbers, cutoff)
    if "schnetpack" in to:
        texts |= write_schnetpack(place, frames, cutoff)
    if "deepmd" in to:
        systems = {split: _write_deepmd(place, split, [one for one in frames if one.split == split], elements) for split in SPLITS}
        texts |= snippets.of_deepmd(frames, elements, systems, cutoff)
    for name in [name for name in OF_DATAFRAMES if name in to]:
        _write_dataframes(place, name, frames)
        texts |= snippets.of_frame_table(name, frames, cutoff)
    counts = {split: sum(frame.split == split for frame in frames) for split in SPLITS}
    texts["README.md"] = _readme(run, frames, counts, to)
    for name, text in texts.items():
        (place / name).write_text(text, encoding="utf-8")
    arguments = {"valid": valid, "forces": forces or run.settings.get("forces", "centre"), "energies": energies}
    (place / "provenance.json").write_text(json.dumps(_provenance(run, frames, place, arguments), indent=1) + "\n", encoding="utf-8")
    return counts


def _check(to: Sequence[str], output: str | os.PathLike[str]) -> None:
    if not to or isinstance(to, str) or (set(to) - set(FORMATS)):
        raise InputError(f"to = {to!r} must be a list of these: {', '.join(FORMATS)}.")
    if needy := [name for name in to if name in OF_DATAFRAMES]:
        if importlib.util.find_spec("pandas") is None:
            raise InputError(f"{needy[0]} reads a pickled DataFrame, and pandas is not installed: pip install pandas.")
    check_new(output, "directory")


def _check_deepmd(frames: Sequence[Frame]) -> None:
    for number, frame in enumerate(frames):
        if frame.atoms.pbc.any() and not frame.atoms.pbc.all():
            raise InputError(
                f"structure {number} ({frame.atoms.get_chemical_formula()}) is periodic along {int(frame.atoms.pbc.sum())} of 3 cell "
                "vectors, and DeePMD-kit has all or none: export to extxyz, or begin the run with other images."
            )


def _cutoff(run: Run) -> float:
    """Cutoff of the run's fingerprints, Å."""
    try:
        return float(read_amp(run.members(run.best)[0]).cutoff["kwargs"]["Rc"])
    except (ValueError, UnsupportedModel):  # not trained yet, or not by Gaussian fingerprints
        return _CUTOFF


def _extended(run: Run, frame: Frame) -> Any:
    """Return a structure with the columns that each of the trainers reads; plain names would replace these in some of them."""
    atoms = with_columns(frame.atoms, frame.energy, frame.forces_nx, frame.weights_n, frame.energy_weight, frame.floor, frame.floor)
    atoms.info |= {
        "config_type": frame.kind, "nft_parent": run.status.state.starts[-1].parent, "nft_target": frame.target,
        "nft_iteration": frame.iteration, "nft_radius": frame.radius, "nft_version": version("amp-nft"),
    }  # fmt: skip
    atoms.set_array("nft_center", (np.arange(len(atoms)) == 0) & (frame.target >= 0))
    atoms.set_array("nft_target_index", frame.target_index_n)
    return atoms


def _write_deepmd(place: Path, split: str, frames: Sequence[Frame], elements: list[str]) -> list[str]:
    """Write one system for each composition, kind of boundary and weight of the energy; return their directories.

    A system without energies has no ``energy.npy``. DeePMD-kit averages over all atoms; weights times the number of atoms make the sum
    over trained forces from that.
    """
    systems: dict[str, list[tuple[Frame, np.ndarray]]] = {}
    for frame in frames:
        types = np.array([elements.index(symbol) for symbol in frame.atoms.symbols])
        name = frame.atoms.get_chemical_formula() + ("-periodic" if frame.atoms.pbc.all() else "") + ("-e" if frame.energy_weight else "")
        systems.setdefault(f"deepmd/{split}/{name}", []).append((frame, np.argsort(types, kind="stable")))
    for name, members in systems.items():
        system = place / name
        (system / "set.000").mkdir(parents=True)
        (first, order), n_atoms = members[0], len(members[0][0].atoms)
        (system / "type_map.raw").write_text("\n".join(elements) + "\n")
        (system / "type.raw").write_text("\n".join(str(elements.index(symbol)) for symbol in first.atoms.symbols[order]) + "\n")
        if not first.atoms.pbc.any():
            (system / "nopbc").touch()
        arrays = {
            "coord": [one.atoms.positions[order].ravel() for one, order in members],
            "box": [one.atoms.cell.array.ravel() for one, _ in members],
            "force": [one.forces_nx[order].ravel() for one, order in members],
            "atom_pref": [one.weights_n[order] * n_atoms for one, order in members],
        }
        if first.energy_weight:
            arrays["energy"] = [np.array([one.energy]) for one, _ in members]
        for array, values in arrays.items():
            np.save(system / "set.000" / f"{array}.npy", np.array(values), allow_pickle=False)
    return list(systems)


def _write_dataframes(place: Path, name: str, frames: Sequence[Frame]) -> None:
    """Write the DataFrame of each split. pacemaker divides weights by their sum, which must not be zero: its kappa replaces that."""
    from pandas import DataFrame

    of_energy, of_forces = ("w_energy", "w_forces") if name == "pacemaker" else ("energy_weight", "force_weight")
    for split in SPLITS:
        some = [frame for frame in frames if frame.split == split]
        if not some:
            continue
        weights = [frame.energy_weight for frame in some]
        table = {
            "ase_atoms": [frame.atoms for frame in some], "energy": [frame.energy for frame in some],
            "energy_corrected": [frame.energy for frame in some], "forces": [frame.forces_nx for frame in some],
            of_energy: weights if any(weights) or name == "grace" else [1.0] * len(some), of_forces: [frame.weights_n for frame in some],
            "name": [f"{frame.kind}-{number}" for number, frame in enumerate(some)],
        }  # fmt: skip
        DataFrame(table).to_pickle(place / f"{name}-{split}.pckl.gzip", compression="gzip", protocol=4)


def _readme(run: Run, frames: Sequence[Frame], counts: dict[str, int], to: Sequence[str]) -> str:
    trained = any(frame.kind == "nft_chunk" and frame.energy_weight for frame in frames)
    return snippets.README.format(
        name=run.name,
        parent=run.status.state.starts[-1].parent,
        counts=", ".join(f"{split}: {n} structures" for split, n in counts.items()) + ".",
        energies="they have weight 1 here" if trained else "they have weight 0 here",
        correction="".join(text for name, text in snippets.NOT_APPLIED.items() if name in run.settings),
    ) + "".join(text for name, text in snippets.COLUMNS.items() if name in to)


def _provenance(run: Run, frames: Sequence[Frame], place: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    state, names = run.status.state, sorted(path for path in place.rglob("*") if path.is_file())
    first = np.cumsum([0, *map(len, run.targets)])
    centres = {
        split: [int(one.target_index_n[0] + first[one.target]) for one in frames if one.split == split and one.target >= 0]
        for split in SPLITS
    }
    return {
        "run": run.name,
        "journal_sha256": hashlib.sha256((run.record.directory / JOURNAL).read_bytes()).hexdigest(),
        "parent": state.starts[-1].parent,
        "parent_identity": state.starts[-1].event.get("identity"),
        "settings": {key: run.settings[key] for key in ("cutoff", "termination", "min_atoms", "seed", "n") if key in run.settings},
        **{name: "not applied" if name in run.settings else None for name in snippets.NOT_APPLIED},
        "arguments": arguments,
        "units": {"energy": "eV", "forces": "eV/Å", "positions": "Å"},
        "versions": {"amp-nft": version("amp-nft"), "ase": ase.__version__, "numpy": np.__version__},
        "central_atoms": centres,
        "images": sum(frame.target < 0 for frame in frames),
        "targets": [target.get_chemical_formula() for target in run.targets],
        "sha256": {path.relative_to(place).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in names},
    }
