"""Sessions for contributors: ``uvx nox --list`` lists them, ``uvx nox -s docs`` runs one.

uv makes each session's environment from pyproject.toml and its groups, the build recipe for Amp included.
"""

import shutil
from pathlib import Path

import nox

ROOT = Path(__file__).parent
nox.needs_version = ">=2025.2"
nox.options.default_venv_backend = "uv"
nox.options.sessions = ["lint", "typing", "tests", "docs"]
nox.options.reuse_existing_virtualenvs = True

BENCHMARKS = (
    "evaluate", "fingerprints", "loss", "fit", "loop", "start", "distinct", "refinement", "labels", "faults", "peak", "lammps_mpi",
    "large", "alloy",
)  # fmt: skip


def install(session: nox.Session, *groups: str) -> None:
    """Install the project and groups of pyproject.toml into the session's environment."""
    chosen = [f"--group={group}" for group in groups]
    here = {"UV_PROJECT_ENVIRONMENT": session.virtualenv.location}
    session.run_install("uv", "sync", "--quiet", "--no-default-groups", *chosen, env=here)


@nox.session
def lint(session: nox.Session) -> None:
    """Run Ruff and codespell; ``-- --fix`` corrects what Ruff can correct."""
    install(session, "lint")
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", *([] if "--fix" in session.posargs else ["--check"]))
    session.run("codespell")


@nox.session
def typing(session: nox.Session) -> None:
    """Run mypy."""
    install(session, "lint")
    session.run("mypy", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the default tests, or those selected: ``-- -m slow``."""
    install(session, "dev")
    session.run("pytest", *session.posargs)


@nox.session(name="min-deps", python="3.11")
def min_deps(session: nox.Session) -> None:
    """Run the default tests with the lowest versions of the dependencies that pyproject.toml allows."""
    session.run_install("uv", "pip", "install", "--quiet", "--resolution=lowest-direct", "--group=dev", "--editable=.")
    # old releases use what newer ones of their own dependencies deprecate
    session.run("pytest", "-W", "ignore::DeprecationWarning", "-W", "ignore::PendingDeprecationWarning", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Measure the coverage of the default tests, except in kernels, which are compiled."""
    install(session, "dev")
    session.run("pytest", "--cov", "--cov-report=term-missing:skip-covered", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the pages in docs/_build, run the tutorial, and check docstrings."""
    install(session, "docs", "dev")
    session.run("sphinx-build", "-W", "--keep-going", "docs", "docs/_build", *session.posargs)
    session.run("pytest", "--quiet", "tests/project/test_docstrings.py")


@nox.session
@nox.parametrize("name", BENCHMARKS)
def benchmarks(session: nox.Session, name: str) -> None:
    """Run one benchmark, with its own options: ``-s "benchmarks(name='loss')" -- 26``."""
    install(session)
    session.run("python", f"benchmarks/{name}.py", *session.posargs)


@nox.session
def build(session: nox.Session) -> None:
    """Build sdist and wheel, and the sdist of the recipe for Amp, in dist/, and check what a package index would refuse."""
    session.install("twine")
    for old in (ROOT / "dist").glob("amp_nft*"):
        old.unlink()
    session.run("uv", "build", "--out-dir=dist", external=True)  # the wheel from the sdist
    session.run("uv", "build", "--sdist", "--out-dir=dist", "tools/amp-atomistics", external=True)
    session.run("twine", "check", "--strict", *map(str, sorted((ROOT / "dist").glob("amp_nft*"))))


@nox.session(requires=["build"], venv_backend="venv", reuse_venv=False)
def installed(session: nox.Session) -> None:
    """Install what is in dist/ as from a package index, into an empty environment, and make a run and its report there."""
    (wheel,) = (ROOT / "dist").glob("amp_nft-*.whl")
    session.install(f"--find-links={ROOT / 'dist'}", f"amp-nft=={wheel.name.split('-')[1]}")
    with session.chdir(session.create_tmp()):
        shutil.rmtree("al-training", ignore_errors=True)
        session.run("amp-nft", "--version")
        session.run("python", str(ROOT / "examples" / "documented.py"))
        session.run("amp-nft", "report")


@nox.session(requires=["build"])
def conda(session: nox.Session) -> None:
    """Build the conda packages of conda/recipe.yaml in dist/conda, with packages of conda-forge."""
    session.install("py-rattler-build")
    arguments = "['conda/recipe.yaml'], channel=['conda-forge'], output_dir='dist/conda'"
    session.run("python", "-c", f"import rattler_build; rattler_build.build_recipes({arguments})")


@nox.session(requires=["installed"])
def publish(session: nox.Session) -> None:
    """Upload what `installed` tested: in CI by trusted publishing; ``-- --dry-run`` uploads nothing."""
    session.run("uv", "publish", *session.posargs, *map(str, sorted((ROOT / "dist").glob("amp_nft*"))), external=True)
