"""Labels that are probably wrong are counted and named by confident learning."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from kit import clean


def naive_joint(probs, y) -> tuple[np.ndarray, int]:
    """Northcutt et al. (2021), equations 1 and 2, one row at a time."""
    n, k = probs.shape
    threshold = [np.mean([probs[r, j] for r in range(n) if y[r] == j]) for j in range(k)]
    counts = np.zeros((k, k))
    for r in range(n):
        reached = [j for j in range(k) if probs[r, j] >= threshold[j] - 1e-12]
        if reached:
            counts[y[r], max(reached, key=lambda j: probs[r, j])] += 1
    scaled = [counts[i] * np.sum(np.asarray(y) == i) / counts[i].sum() for i in range(k)]
    return np.array(scaled), int(counts.sum() - counts.trace())


def naive_suspects(probs, y, joint) -> set[int]:
    n, k = probs.shape
    found = set()
    for i in range(k):
        for j in range(k):
            if i == j:
                continue
            rows = [r for r in range(n) if y[r] == i]
            rows.sort(key=lambda r: -(probs[r, j] - probs[r, i]))
            found |= {r for r in rows[: round(joint[i, j])] if probs[r, j] > probs[r, i]}
    return found


@given(st.integers(0, 10**6), st.integers(2, 5))
def test_joint_and_suspects_are_those_of_the_naive_loops(seed, n_classes):
    rng = np.random.default_rng(seed)
    y = np.concatenate([np.arange(n_classes), rng.integers(0, n_classes, 60)])
    probs = rng.dirichlet(np.full(n_classes, 0.7), len(y))

    found = clean.labels(probs, y)

    joint, n_sure = naive_joint(probs, y)
    np.testing.assert_allclose(found.joint.to_numpy(), joint)
    assert found.n_sure == n_sure
    assert found.n_supported == round(joint.sum() - joint.trace())
    assert set(found.table["row"]) == naive_suspects(probs, y, found.joint.to_numpy())
    assert found.joint.to_numpy().sum() == pytest.approx(len(y))


def test_planted_flips_are_counted_and_found_first():
    X, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    flipped = rng.choice(len(y), 90, replace=False)
    noisy = y.copy()
    noisy[flipped] = (y[flipped] + rng.integers(1, 10, 90)) % 10
    model = LogisticRegression(max_iter=200, C=0.01)
    probs = cross_val_predict(model, X / 16, noisy, cv=3, method="predict_proba")

    found = clean.labels(probs, noisy)

    assert 60 <= found.n_sure <= 120
    assert found.n_sure <= found.n_supported <= 160
    named = found.table["row"].to_numpy()
    assert np.isin(flipped, named).mean() > 0.85
    assert np.isin(named[:60], flipped).mean() > 0.9
    right = found.table["suggested"].to_numpy() == y[named]
    assert right[np.isin(named, flipped)].mean() > 0.85
    assert found.table["margin"].is_monotonic_decreasing


def test_labels_that_the_model_confirms_are_not_suspect():
    probs = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.2, 0.8]])

    found = clean.labels(probs, [0, 0, 1, 1])

    assert found.table.empty
    assert found.facts() == {
        "wrong labels": "0 to 0 of 4",
        "noise": "0.0% to 0.0%",
        "suspects": "0",
        "commonest": "none",
    }


def test_a_class_that_the_model_is_unsure_of_is_not_accused_whole():
    # of class 1 the model never says more than 0.4, yet the rows are what it expects of class 1
    probs = np.array([[0.95, 0.05]] * 10 + [[0.6, 0.4]] * 10)

    assert clean.labels(probs, [0] * 10 + [1] * 10).table.empty


def test_tensors_series_and_named_classes_are_taken():
    probs = torch.tensor([[0.9, 0.1]] * 9 + [[0.1, 0.9]] * 10)
    y = pd.Series(["no"] * 10 + ["yes"] * 9, index=np.arange(19) + 100)

    found = clean.labels(probs, y, classes=["no", "yes"])

    first = found.table.iloc[0]
    assert (first["row"], first["given"], first["suggested"]) == (9, "no", "yes")
    assert found.facts()["commonest"] == "yes as no"
    assert clean.labels(probs, torch.tensor(y.to_numpy() == "yes")).table["row"].tolist() == [9]


P = np.array([[0.9, 0.1], [0.2, 0.8]])
BAD = {
    "one column": (
        (P[:, 0], [0, 1]),
        {},
        (
            "clean.labels: expected probabilities of 2 rows and 2 classes, got ndarray of shape "
            "(2,). Of P(yes) alone, make two columns: np.stack([1 - p, p], axis=1)."
        ),
    ),
    "too few labels": (
        (P, [0]),
        {},
        (
            "clean.labels: expected probabilities of 1 rows and 2 classes, got ndarray of shape "
            "(2, 2). Of P(yes) alone, make two columns: np.stack([1 - p, p], axis=1)."
        ),
    ),
    "logits": (
        (P * 5, [0, 1]),
        {},
        (
            "clean.labels: expected probabilities from 0 to 1 that sum to 1, got values from "
            "0.5 to 4.5. Of logits, make probabilities first: train.probabilities(logits)."
        ),
    ),
    "unknown class": (
        (P, ["no", "yse"]),
        {"classes": ["no", "yes"]},
        (
            "clean.labels: expected a known class, got 'yse' (str). Did you mean 'yes'? "
            "Known: no, yes."
        ),
    ),
    "a class twice": (
        (P, ["a", "a"]),
        {"classes": ["a", "a"]},
        (
            "clean.labels: expected classes that differ, got 'a' more than once. "
            "Name each column of the probabilities once."
        ),
    ),
    "empty class": (
        (P, [0, 0]),
        {},
        (
            "clean.labels: expected at least one row of each class, got none of 1. "
            "Leave out its column and divide each row by its sum."
        ),
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_wrong_argument_gets_one_line(case):
    arguments, settings, message = BAD[case]

    with pytest.raises(ValueError) as caught:
        clean.labels(*arguments, **settings)

    assert str(caught.value) == message
