"""Times and memory of a training step as elements, parameters and forces grow. One command:

    env OPENBLAS_NUM_THREADS=1 python benchmarks/scale.py [--against WORKTREE] [--tables] [--largest N] [--threads N]

The images have 40 atoms, all neighbours of each other, and made-up fingerprints. A step fills the Jacobian and the normal equations and
solves them once; rates are parts of that of NumPy's matrix product on one thread, in the same run. With ``--against`` the same cases
run in turn with the code of another worktree that has its own environment. ``--tables`` varies one quantity at a time instead, fits the
power of the time in it, and evaluates ten members on targets of up to N atoms. ``--threads`` fits one member on N threads instead, in turn
with one thread, and compares wall times; two members on two threads, each with its own, are the bound of that ratio.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np

RESULTS = Path(__file__).parent / "results" / "scale.json"
ATOMS, ROUNDS, STEPS = 40, 5, 5
# elements, features of each, hidden layers, images with all forces, chunks with one
CASES = {
    "1 element, 12 features, 26 chunks": (1, 12, (5, 5), 0, 26),
    "1 element, 12 features, 260 chunks": (1, 12, (5, 5), 0, 260),
    "1 element, 30 features": (1, 30, (20, 10), 20, 0),
    "2 elements, 44 features": (2, 44, (10, 10), 20, 0),
    "3 elements, 44 features": (3, 44, (10, 10), 20, 0),
    "5 elements, 36 features": (5, 36, (10, 10), 30, 0),
    "2 elements, 44 features, 5 times the images": (2, 44, (10, 10), 100, 0),
}
TABLES = {
    "elements": {str(n): (n, 44, (10, 10), 20, 0) for n in (1, 2, 3, 5)},
    "parameters": {str(sum(hidden)): (1, 30, hidden, 20, 0) for hidden in ((3,), (10, 10), (20, 20), (28, 28), (40, 40))},
    "residuals": {str(n): (1, 12, (5, 5), n, 0) for n in (1, 8, 83, 826)},
}
CELLS, ELEMENTS = 6, ("Cu", "Ag", "Au", "Ni", "Pd")
TARGETS = (3, 6, 14, 30, 63)  # cubic cells of fcc along each axis: 108 to a million atoms


def images(elements: int, features: int, cells: int, chunks: int) -> list[SimpleNamespace]:
    """Random fingerprints and derivatives in the form of `Rows`."""
    rng, rows = np.random.default_rng(0), []
    for n_forces in [ATOMS] * cells + [1] * chunks:
        kind = np.arange(ATOMS) % elements
        entries = np.tile(np.arange(ATOMS), n_forces)
        dx = rng.normal(size=(len(entries), 3, features))
        rows.append(SimpleNamespace(
            x=rng.normal(size=(ATOMS, features)), kind=kind, force_start=ATOMS * np.arange(n_forces + 1), force_row=entries, dx=dx
        ))  # fmt: skip
    return rows


def problem_of(elements: int, features: int, hidden: tuple[int, ...], cells: int, chunks: int):
    """Return a problem and parameters."""
    try:
        from amp.nft.kernels.training.network import Layout, draw_weights, make_problem
    except ImportError:
        from amp.nft.kernels.network import Layout, draw_weights, make_problem
    try:
        from amp.nft.kernels.training.labelled import LabelledImages
    except ImportError:  # older code takes the labels one by one
        LabelledImages = None
    rows = images(elements, features, cells, chunks)
    names = tuple(f"E{k}" for k in range(elements))
    layout = Layout(names, ((features, *hidden, 1),) * elements, "tanh")
    forces = [np.zeros((len(r.force_start) - 1, 3)) for r in rows]
    energies = np.array([0.0] * cells + [np.nan] * chunks)
    ranges = dict.fromkeys(names, np.tile([-1.0, 1.0], (features, 1)))
    labels = rows, energies, forces, np.full(len(rows), ATOMS)
    problem = make_problem(layout, *([LabelledImages(*labels)] if LabelledImages else labels), ranges)
    return problem, draw_weights(layout, np.random.default_rng(1))


def median(function, rounds: int = ROUNDS) -> float:
    """Median processor time of a call of this thread."""
    times = []
    for _ in range(rounds + 1):
        begin = time.thread_time()
        function()
        times.append(time.thread_time() - begin)
    return statistics.median(times[1:])


def peak_memory() -> float:
    """Largest resident size of this process so far, in GB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1e6


