"""Corpora: found in packages, folders, patterns and tables, split by document, kept on disk."""

import json
import sys
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kit import text
from kit.text import kin, sources

WORDS = np.array([f"word{i}" for i in range(400)])


def story(seed: int, n: int = 200) -> str:
    return " ".join(np.random.default_rng(seed).choice(WORDS, n)) + "\n"


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "books"
    for i in range(10):
        (made / "deep").mkdir(parents=True, exist_ok=True)
        (made / ("deep" if i % 2 else ".") / f"{i}.txt").write_text(story(i))
    return made


def gathered(source, tmp_path, **told):
    return text.corpus(source, cache=tmp_path / "cache", **told)


def parts(corpus) -> dict[str, list[str]]:
    return {
        part: bytes(getattr(corpus, part)).decode().split("\0")[:-1]
        for part in ("train", "validation")
    }


# ---- where documents come from


def test_the_code_that_torch_brings_is_the_same_everywhere(tmp_path):
    corpus = gathered("code", tmp_path)

    # of networkx 3.6.1 and sympy 1.14.0, as requirements.lock has them
    assert corpus.sha256 == "4e70c678626051dc906c05fbce7b8ba0f0720866a25a9af462be3701ba95f994"
    assert len(corpus.table) == 2008
    assert 32e6 < len(corpus.train) + len(corpus.validation) < 33e6
    assert b"def " in bytes(corpus.train[:100_000])


def test_every_document_of_a_folder_is_in_one_part_whole(folder, tmp_path):
    found = parts(gathered(folder, tmp_path, validation=0.3))

    assert sorted(found["train"] + found["validation"]) == sorted(story(i) for i in range(10))
    assert len(found["validation"]) == 3


def test_a_pattern_a_file_of_json_lines_and_parquet_give_the_same_documents(folder, tmp_path):
    stories = [story(i) for i in range(10)]
    (tmp_path / "all.jsonl").write_text(
        "\n".join(json.dumps({"body": each, "n": 1}) for each in stories) + "\n\n"
    )
    pd.DataFrame({"body": [*stories, None]}).to_parquet(tmp_path / "all.parquet")

    by_pattern = gathered(f"{folder}/**/*.txt", tmp_path)
    tables = [
        gathered(tmp_path / f"all.{kind}", tmp_path, column="body") for kind in ("jsonl", "parquet")
    ]

    for corpus in (by_pattern, *tables):
        found = parts(corpus)
        assert sorted(found["train"] + found["validation"]) == sorted(stories)
    assert tables[0].sha256 == tables[1].sha256
    assert tables[0].table["name"].tolist()[:2] == ["all.jsonl", "all.jsonl:1"]


def test_what_is_no_text_and_what_is_hidden_is_left_out(folder, tmp_path):
    (folder / "picture.bin").write_bytes(bytes(range(256)) * 10)
    (folder / ".secret").write_text("hidden")
    (folder / "empty.txt").write_text("")

    assert len(gathered(folder, tmp_path).table) == 10


# ---- the split


@given(st.integers(0, 1000))
def test_near_duplicates_meet_in_one_group_and_others_do_not(seed):
    words = story(seed, 300).split()
    changed = [*words[:150], "another", *words[151:]]
    stories = [" ".join(words), " ".join(changed), story(seed + 1, 300), story(seed + 2, 300)]

    found = kin.groups(np.array([kin.sketch(each.encode()) for each in stories]))

    assert found[0] == found[1]
    assert len(set(found)) == 3


def test_the_share_of_common_hashes_is_the_share_of_common_runs_of_words():
    words = story(0, 2000).split()
    other = [*words[:1000], *story(1, 1000).split()]
    runs = [{tuple(each[i : i + kin.RUN]) for i in range(len(each) - 4)} for each in (words, other)]
    jaccard = len(runs[0] & runs[1]) / len(runs[0] | runs[1])

    one, two = (kin.sketch(" ".join(each).encode()) for each in (words, other))

    assert (one == two).mean() == pytest.approx(
        jaccard, abs=3 * (jaccard * (1 - jaccard) / 64) ** 0.5
    )


