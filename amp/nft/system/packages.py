"""Versions of the packages on which results depend."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

AMP = ("amp-atomistics", "amp-nft-amp")  # Amp as its authors name it, and as our recipe builds it


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages on which results depend.

    Returns
    -------
    dict of str to str
        Amp's has the name ``amp-atomistics``, whichever distribution its files are from.
    """
    others = {name: version(name) for name in ("numpy", "ase", "numba")}
    return {"python": platform.python_version(), "amp-nft": version("amp-nft"), AMP[0]: _amp(), **others}


def _amp() -> str:
    """Return the version of Amp; 'unknown' where its files are on the path and no distribution says so."""
    for name in AMP:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "unknown"
