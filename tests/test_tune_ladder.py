"""A ladder of language models finds its law, and is judged by the rung that it foresaw."""

import numpy as np
import pytest
import torch

from kit import models, tune
from kit.tune import ladder as ladders
from kit.tune import law

WORDS = ["def ", "return ", "for i in ", "range", "(x)", "\n    ", " = ", "self."]
TEXT = "".join(np.random.default_rng(0).choice(WORDS, size=20_000)).encode()
TOKENS = np.frombuffer(TEXT, np.uint8)
PARTS = {"validation": TOKENS[-4_000:]}
TOLD = PARTS | {"depths": (1, 2, 3), "lengths": (2_000, 8_000), "batch": 8, "precision": "float32"}


def small(depth: int) -> models.GPT:
    return models.GPT(depth=depth, width=16 * depth, heads=2, context=32)


@pytest.fixture(scope="module")
def ladder() -> tune.Ladder:
    return tune.sizes_language(small, TOKENS, **TOLD)


@pytest.mark.parametrize("alpha", [0.25, 0.45])
@pytest.mark.parametrize("floor", [0.0, 1.2])
def test_the_law_foresees_what_follows_such_a_law(alpha, floor):
    truth = law.Law(floor=floor, a=40.0, alpha=alpha, b=300.0, beta=0.4)
    runs = [(n, d) for n in (1e5, 4e5, 1.2e6) for d in (1e5, 3e5, 1e6)]

    found = law.fit(*zip(*runs, strict=True), [truth.loss(n, d) for n, d in runs])

    assert found.loss(3e6, 1e6) == pytest.approx(truth.loss(3e6, 1e6), rel=0.01)
    assert found.loss(3e6, 3e6) == pytest.approx(truth.loss(3e6, 3e6), rel=0.02)


def test_noise_of_a_percent_leaves_the_next_rung_within_two():
    rng = np.random.default_rng(1)
    truth = law.Law(floor=0.8, a=30.0, alpha=0.3, b=300.0, beta=0.4)
    runs = [(n, d) for n in (7e4, 4e5, 1.4e6) for d in (6e4, 1.3e5, 2.6e5, 5e5)]
    misses = []

    for _ in range(10):
        losses = [truth.loss(n, d) * np.exp(0.01 * rng.normal()) for n, d in runs]
        found = law.fit(*zip(*runs, strict=True), losses)
        misses.append(abs(found.loss(3.2e6, 5e5) / truth.loss(3.2e6, 5e5) - 1))

    assert np.median(misses) < 0.02


def test_too_few_runs_for_a_law_are_told():
    with pytest.raises(ValueError) as error:
        law.fit([1e5, 2e5, 4e5], [1e5, 1e5, 1e5], [3, 2, 1])

    assert str(error.value) == (
        "tune.law: expected 4 runs or more, of two sizes and two lengths at least, got 3 of 3 and "
        "1. Train more rungs: depths=(1, 2, 3), lengths=(100_000, 200_000)."
    )


def test_the_last_rung_is_foreseen_by_the_others_alone(ladder):
    below, last = ladder.table.iloc[:-1], ladder.table.iloc[-1]

    found = law.fit(*(list(below[name]) for name in ("parameters", "tokens", "bits_per_byte")))

    assert ladder.table["depth"].tolist() == [1, 1, 2, 2, 3]
    assert ladder.table["tokens"].tolist() == [2048, 8192, 2048, 8192, 8192]
    assert ladder.predicted == found.loss(last["parameters"], last["tokens"])
    assert ladder.found == last["bits_per_byte"]
    assert ladder.miss == pytest.approx(abs(ladder.predicted - ladder.found) / ladder.found)


def test_a_run_is_that_of_fit_language(ladder):
    from kit import train
    from kit.base import seed

    with seed.drawing(0):
        model = small(depth=2)
    told = {"batch": 8, "lr": 5e-3, "precision": "float32", "steps": 8, "every": 2}
    fitted = train.fit_language(model, TOKENS, **PARTS, **told)

    assert fitted.bits_per_byte == ladder.table["bits_per_byte"][2]


