"""Commands that move atoms with an ensemble: ``relax`` and ``refine``."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from amp.nft.errors import InputError


def relax(options: Namespace) -> int:
    """Relax a structure with an ensemble, and write it.

    Parameters
    ----------
    options : Namespace

    Returns
    -------
    int
        0 if the forces are small, 3 if the steps are used up, 5 if an uncertainty above the threshold ended it.
    """
    from ase.io import write

    from amp.nft.calculator import relax
    from amp.nft.cli.inputs import importing_from
    from amp.nft.cli.main import CONVERGED, HALTED, UNCONVERGED
    from amp.nft.cli.paths import check_output, ensemble_of
    from amp.nft.cli.settings import baseline_in
    from amp.nft.inputs.structures import read_images

    for name in filter(None, (options.output, options.trajectory)):
        check_output(name)
    structures = read_images(options.structure, "STRUCTURE")
    if len(structures) > 1:
        raise InputError(f"{options.structure} has {len(structures)} structures: choose one, as {options.structure}@-1.")
    ensemble = ensemble_of(options.ensemble)
    settings = {name: getattr(options, name) for name in ("fmax", "steps", "threshold", "cell", "trajectory")}
    with importing_from(Path(ensemble).absolute().parent):
        found = relax(structures[0], ensemble, **settings, baseline=baseline_in(options.baseline), log=print)
    write(options.output, found.atoms)
    print(found)
    print(f"{options.output} is written.")
    return HALTED if found.halted else CONVERGED if found.converged else UNCONVERGED


def refine(options: Namespace) -> int:
    """Refine the run of an input file.

    Parameters
    ----------
    options : Namespace

    Returns
    -------
    int
        0 if no exploration leaves the trained structures any more, 3 if one of the last round did.
    """
    from amp.nft.cli.inputs import opened
    from amp.nft.cli.main import CONVERGED, UNCONVERGED
    from amp.nft.cli.settings import arguments_of_run, executor_of, input_record, learner_of
    from amp.nft.refinement import Dynamics, Explorer, Relaxation, refine

    if options.explore is None and (options.steps, options.temperature) != (None, None):
        raise InputError("--steps and --temperature are for the explorers of --explore: give --explore relax, md or both, too.")
    steps = {} if options.steps is None else {"steps": options.steps}
    explorers: dict[str, Explorer] = {"relax": Relaxation(**steps), "md": Dynamics(temperature=options.temperature or 300.0, **steps)}
    with opened(options) as given, executor_of(given.labels) as executor:
        arguments = arguments_of_run(given)
        rounds = refine(
            learner_of(given), arguments.pop("images"), arguments.pop("target_image"), rounds=options.rounds, k=options.labels,
            explore=None if options.explore is None else [explorers[name] for name in options.explore], limit=options.limit,
            executor=executor, notes=input_record(Path(options.input).name, options.set), **arguments,
        )  # fmt: skip
    print(*rounds, sep="\n")
    ended = len(rounds) <= options.rounds or not rounds[-1].chunks
    return CONVERGED if ended else UNCONVERGED
