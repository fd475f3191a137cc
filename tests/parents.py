"""Parents that misbehave around chosen atoms: EMT otherwise. Workers import them from here."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import FileIOCalculator
from ase.calculators.emt import EMT
from ase.optimize import BFGS

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
        if "target_atom" not in atoms.info:  # a first image, which a run compares with its stored label
            return super().calculate(atoms, *args, **kwargs)
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
    """Return a parent in a directory of its own, which it uses."""
    assert os.path.isdir(directory)
    calculator = Misbehaving(**settings)
    Path(directory, "output.txt").write_text(directory)
    return calculator


def parent(**settings):
    """Return a factory of such parents that travels."""
    return partial(build, **settings)


def _sort(calculator, atoms):
    order = np.argsort(atoms.positions[:, 0])[::-1]
    calculator.atoms = atoms[order]
    calculator.results["forces"] = calculator.results["forces"][order]


def _relax(calculator, atoms):
    relaxed = atoms.copy()
    relaxed.calc = EMT()
    BFGS(relaxed, logfile=os.devnull).run(fmax=0.0, steps=2)
    calculator.results = dict(relaxed.calc.results)
    calculator.atoms = relaxed.copy()


CHANGES = {
    "sorts": _sort,
    "relaxes": _relax,
    "moves": lambda calculator, atoms: atoms.positions.__iadd__([0.01, 0, 0]),
    "wraps": lambda calculator, atoms: atoms.set_positions(atoms.get_scaled_positions() % 1.0 @ atoms.cell),
    "strains": lambda calculator, atoms: atoms.set_cell(1.01 * atoms.cell),
    "opens": lambda calculator, atoms: atoms.set_pbc(not atoms.pbc.all()),
    "replaces": lambda calculator, atoms: atoms.numbers.__setitem__(0, 79),
}
RESULTS = {
    "complex energy": ("energy", lambda energy: complex(energy)),
    "boolean energy": ("energy", lambda energy: True),
    "energy of each atom": ("energy", lambda energy: np.full(4, energy / 4)),
    "energy in words": ("energy", lambda energy: f"{energy} eV"),
    "no energy": ("energy", lambda energy: np.array(None)),
    "infinite energy": ("energy", lambda energy: np.inf),
    "masked energy": ("energy", lambda energy: np.ma.masked_array(energy, mask=True)),
    "complex forces": ("forces", lambda forces: forces.astype(complex)),
    "boolean forces": ("forces", lambda forces: forces > 0),
    "forces in words": ("forces", lambda forces: forces.astype(str)),
    "transposed forces": ("forces", lambda forces: forces.T),
    "forces of one atom": ("forces", lambda forces: forces[0]),
    "not a number in the forces": ("forces", lambda forces: np.where(forces == forces.max(), np.nan, forces)),
    "absurd forces": ("forces", lambda forces: 1e9 * forces),
}


class Changing(EMT):
    """EMT that changes the atoms, or a result, or has a `converged`; around `atoms` only, if these are given."""

    def __init__(self, way="", atoms=None, **attributes):
        super().__init__()
        self.way, self.where = way, atoms
        vars(self).update(attributes)

    def calculate(self, atoms=None, *args, **kwargs):
        super().calculate(atoms, *args, **kwargs)
        if self.where is not None and atoms.info.get("target_atom") not in self.where:
            return
        if self.way in CHANGES:
            CHANGES[self.way](self, atoms)
        elif self.way in RESULTS:
            name, change = RESULTS[self.way]
            self.results[name] = change(self.results[name])


def changing(directory, **settings):
    """Return a factory of such parents that travels."""
    return Changing(**settings)


class Program(FileIOCalculator):
    """A program that reads and writes files: EMT in a process of its own kind, which takes `seconds`."""

    implemented_properties = ("energy", "forces")

    def __init__(self, seconds=0.0, command="cp input.json output.json", **settings):
        super().__init__(command=f"sleep {seconds}; {command}; sleep {seconds}", **settings)

    def write_input(self, atoms, properties=None, system_changes=None):
        super().write_input(atoms, properties, system_changes)
        Path(self.directory, "input.json").write_text(json.dumps([atoms.numbers.tolist(), atoms.positions.tolist(), atoms.cell.tolist()]))

    def read_results(self):
        numbers, positions, cell = json.loads(Path(self.directory, "output.json").read_text())
        atoms = Atoms(numbers, positions, cell=cell, pbc=True)
        atoms.calc = EMT()
        self.results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}


class Uncopyable(EMT):
    """EMT with a lock, as a calculator that talks to a server has."""

    start = None

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()

    def calculate(self, *args, **kwargs):
        super().calculate(*args, **kwargs)
        if self.start:
            self.start()


def switching(directory):
    """Return a factory whose body changes: with a file `switch` it returns EMT with another cutoff."""
    return EMT(asap_cutoff=True) if Path("switch").exists() else EMT()


class Panic(BaseException):
    """An exception that `except Exception` does not catch, as a panic in Rust code is."""

    def __str__(self):
        raise RuntimeError("no words")


def _turn_off(*_):
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})


DISTURBANCES = {
    "directory": lambda: os.chdir("/"),
    "removed directory": lambda: (os.makedirs("gone"), os.chdir("gone"), os.rmdir("../gone")),
    "umask": lambda: os.umask(0o777),
    "environment": lambda: (os.environ.update(NEW="1", HOME="/nowhere"), os.environ.pop("PATH")),
    "signal handlers": lambda: [signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)],
    "signal mask": _turn_off,
    "alarm": lambda: (signal.signal(signal.SIGALRM, signal.SIG_DFL), signal.alarm(1)),
    "wakeup descriptor": lambda: signal.set_wakeup_fd(-1),
    "streams": lambda: setattr(sys, "stdout", open(os.devnull, "w")),
    "NumPy errors": lambda: np.seterr(all="raise"),
}
EXCEPTIONS = {
    "a panic": Panic,
    "cancelled": asyncio.CancelledError,
    "the end of a generator": GeneratorExit,
    "the end of an iterator": StopIteration,
    "exit": SystemExit,
    "no memory": MemoryError,
    "recursion": RecursionError,
}


def _note(pid, path):
    with open(path, "a") as file:
        file.write(f"{pid}\n")


def _leave_a_fork(path):
    pid = os.fork()
    if pid == 0:
        while True:
            time.sleep(1)
    _note(pid, path)


def _leave_a_program(command, path, **how):
    """Start a program and forget it, once the shell in which it runs has written its number."""
    _left.append(subprocess.Popen(["sh", "-c", command.format(path=path)], **how))
    while not (Path(path).exists() and Path(path).read_text().endswith("\n")):
        time.sleep(0.01)


_left = []  # Python warns of programs that are forgotten while they run
PROGRAMS = {
    "a program": partial(_leave_a_program, "echo $$ >> {path}; exec sleep 600"),
    "a program in a session": partial(_leave_a_program, "echo $$ >> {path}; exec sleep 600", start_new_session=True),
    "a program without environment": partial(_leave_a_program, "echo $$ >> {path}; exec sleep 600", env={"PATH": os.environ["PATH"]}),
    "a program of a program": partial(_leave_a_program, "sleep 600 & echo $! >> {path}; wait"),
    "a detached program": partial(_leave_a_program, "setsid sleep 600 & echo $! >> {path}"),
    "a program that ignores SIGTERM": partial(_leave_a_program, "trap '' TERM; echo $$ >> {path}; sleep 600; sleep 600"),
    "a fork": _leave_a_fork,
}


class Disturbing(EMT):
    """EMT that changes the state of its process, raises, forks, prints or leaves programs running, around `atoms`."""

    def __init__(self, way, atoms=(), path=None, seconds=0.0):
        super().__init__()
        self.way, self.where, self.path, self.seconds = way, atoms, path, seconds

    def calculate(self, atoms=None, *args, **kwargs):
        super().calculate(atoms, *args, **kwargs)
        if atoms.info.get("target_atom") not in self.where:
            return
        if self.way in DISTURBANCES:
            DISTURBANCES[self.way]()
            time.sleep(self.seconds * (1 + atoms.info["target_atom"] % 2))
        elif self.way in EXCEPTIONS:
            raise EXCEPTIONS[self.way]
        elif self.way in PROGRAMS:
            PROGRAMS[self.way](self.path)
        elif self.way == "a program and a kill":
            PROGRAMS["a program"](self.path)
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.way == "forks":
            os.fork()
        elif self.way == "interrupts":
            raise KeyboardInterrupt
        elif self.way == "prints":
            print("\x1b[2J\x1b]0;title\x07done")


def disturbing(directory, **settings):
    """Return a factory of such parents that travels."""
    return Disturbing(**settings)
