import dataclasses
import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from kit import explain


def mlp(*widths, seed=0):
    torch.manual_seed(seed)
    layers = []
    for n_in, n_out in itertools.pairwise(widths):
        layers += [nn.Linear(n_in, n_out), nn.Tanh()]
    return nn.Sequential(*layers[:-1]).eval()


def explained(d=8, n_outputs=1, **given):
    rows = np.random.default_rng(0).normal(size=(30, d))
    return explain.shap(mlp(d, 16, n_outputs), rows, background=rows[:12], **given)


def holds(attribution):
    return explain.check(attribution).table.set_index("check")["holds"]


AXIOMS = ["efficiency", "additivity", "linearity", "dummy", "symmetry"]


@pytest.mark.parametrize("given", [{}, {"d": 16, "pairs": 60}, {"n_outputs": 3}, {"target": 0}])
def test_shapley_values_hold_what_they_promise(given):
    found = explain.check(explained(**given))

    assert found.table["check"].tolist() == [*AXIOMS, "insertion", "deletion", "sanity"]
    assert found.table["holds"].all()
    assert found.facts() == {"hold": "8 of 8", "do not": "none"}


def test_values_that_do_not_add_up_fail_efficiency_alone():
    found = explained()

    wrong = holds(dataclasses.replace(found, values=found.values * 1.01))

    assert wrong[~wrong].index.tolist() == ["efficiency"]


def changed(found, change):
    """Return an attribution whose method is another one: `change` of the Shapley values."""

    def rerun(model, **given):
        again = found.rerun(model, **given)
        return dataclasses.replace(again, values=change(again.values))

    return dataclasses.replace(found, values=change(found.values), rerun=rerun)


def test_a_method_that_is_not_linear_fails():
    wrong = holds(changed(explained(), np.abs))

    assert not wrong["additivity"]
    assert wrong["linearity"]


def test_a_method_with_a_constant_fails_linearity_and_dummy():
    wrong = holds(changed(explained(), lambda values: values + 0.1))

    assert not wrong["linearity"]
    assert not wrong["dummy"]
    assert wrong["symmetry"]


def test_a_method_that_prefers_places_fails_symmetry():
    wrong = holds(changed(explained(), lambda values: values * np.arange(1, 9)))

    assert not wrong["symmetry"]
    assert wrong["linearity"]


def test_the_curves_are_there_and_go_from_the_base_to_the_prediction():
    found = explained(target=0)

    curves = explain.check(found, n_rows=5).curves

    assert curves["n_features"].tolist() == list(range(9))
    for name in ("insertion", "insertion_at_random"):
        ends = curves[name].iloc[[0, -1]]
        np.testing.assert_allclose(ends, [found.base_values[0], found.predictions[:5].mean()], 1e-5)
    np.testing.assert_allclose(curves["deletion"][[8, 0]], curves["insertion"][[0, 8]], 1e-9)
    assert (curves["insertion"][1:8] > curves["insertion_at_random"][1:8]).all()
    assert (curves["deletion"][1:8] < curves["deletion_at_random"][1:8]).all()


def test_values_in_reverse_are_not_faithful():
    wrong = holds(changed(explained(), np.negative))

    assert not wrong["insertion"]
    assert not wrong["deletion"]


def test_an_explanation_that_does_not_see_the_weights_fails_sanity():
    found = explained()

    wrong = holds(dataclasses.replace(found, rerun=lambda model, **given: found))

    assert not wrong["sanity"]


def test_groups_and_functions_leave_out_what_makes_no_sense():
    grouped = explained(groups={"all but two": [2, 3, 4, 5, 6, 7]})
    rows = np.random.default_rng(0).normal(size=(20, 3))
    function = explain.shap(lambda x: x[:, 0] * x[:, 1], rows, background=rows)

    assert list(holds(grouped).index) == [*AXIOMS[:3], "sanity"]
    assert list(holds(function).index) == [*AXIOMS, "insertion", "deletion"]
    assert holds(grouped).all()
    assert holds(function).all()


def test_lime_is_not_held_to_axioms_of_others():
    rows = np.random.default_rng(0).normal(size=(200, 5))
    found = explain.lime(mlp(5, 16, 1), rows[:10], train=rows, num_features=5, output="raw")

    checked = explain.check(found).table.set_index("check")

    assert list(checked.index) == ["insertion", "deletion", "sanity"]
    assert checked["holds"].all()


