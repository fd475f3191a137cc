"""Commands of an input file: ``init``, ``check``, ``run``, ``schema``."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from amp.nft.errors import NFTError, printable

if TYPE_CHECKING:
    from amp.nft.cli.input_file import InputFile

INPUT = "nft.toml"


def run(options: Namespace) -> int:
    """Start or resume the run of an input file; with ``--dry-run`` only check it.

    Parameters
    ----------
    options : Namespace

    Returns
    -------
    int
    """
    from amp.nft.cli.main import CONVERGED, UNCONVERGED, Begun
    from amp.nft.cli.settings import arguments_of_run, executor_of, input_record, learner_of, limits_of

    with opened(options) as given:
        record = input_record(Path(options.input).name, options.set)
        al, arguments = learner_of(given), {**arguments_of_run(given), "until": limits_of(options.until)}
        if options.dry_run:
            al.run(**arguments, dry_run=True)
            print(f"{options.input} is correct; nothing was started.")
            return CONVERGED
        journal = Path(f"{arguments.get('label', 'al')}-training", "saved-info", "journal.jsonl")
        before = _size(journal)
        try:
            with executor_of(given.labels) as executor:
                converged = al.run(**arguments, executor=executor, notes=record)
        except (NFTError, OSError):
            raise
        except Exception as error:
            if _size(journal) == before:  # a wrong argument
                raise
            raise Begun from error
    return CONVERGED if converged else UNCONVERGED


def check(options: Namespace) -> int:
    """Check an input file, its structures, its parent and units, and estimate the cost; write nothing.

    Parameters
    ----------
    options : Namespace

    Returns
    -------
    int
    """
    from amp.nft.cli.checks import lines_of
    from amp.nft.cli.settings import arguments_of_run, learner_of

    with opened(options) as given:
        al, arguments = learner_of(given, log=os.devnull), arguments_of_run(given)
        al.run(**arguments, dry_run=True)
        for line in lines_of(al, arguments, options.label or 0):
            print(line, flush=True)
    print(f"{options.input} is correct.")
    return 0


def init(options: Namespace) -> int:
    """Write an input file and its schema; refuse to overwrite either.

    Parameters
    ----------
    options : Namespace

    Returns
    -------
    int
    """
    from amp.nft.cli.input_file import SCHEMA_FILE, schema
    from amp.nft.cli.templates import template

    directory = Path(options.directory)
    if options.target is not None and not Path(options.target.partition("@")[0]).is_file():
        raise FileNotFoundError(f"--target {printable(options.target)}: there is no such file in {os.getcwd()}.")
    target = "target.traj" if options.target is None else Path(os.path.relpath(options.target, directory)).as_posix()
    texts = {directory / INPUT: template(options.parent, target), directory / SCHEMA_FILE: schema()}
    if there := [path for path in texts if path.exists() and path.name == INPUT]:
        print(f"amp-nft init: {there[0]} exists, and is not overwritten: remove it, or give another directory.", file=sys.stderr)
        return 1
    directory.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        if not path.exists():
            with open(path, "x", encoding="utf-8") as file:
                file.write(text)
    print(f"{directory / INPUT} is written: edit it, then `amp-nft check {directory / INPUT}` and `amp-nft run {directory / INPUT}`.")
    return 0


def show_schema(options: Namespace) -> int:
    """Print the JSON schema of the input file.

    Parameters
    ----------
    options : Namespace

    Returns
    -------
    int
    """
    from amp.nft.cli.input_file import schema

    print(schema(), end="")
    return 0


@contextmanager
def opened(options: Namespace) -> Iterator[InputFile]:
    """Yield the content of the input file, with its directory as the working directory: its paths are relative to it.

    Parameters
    ----------
    options : Namespace
        With `input` and `set`.

    Yields
    ------
    InputFile
    """
    from amp.nft.cli.input_file import read_input

    given = read_input(options.input, options.set)
    before, folder = Path.cwd(), Path(options.input).absolute().parent
    os.chdir(folder)
    try:
        with importing_from(folder):
            yield given
    finally:
        os.chdir(before)


@contextmanager
def importing_from(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Let Python import the user's modules from a directory within this block, as it does for a script in that directory.

    Parameters
    ----------
    folder : path

    Yields
    ------
    None
    """
    place = str(Path(folder).absolute())
    sys.path.insert(0, place)
    try:
        yield
    finally:
        sys.path.remove(place)


def _size(path: Path) -> int:
    """Return the size of a file, 0 if there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
