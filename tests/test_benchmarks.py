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


def moments_of(rows):
    return rows.double().T @ rows.double()


def test_sparsegpt_as_rendered_makes_up_for_a_dropped_weight_by_least_squares(load):
    rows = torch.randn(50, 2, generator=torch.Generator().manual_seed(0)) @ torch.ones(2, 2).triu()
    weight = torch.tensor([[0.1, 2.0]])

    found = load("prune_peers").sparse_gpt(weight, moments_of(rows), pattern="free")

    damp = 0.01 * moments_of(rows).diagonal().mean().sqrt() ** 2
    ridge = torch.cat([rows.double(), damp.sqrt() * torch.eye(2, dtype=torch.float64)])
    best = torch.linalg.lstsq(ridge[:, 1:], ridge @ weight.double().T).solution
    torch.testing.assert_close(found, torch.tensor([[0.0, float(best)]]))


@pytest.mark.parametrize("pattern", ["free", "2:4"])
@pytest.mark.parametrize("method", ["wanda", "sparse_gpt"])
def test_peers_as_rendered_drop_half_of_the_weights_and_wanda_the_lowest_scores(
    load, method, pattern
):
    generator = torch.Generator().manual_seed(0)
    rows, weight = (torch.randn(n, 256, generator=generator) for n in (400, 6))

    found = getattr(load("prune_peers"), method)(weight, moments_of(rows), pattern=pattern)

    zeros = (found == 0).unflatten(1, (-1, 4 if pattern == "2:4" else 128)).float().mean((0, 2))
    assert (found == 0).float().mean() == 0.5
    assert method == "wanda" or (zeros == 0.5).all()  # SparseGPT chooses among 128 columns
    if pattern == "2:4":
        assert ((found == 0).unflatten(1, (-1, 4)).sum(-1) == 2).all()
    if method == "wanda":
        score = (weight.abs() * rows.norm(dim=0)).unflatten(1, (-1, 4 if pattern == "2:4" else 256))
        for kept, scores in zip((found != 0).view(score.shape), score, strict=True):
            for is_kept, each in zip(kept, scores, strict=True):
                assert each[is_kept].min() > each[~is_kept].max()


def test_a_masked_original_is_found_from_what_is_left_of_the_weights(load):
    model, rows = load("shapes").SHAPES["residual MLP"]()
    small, _ = load("shapes").SHAPES["residual MLP"]()
    kept = torch.arange(0, 64, 3)
    into, out = small.fc1[1], small.fc2[1]
    into.weight = torch.nn.Parameter(into.weight[kept])
    into.bias = torch.nn.Parameter(into.bias[kept])
    out.weight = torch.nn.Parameter(out.weight[:, kept])

    masked = load("prune_shapes").masked(model, small)

    dropped = [i for i in range(64) if i not in kept.tolist()]
    assert (masked.fc2[1].weight[:, dropped] == 0).all()
    assert torch.equal(masked.fc2[1].weight[:, kept], out.weight)
    assert all(torch.equal(masked.fc2[i].weight, model.fc2[i].weight) for i in (0, 2))
    with torch.no_grad():
        torch.testing.assert_close(masked(rows), small(rows), atol=1e-5, rtol=0)


def test_a_block_that_is_gone_hands_on_what_it_was_given_in_the_masked_original(load):
    model, rows = load("shapes").SHAPES["post-norm encoder"]()
    small, _ = load("shapes").SHAPES["post-norm encoder"]()
    del small.layers[0]

    masked = load("prune_shapes").masked(model, small)

    with torch.no_grad():
        torch.testing.assert_close(masked(rows), small(rows), atol=1e-5, rtol=0)


def test_a_pruned_model_whose_weights_were_changed_has_no_masked_original(load):
    model, _ = load("shapes").SHAPES["residual MLP"]()
    small, _ = load("shapes").SHAPES["residual MLP"]()
    small.head.weight.data += 1

    with pytest.raises(ValueError) as error:
        load("prune_shapes").masked(model, small)

    assert str(error.value) == "head.weight of shape (5, 32) is no part of the original"


def test_sentences_are_whole_and_those_that_docstrings_begin_with(load):
    source = '"""Return the sum of all numbers that are given. More."""\n"""Short."""'

    found = load("prune_minilm").DOCSTRING.findall(source)

    assert found == ["Return the sum of all numbers that are given."]
