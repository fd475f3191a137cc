"""PEP 517 backend that builds Amp 1.0.1 from its own sdist, which pip fetches and checks against a hash."""

import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
SHA256 = "91c097930f71534bbd8cedc922ef35a2883ab2e10587e1e95c04ce23ad34233f"


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    """Have pip build the pinned sdist with our numpy.distutils in front of NumPy."""
    with tempfile.TemporaryDirectory() as scratch:
        pin = Path(scratch, "pin.txt")
        pin.write_text(f"amp-atomistics==1.0.1 --hash=sha256:{SHA256}\n", encoding="utf-8")
        options = ["--no-binary=amp-atomistics", "--require-hashes", "--no-deps", "--no-cache-dir"]
        # we are in a build environment already; a second one inside it would not see the interface
        options += ["--use-pep517", "--no-build-isolation", f"--wheel-dir={scratch}", f"--requirement={pin}"]
        command = [sys.executable, "-m", "pip", "wheel", "--verbose", *options]  # why Fortran was left out
        subprocess.run(command, env=environment(), stdout=sys.stderr, check=True)
        (wheel,) = Path(scratch).glob("*.whl")
        Path(wheel_directory, wheel.name).write_bytes(wheel.read_bytes())
        return wheel.name


def environment():
    """Our interface first on the path; without the variables by which the outer build is steered."""
    steering = ("_PYPROJECT_HOOKS", "PEP517_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(steering)}
    path = [str(HERE / "interface"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return kept | {"PYTHONPATH": os.pathsep.join(path), "PYTHONUTF8": "1", "AMP_RECIPE": str(HERE)}


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    """Return the metadata in pyproject.toml, so that a resolver need not build Amp to learn its dependencies."""
    project = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = Path(metadata_directory, f"amp_atomistics-{project['version']}.dist-info")
    info.mkdir()
    fields = ["Metadata-Version: 2.1", f"Name: {project['name']}", f"Version: {project['version']}"]
    fields += [f"Requires-Dist: {requirement}" for requirement in project["dependencies"]]
    (info / "METADATA").write_text("\n".join(fields) + "\n", encoding="utf-8")
    return info.name


def build_sdist(sdist_directory, config_settings=None):
    """Refuse: Amp's sdist is on the package index already."""
    raise NotImplementedError("this recipe builds wheels only; the sdist is on the package index")
