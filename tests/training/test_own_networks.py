"""Law of committees: Amp's networks, trained by a command and loaded as models of another program, are the same ensemble."""

import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.emt import EMT
from small_runs import cells, cluster, run

from amp.nft.amp_io import read_ensemble
from amp.nft.calculator import EnsembleCalculator, load
from amp.nft.calculator.members import open_members
from amp.nft.run.history import read_run
from amp.nft.training import Command

TRAIN = " ".join(shlex.quote(str(part)) for part in (sys.executable, Path(__file__).parents[1] / "own_trainer.py"))
N = 2
SAME = 1e-10  # relative, and eV, eV/Å: sums in another order, and a cluster that its loop moves into a cell
NAMES = (
    "energy",
    "forces",
    "forces_uncertainty",
    "forces_committee_std",
    "energy_uncertainty",
    "forces_comm",
    "energy_comm",
    "extrapolating",
)


@pytest.mark.slow
def test_a_committee_of_our_networks_is_their_ensemble(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainer = Command(TRAIN, "amp.nft.calculator.EnsembleCalculator", "one.ensemble", samples="all", parallel=2)
    run(trainer=trainer, n=N, max_iterations=1)
    found = read_run(".")
    for step in found.steps:
        models = [read_ensemble(f"al-training/models/{step.iteration}/{member}/model/one.ensemble")[0] for member in range(N)]
        ensemble = EnsembleCalculator(models, keep_members=True)
        committee = load(f"al.{step.iteration}.committee", keep_members=True)
        for atoms in (cluster(), *cells()[:2]):
            for name in (*NAMES, *(["stress"] if atoms.pbc.all() else [])):
                one, other = (calc.get_property(name, atoms) for calc in (committee, ensemble))
                np.testing.assert_allclose(one, other, rtol=SAME, atol=SAME, err_msg=name)
        np.testing.assert_allclose(step.delta, ensemble.get_property("forces_uncertainty", cluster()), rtol=SAME, atol=SAME)
        members = open_members(found.members(step), "al-training")
        np.testing.assert_allclose(members.predict(cluster(), each=True).forces_mni, ensemble.results["forces_comm"], rtol=SAME, atol=SAME)
    errors = [np.linalg.norm(calc.get_property("forces", cluster()) - EMT().get_property("forces", cluster())) for calc in of_steps()]
    assert errors[1] < errors[0]


def of_steps():
    return [load(f"al.{iteration}.committee") for iteration in (0, 1)]
