"""Files that are whole or absent: atomic writes, and checkpoints without pickle."""

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kit.base import checks

FORMAT = 1  # of the JSON in a checkpoint's header


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Give a temporary path to write to; move it to `path` only when the block ends well.

    Args:
        path: the final name; its folder is made if it is missing.

    Yields:
        A path in the same folder. After an error nothing is left, and an old file stays as it was.

    Raises:
        OSError: the folder cannot be written, or the disk is full.

    Example:
        >>> from tempfile import mkdtemp
        >>> target = Path(mkdtemp()) / "a.txt"
        >>> with atomic(target) as part:
        ...     _ = part.write_text("whole")
        >>> target.read_text()
        'whole'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}.part")
    try:
        part.touch(exist_ok=False)
        if path.exists():
            part.chmod(path.stat().st_mode & 0o777)  # what was private stays so
        yield part
        _sync(part)
        part.replace(path)
        _sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all."""
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: object) -> None:
    """Write `value` to `path` as JSON, whole or not at all; NaN is refused, not written."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def save(path: str | Path, tensors: Mapping[str, Any], *, about: Mapping[str, Any]) -> None:
    """Write tensors and the JSON that describes them as one safetensors file.

    One file, not two: a crash can then never pair new weights with an old description.

    Args:
        path: the file, by custom `*.safetensors`.
        tensors: name -> torch tensor, on any device.
        about: what JSON can hold; it is kept in the file's header.

    Raises:
        TypeError: something that is no tensor, or that JSON cannot hold.
    """
    from safetensors.torch import save_file

    for name, tensor in tensors.items():
        if not hasattr(tensor, "detach"):
            expected, remedy = f"a tensor as {name!r}", "Leave it out, or put it into about=."
            raise checks.bad_type("storage.save", expected=expected, got=tensor, remedy=remedy)
    # copied: the format refuses tensors that share memory, as tied weights do
    whole = {
        name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()
    }
    header = {"format": str(FORMAT), "about": _json(about)}
    with atomic(path) as part:
        save_file(whole, part, metadata=header)


def load(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read what `save` wrote.

    Returns:
        The tensors by name, on the CPU, and the JSON that describes them.

    Raises:
        ValueError: the file is missing, damaged, or not one of ours.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise checks.bad_value(
            "storage.load", expected="a file", got=str(path), remedy="Check the path."
        )
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if header.get("format") != str(FORMAT):
            raise ValueError(f"format {header.get('format')}")
        about = json.loads(header["about"])
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise checks.bad_value(
            "storage.load",
            expected=f"a whole checkpoint of this kit, format {FORMAT}",
            got=checks.Described(f"{path.name} ({path.stat().st_size} bytes): {error}"),
            remedy="Delete the file, or restore it from a copy.",
        ) from None
    return tensors, about


def _json(about: Mapping[str, Any]) -> str:
    try:
        return json.dumps(about)
    except TypeError as error:
        raise checks.bad_type(
            "storage.save",
            expected="an about= that JSON can hold",
            got=checks.Described(str(error)),
            remedy="Turn arrays into lists and numbers of NumPy into int or float.",
        ) from None


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
