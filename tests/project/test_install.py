"""Ours lies over Amp: either order of installation, nothing shared, nothing left behind."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from importlib.metadata import distribution, version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("amp/nft/**/*.py"))
TYPED = "amp/nft/py.typed"
WHICH = """
import amp, sys
from amp.nft.activelearner import NFT
print(amp.__file__, sys.modules[NFT.__module__].__file__, sep="\\n")
"""


def run(*command, cwd=None):
    """Return standard output of a command that must succeed."""
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def files_of_amp():
    return {file.as_posix(): file.locate() for file in distribution("amp-nft-amp").files}


def test_no_path_is_shared_with_amp():
    assert OURS
    assert not {*OURS, TYPED} & set(files_of_amp())


@pytest.mark.parametrize("cwd", [ROOT, None], ids=["repository root", "elsewhere"])
def test_a_script_finds_amp_installed_and_nft_ours(tmp_path, cwd):
    script = tmp_path / "run.py"
    script.write_text(WHICH, encoding="utf-8")
    amp, nft = run(sys.executable, script, cwd=cwd or tmp_path).splitlines()
    assert Path(amp) == Path(files_of_amp()["amp/__init__.py"])
    assert Path(nft).parent.name == "activelearner"


def test_the_repository_root_on_the_path_does_not_hide_amp():
    # -c and -m look in the working directory first
    amp, nft = run(sys.executable, "-c", WHICH, cwd=ROOT).splitlines()
    assert Path(amp) == Path(files_of_amp()["amp/__init__.py"])
    assert Path(nft).parent.name == "activelearner"


def test_all_that_names_a_version_names_the_same():
    ours = version("amp-nft")
    assert re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)[1] == ours
    assert json.loads((ROOT / ".zenodo.json").read_text(encoding="utf-8"))["version"] == ours
    recipe = (ROOT / "conda" / "recipe.yaml").read_text(encoding="utf-8")
    assert re.search(r'^  version: "(.+)"$', recipe, re.MULTILINE)[1] == ours
    assert re.search(r'^  amp_version: "(.+)"$', recipe, re.MULTILINE)[1] == version("amp-nft-amp")
    changes = (ROOT / "CHANGELOG.rst").read_text(encoding="utf-8")
    assert re.search(r"^(\d\S*) - .+\n=+$", changes, re.MULTILINE)[1] == ours, "the changelog begins with this version"


class Environment:
    """A new virtual environment, served by the pip of another one."""

    def __init__(self, folder, pip):
        venv.create(folder, symlinks=os.name != "nt")
        self.python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        self.site = Path(sysconfig.get_path("platlib", vars=dict.fromkeys(["base", "platbase"], str(folder))))
        self._pip = [*pip, "--python", self.python, "--disable-pip-version-check", "--quiet"]

    def pip(self, *arguments):
        run(*self._pip, *arguments)

    def run(self, *arguments, cwd):
        """Run Python, lent what Amp and we depend on; pip must not see it, or it would find Amp installed."""
        loan = self.site / "borrowed.pth"
        loan.write_text(sysconfig.get_path("platlib"), encoding="utf-8")
        try:
            return run(self.python, *arguments, cwd=cwd).splitlines()
        finally:
            loan.unlink()

    def where(self, folder):
        """Files of amp and of the module that defines NFT, as a script in another folder finds them."""
        (folder / "run.py").write_text(WHICH, encoding="utf-8")
        return [Path(path) for path in self.run(folder / "run.py", cwd=folder)]


@pytest.fixture(scope="module")
def pip(tmp_path_factory):
    """Return the command line of a pip; an environment made by uv has none."""
    folder = tmp_path_factory.mktemp("pip")
    venv.create(folder, with_pip=True, symlinks=os.name != "nt")
    return [folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python"), "-m", "pip"]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory, pip):
    """Amp's wheel and ours, as pip builds them."""
    folder = tmp_path_factory.mktemp("wheels")
    for project in (ROOT / "tools" / "amp-atomistics", ROOT):
        run(*pip, "wheel", "--quiet", "--no-deps", f"--wheel-dir={folder}", project)
    (amp,), (ours,) = folder.glob("amp_nft_amp-*.whl"), folder.glob("amp_nft-*.whl")
    return {"amp": amp, "ours": ours}


