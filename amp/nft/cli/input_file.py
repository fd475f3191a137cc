"""The input file of ``amp-nft run``: its tables and keys, read from TOML or JSON and checked before any work starts."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from amp.nft.errors import InputError, printable
from amp.nft.inputs.arguments import did_you_mean

VERSION: Final = 1
SCHEMA_FILE = "nft.schema.json"
UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(rf"\s*(\d+(?:\.\d*)?)\s*({'|'.join(UNITS)})\s*")


def _seconds(value: Any) -> Any:
    """Return a duration such as '4 h' in seconds; other values stay as they are, for the check of their type."""
    if not isinstance(value, str):
        return value
    if (found := _DURATION.fullmatch(value)) is None:
        raise ValueError(f"a time must be a number of seconds, or a number with a unit ({', '.join(UNITS)}), as in '4 h'")
    return float(found[1]) * UNITS[found[2]]


Content = TypeVar("Content", bound=BaseModel)
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
CountFrom0 = Annotated[int, Field(ge=0)]
Duration = Annotated[float, BeforeValidator(_seconds, json_schema_input_type=float | str), Field(gt=0)]


class Table(BaseModel):
    """A table of the file, without any keys but its own."""

    model_config = ConfigDict(extra="forbid", strict=True)


class System(Table):
    """Structures: the target, and the first training images with energies and forces of the parent."""

    target: str | list[str] = Field(description="File with the structure to learn, or several; ASE's file@index works.")
    images: str | list[str] | None = Field(
        None, description="File with labelled images, or several; without any, chunks of the target begin the run."
    )
    energy_key: str | None = Field(None, description="Name of the energy of the images in info, as REF_energy; ASE's result without it.")
    forces_key: str | None = Field(None, description="Name of the forces of the images in the arrays, as REF_forces.")


class Parent(Table):
    """The method that labels chunks."""

    calculator: str | None = Field(None, description="Class of an ASE calculator, as module.Class.")
    factory: str | None = Field(None, description="Function f(directory, **args) that returns a calculator, as file.py:name.")
    args: dict[str, Any] = Field({}, description="Keyword arguments; {directory} in a text becomes the directory of the label.")
    timeout: Duration | None = Field(None, description="Longest time of one label: seconds, or a text such as '4 h'.")

    @model_validator(mode="after")
    def _has_one(self) -> Parent:
        if (self.calculator is None) == (self.factory is None):
            raise ValueError("give either calculator, as 'module.Class', or factory, as 'file.py:function'")
        return self


class Labels(Table):
    """Place where labels are made."""

    where: Literal["here", "pool", "slurm", "dask"] = Field("here", description="This process, processes, Slurm jobs, or a Dask cluster.")
    jobs: Count | None = Field(None, description="Processes of the pool, or the largest number of Slurm jobs.")
    retries: CountFrom0 | None = Field(None, description="Further attempts at a label that failed.")
    sbatch: list[str] = Field([], description="Options of sbatch for each job; --time and --mem must be among them.")
    setup: str | None = Field(None, description="Shell commands that each Slurm job runs first.")
    scheduler: str | None = Field(None, description="Address of the Dask scheduler, as tcp://host:8786.")

    @model_validator(mode="after")
    def _fits_its_place(self) -> Labels:
        needed = {"pool": ["jobs"], "slurm": ["jobs", "sbatch"], "dask": ["scheduler"]}.get(self.where, [])
        if missing := [name for name in needed if not getattr(self, name)]:
            raise ValueError(f"where = '{self.where}' needs {' and '.join(missing)}")
        if self.where == "slurm" and not all(any(one.startswith(f"{name}=") for one in self.sbatch) for name in ("--time", "--mem")):
            raise ValueError("sbatch must contain --time=... and --mem=..., as in ['--ntasks=16', '--time=04:00:00', '--mem=32G']")
        return self


class Chunks(Table):
    """Chunks that are cut from the target."""

    cutoff: Positive | None = Field(None, description="Radius of a chunk, Å.")
    termination: Literal["sphere", "hydrogen", "molecules", "neutral", "auto"] | None = Field(None, description="Treatment of cut bonds.")
    min_atoms: Count | None = Field(None, description="Least number of atoms; the radius of smaller chunks grows.")


class Members(Table):
    """The ensemble: calc_text, or the keys from which it is made."""

    members: Annotated[int, Field(ge=2)] | None = Field(None, description="Number of members.")
    cutoff: Positive = Field(6.0, description="Cutoff of the fingerprints, Å.")
    features: Literal["g2x", "large", "larger", "large5", "paper20"] = Field("g2x", description="Set of fingerprints of amp.nft.features.")
    hiddenlayers: list[Count] = Field([5, 5], min_length=1, description="Nodes of each hidden layer.")
    energy_rmse: Positive | None = Field(0.001, description="Criterion of the training, eV/atom.")
    force_rmse: Positive | None = Field(0.005, description="Criterion of the training, eV/Å.")
    force_maxresid: Positive | None = Field(0.02, description="Criterion of the training, eV/Å.")
    force_coefficient: Positive = Field(0.04, description="Weight of forces against energies in the loss.")
    maxiter: Count = Field(3000, description="Largest number of steps of one training.")
    calc_text: str | None = Field(None, description="Python text that makes the Amp calculator calc, in place of the keys above.")
    start_command: str = Field("python run.py", description="Start command of Amp's training jobs; this one trains in the driver.")
    headerlines: str | None = Field(None, description="Lines on top of the script of a training job.")

    @model_validator(mode="after")
    def _has_one_model(self) -> Members:
        of_text = set(Members.model_fields) - {"members", "calc_text", "start_command", "headerlines"}
        if self.calc_text is not None and (both := sorted(of_text & self.model_fields_set)):
            raise ValueError(f"calc_text sets the whole calculator: remove {', '.join(both)}, or calc_text")
        return self


class Foreign(Table):
    """Models of another program in place of the ensemble: a command trains each, and a calculator of ASE loads it."""

    members: Annotated[int, Field(ge=2)] | list[str] = Field(10, description="Number of members, or files of models with which they begin.")
    train: Annotated[str, Field(min_length=1)] = Field(description="Shell command that trains one member, as 'bash train.sh'.")
    calculator: str = Field(description="ASE calculator that loads a model: module.Class, or file.py:function.")
    model: str = Field("model", description="File name of a model, with the extension that its calculator needs.")
    argument: str | None = Field(None, description="Keyword of the calculator for the path of the model; its first argument if not given.")
    args: dict[str, Any] = Field({}, description="Further keyword arguments of the calculator.")
    samples: Literal["bootstrap", "all"] = Field("bootstrap", description="Data of a member: its bootstrap sample, or everything.")
    sigma: Positive = Field(0.01, description="Error of an exact force in force_atom_sigma, eV/Å.")
    parallel: Count = Field(1, description="Members that are trained at the same time.")
    retries: CountFrom0 = Field(1, description="Further starts of a command that failed.")
    timeout: Duration | None = Field(None, description="Longest time of one training: seconds, or a text such as '4 h'.")
    from_previous: bool = Field(False, description="Later trainings begin with the member's last model.")
    cutoff: Positive | None = Field(None, description="Radius to which a model sees, Å.")


class Method(Table):
    """The method, and parts of it that differ from its defaults."""

    name: Literal["paper", "robust"] = Field("paper", description="Defaults of all parts.")
    forces: Literal["centre", "weighted", "all"] | None = Field(None, description="Forces of a chunk that are trained.")
    fit_until: Literal["criteria", "out-of-bag"] | None = Field(None, description="End of a member's training.")
    check_parent: Literal["error", "warn", False] | None = Field(None, description="Compare an image with the parent before the training.")
    test_labels: CountFrom0 | None = Field(None, description="Labels of random atoms that bound the errors of the last ensemble.")
    larger_labels: CountFrom0 | None = Field(None, description="How many of these are repeated in a larger chunk.")
    batch: Literal["top", "spread"] | None = Field(None, description="Whether a batch is the most uncertain atoms, or spread among them.")


class Select(Table):
    """Atoms that get a chunk in each iteration."""

    fraction: Annotated[float, Field(gt=0, lt=1)] | None = Field(None, description="The most uncertain fraction of the atoms.")
    above: Positive | None = Field(None, description="All atoms with a larger uncertainty, eV/Å.")
    distinct: Positive | None = Field(None, description="Skip atoms whose environment another chunk covers within this distance.")

    @model_validator(mode="after")
    def _has_one_rule(self) -> Select:
        if self.fraction is not None and self.above is not None:
            raise ValueError("fraction and above exclude each other: remove one")
        return self


class Stop(Table):
    """End of the run."""

    delta: Positive | None = Field(None, description="Largest uncertainty that is small enough, eV/Å.")
    max_iterations: CountFrom0 | None = Field(None, description="Largest number of retrainings.")
    steps_not_improved: Count | None = Field(None, description="Iterations without improvement after which to stop.")
    aim: Positive | None = Field(None, description="Mean force error that is sufficient, eV/Å; for the verdict.")


class Run(Table):
    """Names and numbers of the run."""

    label: str | None = Field(None, description="Name of the results: LABEL-training, best.LABEL.ensemble.")
    seed: CountFrom0 | None = Field(None, description="Seed of everything random.")
    threads: Count | None = Field(None, description="Threads; all processor cores of the process if not given.")
    load: str | None = Field(None, description="Ensemble from which the first training starts.")
    accept_parent: bool | None = Field(None, description="Resume a run whose labels are by another parent.")


class Card(Table):
    """Model card of the best ensemble: what the run itself cannot know."""

    licence: Annotated[str, Field(min_length=1)] | None = Field(None, description="Terms of use, as CC-BY-4.0.")
    citation: Annotated[str, Field(min_length=1)] | None = Field(None, description="What to cite, as a DOI.")
    date: Annotated[str, Field(min_length=1)] | None = Field(None, description="Date of the ensemble, as a text.")


class Relearn(Table):
    """Bounds of ``amp-nft lammps --relearn``."""

    rounds: CountFrom0 = Field(10, description="Largest number of halts that are learned.")
    k: Count = Field(10, description="Environments that a halt adds, at most.")
    labels: Count = Field(100, description="Labels of all halts, at most.")
    frames: CountFrom0 = Field(10, description="Dumped frames that are searched at a halt, next to the halted one.")
    delta: Positive | None = Field(None, description="Uncertainty above which a frame is nonsense, eV/Å; ten times the limit of fix halt.")
    force: Positive = Field(50.0, description="Predicted force above which a frame is nonsense, eV/Å.")
    closest: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.6, description="Distance of two atoms below which a frame is nonsense, as a fraction of the sum of covalent radii."
    )
    restart_every: CountFrom0 = Field(1000, description="Steps between restart files of killed dynamics; 0: it resumes at its last halt.")


class InputFile(Table):
    """The whole file."""

    version: Literal[1] = Field(VERSION, description="Version of this format.")
    system: System
    parent: Parent
    correction: Parent | None = Field(None, description="A cheap calculator that corrects labels.")
    baseline: Parent | None = Field(None, description="A cheap calculator to which the members add; they learn the remainder of labels.")
    images_parent: Parent | None = Field(
        None, description="Parent of the images: their smallest cells are doubled, and must keep their forces."
    )
    labels: Labels = Labels()
    chunks: Chunks = Chunks()
    ensemble: Members = Members()
    committee: Foreign | None = Field(None, description="Models of another program, in place of the ensemble.")
    method: Method = Method()
    select: Select = Select()
    stop: Stop = Stop()
    run: Run = Run()
    card: Card = Card()
    relearn: Relearn = Relearn()

    @model_validator(mode="after")
    def _has_one_kind_of_members(self) -> InputFile:
        if self.committee is not None and "ensemble" in self.model_fields_set:
            raise ValueError("ensemble and committee exclude each other: remove one")
        return self


def read_input(path: str | os.PathLike[str], changes: Sequence[str] = ()) -> InputFile:
    """Read and check an input file.

    Parameters
    ----------
    path : path
        TOML, or JSON if its name ends in ``.json``.
    changes : sequence of str
        Values that replace those of the file, as ``table.key=value`` with a value as in TOML.

    Returns
    -------
    InputFile

    Raises
    ------
    FileNotFoundError
        There is no such file.
    InputError
        The file is not TOML or JSON, or has an unknown key or a value that is not allowed.
    """
    data = _data(path)
    for change in changes:
        _apply(change, data)
    return _checked(InputFile, data, path)


def read_baseline(path: str | os.PathLike[str]) -> Parent:
    """Read the table ``[baseline]`` of an input file, which may lack all others.

    Parameters
    ----------
    path : path
        TOML, or JSON if its name ends in ``.json``.

    Returns
    -------
    Parent

    Raises
    ------
    FileNotFoundError
        There is no such file.
    InputError
        The file has no such table, or a wrong one.
    """
    data = _data(path)
    if "baseline" not in data:
        raise InputError(f"{printable(os.fspath(path))} has no table [baseline]: give the file with which the ensemble was trained.")
    return _checked(OfBaseline, {"baseline": data["baseline"]}, path).baseline


class OfBaseline(Table):
    """A file of which the baseline alone is read."""

    baseline: Parent


def _data(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the content of a file as it is."""
    name = printable(os.fspath(path))
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file {name!r} in {os.getcwd()}: write one with `amp-nft init`.")
    try:
        text = Path(path).read_text(encoding="utf-8")
        data = json.loads(text) if Path(path).suffix == ".json" else tomllib.loads(text)
    except ValueError as error:  # also UnicodeDecodeError
        raise InputError(f"{name} cannot be read: {error}.") from None
    if not isinstance(data, dict):
        raise InputError(f"{name} is not a table of tables: see `amp-nft init`.")
    return data


