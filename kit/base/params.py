"""The parameters of a notebook, read without running it, and values typed for them.

A notebook keeps its knobs in one cell tagged `parameters`, a line each:

    epochs: int = 5  # passes over the training rows (1 to 1000)

Name, type, default, comment and range all come from that line.
"""

import ast
import io
import json
import math
import re
import tokenize
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.base import checks
from kit.base.numbers import short

TAG = "parameters"
SCALARS = {"int": int, "float": float, "str": str, "bool": bool}
TRUE, FALSE = {"true", "yes", "1", "on"}, {"false", "no", "0", "off"}
NONE = {"none", "null", ""}
Value = bool | int | float | str | list | None


@dataclass(frozen=True)
class Parameter:
    """One line of the `parameters` cell."""

    name: str
    type: str  # as written, such as "int | None"
    default: Value
    comment: str = ""
    low: float = -math.inf
    high: float = math.inf

    def parse(self, text: str) -> Value:
        """Turn what was typed after `name=` into a value of this parameter's type.

        Args:
            text: as typed on a command line; lists as `1,2,3` or as JSON.

        Raises:
            ValueError: the text does not fit the type, or the value is out of range.

        Example:
            >>> Parameter("lr", "float | None", 0.1).parse("1e-3")
            0.001
        """
        value = self._typed(text)
        if not self.within(value):
            raise checks.bad_value(
                "kit report",
                expected=f"{self.name} {self._range()}",
                got=checks.Described(text),
                remedy=f"Type: -p {self.name}={typeable(self.default)}",
            )
        return value

    def within(self, value: Value) -> bool:
        """Tell whether all numbers of a value lie in the parameter's range."""
        items = value if isinstance(value, list) else [value]
        return all(self.low <= item <= self.high for item in items if isinstance(item, int | float))

    def _typed(self, text: str) -> Value:
        outer, inner, optional = _split_type(self.type)
        if optional and text.strip().lower() in NONE:
            return None
        try:
            if outer == "list":
                return [_scalar(item, inner) for item in _items(text)]
            return _scalar(text, outer)
        except (ValueError, RecursionError):
            raise checks.bad_value(
                "kit report",
                expected=f"{self.name} of type {self.type}",
                got=checks.Described(repr(text)),
                remedy=f"Type: -p {self.name}={typeable(self.default)}",
            ) from None

    def _range(self) -> str:
        if math.isinf(self.high):
            return f"of {short(self.low)} or more"
        return f"from {short(self.low)} to {short(self.high)}"


def read(notebook: str | Path | Mapping) -> list[Parameter]:
    """Read the parameters of a notebook from its source; nothing of it is executed.

    Args:
        notebook: a path to an .ipynb file, or its content as nbformat gives it.

    Returns:
        One `Parameter` a line, in the order of the cell; none without such a cell.

    Raises:
        ValueError: no notebook, a line of the cell that is not `name: type = literal`, a type
            that is unknown, or a default that does not fit it.
    """
    content = notebook if isinstance(notebook, Mapping) else _content(Path(notebook))
    for cell in content["cells"]:
        if TAG in cell["metadata"].get("tags", []):
            return from_source("".join(cell["source"]))
    return []


def from_source(source: str) -> list[Parameter]:
    """Read the parameters from the source of a `parameters` cell.

    Example:
        >>> from_source("rows: int | None = None  # rows to read (1 or more)")[0].low
        1.0
    """
    try:
        body = ast.parse(source).body
    except SyntaxError as error:
        line = (error.text or "").strip()
        raise _bad(
            "lines of Python", f"`{line}` in line {error.lineno}", "Move it to the next cell."
        ) from None
    comments = _comments(source)
    return [_parameter(node, comments) for node in body]


def parse_all(pairs: Sequence[str], known: Sequence[Parameter]) -> dict[str, Value]:
    """Turn `name=value` texts into a dictionary of typed values.

    Raises:
        ValueError: a text without `=`, a name that is not known, a value that does not fit.

    Example:
        >>> parse_all(["epochs=3"], [Parameter("epochs", "int", 5)])
        {'epochs': 3}
    """
    by_name = {parameter.name: parameter for parameter in known}
    values = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        name = name.strip()
        if not equals:
            raise checks.bad_value(
                "kit report",
                expected="name=value after -p",
                got=checks.Described(repr(pair)),
                remedy=f"Type: -p {pair}=…",
            )
        if name not in by_name:
            raise checks.unknown_name("kit report", "parameter", got=name, known=by_name)
        values[name] = by_name[name].parse(text)
    return values


