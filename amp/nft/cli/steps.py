"""Commands for one step: ``convergence``, ``label``, ``fit``, ``evaluate``."""

from __future__ import annotations

import csv
import os
import sys
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from amp.nft.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

OF_FIT = ("cutoff", "features", "valid", "seed", "threads", "forces", "directory", "hiddenlayers", "energy_key", "forces_key")
OF_CARD = ("licence", "citation", "date", "parent")


def convergence(options: Namespace) -> int:
    """Print the error of the central force against the radius of a chunk, and the choice.

    Parameters
    ----------
    options : Namespace

    Returns
    -------
    int
    """
    from amp.nft.chunks import convergence
    from amp.nft.cli.inputs import opened
    from amp.nft.cli.paths import check_writable
    from amp.nft.cli.settings import executor_of, parent_of, targets_of

    check_writable(options.plot)
    plot = None if options.plot is None else os.path.abspath(options.plot)
    with opened(options) as given, executor_of(given.labels) as executor:
        targets = targets_of(given)
        if len(targets) > 1:
            raise InputError(f"system.target has {len(targets)} structures: choose one by --set system.target=FILE@INDEX.")
        second = given.correction or given.baseline  # both add their force in the target, and subtract that in the chunk
        cheap = None if second is None else parent_of(second)
        table = convergence(
            targets[0], parent_of(given.parent), options.radii, options.atoms, terminations=options.terminations, cheap=cheap,
            executor=executor, log=lambda message: print(message, file=sys.stderr),
        )  # fmt: skip
    print(table, table.choice(), sep="\n")
    if plot is not None:
        table.plot(plot)
    return 0


def label(options: Namespace) -> int:
    """Label structures by the parent of the input file, and write those that succeed.

    Parameters
    ----------
    options : Namespace

    Returns
    -------
    int
    """
    from ase.io import write

    from amp.nft.cli.main import NO_LABELS
    from amp.nft.cli.paths import check_output
    from amp.nft.inputs.structures import read_images

    output = Path(options.output).absolute()
    check_output(options.output)
    images = [image for name in options.files for image in read_images(name, "FILE")]
    found: dict[int, Atoms] = {}
    try:
        failed = _label(options, images, found)
    finally:  # also after Ctrl-C: a label may be expensive
        if found:
            write(output, [found[number] for number in sorted(found)])
            print(f"{len(found)} labelled structures are in {options.output}.")
    return NO_LABELS if failed else 0


def _label(options: Namespace, images: list[Atoms], found: dict[int, Atoms]) -> int:
    """Add the labels that succeed to `found`; return the number of those that fail."""
    from amp.nft.cli.inputs import opened
    from amp.nft.cli.settings import executor_of, parent_of
    from amp.nft.labels.pool import LabelPool, check_label_options
    from amp.nft.labels.single_point import Label, labelled
    from amp.nft.records import LabelOptions

    failed = 0
    with opened(options) as given, executor_of(given.labels) as executor, tempfile.TemporaryDirectory() as scratch:
        retries = 1 if given.labels.retries is None else given.labels.retries
        settings = LabelOptions(parent_of(given.parent), executor, given.parent.timeout, retries)
        check_label_options(settings)
        with LabelPool(settings, Path(scratch)) as pool:
            for number, image in enumerate(images):
                pool.request(number, image)
            for number, outcome in pool.done():
                text = f"{outcome.seconds:.2g} s" if isinstance(outcome, Label) else f"failed: {outcome}"
                print(f"structure {number} ({images[number].get_chemical_formula()}): {text}", flush=True)
                if isinstance(outcome, Label):
                    found[number] = labelled(images[number], outcome)
                failed += not isinstance(outcome, Label)
    return failed


def fit(options: Namespace) -> int:
    """Train an ensemble on labelled images.

    Parameters
    ----------
    options : Namespace

    Returns
    -------
    int
    """
    from amp.nft.cli.settings import baseline_in
    from amp.nft.fitting import fit

    given = {name: value for name, value in vars(options).items() if name in OF_FIT}
    if "hiddenlayers" in given:
        given["hiddenlayers"] = tuple(given["hiddenlayers"])
    if "members" in options:
        given["n"] = options.members
    card = {name: value for name, value in vars(options).items() if name in OF_CARD}
    baseline = baseline_in(getattr(options, "baseline", None))
    ensemble = fit(options.images, **given, card=card, baseline=baseline, log=print)
    print(f"{Path(given.get('directory', 'fit'), 'fit.ensemble')} is written: {len(ensemble.texts)} members.")
    return 0


def evaluate(options: Namespace) -> int:
    """Print the errors of an ensemble on labelled images.

    Parameters
    ----------
    options : Namespace

    Returns
    -------
    int
    """
    from amp.nft.cli.inputs import importing_from
    from amp.nft.cli.paths import check_writable, ensemble_of
    from amp.nft.cli.settings import baseline_in
    from amp.nft.fitting import evaluate

    check_writable(options.output, options.figure, options.csv)
    ensemble = ensemble_of(options.ensemble)
    with importing_from(Path(ensemble).absolute().parent):
        table = evaluate(
            ensemble, options.images, figure=options.figure, extxyz=options.output, energy_key=options.energy_key,
            forces_key=options.forces_key, baseline=baseline_in(options.baseline),
        )  # fmt: skip
    print(table)
    if options.csv is not None:
        rows = table.as_dicts()
        with open(options.csv, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return 0
