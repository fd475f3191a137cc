"""``python -m amp.nft status DIR`` and ``python -m amp.nft report DIR``: show the status and the report of a run."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence

from amp.nft.errors import RunStoreError


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
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # an ASCII locale cannot write Å
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
    report = commands.add_parser("report", help="an HTML page that tells whether the potential can be trusted, and why")
    report.add_argument("-o", "--output", default="report.html", help="the page (report.html if not given)")
    report.add_argument("--figures", help="a directory for the figures as PNG and SVG")
    report.add_argument("--truth", help="a file with the targets and the parent's forces on them, where they can be had")
    report.set_defaults(command=_report)
    for command in (status, report):
        command.add_argument("directory", nargs="?", default=".", help="the training directory, al-training, or where it is")
    return parser


def _status(options: argparse.Namespace) -> int:
    from amp.nft.run import read_status, show

    show(read_status(options.directory))
    return 0


def _report(options: argparse.Namespace) -> int:
    from amp.nft.report import report

    verdict = report(options.directory, options.output, figures=options.figures, truth=options.truth)
    print(f"{verdict.headline}\nWhat next: {verdict.advice}\n{options.output} is written.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
