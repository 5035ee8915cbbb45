"""Benchmarks run without their peers, name those that are missing, and compute what they say."""

import argparse
import ast
import doctest
import importlib
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks"
SCRIPTS = sorted(FOLDER.glob("bench_*.py"))


@pytest.fixture
def load(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module


def peers(script: Path) -> dict[str, str]:
    for node in ast.parse(script.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PEERS":
            return ast.literal_eval(node.value)
    return {}


def without(modules, folder: Path) -> dict[str, str]:
    for module in modules:
        text = "raise ModuleNotFoundError('taken away by the test')\n"
        (folder / f"{module.split('.')[0]}.py").write_text(text)
    path = os.pathsep.join([str(folder), os.environ["PYTHONPATH"]])
    return {**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_benchmark_runs_without_its_peers_and_names_them(script, tmp_path):
    stored = {path: path.stat().st_mtime_ns for path in (FOLDER / "results").glob("*")}
    wanted, out = peers(script), tmp_path / "results"

    done = subprocess.run(
        [sys.executable, script, "--quick", "--out", out],
        env=without(wanted.values(), tmp_path),
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in (FOLDER / "results").glob("*")} == stored
    if script.stem == "bench_gpu":
        assert done.stdout == "no CUDA device: nothing measured\n"
        assert not out.exists()
        return
    name = script.stem.removeprefix("bench_")
    record, page = json.loads((out / f"{name}.json").read_text()), (out / f"{name}.md").read_text()
    assert record["quick"]
    assert record["skipped"] == list(wanted)
    assert all(record["tables"].values())
    assert all(f"## {title}\n" in page for title in record["tables"])
    assert not wanted or f"Skipped, not installed here: {', '.join(wanted)}." in page
    assert not any(private in page for private in (platform.node(), str(ROOT), str(Path.home())))


def test_the_results_that_are_kept_are_those_of_whole_runs_with_every_peer():
    records = [json.loads(path.read_text()) for path in (FOLDER / "results").glob("*.json")]

    assert not any(record["quick"] or record["skipped"] for record in records)


def test_peers_are_pinned_and_bring_no_other_torch():
    lines = (FOLDER / "requirements-bench.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]

    assert all(len(pin.split("==")) == 2 for pin in pins)
    assert not any(pin.startswith(("torch==", "torchvision", "nvidia", "triton")) for pin in pins)


def test_a_race_runs_every_variant_in_every_round_each_round_in_another_order(load):
    common, seen = load("common"), []

    def variant(name):
        return lambda i: lambda: seen.append((name, i)) or len(seen)

    timed = common.race({name: variant(name) for name in "abc"}, rounds=3, judge=float)

    orders = ["".join(name for name, i in seen if i == round_) for round_ in range(4)]
    assert orders == ["abc", "bca", "cab", "abc"]
    assert sorted(zip(timed["round"], timed["variant"], strict=True)) == [
        (i, name) for i in (1, 2, 3) for name in "abc"
    ]
    assert set(timed["score"]) == set(range(4, 13))


def test_a_comparison_takes_ratios_inside_a_round_and_medians_over_rounds(load):
    timed = pd.DataFrame(
        {
            "variant": ["ours", "theirs"] * 3,
            "round": [1, 1, 2, 2, 3, 3],
            "cpu_s": [1.0, 3.0, 10.0, 20.0, 2.0, 8.0],  # 3, 2 and 4 times as long
            "wall_s": [2.0, 2.0, 2.0, 2.0, 2.0, 2.0],
            "score": [0.1, 0.2, 0.1, 0.4, 0.1, 0.9],
        }
    )

    table = load("common").compare(timed, ours="ours", work=12, unit="rows").set_index("variant")

    assert table.loc["theirs"].round(3).to_dict() == {
        "rows_per_cpu_s": 1.5,
        "rows_per_wall_s": 6.0,
        "ratio_cpu": 3.0,
        "ratio_cpu_low": 2.0,
        "ratio_cpu_high": 4.0,
        "ratio_wall": 1.0,
        "score": 0.4,
        "score_sd": 0.361,
    }
    assert table.loc["ours", "rows_per_cpu_s"] == 6.0
    assert table.index[0] == "ours"


def test_a_missing_peer_is_named_and_a_present_one_is_not(load):
    assert load("common").missing({"There": "json", "Gone": "no_such_module"}) == ["Gone"]


def test_the_examples_of_the_shared_part_hold(load):
    assert doctest.testmod(load("common")) == (0, 1)


def test_trainings_that_end_elsewhere_are_not_compared(load):
    table = pd.DataFrame({"variant": ["train.fit", "other"], "final_loss": [0.4, 0.42]})

    with pytest.raises(ValueError) as error:
        load("bench_train").check_same_training(table)

    assert str(error.value) == (
        "bench_train.main: expected every final loss within 0.01 of 0.4000, "
        "got 0.4200 by other. Make all variants train the same thing."
    )


def test_a_bar_is_reached_from_its_value_on_and_missing_peers_have_none(load):
    bench = load("bench_train")
    table = pd.DataFrame(
        {"variant": ["plain DataLoader loop", "bare tensor loop"], "ratio_cpu": [2.0, 0.9]}
    )

    judged = bench.bars({64: table})

    assert judged.to_dict(orient="records") == [
        {
            "against": "plain DataLoader loop",
            "batch": 64,
            "bar": 2.0,
            "measured": 2.0,
            "reached": "yes",
        },
        {"against": "bare tensor loop", "batch": 64, "bar": 0.95, "measured": 0.9, "reached": "no"},
    ]


def test_inference_is_held_against_eager_the_fastest_peer_and_the_bar_of_a_shape(load):
    bench = load("bench_infer")
    table = pd.DataFrame(
        {
            "variant": ["infer.optimise", "eager", "torch.ao int8", "ONNX Runtime"],
            "ratio_cpu": [1.0, 4.1, 0.94, 1.2],
        }
    )

    judged = bench.bars({(bench.SHAPES[0], 1): table})

    columns = ["network", "batch", "against", "bar", "measured", "reached"]
    assert judged[columns].values.tolist() == [
        ["784-1024-1024-10", 1, "eager", 0.98, 4.1, "yes"],
        ["784-1024-1024-10", 1, "torch.ao int8", 0.95, 0.94, "no"],
        ["784-1024-1024-10", 1, "eager", 4.2, 4.1, "no"],
    ]


def test_explanations_are_measured_on_whatever_device_there_is(load):
    given = argparse.Namespace(quick=True, rounds=1)

    section = load("bench_gpu").explanations(torch.device("cpu"), given)

    assert set(section.table["method"]) == {"kit", "shap Permutation"}
    assert (section.table["ms_per_row"] > 0).all()


@pytest.mark.parametrize("part", ["forms", "learning", "writing"])
def test_answering_and_writing_are_measured_on_whatever_device_there_is(load, part):
    given = argparse.Namespace(quick=True, rounds=2)

    section = getattr(load("bench_gpu"), part)(torch.device("cpu"), given)

    assert len(section.table) >= 2
    assert section.table.select_dtypes("number").notna().any(axis=None)
