"""Plain technical English: words that this project does not use, and docstrings that begin with a subject or a verb."""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORDS = (
    "dear", "dearer", "mend", "mends", "mended", "for ever", "anew", "come to rest", "comes to rest", "came to rest",
    "take up", "takes up", "taken up", "taking up", "took up", "without a word", "whole or not at all", "signs? of life",
    "could be had", "will do", "let go of", "lets go of", "speaks against", "house", "rooms?", "twins?", "blamed?", "bury", "buried",
    "die", "dies", "died", "yardstick", "is another", "may be others", "says of", "thinks of", "what came of", "what became of",
    "seldom", "whoever", "laxer", "now and then", "born",
)  # fmt: skip
FORBIDDEN = re.compile(r"\b(" + "|".join(WORDS).replace(" ", r"\s+") + r")\b", re.IGNORECASE)
OPENINGS = re.compile(r"(What|Where|Whether|How|Which|Whose|That|All that)\b")

OWN = "test_language.py"  # it contains the words
SOURCES = sorted(
    path for folder in ("amp", "benchmarks", "docs", "examples", "tests", "tools") for path in (ROOT / folder).rglob("*.py")
    if path.name != OWN and not {"_build", "_gallery", "tutorial"} & set(path.relative_to(ROOT).parts)
)  # fmt: skip
SOURCES += [ROOT / "noxfile.py", ROOT / "setup.py"]
PAGES = sorted((ROOT / "docs").glob("*.rst")) + sorted(ROOT.glob("*.rst")) + [ROOT / "pyproject.toml", ROOT / ".ci" / "run"]


def prose_of(path):
    """Return first lines and texts of the comments and strings of a Python file, or the whole of another file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return [(1, text)]
    kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    return [(token.start[0], token.string) for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.type in kinds]


def name_of(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", PAGES + SOURCES, ids=name_of)
def test_no_word_of_the_list(path):
    found = [
        f"{name_of(path)}:{line + text[: match.start()].count(chr(10))}: {match[0]!r}"
        for line, text in prose_of(path)
        for match in FORBIDDEN.finditer(text)
    ]
    assert not found, "use the plain term:\n" + "\n".join(found)


def docstrings_of(path):
    """Yield name and docstring of a module and of each class and function in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
            yield getattr(node, "name", "module"), text


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_docstring_opens_with_a_relative_clause(path):
    found = [f"{name}: {text.splitlines()[0]}" for name, text in docstrings_of(path) if OPENINGS.match(text)]
    assert not found, "begin with a verb (functions) or a noun:\n" + "\n".join(found)


def test_names_of_tests_use_no_word_of_the_list():
    names = [node.name.replace("_", " ") for path in SOURCES for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
             if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]  # fmt: skip
    assert names
    assert not [name for name in names if FORBIDDEN.search(name)]


@pytest.mark.parametrize("text", ["Labels are dear.", "The job died.", "it is taken\nup", "a sign of life"])
def test_the_words_are_found(text):
    assert FORBIDDEN.search(text)


@pytest.mark.parametrize("text", ["a deary twinning", "boredom", "the mendacious", "housekeeping"])
def test_words_are_whole(text):
    assert not FORBIDDEN.search(text)