def measure(case: str) -> dict[str, float]:
    """Return times of the parts of a step, in s, and memory."""
    quantity, _, name = case.partition("/")
    problem, theta = problem_of(*(TABLES[quantity][name] if quantity in TABLES else CASES[case]))
    data = problem.data.images
    count = int((data["has_energy"] + 3 * (data["last"] - data["force"])).sum())
    weights, n = np.ones(len(data), dtype=np.int64), len(theta)
    packed = sum(array.nbytes for array in problem.data if isinstance(array, np.ndarray))
    row = {"parameters": n, "residuals": count, "packed_GB": packed / 1e9}
    before = peak_memory()
    try:
        times = _streamed(problem, theta, weights, count)
    except ImportError:
        times = _stored(problem, theta, weights, count)
    row |= times | {"more_GB": peak_memory() - before}
    n_rate = 1000
    a = np.random.default_rng(0).normal(size=(n_rate, n_rate))
    row["matrix_product"] = 2.0 * n_rate**3 / median(lambda: a @ a)
    row["gram_part"] = count * n * (n + 1) / row["gram_s"] / row["matrix_product"]
    row["jacobian_part"] = _operations(problem, theta) / row["jacobian_s"] / row["matrix_product"]
    row["step_s"] = row["jacobian_s"] + row["gram_s"] + row["cholesky_s"]
    return row


def _operations(problem, theta) -> float:
    """Count the operations of the Jacobian: the tangents of both passes and two products for each weight, direction and row."""
    kind, operations = problem.net.kinds, 0.0
    for image in problem.data.images:
        directions = 3 * (image["last"] - image["force"]) + image["has_energy"]
        for segment in problem.data.segments[image["segment"] : image["end"]]:
            layers = problem.net.layers[segment["kind"]][: kind[segment["kind"]]["layers"]]
            weights, inputs = (layers["n_in"] * layers["n_out"]).sum(), layers[0]["n_in"] * layers[0]["n_out"]
            operations += directions * segment["real"] * (2 * weights + 2 * (weights - inputs) + 4 * weights)
    return operations


def _streamed(problem, theta, weights, count) -> dict[str, float]:
    """Measure the normal equations as they are streamed."""
    from amp.nft.kernels.training.lm import propose
    from amp.nft.kernels.training.loss import fill_residuals, make_scratch
    from amp.nft.kernels.training.normal import linearize, make_work

    data = problem.data.images
    most = int((data["has_energy"] + 3 * (data["last"] - data["force"])).max())
    scratch, work = make_scratch(problem), make_work(np.ones(count), len(theta), most)
    filled = median(lambda: linearize(problem, theta, weights, scratch, work))
    fill = _jacobian_by_images(problem, theta, weights, scratch, count, len(work.step))
    return {
        "jacobian_s": fill, "gram_s": filled - fill, "cholesky_s": median(lambda: propose(work, 1.0, len(theta))),
        "residuals_s": median(lambda: fill_residuals(problem, theta, weights, scratch, work.trial)),
    }  # fmt: skip


def _jacobian_by_images(problem, theta, weights, scratch, count, width) -> float:
    """Time of the Jacobian alone, a few images at a time as in `linearize`."""
    from amp.nft.kernels.training.jacobian import fill_jacobian

    data, groups, rows = problem.data.images, [np.zeros_like(weights)], 0
    for i, n in enumerate(data["has_energy"] + 3 * (data["last"] - data["force"])):
        if rows + n > 1024:
            groups.append(np.zeros_like(weights))
            rows = 0
        groups[-1][i] = weights[i]
        rows += n
    residual, jacobian = np.zeros(count), np.zeros((min(count, 1024) + 1) * width)
    return median(lambda: [fill_jacobian(problem, theta, group, scratch, residual, jacobian, width) for group in groups])


