"""Relax Pt1415 with the ensembles of learn.py, which saw Pt260 only.

python examples/paper/transfer.py [--seeds 5] [--small]
"""

from learn import directory
from relax import relax_with_ensembles
from workflow import load, options, pt1415


def main(seeds: int, small: bool) -> None:
    """Relax, print, plot."""
    load("learn")
    directories = [directory(seed) for seed in range(seeds)]
    relax_with_ensembles("transfer", pt1415(small), directories, "0.049", "0.023 at the minimum")


if __name__ == "__main__":
    main(**vars(options(__doc__)))
