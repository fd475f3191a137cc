"""Input of other trainers for exported labels: the parts that read the data and weigh its forces."""

from __future__ import annotations

import json
from collections.abc import Sequence

from amp.nft.interfaces.frames import Frame

README = """\
# Labels of {name}

{counts}

Units: eV, Å. Parent: {parent}. `provenance.json` has versions, settings, the atoms of each split, and the hash of each file.

- `nft_chunk` frames are free clusters around one atom of the target, which is atom 0. Only forces with a weight are known to be those
  of the target: train these, and no others. Their energies are those of the clusters; {energies}.
- `nft_image` frames are the labelled structures that the run began with.
- The split is by atom of the target: forces on validation atoms have no weight in `train`, in any chunk. Do not split again by frame.
  `test` frames are around atoms that the run chose at random and never trained.
{correction}"""

NOT_APPLIED = {
    "correction": "- The run corrected its labels by a cheap calculator; here are the forces of the parent in the chunks.\n",
    "baseline": "- The run trained on what the parent has beyond a baseline; here are the parent's own energies and forces.\n",
}  # by the setting of a run

COLUMNS = {
    "extxyz": """\

## Columns of the extxyz files

| name | content |
|---|---|
| `REF_energy`, `REF_forces` | by the parent, all atoms |
| `NFT_energy`, `NFT_forces` | the same; nan where not trained |
| `config_energy_weight` | weight of the energy, 0 or 1 |
| `REF_forces_atomic_weights` | weight of each force, 0 to 1 |
| `force_mask` | T excludes the force (GAP) |
| `force_atom_sigma` | error of each force, eV/Å (GAP); 1 where masked |
| `nft_center`, `nft_target_index` | the central atom; index in the target, -1 for caps and images |
| `config_type`, `nft_target`, `nft_iteration`, `nft_radius` | kind of frame, number of the target, first iteration, radius (Å) |
""",
    "flare": """\

## Columns of the flare files

Energy (where it is trained) and forces are results of ASE. `nft_weights` is the weight of each force, `nft_target_index` the index in the
target. `flare_train.py` adds the forces with a weight; `flare-otf` knows no weights.
""",
    "schnetpack": """\

## Properties in schnetpack.db

`energy` (eV), `forces` (eV/Å) and `considered_atoms`, which is true where the force is trained. `schnetpack.npz` has the split.
""",
}  # by format

MACE = """\
# Per-atom force weights need pull request 1542 of ACEsuit/mace. Without it all forces of a chunk would be trained.
mace_run_train --help | grep -q forces_atomic_weights_key || {{ echo "this MACE has no --forces_atomic_weights_key"; exit 1; }}
mace_run_train --name nft --train_file train.extxyz {valid} \\
    --energy_key REF_energy --forces_key REF_forces --forces_atomic_weights_key REF_forces_atomic_weights \\
    --E0s average --r_max {cutoff:g} --loss weighted
"""

NEQUIP = """\
# Parts of a NequIP input; ignore_nan leaves out what is not trained.
data:
  _target_: nequip.data.datamodule.ASEDataModule
  seed: 1
  train_file_path: train.extxyz
  val_file_path: {valid}
  key_mapping: {{NFT_energy: total_energy, NFT_forces: forces}}
training_module:
  loss: &metrics
    _target_: nequip.train.MetricsManager
    metrics:
      - {{field: forces, metric: {{_target_: nequip.train.MeanSquaredError}}, coeff: 1.0, ignore_nan: true}}
      - {{field: total_energy, metric: {{_target_: nequip.train.MeanSquaredError}}, coeff: 0.01, ignore_nan: true}}
  val_metrics: *metrics
"""

GAP = """\
gap_fit at_file=train.extxyz energy_parameter_name=REF_energy force_parameter_name=REF_forces \\
    force_mask_parameter_name=force_mask e0_method=average default_sigma="{{0.001 {floor:.4g} 0 0}}" \\
    config_type_sigma="{{nft_chunk:{chunk}:{floor:.4g}:0:0}}" sparse_jitter=1e-8 gp_file=nft.xml \\
    gap="{{distance_2b cutoff={cutoff:g} covariance_type=ard_se delta=1.0 theta_uniform=1.0 n_sparse=20 : \\
soap cutoff={cutoff:g} l_max=6 n_max=8 atom_sigma=0.5 zeta=4 delta=1.0 n_sparse=300 covariance_type=dot_product sparse_method=cur_points}}"
"""

