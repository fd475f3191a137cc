"""Labels as training data of SchNetPack: a database of ASE, the split, and a script that trains."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase.db import connect

from amp.nft.errors import InputError
from amp.nft.interfaces.frames import SPLITS, Frame

MASK = "considered_atoms"  # a name that SchNetPack's training task knows
UNITS = {"energy": "eV", "forces": "eV/Ang", MASK: ""}

SCRIPT = '''\
"""Train a PaiNN potential by SchNetPack on the forces where {mask} is true: python schnetpack_train.py [EPOCHS]"""

import sys

import pytorch_lightning
import schnetpack
import torch
from schnetpack.data import AtomsDataModule
from schnetpack.task import AtomisticTask, ConsiderOnlySelectedAtoms, ModelOutput
from schnetpack.transform import ASENeighborList, CastTo32, CastTo64
from torchmetrics import MeanAbsoluteError

CUTOFF, WIDTH = {cutoff:g}, 64  # Å, and features of an atom

data = AtomsDataModule(
    "schnetpack.db", batch_size=4, split_file="schnetpack.npz", load_properties=["energy", "forces", "{mask}"],
    transforms=[ASENeighborList(cutoff=CUTOFF), CastTo32()], num_workers=0,
)
representation = schnetpack.representation.PaiNN(
    n_atom_basis=WIDTH, n_interactions=3, radial_basis=schnetpack.nn.GaussianRBF(n_rbf=20, cutoff=CUTOFF),
    cutoff_fn=schnetpack.nn.CosineCutoff(CUTOFF),
)
model = schnetpack.model.NeuralNetworkPotential(
    representation=representation, input_modules=[schnetpack.atomistic.PairwiseDistances()],
    output_modules=[schnetpack.atomistic.Atomwise(n_in=WIDTH, output_key="energy"), schnetpack.atomistic.Forces()],
    postprocessors=[CastTo64()],
)
outputs = [
    ModelOutput(
        name="forces", loss_fn=torch.nn.MSELoss(), loss_weight=1.0, metrics={{"MAE": MeanAbsoluteError()}},
        constraints=[ConsiderOnlySelectedAtoms("{mask}")],
    )
]
{energy}
if __name__ == "__main__":
    task = AtomisticTask(model, outputs, torch.optim.AdamW, optimizer_args={{"lr": 5e-4}})
    epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    trainer = pytorch_lightning.Trainer(max_epochs=epochs, default_root_dir="schnetpack", log_every_n_steps=1)
    trainer.fit(task, datamodule=data)
    torch.save(model, "schnetpack.pt")
'''
ENERGY = 'outputs += [ModelOutput(name="energy", loss_fn=torch.nn.MSELoss(), loss_weight=0.01, metrics={})]'
NO_ENERGY = "# energies of cut clusters are in the database, and no weight can exclude these alone: none is trained"


def check_schnetpack(frames: Sequence[Frame]) -> None:
    """Raise InputError unless each force has the weight 0 or 1, since SchNetPack has a mask, and some structures validate.

    Parameters
    ----------
    frames : sequence of Frame

    Raises
    ------
    InputError
    """
    for number, frame in enumerate(frames):
        if not np.isin(frame.weights_n, (0.0, 1.0)).all():
            raise InputError(
                f"structure {number} ({frame.atoms.get_chemical_formula()}) has forces with weights between 0 and 1, and SchNetPack has "
                "a mask alone: export with forces='centre' or 'all' (--forces)."
            )
    if not any(frame.split == "valid" for frame in frames):
        raise InputError("valid is 0, and SchNetPack then validates on all structures: give a fraction, for example 0.1 (--valid).")


def write_schnetpack(place: Path, frames: Sequence[Frame], cutoff: float) -> dict[str, str]:
    """Write ``schnetpack.db`` and ``schnetpack.npz``, which has the split.

    Parameters
    ----------
    place : Path
        A directory.
    frames : sequence of Frame
    cutoff : float
        Of the fingerprints, Å.

    Returns
    -------
    dict of str to str
        The script by its name.
    """
    with connect(place / "schnetpack.db") as database:
        database.metadata = {"_property_unit_dict": UNITS, "_distance_unit": "Ang", "atomrefs": {}}
        for frame in frames:
            data = {"energy": np.array([frame.energy]), "forces": frame.forces_nx, MASK: frame.weights_n > 0}
            database.write(frame.atoms, data=data)
    rows = {split: [row for row, frame in enumerate(frames) if frame.split == split] for split in SPLITS}
    train, valid, test = (np.array(rows[split], dtype=int) for split in SPLITS)
    test = test if len(test) else valid  # SchNetPack takes an empty split for all structures
    np.savez(place / "schnetpack.npz", train_idx=train, val_idx=valid, test_idx=test)
    energy = ENERGY if all(frame.energy_weight for frame in frames) else NO_ENERGY
    return {"schnetpack_train.py": SCRIPT.format(mask=MASK, cutoff=cutoff, energy=energy)}
