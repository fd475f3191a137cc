"""The content of a run: structures, settings of the method, and options of labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ase import Atoms

from amp.nft.activelearner.chunk_labels import Carving
from amp.nft.activelearner.inheritance import Inheritance
from amp.nft.activelearner.method import Method
from amp.nft.amp_io import CalculatorSpec
from amp.nft.calculator.baseline import Baseline
from amp.nft.chunks.correction import Gate
from amp.nft.labels.single_point import Parent
from amp.nft.records import ForceRows, LabelOptions


@dataclass(frozen=True)
class Setup:
    """The content of a run: checked, and the loop's own copies.

    `distinct` reduces chosen atoms, given those of chunks in the training set, to atoms with different environments. `aim` is the
    sufficient mean force error and `force_rmse` the criterion of the members, both in eV/Å. `correction` is a cheap calculator, `gate`
    the judgement of it that the user has, and `images_calc` labelled the images. `spec` is the calculator of the members, if it is known;
    `inherit` names labels of another run, and `terms` are the fields of the model card that the user gave. The members learn what labels
    have beyond `baseline`.
    """

    label: str
    images: list[Atoms]
    rows: list[ForceRows | None]
    n: int
    seed: int
    carving: Carving
    threshold: float | None
    labels: LabelOptions
    method: Method
    start: list[str] | None
    dblabel: str
    threads: int | None
    distinct: Callable[[list[int], list[int]], list[int]] | None = None
    aim: float = 0.0
    force_rmse: float | None = None
    correction: Parent | None = None
    gate: Gate | None = None
    images_calc: Parent | None = None
    inherit: Inheritance | None = None
    spec: CalculatorSpec | None = None
    terms: dict[str, str | None] = field(default_factory=dict)
    baseline: Baseline = field(default_factory=Baseline)

    @property
    def targets(self) -> list[Atoms]:
        """Structures to learn; their atoms are numbered from one to the next."""
        return self.carving.targets
