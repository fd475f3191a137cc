"""Choose rows or columns of a matrix, one after the other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

SAME = 1e-9  # of the largest singular value: a smaller one is not a separate direction


def farthest_points(x: np.ndarray, k: int) -> list[int]:
    """Choose rows one after the other, each the farthest from those before it; the first is the farthest from the mean.

    Parameters
    ----------
    x : ndarray, shape (rows, columns)
    k : int

    Returns
    -------
    list of int
    """
    from skmatter.sample_selection import FPS  # 2 s with scikit-learn: only where it is needed

    first = int(np.argmax(((x - x.mean(axis=0)) ** 2).sum(axis=1)))
    if k == 1:
        return [first]
    return [int(row) for row in FPS(n_to_select=k, initialize=first).fit(_at_least_two_columns(x)).selected_idx_]


def cur(x: np.ndarray, k: int) -> list[int]:
    """Choose rows one after the other, each with the largest part in the leading singular vector of the rest.

    Parameters
    ----------
    x : ndarray, shape (rows, columns)
    k : int
        Where it is above the rank of `x`, the selection starts again among the remaining rows.

    Returns
    -------
    list of int
    """
    from skmatter.sample_selection import CUR  # 2 s with scikit-learn: only where it is needed

    left = np.arange(len(x))
    chosen: list[int] = []
    while len(chosen) < k:
        rest = _at_least_two_columns(x[left])
        rank = int(np.linalg.matrix_rank(rest, tol=SAME * np.linalg.norm(x, 2)))
        found: list[int] = []
        if rank > 1:
            selector = CUR(n_to_select=min(k - len(chosen), rank - 1)).fit(rest)
            found, rest = [int(row) for row in selector.selected_idx_], selector.X_current_
        if len(found) < k - len(chosen):  # one direction is left, or none
            lengths = (rest**2).sum(axis=1)
            lengths[found] = -1.0
            found.append(int(np.argmax(lengths)))
        chosen += [int(row) for row in left[found]]
        left = np.delete(left, found)
    return chosen


METHODS: dict[str, Callable[[np.ndarray, int], list[int]]] = {"fps": farthest_points, "cur": cur}


def by_correlation(x: np.ndarray, y: np.ndarray, k: int) -> list[int]:
    """Choose columns one after the other, each correlating most with `y` once those before it are projected out.

    Parameters
    ----------
    x : ndarray, shape (rows, columns)
    y : ndarray, shape (rows,)
    k : int

    Returns
    -------
    list of int
    """
    chosen: list[int] = []
    x, left = np.array(x, dtype=float), list(range(x.shape[1]))
    y = y - y.mean()
    for _ in range(k):
        columns = x[:, left] - x[:, left].mean(axis=0)
        norms = np.linalg.norm(columns, axis=0) * np.linalg.norm(y)
        with np.errstate(invalid="ignore", divide="ignore"):
            correlations = np.abs(y @ columns) / norms
        column = left.pop(int(np.argmax(np.nan_to_num(correlations, nan=-1.0))))
        chosen.append(column)
        direction = x[:, column] / max(np.linalg.norm(x[:, column]), SAME)
        x[:, left] -= np.outer(direction, direction @ x[:, left])
    return chosen


def _at_least_two_columns(x: np.ndarray) -> np.ndarray:
    """Add a column of zeros to a single one, which scikit-matter refuses; zeros change no distance and no projection."""
    return x if x.shape[1] > 1 else np.hstack([x, np.zeros_like(x)])
