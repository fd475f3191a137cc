"""Compile kernels by their first use, on made-up input: the work of the second process, see `second_compiler`.

The kernels are those that a run needs last and that take longest; the first process compiles the others.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import numpy as np

from amp.nft.kernels.prediction.evaluate import Evaluator
from amp.nft.kernels.training.labelled import LabelledImages
from amp.nft.kernels.training.loss import make_scratch
from amp.nft.kernels.training.network import Layout, draw_weights, make_problem
from amp.nft.kernels.training.normal import fill_rows, make_work

N_ATOMS = 4


def compile_kernels() -> None:
    """Compile each kernel, and print its name before and an empty line after it."""
    for name, use in uses().items():
        print(name, flush=True)
        use()
        print(flush=True)


def uses() -> dict[str, Callable[[], object]]:
    """Return a call of each kernel, in the order in which a run needs them.

    Returns
    -------
    dict
        By the name of the kernel's function. The last one uses two small kernels too.
    """
    return {"fill_rows": _normal_equations(), "evaluate_block": _evaluation()}


def _normal_equations() -> Callable[[], object]:
    """Return a call of `fill_rows` on one image with one feature."""
    layout = Layout(("X",), ((1, 1, 1),), "tanh")
    rows = SimpleNamespace(
        x=np.linspace(-1.0, 1.0, N_ATOMS)[:, None], kind=np.zeros(N_ATOMS, dtype=int), force_start=np.array([0, N_ATOMS]),
        force_row=np.arange(N_ATOMS), dx=np.ones((N_ATOMS, 3, 1)),
    )  # fmt: skip
    images = LabelledImages([rows], np.zeros(1), [np.zeros((1, 3))], np.array([N_ATOMS]))
    problem = make_problem(layout, images, {"X": np.array([[-1.0, 1.0]])})
    theta = draw_weights(layout, np.random.default_rng(0))
    work = make_work(np.ones(4), len(theta), 4)
    return partial(fill_rows, problem, theta, np.ones(1, dtype=np.int64), make_scratch(problem), work.rows, work, 0, 1, 0, 4)


def _evaluation() -> Callable[[], object]:
    """Return a call of `evaluate_block`, on a few atoms in a row."""
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
    return partial(evaluator.evaluate, positions, np.ones(N_ATOMS, dtype=int), np.zeros((3, 3)), np.zeros(3, dtype=bool), threads=1)
