"""Labels of a run as training data of other programs, read back by the documented layout, and by the programs where they are installed.

``uv run --isolated --group trainers --with deepmd-kit --with pandas pytest -m slow tests/interfaces/test_labels.py`` installs some of them,
and ``--with schnetpack`` SchNetPack.
"""

import contextlib
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.emt import EMT
from ase.db import connect
from ase.io import read
from small_runs import cells, cluster, run

from amp.nft.errors import InputError, RunStoreError
from amp.nft.interfaces import write_labels
from amp.nft.interfaces.frames import read_frames, validation_atoms
from amp.nft.run.history import read_run

ROUNDED = 1e-7  # ASE writes eight digits after the point
TEST_LABELS = 2


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return the directory of a run with labels on the cluster, two of them for a test."""
    directory = tmp_path_factory.mktemp("run")
    with contextlib.chdir(directory):
        run(max_iterations=1, test_labels=TEST_LABELS)
    return directory


def exported(finished, place, *formats, **options):
    """Return the directory of an export, and its numbers of structures."""
    return place / "out", write_labels(finished, place / "out", formats, **options)


def parent_forces(atoms):
    copy = atoms.copy()
    copy.calc = EMT()
    return copy.get_potential_energy(), copy.get_forces()


def test_extxyz_has_the_forces_of_the_parent_and_weights(finished, tmp_path):
    place, counts = exported(finished, tmp_path, "extxyz")
    frames = read(place / "train.extxyz", ":")
    assert counts == {"train": len(frames), "valid": 0, "test": TEST_LABELS}
    images, chunks = ([one for one in frames if one.info["config_type"] == kind] for kind in ("nft_image", "nft_chunk"))
    assert len(images) == len(cells()) and len(chunks) >= 2
    for image, cell in zip(images, cells(), strict=True):
        np.testing.assert_allclose(image.positions, cell.positions, atol=ROUNDED)
        assert image.pbc.all() and image.info["config_energy_weight"] == 1
        assert (image.arrays["REF_forces_atomic_weights"] == 1).all() and not image.arrays["force_mask"].any()
        assert image.info["NFT_energy"] == image.info["REF_energy"]
        np.testing.assert_allclose(image.arrays["NFT_forces"], cell.get_forces(), atol=ROUNDED)
    for chunk in [*chunks, *read(place / "test.extxyz", ":")]:
        energy, forces = parent_forces(chunk)
        assert abs(chunk.info["REF_energy"] - energy) < 1e-5 and np.isnan(chunk.info["NFT_energy"])
        np.testing.assert_allclose(chunk.arrays["REF_forces"], forces, atol=1e-5)
        assert chunk.arrays["nft_center"].tolist() == (np.arange(len(chunk)) == 0).tolist()
        assert chunk.arrays["force_mask"].dtype == bool and chunk.arrays["force_mask"].tolist() == (np.arange(len(chunk)) > 0).tolist()
        assert chunk.arrays["REF_forces_atomic_weights"].tolist() == [1.0] + [0.0] * (len(chunk) - 1)
        assert np.isnan(chunk.arrays["NFT_forces"]).any(axis=1).tolist() == chunk.arrays["force_mask"].tolist()
        assert (chunk.arrays["force_atom_sigma"] > 0).all()
        assert not chunk.pbc.any() and chunk.cell.rank == 3
        assert chunk.calc is None and chunk.info["config_energy_weight"] == 0 and chunk.info["nft_radius"] == 5.0
        index = chunk.arrays["nft_target_index"]
        distances = cluster().get_all_distances()[np.ix_(index, index)]
        np.testing.assert_allclose(chunk.get_all_distances(), distances, atol=ROUNDED * 10)
    assert {chunk.info["nft_iteration"] for chunk in chunks} == {1}


def test_weighted_forces_are_those_of_the_label_error(finished, tmp_path):
    place, _ = exported(finished, tmp_path, "extxyz", forces="weighted")
    chunks = [one for one in read(place / "train.extxyz", ":") if one.info["config_type"] == "nft_chunk"]
    weights = np.concatenate([chunk.arrays["REF_forces_atomic_weights"] for chunk in chunks])
    assert (weights[weights > 0] >= 0.04).all() and (weights <= 1).all() and len(np.unique(weights.round(4))) > 2
    sigma = np.concatenate([chunk.arrays["force_atom_sigma"] for chunk in chunks])[weights > 0]
    products = sigma * np.sqrt(weights[weights > 0])
    np.testing.assert_allclose(products, products[0], rtol=1e-6)


def test_the_split_is_by_atom_of_the_target_and_does_not_depend_on_the_labels(finished, tmp_path):
    found = read_run(finished)
    valid = next(f for f in np.linspace(0.2, 0.9, 15) if len(validation_atoms(13, f) & set(found.status.state.added_atoms)) == 1)
    held = validation_atoms(13, valid)
    place, counts = exported(finished, tmp_path, "extxyz", "deepmd", valid=valid, forces="all")
    test = set(found.status.state.test)
    assert counts["valid"] == 1 and counts["train"] == len(cells()) + len(found.status.state.added_atoms) - 1
    trained = {split: set() for split in counts}
    for split in counts:
        for frame in read(place / f"{split}.extxyz", ":"):
            if frame.info["config_type"] == "nft_chunk":
                trained[split] |= set(frame.arrays["nft_target_index"][~frame.arrays["force_mask"]].tolist())
    assert trained["valid"] <= held - test and not trained["train"] & (held | test) and trained["test"] <= test
    assert validation_atoms(13, 0.2) <= validation_atoms(13, 0.5)
    provenance = json.loads((place / "provenance.json").read_text())
    assert set(provenance["central_atoms"]["valid"]) <= held
    assert set(provenance["central_atoms"]["test"]) == test
    assert len(json.loads((place / "deepmd.json").read_text())["training"]["validation_data"]["systems"]) == 1


def test_deepmd_systems(finished, tmp_path):
    place, counts = exported(finished, tmp_path, "deepmd")
    settings = json.loads((place / "deepmd.json").read_text())
    frames = [frame for frame in read_frames(read_run(finished)) if frame.split == "train"]
    systems, seen = settings["training"]["training_data"]["systems"], 0
    for name in systems:
        data = {path.stem: np.load(path) for path in (place / name / "set.000").iterdir()}
        types = np.loadtxt(place / name / "type.raw", dtype=int, ndmin=1)
        symbols = (place / name / "type_map.raw").read_text().split()
        n, atoms = len(data["coord"]), len(types)
        seen += n
        assert data["coord"].shape == data["force"].shape == (n, 3 * atoms)
        assert data["box"].shape == (n, 9) and data["atom_pref"].shape == (n, atoms) and symbols == ["Pt"]
        free = (place / name / "nopbc").exists()
        assert ("energy" in data) != free  # images have energies, chunks do not
        for row in range(n):
            match = [one for one in frames if len(one.atoms) == atoms and np.allclose(one.atoms.positions.ravel(), data["coord"][row])]
            assert len(match) == 1
            np.testing.assert_array_equal(data["force"][row], match[0].forces_nx.ravel())
            np.testing.assert_array_equal(data["atom_pref"][row], match[0].weights_n * atoms)
            assert match[0].atoms.pbc.all() != free
            if not free:
                assert data["energy"][row] == match[0].energy
    assert seen == counts["train"] == len(frames)
    assert settings["loss"]["start_pref_pf"] > 0 and settings["loss"]["start_pref_f"] == settings["loss"]["limit_pref_f"] == 0


class Recorder:
    """Labels that a script adds to a Gaussian process of FLARE, which has no wheel; `sparse_gp` is itself."""

    def __init__(self):
        self.sparse_gp, self.labels, self.energies, self.factorised = self, [], [], 0

    def update_db(self, frame, forces, custom_range, energy, stress, mode, update_qr, atom_indices, rel_f_noise):
        assert custom_range == atom_indices and mode == "specific" and stress is None and not update_qr
        self.labels += [(*frame.positions[atom], *forces[atom], rel_f_noise) for atom in atom_indices]
        self.energies += [] if energy is None else [energy]

    def update_matrices_QR(self):
        self.factorised += 1


@pytest.mark.parametrize("forces", ["centre", "weighted"])
def test_flare_gets_each_trained_force_once_with_a_noise_for_its_weight(finished, tmp_path, forces):
    place, counts = exported(finished, tmp_path, "flare", forces=forces)
    frames = [frame for frame in read_frames(read_run(finished), forces=forces) if frame.split == "train"]
    assert len(read(place / "flare-train.extxyz", ":")) == len(frames) == counts["train"]
    script = {"__name__": "imported"}
    exec(compile((place / "flare_train.py").read_text(), "flare_train.py", "exec"), script)
    found = Recorder()
    script["add_frames"](found, place / "flare-train.extxyz")
    expected = [(frame, atom) for frame in frames for atom in np.flatnonzero(frame.weights_n)]
    assert len(found.labels) == len(expected) and found.factorised == 1
    labels = np.array(found.labels)
    for frame, atom in expected:
        label = [*frame.atoms.positions[atom], *frame.forces_nx[atom], frame.weights_n[atom] ** -0.5]
        assert np.isclose(labels, label, rtol=0.0, atol=1e-6).all(axis=1).sum() == 1
    assert (np.ptp(labels[:, -1]) > 0) == (forces == "weighted")
    np.testing.assert_allclose(sorted(found.energies), sorted(frame.energy for frame in frames if frame.energy_weight), atol=ROUNDED)
    energies = script["single_atom_energies"](read(place / "flare-train.extxyz", ":"))
    per_atom = [frame.energy / len(frame.atoms) for frame in frames if frame.energy_weight]
    assert script["SPECIES"] == {78: 0} and min(per_atom) <= energies[0] <= max(per_atom)


def test_schnetpack_has_a_mask_and_the_split(finished, tmp_path):
    place, counts = exported(finished, tmp_path, "schnetpack", valid=0.9)
    frames = read_frames(read_run(finished), valid=0.9)
    split = np.load(place / "schnetpack.npz")
    assert {name: len(split[name]) for name in split} == {
        "train_idx": counts["train"],
        "val_idx": counts["valid"],
        "test_idx": counts["test"],
    }
    with connect(place / "schnetpack.db") as database:
        rows = list(database.select())
        assert database.metadata["_property_unit_dict"] == {"energy": "eV", "forces": "eV/Ang", "considered_atoms": ""}
    assert len(rows) == len(frames)
    for number, (row, frame) in enumerate(zip(rows, frames, strict=True)):
        np.testing.assert_array_equal(row.data["forces"], frame.forces_nx)
        np.testing.assert_array_equal(row.data["considered_atoms"], frame.weights_n == 1)
        assert row.data["energy"] == [frame.energy] and row.toatoms() == frame.atoms
        assert number in split[{"train": "train_idx", "valid": "val_idx", "test": "test_idx"}[frame.split]]
    assert "none is trained" in (place / "schnetpack_train.py").read_text()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of its packages
def test_schnetpack_trains_the_forces_of_the_mask(finished, tmp_path, monkeypatch):
    pytest.importorskip("schnetpack")
    place, _ = exported(finished, tmp_path, "schnetpack", valid=0.9)
    monkeypatch.chdir(place)
    script = {"__name__": "imported"}
    exec(compile((place / "schnetpack_train.py").read_text(), "schnetpack_train.py", "exec"), script)
    script["data"].setup()
    trained = 0
    for batch in script["data"].train_dataloader():
        everything = {"forces": batch["forces"], "considered_atoms": batch["considered_atoms"]}
        kept, _ = script["outputs"][0].constraints[0]({"forces": batch["forces"]}, everything, script["outputs"][0])
        trained += len(kept["forces"])
    frames = [frame for frame in read_frames(read_run(finished), valid=0.9) if frame.split == "train"]
    assert trained == sum(np.count_nonzero(frame.weights_n) for frame in frames)
    done = subprocess.run([sys.executable, "schnetpack_train.py", "1"], capture_output=True, text=True, check=False)
    assert (place / "schnetpack.pt").exists(), done.stdout[-2000:] + done.stderr[-2000:]


def test_energies_of_chunks_on_request(finished, tmp_path):
    place, _ = exported(finished, tmp_path, "extxyz", "deepmd", energies=True)
    assert all(frame.info["NFT_energy"] == frame.info["REF_energy"] for frame in read(place / "train.extxyz", ":"))
    assert len(list((place / "deepmd").glob("train/*/set.000/energy.npy"))) == len(list((place / "deepmd" / "train").iterdir()))
    assert "weight 1 here" in (place / "README.md").read_text()


def test_dataframes(finished, tmp_path):
    pandas = pytest.importorskip("pandas")
    place, counts = exported(finished, tmp_path, "pacemaker", "grace")
    frames = [frame for frame in read_frames(read_run(finished)) if frame.split == "train"]
    for name, energy, forces in (("pacemaker", "w_energy", "w_forces"), ("grace", "energy_weight", "force_weight")):
        table = pandas.read_pickle(place / f"{name}-train.pckl.gzip", compression="gzip")
        assert len(table) == counts["train"] == len(frames)
        for (_, row), frame in zip(table.iterrows(), frames, strict=True):
            assert row["energy_corrected"] == frame.energy and row[energy] == frame.energy_weight
            assert row["ase_atoms"] == frame.atoms
            np.testing.assert_array_equal(row["forces"], frame.forces_nx)
            np.testing.assert_array_equal(row[forces], frame.weights_n)


@pytest.mark.slow
def test_the_loader_of_deepmd_reads_the_systems(finished, tmp_path):
    data = pytest.importorskip("deepmd.utils.data")
    from deepmd.utils.argcheck import normalize

    place, counts = exported(finished, tmp_path, "deepmd")
    settings = json.loads((place / "deepmd.json").read_text())
    normalize(json.loads((place / "deepmd.json").read_text()))
    n = 0
    for name in settings["training"]["training_data"]["systems"]:
        system = data.DeepmdData(str(place / name), type_map=settings["model"]["type_map"])
        system.add("energy", 1, atomic=False, must=False, high_prec=True)
        system.add("force", 3, atomic=True, must=False)
        system.add("atom_pref", 1, atomic=True, must=False, repeat=3)
        found = system.get_test()
        assert found["find_force"] == found["find_atom_pref"] == 1.0
        assert found["find_energy"] == float(system.pbc)
        kept = found["atom_pref"].reshape(len(found["coord"]), -1, 3)
        assert (kept[:, 0] == kept.shape[1]).all() and (kept[:, 1:] == (kept.shape[1] if system.pbc else 0)).all()
        n += len(found["coord"])
    assert n == counts["train"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gap_fit") is None, reason="needs gap_fit of quippy-ase")
def test_gap_fit_trains_the_forces_that_have_a_weight(finished, tmp_path):
    place, _ = exported(finished, tmp_path, "extxyz")
    done = subprocess.run(
        ["bash", "gap.sh"], cwd=place, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert (place / "nft.xml").exists(), done.stdout[-3000:] + done.stderr[-3000:]
    trained = sum((~frame.arrays["force_mask"]).sum() for frame in read(place / "train.extxyz", ":"))
    assert int(re.search(r"Number of target forces .* found: +(\d+)", done.stdout)[1]) == 3 * trained


@pytest.mark.skipif(importlib.util.find_spec("pandas") is not None, reason="pandas is there")
def test_dataframes_need_pandas(finished, tmp_path):
    with pytest.raises(InputError, match="pandas is not installed: pip install pandas"):
        exported(finished, tmp_path, "pacemaker")
    assert not (tmp_path / "out").exists()


def test_inputs_name_files_that_exist_and_the_hashes_are_right(finished, tmp_path):
    place, _ = exported(finished, tmp_path, "extxyz", "deepmd")
    for name in ("mace.sh", "nequip.yaml", "gap.sh"):
        text = (place / name).read_text()
        assert {found for found in re.findall(r"\b\w+\.extxyz\b", text)} == {"train.extxyz"}
        columns = {*read(place / "train.extxyz").arrays, *read(place / "train.extxyz").info}
        assert set(re.findall(r"\b(?:REF|NFT)_\w+\b", text)) <= columns
    assert "cutoff=4.5" in (place / "gap.sh").read_text()
    provenance = json.loads((place / "provenance.json").read_text())
    assert provenance["parent_identity"]["calculator"].endswith("EMT")
    assert provenance["arguments"] == {"valid": 0.0, "forces": "centre", "energies": False}
    files = {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()} - {"provenance.json"}
    assert provenance["sha256"].keys() == files
    assert all(hashlib.sha256((place / name).read_bytes()).hexdigest() == value for name, value in provenance["sha256"].items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": ["xyz"]}, r"to = \['xyz'\] must be a list of these: extxyz, flare, deepmd, schnetpack, pacemaker, grace\."),
        ({"to": "extxyz"}, "must be a list"),
        ({"valid": 1.0}, r"valid = 1\.0 must be a fraction from 0 to below 1"),
        ({"valid": 0.08}, "valid = 0.08 leaves none of [0-9]+ labels to validate"),
        (
            {"to": ["schnetpack"], "forces": "weighted"},
            "weights between 0 and 1, and SchNetPack has a mask alone: export with forces='centre'",
        ),
        ({"to": ["schnetpack"]}, "valid is 0, and SchNetPack then validates on all structures"),
        ({"forces": "most"}, "forces = 'most' must be one of 'centre', 'weighted', 'all'"),
    ],
)
def test_wrong_arguments(finished, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        write_labels(finished, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_not_overwritten(finished, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="exists, and is not overwritten"):
        exported(finished, tmp_path, "extxyz")
    with pytest.raises(RunStoreError):
        write_labels(tmp_path, tmp_path / "new")


def test_a_run_is_not_changed_by_an_export(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "copy")
    write_labels(tmp_path / "copy", tmp_path / "out", ["extxyz", "deepmd"])
    names = [path.relative_to(finished) for path in finished.rglob("*") if path.is_file()]
    assert sorted(names) == sorted(path.relative_to(tmp_path / "copy") for path in (tmp_path / "copy").rglob("*") if path.is_file())
    assert all((finished / name).read_bytes() == (tmp_path / "copy" / name).read_bytes() for name in names)
    assert not Path("out").exists()
