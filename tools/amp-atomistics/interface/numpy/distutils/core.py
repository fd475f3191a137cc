"""`Extension` and `setup` as numpy.distutils offered them, on setuptools, f2py and gfortran."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import setuptools

RECIPE = Path(os.environ["AMP_RECIPE"])


@dataclass
class Extension:
    """An extension module to be made of Fortran sources."""

    name: str
    sources: list[str]


def setup(ext_modules=(), **keywords):
    """setuptools.setup, with every Fortran extension compiled first when a wheel is being built."""
    wheel_wanted = "bdist_wheel" in sys.argv  # Amp's setup.py also runs for its metadata alone
    compiled = [compiled_extension(extension) for extension in ext_modules] if wheel_wanted else []
    return setuptools.setup(ext_modules=[extension for extension in compiled if extension], **keywords)


def compiled_extension(extension):
    """Return the extension in C and object files, or None where Fortran cannot be compiled."""
    with tempfile.TemporaryDirectory() as scratch:
        answer = Path(scratch, "extension.json")
        command = [sys.executable, str(RECIPE / "fortran.py"), str(answer), extension.name]
        if subprocess.run([*command, *extension.sources], env=real_numpy()).returncode == 0:
            arguments = json.loads(answer.read_text(encoding="utf-8"))
            return setuptools.Extension(extension.name, optional=True, **arguments)
    print(f"amp-nft-amp: {extension.name} is LEFT OUT; Amp runs in Python, slowly", file=sys.stderr)
    return None


def real_numpy():
    """Return the environment without this interface, so that `import numpy` is NumPy again."""
    path = os.environ["PYTHONPATH"].split(os.pathsep)
    kept = [entry for entry in path if Path(entry).resolve() != RECIPE / "interface"]
    return os.environ | {"PYTHONPATH": os.pathsep.join(kept)}
