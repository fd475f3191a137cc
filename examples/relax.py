"""Relax Pt260 with the ensemble of examples/pt260.py, monitor the uncertainty, and evaluate the minimum with EMT."""

import numpy as np
from ase.calculators.emt import EMT
from ase.optimize import LBFGS
from structures import pt260

from amp.nft.calculator import EnsembleCalculator, UncertaintyMonitor

atoms = pt260()
atoms.calc = EnsembleCalculator("best.al.ensemble")
dyn = LBFGS(atoms, trajectory="relax.traj")  # BFGS spends most of its time on the Hessian
monitor = UncertaintyMonitor(dyn, threshold=0.5, trajectory="uncertain.extxyz")
dyn.attach(monitor)
dyn.run(fmax=0.02, steps=200)

for step, delta in zip(monitor.steps, monitor.deltas, strict=True):
    print(f"step {step:3d}: largest uncertainty {delta:.4f} eV/Å")
atoms.calc = EMT()
fmax = np.linalg.norm(atoms.get_forces(), axis=1).max()
print(f"EMT's largest force at the ensemble's minimum: {fmax:.4f} eV/Å")
