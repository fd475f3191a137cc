"""Parents that misbehave around chosen atoms: EMT otherwise. Workers import them from here."""

import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

from ase.calculators.emt import EMT

SPOILS = {
    "raise": lambda: (_ for _ in ()).throw(RuntimeError("SCF failed")),
    "exit": lambda: sys.exit("Fatal error in MPI_Init"),
    "hang": lambda: time.sleep(600),
    "pause": lambda: time.sleep(0.5),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
}


class Misbehaving(EMT):
    """EMT that does `what` around `atoms`; `once`, a path, makes it behave from then on; `log` counts labels."""

    def __init__(self, what=None, atoms=(), once=None, log=None, seconds=0.0):
        super().__init__()
        self.what, self.where, self.once, self.log, self.seconds = what, atoms, once, log, seconds

    def calculate(self, atoms=None, *args, **kwargs):
        time.sleep(self.seconds)
        here = atoms.info["target_atom"] in self.where
        if here and not (self.once and Path(self.once).exists()):
            if self.once:
                Path(self.once).touch()
            SPOILS[self.what]()
        super().calculate(atoms, *args, **kwargs)
        if self.log:
            with open(self.log, "a") as file:
                file.write(f"{atoms.info['target_atom']}\n")


def build(directory, **settings):
    """A parent in a directory of its own, which it uses."""
    assert os.path.isdir(directory)
    calculator = Misbehaving(**settings)
    Path(directory, "output.txt").write_text(directory)
    return calculator


def parent(**settings):
    """A factory of such parents that travels."""
    return partial(build, **settings)