def test_a_folder_keeps_what_was_trained(tmp_path, ladder, monkeypatch):
    run, seen = ladders._run, []

    def dies(*given):
        if len(seen) == 3:
            raise RuntimeError("power cut")
        seen.append(1)
        return run(*given)

    with monkeypatch.context() as patched:
        patched.setattr(ladders, "_run", dies)
        with pytest.raises(RuntimeError, match="power cut"):
            tune.sizes_language(small, TOKENS, folder=tmp_path, **TOLD)
    kept = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = tune.sizes_language(small, TOKENS, folder=tmp_path, **TOLD)

    assert sorted(kept) == [
        "depth1-2048.safetensors",
        "depth1-8192.safetensors",
        "depth2-2048.safetensors",
    ]
    assert all((tmp_path / name).stat().st_mtime_ns == when for name, when in kept.items())
    same = ["depth", "parameters", "tokens", "bits_per_byte"]
    assert again.table[same].equals(ladder.table[same])


def test_advice_leaves_random_numbers_alone_and_asks_where_the_ladder_was_trained(
    ladder, monkeypatch
):
    seen, before = [], torch.random.get_rng_state()
    monkeypatch.setattr(ladders.device, "pick", lambda: torch.device("meta"))
    monkeypatch.setattr(ladders, "_latency_ms", lambda model: seen.append(model) or 1.0)

    ladder.recommend(seconds=1, depths=[1, 2])

    assert [model.embed.weight.device.type for model in seen] == ["meta", "meta"]
    assert torch.equal(torch.random.get_rng_state(), before)


def test_advice_keeps_to_the_budget_and_the_latency(ladder):
    free = ladder.recommend(seconds=60, depths=range(1, 6))
    between = free.table["latency_ms"].sort_values().iloc[1:3].mean()

    timed = ladder.recommend(seconds=60, latency_ms=between, depths=range(1, 6))
    poor = ladder.recommend(seconds=0.01, depths=range(1, 6))

    assert free.bits_per_byte == free.table["bits_per_byte"].min()
    assert timed.latency_ms <= between
    assert (timed.table["latency_ms"] <= between).equals(timed.table["in_time"])
    assert poor.depth <= free.depth
    assert poor.bits_per_byte > free.bits_per_byte
    row = free.table.iloc[-1]
    foreseen = ladder.law.loss(float(row["parameters"]), float(row["tokens"]))
    assert row["bits_per_byte"] == pytest.approx(foreseen)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"depths": (1, 2)}, "three depths or more, of 1 or more, got (1, 2) (tuple)"),
        ({"depths": ()}, "three depths or more, of 1 or more, got () (tuple)"),
        (
            {"lengths": (100, 128)},
            "two lengths, of 256 tokens a step, or more, of 1 or more, got (100, 128) (tuple)",
        ),
    ],
)
def test_a_ladder_without_rungs_is_told(told, message):
    with pytest.raises(ValueError) as error:
        tune.sizes_language(small, TOKENS, **(TOLD | told))

    assert str(error.value) == (
        f"tune.sizes_language: expected {message}. "
        "Pass depths=(1, 2, 3), lengths=(100_000, 200_000)."
    )


def test_a_rung_that_flies_off_is_told():
    with pytest.raises(ValueError) as error:
        tune.sizes_language(small, TOKENS, **TOLD, lr=1e12, optimizer="adamw")

    assert str(error.value).startswith(
        "tune.sizes_language: expected a training of depth 1 that ends well, got diverged by step"
    )


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (
            {"seconds": 0},
            "finite seconds > 0 and depths of 1 or more, got seconds=0 and depths=[1, 2]. ",
        ),
        (
            {"seconds": 1, "depths": [0]},
            "finite seconds > 0 and depths of 1 or more, got seconds=1 and depths=[0]. ",
        ),
    ],
)
def test_a_budget_of_nothing_is_told(ladder, told, message):
    with pytest.raises(ValueError) as error:
        ladder.recommend(**({"depths": [1, 2]} | told))

    assert str(error.value) == (
        f"Ladder.recommend: expected {message}Pass seconds=3600, depths=range(1, 9)."
    )


def test_a_latency_that_no_depth_keeps_is_told(ladder):
    with pytest.raises(ValueError, match=r"expected latency_ms >= .*, the fastest depth's"):
        ladder.recommend(seconds=10, latency_ms=1e-6, depths=[1, 2])


def test_what_a_ladder_found_is_told_in_four_facts(ladder):
    assert list(ladder.facts()) == ["law", "predicted", "found", "miss"]
    assert torch.isfinite(torch.tensor([ladder.predicted, ladder.miss])).all()