@pytest.mark.slow
def test_the_wheel_contains_each_module_and_the_mark_of_types(wheels):
    assert {name for name in members(wheels["ours"]) if name.startswith("amp/")} == {*OURS, TYPED}


@pytest.mark.slow
@pytest.mark.parametrize("order", [("amp", "ours"), ("ours", "amp")], ids=" first, then ".join)
def test_either_order_then_uninstall_gives_amp_back(tmp_path, pip, wheels, order):
    pure, both = Environment(tmp_path / "pure", pip), Environment(tmp_path / "both", pip)
    pure.pip("install", "--no-deps", wheels["amp"])
    for name in order:
        both.pip("install", "--no-deps", wheels[name])

    amp, nft = both.where(tmp_path)
    assert amp == both.site / "amp" / "__init__.py"
    assert nft.is_relative_to(both.site / "amp" / "nft" / "activelearner")

    both.pip("uninstall", "--yes", "amp-nft")
    assert contents(both.site / "amp") == contents(pure.site / "amp")
    assert both.where(tmp_path)[1] == both.site / "amp" / "nft" / "activelearner.py"


@pytest.mark.slow
def test_pip_builds_amp_from_the_sdist_of_the_recipe(tmp_path, pip, wheels):
    """As a user of a package index: the wheel of this package names its dependency, whose sdist holds no file of Amp."""
    run(sys.executable, "-c", f"import recipe; recipe.build_sdist({str(tmp_path)!r})", cwd=ROOT / "tools" / "amp-atomistics")
    (sdist,) = tmp_path.glob("amp_nft_amp-*.tar.gz")
    with tarfile.open(sdist) as file:
        assert not [name for name in file.getnames() if "/amp/" in name]
    environment = Environment(tmp_path / "user", pip)
    environment.pip("install", "--no-deps", f"--find-links={tmp_path}", "amp-nft-amp", wheels["ours"])
    (needed,) = [line for line in metadata_of(wheels["ours"]) if line.startswith("Requires-Dist: amp-")]
    assert needed == "Requires-Dist: amp-nft-amp~=1.0.1"
    amp, nft = environment.where(tmp_path)
    assert amp == environment.site / "amp" / "__init__.py"
    assert nft.is_relative_to(environment.site / "amp" / "nft" / "activelearner")
    environment.pip("uninstall", "--yes", "amp-nft", "amp-nft-amp")
    assert not contents(environment.site / "amp")


@pytest.mark.slow
def test_an_editable_install_finds_every_module_in_the_source_tree(tmp_path, pip, wheels):
    environment = Environment(tmp_path / "editable", pip)
    environment.pip("install", "--no-deps", "--editable", ROOT, wheels["amp"])

    modules = [path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in OURS]
    script = "import sys, importlib\nfor name in sys.argv[1:]: print(importlib.import_module(name).__file__)"
    found = environment.run("-c", script, *modules, cwd=tmp_path)
    assert [Path(path) for path in found] == [ROOT / path for path in OURS]
    assert environment.where(tmp_path)[0] == environment.site / "amp" / "__init__.py"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("uv") is None, reason="needs uv, which builds the source distribution")
def test_the_source_distribution_makes_the_same_wheel(tmp_path, pip, wheels):
    run("uv", "build", "--quiet", "--sdist", f"--out-dir={tmp_path}", ROOT)
    (sdist,) = tmp_path.glob("amp_nft-*.tar.gz")
    run(*pip, "wheel", "--quiet", "--no-deps", f"--wheel-dir={tmp_path}", sdist)
    (wheel,) = tmp_path.glob("amp_nft-*.whl")
    assert members(wheel) == members(wheels["ours"])


def members(wheel):
    """Every file in a wheel with its bytes, but the record of their hashes."""
    with zipfile.ZipFile(wheel) as file:
        return {name: file.read(name) for name in file.namelist() if not name.endswith("RECORD")}


def metadata_of(wheel):
    """Lines of the metadata of a wheel."""
    (text,) = [data for name, data in members(wheel).items() if name.endswith(".dist-info/METADATA")]
    return text.decode().splitlines()


def contents(folder):
    """Every file under a folder but compiled ones, with its bytes."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
