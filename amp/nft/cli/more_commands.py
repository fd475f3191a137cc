"""Parsers of the commands that use an ensemble or collect labels: ``relax``, ``refine``, ``plot``, ``import``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def add_more_commands(commands: Any, count: Callable[[str], int], positive: Callable[[str], float], of_ensemble: str) -> None:
    """Add these commands to the parser.

    Parameters
    ----------
    commands : argparse subparsers
    count, positive : callable
        Types of arguments: an integer from 1 on, and a number above 0.
    of_ensemble : str
        Help of ``--ensemble``.
    """
    relax = commands.add_parser("relax", help="relax a structure with an ensemble; stop where it is too uncertain")
    relax.add_argument("structure", help="a file that ASE reads, or file@index")
    relax.add_argument("--ensemble", metavar="FILE", help=of_ensemble)
    relax.add_argument(
        "-o", "--output", default="relaxed.extxyz", metavar="FILE", help="the last structure, with nft_ keys (relaxed.extxyz)"
    )
    relax.add_argument("--trajectory", metavar="FILE", help="all frames as extended XYZ, with nft_ keys")
    relax.add_argument("--fmax", type=positive, default=0.05, metavar="F", help="largest force at the end, eV/Å (0.05)")
    relax.add_argument("--steps", type=count, default=500, metavar="N", help="largest number of steps (500)")
    relax.add_argument(
        "--threshold", type=positive, metavar="D",
        help="uncertainty above which it stops, eV/Å (1.5 times that on the target of the ensemble)",
    )  # fmt: skip
    relax.add_argument("--baseline", metavar="FILE", help="an input file with the table [baseline] to which the members add")
    relax.add_argument("--cell", action="store_true", help="relax the cell, too")
    relax.set_defaults(command="explore.relax")
    refine = commands.add_parser("refine", help="extend the run of an input file by structures of relaxations and dynamics")
    refine.add_argument("input", nargs="?", default="nft.toml", help="the input file (nft.toml if not given)")
    refine.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE", help="replace a value of the file; repeatable")
    refine.add_argument("--rounds", type=count, default=2, metavar="N", help="largest number of rounds (2)")
    refine.add_argument("--labels", type=count, default=10, metavar="N", help="largest number of labels of a round (10)")
    refine.add_argument("--explore", nargs="+", choices=("relax", "md"), help="explorations of a round, in this order")
    refine.add_argument("--temperature", type=positive, metavar="T", help="of the dynamics of --explore, K (300)")
    refine.add_argument("--steps", type=count, metavar="N", help="largest number of steps of --explore (relax 200, md 1000)")
    refine.add_argument("--limit", type=positive, metavar="D", help="uncertainty at which an exploration ends, eV/Å (method robust)")
    refine.set_defaults(command="explore.refine")
    plot = commands.add_parser("plot", help="the figures of a run as PNG and SVG, or the curve of one or several metrics.csv")
    plot.add_argument("sources", nargs="*", default=["."], metavar="SOURCE", help="al-training, the directory above, or metrics.csv (here)")
    plot.add_argument("-o", "--output", metavar="PATH", help="directory of the figures (figures), or file of the curve (metrics.png)")
    plot.set_defaults(command="looks.plot")
    importing = commands.add_parser("import", help="labels of other runs and files as images, with their origin")
    importing.add_argument("sources", nargs="+", metavar="SOURCE", help="the training directory of a run, or a file, or file@index")
    importing.add_argument("-o", "--output", required=True, metavar="FILE", help="extended XYZ, for system.images; is not overwritten")
    importing.add_argument("--energy-key", metavar="NAME", help="energy of a file's structures in info, as REF_energy")
    importing.add_argument("--forces-key", metavar="NAME", help="forces of a file's structures in the arrays, as REF_forces")
    importing.add_argument("--accept-parent", action="store_true", help="accept runs with different parents")
    importing.set_defaults(command="export.import_labels")
