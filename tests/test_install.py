"""Ours lies over Amp: either order of installation, nothing shared, nothing left behind."""

import os
import subprocess
import sys
import sysconfig
import venv
from importlib.metadata import distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("amp/nft/**/*.py"))
WHICH = """
import amp, sys
from amp.nft.activelearner import NFT
print(amp.__file__, sys.modules[NFT.__module__].__file__)
"""


def run(*command, cwd=None):
    """Standard output of a command that must succeed."""
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def files_of_amp():
    return {file.as_posix(): file.locate() for file in distribution("amp-atomistics").files}


def test_no_path_is_shared_with_amp():
    assert OURS
    assert not set(OURS) & set(files_of_amp())


@pytest.mark.parametrize("cwd", [ROOT, None], ids=["repository root", "elsewhere"])
def test_a_script_finds_amp_installed_and_nft_ours(tmp_path, cwd):
    script = tmp_path / "run.py"
    script.write_text(WHICH, encoding="utf-8")
    amp, nft = run(sys.executable, script, cwd=cwd or tmp_path).split()
    assert Path(amp) == Path(files_of_amp()["amp/__init__.py"])
    assert Path(nft).parent.name == "activelearner"


def test_the_repository_root_on_the_path_does_not_hide_amp():
    amp, nft = run(sys.executable, "-c", WHICH, cwd=ROOT).split()    # -c and -m look in the working directory
    assert Path(amp) == Path(files_of_amp()["amp/__init__.py"])
    assert Path(nft).parent.name == "activelearner"


class Environment:
    """A new virtual environment; what is not installed in it, such as NumPy, it takes from ours."""

    def __init__(self, folder):
        venv.create(folder, with_pip=True, symlinks=os.name != "nt")
        self.python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        self.site = Path(sysconfig.get_path("platlib", vars=dict.fromkeys(["base", "platbase"], str(folder))))
        (self.site / "borrowed.pth").write_text(sysconfig.get_path("platlib"), encoding="utf-8")

    def pip(self, *arguments):
        return run(self.python, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments)

    def install(self, *what):
        self.pip("install", "--no-deps", *what)

    def where(self, folder):
        """Files of amp and of the module that defines NFT, as a script in another folder finds them."""
        (folder / "run.py").write_text(WHICH, encoding="utf-8")
        return [Path(path) for path in run(self.python, folder / "run.py", cwd=folder).split()]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """Amp's wheel and ours, as pip builds them."""
    folder = tmp_path_factory.mktemp("wheels")
    builder = Environment(tmp_path_factory.mktemp("builder"))
    for project in (ROOT / "tools" / "amp-atomistics", ROOT):
        builder.pip("wheel", "--no-deps", f"--wheel-dir={folder}", project)
    (amp,), (ours,) = folder.glob("amp_atomistics-*.whl"), folder.glob("amp_nft-*.whl")
    return {"amp": amp, "ours": ours}


@pytest.mark.slow
@pytest.mark.parametrize("order", [("amp", "ours"), ("ours", "amp")], ids=" first, then ".join)
def test_either_order_then_uninstall_gives_amp_back(tmp_path, wheels, order):
    pure = Environment(tmp_path / "pure")
    pure.install(wheels["amp"])
    both = Environment(tmp_path / "both")
    for name in order:
        both.install(wheels[name])

    amp, nft = both.where(tmp_path)
    assert amp == both.site / "amp" / "__init__.py"
    assert nft.is_relative_to(both.site / "amp" / "nft" / "activelearner")

    both.pip("uninstall", "--yes", "amp-nft")
    assert contents(both.site / "amp") == contents(pure.site / "amp")
    assert both.where(tmp_path)[1] == both.site / "amp" / "nft" / "activelearner.py"


def contents(folder):
    """Every file under a folder but compiled ones, with its bytes."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.slow
def test_an_editable_install_finds_every_module_in_the_source_tree(tmp_path, wheels):
    environment = Environment(tmp_path / "editable")
    environment.install("--editable", ROOT)
    environment.install(wheels["amp"])

    modules = [path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in OURS]
    script = "import sys, importlib\nfor name in sys.argv[1:]: print(importlib.import_module(name).__file__)"
    found = run(environment.python, "-c", script, *modules, cwd=tmp_path).splitlines()
    assert [Path(path) for path in found] == [ROOT / path for path in OURS]
    assert environment.where(tmp_path)[0] == environment.site / "amp" / "__init__.py"
