"""PEP 517 backend that builds Amp 1.0.1 from its own sdist, which pip fetches and checks against a hash.

The wheel has the name of this project: a package index serves Amp's own sdist under Amp's name, and that does not build.
"""

import base64
import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
STEM = f"{PROJECT['name'].replace('-', '_')}-{PROJECT['version']}"
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
        return renamed(wheel, Path(wheel_directory)).name


def renamed(wheel, folder):
    """Write a copy of Amp's wheel with the name, version and dependencies of this project, and return its path."""
    stem = "-".join(wheel.name.split("-")[:2])
    target = folder / wheel.name.replace(stem, STEM, 1)
    record = []
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as copy:
        for entry in source.infolist():
            name, data = re.sub(rf"^{re.escape(stem)}(?=\.)", STEM, entry.filename), source.read(entry)
            if name == f"{STEM}.dist-info/RECORD":
                continue
            if name == f"{STEM}.dist-info/METADATA":
                data = metadata().encode()
            entry.filename = name
            copy.writestr(entry, data, zipfile.ZIP_DEFLATED)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record.append(f"{name},sha256={digest},{len(data)}\n")
        copy.writestr(f"{STEM}.dist-info/RECORD", "".join([*record, f"{STEM}.dist-info/RECORD,,\n"]))
    return target


def metadata():
    """Return the metadata in pyproject.toml and README.rst, as a wheel and an sdist contain them."""
    fields = [
        "Metadata-Version: 2.4",
        f"Name: {PROJECT['name']}",
        f"Version: {PROJECT['version']}",
        f"Summary: {PROJECT['description']}",
        f"License-Expression: {PROJECT['license']}",
        f"Requires-Python: {PROJECT['requires-python']}",
        *(f"Requires-Dist: {requirement}" for requirement in PROJECT["dependencies"]),
        *(f"Project-URL: {name}, {url}" for name, url in PROJECT["urls"].items()),
        "Description-Content-Type: text/x-rst",
    ]
    return "\n".join(fields) + "\n\n" + (HERE / PROJECT["readme"]).read_text(encoding="utf-8")


def environment():
    """Our interface first on the path; without the variables by which the outer build is steered."""
    steering = ("_PYPROJECT_HOOKS", "PEP517_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(steering)}
    path = [str(HERE / "interface"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return kept | {"PYTHONPATH": os.pathsep.join(path), "PYTHONUTF8": "1", "AMP_RECIPE": str(HERE)}


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    """Write the metadata, so that a resolver need not build Amp to learn its dependencies."""
    info = Path(metadata_directory, f"{STEM}.dist-info")
    info.mkdir()
    (info / "METADATA").write_text(metadata(), encoding="utf-8")
    return info.name


def build_sdist(sdist_directory, config_settings=None):
    """Write the recipe as an sdist; it contains no file of Amp."""
    with tarfile.open(Path(sdist_directory, f"{STEM}.tar.gz"), "w:gz", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(HERE.rglob("*")):
            if path.is_file() and path.suffix in {".py", ".toml", ".rst"}:
                archive.add(path, f"{STEM}/{path.relative_to(HERE).as_posix()}")
        entry = tarfile.TarInfo(f"{STEM}/PKG-INFO")
        entry.size = len(metadata().encode())
        archive.addfile(entry, io.BytesIO(metadata().encode()))
    return f"{STEM}.tar.gz"
