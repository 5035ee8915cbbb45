"""Scores agree with scikit-learn, and say nothing where nothing can be said."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics
from torch import nn

from kit import models, train

SEEDS = st.integers(0, 2**32 - 1)


def drawn(seed: int, n: int, n_classes: int) -> tuple[np.ndarray, torch.Tensor]:
    """Truth, and probabilities that lean towards it; some are equal to one another."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, n_classes, n)
    logits = rng.normal(size=(n, n_classes)).round(1)
    logits[np.arange(n), truth] += 1
    return truth, torch.softmax(torch.tensor(logits), dim=1)


@settings(max_examples=25)
@given(SEEDS, st.integers(2, 200))
def test_yes_and_no_are_scored_as_by_scikit_learn(seed, n):
    truth, probs = drawn(seed, n, 2)
    yes = probs[:, 1].numpy()
    one_class = len(set(truth)) == 1

    found = train.score(torch.tensor(truth == 1), probs)

    assert found.kind == "yes/no"
    assert math.isclose(found["log_loss"], metrics.log_loss(truth, yes, labels=[0, 1]))
    assert math.isclose(found["accuracy"], metrics.accuracy_score(truth, yes > 0.5))
    assert math.isclose(
        found["brier"], metrics.brier_score_loss(truth, yes, labels=[0, 1]), abs_tol=1e-12
    )
    if one_class:
        assert math.isnan(found["roc_auc"])
        assert math.isnan(found["pr_auc"])
    else:
        assert math.isclose(found["roc_auc"], metrics.roc_auc_score(truth, yes))
        assert math.isclose(found["pr_auc"], metrics.average_precision_score(truth, yes))


@settings(max_examples=25)
@given(SEEDS, st.integers(30, 200), st.integers(3, 5))
def test_classes_are_scored_as_by_scikit_learn(seed, n, n_classes):
    truth, probs = drawn(seed, n, n_classes)
    truth[:n_classes] = range(n_classes)
    one_hot = truth[:, None] == np.arange(n_classes)

    found = train.score(torch.tensor(truth), probs)

    assert found.kind == "classes"
    assert math.isclose(found["log_loss"], metrics.log_loss(truth, probs.numpy()))
    assert math.isclose(found["accuracy"], metrics.accuracy_score(truth, probs.argmax(dim=1)))
    assert math.isclose(
        found["roc_auc"], metrics.roc_auc_score(truth, probs.numpy(), multi_class="ovr")
    )
    assert math.isclose(found["pr_auc"], metrics.average_precision_score(one_hot, probs.numpy()))
    assert math.isclose(found["brier"], ((probs.numpy() - one_hot) ** 2).sum(axis=1).mean())


@settings(max_examples=25)
@given(SEEDS, st.integers(2, 200))
def test_quantities_are_scored_as_by_scikit_learn(seed, n):
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=n).astype(np.float32)
    guess = truth + rng.normal(size=n).astype(np.float32)

    found = train.score(torch.tensor(truth), torch.tensor(guess)[:, None])

    exact = truth.astype(float), guess.astype(float)
    assert found.kind == "quantity"
    assert math.isclose(found["mae"], metrics.mean_absolute_error(*exact))
    assert math.isclose(found["rmse"], metrics.root_mean_squared_error(*exact))
    assert math.isclose(found["r2"], metrics.r2_score(*exact), abs_tol=1e-9)


@pytest.mark.parametrize("truth", [True, False])
def test_truth_of_one_class_has_no_curve_and_no_crash(truth, recwarn):
    found = train.score(torch.tensor([truth] * 5), torch.tensor([[0.3, 0.7]] * 5))

    assert math.isnan(found["roc_auc"])
    assert math.isnan(found["pr_auc"])
    assert "roc_auc –" in str(found)
    assert [str(warning.message) for warning in recwarn] == []


def test_a_class_that_no_row_has_is_left_out_of_the_means():
    truth, probs = drawn(0, 50, 2)
    wide = torch.cat([probs * 0.9, torch.full((50, 1), 0.1)], dim=1)

    found = train.score(torch.tensor(truth), wide)

    yes = metrics.roc_auc_score(truth, wide[:, 1])
    no = metrics.roc_auc_score(truth == 0, wide[:, 0])
    assert math.isclose(found["roc_auc"], (yes + no) / 2)


def test_one_row_can_be_scored():
    assert math.isnan(train.score(torch.tensor([0.5]), torch.tensor([0.25]))["r2"])
    assert train.score(torch.tensor([True]), torch.tensor([[0.25, 0.75]]))["accuracy"] == 1


# ---- calibration


@settings(max_examples=25)
@given(SEEDS, st.integers(1, 300), st.sampled_from([2, 4]))
def test_the_bins_of_the_calibration_cover_every_row_once_and_rise(seed, n, n_classes):
    truth, probs = drawn(seed, n, n_classes)
    y = torch.tensor(truth == 1 if n_classes == 2 else truth)

    table = train.score(y, probs).calibration

    assert table["rows"].sum() == n
    assert table["rows"].max() - table["rows"].min() <= 1
    assert len(table) == min(10, n)
    assert table["predicted"].is_monotonic_increasing
    told = probs[:, 1] if n_classes == 2 else probs.max(dim=1).values
    right = truth == 1 if n_classes == 2 else probs.argmax(dim=1).numpy() == truth
    weights = table["rows"] / n
    assert math.isclose((table["predicted"] * weights).sum(), told.mean(), abs_tol=1e-9)
    assert math.isclose((table["observed"] * weights).sum(), right.mean(), abs_tol=1e-9)


