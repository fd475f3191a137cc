"""Commands ``export`` and ``import``: potentials and training data for other programs, labels from elsewhere."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from amp.nft.errors import InputError


def export(options: Namespace) -> int:
    """Write an ensemble or the labels of a run in the formats of other programs.

    Parameters
    ----------
    options : Namespace

    Returns
    -------
    int
    """
    from amp.nft.amp_io.committee_file import is_committee
    from amp.nft.interfaces import write_labels

    if "runner" in options.to:
        if len(set(options.to)) > 1:
            raise InputError(f"--to {' '.join(options.to)}: runner needs a directory of its own; give it in another command.")
        return _runner(options)
    if is_committee(options.source):
        raise InputError(f"{options.source} has models, and no labels: give the training directory of its run, such as al-training.")
    if Path(options.source).is_file():
        raise InputError(f"{options.source} is a file: labels are in the training directory of a run. An .ensemble file needs --to runner.")
    counts = write_labels(
        options.source, options.output, list(dict.fromkeys(options.to)), valid=options.valid, forces=options.forces,
        energies=options.energies,
    )  # fmt: skip
    print(f"{options.output}: {', '.join(f'{n} structures in {split}' for split, n in counts.items() if n)}. README.md has the details.")
    return 0


def import_labels(options: Namespace) -> int:
    """Write the labels of other runs and files as images of a run.

    Parameters
    ----------
    options : Namespace

    Returns
    -------
    int
    """
    from ase.io import write

    from amp.nft.cli.paths import check_output
    from amp.nft.inputs.structures import CENTRAL
    from amp.nft.interfaces import gather_labels

    check_output(options.output)
    images = gather_labels(
        options.sources, energy_key=options.energy_key, forces_key=options.forces_key, accept_parent=options.accept_parent
    )
    write(options.output, images, format="extxyz")
    chunks = sum(CENTRAL in image.info for image in images)
    parents = sorted({image.info["nft_parent"] for image in images})
    print(f"{options.output}: {len(images)} labelled structures, {chunks} of them chunks with one trained force each.")
    print(f"Parent: {', '.join(parents)}.")
    print(f'Add it to the input file: [system] images = ["...", "{options.output}"]')
    return 0


def _runner(options: Namespace) -> int:
    from amp.nft.amp_io import read_amp
    from amp.nft.amp_io.committee_file import is_committee
    from amp.nft.interfaces import write_runner
    from amp.nft.run.history import read_run

    if Path(options.source).is_dir() and not is_committee(options.source):
        run = read_run(options.source)
        if not run.steps:
            raise InputError(f"{options.source} has no finished iteration yet: export its labels, or wait for the first ensemble.")
        if "committee" in run.settings:
            raise InputError(
                f"{options.source} is a run with models of another program, and the format of RuNNer describes networks of Amp: keep the "
                f"models in best.{run.label}.committee, or export the labels (--to extxyz)."
            )
        if "baseline" in run.settings:
            raise InputError(f"{options.source} is a run with a baseline, to which its networks add: RuNNer and n2p2 cannot express it.")
        paths = write_runner([read_amp(text) for text in run.members(run.best)], options.output, units=options.units)
    else:
        paths = write_runner(options.source, options.output, units=options.units)
    print(f"{options.output}: {len(paths)} members, {paths[0].name} to {paths[-1].name}.")
    return 0
