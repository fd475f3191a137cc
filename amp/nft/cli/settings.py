"""From an input file to the arguments of :class:`amp.nft.activelearner.NFT` and its ``run``."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase import Atoms

from amp.nft.cli.input_file import Foreign, InputFile, Labels, Members, Parent
from amp.nft.cli.parent import Source
from amp.nft.errors import InputError

if TYPE_CHECKING:
    from amp.nft.activelearner import NFT
    from amp.nft.training import Command

OF_NFT = {
    "stop.delta": "stop_delta", "stop.max_iterations": "max_iterations", "stop.steps_not_improved": "steps_not_improved",
    "run.seed": "seed", "run.threads": "threads", "run.load": "load", "method.name": "method",
}  # fmt: skip
OF_RUN = {
    "system.energy_key": "energy_key", "system.forces_key": "forces_key",
    "system.images": "images", "system.target": "target_image", "ensemble.members": "n", "ensemble.start_command": "start_command",
    "ensemble.headerlines": "headerlines", "run.label": "label", "chunks.cutoff": "cutoff", "parent.timeout": "label_timeout",
    "labels.retries": "label_retries", "select.distinct": "distinct", "run.accept_parent": "accept_parent", "method.forces": "forces",
    "method.fit_until": "fit_until", "chunks.termination": "termination", "chunks.min_atoms": "min_atoms",
    "method.check_parent": "check_parent", "method.test_labels": "test_labels", "method.larger_labels": "larger_labels",
    "method.batch": "batch",
    "stop.aim": "aim",
}  # fmt: skip


def arguments_of_nft(given: InputFile) -> dict[str, Any]:
    """Return the arguments of ``NFT``.

    Parameters
    ----------
    given : InputFile

    Returns
    -------
    dict
        Without those that the file leaves to their defaults.
    """
    select = given.select
    threshold = select.above if select.fraction is None else select.fraction - 1.0
    return {**_values(given, OF_NFT), **({} if threshold is None else {"threshold": threshold})}


def learner_of(given: InputFile, **settings: Any) -> NFT:
    """Return the learner of an input file.

    Parameters
    ----------
    given : InputFile
    **settings : Any
        Further arguments of ``NFT``.

    Returns
    -------
    NFT
    """
    from amp.nft.activelearner import NFT

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="threshold is .* every atom above", category=UserWarning)  # `above` says so already
        trainer: str | Command = "auto" if given.committee is None else command_of(given.committee)
        return NFT(**arguments_of_nft(given), trainer=trainer, **settings)


def command_of(given: Foreign) -> Command:
    """Return the trainer of another program.

    Parameters
    ----------
    given : Foreign
        Its files are relative to the working directory.

    Returns
    -------
    Command

    Raises
    ------
    InputError
        A setting cannot work, or no file is found.
    """
    from amp.nft.training import Command

    names = given.members if isinstance(given.members, list) else []
    start = [path for name in names for path in sorted(map(str, Path().glob(name) if not Path(name).is_absolute() else [Path(name)]))]
    if isinstance(given.members, list) and len(start) < 2:
        raise InputError(f"committee.members is {given.members!r}, which names {len(start)} files: give two or more, or a number.")
    settings = given.model_dump(exclude={"members", "train", "args"})
    return Command(given.train, options=given.args, start=start, **settings)


def arguments_of_run(given: InputFile) -> dict[str, Any]:
    """Return the arguments of ``NFT.run``, except ``executor``.

    Parameters
    ----------
    given : InputFile
        Its paths are relative to the working directory.

    Returns
    -------
    dict
        Structures are Atoms, and ``images`` is None if the file has none.

    Raises
    ------
    InputError, FileNotFoundError
        If a structure or the parent cannot be read.
    """
    targets = targets_of(given)
    images = None if given.system.images is None else _structures(given.system.images, "system.images")
    elements = sorted({symbol for atoms in [*targets, *(images or [])] for symbol in atoms.symbols})
    others = {"correction": given.correction, "baseline": given.baseline, "images_calc": given.images_parent}
    return {
        **_values(given, OF_RUN),
        **{name: parent_of(parent) for name, parent in others.items() if parent is not None},
        "images": images,
        "target_image": targets,
        **_members(given, elements),
        "parent_calc": parent_of(given.parent),
        "card": given.card.model_dump(),
    }


def limits_of(texts: Iterable[str]) -> dict[str, float] | None:
    """Return the limits of a start as the command line gives them.

    Parameters
    ----------
    texts : iterable of str
        As ``labels=100``.

    Returns
    -------
    dict of str to float, or None
        None without any.

    Raises
    ------
    InputError
        A text has another form.
    """
    found = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            found[name.strip()] = float(value)
        except ValueError:
            raise InputError(f"--until {text!r}: give a limit and a number, as labels=100, iterations=5 or hours=12.") from None
    return found or None


def _members(given: InputFile, elements: Iterable[str]) -> dict[str, Any]:
    """Return the arguments that describe the members: Amp's text, or the number of those that a command trains."""
    if given.committee is None:
        return {"calc_text": calc_text(given.ensemble, elements)}
    start = command_of(given.committee).start
    return {"n": len(start) if start else given.committee.members}