def test_predictions_that_are_all_equal_still_fill_every_bin():
    table = train.score(torch.arange(100) % 2 == 0, torch.full((100, 2), 0.5)).calibration

    assert table["rows"].tolist() == [10] * 10


def test_what_is_well_calibrated_shows_it():
    generator = torch.Generator().manual_seed(0)
    yes = torch.rand(20_000, generator=generator)
    truth = torch.rand(20_000, generator=generator) < yes

    table = train.score(truth, torch.stack([1 - yes, yes], dim=1)).calibration

    assert (table["predicted"] - table["observed"]).abs().max() < 0.04


# ---- probabilities and evaluate


@given(st.lists(st.floats(-700, 700), min_size=1))
def test_one_logit_becomes_the_probabilities_of_no_and_yes(logits):
    given_ = torch.tensor(logits, dtype=torch.float64)

    flat, column = train.probabilities(given_), train.probabilities(given_[:, None])

    assert torch.equal(flat, column)
    assert torch.allclose(flat.sum(dim=1), torch.ones(len(logits), dtype=torch.float64))
    assert torch.allclose(flat[:, 1], torch.sigmoid(given_), rtol=1e-12, atol=0)
    assert (flat > 0).all()


def test_several_logits_become_their_softmax():
    logits = torch.randn(5, 3)

    assert torch.allclose(train.probabilities(logits), torch.softmax(logits.double(), dim=1))


class Says(nn.Module):
    """A model whose outputs are its inputs."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_a_certain_model_that_errs_pays_what_it_said_and_not_the_rounding():
    logits = torch.tensor([[20.0], [-30.0]])
    y = torch.tensor([False, True])

    found = train.evaluate(Says(), logits, y)

    exact = F.binary_cross_entropy_with_logits(logits[:, 0].double(), y.double())
    assert math.isclose(found["log_loss"], exact, rel_tol=1e-6)


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_the_log_loss_of_a_model_is_the_loss_that_it_was_trained_on(n_outputs):
    X = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
    y = X[:, 0] > 0 if n_outputs == 1 else (X[:, 0] * 2).round().clamp(0, 2).long()
    model = models.MLP(4, n_outputs)
    fitted = train.fit(model, X, y, validation=(X, y), epochs=3)

    found = train.evaluate(model, X, y)

    assert math.isclose(found["log_loss"], fitted.best_loss, rel_tol=1e-5)


def test_a_quantity_is_evaluated_by_its_outputs():
    X = torch.randn(50, 1)

    found = train.evaluate(Says(), X, X[:, 0] + 1)

    assert math.isclose(found["mae"], 1, rel_tol=1e-6)
    assert list(found.table["metric"]) == ["mae", "rmse", "r2"]
    assert found.n_rows == 50


# ---- what cannot be scored

YES = torch.tensor([True, False])
HALF = torch.full((2, 2), 0.5)


@pytest.mark.parametrize(
    ("y", "predicted", "message"),
    [
        (
            YES,
            HALF[:1],
            (
                "expected as many predictions as targets, at least one, got 1 and 2. "
                "Pass predictions of the same rows."
            ),
        ),
        (
            YES[:0],
            HALF[:0],
            (
                "expected as many predictions as targets, at least one, got 0 and 0. "
                "Pass predictions of the same rows."
            ),
        ),
        (
            YES,
            HALF * torch.nan,
            "expected finite predictions, got 4 NaN or infinite. Train again with a smaller lr.",
        ),
        (
            torch.tensor([1.0, torch.nan]),
            HALF[:, 0],
            "expected finite targets, got 1 NaN or infinite. Leave out the rows without a target.",
        ),
        (
            torch.tensor([1.0, 2.0]),
            HALF,
            (
                "expected one prediction a row, got ndarray of shape (2, 2). "
                "Take the column that is meant."
            ),
        ),
        (
            YES,
            HALF[:, 0],
            (
                "expected a column of probabilities for each of 2 classes, "
                "got ndarray of shape (2,). "
                "Of P(yes) alone, make two: torch.stack([1 - p, p], dim=1)."
            ),
        ),
        (
            torch.tensor([0, 2]),
            HALF,
            (
                "expected a column of probabilities for each of 3 classes, "
                "got ndarray of shape (2, 2). "
                "Of P(yes) alone, make two: torch.stack([1 - p, p], dim=1)."
            ),
        ),
        (
            YES,
            torch.tensor([[-3.0, 2.0], [1.0, 4.0]]),
            (
                "expected probabilities from 0 to 1 that sum to 1, got values from -3 to 4. "
                "Of logits, make probabilities first: train.probabilities(logits)."
            ),
        ),
    ],
)
def test_what_is_no_prediction_is_refused(y, predicted, message):
    with pytest.raises(ValueError) as caught:
        train.score(y, predicted)

    assert str(caught.value) == f"train.score: {message}"


def test_an_unknown_metric_is_told_with_those_there_are():
    with pytest.raises(ValueError) as caught:
        train.score(YES, HALF)["acuracy"]

    assert str(caught.value) == (
        "train.evaluate: expected a known metric, got 'acuracy' (str). Did you mean 'accuracy'? "
        "Known: accuracy, brier, log_loss, pr_auc, roc_auc."
    )


def test_rounded_probabilities_of_single_precision_are_taken():
    probs = torch.softmax(torch.randn(1000, 7), dim=1)

    found = train.score(torch.arange(1000) % 7, probs)

    assert math.isfinite(found["log_loss"])
