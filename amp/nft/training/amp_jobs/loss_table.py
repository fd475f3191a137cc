"""Loss table in Amp's log: read its last line, or write one for a fit with the kernels."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from amp.nft.records import MemberReport

COLUMNS = ("energy_rmse", "energy_maxresid", "force_rmse", "force_maxresid")
_CRITERION = re.compile(r"^  (energy_rmse|energy_maxresid|force_rmse|force_maxresid): (\S+)$")
_NUMBER = r"([-+\d.]+(?:e[-+]?\d+)?|nan|inf)"
_LINE = re.compile(rf"^ *(\d+) +\d{{4}}-\S+ +{_NUMBER}((?: +{_NUMBER} [C-])+) *$")


@dataclass(frozen=True)
class LastStep:
    """Last line of a loss table; energies in eV/atom, forces in eV/Å, nan for quantities that were not trained."""

    steps: int
    loss: float
    values: dict[str, float]
    criteria: dict[str, float]
    missed: tuple[str, ...]

    def misses(self) -> str:
        """Return the criteria that are not met, with the values.

        Returns
        -------
        str
        """
        missed = [name for name in self.missed if name in self.criteria]
        return ", ".join(f"{name} {self.values[name]:.4g} (asked: {self.criteria[name]:.4g})" for name in missed)


def read_last_step(path: Path, energy_factor: float = 1.0) -> LastStep | None:
    """Return the last line of the loss table in Amp's log, with the criteria.

    Parameters
    ----------
    path : Path
        ``amp-log.txt``.
    energy_factor : float
        Factor from Amp's energy RMSE, over all images, to that over the images with energies.

    Returns
    -------
    LastStep or None
        None if the log contains no table.
    """
    last, criteria = None, {}
    for line in path.read_text(errors="replace").splitlines() if path.exists() else ():
        if match := _CRITERION.match(line):
            criteria[match[1]] = _number(match[2])
        elif match := _LINE.match(line):
            last = match
    if last is None:
        return None
    found = dict(zip(COLUMNS, re.findall(rf"{_NUMBER} ([C-])", last[3]), strict=False))
    values = dict.fromkeys(COLUMNS, math.nan) | {name: float(number) for name, (number, _) in found.items()}
    missed = tuple(name for name, (_, flag) in found.items() if flag == "-")  # the numbers are rounded
    for of in (values, criteria):
        if "energy_rmse" in of:
            of["energy_rmse"] *= energy_factor
    known = {name: value for name, value in criteria.items() if math.isfinite(value)}
    return LastStep(steps=int(last[1]), loss=float(last[2]), values=values, criteria=known, missed=missed)


def last_line(text: str) -> tuple[int, float] | None:
    """Return step and loss of the last table line in a text.

    Parameters
    ----------
    text : str

    Returns
    -------
    (int, float) or None
    """
    match = next(filter(None, map(_LINE.match, reversed(text.splitlines()))), None)
    return (int(match[1]), float(match[2])) if match else None


def table_of(report: MemberReport, criteria: dict[str, float | None]) -> str:
    """Return a table of the last step as Amp writes it; its energy RMSE is over the images with energies.

    Parameters
    ----------
    report : MemberReport
    criteria : dict
        Amp's convergence dictionary.

    Returns
    -------
    str
    """
    values = [getattr(report, name) for name in COLUMNS]
    asked = [math.inf if criteria.get(name) is None else criteria[name] for name in COLUMNS]
    met = ["-" if value > bound else "C" for value, bound in zip(values, asked, strict=True)]
    columns = "".join(f" {value:10.4e} {flag}" for value, flag in zip(values, met, strict=True))
    lines = [" Loss function convergence criteria:", *(f"  {name}: {criteria.get(name)}" for name in COLUMNS)]
    lines.append(" Step                Time   Loss (SSD)   EnergyRMSE     MaxResid    ForceRMSE     MaxResid")
    lines.append(f"{report.steps:5d} {datetime.now():%Y-%m-%dT%H:%M:%S} {report.loss:12.4e}{columns}")
    return "\n".join(lines)


def _number(text: str) -> float:
    return math.inf if text == "None" else float(text)
