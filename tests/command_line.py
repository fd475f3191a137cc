"""The program ``amp-nft`` for tests: a small input, and a call that checks the exit code."""

import sys
from pathlib import Path

import forked

PROGRAM = Path(sys.executable).with_name("amp-nft")
ENTRY = f"import sys; sys.argv[0] = {str(PROGRAM)!r}; from amp.nft.cli import main; sys.exit(main())"  # as in that file
SMALL = """
[system]
target = "target.traj"
images = "initial.traj"
[parent]
calculator = "ase.calculators.emt.EMT"
[chunks]
cutoff = 5.0
[ensemble]
members = 3
cutoff = 4.5
hiddenlayers = [3]
energy_rmse = 0.005
force_rmse = 0.02
force_maxresid = 0.2
maxiter = 60
[select]
fraction = 0.2
[stop]
delta = 1e-6
max_iterations = 1
"""


def amp_nft(*arguments, code=0, **options):
    """Return what the program writes to its two streams; its exit code must be `code`."""
    done = forked.run(ENTRY, *arguments, **options)
    assert done.returncode == code, done.stdout + done.stderr
    assert code == 4 or "Traceback" not in done.stderr  # 4 shows that of the parent
    return done.stdout, done.stderr
