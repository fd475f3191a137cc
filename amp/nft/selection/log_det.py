"""Choose forces whose labels tell most together: the largest log determinant of a posterior covariance."""

from __future__ import annotations

import numpy as np


def by_log_det(covariance_mcc: np.ndarray, k: int) -> list[int]:
    """Choose atoms one after the other, each telling most beyond those before it.

    Parameters
    ----------
    covariance_mcc : ndarray, shape (models, 3 atoms, 3 atoms)
        Covariance of the force components on the atoms, in units of the variance of a label, of each model.
    k : int

    Returns
    -------
    list of int
        In the order of selection; all atoms if there are no more than `k`. It maximises log det(1 + covariance) greedily.
    """
    rest_mcc = np.array(covariance_mcc, dtype=float)
    left = list(range(rest_mcc.shape[1] // 3))
    chosen: list[int] = []
    while left and len(chosen) < k:
        gains = [np.linalg.slogdet(np.eye(3) + rest_mcc[:, 3 * a : 3 * a + 3, 3 * a : 3 * a + 3])[1].mean() for a in left]
        best = left.pop(int(np.argmax(gains)))
        chosen.append(best)
        here = slice(3 * best, 3 * best + 3)
        of_all = rest_mcc[:, :, here]
        rest_mcc -= of_all @ np.linalg.solve(np.eye(3) + rest_mcc[:, here, here], of_all.transpose(0, 2, 1))
    return chosen
