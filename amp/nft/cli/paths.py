"""Files of commands: the members that they use, and places to which they can write."""

from __future__ import annotations

from pathlib import Path

from amp.nft.errors import InputError


def ensemble_of(given: str | None) -> str:
    """Return the path of the members that a command uses.

    Parameters
    ----------
    given : str or None
        As the user gave it; None: those of a run with the label ``al`` in this directory.

    Returns
    -------
    str

    Raises
    ------
    FileNotFoundError
        There is no such file.
    """
    from amp.nft.calculator.members import best_path

    path = best_path("al") if given is None else Path(given)
    if not path.exists():
        raise FileNotFoundError(
            f"--ensemble: there is no file {str(path)!r} in {Path.cwd()}: give the .ensemble file of a run or a fit, or a .committee."
        )
    return str(path)


def check_output(path: str) -> None:
    """Check that a file can be written: it does not exist, and its directory does.

    Parameters
    ----------
    path : str

    Raises
    ------
    InputError
        It cannot.
    """
    from amp.nft.inputs.arguments import check_new

    check_new(path)
    check_writable(path)


def check_writable(*paths: str | None) -> None:
    """Check that files can be written or overwritten: their directories exist, and no directory has their name.

    Parameters
    ----------
    *paths : str or None
        None is skipped.

    Raises
    ------
    InputError
        One cannot.
    """
    for path in filter(None, paths):
        if Path(path).is_dir():
            raise InputError(f"{path} is a directory: give the name of a file, such as {str(Path(path) / 'output')!r}.")
        if not Path(path).absolute().parent.is_dir():
            raise InputError(f"{path}: there is no directory {str(Path(path).parent)!r}: make it, or give another name.")
