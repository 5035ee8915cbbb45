"""Each method of selection finds what was planted, knows chance, and says how far others agree."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.feature_selection import mutual_info_classif
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LassoCV, LinearRegression, lasso_path
from sklearn.metrics import mutual_info_score
from sklearn.model_selection import KFold

from kit import select

N, F = 400, 10
RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(N, F))
X = pd.DataFrame(ROWS * 10.0 ** RNG.integers(-2, 3, F), columns=list("abcdefghij"))
SIGNAL = 3 * ROWS[:, 2] - 2 * ROWS[:, 5] + 1.5 * ROWS[:, 7]
TRUE = {"c", "f", "h"}
TARGETS = {
    "quantity": SIGNAL + RNG.normal(size=N),
    "yes/no": SIGNAL + RNG.normal(size=N) > 0,
    "classes": pd.cut(SIGNAL + RNG.normal(size=N), [-99, -2, 2, 99], labels=["x", "y", "z"]),
}
METHODS = {
    "mutual": lambda X, y, **s: select.mutual(X, y, **s),
    "lasso": lambda X, y, **s: select.lasso(X, y, **s),
    "stability": lambda X, y, **s: select.stability(X, y, **s),
}


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("method", METHODS)
def test_planted_features_are_found(method, kind):
    settings = {"false": 4.0} if method == "stability" else {}

    found = METHODS[method](X, TARGETS[kind], **settings)

    assert set(found.chosen) >= TRUE
    assert found.chosen[0] == "c"
    assert found.table.columns.tolist() == ["feature", method]
    assert found.table["feature"].tolist() == list(X)
    if method != "lasso":  # which keeps a few too many, as the lasso does
        assert set(found.chosen) == TRUE


@pytest.mark.parametrize("method", METHODS)
def test_a_seed_gives_the_same_selection(method):
    one, two = (METHODS[method](X, TARGETS["yes/no"], seed=3) for _ in range(2))

    assert one.table.equals(two.table)
    assert one.chosen == two.chosen


@pytest.mark.parametrize("method", METHODS)
def test_tensors_and_series_are_targets_too(method):
    y = TARGETS["yes/no"]

    one, two = (METHODS[method](X, each) for each in (torch.tensor(y), pd.Series(y).astype(str)))

    assert one.table.equals(two.table)


# filter


def test_information_is_that_of_scikit_learn_in_the_same_bins():
    y = TARGETS["yes/no"]
    rough = X.assign(k=np.arange(N) % 3)
    binned = rough.apply(lambda column: pd.qcut(column, 10, labels=False, duplicates="drop"))
    binned["k"] = rough["k"]

    found = select.mutual(rough, y)

    theirs = mutual_info_classif(binned, y, discrete_features=True)
    np.testing.assert_allclose(found.table["mutual"], theirs, atol=1e-12)


def test_information_of_a_quantity_is_counted_in_bins_of_both():
    y = pd.Series(TARGETS["quantity"])

    found = select.mutual(X, y, bins=4).table["mutual"]

    cut = [pd.qcut(column, 4, labels=False) for column in (X["c"], y)]
    assert found[2] == pytest.approx(mutual_info_score(*cut))


def test_chance_alone_is_chosen_as_seldom_as_promised():
    noise = pd.DataFrame(RNG.normal(size=(100, 6)))
    chosen = 0

    for seed in range(60):
        y = np.random.default_rng(seed).normal(size=100)
        chosen += bool(select.mutual(noise, y, permutations=39, level=0.1, seed=seed).chosen)

    assert chosen <= 13  # of 60 at 10 %: more than 13 comes once in 300 times


def test_p_counts_the_shuffles_that_tell_as_much():
    found = select.mutual(X, TARGETS["yes/no"], permutations=99).details["mutual"]
    found = found.set_index("feature")

    assert found.loc["c", ["p", "p_all"]].tolist() == [0.01, 0.01]
    assert (found["p_all"] >= found["p"] - 1e-12).all()
    assert found["p"].drop(list(TRUE)).min() > 0.01
    assert found["z"].is_monotonic_decreasing


def test_a_column_that_is_nearly_always_nought_tells_when_it_is_not():
    y = TARGETS["yes/no"]
    rare = np.where(RNG.random(N) < 0.05 + 0.1 * y, RNG.random(N), 0) * y

    found = select.mutual(X.assign(rare=rare), y)

    expected = mutual_info_score(rare > 0, y)
    assert found.table["mutual"].iloc[-1] == pytest.approx(expected)
    assert "rare" in found.chosen


def test_a_constant_column_is_never_informative():
    found = select.mutual(X.assign(one=1.0), TARGETS["yes/no"])

    details = found.details["mutual"].set_index("feature")
    assert details.loc["one", "nats"] == pytest.approx(0, abs=1e-12)
    assert details.loc["one", "z"] == pytest.approx(0, abs=1e-12)
    assert "one" not in found.chosen


# lasso


def test_the_path_is_that_of_scikit_learn():
    y = TARGETS["quantity"]

    found = select.lasso(X, y)

    Z = (X - X.mean()) / X.std(ddof=0)
    centred = y - y.mean()
    largest = np.abs(Z.T @ centred).max() / N
    penalties = found.details["lasso"]["penalty"].to_numpy()
    path = lasso_path(Z, centred, alphas=largest * penalties)[1]
    np.testing.assert_allclose(found.details["lasso"][list(X)], np.abs(path.T), atol=1e-9)
    entry = [penalties[np.flatnonzero(row)[0]] for row in path]
    assert found.table["lasso"].tolist() == entry
    cut = KFold(5, shuffle=True, random_state=0)
    kept = LassoCV(cv=cut).fit(Z, y).coef_ != 0
    assert set(found.chosen) == set(X.columns[kept])


@pytest.mark.parametrize("kind", TARGETS)
def test_units_do_not_matter_to_the_lasso(kind):
    one, two = (select.lasso(each, TARGETS[kind], n=5) for each in (X, X / X.std() + 3))

    np.testing.assert_allclose(one.table["lasso"], two.table["lasso"])
    assert one.chosen == two.chosen
    assert len(one.chosen) == 5
    assert set(one.chosen) >= TRUE


@pytest.mark.parametrize("kind", TARGETS)
def test_at_the_strongest_penalty_nothing_is_in(kind):
    path = select.lasso(X, TARGETS[kind], n=1).details["lasso"]

    assert (path.iloc[0, 1:] < 1e-6).all()
    assert (path.iloc[-1, 1:] > 0).sum() > 5


@pytest.mark.parametrize("n_rare", [2, 3])
@pytest.mark.parametrize("kind", ["yes/no", "classes"])
@pytest.mark.filterwarnings("ignore:The least populated class", "ignore:Liblinear failed")
def test_a_class_that_is_not_in_every_fold_is_no_trouble(n_rare, kind):
    y = np.array(["u"] * N if kind == "yes/no" else ["u", "v"] * (N // 2), dtype=object)
    rare = np.argsort(-ROWS[:, 2])[:n_rare]
    y[rare] = "rare"

    found = select.lasso(X, y)

    assert found.table["lasso"].notna().all()
    assert found.table.set_index("feature")["lasso"].idxmax() == "c"


# stability


def test_the_bound_is_that_of_the_theorem_with_the_picks_that_were_seen():
    found = select.stability(X, TARGETS["quantity"], threshold=0.8, false=4.0, draws=40)

    details = found.details["stability"]
    q = details["picked_frac"].sum()
    assert q == int(np.sqrt(4.0 * 0.6 * F))
    assert details["false_bound"].tolist() == pytest.approx([q**2 / (0.6 * F)] * F)
    assert found.facts()["note"] == "at most 2.7 of 3 false on average"


def test_of_noise_no_more_is_chosen_than_the_bound_allows():
    falsely = []

    for seed in range(20):
        rng = np.random.default_rng(seed)
        noise = pd.DataFrame(rng.normal(size=(100, 30)))
        falsely.append(
            len(select.stability(noise, rng.normal(size=100), threshold=0.6, draws=50).chosen)
        )

    assert np.mean(falsely) <= 1


def test_any_function_can_pick():
    def largest_mean(X, y, q):
        assert X.shape == (N // 2, F)
        assert y.shape == (1, N // 2)
        return np.argsort(-X.mean(axis=0))[:q]

    far = X / X.std() + np.arange(F)

    found = select.stability(far, TARGETS["quantity"], base=largest_mean, false=2.0)

    assert set(found.chosen) == {"h", "i", "j"}


def test_halves_come_in_pairs_that_share_no_row():
    seen = []

    def look(X, y, q):
        seen.append(set(X[:, 0]))
        return [0]

    select.stability(X, TARGETS["quantity"], base=look, draws=10)

    assert all(len(half) == N // 2 for half in seen)
    assert not any(a & b for a, b in zip(seen[::2], seen[1::2], strict=True))
    assert seen[0] != seen[2]


def test_a_bare_array_gets_one_line():
    with pytest.raises(TypeError) as caught:
        select.inputs.numbers("select.forward", ROWS)

    assert str(caught.value) == (
        "select.forward: expected a DataFrame, one column a feature, got ndarray of shape "
        "(400, 10). Name its columns: pd.DataFrame(X, columns=[…])."
    )


# by a model


def test_permutation_is_that_of_scikit_learn_but_for_chance():
    y = TARGETS["quantity"]
    model = LinearRegression().fit(X[:200], y[:200])

    found = select.permutation(lambda X: model.score(X, y[200:]), X[200:], repeats=40)

    theirs = permutation_importance(model, X[200:], y[200:], n_repeats=40, random_state=1)
    error = found.details["permutation"].set_index("feature").loc[list(X), "standard_error"]
    off = np.abs(found.table["permutation"] - theirs.importances_mean)
    assert (off.to_numpy() <= 6 * error.to_numpy() + 1e-12).all()
    assert set(found.chosen) >= TRUE
    assert found.chosen[:3] == ("c", "f", "h")


def test_permutation_takes_any_columns_and_leaves_them_as_they_are():
    frame = pd.DataFrame({"word": ["a", "b"] * 20, "idle": 1, "at": pd.Timestamp("2013-01-01")})
    frame = frame.set_index(np.arange(40) // 2)
    before = frame.copy()

    found = select.permutation(lambda X: (X["word"].to_numpy() == ["a", "b"] * 20).mean(), frame)

    assert found.chosen == ("word",)
    assert found.table["permutation"].tolist()[1:] == [0, 0]
    assert frame.equals(before)


def test_attributions_are_ranked_by_mean_size_over_rows_and_outputs():
    values = RNG.normal(size=(50, 4, 3)) * np.array([1, 10, 0, 5])[:, None]

    found = select.attributions(values, names=list("abcd"), share=0.9)
    by_count = select.attributions(torch.tensor(values), names=list("abcd"), n=4)

    sizes = np.abs(values).mean(axis=(0, 2))
    assert found.table["attributions"].tolist() == pytest.approx(sizes.tolist())
    assert found.chosen == ("b", "d")
    assert by_count.chosen == ("b", "d", "a")  # what carries nothing is never chosen


# agreement


def selection(method: str, chosen: str) -> select.Selection:
    names = list("abcdefgh")
    return select.Selection(
        table=pd.DataFrame({"feature": names, method: np.arange(8.0)}),
        chosen=tuple(chosen),
        picks={method: tuple(chosen)},
        details={method: pd.DataFrame()},
    )


def test_most_votes_choose_then_the_mean_rank():
    found = select.compare(selection("one", "abc"), selection("two", "bad"), selection("six", "bd"))

    assert found.chosen == ("b", "a", "d")
    assert found.table.columns.tolist() == ["feature", "one", "two", "six"]
    assert list(found.picks) == ["one", "two", "six"]
    assert found.facts() == {
        "chosen": "3 of 8",
        "first": "b, a, d",
        "by": "one, two, six",
        "agreement (Kuncheva)": "0.438",
    }
    assert select.compare(selection("one", "abc"), selection("two", "d"), votes=1).chosen == (
        *("a", "d"),
        *("b", "c"),
    )


def test_votes_count_before_ranks():
    found = select.compare(*(selection(f"{first}b", f"{first}b") for first in "acd"), votes=1)

    assert found.chosen == ("b", "a", "c", "d")


def test_jaccard_is_shared_over_all_that_either_chose():
    found = select.compare(selection("one", "abc"), selection("two", "bcd"), selection("six", ""))

    assert found.agreement.to_numpy().tolist() == [[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize(("other", "shared"), [("abc", 3), ("abd", 2), ("ade", 1), ("def", 0)])
def test_for_sets_of_one_size_the_index_is_kunchevas(other, shared):
    found = select.compare(selection("one", "abc"), selection("two", other))

    by_chance = 3 * 3 / 8
    assert found.kuncheva == pytest.approx((shared - by_chance) / (3 - by_chance))


def test_a_set_inside_another_agrees_less_than_an_equal_one():
    inside = select.compare(selection("one", "abc"), selection("two", "abcdef"))

    assert 0 < inside.kuncheva < 1
    every = (selection(method, "abcdefgh") for method in ("one", "two"))
    assert np.isnan(select.compare(*every).kuncheva)


def test_real_methods_are_joined():
    y = TARGETS["quantity"]
    ways = [select.forward(X, y), select.backward(X, y), select.mutual(X, y), select.lasso(X, y)]

    found = select.compare(*ways, select.stability(X, y, false=4.0), votes=5)

    assert set(found.chosen) == TRUE
    assert found.table.shape == (F, 6)
    assert set(found.details) == {"forward", "backward", "mutual", "lasso", "stability"}
    assert "false on average" in found.note


def test_a_method_that_chose_nothing_has_a_say():
    noise = np.random.default_rng(3).normal(size=N)
    ways = [select.forward(X, noise), select.backward(X, noise)]
    assert [way.chosen for way in ways] == [(), ()]

    found = select.compare(*ways, select.mutual(X, TARGETS["quantity"]), votes=1)

    assert set(found.chosen) == TRUE
    assert found.agreement.loc["forward", "backward"] == 1
    assert found.agreement.loc["forward", "mutual"] == 0
    assert ways[0].facts()["first"] == "none"
    assert ways[0].facts()["chosen"] == "0 of 10"


def several():
    other = selection("two", "a")
    table = other.table.assign(feature=list("abcdefgx"))
    return select.Selection(table=table, chosen=(), picks={"two": ()}, details={})


BAD = {
    "one": (
        lambda: select.compare(selection("one", "a")),
        (
            "select.compare: expected two selections or more, got 1 (int). Pass them one after "
            "another: compare(select.forward(…), select.mutual(…))."
        ),
    ),
    "twice": (
        lambda: select.compare(selection("one", "a"), selection("one", "b")),
        "select.compare: expected each method once, got 'one' twice. Leave one out.",
    ),
    "features": (
        lambda: select.compare(selection("one", "a"), several()),
        (
            "select.compare: expected selections of the same features, got h, x in some only. "
            "Select from the same table."
        ),
    ),
    "votes": (
        lambda: select.compare(selection("one", "a"), selection("two", "b"), votes=3),
        (
            "select.compare: expected 1 <= votes <= 2, got 3 (int). "
            "Pass votes=None for more than half."
        ),
    ),
    "bins": (
        lambda: select.mutual(X, TARGETS["yes/no"], bins=1),
        "select.mutual: expected bins >= 2, got 1 (int). Pass bins=10.",
    ),
    "permutations": (
        lambda: select.mutual(X, TARGETS["yes/no"], permutations=10),
        (
            "select.mutual: expected 0 < level < 1 and at least 1 / level - 1 permutations, got "
            "level=0.05, permutations=10. Pass level=0.05, permutations=200."
        ),
    ),
    "folds": (
        lambda: select.lasso(X, TARGETS["yes/no"], folds=1),
        "select.lasso: expected 2 <= folds <= 200, got 1 (int). Pass folds=5.",
    ),
    "a class of one row": (
        lambda: select.lasso(X, np.arange(N) == 7),
        (
            "select.lasso: expected at least 2 rows of each class, got a class of 1. "
            "Merge that class with another, or bring more rows."
        ),
    ),
    "threshold": (
        lambda: select.stability(X, TARGETS["yes/no"], threshold=0.5),
        "select.stability: expected 0.5 < threshold <= 1, got 0.5 (float). Pass threshold=0.75.",
    ),
    "false": (
        lambda: select.stability(X, TARGETS["yes/no"], false=0.0),
        "select.stability: expected false > 0, got 0.0 (float). Pass false=1.0.",
    ),
    "draws": (
        lambda: select.stability(X, TARGETS["yes/no"], draws=1),
        "select.stability: expected draws >= 10, got 1 (int). Pass draws=100.",
    ),
    "repeats": (
        lambda: select.permutation(lambda X: 0.0, X, repeats=1),
        (
            "select.permutation: expected rows, and repeats of 2 or more, got 400 rows, repeats=1. "
            "Pass the validation rows, and repeats=10."
        ),
    ),
    "score": (
        lambda: select.permutation(lambda X: float("nan"), X),
        (
            "select.permutation: expected a finite score, got nan (float). "
            "Return a number, higher is better: lambda X: model.score(X, y)."
        ),
    ),
    "shape": (
        lambda: select.attributions(np.zeros((3, 4)), names=["a", "b"]),
        (
            "select.attributions: expected values of shape (rows, 2) or (rows, 2, outputs), got "
            "ndarray of shape (3, 4). Pass the values and the names of the same features."
        ),
    ),
    "nan": (
        lambda: select.attributions(np.array([[np.nan, 1.0]]), names=["a", "b"]),
        (
            "select.attributions: expected finite values, got 1 NaN or infinite. "
            "Leave out the rows that could not be explained."
        ),
    ),
    "share": (
        lambda: select.attributions(np.ones((3, 2)), names=["a", "b"], share=95.0),
        "select.attributions: expected 0 < share <= 1, got 95.0 (float). Pass share=0.95.",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_wrong_argument_gets_one_line(case):
    call, message = BAD[case]

    with pytest.raises(ValueError) as caught:
        call()

    assert str(caught.value) == message
