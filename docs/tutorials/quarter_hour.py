"""
A quarter of an hour
====================

This tutorial trains a potential with uncertainties for one structure and uses it for a relaxation.  The parent is ASE's EMT, which needs no
installation, so everything runs in a minute or two; the steps are the same with DFT.

Run the blocks in a notebook, or put them into one script in an empty directory.  The complete script is at the end of
this page.
"""

# %%
# 1. The structure to learn
# -------------------------
# A copper particle of about 160 atoms with facets, four atoms removed, and random displacements.  For your
# own structure, read a file: ``ase.io.read("mine.xyz")``.

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
# 225, 229 and 221), relaxed, doubled and rattled.  They contain no information about surfaces.

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
# 3. The model
# ------------
# ``calc_text`` builds an Amp calculator: fingerprints with a cutoff of 6 Å, two hidden layers of five nodes, and the
# criteria for each member.

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
# 4. The loop: train, evaluate, carve, label
# -------------------------------------------
# The ensemble has ten members.  After each training the parent labels a chunk of 6 Å around each of the most uncertain
# tenth of the atoms, until the largest uncertainty is below
# 0.05 eV/Å.  On first use the package compiles its kernels once, which takes about twenty seconds.

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
# The result of each iteration; ``nft.log`` contains more details.

for entry in al.history:
    print(
        f"{entry.iteration}: {entry.n_chunks:3d} chunks, uncertainty at most {entry.delta_max:.3f},",
        f"on average {entry.delta_mean:.3f} eV/Å",
    )

# %%
# 5. The report
# -------------
# The report is one HTML page that says whether to trust the result, and why; open it now.  Its first and
# last sentences:

from amp.nft.report import report

verdict = report("al-training", "report.html")
print(verdict.headline)
print("What next:", verdict.advice)

# %%
# 6. The uncertain atoms
# ----------------------
# ``deltas.npy`` contains the uncertainty of each atom at each iteration.

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
# 7. Use the ensemble
# -------------------
# The ensemble with the lowest uncertainty is an ASE calculator.  EMT can compute the whole particle, unlike a real
# parent, so the errors are known here:

from amp.nft.calculator import EnsembleCalculator

atoms = target.copy()
atoms.calc = EnsembleCalculator("best.al.ensemble")
true = target.copy()
true.calc = EMT()
errors = np.linalg.norm(atoms.get_forces() - true.get_forces(), axis=1)
print(f"error of the force on an atom: {errors.mean():.4f} on average, {errors.max():.4f} eV/Å at most")

# %%
# Relax the particle.  It leaves the trained geometry, so a monitor checks the uncertainty; above 0.3 eV/Å it would
# stop the relaxation and save the frame.

from ase.optimize import BFGS

from amp.nft.calculator import UncertaintyMonitor

dyn = BFGS(atoms, logfile="relax.log")
monitor = UncertaintyMonitor(dyn, threshold=0.3, trajectory="uncertain.extxyz")
dyn.attach(monitor)
dyn.run(fmax=0.05, steps=200)
print(f"{dyn.nsteps} steps; uncertainty {monitor.deltas[0]:.3f} at first, {monitor.deltas[-1]:.3f} eV/Å at last")
print("left what was learned" if monitor.exceeded else "stayed within what was learned")

# %%
# The parent's forces at the minimum:

true.positions = atoms.positions
print(f"EMT's largest force there: {np.linalg.norm(true.get_forces(), axis=1).max():.3f} eV/Å")

# %%
# Next steps
# ----------
# * :doc:`../report`: the parts of the report.
# * :doc:`../own_structure`: the same for your own structure.
# * :doc:`../settings`: choose cutoff, fingerprints, criteria and thresholds.
# * :doc:`../labels`: DFT as the parent, in local processes, with Dask or Slurm.
# * Run the script again to resume it (:doc:`../restarting`).
