"""Compile kernels by their first use, on made-up input.

A second process compiles those of training, see `second_compiler`; the first one compiles those of fingerprints, which it needs before,
and those of evaluation while it waits. The two families share few inner functions, so that hardly one is compiled twice.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np

from amp.nft.kernels.prediction.evaluate import Evaluation, Evaluator
from amp.nft.kernels.simd.linalg import PAD
from amp.nft.kernels.training.labelled import LabelledImages
from amp.nft.kernels.training.lm import step
from amp.nft.kernels.training.loss import fill_residuals, make_scratch
from amp.nft.kernels.training.network import Layout, draw_weights, make_problem
from amp.nft.kernels.training.normal import Work, add_strips, fill_rows, make_work

N_ATOMS = 4


def compile_kernels() -> None:
    """Compile each kernel of training, and print its name before and an empty line after it."""
    for name, use in training()[1].items():
        print(name, flush=True)
        use()
        print(flush=True)


def training() -> tuple[Work, dict[str, Callable[[], object]]]:
    """Return the memory of a fit of one image with one feature, and calls that use it.

    Returns
    -------
    Work, dict
        The calls are in the order in which a fit needs them, by the name of the kernel's function.
    """
    layout = Layout(("X",), ((1, 1, 1),), "tanh")
    rows = SimpleNamespace(
        x=np.linspace(-1.0, 1.0, N_ATOMS)[:, None], kind=np.zeros(N_ATOMS, dtype=int), force_start=np.array([0, N_ATOMS]),
        force_row=np.arange(N_ATOMS), dx=np.ones((N_ATOMS, 3, 1)),
    )  # fmt: skip
    images = LabelledImages([rows], np.zeros(1), [np.zeros((1, 3))], np.array([N_ATOMS]))
    problem = make_problem(layout, images, {"X": np.array([[-1.0, 1.0]])})
    theta = draw_weights(layout, np.random.default_rng(0))
    n, weights, scratch = len(theta), np.ones(1, dtype=np.int64), make_scratch(problem)
    work = make_work(np.ones(4), n, 4)
    return work, {
        "fill_residuals": lambda: fill_residuals(problem, theta, weights, scratch, work.trial),
        "fill_rows": lambda: fill_rows(problem, theta, weights, scratch, work.rows, work, 0, 1, 0, 4),
        "add_strips": lambda: add_strips(work, work.strip, 0, 1, 0, len(work.dual) // PAD),
        "step": lambda: step(work, 1.0, n, False),
    }


def evaluation() -> Evaluation:
    """Evaluate a few atoms in a row.

    Returns
    -------
    Evaluation
    """
    functions = [
        {"type": "G2", "element": "H", "eta": 1.0, "offset": 0.0},
        {"type": "G4", "elements": ["H", "H"], "eta": 1.0, "gamma": 1.0, "zeta": 1.0},
    ]
    model = SimpleNamespace(
        gs={"H": functions}, cutoff={"name": "Cosine", "kwargs": {"Rc": 3.0}}, hiddenlayers={"H": (1,)}, activation="tanh",
        weights={"H": [np.zeros((3, 1)), np.zeros((2, 1))]}, scalings={"H": (0.0, 1.0)}, fprange={"H": np.array([[0.0, 1.0]] * 2)},
    )  # fmt: skip
    positions = np.arange(3.0 * N_ATOMS).reshape(N_ATOMS, 3)
    evaluator = Evaluator([model, model])
    return evaluator.evaluate(positions, np.ones(N_ATOMS, dtype=int), np.zeros((3, 3)), np.zeros(3, dtype=bool), threads=1)
