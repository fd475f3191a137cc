"""usage: fortran.py ANSWER MODULE SOURCE...   Compiles Fortran for Python; what to link goes to ANSWER."""

import json
import os
import re
import shutil
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

BUILD = Path("build", "fortran")


def compiler():
    """Return the Fortran compiler's path; without one the program ends with the reason."""
    if os.environ.get("AMP_NO_FORTRAN"):
        sys.exit("AMP_NO_FORTRAN is set")
    return shutil.which(os.environ.get("FC") or "gfortran") or sys.exit("no gfortran (or $FC) found")


def wrap(name, sources):
    """f2py's C sources and Fortran wrappers for the module `name`."""
    from numpy import f2py
    from numpy.f2py import f90mod_rules

    # Since NumPy 1.26 f2py gives Python no access to a Fortran module that another one uses.  Just those are
    # what Amp fills (images_props, fingerprint_props, model_props, neuralnetwork): hide the uses from f2py.
    f90mod_rules.getuseblocks = lambda module: []
    files = f2py.run_main(["-m", name, "--build-dir", str(BUILD), "--lower", *sources])[name]
    return files["csrc"], files.get("fsrc", [])


def modules_first(sources):
    """Return the sources in an order in which each finds the module files of those that it uses."""
    text = {source: Path(source).read_text(encoding="utf-8").lower() for source in sources}
    home = {name: s for s in sources for name in re.findall(r"^\s*module\s+(\w+)\s*$", text[s], re.M)}
    uses = {s: re.findall(r"^\s*use\s+(\w+)", text[s], re.M) for s in sources}
    used = {s: {home[name] for name in uses[s]} - {s} for s in sources}
    return list(TopologicalSorter(used).static_order())


def compile_all(fortran, sources):
    """One object file per source; `-J` puts the module files where `-I` finds them."""
    objects = [str(BUILD / (Path(source).name + ".o")) for source in sources]
    flags = ["-O3", "-funroll-loops", "-fPIC", f"-J{BUILD}", f"-I{BUILD}"]
    for source, target in zip(sources, objects, strict=True):
        subprocess.run([fortran, *flags, "-c", source, "-o", target], check=True)
    return objects


def runtime_folders(fortran):
    """Return the folders of libgfortran, which the C linker does not know."""
    names = ("libgfortran.so", "libgfortran.dylib", "libgfortran.a")
    answers = [subprocess.check_output([fortran, f"-print-file-name={name}"], text=True) for name in names]
    paths = [Path(answer.strip()) for answer in answers]
    return sorted({str(path.resolve().parent) for path in paths if path.is_absolute()})


def main(answer, module, *sources):
    """Compile, and write down what setuptools has to link."""
    fortran = compiler()
    import numpy
    from numpy import f2py

    BUILD.mkdir(parents=True, exist_ok=True)
    c_sources, wrappers = wrap(module.rpartition(".")[2], sources)
    arguments = {
        "sources": c_sources,
        "extra_objects": compile_all(fortran, modules_first([*sources, *wrappers])),
        "include_dirs": [numpy.get_include(), f2py.get_include()],
        "library_dirs": runtime_folders(fortran),
        "libraries": ["gfortran", "m"],
    }
    Path(answer).write_text(json.dumps(arguments), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
