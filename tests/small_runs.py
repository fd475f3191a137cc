"""Small runs with EMT as the parent, for the tests of several packages and for the scripts that they start."""

import json
import os
from pathlib import Path

from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.cluster import Icosahedron, Octahedron

from amp.nft.activelearner import NFT
from amp.nft.amp_io import without_card

CALC_TEXT = """
from amp import Amp
from amp.descriptor.gaussian import Gaussian
from amp.model import LossFunction
from amp.model.neuralnetwork import NeuralNetwork
from amp.nft.features import g2x

calc = Amp(descriptor=Gaussian(cutoff=4.5, Gs=g2x(['Pt'])), model=NeuralNetwork(hiddenlayers=(3,)), dblabel='../amp-db')
calc.model.lossfunction = LossFunction(
    force_coefficient=0.04, maxiter=60,
    convergence={'energy_rmse': 0.005, 'force_rmse': 0.02, 'force_maxresid': 0.2})
"""
N = 3


def cells():
    images = []
    for seed, (lattice, a) in enumerate([("fcc", 3.9), ("fcc", 4.1), ("bcc", 3.2), ("sc", 2.7)]):
        atoms = bulk("Pt", lattice, a=a, cubic=True) * ((1, 1, 2) if lattice == "sc" else 1)
        atoms.rattle(0.08, seed=seed)
        atoms.calc = EMT()
        atoms.get_forces()
        images.append(atoms)
    return images


def pt55():
    atoms = Icosahedron("Pt", 3, latticeconstant=3.99)
    atoms = Atoms(atoms.symbols, atoms.positions)
    atoms.rattle(0.1, seed=42)
    return atoms


def cluster():
    octahedron = Octahedron("Pt", 3, cutoff=1, latticeconstant=3.99)
    atoms = Atoms(octahedron.symbols, octahedron.positions)
    atoms.rattle(0.1, seed=42)
    return atoms


def run(**changes):
    settings = {"stop_delta": 1e-6, "max_iterations": 2, "threshold": -0.8, "steps_not_improved": 5, "log": os.devnull}
    al = NFT(
        **(
            settings
            | {key: changes.pop(key) for key in list(changes) if key in (*settings, "seed", "trainer", "load", "threads", "method")}
        )
    )
    inputs = {"images": cells(), "target_image": cluster(), "n": N, "calc_text": CALC_TEXT, "cutoff": 5.0}
    returned = al.run(**(inputs | {"start_command": "python run.py", "parent_calc": EMT()} | changes))
    return al, returned


def results(label="al", cards=True):
    """Everything that a run leaves and a user may read, as bytes; without model cards for a comparison of two parents."""
    names = sorted([*Path().glob(f"*{label}.*ensemble"), *Path(f"{label}-training/saved-info").glob("[!j]*.*")])
    found = {str(name): name.read_bytes() for name in names if name.suffix != ".pkl"}
    bare = {name: json.dumps([without_card(text) for text in json.loads(found[name])]).encode() for name in found if "ensemble" in name}
    return found if cards else found | bare


class Fragile(EMT):
    """EMT that fails on chunks around some atoms of the target."""

    fails = ()

    def calculate(self, atoms=None, *args, **kwargs):
        if self.fails == "all" or atoms.info.get("target_atom") in self.fails:
            raise RuntimeError("SCF did not converge")
        super().calculate(atoms, *args, **kwargs)
