"""``python -m amp.nft status DIR`` and ``python -m amp.nft report DIR``: see how a run stands and what came of it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from amp.nft.runstore import RunStoreError


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out a command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Those of the process if not given.

    Returns
    -------
    int
        0, or 1 where there is no run that could be read; the reason is on standard error then.
    """
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except (RunStoreError, ValueError, OSError) as error:
        print(f"python -m amp.nft {options.name}: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m amp.nft", description="Look at a run of nearsighted force training.")
    commands = parser.add_subparsers(dest="name", required=True, metavar="COMMAND")
    status = commands.add_parser("status", help="one screen: where a run stands, from its files alone, also while it runs")
    status.set_defaults(command=_status)
    for command in (status,):
        command.add_argument("directory", nargs="?", default=".", help="the training directory, al-training, or where it is")
    return parser


def _status(options: argparse.Namespace) -> int:
    from amp.nft.progress import read_standing, show

    show(read_standing(options.directory))
    return 0


if __name__ == "__main__":
    sys.exit(main())
