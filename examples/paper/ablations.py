"""Effect of each part of the method: the loop on Pt260 with one change, several times.

    python examples/paper/ablations.py [--seeds 5] [--small] [--only NAME ...]

The loop is written out here over the pieces of amp.nft, since some of these changes are no choices that anyone should have.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.emt import EMT
from workflow import (
    OURS,
    PAPER,
    PAPER_ERROR,
    Settings,
    broad_images,
    chunks_to_reach,
    figure,
    figures,
    for_each,
    judge,
    options,
    paper_images,
    pt260,
    save,
    save_figure,
    spread,
)

from amp.nft.amp_io import read_calc_text
from amp.nft.chunks import carve_chunks
from amp.nft.kernels.fingerprints.gaussian import Fingerprints, Rows
from amp.nft.kernels.training.labelled import LabelledImages
from amp.nft.selection import distinct, fingerprints
from amp.nft.training import batched_fit, sample_weights
from amp.nft.uncertainty import select

FINE = replace(OURS, threshold=-0.97)  # 8 atoms of 260 at a time: a tenth at a time is too coarse to tell good from better


@dataclass(frozen=True)
class Variant:
    """A way to learn; without arguments that of learn.py, with fewer chunks at a time.

    `random`: chunks around random atoms. `signal`: what is trained of a chunk, the force on its 'central' atom, all 'forces', or
    all forces and the 'energy'. `warm`: training goes on from the last members. `ranged`: the networks' inputs are scaled to all that is
    seen, at each retraining; else to the bulk cells, once. `distinct`: leave out atoms that a chunk covers, within this distance.
    """

    settings: Settings = FINE
    images: Callable[[], list[Atoms]] = broad_images
    random: bool = False
    signal: str = "central"
    warm: bool = True
    ranged: bool = True
    distinct: float | None = None
    iterations: int = 6


VARIANTS = {
    "standard": Variant(),
    "random chunks": Variant(random=True),
    "distinct chunks": Variant(distinct=0.05),
    "all forces of a chunk": Variant(signal="forces"),
    "all forces and the energy": Variant(signal="energy"),
    "from scratch": Variant(warm=False),
    "inputs ranged once": Variant(ranged=False),
    "3 members": Variant(replace(FINE, members=3)),
    "5 members": Variant(replace(FINE, members=5)),
    "20 members": Variant(replace(FINE, members=20)),
    # from the paper's settings to those of learn.py, a tenth of the atoms at a time
    "the paper's settings": Variant(replace(PAPER, maxiter=300), paper_images, iterations=10),
    "+ no penalty": Variant(replace(PAPER, overfit=0.0), paper_images, iterations=4),
    "+ tighter criteria": Variant(replace(OURS, features="paper20", fingerprint_cutoff=6.5), paper_images, iterations=4),
    "+ broader bulk cells": Variant(replace(OURS, features="paper20", fingerprint_cutoff=6.5), iterations=4),
    "+ fingerprints g2x": Variant(replace(OURS, fingerprint_cutoff=6.5), iterations=4),
    "+ their cutoff 5.5 Å: learn.py": Variant(OURS, iterations=4),
    "6.5 Å, and chunks of 8 Å": Variant(replace(OURS, fingerprint_cutoff=6.5, chunk_cutoff=8.0), iterations=4),
    "its cutoff 5 Å": Variant(replace(OURS, fingerprint_cutoff=5.0), iterations=4),
    "its chunks of 8 Å": Variant(replace(OURS, chunk_cutoff=8.0), iterations=4),
    "its criteria the paper's": Variant(replace(OURS, energy_rmse=1e-3, force_rmse=5e-3, force_maxresid=2e-2), iterations=4),
    "its criteria halved": Variant(replace(OURS, energy_rmse=1e-4, force_rmse=5e-4, force_maxresid=2e-3), iterations=4),
    "halved, with chunks of 8 Å": Variant(
        replace(OURS, energy_rmse=1e-4, force_rmse=5e-4, force_maxresid=2e-3, chunk_cutoff=8.0), iterations=4
    ),
}
FIGURES = {
    "ablation-data": [
        ["standard", "random chunks", "distinct chunks"],
        ["standard", "all forces of a chunk", "all forces and the energy"],
    ],
    "ablation-training": [
        ["standard", "from scratch", "inputs ranged once"],
        ["3 members", "5 members", "standard", "20 members"],
    ],
    "ablation-settings": [
        list(VARIANTS)[10:16],
        list(VARIANTS)[14:22],
    ],
}


@dataclass(frozen=True)
class Lesson:
    """Trained part of an image."""

    rows: Rows
    energy: float
    forces: np.ndarray
    n_atoms: int


def lesson(image: Atoms, make: Fingerprints, signal: str) -> Lesson:
    """Return the image, labelled by EMT, as far as it is trained."""
    image = image.copy()
    image.calc = EMT()
    centre = 0 if signal == "central" else None
    energy = image.get_potential_energy() if signal == "energy" else np.nan
    forces = image.get_forces() if centre is None else image.get_forces()[[centre]]
    return Lesson(make.rows(image, centre), energy, forces, len(image))


def labelled(lessons: Sequence[Lesson]) -> LabelledImages:
    """Return the lessons as the fit takes them."""
    return LabelledImages(
        [one.rows for one in lessons], np.array([one.energy for one in lessons]), [one.forces for one in lessons],
        np.array([one.n_atoms for one in lessons]),
    )  # fmt: skip


def run(name: str, seed: int, small: bool) -> dict[str, Any]:
    """Run the loop with a variant's changes; return the errors of each ensemble."""
    variant, target, begin = VARIANTS[name], pt260(small), time.perf_counter()
    settings = variant.settings
    spec = read_calc_text(settings.calc_text(["Pt"])).resolved(["Pt"])
    make = Fingerprints(spec.gs, spec.cutoff)
    whole = [make.rows(target)] if variant.ranged else []
    bulk = [lesson(image, make, "energy") for image in variant.images()]
    chunks: dict[int, Lesson] = {}
    added: list[list[int]] = []
    models, rows = None, []
    for iteration in range(variant.iterations + 1):
        lessons = [*bulk, *chunks.values()]
        place = {atom: len(bulk) + k for k, atom in enumerate(chunks)}
        samples = sample_weights(seed, settings.members, len(bulk), [[place[atom] for atom in batch] for batch in added])
        models, reports = batched_fit.fit(
            spec, labelled(lessons), samples, ranges([one.rows for one in (lessons if variant.ranged else bulk)] + whole),
            [[seed, iteration, member] for member in range(settings.members)], start=models if variant.warm else None,
            threads=1, unlabelled=whole,
        )  # fmt: skip
        delta, error = judge(models, target)
        missed = sum(not report.converged for report in reports)
        rows.append({"chunks": len(chunks), "missed": missed, **figures(delta, error)})
        added.append(choose(variant, target, delta, list(chunks), np.random.default_rng([seed, iteration])))
        new = [atom for atom in added[-1] if atom not in chunks]
        for atom, chunk in zip(new, carve_chunks(target, new, settings.chunk_cutoff), strict=True):
            chunks[atom] = lesson(chunk, make, variant.signal)
    return {"seed": seed, "seconds": time.perf_counter() - begin, "iterations": rows}


