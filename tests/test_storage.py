"""A file is whole or absent, whatever happens; weights are never a pickle."""

import ast
import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import kit
from kit.base import storage

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.int32, torch.bool)
TENSORS = st.dictionaries(
    st.text(min_size=1, max_size=20),
    st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 4), max_size=3)),
    max_size=5,
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("storage")


@given(TENSORS, st.dictionaries(st.text(), JSON, max_size=3))
def test_tensors_and_their_description_come_back_as_they_were(folder, shapes, about):
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: torch.randint(0, 2, shape, generator=generator).to(dtype)
        for name, (dtype, shape) in shapes.items()
    }

    storage.save(folder / "a.safetensors", tensors, about=about)
    read, described = storage.load(folder / "a.safetensors")

    assert described == about
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)
    assert all(read[name].dtype == tensors[name].dtype for name in tensors)


@given(JSON)
def test_json_comes_back_as_it_was(folder, value):
    storage.write_json(folder / "a.json", value)

    assert json.loads((folder / "a.json").read_text(encoding="utf-8")) == value


def test_weights_that_share_memory_or_are_not_contiguous_are_saved_each(tmp_path):
    embed, whole = nn.Embedding(5, 3), torch.arange(12.0).view(3, 4)
    head = nn.Linear(3, 5, bias=False)
    head.weight = embed.weight
    tensors = {**nn.Sequential(embed, head).state_dict(), "column": whole[:, 1], "row": whole[1]}

    storage.save(tmp_path / "a", tensors, about={})

    read = storage.load(tmp_path / "a")[0]
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)


def test_what_was_loaded_does_not_change_with_the_file(tmp_path):
    storage.save(tmp_path / "a", {"w": torch.ones(1000)}, about={})
    read = storage.load(tmp_path / "a")[0]["w"]

    storage.save(tmp_path / "a", {"w": torch.zeros(1000)}, about={})

    assert bool((read == 1).all())


@pytest.mark.parametrize(
    ("tensors", "about", "message"),
    [
        (
            {"w": 3},
            {},
            (
                "storage.save: expected a tensor as 'w', got 3 (int). "
                "Leave it out, or put it into about=."
            ),
        ),
        (
            {},
            {"x": {1}},
            (
                "storage.save: expected an about= that JSON can hold, got Object of type set is "
                "not JSON serializable. Turn arrays into lists and numbers of NumPy into int or "
                "float."
            ),
        ),
    ],
)
def test_what_cannot_be_saved_is_refused_and_leaves_no_file(tmp_path, tensors, about, message):
    with pytest.raises(TypeError) as caught:
        storage.save(tmp_path / "a", tensors, about=about)

    assert str(caught.value) == message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_error_in_the_block_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write():
        with storage.atomic(path) as part:
            part.write_text("half of the new")
            raise error

    with pytest.raises(error):
        write()

    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("step", ["_sync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(*((storage, "_sync") if step == "_sync" else (Path, "replace")), full)

    with pytest.raises(OSError) as caught:
        storage.write_text(path, "new")

    assert caught.value.errno == errno.ENOSPC
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_really_is_full_leaves_nothing(tmp_path):
    code = (
        "import resource, signal, sys; from kit.base import storage; "
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); "
        f"storage.write_text({str(tmp_path / 'a.txt')!r}, 'x' * 100_000)"
    )

    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert "OSError: [Errno 27] File too large" in ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_made_and_modes_are_those_of_other_files(tmp_path):
    plain, private = tmp_path / "deep" / "er" / "a.txt", tmp_path / "b.txt"
    (tmp_path / "as_usual").touch()
    private.touch(mode=0o600)

    storage.write_text(plain, "a")
    storage.write_text(private, "b")

    assert plain.stat().st_mode == (tmp_path / "as_usual").stat().st_mode
    assert private.stat().st_mode & 0o777 == 0o600


def test_many_writers_at_once_leave_one_whole_file(tmp_path):
    path, texts = tmp_path / "a.txt", [str(i) * 50_000 for i in range(8)]
    threads = [threading.Thread(target=storage.write_text, args=(path, text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert path.read_text() in texts
    assert list(tmp_path.iterdir()) == [path]


def test_a_writer_that_is_killed_never_leaves_half_a_file_under_the_final_name(tmp_path):
    path = tmp_path / "a.safetensors"
    code = (
        "import torch; from kit.base import storage\n"
        "tensors = {str(i): torch.full((200_000,), float(i)) for i in range(10)}\n"
        f"while True: storage.save({str(path)!r}, tensors, about={{'n': 10}})"
    )
    writer = subprocess.Popen([sys.executable, "-c", code])
    try:
        while not path.exists():
            time.sleep(0.01)
        for _ in range(20):  # each look meets another moment of the writing
            tensors, about = storage.load(path)
            assert about == {"n": 10}
            assert all(bool((t == float(name)).all()) for name, t in tensors.items())
            time.sleep(0.003)
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait()

    tensors, about = storage.load(path)
    assert len(tensors) == about["n"]


def damaged(path: Path, raw: bytes) -> str:
    path.write_bytes(raw)
    with pytest.raises(ValueError) as caught:
        storage.load(path)
    return str(caught.value)


@settings(deadline=None)
@given(st.data())
def test_a_damaged_file_is_refused_in_one_line(folder, data):
    path = folder / "whole.safetensors"
    storage.save(path, {"w": torch.arange(50.0)}, about={"a": 1})
    whole = path.read_bytes()
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    raw = data.draw(st.sampled_from([cut]) | st.binary(max_size=200))

    message = damaged(path, raw)

    assert message.startswith(
        "storage.load: expected a whole checkpoint of this kit, format 1, "
        f"got whole.safetensors ({len(raw)} bytes): "
    )
    assert message.endswith(". Delete the file, or restore it from a copy.")
    assert len(message.splitlines()) == 1


def test_a_file_of_others_is_refused(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "theirs.safetensors"
    save_file({"w": torch.ones(1)}, path, metadata={"format": "pt"})

    message = damaged(path, path.read_bytes())

    assert message == (
        "storage.load: expected a whole checkpoint of this kit, format 1, got theirs.safetensors "
        f"({path.stat().st_size} bytes): format pt. Delete the file, or restore it from a copy."
    )


def test_a_missing_file_is_told_by_its_path(tmp_path):
    with pytest.raises(ValueError) as caught:
        storage.load(tmp_path / "none")

    assert str(caught.value) == (
        f"storage.load: expected a file, got '{tmp_path / 'none'}' (str). Check the path."
    )


def test_json_refuses_nan_and_leaves_no_file(tmp_path):
    with pytest.raises(ValueError):
        storage.write_json(tmp_path / "a.json", {"loss": float("nan")})

    assert list(tmp_path.iterdir()) == []


def test_no_module_of_the_kit_can_pickle():
    forbidden = {"pickle", "joblib", "cloudpickle", "dill", "shelve", "marshal"}
    for path in Path(kit.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) not in {("torch", "save"), ("torch", "load")}
            assert not {name.split(".")[0] for name in names} & forbidden, path


def test_a_checkpoint_holds_no_pickle_and_reads_as_plain_safetensors(tmp_path):
    path = tmp_path / "a.safetensors"
    storage.save(path, nn.Linear(2, 2).state_dict(), about={"a": 1})

    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    assert header["__metadata__"] == {"format": "1", "about": '{"a": 1}'}
    assert len(raw) == 8 + length + 4 * 6
