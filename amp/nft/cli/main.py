"""The parser of ``amp-nft``, its exit codes, and one line for each error."""

from __future__ import annotations

import argparse
import importlib
import io
import math
import re
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

from amp.nft.cli.more_commands import add_more_commands
from amp.nft.errors import (
    AmpFileError,
    ChunkError,
    CorrectionError,
    InputError,
    LabellingError,
    NFTError,
    ParentMismatch,
    UnsupportedModel,
)  # fmt: skip

CONVERGED, FAILED, BAD_INPUT, UNCONVERGED, NO_LABELS, HALTED, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130
OF_INPUT = (AmpFileError, ChunkError, CorrectionError, InputError, ParentMismatch, UnsupportedModel)
EXIT_CODES = """exit codes: 0 done (run: converged), 1 failed, 2 bad command line or input, 3 the run stopped before it converged,
4 no label of a batch succeeded, 5 an uncertainty halted the dynamics (lammps, relax), 130 or 143 stopped by Ctrl-C or SIGTERM: the same
command resumes the run"""
OF_DYNAMICS = """--relearn nft.toml: learn where an uncertainty halts the dynamics, and continue; --elements A B ... for atom
types 1, 2, ...; --baseline-pair STYLE: pair style that gives the baseline; others go to LAMMPS"""
EXPORTS = ("extxyz", "flare", "deepmd", "schnetpack", "pacemaker", "grace", "runner")
OF_BASELINE = "an input file with the table [baseline] to which the members add"
OF_ENSEMBLE = "an .ensemble file or a .committee (that of the run al here)"
PARENTS = ("emt", "tblite", "gpaw", "vasp", "lammps")


READS = {"mace": "extxyz", "nequip": "extxyz", "gap": "extxyz", "gap_fit": "extxyz", "n2p2": "runner", "deepmd-kit": "deepmd"}
_CHOICE = re.compile(r"invalid choice: '([^']*)' \(choose from (.*)\)")
_UNKNOWN = re.compile(r"unrecognized arguments: (--[\w-]+)")


class Begun(Exception):
    """An error after the work has begun, which a wrong argument does not explain: `__cause__`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Those of the process if not given.

    Returns
    -------
    int
        The exit code; the reason of one above 0 is on standard error.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # an ASCII locale cannot write Å
    if not (sys.argv[1:] if arguments is None else arguments):
        _parser().print_help(sys.stderr)
        return BAD_INPUT
    try:
        options = _parser().parse_args(arguments)
        with warnings.catch_warnings():
            warnings.showwarning = _in_one_line
            return _command(options)(options)
    except KeyboardInterrupt as interrupt:
        if not getattr(interrupt, "__notes__", None):  # the log of a run has said so
            print("amp-nft: stopped by Ctrl-C.", file=sys.stderr)
        return INTERRUPTED
    except Begun as error:
        assert error.__cause__ is not None
        raise error.__cause__ from None
    except LabellingError as error:
        return _fail(options, error, NO_LABELS)
    except (*OF_INPUT, ValueError, TypeError, FileNotFoundError) as error:
        return _fail(options, error, BAD_INPUT)
    except (NFTError, OSError) as error:
        return _fail(options, error, FAILED)


def _fail(options: argparse.Namespace, error: BaseException, code: int) -> int:
    print(f"amp-nft {options.name}: {error}", file=sys.stderr)
    return code


def _in_one_line(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    print(f"Warning: {message}", file=sys.stderr)


def _command(options: argparse.Namespace) -> Any:
    """Return the function of a command; its module is imported now, not for --help."""
    module, _, name = options.command.rpartition(".")
    return getattr(importlib.import_module(f"amp.nft.cli.{module}"), name)


class _Version(argparse.Action):
    """Print the versions of this package and of those whose numbers it uses."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object, **__: object) -> NoReturn:
        from amp.nft.system.packages import versions

        found = versions()
        others = ", ".join(f"{name} {found[name]}" for name in ("amp-atomistics", "ase", "numpy", "numba"))
        print(f"amp-nft {found['amp-nft']} ({others}, Python {found['python']})")
        parser.exit()