def _stored(problem, theta, weights, count) -> dict[str, float]:
    """Measure code that stores the whole Jacobian (b518b1c)."""
    from amp.nft.kernels.lm import make_work, prepare, propose
    from amp.nft.kernels.loss import fill_jacobian, fill_residuals, make_scratch

    scratch, work = make_scratch(problem), make_work(count, len(theta))
    work.root[:] = 1.0
    both = median(lambda: (fill_jacobian(problem, theta, weights, scratch, work.residual, work.jacobian, len(work.step)), prepare(work)))
    fill = median(lambda: fill_jacobian(problem, theta, weights, scratch, work.residual, work.jacobian, len(work.step)))
    prepare(work)
    return {
        "jacobian_s": fill, "gram_s": both - fill, "cholesky_s": median(lambda: propose(work, 1.0, len(theta))),
        "residuals_s": median(lambda: fill_residuals(problem, theta, weights, scratch, work.trial)),
    }  # fmt: skip


def run(case: str, tree: Path) -> dict[str, float]:
    """Measure a case in a process of its own, with the code and environment of a worktree."""
    python = tree / ".venv" / "bin" / "python"
    command = [str(python if python.exists() else sys.executable), __file__, "--case", case]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, cwd=tree).stdout)


def tables(largest: int) -> dict[str, list[dict[str, float]]]:
    """Measure one table for each quantity, and the power of the time in it from the first row to the last."""
    found: dict[str, list[dict[str, float]]] = {}
    for quantity, cases in TABLES.items():
        found[quantity] = [run(f"{quantity}/{name}", Path(__file__).parents[1]) for name in cases]
        for name, row in zip(cases, found[quantity], strict=True):
            row["elements"] = float(cases[name][0])
            print(
                f"{quantity}: {row['elements']:.0f} elements, {row['parameters']:.0f} parameters, {row['residuals']:.0f} residuals: "
                f"Jacobian {row['jacobian_s']:.4f} s, gram {row['gram_s']:.4f} s, Cholesky {row['cholesky_s']:.4f} s, "
                f"step {row['step_s']:.4f} s; {row['packed_GB']:.2f} + {row['more_GB']:.2f} GB", flush=True,
            )  # fmt: skip
        print(f"    step: power {power([row[quantity] for row in found[quantity]], [row['step_s'] for row in found[quantity]]):.2f}")
    found["elements of the target"] = [evaluation(CELLS, elements) for elements in (1, 2, 3, 5)]
    found["atoms"] = [evaluation(n) for n in TARGETS if 4 * n**3 <= largest]
    print(f"    evaluation: power {power([row['atoms'] for row in found['atoms']], [row['seconds'] for row in found['atoms']]):.2f}")
    return found


def shared(case: str, threads: int) -> dict[str, float]:
    """Wall times of a few steps of one member, and of as many members as threads, on one thread and on several."""
    from amp.nft.kernels.threads import Threads
    from amp.nft.kernels.training.descent import Rules, descend

    problem, theta = problem_of(*CASES[case])
    weights, rules = np.ones(len(problem.data.images), dtype=np.int64), Rules(np.full(4, np.inf), STEPS)

    def seconds(members: int, count: int) -> float:
        """Fit some members."""
        shared, found = Threads(count), []

        def work(member: int) -> None:
            """Fit one."""
            found.append(descend(problem, theta, weights, rules, threads=shared).theta)

        begin = time.perf_counter()
        shared.run(work, range(members))
        taken = time.perf_counter() - begin
        assert all((some == first).all() for some in found)
        return taken

    first = descend(problem, theta, weights, rules).theta
    seconds(1, threads)
    rows = [[seconds(members, count) for members in (1, threads) for count in (1, threads)] for _ in range(ROUNDS)]
    one, together, several, apart = np.array(rows).T
    return {
        "one_thread_s": statistics.median(one), "shared_s": statistics.median(together),
        "ratio": statistics.median(one / together), "ratio_of_members": statistics.median(several / apart),
    }  # fmt: skip


