"""Molecular dynamics of Pt260 at 600 K with the ensemble of examples/pt260.py; stops when it leaves the trained region."""

import numpy as np
from ase import units
from ase.md.langevin import Langevin
from structures import pt260

from amp.nft.calculator import EnsembleCalculator, UncertaintyMonitor

TEMPERATURE, STEPS = 600.0, 1000  # K; of 5 fs

atoms = pt260()
atoms.calc = EnsembleCalculator("best.al.ensemble")
rng = np.random.default_rng(0)
atoms.set_momenta(rng.normal(size=(len(atoms), 3)) * np.sqrt(atoms.get_masses() * units.kB * TEMPERATURE)[:, None])
dyn = Langevin(atoms, 5 * units.fs, temperature_K=TEMPERATURE, friction=0.02, fixcm=False, rng=rng)
monitor = UncertaintyMonitor(dyn, threshold=0.3, trajectory="uncertain.extxyz")
dyn.attach(monitor)
dyn.run(STEPS)

end = "left what was learned" if monitor.exceeded else "stayed within what was learned"
print(f"{dyn.nsteps} steps at {atoms.get_temperature():.0f} K: the cluster {end}.")
print(f"Uncertainty: {monitor.deltas[0]:.3f} at first, {monitor.deltas[-1]:.3f} eV/Å at last.")
