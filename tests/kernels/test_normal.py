"""Normal equations and steps against NumPy, and their independence of blocks and threads."""

import time

import numpy as np
import pytest
from made_up import label_weights, made_up

from amp.nft.kernels.jit import kernel
from amp.nft.kernels.simd.linalg import PAD, padded, solve
from amp.nft.kernels.simd.tiles import BLOCKED_FROM, DEPTH, add_strip, cholesky, pack_columns, pack_rows, unpack_tiles
from amp.nft.kernels.simd.vectors import zeros
from amp.nft.kernels.threads import Threads
from amp.nft.kernels.training import normal, team
from amp.nft.kernels.training.descent import Rules, descend
from amp.nft.kernels.training.jacobian import fill_jacobian
from amp.nft.kernels.training.lm import PROBE, accelerate, accelerate_streamed, find_step, propose
from amp.nft.kernels.training.loss import fill_residuals, make_scratch
from amp.nft.kernels.training.network import make_problem

ROUNDING = 1e-12  # relative, of sums and factors
ROUNDING_OF_DIFFERENCES = 1e-9  # relative, of an acceleration
SINGLE = 1e-4  # the same from a Jacobian in single precision
MOST = 6 * 30 + 4 * 3  # residuals of an image or of a penalty


@kernel
def run_rows(j, count, width, tiles, strip, a):
    """JᵀJ of packed rows."""
    for first in range(0, count, DEPTH):
        depth = min(DEPTH, count - first)
        pack_rows(j, first * width, depth, width, 0, strip)
        add_strip(strip, depth, np.int64(0), width // PAD, tiles)
    unpack_tiles(tiles, width // PAD, a)


@kernel
def run_columns(j, count, width, tiles, strip, a):
    """JJᵀ of packed columns; `count` is a multiple of PAD."""
    for first in range(0, width, DEPTH):
        depth = min(DEPTH, width - first)
        pack_columns(j, width, first, depth, count, strip)
        add_strip(strip, depth, np.int64(0), count // PAD, tiles)
    unpack_tiles(tiles, count // PAD, a)


@kernel
def run_cholesky(a, n, width, spare, strip, x):
    """Factorize and solve."""
    done = cholesky(a, n, width, spare, strip)
    if done:
        solve(a, n, width, x)
    return done


@pytest.mark.parametrize(("count", "width"), [(5, 8), (64, 32), (150, 72), (200, 136)])
@pytest.mark.parametrize("run", [run_rows, run_columns])
def test_packed_products_are_numpys(count, width, run):
    rows = padded(count) if run is run_columns else count
    j = np.random.default_rng(count).normal(size=(rows, width))
    expected = j @ j.T if run is run_columns else j.T @ j
    n = len(expected)
    a, tiles = np.zeros((n, n)), zeros(n // PAD * (n // PAD + 1) // 2 * PAD**2)
    run(j.ravel(), rows, width, tiles, zeros(DEPTH * max(n, width)), a.ravel())
    assert np.triu(a) == pytest.approx(np.triu(expected), rel=ROUNDING, abs=ROUNDING * np.abs(expected).max())


@pytest.mark.parametrize("n", [3, 29, 67, BLOCKED_FROM - 1, BLOCKED_FROM, BLOCKED_FROM + 101])
def test_equations_are_solved(n):
    rng, width = np.random.default_rng(n), padded(n)
    j = rng.normal(size=(n + 20, n))
    a, x = np.zeros((width, width)), rng.normal(size=width)
    a[:n, :n] = j.T @ j + 0.5 * np.eye(n)
    expected = np.linalg.solve(a[:n, :n], x[:n])
    assert run_cholesky(a.ravel(), n, width, np.zeros(4 * width), np.zeros(DEPTH * width), x)
    assert x[:n] == pytest.approx(expected, rel=1e-9, abs=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize(("n", "bad"), [(9, 6), (BLOCKED_FROM + 40, 10), (BLOCKED_FROM + 40, BLOCKED_FROM + 30)])
def test_what_is_not_positive_definite_is_refused(n, bad):
    width = padded(n)
    a = np.zeros((width, width))
    a[:n, :n] = np.eye(n)
    a[bad, bad] = -1.0
    assert not run_cholesky(a.ravel(), n, width, np.zeros(4 * width), np.zeros(DEPTH * width), np.zeros(width))


def member(copies=1, hidden=(5, 4), seed=0):
    """Return a problem, parameters, weights and roots; the images of `made_up` repeated."""
    arguments, _, _, theta = made_up(seed=seed, hidden=hidden, copies=copies, weights=label_weights(copies=copies))
    problem = make_problem(*arguments, overfit=0.1)
    weights = np.random.default_rng(seed).integers(0, 3, 2 * copies)
    weights[0] = 1
    images = problem.data.images[weights > 0]
    penalties = 6 * hidden[0] + 4 * 3
    count = (images["has_energy"] + 3 * (images["last"] - images["force"])).sum() + penalties
    return problem, theta, weights, np.random.default_rng(1).uniform(0.5, 2.0, count)


def linearized(problem, theta, weights, root, **options):
    work = normal.make_work(root, len(theta), MOST, **options)
    largest = normal.linearize(problem, theta, weights, make_scratch(problem), work)
    return work, largest


def dense(problem, theta, weights, root):
    """Weighted residuals and Jacobian."""
    count, width = len(root), padded(len(theta))
    residual, jacobian = np.zeros(count), np.zeros(count * width)
    fill_jacobian(problem, theta, weights, make_scratch(problem), residual, jacobian, width)
    return root * residual, root[:, None] * jacobian.reshape(count, width)[:, : len(theta)]


CASES = [{"copies": 20}, {"hidden": (20, 10)}]  # more residuals than parameters, and fewer


@pytest.mark.parametrize("case", CASES)
def test_a_step_solves_the_damped_equations(case):
    problem, theta, weights, root = member(**case)
    n, mu = len(theta), 0.3
    work, largest = linearized(problem, theta, weights, root)
    assert (len(work.dual) > 0) == (len(root) < n)
    r, j = dense(problem, theta, weights, root)
    assert largest == pytest.approx((j**2).sum(axis=0).max(), rel=ROUNDING)
    assert work.gradient[:n] == pytest.approx(j.T @ r, rel=ROUNDING, abs=ROUNDING * np.abs(j.T @ r).max())
    promised = propose(work, mu, n)
    expected = -np.linalg.solve(j.T @ j + mu * np.eye(n), j.T @ r)
    assert work.step[:n] == pytest.approx(expected, abs=1e-9 * np.abs(expected).max())
    assert promised == pytest.approx(r @ r - ((r + j @ expected) ** 2).sum(), rel=1e-9)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("streamed", [False, True])
def test_acceleration_solves_the_equations_of_the_second_derivative(case, streamed):
    problem, theta, weights, root = member(**case)
    scratch, n, mu = make_scratch(problem), len(theta), 1e4
    r, j = dense(problem, theta, weights, root)
    work, _ = linearized(problem, theta, weights, root)
    propose(work, mu, n)
    step, trials = work.step[:n].copy(), [work.trial, np.zeros(padded(len(root)))]
    for sign, trial in zip((1.0, -1.0), trials, strict=True):
        fill_residuals(problem, theta + sign * PROBE * step, weights, scratch, trial)
    ahead, behind = (root * trial[: len(root)] for trial in trials)
    if streamed:
        second = (ahead + behind - 2.0 * r) / PROBE**2
        accelerate_streamed(problem, theta, weights, scratch, work._replace(behind=trials[1]), mu)
    else:
        second = 2.0 / PROBE * ((ahead - r) / PROBE - j @ step)
        accelerate(work, mu, n)
    expected = -np.linalg.solve(j.T @ j + mu * np.eye(n), j.T @ second)
    assert work.bend[:n] == pytest.approx(expected, abs=(ROUNDING_OF_DIFFERENCES if streamed else SINGLE) * np.abs(expected).max())
    assert work.step[:n] == pytest.approx(step + 0.5 * work.bend[:n], abs=ROUNDING * np.abs(step).max())


def test_sums_do_not_depend_on_blocks():
    problem, theta, weights, root = member(copies=40)
    first, _ = linearized(problem, theta, weights, root)
    for block_rows in (1, 100):
        other, _ = linearized(problem, theta, weights, root, block_rows=block_rows)
        assert len(other.packed) < len(first.packed)
        assert (first.tiles == other.tiles).all()
        assert (first.gradient == other.gradient).all()
        assert (first.residual == other.residual).all()
        assert (first.single == other.single).all()


SHARED = [  # fewer residuals than parameters, and more
    {"hidden": (20, 10)},
    {"copies": 40},
    {"copies": 25, "hidden": (30, 20)},
    {"copies": 60, "hidden": (20, 10)},
]


def run_alone_among(count, function):
    """Call a function with `count` threads, of which all but its own wait."""
    threads, results = Threads(count), []

    def work(task):
        end = time.monotonic() + 20.0
        while threads.together < count and time.monotonic() < end:
            time.sleep(1e-3)
        assert threads.together == count
        results.append(function(threads))

    threads.run(work, [0])
    return results[0]


@pytest.mark.parametrize("case", SHARED)
def test_a_step_does_not_depend_on_the_threads_that_share_it(case, monkeypatch):
    monkeypatch.setattr(team, "SHARE_FROM", 0)
    problem, theta, weights, root = member(**case)

    def step(threads):
        scratch, work = make_scratch(problem), normal.make_work(root, len(theta), MOST, block_rows=100)
        helpers = team.Team(problem, weights, scratch, work, threads)
        assert helpers.helps == (threads.together > 1)
        largest = normal.linearize(problem, theta, weights, scratch, work, helpers)
        promised = find_step(problem, theta, weights, scratch, work, 1e-3 * largest, helpers)
        assert promised > 0.0
        results = [largest, promised, work.tiles, work.gradient, work.residual, work.single, work.step, work.trial]
        return [*results, *([work.rows] if len(work.dual) else [])]

    one, *others = (run_alone_among(count, step) for count in (1, 2, 3))
    for other in others:
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_fit_does_not_depend_on_the_threads_that_share_it(monkeypatch):
    monkeypatch.setattr(team, "SHARE_FROM", 0)
    problem, theta, weights, _ = member(copies=40)
    rules = Rules(np.full(4, np.inf), 5)
    one, *others = (run_alone_among(count, lambda threads: descend(problem, theta, weights, rules, threads=threads)) for count in (1, 2, 3))
    for other in others:
        assert (one.theta == other.theta).all()
        assert (one.steps, one.loss) == (other.steps, other.loss)