@given(st.lists(st.sampled_from(["a ", "bc\n", "longer ", "\t"]), max_size=40))
def test_a_sketch_in_blocks_is_that_of_the_whole(words):
    document = "".join(words).encode()
    whole = kin.sketch(document)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(kin, "BLOCK", 5)
        assert np.array_equal(kin.sketch(document), whole)


def test_one_large_file_is_in_memory_once(tmp_path):
    (tmp_path / "one.txt").write_text("".join(story(i % 50, 2000) for i in range(500)))
    size = (tmp_path / "one.txt").stat().st_size

    tracemalloc.start()
    corpus = gathered(tmp_path / "one.txt", tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert len(corpus.train) + len(corpus.validation) == size + 1
    assert peak < size + 30e6  # all of its words would take ten times its size


@pytest.mark.parametrize("seed", range(8))
def test_kin_stay_on_one_side(folder, tmp_path, seed):
    for i in range(10):
        (folder / f"copy of {i}.txt").write_text(story(i).replace("word7 ", "word8 "))

    corpus = gathered(folder, tmp_path, seed=seed, validation=0.4)

    side = {name.split("/")[-1]: part for name, part in corpus.table[["name", "part"]].to_numpy()}
    assert all(side[f"{i}.txt"] == side[f"copy of {i}.txt"] for i in range(10))
    assert corpus.n_kin == 20
    assert set(side.values()) == {"train", "validation"}


def test_one_document_alone_is_cut_at_a_line_and_that_is_said(tmp_path):
    (tmp_path / "one.txt").write_text("".join(f"line {i}\n" for i in range(1000)))

    corpus = gathered(tmp_path / "one.txt", tmp_path, validation=0.2)

    assert bytes(corpus.validation).startswith(b"line ")
    assert bytes(corpus.train).endswith(b"\n")
    assert len(corpus.validation) == pytest.approx(0.2 * 8890, rel=0.05)
    assert corpus.facts()["split"] == "inside the one document"


# ---- kept on disk


def test_a_second_call_reads_nothing_again_and_a_changed_file_is_seen(
    folder, tmp_path, monkeypatch
):
    first = gathered(folder, tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(kin, "sketch", lambda _: pytest.fail("read again"))
        again = gathered(folder, tmp_path)
    (folder / "0.txt").write_text(story(99))

    changed = gathered(folder, tmp_path)

    assert isinstance(again.train, np.memmap)
    assert bytes(again.train) == bytes(first.train)
    assert changed.sha256 != first.sha256


def test_what_a_killed_process_left_half_is_gathered_anew(folder, tmp_path):
    whole = bytes(gathered(folder, tmp_path).train)
    (kept,) = (tmp_path / "cache").iterdir()
    (kept / "about.json").unlink()
    (kept / "train.bin").write_bytes(b"half")

    assert bytes(gathered(folder, tmp_path).train) == whole


# ---- tokens


@given(st.text())
def test_a_text_comes_back_from_its_tokens(words):
    assert text.decode(text.encode(words)) == words


def test_windows_are_drawn_from_the_tokens_and_the_next_token_is_the_target():
    tokens = (np.arange(1000) % 256).astype(np.uint8)

    x, y = text.windows(tokens, context=16, batch=64, seed=0, step=3)
    again, _ = text.windows(tokens, context=16, batch=64, seed=0, step=3)
    other, _ = text.windows(tokens, context=16, batch=64, seed=0, step=4)

    assert x.shape == y.shape == (64, 16)
    assert torch.equal(y, (x + 1) % 256)
    assert torch.equal(x, again)
    assert not torch.equal(x, other)


def test_the_last_window_may_be_drawn():
    x, y = text.windows(np.arange(5, dtype=np.uint8), context=4, batch=2, seed=0, step=0)

    assert x.tolist() == [[0, 1, 2, 3]] * 2
    assert y.tolist() == [[1, 2, 3, 4]] * 2


# ---- bad input


def refused(source, tmp_path, **told) -> str:
    with pytest.raises(ValueError) as error:
        gathered(source, tmp_path, **told)
    return str(error.value)


def test_bad_sources_are_told(tmp_path):
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\n{"text": \n')
    (tmp_path / "list.jsonl").write_text("[1]\n")
    (tmp_path / "number.jsonl").write_text('{"text": 1, "body": "a"}\n')
    (tmp_path / "bad.parquet").write_text("no parquet")
    pd.DataFrame({"n": [1]}).to_parquet(tmp_path / "numbers.parquet")
    (tmp_path / "only.bin").write_bytes(b"\0\1\2" * 100)

    told = {
        name: refused(tmp_path / name, tmp_path).removeprefix("text.corpus: expected ")
        for name in (
            *("missing.txt", "nothing", "bad.jsonl", "list.jsonl", "number.jsonl", "bad.parquet"),
            *("numbers.parquet", "only.bin"),
        )
    }

    mend, column = "Mend the file, or leave it out.", 'Pass the name of the column: column="body".'
    assert told == {
        "missing.txt": f'"code", a folder, a file or a pattern that fits files, got '
        f"'{tmp_path}/missing.txt' (str). Check the path, or pass \"code\".",
        "nothing": f"text, got none in the 0 files of {nothing}. Pass files of text, UTF-8 best.",
        "bad.jsonl": f"a JSON object a line in bad.jsonl, got line 2 that is none. {mend}",
        "list.jsonl": "text in the column 'text' in list.jsonl, "
        f"got the columns none in line 1. {column}",
        "number.jsonl": "text in the column 'text' in number.jsonl, "
        f"got the columns 'text', 'body' in line 1. {column}",
        "bad.parquet": f"a Parquet file in bad.parquet, got something else. {mend}",
        "numbers.parquet": "text in the column 'text' in numbers.parquet, "
        f"got the columns 'n' in its schema. {column}",
        "only.bin": f"text, got none in the 1 files of {tmp_path}/only.bin. "
        "Pass files of text, UTF-8 best.",
    }


def test_other_bad_input_is_told(folder, tmp_path, monkeypatch):
    assert refused(folder, tmp_path, validation=1.0) == (
        "text.corpus: expected 0 < validation < 1, got 1.0 (float). Pass validation=0.1."
    )
    with pytest.raises(ValueError) as short:
        text.windows(np.zeros(5, np.uint8), context=5, batch=1, seed=0, step=0)
    assert str(short.value) == (
        "text.windows: expected 6 tokens or more, a context and one, got 5. "
        "Pass a longer text or a shorter context."
    )
    with pytest.raises(ValueError) as byte:
        text.decode(torch.tensor([256]))
    assert str(byte.value) == (
        "text.decode: expected tokens from 0 to 255, got 256 (int). "
        "Decode what a model of bytes has made."
    )
    monkeypatch.setattr(sources, "CODE", ("no_such_package",))
    assert refused("code", tmp_path).startswith(
        "text.corpus: expected the package no_such_package, whose source is a part of the corpus"
    )


def test_a_process_that_gathers_second_leaves_what_the_first_has_made(tmp_path, monkeypatch):
    source, cache = tmp_path / "a.txt", tmp_path / "cache"
    source.write_text(story(0))
    corpus_module = sys.modules["kit.text.corpus"]  # kit.text.corpus is the function
    gather, made = corpus_module._gather, []

    def twice(found, folder, **told):
        for _ in range(2):  # the second has looked before the first was done
            gather(found, folder, **told)
            made.append((folder / "train.bin").stat().st_ino)

    monkeypatch.setattr(corpus_module, "_gather", twice)
    text.corpus(source, cache=cache)

    assert made[0] == made[1]
    assert len(list(cache.iterdir())) == 1
