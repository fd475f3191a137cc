"""Draw Pt260, its atoms coloured by their uncertainty, before and after the run of examples/pt260.py: picture.png."""

import matplotlib
import numpy as np
from ase.visualize.plot import plot_atoms
from matplotlib.colors import LogNorm
from structures import pt260

matplotlib.use("Agg")
from matplotlib import pyplot

deltas = np.load("al-training/saved-info/deltas.npy")  # (iterations, atoms), eV/Å
best = int(deltas.max(axis=1).argmin())
chunks = {0: 0, best: len(np.unique(np.concatenate([np.load(f"al-training/saved-info/indices_{k}.npy") for k in range(best)])))}
scale = pyplot.cm.ScalarMappable(LogNorm(deltas[best].min(), deltas[0].max()), cmap="viridis")

figure, axes = pyplot.subplots(1, 2, figsize=(7.2, 3.3), layout="constrained")
for axis, iteration in zip(axes, (0, best), strict=True):
    plot_atoms(pt260(), axis, colors=scale.to_rgba(deltas[iteration]), rotation="-80x,25y,10z")
    axis.set_axis_off()
    learned = "after the bulk cells" if iteration == 0 else f"after {chunks[iteration]} chunks as well"
    axis.set_title(f"{learned}\nlargest {deltas[iteration].max():.2g} eV/Å", fontsize=10)
figure.colorbar(scale, ax=axes, label="uncertainty of the force on an atom, eV/Å", format="%g")
figure.savefig("picture.png", dpi=110)
print("picture.png")
