"""Files that a foreign directory may contain in place of regular ones, for the tests of several readers."""

import os
from pathlib import Path

import pytest

SPECIAL = {
    "a link to /dev/zero": lambda path: path.symlink_to("/dev/zero"),
    "a link to a file outside": lambda path: path.symlink_to("/etc/passwd"),
    "a pipe": os.mkfifo,
    "a directory": Path.mkdir,
    "a sparse file of 4 TB": lambda path: (path.touch(), os.truncate(path, 2**42)),
}


def put(what, path):
    """Make one in place of any file; skip the test where the file system does not have it."""
    path.unlink(missing_ok=True)
    try:
        SPECIAL[what](path)
    except OSError as error:
        pytest.skip(f"this file system does not have it: {error}")