def targets_of(given: InputFile) -> list[Atoms]:
    """Return the targets.

    Parameters
    ----------
    given : InputFile

    Returns
    -------
    list of Atoms
    """
    return _structures(given.system.target, "system.target")


def _structures(names: str | list[str], key: str) -> list[Atoms]:
    """Return the structures of all files that a key names."""
    from amp.nft.inputs.structures import read_images

    return [atoms for name in ([names] if isinstance(names, str) else names) for atoms in read_images(name, key)]


def calc_text(members: Members, elements: Iterable[str]) -> str:
    """Return the text that makes the Amp calculator of the members.

    Parameters
    ----------
    members : Members
    elements : iterable of str

    Returns
    -------
    str
    """
    from amp.nft.amp_io import text_of_settings
    from amp.nft.amp_io.calc_text_of import DEFAULTS

    if members.calc_text is not None:
        return members.calc_text
    return text_of_settings(elements, **{name: getattr(members, name) for name in DEFAULTS})


def parent_of(given: Parent) -> Any:
    """Return the function ``f(directory)`` that makes calculators of the parent.

    Parameters
    ----------
    given : Parent

    Returns
    -------
    callable

    Raises
    ------
    InputError
        If its class or function cannot be imported.
    """
    source = Source(given.calculator or given.factory or "", in_file=given.calculator is None)
    source.load()
    return partial(source, **given.args)


def baseline_in(path: str | None) -> Any:
    """Return the baseline of an input file.

    Parameters
    ----------
    path : str or None

    Returns
    -------
    callable or None
        None for None.

    Raises
    ------
    InputError, FileNotFoundError
        It cannot be read or imported.
    """
    from amp.nft.cli.input_file import read_baseline

    return None if path is None else parent_of(read_baseline(path))


@contextmanager
def executor_of(labels: Labels) -> Iterator[Any]:
    """Yield the executor of labels, and release its cluster at the end.

    Parameters
    ----------
    labels : Labels

    Yields
    ------
    executor, callable or None
        As for :meth:`amp.nft.activelearner.NFT.run`.

    Raises
    ------
    InputError
        If a package is missing, or the scheduler does not answer.
    """
    if labels.where == "here":
        yield None
    elif labels.where == "pool":
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import get_context

        yield partial(ProcessPoolExecutor, labels.jobs, mp_context=get_context("spawn"))
    else:
        try:
            from distributed import Client
        except ImportError:
            raise InputError(f"labels.where is {labels.where!r}: it needs `pip install distributed dask-jobqueue`.") from None
        cluster: Any = slurm_cluster(labels) if labels.where == "slurm" else labels.scheduler
        try:
            client = Client(cluster)
        except OSError as error:
            raise InputError(f"labels.scheduler is {labels.scheduler!r}: no Dask scheduler answers there ({error}); start one.") from None
        with client:
            yield client.get_executor(pure=False)
        if labels.where == "slurm":
            cluster.close()


def slurm_cluster(labels: Labels) -> Any:
    """Return the Dask cluster whose workers are Slurm jobs, one label at a time each.

    Parameters
    ----------
    labels : Labels
        With ``sbatch``, of which ``--time`` and ``--mem`` go to Dask.

    Returns
    -------
    dask_jobqueue.SLURMCluster
    """
    from dask_jobqueue import SLURMCluster

    options = dict(one.partition("=")[::2] for one in labels.sbatch)
    others = [one for one in labels.sbatch if one.partition("=")[0] not in ("--time", "--mem")]
    cluster = SLURMCluster(
        cores=1, processes=1, memory=_with_unit(options["--mem"]), walltime=options["--time"], job_extra_directives=others,
        job_script_prologue=[] if labels.setup is None else labels.setup.splitlines(), scheduler_options={"dashboard_address": None},
    )  # fmt: skip
    cluster.adapt(maximum_jobs=labels.jobs or 1)
    return cluster


def input_record(path: str | os.PathLike[str], changes: Iterable[str]) -> dict[str, Any]:
    """Return the text of an input file, its hash and the changes, for the journal.

    Parameters
    ----------
    path : path
    changes : iterable of str

    Returns
    -------
    dict
    """
    from hashlib import sha256
    from pathlib import Path

    data = Path(path).read_bytes()
    return {"file": Path(path).name, "text": data.decode("utf-8"), "sha256": sha256(data).hexdigest(), "set": list(changes)}


def _with_unit(memory: str) -> str:
    """Return Slurm's memory as Dask reads it: Slurm's G are GiB, and numbers without a unit MiB."""
    return f"{memory}MiB" if memory.isdigit() else f"{memory}iB" if memory[-1:] in "KMGT" else memory


def _values(given: InputFile, table: dict[str, str]) -> dict[str, Any]:
    """Return the values that a file has, by the names of arguments."""
    found = {}
    for key, argument in table.items():
        section, _, name = key.partition(".")
        if (value := getattr(getattr(given, section), name)) is not None:
            found[argument] = value
    return found