class _Parser(argparse.ArgumentParser):
    """Parser whose errors name the most similar word."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2 and a message."""
        from amp.nft.inputs.arguments import did_you_mean  # NumPy: not for --help

        if found := _CHOICE.search(message):
            message = (
                message[: found.end(1) + 1] + "; " + did_you_mean(found[1], [word.strip("' ") for word in found[2].split(",")]).rstrip(".")
            )
        elif found := _UNKNOWN.match(message):
            known = [option for action in self._actions for option in action.option_strings]
            message += f"; {did_you_mean(found[1], known).rstrip('.')}"
        super().error(message)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Return the options; an unknown one is an error of the command that it was given to."""
        options, others = self.parse_known_args(args, namespace)
        if others:
            command = next(
                (action.choices[options.name] for action in self._actions if isinstance(action, argparse._SubParsersAction)), self
            )
            command.error(f"unrecognized arguments: {' '.join(others)}")
        return options


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="amp-nft", description="Nearsighted force training: learn the forces on a large structure from small chunks.",
        epilog=EXIT_CODES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--version", nargs=0, action=_Version, help="show the versions of amp-nft and of the packages it uses")
    commands = parser.add_subparsers(dest="name", required=True, metavar="COMMAND")
    _add_input_commands(commands)
    _add_run_commands(commands)
    _add_steps(commands)
    info = commands.add_parser("info", help="members, elements, fingerprints, calibration and model card of an ensemble")
    info.add_argument("ensemble", help="an .ensemble file or a .committee")
    info.add_argument("--json", action="store_true", help="as JSON, for programs")
    info.set_defaults(command="looks.info")
    _add_export(commands)
    add_more_commands(commands, _count, _positive, OF_ENSEMBLE)
    dynamics = commands.add_parser("lammps", help="run a LAMMPS deck with the forces of an ensemble; start it by mpirun")
    dynamics.add_argument("ensemble", help="an .ensemble file; not a .committee, which LAMMPS cannot run")
    dynamics.add_argument("deck", help="an input deck with `fix nft all external pf/callback 1 1`")
    dynamics.add_argument("arguments", nargs=argparse.REMAINDER, help=OF_DYNAMICS)
    dynamics.set_defaults(command="dynamics.lammps")
    return parser


def _add_input_commands(commands: Any) -> None:
    """Add the commands of an input file."""
    init = commands.add_parser("init", help="write a commented nft.toml and its schema; nothing is overwritten")
    init.add_argument("--parent", choices=PARENTS, default="emt", help="the parent to begin with (emt if not given)")
    init.add_argument("--target", metavar="FILE", help="the structure to learn (target.traj if not given)")
    init.add_argument("directory", nargs="?", default=".", help="where to write (here if not given)")
    init.set_defaults(command="inputs.init")
    check = commands.add_parser("check", help="check an input file, its structures, units and parent; estimate the cost; write nothing")
    check.add_argument("--label", type=_count, metavar="N", help="also label N chunks, and show the time of each")
    check.set_defaults(command="inputs.check")
    run = commands.add_parser("run", help="start the run of an input file, or resume it")
    run.add_argument("--dry-run", action="store_true", help="check the input as the run does, and start nothing")
    run.set_defaults(command="inputs.run")
    run.add_argument(
        "--until", action="append", default=[], metavar="LIMIT=VALUE",
        help="stop this start at labels=N or iterations=N of the run, or at hours=H; repeatable",
    )  # fmt: skip
    for command in (check, run):
        command.add_argument("input", nargs="?", default="nft.toml", help="the input file (nft.toml if not given)")
        command.add_argument(
            "--set", action="append", default=[], metavar="TABLE.KEY=VALUE", help="replace a value of the file; repeatable"
        )
    schema = commands.add_parser("schema", help="print the JSON schema of the input file")
    schema.set_defaults(command="inputs.show_schema")


def _add_run_commands(commands: Any) -> None:
    """Add the commands that look at a run."""
    status = commands.add_parser("status", help="one screen: the status of a run, from its files alone, also while it runs")
    status.add_argument("--json", action="store_true", help="as JSON, for programs")
    status.set_defaults(command="looks.status")
    report = commands.add_parser("report", help="an HTML page that says whether the potential can be trusted, and why")
    report.add_argument("-o", "--output", default="report.html", help="the page (report.html if not given)")
    report.add_argument("--figures", help="a directory for the figures as PNG and SVG")
    report.add_argument("--truth", help="a file with the targets and the parent's forces on them, where these are known")
    report.add_argument("--forces-key", metavar="NAME", help="forces of --truth in the arrays, as REF_forces; ASE's result if not given")
    report.set_defaults(command="looks.report")
    for command in (status, report):
        command.add_argument("directory", nargs="?", default=".", help="the training directory, al-training, or the directory above")


def _add_steps(commands: Any) -> None:
    """Add the commands that do one step of a run."""
    convergence = commands.add_parser("convergence", help="error of the central force against radius and termination of a chunk")
    convergence.add_argument("--radii", nargs="+", type=float, metavar="R", help="Å; chosen by the sizes of chunks if not given")
    convergence.add_argument("--atoms", type=_count, default=10, metavar="N", help="number of central atoms (10)")
    convergence.add_argument(
        "--terminations", nargs="+", default=["sphere"], metavar="T", help="sphere, molecules, hydrogen, neutral, auto"
    )
    convergence.add_argument("--plot", metavar="FILE", help="also draw the table")
    convergence.set_defaults(command="steps.convergence")
    label = commands.add_parser("label", help="label structures by the parent of the input file")
    label.add_argument("files", nargs="+", metavar="FILE", help="files that ASE reads")
    label.add_argument("-o", "--output", required=True, metavar="FILE", help="extended XYZ or any format of ASE; is not overwritten")
    label.set_defaults(command="steps.label")
    for command in (convergence, label):
        command.add_argument("--input", default="nft.toml", help="the input file (nft.toml if not given)")
        command.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE", help="replace a value of the file")
    fit = commands.add_parser("fit", help="train an ensemble on labelled images, without a target", argument_default=argparse.SUPPRESS)
    fit.add_argument("images", help="a file that ASE reads")
    for name, kind, text in (
        ("--members", _count, "number of members (10)"), ("--cutoff", float, "cutoff of the fingerprints, Å (6.0)"),
        ("--features", str, "g2x, large, larger, large5 or paper20 (g2x)"), ("--valid", float, "fraction of images for validation (0.1)"),
        ("--seed", int, "seed of everything random (0)"), ("--threads", _count, "threads"), ("--forces", str, "all, or centre for chunks"),
        ("--directory", str, "the fit's directory, with fit.ensemble (fit)"), ("--baseline", str, OF_BASELINE),
    ):  # fmt: skip
        fit.add_argument(name, type=kind, help=text)
    fit.add_argument("--hiddenlayers", nargs="+", type=_count, metavar="N", help="nodes of each hidden layer (10 10)")
    for name in ("licence", "citation", "date", "parent"):
        fit.add_argument(f"--{name}", help=f"{name} in the model card, a text")
    fit.set_defaults(command="steps.fit")
    evaluate = commands.add_parser("evaluate", help="errors of an ensemble on labelled images, by element")
    evaluate.add_argument("images", help="a file that ASE reads, with energies and forces")
    evaluate.add_argument("--ensemble", metavar="FILE", help=OF_ENSEMBLE)
    evaluate.add_argument("-o", "--output", metavar="FILE", help="extended XYZ with predictions as nft_...")
    evaluate.add_argument("--figure", metavar="FILE", help="a parity figure")
    evaluate.add_argument("--csv", metavar="FILE", help="the table as CSV")
    for command in (fit, evaluate):
        command.add_argument("--energy-key", metavar="NAME", help="energy of the images in info, as REF_energy; ASE's result if not given")
        command.add_argument("--forces-key", metavar="NAME", help="forces of the images in the arrays, as REF_forces")
    evaluate.add_argument("--baseline", metavar="FILE", help=OF_BASELINE)
    evaluate.set_defaults(command="steps.evaluate")


def _format(word: str) -> str:
    """Return the name of a format; raise ArgumentTypeError with the right one for that of a trainer."""
    if (name := READS.get(word.lower())) is not None:
        raise argparse.ArgumentTypeError(f"{word!r} is a program, which reads {name}: give --to {name}")
    return word


def _add_export(commands: Any) -> None:
    """Add the command that writes files of other programs."""
    export = commands.add_parser("export", help="write an ensemble or the labels of a run for other programs")
    export.add_argument("source", help="the training directory of a run, or the directory above; or an .ensemble file for runner")
    export.add_argument("-o", "--output", required=True, metavar="DIR", help="a new directory")
    export.add_argument(
        "--to", nargs="+", default=["extxyz"], type=_format, choices=EXPORTS, metavar="FORMAT",
        help=f"{', '.join(EXPORTS)} (extxyz); runner: potentials for RuNNer and n2p2; the others: training data",
    )  # fmt: skip
    export.add_argument("--valid", type=float, default=0.0, help="fraction of the target's atoms whose forces validate (0)")
    export.add_argument("--forces", help="trained forces of chunks: centre, weighted or all (those of the run)")
    export.add_argument("--energies", action="store_true", help="also train the energies of chunks")
    export.add_argument("--units", default="metal", help="runner: metal (eV, Å) or atomic (Hartree, Bohr)")
    export.set_defaults(command="export.export")


def _count(text: str) -> int:
    """Return a number from 1 on."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer from 1 on")
    return int(text)


def _positive(text: str) -> float:
    """Return a number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (0 < number < math.inf):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number
