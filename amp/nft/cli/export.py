"""Command ``export``: potentials and training data for other programs."""

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
    from amp.nft.interfaces import write_labels

    if "runner" in options.to:
        if len(set(options.to)) > 1:
            raise InputError(f"--to {' '.join(options.to)}: runner needs a directory of its own; give it in another command.")
        return _runner(options)
    if Path(options.source).is_file():
        raise InputError(f"{options.source} is a file: labels are in the training directory of a run. An .ensemble file needs --to runner.")
    counts = write_labels(
        options.source, options.output, list(dict.fromkeys(options.to)), valid=options.valid, forces=options.forces,
        energies=options.energies,
    )  # fmt: skip
    print(f"{options.output}: {', '.join(f'{n} structures in {split}' for split, n in counts.items() if n)}. README.md has the details.")
    return 0


def _runner(options: Namespace) -> int:
    from amp.nft.amp_io import read_amp
    from amp.nft.interfaces import write_runner
    from amp.nft.run.history import read_run

    if Path(options.source).is_dir():
        run = read_run(options.source)
        if not run.steps:
            raise InputError(f"{options.source} has no finished iteration yet: export its labels, or wait for the first ensemble.")
        paths = write_runner([read_amp(text) for text in run.members(run.best)], options.output, units=options.units)
    else:
        paths = write_runner(options.source, options.output, units=options.units)
    print(f"{options.output}: {len(paths)} members, {paths[0].name} to {paths[-1].name}.")
    return 0