def _content(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {"cells": content["cells"]}
    except (OSError, ValueError, TypeError, KeyError) as error:
        why = error.strerror if isinstance(error, OSError) else "not a notebook of format 4"
        raise _bad("a notebook", f"'{path}' ({why})", "Check the path.") from None


def _parameter(node: ast.stmt, comments: Mapping[int, str]) -> Parameter:
    if not (
        isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and node.value is not None
    ):
        line = ast.unparse(node).splitlines()[0]
        remedy = "Move other code to the next cell."
        raise _bad("lines of the form `name: type = literal`", f"`{line}`", remedy)
    name, kind = node.target.id, ast.unparse(node.annotation)
    outer, inner, optional = _split_type(kind)
    try:
        default = ast.literal_eval(node.value)
    except (ValueError, TypeError):
        got, remedy = f"`{ast.unparse(node.value)}`", "Compute it in the next cell."
        raise _bad(f"a literal as the default of {name}", got, remedy) from None
    comment = comments.get(node.end_lineno or node.lineno, "")
    parameter = Parameter(name, kind, default, comment, *_limits(comment))
    items = default if outer == "list" and isinstance(default, list) else [default]
    is_list = isinstance(default, list) == (outer == "list")
    if not ((default is None and optional) or (is_list and _all_are(items, inner or outer))):
        remedy = f"Write for example `{name}: {kind} = {_example(outer, inner)}`."
        raise _bad(f"a default of {name} of type {kind}", repr(default), remedy)
    if not parameter.within(default):
        raise _bad(f"a default of {name} {parameter._range()}", repr(default), "Change one.")
    return parameter


def _all_are(items: list[Any], kind: str) -> bool:
    if kind == "float":
        return all(type(item) in (int, float) and math.isfinite(item) for item in items)
    return all(type(item) is SCALARS[kind] for item in items)


def _example(outer: str, inner: str) -> str:
    such = {"int": "5", "float": "0.1", "str": '"a"', "bool": "True"}[inner or outer]
    return f"[{such}]" if outer == "list" else such


def _bad(expected: str, got: str, remedy: str) -> ValueError:
    return checks.bad_value(
        "params.read", expected=expected, got=checks.Described(got), remedy=remedy
    )


def _comments(source: str) -> dict[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.strip("# ") for t in tokens if t.type == tokenize.COMMENT}


def _limits(comment: str) -> tuple[float, float]:
    """Read "(1 to 1,000)" and "(1 or more)" out of a comment."""
    number = r"(-?(?:\d[\d_,]*(?:\.\d+)?|\.\d+)(?:e[+-]?\d+)?)"
    if both := re.search(rf"\({number} to {number}\)", comment):
        return _number(both[1]), _number(both[2])
    if least := re.search(rf"\({number} or more\)", comment):
        return _number(least[1]), math.inf
    return -math.inf, math.inf


def _number(text: str) -> float:
    return float(text.replace(",", "").replace("_", ""))


def _split_type(kind: str) -> tuple[str, str, bool]:
    """Split "list[float] | None" into ("list", "float", True)."""
    parts = [part.strip() for part in kind.split("|")]
    optional = "None" in parts
    names = [part for part in parts if part != "None"]
    match = re.fullmatch(r"(list)\[(\w+)\]|(\w+)", names[0]) if len(names) == 1 else None
    outer, inner = (match[1] or match[3], match[2] or "") if match else ("", "")
    if (inner or outer) not in SCALARS:
        expected = "int, float, str, bool, list[…] of one of these, or any of them | None"
        raise _bad(expected, kind, "Write for example `lr: float = 0.001`.")
    return outer, inner, optional


def _scalar(text: object, kind: str) -> Value:
    """Turn text, or an item of a JSON list, into a value of a kind; ValueError if it is none."""
    if not isinstance(text, str | int | float):
        raise ValueError(text)  # null, or a list in the list
    if kind == "bool":
        word = str(text).strip().lower()
        if word not in TRUE | FALSE:
            raise ValueError(text)
        return word in TRUE
    if kind == "int":
        return int(str(text))
    if kind == "str":
        return str(text)
    value = float(str(text))
    if not math.isfinite(value):  # JSON has no word for it
        raise ValueError(text)
    return value


def _items(text: str) -> list:
    if text.lstrip().startswith("["):
        return json.loads(text)
    return [item.strip() for item in text.split(",")] if text.strip() else []


def typeable(value: Value) -> str:
    """Write a value the way that it is typed after `name=`; `Parameter.parse` reads it back.

    Example:
        >>> typeable([0.1, 0.2]), typeable(["a,b"]), typeable(None)
        ('0.1,0.2', '["a,b"]', 'None')
    """
    if not isinstance(value, list):
        return str(value)
    items = [str(item) for item in value]
    text = ",".join(items)
    # words for None, brackets, commas and blanks would be read otherwise: these go as JSON
    is_plain = text.lower() not in NONE and text.lstrip()[:1] != "[" and _items(text) == items
    return text if is_plain else json.dumps(value, ensure_ascii=False)