@pytest.mark.parametrize("seed", [1, 3])  # rounding falls to one side, and to the other
def test_a_single_feature_is_as_faithful_as_it_can_be(seed):
    rows = np.random.default_rng(seed).normal(size=(30, 1))

    found = holds(explain.shap(mlp(1, 16, 1, seed=seed), rows, background=rows[:12]))

    assert found[["insertion", "deletion"]].all()


@pytest.fixture
def frame():
    return pd.DataFrame(np.random.default_rng(0).normal(size=(60, 4)), columns=list("abcd"))


def test_columns_known_by_name_are_found_again(frame):
    frame["d"] = (frame["d"] > 0).astype(float)

    local = explain.lime(mlp(4, 16, 1), frame[:8], train=frame, categorical=["d"])
    alone = explain.shap(mlp(4, 16, 1), frame, background=frame[:9], groups={"one": ["a"]})

    assert holds(local).all()
    assert list(holds(alone).index) == [*AXIOMS, "insertion", "deletion", "sanity"]
    assert holds(alone).all()


def test_groups_are_checked_on_no_more_rows_than_asked_for(frame):
    asked = []

    def model(x):
        asked.append(len(x))
        return x[:, 0] * x[:, 1] + x[:, 2] - x[:, 3]

    found = explain.shap(model, frame, background=frame[:1], groups={"two": ["a", "b"]})
    totals = []
    for n_rows in (3, 60):
        asked.clear()
        assert explain.check(found, n_rows=n_rows).table["holds"].all()
        totals.append(sum(asked))

    assert totals[0] < totals[1] / 2


def test_an_attribution_made_by_hand_cannot_be_checked():
    found = dataclasses.replace(explained(), rerun=None)

    with pytest.raises(ValueError) as none:
        explain.check(found, n_rows=0)
    assert str(none.value) == ("explain.check: expected n_rows >= 1, got 0 (int). Pass n_rows=20.")
    with pytest.raises(ValueError) as caught:
        explain.check(found)

    assert str(caught.value) == (
        "explain.check: expected an attribution that can explain other models, got one made by "
        "Shapley, exact. Pass what explain.shap, explain.lime or explain.text returned."
    )


def test_methods_are_compared_on_the_users_model():
    rows = np.random.default_rng(0).normal(size=(60, 6))

    found = explain.compare(
        mlp(6, 16, 2),
        rows,
        background=rows[:20],
        methods=["kit shap", "shap Kernel", "kit lime", "lime"],
        target=1,
        n_rows=3,
    )

    error = found.table.set_index("method")["error"]
    assert error["kit shap"] < 1e-9
    assert error["shap Kernel"] < 1e-4  # with six features it tries all coalitions, too
    assert error["kit lime"] < error["lime"] < 0.5
    assert (found.table["ms_per_row"] > 0).all()
    assert found.n_rows == 3
    assert found.facts()["kit shap"].endswith("ms a row")


@pytest.mark.slow  # shap compiles its loops
def test_permutation_is_compared_at_its_own_default():
    rows = np.random.default_rng(0).normal(size=(60, 6))

    found = explain.compare(
        mlp(6, 16, 1), rows, background=rows[:20], methods=["shap Permutation"], n_rows=3
    )

    assert 0 < found.table["error"][0] < 0.2


def test_an_exact_reference_is_computed_once():
    asked = []

    def model(x):
        asked.append(len(x))
        return np.sin(x).prod(1)

    rows = np.random.default_rng(0).normal(size=(4, 8))

    explain.compare(model, rows, background=rows[:2], methods=["kit shap"], n_rows=4)

    # 254 coalitions a row and background row: of the reference, of one row before the clock, and of
    # the method itself (and what it takes to see that no feature is ignored)
    each = 2 * 254
    assert sum(asked) < (4 + 1 + 4 + 3) * each


def test_no_rows_to_compare_on_are_refused():
    with pytest.raises(ValueError) as caught:
        explain.compare(mlp(2, 1), np.zeros((1, 2)), background=np.zeros((1, 2)), n_rows=0)

    assert (
        str(caught.value) == "explain.compare: expected n_rows >= 1, got 0 (int). Pass n_rows=10."
    )


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError) as caught:
        explain.compare(mlp(2, 1), np.zeros((1, 2)), background=np.zeros((1, 2)), methods=["lim"])

    assert str(caught.value) == (
        "explain.compare: expected a known method, got 'lim' (str). Did you mean 'lime'? "
        "Known: kit lime, kit shap, lime, shap Kernel, shap Permutation."
    )
