"""The rules of the house that a machine can hold: who imports whom, how long things get, what is documented."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HOUSE = ROOT / "amp" / "nft"
SOURCES = sorted(HOUSE.rglob("*.py"))

# Floors of the house, top first.  A room imports from the floors below its own, and from itself.
FLOORS = [
    {"__main__"},
    {"refinement", "report"},
    {"activelearner", "initialization"},
    {"training", "calculator", "monitor", "selection", "progress"},
    {"chunks"},
    {"labelpool"},
    {"amp_jobs", "labelling", "executors"},
    {"inprocess"},
    {"batched", "runstore", "uncertainty", "stopping"},
    {"amp_files"},
    {"calc_text"},
    {"amp_model"},
    {"amp_literal", "kernels", "orphans"},
    {"amp_texts", "features", "reports", "processes", "atomic", "runlog"},
]
MAY_IMPORT_AMP = {"activelearner", "refinement", "initialization", "runlog", "training", "amp_jobs", "amp_files", "calc_text"}
MAX_FUNCTION, MAX_MODULE = 60, 350


def room_of(path):
    """The top-level name under amp.nft that a source file belongs to."""
    return path.relative_to(HOUSE).parts[0].removesuffix(".py")


def floor_of(room):
    """Index of the room's floor; 0 is the top."""
    floors = [level for level, rooms in enumerate(FLOORS) if room in rooms]
    assert floors, f"amp.nft.{room} has no floor: add it to FLOORS in {__file__} and to the design"
    return floors[0]


def imports_of(path):
    """Dotted names that a file imports, anywhere in it; `from a import b` gives a.b."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write relative imports out: they may reach Amp's module"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_imported(path):
    """Rooms of amp.nft that a file imports, its own left out."""
    names = (name.split(".") for name in imports_of(path))
    return {name[2] for name in names if name[:2] == ["amp", "nft"] and len(name) > 2} - {room_of(path)}


def length_of_body(function):
    """Lines of code in a function: neither its signature nor its docstring counts."""
    body = function.body[ast.get_docstring(function) is not None :]
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def label(path):
    return str(path.relative_to(HOUSE))


@pytest.mark.parametrize("path", SOURCES, ids=label)
def test_imports_point_downward(path):
    floor = floor_of(room_of(path))
    upward = {room for room in rooms_imported(path) if floor_of(room) <= floor}
    assert not upward, f"{label(path)} imports {sorted(upward)}, which is not on a lower floor"


@pytest.mark.parametrize("path", SOURCES, ids=label)
def test_only_some_rooms_know_amp_and_numba(path):
    names = [name.split(".") for name in imports_of(path)]
    if room_of(path) not in MAY_IMPORT_AMP:
        assert not [name for name in names if name[0] == "amp" and name[1:2] != ["nft"]], "imports Amp"
    if room_of(path) != "kernels":
        assert not [name for name in names if name[0] == "numba"], "imports numba"


@pytest.mark.parametrize("path", SOURCES, ids=label)
def test_nothing_is_too_long(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_MODULE
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    assert not [function.name for function in functions if length_of_body(function) > MAX_FUNCTION]


def test_the_house_has_sources_and_leaves_amps_packages_alone():
    assert SOURCES
    assert not (ROOT / "amp" / "__init__.py").exists()
    assert not (HOUSE / "__init__.py").exists()
    assert all((folder / "__init__.py").exists() for folder in {path.parent for path in SOURCES} - {HOUSE})


@pytest.mark.parametrize("room", sorted({room_of(path) for path in SOURCES}))
def test_every_room_is_in_the_reference(room):
    lines = (ROOT / "docs" / "api.rst").read_text(encoding="utf-8").splitlines()
    assert f".. automodule:: amp.nft.{room}" in lines, f"add amp.nft.{room} to docs/api.rst"
