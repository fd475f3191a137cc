"""The methods "paper" and "robust": default settings of each part of a run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from amp.nft.chunks.termination import Termination, check_termination
from amp.nft.inputs.arguments import check_count, check_positive
from amp.nft.training.command import Command

FORCES = ("centre", "weighted", "all")
FIT_UNTIL = ("criteria", "out-of-bag")
BATCHES = ("top", "spread")
CHECKS = ("error", "warn", False)


@dataclass(frozen=True)
class Method:
    """Settings of the method; see :meth:`amp.nft.activelearner.NFT.run` for the meaning of each part.

    Attributes
    ----------
    name : str
        'paper' or 'robust', whichever gave the defaults.
    forces : {'centre', 'weighted', 'all'}
    fit_until : {'criteria', 'out-of-bag'}
    termination : str or callable
    min_atoms : int or None
    batch : {'top', 'spread'}
    check_parent : {'error', 'warn', False}
    test_labels, larger_labels : int
    aim : float or None
        eV/Å.
    """

    name: str
    forces: str = "centre"
    fit_until: Literal["criteria", "out-of-bag"] = "criteria"
    termination: Termination = "sphere"
    min_atoms: int | None = None
    batch: str = "top"
    check_parent: str | bool = False
    test_labels: int = 0
    larger_labels: int = 0
    aim: float | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """Parts that a run cannot change once it has trained."""
        named = self.termination if isinstance(self.termination, str) else getattr(self.termination, "__qualname__", "callable")
        return {"forces": self.forces, "fit_until": self.fit_until, "termination": named, "min_atoms": self.min_atoms}

    @property
    def circumstances(self) -> dict[str, Any]:
        """Parts that may change when a run resumes."""
        return {name: value for name, value in asdict(replace(self, termination="")).items() if name not in ("termination", *self.identity)}


PRESETS = {
    "paper": Method("paper", check_parent="warn"),
    "robust": Method(
        "robust",
        forces="weighted",
        fit_until="out-of-bag",
        termination="auto",
        check_parent="error",
        test_labels=10,
        larger_labels=5,
    ),
}


def choose_method(name: str, **given: Any) -> Method:
    """Return a preset with the parts that the user gave in place of its defaults.

    Parameters
    ----------
    name : str
        'paper' or 'robust'.
    **given
        Parts of `Method`; None leaves a part as the preset has it.

    Returns
    -------
    Method

    Raises
    ------
    ValueError, ChunkError
        For a name or a value that is not one of those allowed.
    """
    check_method(name)
    method = replace(PRESETS[name], **{part: value for part, value in given.items() if value is not None})
    for part, allowed in (("forces", FORCES), ("fit_until", FIT_UNTIL), ("check_parent", CHECKS), ("batch", BATCHES)):
        if getattr(method, part) not in allowed:
            raise ValueError(f"{part} is {getattr(method, part)!r}: it must be one of {', '.join(map(repr, allowed))}.")
    check_termination(method.termination)
    check_count("test_labels", method.test_labels, least=0)
    check_count("larger_labels", method.larger_labels, least=0)
    if method.min_atoms is not None:
        check_count("min_atoms", method.min_atoms, least=1)
    if method.aim is not None:
        check_positive(aim=method.aim)
    if method.larger_labels > method.test_labels:
        raise ValueError(
            f"larger_labels is {method.larger_labels}, but test_labels {method.test_labels}: test labels are repeated at a larger "
            f"radius, so give at most as many, or raise test_labels."
        )
    return method


def check_method(name: str) -> None:
    """Check the name of a method.

    Parameters
    ----------
    name : str

    Raises
    ------
    ValueError
        It is not one.
    """
    if name not in PRESETS:
        raise ValueError(f"method is {name!r}: it must be one of {', '.join(map(repr, PRESETS))}.")


def check_trainer(method: Method, trainer: str, corrected: bool = False, readable: bool = True) -> None:
    """Check that a trainer can train by a method.

    Parameters
    ----------
    method : Method
    trainer : str
        'batched', 'jobs' or 'command'.
    corrected : bool
        The labels are corrected by a cheap calculator.
    readable : bool
        The calculator has Gaussian fingerprints and a neural network.

    Raises
    ------
    ValueError
        Amp's jobs cannot express the method or its labels, or the calculator has no posterior.
    """
    if method.batch == "spread" and not readable:
        raise ValueError("batch='spread' needs a calculator of Gaussian fingerprints and a neural network: use batch='top'.")
    if trainer == "command" and method.fit_until != "criteria":
        raise ValueError("fit_until='out-of-bag' is for amp.nft's own training: a Command decides itself when to stop, by NFT_VALID.")
    if trainer == "jobs" and corrected:
        raise ValueError(
            "correction trains forces of several chunks on one target, which Amp's jobs cannot express: use start_command='python run.py' "
            "or trainer='batched', or correction=None."
        )
    parts = {"forces": (method.forces, "centre"), "fit_until": (method.fit_until, "criteria")}
    if trainer == "jobs" and (other := [f"{name}={value!r}" for name, (value, amps) in parts.items() if value != amps]):
        raise ValueError(
            f"{' and '.join(other)} cannot be trained by Amp's jobs, which know one force per chunk and their criteria: use "
            "start_command='python run.py' or trainer='batched', or forces='centre' with fit_until='criteria'."
        )


def check_number_of_models(n: int, command: Command | None, load: str | None) -> None:
    """Check that a command has as many models to begin with as there are members.

    Parameters
    ----------
    n : int
        Number of members.
    command : Command or None
    load : str or None
        `load` of `NFT`.

    Raises
    ------
    ValueError
        The numbers differ, or Amp's members are to begin the training of another program.
    """
    if command is None:
        return
    if load is not None:
        raise ValueError(f"load is {load!r}: the members of a Command begin with its `start`, one model for each.")
    if command.start and len(command.start) != n:
        raise ValueError(f"start has {len(command.start)} models, but n is {n}: give one for each member.")


def check_beginning(method: Method, has_images: bool) -> None:
    """Check that a run can begin with its images, or without any.

    Parameters
    ----------
    method : Method
    has_images : bool

    Raises
    ------
    ValueError
        There are no images, and chunks alone are not sufficient.
    """
    if not has_images and method.forces == "centre":
        raise ValueError(
            "images is None, and forces='centre' trains one force per chunk and no energy: give labelled images, or train all of each "
            "chunk with forces='weighted' (as method='robust' does)."
        )
