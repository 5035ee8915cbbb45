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

from kit.base import checks

TAG = "parameters"
SCALARS = {"int": int, "float": float, "str": str, "bool": bool}
TRUE, FALSE = {"true", "yes", "1", "on"}, {"false", "no", "0", "off"}
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
        items = value if isinstance(value, list) else [value]
        numbers = [item for item in items if isinstance(item, int | float)]
        if not all(self.low <= number <= self.high for number in numbers):
            raise checks.bad_value(
                "kit report",
                expected=f"{self.name} {self._range()}",
                got=checks.Described(text),
                remedy=f"Type: -p {self.name}={_typeable(self.default)}",
            )
        return value

    def _typed(self, text: str) -> Value:
        outer, inner, optional = _split_type(self.type)
        if optional and text.strip().lower() in {"none", "null", ""}:
            return None
        try:
            if outer == "list":
                return [_scalar(item, inner) for item in _items(text)]
            return _scalar(text, outer)
        except ValueError:
            raise checks.bad_value(
                "kit report",
                expected=f"{self.name} of type {self.type}",
                got=checks.Described(repr(text)),
                remedy=f"Type: -p {self.name}={_typeable(self.default)}",
            ) from None

    def _range(self) -> str:
        if math.isinf(self.high):
            return f"of {self.low:g} or more"
        return f"from {self.low:g} to {self.high:g}"


def read(notebook: str | Path | Mapping) -> list[Parameter]:
    """Read the parameters of a notebook from its source; nothing of it is executed.

    Args:
        notebook: a path to an .ipynb file, or its content as nbformat gives it.

    Returns:
        One `Parameter` a line, in the order of the cell; none without such a cell.

    Raises:
        ValueError: a line of the cell is not `name: type = literal`, or the type is unknown.
    """
    content = notebook
    if not isinstance(notebook, Mapping):
        content = json.loads(Path(notebook).read_text(encoding="utf-8"))
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
    comments = _comments(source)
    return [_parameter(node, comments) for node in ast.parse(source).body]


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


def _parameter(node: ast.stmt, comments: Mapping[int, str]) -> Parameter:
    shaped = (
        isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and node.value is not None
    )
    if not shaped:
        raise checks.bad_value(
            "params.read",
            expected="lines of the form `name: type = literal`",
            got=checks.Described(f"`{ast.unparse(node)}`"),
            remedy="Move other code to the next cell.",
        )
    kind = ast.unparse(node.annotation)
    _split_type(kind)
    try:
        default = ast.literal_eval(node.value)
    except ValueError:
        raise checks.bad_value(
            "params.read",
            expected=f"a literal as the default of {node.target.id}",
            got=checks.Described(f"`{ast.unparse(node.value)}`"),
            remedy="Compute it in the next cell.",
        ) from None
    comment = comments.get(node.end_lineno or node.lineno, "")
    low, high = _limits(comment)
    return Parameter(node.target.id, kind, default, comment, low, high)


def _comments(source: str) -> dict[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}


def _limits(comment: str) -> tuple[float, float]:
    number = r"(-?[\d_.]+(?:e-?\d+)?)"
    if both := re.search(rf"\({number} to {number}\)", comment):
        return float(both[1]), float(both[2])
    if least := re.search(rf"\({number} or more\)", comment):
        return float(least[1]), math.inf
    return -math.inf, math.inf


def _split_type(kind: str) -> tuple[str, str, bool]:
    """Split "list[float] | None" into ("list", "float", True)."""
    parts = [part.strip() for part in kind.split("|")]
    optional = "None" in parts
    names = [part for part in parts if part != "None"]
    match = re.fullmatch(r"(list)\[(\w+)\]|(\w+)", names[0]) if len(names) == 1 else None
    outer, inner = (match[1] or match[3], match[2] or "") if match else ("", "")
    if (inner or outer) not in SCALARS:
        raise checks.bad_value(
            "params.read",
            expected="int, float, str, bool, list[…] of one of these, or any of them | None",
            got=checks.Described(kind),
            remedy="Write for example `lr: float = 0.001`.",
        )
    return outer, inner, optional


def _scalar(text: object, kind: str) -> Value:
    if kind == "bool":
        word = str(text).strip().lower()
        if word not in TRUE | FALSE:
            raise ValueError(text)
        return word in TRUE
    if kind == "int":
        return int(str(text).replace("_", ""))
    value = SCALARS[kind](text)
    if isinstance(value, float) and not math.isfinite(value):  # JSON has no word for it
        raise ValueError(text)
    return value


def _items(text: str) -> list:
    if text.lstrip().startswith("["):
        return json.loads(text)
    return [item.strip() for item in text.split(",")] if text.strip() else []


def _typeable(value: Value) -> str:
    """Write a default the way that it would be typed."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
