"""Check the start command before any work."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")


def check_start_command(start_command: str, directory: str | Path | None = None) -> None:
    """Raise unless the shell finds the program that a start command calls.

    Parameters
    ----------
    start_command : str
        Command that the shell runs in a member's directory.
    directory : path, optional
        A member's directory, in which relative paths begin; it need not exist yet.

    Raises
    ------
    ValueError
        The command is empty, cannot be parsed, or its program is not found.
    """
    try:
        words = [word for word in shlex.split(start_command, comments=True) if not _ASSIGNMENT.match(word)]
    except ValueError as error:
        raise ValueError(f"start_command {start_command!r} cannot be parsed ({error}); correct it") from None
    if not words:
        raise ValueError(f"start_command is {start_command!r}; it must start a job, such as 'python run.py'")
    if not _is_found(words[0], directory):
        raise ValueError(
            f"start_command {start_command!r}: {words[0]!r} is not found; install it, put its directory on "
            "PATH, or name a command that is there, such as 'python run.py'"
        )


def _is_found(word: str, directory: str | Path | None) -> bool:
    if "/" in word and not word.startswith(("/", "~", "$")):
        return directory is None or not Path(directory).is_dir() or Path(directory, word).exists()
    if not re.fullmatch(r"[\w./+-]+", word):  # shell syntax: only the shell can check it
        return True
    return subprocess.run(["sh", "-c", f"command -v {word}"], capture_output=True).returncode == 0
