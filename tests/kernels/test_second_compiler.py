"""The second process that compiles kernels: its reports, its end, and the kernels that it leaves in the cache."""

import os
import sys
import time

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from amp.nft.fitting import evaluate, fit
from amp.nft.kernels import first_use, second_compiler
from amp.nft.kernels.prediction.ensemble import evaluate_block
from amp.nft.kernels.second_compiler import IS_SECOND, SecondCompiler
from amp.nft.kernels.training.lm import step
from amp.nft.kernels.training.loss import fill_residuals
from amp.nft.kernels.training.normal import add_strips, fill_rows

LONG = 120.0  # s


@pytest.fixture
def compiler(monkeypatch):
    """Return a second compiler that may start; its kernels are in the cache if other tests ran before."""
    monkeypatch.delenv(IS_SECOND, raising=False)
    monkeypatch.delitem(sys.modules, "mpi4py.MPI", raising=False)  # of a test of LAMMPS
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    compiler = SecondCompiler()
    yield compiler
    compiler.stop()


def test_it_reports_each_kernel_that_it_compiled(compiler):
    compiler.start()
    end = time.monotonic() + LONG
    names = list(first_use.training()[1])
    while not all([compiler.wait_for(name) for name in names]):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert not compiler.wait_for("no_such_kernel")


def test_its_kernels_are_those_of_a_fit(capsys, tmp_path):
    """A kernel is compiled for the types of its arguments: those of made-up input are those of real input."""
    images = [bulk("Cu", cubic=True) for _ in range(4)]
    for seed, image in enumerate(images):
        image.rattle(0.1, seed=seed)
        image.calc = EMT()
    ensemble = fit(images, directory=tmp_path / "fit", hiddenlayers=(2,), cutoff=4.0, n=2, valid=0.25)
    evaluate(ensemble, images)
    capsys.readouterr()
    first_use.evaluation()
    first_use.compile_kernels()
    assert capsys.readouterr().out == "".join(f"{name}\n\n" for name in first_use.training()[1])
    for kernel in (fill_residuals, fill_rows, add_strips, step, evaluate_block):
        (signature,) = kernel.signatures
        assert len(signature) == kernel.py_func.__code__.co_argcount


def test_a_killed_process_is_not_waited_for(compiler):
    compiler.start()
    compiler._process.kill()
    compiler._process.wait()
    assert not compiler.wait_for("fill_rows")
    assert compiler._process.stdout.closed


def test_a_second_process_starts_no_third(compiler, monkeypatch):
    monkeypatch.setenv(IS_SECOND, "1")
    compiler.start()
    assert compiler._process is None


@pytest.mark.parametrize("name", ["one processor", "forked", "no interpreter"])
def test_where_it_cannot_start_this_process_compiles_alone(compiler, monkeypatch, name):
    if name == "one processor":
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    elif name == "forked":
        compiler._owner = os.getppid()
    else:
        monkeypatch.setattr(second_compiler.sys, "executable", "/no/such/python")
    compiler.start()
    assert compiler._process is None
    assert not compiler.wait_for("fill_rows")


def test_made_up_input_gives_finite_results():
    work, uses = first_use.training()
    results = [use() for use in uses.values()]
    assert results[:2] == [None, (1, 4)]
    for filled in (work.residual, work.rows, work.tiles, work.step):
        assert np.isfinite(filled).all()
        assert filled.any()
    assert results[3] > 0.0
    assert np.isfinite(first_use.evaluation().forces).all()


def test_this_process_works_while_it_waits(compiler):
    done = []
    compiler.start()
    end = time.monotonic() + LONG
    while not compiler._begun:
        assert time.monotonic() < end
        compiler._read(0.05)
    with compiler.work_while_waiting(lambda: done.append(compiler._begun)):
        name = compiler._begun
        assert compiler.wait_for(name)
        assert done == [name]
        compiler.wait_for("step")
    assert done == [name]
