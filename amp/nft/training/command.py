"""Trainer of another program, given as a shell command: its settings."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from amp.nft.amp_io.external import digest_of, files_below
from amp.nft.errors import InputError
from amp.nft.inputs.arguments import check_count, check_positive
from amp.nft.inputs.named import load_named
from amp.nft.training.amp_jobs.command import check_start_command

SAMPLES = ("bootstrap", "all")


@dataclass(frozen=True)
class Command:
    """Train the members of a committee by a command, for example ``NFT(trainer=Command("bash train.sh", "module.Class"))``.

    Parameters
    ----------
    command : str
        Shell command that trains one member, in the working directory of the run. Its environment has ``NFT_TRAIN``, the file with the
        member's data; ``NFT_VALID``, the data that its sample lacks, or empty; ``NFT_MODEL``, the place of the model, in a directory of
        its own; ``NFT_MEMBER``, ``NFT_SEED`` and ``NFT_ITERATION``; ``NFT_START``, a model to begin with, or empty.
    calculator : str or callable
        ASE calculator that loads the model: ``module.Class``, or a function as ``file.py:function``, or either itself.
    model : str
        Name of ``NFT_MODEL``, with the extension that the calculator needs.
    argument : str, optional
        Keyword of `calculator` for the path of the model; the first argument if not given.
    options : dict, optional
        Further keyword arguments of `calculator`: plain data.
    samples : {'bootstrap', 'all'}
        A member's data: its bootstrap sample, or everything, where members differ by ``NFT_SEED`` alone.
    sigma : float
        ``force_atom_sigma`` of an exact force, eV/Å; a less certain one has a larger value.
    parallel : int
        Number of members that are trained at the same time.
    retries : int
        Further starts of a command that failed.
    timeout : float, optional
        Seconds after which a command has failed.
    from_previous : bool
        ``NFT_START`` is the member's last model from the second training on. There is no out-of-bag calibration then, since that model
        knows the data that the sample lacks.
    start : sequence of path, optional
        For each member the model that is ``NFT_START`` at the first training.
    cutoff : float, optional
        Radius to which a model sees, Å; a warning compares it with that of the chunks.

    Raises
    ------
    InputError
        A setting is out of range, or the calculator cannot be imported.
    """

    command: str
    calculator: str | Callable[..., Any]
    model: str = "model"
    argument: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    samples: str = "bootstrap"
    sigma: float = 0.01
    parallel: int = 1
    retries: int = 1
    timeout: float | None = None
    from_previous: bool = False
    start: Sequence[str | os.PathLike[str]] = ()
    cutoff: float | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        try:
            check_start_command(self.command)
        except ValueError as error:
            raise InputError(str(error).replace("start_command", "command").replace("python run.py", "bash train.sh")) from None
        if self.samples not in SAMPLES:
            raise InputError(f"samples is {self.samples!r}: it must be one of {', '.join(map(repr, SAMPLES))}.")
        path = PurePosixPath(self.model)
        if len(path.parts) != 1 or self.model in ("", ".", ".."):
            raise InputError(f"model is {self.model!r}: it must be the name of a file, without a directory, such as 'model.xml'.")
        check_count("parallel", self.parallel, least=1)
        check_count("retries", self.retries, least=0)
        check_positive(sigma=self.sigma)
        if self.timeout is not None:
            check_positive(timeout=self.timeout)
        if self.cutoff is not None:
            check_positive(cutoff=self.cutoff)
        load_named(self.name_of_calculator, "calculator")
        for model in map(Path, self.start):
            if not model.exists():
                raise InputError(f"start names {model}, which does not exist: give the models with which the members begin.")

    @property
    def name_of_calculator(self) -> str:
        """Name by which `calculator` is imported."""
        if isinstance(self.calculator, str):
            return self.calculator
        module, name = getattr(self.calculator, "__module__", ""), getattr(self.calculator, "__qualname__", "")
        if module in ("", "__main__", None) or "<" in name:
            raise InputError(
                f"calculator is {name or self.calculator!r} of this script, and other programs, such as the report, load the models too: "
                "put the function into a file, and give 'file.py:function'."
            )
        return f"{module}.{name}"

    def beginning_with(self, models: Sequence[Path]) -> Command:
        """Return the command for a run that continues another one: its members begin with given models, if they may.

        Parameters
        ----------
        models : sequence of Path

        Returns
        -------
        Command
        """
        return replace(self, start=tuple(models)) if self.from_previous else self

    @property
    def identity(self) -> dict[str, Any]:
        """Settings that a run cannot change once it has trained."""
        known = {
            "command": self.command, "calculator": self.name_of_calculator, "model": self.model, "argument": self.argument,
            "options": dict(self.options), "samples": self.samples, "sigma": self.sigma, "from_previous": self.from_previous,
        }  # fmt: skip
        models = [digest_of(path) if path.is_file() else sorted(files_below(path, path).values()) for path in map(Path, self.start)]
        return known | ({"start": models} if models else {})
