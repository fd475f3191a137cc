"""
A quarter of an hour
====================

From a structure to a potential that knows where it is unsure, and to a relaxation with it.  The parent is ASE's EMT, so that nothing
has to be installed and everything runs in a minute or two; the steps are the same with DFT.

Run the blocks in a notebook, or put them into one script in an empty directory.  The whole of it can be downloaded
at the end of this page.
"""

# %%
# 1. The structure to learn
# -------------------------
# A copper particle of some 160 atoms, cut along its facets, with four atoms knocked off, and shaken.  For your
# own, read a file: ``ase.io.read("mine.xyz")``.

from ase import Atoms
from ase.cluster import wulff_construction

facets, energies = [(1, 0, 0), (1, 1, 1), (1, 1, 0)], [1.1, 1.0, 1.2]
particle = wulff_construction("Cu", facets, energies, size=180, structure="fcc", latticeconstant=3.6)
target = Atoms(particle.symbols, particle.positions)
del target[[0, 1, 2, 3]]
target.rattle(0.08, seed=0)
print(len(target), "atoms")

# %%
# 2. The first images
# -------------------
# Small bulk cells with energies and forces of the parent: here fcc, bcc and simple cubic crystals (space groups
# 225, 229 and 221), relaxed, doubled and rattled.  They are all that is known at first: of a surface, nothing.

from ase.calculators.emt import EMT

from amp.nft.initialization import initial_images

images = initial_images(
    ["Cu"],
    sgs=[225, 229, 221],
    a0=3.6,
    minsep=2.0,
    posamp=0.08,
    n_rattled=4,
    parent_calc=EMT(),
)
print(len(images), "cells of", sorted({len(cell) for cell in images}), "atoms")

# %%
# 3. What is trained
# ------------------
# A text that builds an Amp calculator: fingerprints that see 6 Å far, two hidden layers of five nodes, and the
# criteria that each member is to meet.

calc_text = """
from amp import Amp
from amp.descriptor.gaussian import Gaussian
from amp.model import LossFunction
from amp.model.neuralnetwork import NeuralNetwork
from amp.nft.features import g2x

calc = Amp(
    descriptor=Gaussian(cutoff=6.0, Gs=g2x(["Cu"])),
    model=NeuralNetwork(hiddenlayers=(5, 5)),
)
calc.model.lossfunction = LossFunction(
    force_coefficient=0.04,
    convergence={"energy_rmse": 0.001, "force_rmse": 0.005, "force_maxresid": 0.02},
)
"""

# %%
# 4. Train, look, cut out, label, train
# -------------------------------------
# Ten members.  After each training a chunk of 6 Å around each of the most uncertain tenth of the atoms goes to
# the parent, until the largest uncertainty is below
# 0.05 eV/Å.  On its first use the package compiles its kernels, some twenty seconds, once.

from amp.nft.activelearner import NFT

al = NFT(threshold=-0.9, stop_delta=0.05, max_iterations=10, log="nft.log")
al.run(
    images,
    target,
    n=10,
    calc_text=calc_text,
    start_command="python run.py",
    parent_calc=EMT(),
    cutoff=6.0,
)
print(al.stop_reason)

# %%
# What each iteration came to; ``nft.log`` says more.

for entry in al.history:
    print(
        f"{entry.iteration}: {entry.n_chunks:3d} chunks, uncertainty at most {entry.delta_max:.3f},",
        f"on average {entry.delta_mean:.3f} eV/Å",
    )

# %%
# 5. Is it any good?
# ------------------
# The report is one page that opens in a browser: whether to trust the result, and why; open it now.  Its first and
# its last words:

from amp.nft.report import report

verdict = report("al-training", "report.html")
print(verdict.headline)
print("What next:", verdict.advice)

# %%
# 6. Where was it unsure?
# -----------------------
# ``deltas.npy`` has the uncertainty of every atom at every iteration.

import matplotlib.pyplot as plt
import numpy as np
from ase.visualize.plot import plot_atoms
from matplotlib.colors import LogNorm

deltas = np.load("al-training/saved-info/deltas.npy")
scale = plt.cm.ScalarMappable(LogNorm(deltas[-1].min(), deltas[0].max()), cmap="viridis")
figure, axes = plt.subplots(1, 2, figsize=(7.2, 3.2), layout="constrained")
for axis, iteration, title in zip(axes, (0, -1), ("after the bulk cells", "at the end"), strict=True):
    plot_atoms(target, axis, colors=scale.to_rgba(deltas[iteration]), rotation="-80x,25y,10z")
    axis.set_axis_off()
    axis.set_title(title)
bar = figure.colorbar(scale, ax=axes, label="uncertainty, eV/Å", ticks=[0.01, 0.03, 0.1, 0.3, 1], format="%g")
bar.minorticks_off()

# %%
# 7. Use it
# ---------
# The ensemble of the lowest uncertainty is an ASE calculator.  EMT can do the whole particle, which a real
# parent could not, so here the errors can be seen:

from amp.nft.calculator import EnsembleCalculator

atoms = target.copy()
atoms.calc = EnsembleCalculator("best.al.ensemble")
true = target.copy()
true.calc = EMT()
errors = np.linalg.norm(atoms.get_forces() - true.get_forces(), axis=1)
print(f"error of the force on an atom: {errors.mean():.4f} on average, {errors.max():.4f} eV/Å at most")

# %%
# Relax the particle.  It leaves the geometry that was learned, so a monitor watches the uncertainty; it would
# stop the relaxation, and keep the frame, above 0.3 eV/Å.

from ase.optimize import BFGS

from amp.nft.calculator import UncertaintyMonitor

dyn = BFGS(atoms, logfile="relax.log")
monitor = UncertaintyMonitor(dyn, threshold=0.3, trajectory="uncertain.extxyz")
dyn.attach(monitor)
dyn.run(fmax=0.05, steps=200)
print(f"{dyn.nsteps} steps; uncertainty {monitor.deltas[0]:.3f} at first, {monitor.deltas[-1]:.3f} eV/Å at last")
print("left what was learned" if monitor.exceeded else "stayed within what was learned")

# %%
# And the parent's word on the minimum:

true.positions = atoms.positions
print(f"EMT's largest force there: {np.linalg.norm(true.get_forces(), axis=1).max():.3f} eV/Å")

# %%
# What next
# ---------
# * :doc:`../report`: what to look at in it.
# * :doc:`../own_structure`: the same, for what you brought.
# * :doc:`../settings`: how to choose cutoff, fingerprints, criteria and thresholds.
# * :doc:`../labels`: DFT as the parent, in local processes, with Dask or Slurm.
# * Run the script again: it goes on where it stopped (:doc:`../restarting`).
