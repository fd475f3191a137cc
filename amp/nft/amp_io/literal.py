"""Read the text of an ``.amp`` file as data: a walk over its syntax tree, nothing is ever run."""

from __future__ import annotations

import ast
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np

from amp.nft.errors import AmpFileError

MAX_CHARACTERS = 50_000_000
MAX_DEPTH = 40
_SHOWN = 60


def parse_literal(text: str) -> Any:
    """Return the value of a text that Amp's ``Parameters.tostring`` wrote.

    Amp itself reads such files with ``eval``. Here only plain data is understood: numbers, strings,
    None, booleans, tuples, lists, dictionaries, a minus sign, and calls of ``dict``, ``OrderedDict``,
    ``array``, ``matrix`` and NumPy's number types, with or without ``np.`` or ``numpy.`` before them.

    Parameters
    ----------
    text : str
        One Python expression.

    Returns
    -------
    object
        The value; strings that contain another such text stay strings.

    Raises
    ------
    AmpFileError
        The text is too long, nested too deeply, not an expression, or contains anything else; the message
        names the expression and its place.
    """
    if not isinstance(text, str):
        raise AmpFileError(f"expected the text of an .amp file, found {type(text).__name__}")
    if len(text) > MAX_CHARACTERS:
        raise AmpFileError(f"{len(text)} characters, more than the {MAX_CHARACTERS} that an .amp file may have")
    return _Reader(text).value(_syntax_tree(text), depth=0)


def _syntax_tree(text: str) -> ast.expr:
    """Return the expression in `text`."""
    try:
        return ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        where = f"line {error.lineno}, column {error.offset}"
        raise AmpFileError(f"not a complete Amp text ({error.msg} at {where}); is it cut off?") from None
    except (ValueError, MemoryError, RecursionError) as error:
        raise AmpFileError(f"not an Amp text: {str(error) or 'nested too deeply'}") from None


class _Reader:
    """Converter of the nodes of one text's syntax tree into values."""

    def __init__(self, text: str) -> None:
        self.text = text.strip()
        self.kinds: dict[type, Callable[[Any, int], Any]] = {
            ast.Constant: self._constant,
            ast.UnaryOp: self._minus,
            ast.Tuple: lambda node, depth: tuple(self._items(node.elts, depth)),
            ast.List: lambda node, depth: self._items(node.elts, depth),
            ast.Dict: self._dict,
            ast.Call: self._call,
        }

    def value(self, node: ast.expr, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise self.refusal(node, f"more than {MAX_DEPTH} levels of nesting")
        kind = self.kinds.get(type(node))
        if kind is None:
            raise self.refusal(node, f"{type(node).__name__} where only plain data may stand")
        return kind(node, depth + 1)

    def refusal(self, node: ast.expr, what: str) -> AmpFileError:
        snippet = ast.get_source_segment(self.text, node) or ""
        if len(snippet) > _SHOWN:
            snippet = snippet[:_SHOWN] + "..."
        return AmpFileError(f"{what}: {snippet!r} at line {node.lineno}, column {node.col_offset + 1}")

    def _items(self, nodes: list[ast.expr], depth: int) -> list[Any]:
        return [self.value(node, depth) for node in nodes]

    def _constant(self, node: ast.Constant, depth: int) -> Any:
        if node.value is None or isinstance(node.value, str | int | float):
            return node.value
        raise self.refusal(node, f"a {type(node.value).__name__} where only plain data may stand")

    def _minus(self, node: ast.UnaryOp, depth: int) -> Any:
        number = node.operand.value if isinstance(node.operand, ast.Constant) else None
        if isinstance(node.op, ast.USub) and isinstance(number, int | float) and type(number) is not bool:
            return -number
        raise self.refusal(node, "an operation where only a number may stand")

    def _dict(self, node: ast.Dict, depth: int) -> dict[Any, Any]:
        keys = [key for key in node.keys if key is not None]
        if len(keys) < len(node.values):
            raise self.refusal(node, "** in a dictionary")
        return self._pairs(node, zip(self._items(keys, depth), self._items(node.values, depth), strict=True))

    def _pairs(self, node: ast.expr, pairs: Any) -> dict[Any, Any]:
        try:
            return dict(pairs)
        except (TypeError, ValueError) as error:
            raise self.refusal(node, f"no dictionary ({error})") from None

    def _call(self, node: ast.Call, depth: int) -> Any:
        name = self._called(node)
        if any(keyword.arg is None for keyword in node.keywords):
            raise self.refusal(node, "** in a call")
        if name in ("array", "matrix"):
            return self._array(node, self._only_argument(node, depth))
        if name in ("dict", "OrderedDict"):
            return self._mapping(node, depth)
        return self._number(node, self._only_argument(node, depth), name)

    def _called(self, node: ast.Call) -> str:
        function = node.func
        if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
            if function.value.id in ("np", "numpy") and function.attr in _NUMPY_NAMES:
                return function.attr
        elif isinstance(function, ast.Name) and function.id in _BARE_NAMES:
            return function.id
        raise self.refusal(node, "a call of something that is not data")

    def _only_argument(self, node: ast.Call, depth: int) -> Any:
        # repr adds a dtype to some arrays: its name carries nothing that the values do not
        dtypes = [keyword.arg == "dtype" and isinstance(keyword.value, ast.Name) for keyword in node.keywords]
        if len(node.args) != 1 or not all(dtypes):
            raise self.refusal(node, "not exactly one argument")
        return self.value(node.args[0], depth)

    def _array(self, node: ast.Call, value: Any) -> np.ndarray:
        try:
            return np.array(value, dtype=float)
        except (TypeError, ValueError) as error:
            raise self.refusal(node, f"no array of numbers ({error})") from None

    def _mapping(self, node: ast.Call, depth: int) -> dict[Any, Any]:
        if len(node.args) > 1:
            raise self.refusal(node, "more than one argument")
        pairs = self.value(node.args[0], depth) if node.args else {}
        result = self._pairs(node, pairs)
        result.update((keyword.arg, self.value(keyword.value, depth)) for keyword in node.keywords)
        return OrderedDict(result) if self._called(node) == "OrderedDict" else result

    def _number(self, node: ast.Call, value: Any, name: str) -> bool | int | float | str:
        if name == "str_" and isinstance(value, str):
            return value
        if name in ("bool_", "bool") and isinstance(value, bool):
            return value
        if name == "str_" or type(value) not in (int, float):
            raise self.refusal(node, f"no number in {name}")
        return float(value) if name.startswith("float") else int(value)


_NUMBERS = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "bool_", "bool", "str_")
_NUMPY_NAMES = ("array", "matrix", *_NUMBERS)
_BARE_NAMES = ("dict", "OrderedDict", "array", "matrix", "float64", "float32", "int64", "int32")
