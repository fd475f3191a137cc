"""Rules of the project that a test can check: import levels, length of functions and modules, packages in the API reference."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "amp" / "nft"
SOURCES = sorted(PACKAGE.rglob("*.py"))

ROW = re.compile(r"^   \* - (\d)\n     - (\w+)$", re.MULTILINE)
LEVELS = {package: int(level) for level, package in ROW.findall((ROOT / "CONTRIBUTING.rst").read_text(encoding="utf-8"))}
KERNEL_LEVELS = {
    "second_compiler": 0, "threads": 0, "cheaper": 1, "compilation": 1, "jit": 2, "simd": 3, "fingerprints": 4, "training": 4,
    "prediction": 5, "first_use": 6,
}  # fmt: skip
MAY_IMPORT_AMP = {"amp_io", "inputs", "training"}
MAX_FUNCTION, MAX_MODULE = 60, 320
MAX_LEVELS, MAX_PACKAGES = 7, 22


def package_of(path):
    """Return the top-level name under amp.nft that a source file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def level_of(package):
    """Import level of a package, from the table in CONTRIBUTING.rst."""
    assert package in LEVELS, f"amp.nft.{package} has no import level: add a row to the table in CONTRIBUTING.rst"
    return LEVELS[package]


def imports_of(path):
    """Dotted names that a file imports, anywhere in it; `from a import b` gives a.b."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write relative imports out: they may reach Amp's module"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def packages_imported(path):
    """Return packages of amp.nft that a file imports, except its own and `errors`, which lies below all."""
    names = (name.split(".") for name in imports_of(path))
    return {name[2] for name in names if name[:2] == ["amp", "nft"] and len(name) > 2} - {package_of(path), "errors"}


def length_of_body(function):
    """Lines of code in a function: neither its signature nor its docstring counts."""
    body = function.body[ast.get_docstring(function) is not None :]
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def length_of_module(text):
    """Lines of a module without the docstrings of its functions and classes."""
    documented = [
        node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node)
    ]
    docstrings = [node.body[0] for node in documented]
    return len(text.splitlines()) - sum(node.end_lineno - node.lineno + 1 for node in docstrings)


def label(path):
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", SOURCES, ids=label)
def test_imports_point_downward(path):
    level = level_of(package_of(path))
    upward = {package for package in packages_imported(path) if level_of(package) >= level}
    assert not upward, f"{label(path)} imports {sorted(upward)}, which is not on a lower level"


@pytest.mark.parametrize("path", [path for path in SOURCES if package_of(path) == "kernels"], ids=label)
def test_imports_inside_kernels_point_downward(path):
    own = path.relative_to(PACKAGE / "kernels").parts[0].removesuffix(".py")
    names = (name.split(".") for name in imports_of(path))
    imported = {name[3] for name in names if name[:3] == ["amp", "nft", "kernels"] and len(name) > 3} - {own}
    assert not {part for part in imported if KERNEL_LEVELS[part] >= KERNEL_LEVELS[own]}


def test_the_layout_stays_small():
    assert {package_of(path) for path in SOURCES} == set(LEVELS), "the table in CONTRIBUTING.rst names each package and no other"
    assert max(LEVELS.values()) <= MAX_LEVELS and len(LEVELS) - 1 <= MAX_PACKAGES  # errors is not counted


@pytest.mark.parametrize("path", SOURCES, ids=label)
def test_only_some_packages_import_amp_and_numba(path):
    names = [name.split(".") for name in imports_of(path)]
    if package_of(path) not in MAY_IMPORT_AMP:
        assert not [name for name in names if name[0] == "amp" and name[1:2] != ["nft"]], "imports Amp"
    if package_of(path) != "kernels":
        assert not [name for name in names if name[0] == "numba"], "imports numba"


@pytest.mark.parametrize("path", SOURCES, ids=label)
def test_nothing_is_too_long(path):
    text = path.read_text(encoding="utf-8")
    assert length_of_module(text) <= MAX_MODULE
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    assert not [function.name for function in functions if length_of_body(function) > MAX_FUNCTION]


def test_the_package_has_sources_and_leaves_amps_packages_alone():
    assert SOURCES
    assert not (ROOT / "amp" / "__init__.py").exists()
    assert not (PACKAGE / "__init__.py").exists()
    assert all((folder / "__init__.py").exists() for folder in {path.parent for path in SOURCES} - {PACKAGE})


@pytest.mark.parametrize("package", sorted({package_of(path) for path in SOURCES}))
def test_every_package_is_in_the_reference(package):
    lines = (ROOT / "docs" / "api.rst").read_text(encoding="utf-8").splitlines()
    assert f".. automodule:: amp.nft.{package}" in lines, f"add amp.nft.{package} to docs/api.rst"