FRAME_TABLE = """\
cutoff: {cutoff:g}
data:
  filename: {name}-train.pckl.gzip
{valid}fit:
  loss: {{kappa: {kappa}}}  # 1: forces alone
"""


def of_extxyz(frames: Sequence[Frame], cutoff: float) -> dict[str, str]:
    """Return the inputs for the trainers that read the extxyz files.

    Parameters
    ----------
    frames : sequence of Frame
    cutoff : float
        Of the fingerprints, Å.

    Returns
    -------
    dict of str to str
        Text by file name.
    """
    valid = any(frame.split == "valid" for frame in frames)
    # energies of cut clusters at 0.001 eV per atom spoil the forces of GAP: docs/committees.rst
    chunk = "1" if any(frame.kind == "nft_chunk" and frame.energy_weight for frame in frames) else "1000"
    return {
        "mace.sh": MACE.format(cutoff=cutoff, valid="--valid_file valid.extxyz" if valid else "--valid_fraction 0.1"),
        "nequip.yaml": NEQUIP.format(valid="valid.extxyz" if valid else "train.extxyz  # export with --valid for a separate file"),
        "gap.sh": GAP.format(floor=frames[0].floor, chunk=chunk, cutoff=cutoff),
    }


def of_deepmd(frames: Sequence[Frame], elements: Sequence[str], systems: dict[str, list[str]], cutoff: float) -> dict[str, str]:
    """Return the input of DeePMD-kit.

    Parameters
    ----------
    frames : sequence of Frame
    elements : sequence of str
    systems : dict of str to list of str
        Directories by split.
    cutoff : float
        Å.

    Returns
    -------
    dict of str to str
    """
    energy = {"start_pref_e": 0.02, "limit_pref_e": 1.0} if any(one.energy_weight for one in frames) else {}
    prefactors = {"start_pref_e": 0.0, "limit_pref_e": 0.0, **energy, "start_pref_f": 0.0, "limit_pref_f": 0.0}
    data = {"training_data": {"systems": systems["train"], "batch_size": "auto"}}
    if systems["valid"]:
        data["validation_data"] = {"systems": systems["valid"], "batch_size": "auto"}
    text = {
        "model": {
            "type_map": list(elements),
            "descriptor": {"type": "se_e2_a", "sel": "auto", "rcut": cutoff, "rcut_smth": 0.5 * cutoff, "seed": 1},
            "fitting_net": {"neuron": [64, 64], "seed": 1},
        },
        "learning_rate": {"type": "exp", "start_lr": 1e-3, "stop_lr": 1e-7},
        "loss": {"type": "ener", **prefactors, "start_pref_pf": 100.0, "limit_pref_pf": 1.0},
        "training": {**data, "numb_steps": 100000, "seed": 1},
    }
    return {"deepmd.json": json.dumps(text, indent=1) + "\n"}


def of_frame_table(name: str, frames: Sequence[Frame], cutoff: float) -> dict[str, str]:
    """Return the input of pacemaker or gracemaker.

    Parameters
    ----------
    name : {'pacemaker', 'grace'}
    frames : sequence of Frame
    cutoff : float
        Å.

    Returns
    -------
    dict of str to str
    """
    valid = f"  test_filename: {name}-valid.pckl.gzip\n" if any(frame.split == "valid" for frame in frames) else ""
    kappa = 0.9 if any(frame.energy_weight for frame in frames) else 1
    text = FRAME_TABLE.format(cutoff=cutoff, name=name, valid=valid, kappa=kappa)
    if name == "grace":  # which has another form of the loss; weights of zero leave the energies out
        text = text[: text.index("fit:")]
    return {f"{name}.yaml": text}