def _checked(kind: type[Content], data: dict[str, Any], path: str | os.PathLike[str]) -> Content:
    """Return the checked content of a file."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        faults = [_explained(fault) for fault in error.errors(include_url=False)]
        raise InputError("\n".join(f"{printable(os.fspath(path))}: {fault}" for fault in faults)) from None


def schema() -> str:
    """Return the JSON schema of the input file, by which editors check it.

    Returns
    -------
    str
    """
    return json.dumps(InputFile.model_json_schema(), indent=1, ensure_ascii=False) + "\n"


def _apply(change: str, data: dict[str, Any]) -> None:
    """Set one value as the command line gives it."""
    key, equals, value = change.partition("=")
    *tables, last = key.strip().split(".")
    if not equals or not all([*tables, last]):
        raise InputError(f"--set {change!r}: give table.key=value, as in --set stop.delta=0.05.")
    try:
        parsed: Any = tomllib.loads(f"value = {value.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()  # a text without its quotation marks
    for table in tables:
        data = data.setdefault(table, {})
        if not isinstance(data, dict):
            raise InputError(f"--set {change!r}: {table} is not a table.")
    data[last] = parsed


def _explained(fault: Any) -> str:
    """Return place, value, rule and remedy of one error of pydantic."""
    path = [str(part) for part in fault["loc"]]
    place = ".".join(path) or "the file"
    if fault["type"] == "extra_forbidden":
        return f"{place} is not a known key; {did_you_mean(path[-1], _keys(path[:-1]))}"
    if fault["type"] == "missing":
        return f"{place} is missing."
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "value_error":
        return f"{place}: {message}."
    given = fault["input"]
    return f"{place} is {str(given).lower() if isinstance(given, bool) else printable(repr(given))}: {message[0].lower()}{message[1:]}."


def _keys(path: Sequence[str]) -> list[str]:
    """Return the keys that a table may have."""
    model: Any = InputFile
    for name in path:
        annotation = model.model_fields[name].annotation if name in model.model_fields else None
        model = next((kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type) and issubclass(kind, Table)), None)
        if model is None:
            return []
    return list(model.model_fields)