def ranges(rows: Sequence[Rows]) -> dict[str, np.ndarray]:
    """Smallest and largest of each fingerprint."""
    x = np.concatenate([one.x for one in rows])
    return {"Pt": np.column_stack([x.min(axis=0), x.max(axis=0)])}


def choose(variant: Variant, target: Atoms, delta: np.ndarray, known: list[int], rng: np.random.Generator) -> list[int]:
    """Atoms whose chunks are added next."""
    chosen = [int(atom) for atom in select(delta, variant.settings.threshold)]
    if variant.random:
        rest = np.setdiff1d(np.arange(len(target)), known)
        return [int(atom) for atom in rng.permutation(rest)[: len(chosen)]]
    if variant.distinct is not None:
        x, kinds, _ = fingerprints([target], cutoff=variant.settings.fingerprint_cutoff)
        return distinct(x, kinds, sorted(chosen, key=lambda atom: -delta[atom]), known, variant.distinct)
    return chosen


def main(seeds: int, small: bool, only: list[str] | None = None) -> None:
    """Run all, print a table, plot."""
    names = only or list(VARIANTS)
    found = for_each(run, [(name, seed, small) for name in names for seed in range(seeds)])
    runs = {name: found[k * seeds : (k + 1) * seeds] for k, name in enumerate(names)}
    save("ablations", runs)
    print("chunks: to a mean error of 0.0039 eV/Å, mean and spread over the runs that reach it; the rest at the end")
    print(f"{'':28s}{'runs':>5s}{'chunks':>16s}{'all':>5s}{'mean error':>18s}{'largest error':>18s}{'largest delta':>18s}{'within':>8s}"
          f"{'seconds':>8s}")  # fmt: skip
    for name, some in runs.items():
        last = [one["iterations"][-1] for one in some]
        reach = [chunks for one in some if not np.isnan(chunks := chunks_to_reach(one["iterations"]))]
        chunks = f"{np.mean(reach):.1f} ± {np.std(reach):.1f}" if reach else "-"
        print(f"{name:28s}{len(reach):3d}/{seeds}{chunks:>16s}{np.mean([row['chunks'] for row in last]):5.0f}"
              + "".join(f"{spread([row[key] for row in last]):>18s}" for key in ("mean_error", "max_error", "delta_max"))
              + f"{np.mean([row['covered'] for row in last]):8.3f}{np.mean([one['seconds'] for one in some]):8.1f}")  # fmt: skip
    for name, panels in FIGURES.items():
        if all(key in runs for panel in panels for key in panel):
            plot(name, panels, runs)


def plot(name: str, panels: list[list[str]], runs: dict[str, list[dict[str, Any]]]) -> None:
    """Mean and largest error against chunks: middle of the seeds (of logarithms), with a band as wide as their spread."""
    fig, axes = figure(len(panels), 2, sharex="col", sharey="row")
    for column, keys in enumerate(panels):
        for row, what in enumerate(("mean_error", "max_error")):
            for number, key in enumerate(keys):
                draw(axes[row][column], [one["iterations"] for one in runs[key]], what, f"C{number}", key)
        axes[0][column].axhline(PAPER_ERROR, color="k", ls=":", lw=1)
        axes[0][column].legend(frameon=False, fontsize=7, loc="lower left", bbox_to_anchor=(0.0, 1.0))
        axes[1][column].set_xlabel("chunks")
    axes[0][0].set_ylabel("mean force error (eV/Å)")
    axes[1][0].set_ylabel("largest force error (eV/Å)")
    save_figure(name, fig)


def draw(ax: Any, runs: list[list[dict[str, Any]]], what: str, colour: str, label: str) -> None:
    """One line with its band."""
    chunks = np.mean([[row["chunks"] for row in rows] for rows in runs], axis=0)
    log = np.log([[row[what] for row in rows] for rows in runs])
    middle, width = log.mean(axis=0), log.std(axis=0)
    ax.semilogy(chunks, np.exp(middle), "o-", color=colour, ms=3, lw=1, label=label)
    ax.fill_between(chunks, np.exp(middle - width), np.exp(middle + width), color=colour, alpha=0.2, lw=0)


if __name__ == "__main__":
    main(**vars(options(__doc__, only=list(VARIANTS))))
