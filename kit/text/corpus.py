"""A corpus: documents of any source as two long rows of bytes, mapped from disk, not loaded."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Int64, UInt8

from kit.base import checks, progress, storage
from kit.base.results import Result, result
from kit.text import kin, sources
from kit.text.sources import WHERE, Source
from kit.text.tokens import END

FORMAT = 1  # of what is kept on disk
PARTS = ("train", "validation")


@result
class Corpus(Result):
    """Hold a corpus; `table` has one row a document: name, bytes, part."""

    train: UInt8[np.ndarray, " train_tokens"]  # a zero after every document
    validation: UInt8[np.ndarray, " validation_tokens"]
    sha256: str  # of all documents, in the order of their names
    n_kin: int  # documents that stay on one side with one that is nearly the same
    is_cut: bool  # one document alone: its end is the validation part

    def facts(self) -> dict[str, str]:
        """Return how many documents and bytes each part has, and what they are known by."""
        counts = self.table["part"].value_counts()
        parts = {
            part: f"{len(getattr(self, part)) / 1e6:,.2f} MB in {counts.get(part, 0):,} documents"
            for part in PARTS
        }
        split = "inside the one document" if self.is_cut else "by document"
        return parts | {"split": split, "kin": f"{self.n_kin:,}", "sha256": self.sha256[:12]}


def corpus(
    source: str | Path,
    *,
    column: str = "text",
    validation: float = 0.1,
    seed: int = 0,
    cache: str | Path | None = None,
) -> Corpus:
    """Gather documents and part them into training and validation, near duplicates together.

    What is gathered is kept in a folder and mapped from there, and the second call with the same
    files returns at once. One document at a time is in memory: 10 GB need no 10 GB of it, unless
    they are one document.

    Args:
        source: "code" (the Python source of networkx and sympy, which torch brings), a folder, a
            pattern such as "books/*.txt", or a file. Each file is a document; of .jsonl and
            .parquet, each row. Files that are no text, and hidden ones in folders, are left out.
        column: of .jsonl and .parquet, the one with the text.
        validation: fraction of all bytes, 0 < validation < 1.
        seed: of who goes where.
        cache: folder to keep it in; None is the user's cache, or $KIT_CACHE.

    Returns:
        Both parts as rows of bytes.

    Raises:
        ValueError: nothing there, no text in it, or a fraction out of range.

    Source:
        Lee et al.: Deduplicating Training Data Makes Language Models Better, 2022.
    """
    if not 0 < validation < 1:
        raise checks.bad_value(
            WHERE, expected="0 < validation < 1", got=validation, remedy="Pass validation=0.1."
        )
    found = sources.find(source, column)
    folder = (Path(cache) if cache else _cache()) / _key(found, column, validation, seed)
    if not (folder / "about.json").exists():
        _gather(found, folder, source=source, validation=validation, seed=seed)
    about = json.loads((folder / "about.json").read_text())
    return Corpus(
        table=pd.read_parquet(folder / "table.parquet"),
        train=np.memmap(folder / "train.bin", np.uint8, mode="r"),
        validation=np.memmap(folder / "validation.bin", np.uint8, mode="r"),
        **about,
    )


def _cache() -> Path:
    from platformdirs import user_cache_path

    return Path(os.environ.get("KIT_CACHE") or user_cache_path("modelcare")) / "text"


def _key(found: Sequence[Source], column: str, validation: float, seed: int) -> str:
    """Name what is gathered by all that decides it: the same files and settings, the same name."""
    files = []
    for each in found:
        stat = each.path.stat()
        files.append((str(each.path.resolve()), stat.st_size, stat.st_mtime_ns))
    told = json.dumps([FORMAT, column, validation, seed, files])
    return hashlib.sha256(told.encode()).hexdigest()[:20]


def _gather(
    found: Sequence[Source], folder: Path, *, source: str | Path, validation: float, seed: int
) -> None:
    table, sketches, sha256 = _sketched(found)
    if table["bytes"].sum() < 2:
        raise checks.bad_value(
            WHERE,
            expected="text",
            got=checks.Described(f"none in the {len(found):,} files of {source}"),
            remedy="Pass files of text, UTF-8 best.",
        )
    groups = kin.groups(sketches)
    is_cut = groups.max() == 0
    table["part"] = (
        "train" if is_cut else _parts(table["bytes"].to_numpy(), groups, validation, seed)
    )
    sizes = np.bincount(groups)
    about = {
        "sha256": sha256,
        "n_kin": int(sizes[sizes > 1].sum()) if not is_cut else 0,
        "is_cut": bool(is_cut),
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".gathering-") as name:
        part = Path(name)
        _write(found, table["part"], part)
        if is_cut:
            _cut(part, validation)
        table.to_parquet(part / "table.parquet")
        storage.write_json(part / "about.json", about)
        # the folder of a process that was faster stays: somebody may be reading from it
        if not (folder / "about.json").exists():
            shutil.rmtree(folder, ignore_errors=True)  # what a killed process left half
        try:
            part.replace(folder)
        except OSError:
            if not (folder / "about.json").exists():
                raise
        part.mkdir(exist_ok=True)


def _sketched(found: Sequence[Source]) -> tuple[pd.DataFrame, np.ndarray, str]:
    """Walk through all documents once: their sizes, their sketches, and the hash of all."""
    rows, sketches, whole = [], [], hashlib.sha256()
    for name, document in _documents(found, label="reading"):
        whole.update(document)
        whole.update(bytes([END]))
        rows.append((name, len(document)))
        sketches.append(kin.sketch(document))
    table = pd.DataFrame(rows, columns=["name", "bytes"])
    return table, np.array(sketches).reshape(-1, kin.HASHES), whole.hexdigest()


def _documents(found: Sequence[Source], *, label: str) -> Iterator[tuple[str, bytes]]:
    for each in progress.track(found, label=label):
        for number, document in enumerate(each.documents()):
            if document:
                yield (each.name if number == 0 else f"{each.name}:{number}"), document


def _parts(
    sizes: Int64[np.ndarray, " documents"],
    groups: Int64[np.ndarray, " documents"],
    validation: float,
    seed: int,
) -> np.ndarray:
    """Draw groups for validation until they have their share of the bytes."""
    weight = np.bincount(groups, sizes)
    order = np.random.default_rng(seed).permutation(len(weight))
    before = np.cumsum(weight[order]) - weight[order]
    drawn = order[before < validation * weight.sum()]
    drawn = drawn[: len(order) - 1]  # one at least is left to train on
    return np.where(np.isin(groups, drawn), "validation", "train")


def _write(found: Sequence[Source], parts: pd.Series, folder: Path) -> None:
    files = {part: (folder / f"{part}.bin").open("wb") for part in PARTS}
    try:
        documents = _documents(found, label="writing")
        for (_, document), part in zip(documents, parts, strict=True):
            files[part].write(document)
            files[part].write(bytes([END]))
    finally:
        for file in files.values():
            file.close()


def _cut(folder: Path, validation: float) -> None:
    """Move the end of what is to be trained on to the validation part, from a new line on."""
    size = (folder / "train.bin").stat().st_size
    at = int(size * (1 - validation))
    with (folder / "train.bin").open("r+b") as train, (folder / "validation.bin").open("wb") as end:
        train.seek(at)
        line = train.readline()
        at += len(line) if line.endswith(b"\n") else 0
        train.seek(at)
        shutil.copyfileobj(train, end)
        train.truncate(at)