def power(sizes: list[float], times: list[float]) -> float:
    """Return the least-squares power of the times in the sizes."""
    return float(np.polyfit(np.log(sizes), np.log(times), 1)[0])


def evaluation(cells: int, elements: int = 1) -> dict[str, float]:
    """Processor time of ten random members on a crystal, its elements at random, one thread."""
    from ase.build import bulk

    from amp.nft.features import g2x
    from amp.nft.kernels.prediction.evaluate import Evaluator

    names = sorted(ELEMENTS[:elements])
    atoms, rng, functions = bulk("Cu", cubic=True) * (cells, cells, cells), np.random.default_rng(0), g2x(names)
    atoms.rattle(0.05, seed=0)
    atoms.symbols = rng.choice(names, len(atoms))
    n = len(functions["Cu"])
    members = [SimpleNamespace(
        gs=functions, cutoff={"name": "Cosine", "kwargs": {"Rc": 6.5}}, hiddenlayers=dict.fromkeys(names, (5, 5)), activation="tanh",
        weights={name: [rng.normal(size=shape) for shape in ((n + 1, 5), (6, 5), (6, 1))] for name in names},
        scalings=dict.fromkeys(names, (0.0, 1.0)), fprange=dict.fromkeys(names, np.tile([0.0, 10.0], (n, 1))),
    ) for _ in range(10)]  # fmt: skip
    evaluator = Evaluator(members)
    call = partial(evaluator.evaluate, atoms.positions, atoms.numbers, atoms.cell.array, atoms.pbc, threads=1)
    row = {"atoms": float(len(atoms)), "functions": float(n), "seconds": median(call, 1 if len(atoms) > 50_000 else ROUNDS)}
    print(f"target: {len(atoms)} atoms of {elements} elements, {n} functions: {row['seconds']:.4f} s, "
          f"{1e6 * row['seconds'] / len(atoms):.1f} µs an atom", flush=True)  # fmt: skip
    return row


def main() -> None:
    """Print a table and write it down."""
    parser = argparse.ArgumentParser(description="a training step as problems grow")
    parser.add_argument("--against", type=Path)
    parser.add_argument("--case")
    parser.add_argument("--tables", action="store_true")
    parser.add_argument("--largest", type=int, default=1_100_000)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--only", type=int, nargs="*", default=range(len(CASES)))
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(options.case)))
        return
    if options.tables:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.with_name("scale_tables.json").write_text(json.dumps(tables(options.largest), indent=1) + "\n")
        return
    results = {}
    for number, case in enumerate(CASES):
        if number not in options.only:
            continue
        if options.threads:
            row = shared(case, options.threads)
            print(f"{case}: one member {row['one_thread_s']:.4f} s on one thread, {row['shared_s']:.4f} s on {options.threads}: ratio "
                  f"{row['ratio']:.2f}; {options.threads} members: ratio {row['ratio_of_members']:.2f}", flush=True)  # fmt: skip
            continue
        here = run(case, Path(__file__).parents[1])
        results[case] = {"here": here}
        print(f"{case}: {here['parameters']:.0f} parameters, {here['residuals']:.0f} residuals; Jacobian {here['jacobian_s']:.4f} s "
              f"({here['jacobian_part']:.0%}), gram {here['gram_s']:.4f} s ({here['gram_part']:.0%}), Cholesky {here['cholesky_s']:.4f} s; "
              f"packed {here['packed_GB']:.2f} GB and {here['more_GB']:.2f} GB more", flush=True)  # fmt: skip
        if options.against:
            there = results[case]["there"] = run(case, options.against.resolve())
            ratios = {name: there[name] / here[name] for name in ("jacobian_s", "gram_s", "cholesky_s", "step_s")}
            print("    ratios: " + ", ".join(f"{name[:-2]} {ratio:.2f}" for name, ratio in ratios.items()), flush=True)
    if results:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
