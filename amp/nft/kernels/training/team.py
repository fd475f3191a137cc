"""Threads that work on one fit together, once there are fewer fits than threads."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from amp.nft.kernels.simd.tiles import GROUP
from amp.nft.kernels.threads import Threads
from amp.nft.kernels.training.loss import Problem, Scratch, fill_residuals, make_scratch

SHARE_FROM = 100_000  # elements of a Jacobian from which a fit is shared: below, threads would wait for most of the time
PARTS = 2  # for each thread, so that none waits long for the last one

Range = tuple[int, int]


class Private(NamedTuple):
    """Memory of one thread."""

    scratch: Scratch
    rows: np.ndarray
    strip: np.ndarray


class Team:
    """Threads that work on one fit, with memory for each.

    Parameters
    ----------
    problem : Problem
    weights : ndarray of int, shape (images,)
        Multiplicity of each image.
    scratch : Scratch
    work : Work
    threads : Threads
        Those that help while they have no fit of their own.

    Attributes
    ----------
    start : ndarray of int, shape (images + 2,)
        First residual of each image, and of the penalty, which counts as one more image; then the number of residuals.
    """

    def __init__(self, problem: Problem, weights: np.ndarray, scratch: Scratch, work: Any, threads: Threads) -> None:
        self._problem, self._weights, self._work, self._threads = problem, weights, work, threads
        self._scratch, self._free = scratch, [Private(scratch, work.rows, work.strip)]
        images = problem.data.images
        counts = np.where(weights > 0, images["has_energy"] + 3 * (images["last"] - images["force"]), 0)
        self.start = np.concatenate([[0], np.cumsum(counts), [len(work.root)]])
        self._large = len(work.root) * len(work.step) >= SHARE_FROM

    @property
    def helps(self) -> bool:
        """True if threads without a fit of their own should share this one now."""
        return self._large and self._threads.together > 1

    @property
    def parts(self) -> int:
        """Number of parts to divide work into."""
        return PARTS * self._threads.together

    def share(self, function: Callable[[Private, Any], Any], parts: Sequence) -> None:
        """Call `function(private, part)` for each part, with memory that no other thread uses meanwhile.

        Parameters
        ----------
        function : callable
        parts : sequence
        """

        def work(part: Any) -> None:
            """Work on one part."""
            try:
                private = self._free.pop()
            except IndexError:
                rows = self._work.rows if len(self._work.dual) else np.zeros_like(self._work.rows)
                private = Private(make_scratch(self._problem), rows, np.zeros_like(self._work.strip))
            try:
                function(private, part)
            finally:
                self._free.append(private)

        self._threads.share(work, parts)

    def fill_residuals(self, theta: np.ndarray, residual: np.ndarray) -> None:
        """Fill the residuals of the fit.

        Parameters
        ----------
        theta : ndarray, shape (parameters,)
        residual : ndarray
        """
        if not self.helps:
            fill_residuals(self._problem, theta, self._weights, self._scratch, residual)
            return
        end = len(self._weights)

        def fill(private: Private, part: Range) -> None:
            """Fill the residuals of some images."""
            some = slice(*part)
            data = self._problem.data._replace(images=self._problem.data.images[some])
            problem = self._problem._replace(data=data, overfit=self._problem.overfit if part[1] > end else 0.0)
            fill_residuals(problem, theta, self._weights[some], private.scratch, residual[self.start[part[0]] :])

        self.share(fill, self.ranges(0, end + 1))

    def ranges(self, first: int, last: int) -> list[Range]:
        """Return ranges of images with about as many residuals each.

        Parameters
        ----------
        first, last : int
            Images first <= i < last; the penalty counts as one more image.

        Returns
        -------
        list of (int, int)
        """
        wanted = np.linspace(self.start[first], self.start[last], self.parts + 1)
        bounds = first + np.searchsorted(self.start[first : last + 1], wanted)
        return _between([first, *bounds[1:-1], last])

    def columns(self, blocks: int) -> list[Range]:
        """Return ranges of block columns of an upper triangle with about equal areas, the widest first.

        Parameters
        ----------
        blocks : int

        Returns
        -------
        list of (int, int)
        """
        bounds = GROUP * np.rint(blocks / GROUP * np.sqrt(np.linspace(0.0, 1.0, self.parts + 1))).astype(int)
        return _between([*np.minimum(bounds[:-1], blocks), blocks])


def _between(bounds: Sequence[int]) -> list[Range]:
    """Return the ranges between different numbers."""
    return list(itertools.pairwise(sorted({int(bound) for bound in bounds})))
