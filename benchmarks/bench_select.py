"""Measure stepwise selection and the search for near-duplicate texts."""

import argparse
from collections.abc import Callable
from typing import Any

import common
import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import SequentialFeatureSelector
from sklearn.linear_model import LinearRegression
from sklearn.metrics.pairwise import cosine_similarity

from kit import clean, select
from kit.data import near

PEER = "scikit-learn SequentialFeatureSelector"
FASTER, SECONDS = 100.0, 10.0  # what issue 4 asks for
WAYS = {"forward": select.forward, "backward": select.backward}
TEXT = """\
One thread, contestants in turns, every round in another order. Stepwise selection: five folds, R²,
the same data, folds and number of features for both; `score` is the share of features that the
two choices have in common, and 1 is what is asked for. `ratio_cpu`: CPU time, times that of the
kit, median over rounds, with the lowest and highest round."""
FLIGHTS = """\
Late or not by a linear model, on the encoded columns of the bundled flights: {rows:,} rows of
{columns} columns (quantities, flags of gaps, one column for each frequent word), {n} to choose."""
TEXTS = """\
{train:,} training texts and {test:,} test texts of 4 to 16 words, made up of {words:,} words. 25 of
the test repeat a training text but for case and punctuation, {near} but for a word: `clean.leaks`
looks for both. The other contestant is the plain form with scikit-learn, all similarities at
once. `score` is the number of test texts for which a near duplicate was found; wall time is what
the bar is about."""


def main() -> None:
    """Run the benchmark and write its page."""
    given = common.arguments(__doc__, rounds=3)
    sections, ratios = [], []
    for title, text, X, y, n in tables(given):
        for way in WAYS:
            if way == "backward" and title == "flights":
                continue  # scikit-learn would take half an hour a round
            table = stepwise(X, y, way=way, n=n, rounds=given.rounds)
            sections.append(common.Section(f"{title}, {way}", text, table))
            ratios.append((f"{title}, {way}", table))
    train, test, text = made_up_texts(*((500, 200) if given.quick else (10_000, 3_000)))
    found = duplicates(train, test, given.rounds)
    sections.append(common.Section("Near-duplicate texts", text, found))
    sections.append(common.Section("Bars", "What issue 4 asks for.", bars(ratios, found, test)))
    common.write(
        "select",
        title="Selection of features, and near-duplicate texts",
        text=TEXT,
        sections=sections,
        facts=common.machine(["scikit-learn", "scipy"]),
        skipped=[],
        given=given,
    )


def tables(given: argparse.Namespace) -> list[tuple[str, str, pd.DataFrame, np.ndarray, int]]:
    """Return title, text, features, target and how many to choose, of every table."""
    diabetes, cancer = load_diabetes(as_frame=True), load_breast_cancer(as_frame=True)
    X, y = encoded_flights(500 if given.quick else 20_000)
    n = 2 if given.quick else 10
    text = FLIGHTS.format(rows=len(X), columns=X.shape[1], n=n)
    return [
        ("diabetes", "442 rows, 5 of 10 columns.", diabetes.data, diabetes.target.to_numpy(), 5),
        (
            "breast cancer",
            f"569 rows, {n} of 30 columns.",
            cancer.data.iloc[:, : 4 if given.quick else 30],
            cancer.target.to_numpy(),
            n,
        ),
        ("flights", text, X, y, n),
    ]


def encoded_flights(rows: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the flights with a column for each of the 20 commonest words of every category."""
    encoder, X, y = common.flights(rows)
    table = pd.DataFrame(X.double().numpy(), columns=encoder.names)
    words = table[list(encoder.levels)].astype(int)
    table = table.drop(columns=words.columns)
    for name, codes in words.items():
        for code in codes.value_counts().index[
            1:21
        ]:  # the commonest is what the others differ from
            table[f"{name} {code}"] = (codes == code).astype(float)
    # two that say the same would be a tie, and ties fall by rounding
    return table.T.drop_duplicates().T, y.double().numpy()


def stepwise(X: pd.DataFrame, y: np.ndarray, *, way: str, n: int, rounds: int) -> pd.DataFrame:
    """Race the kit against scikit-learn on one table, and hold the choices against each other."""

    def kit() -> set[str]:
        return set(WAYS[way](X, y, n=n, folds=5).chosen)

    def theirs() -> set[str]:
        selector = SequentialFeatureSelector(
            LinearRegression(), n_features_to_select=n, direction=way, scoring="r2", cv=5
        )
        return set(X.columns[selector.fit(X, y).get_support()])

    ours = kit()
    timed = common.race(
        {"kit": _always(kit), PEER: _always(theirs)},
        rounds=rounds,
        judge=lambda chosen: len(chosen & ours) / len(chosen | ours),
    )
    return common.compare(timed, ours="kit", work=1, unit="selections")


def made_up_texts(n_train: int, n_test: int) -> tuple[pd.Series, pd.Series, str]:
    """Return texts of made-up words, some of the test repeating training texts, and what they are.

    Words are drawn as often as those of a language are (Zipf), and their lengths are those of the
    questions of banking77, on which tests count the duplicates.
    """
    rng = np.random.default_rng(0)
    letters = np.array(list("eeeettaaooiinnsshrrddlcumwfgypbvk"))
    words = np.array(["".join(rng.choice(letters, k)) for k in rng.integers(2, 10, 3000)])
    often = 1 / (np.arange(len(words)) + 10)
    lengths = rng.integers(4, 17, n_train + n_test)
    drawn = rng.choice(words, lengths.sum(), p=often / often.sum())
    texts = [" ".join(each) for each in np.split(drawn, lengths.cumsum()[:-1])]
    train, test = texts[:n_train], texts[n_train:]
    n_near = n_test // 10
    source = rng.permutation(n_train)[: 25 + n_near]
    for i, j in enumerate(source):
        test[i] = f"{train[j].upper()}!" if i < 25 else f"{train[j]} {rng.choice(words[:20])}"
    text = TEXTS.format(train=n_train, test=n_test, words=len(words), near=n_near)
    return pd.Series(train), pd.Series(test), text


def duplicates(train: pd.Series, test: pd.Series, rounds: int) -> pd.DataFrame:
    """Race `clean.leaks` against all similarities at once."""
    sides = [pd.DataFrame({"text": side}) for side in (train, test)]

    def kit() -> int:
        found = clean.leaks(*sides, text="text")
        return found.exact["test"].nunique() + found.near["test"].nunique()

    def plain() -> int:
        vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=near.GRAMS)
        X = vectors.fit_transform(near.normalise(pd.concat([train, test])))
        return int((cosine_similarity(X[len(train) :], X[: len(train)]) >= 0.9).any(axis=1).sum())

    timed = common.race(
        {"kit": _always(kit), "scikit-learn, all at once": _always(plain)},
        rounds=rounds,
        judge=float,
    )
    table = common.compare(timed, ours="kit", work=1, unit="searches")
    seconds = timed.groupby("variant")["wall_s"].median()
    return table.assign(wall_s=table["variant"].map(seconds))


def bars(
    ratios: list[tuple[str, pd.DataFrame]], found: pd.DataFrame, test: pd.Series
) -> pd.DataFrame:
    """Return every bar beside what was measured."""
    rows: list[tuple[str, float, float, bool]] = []
    for title, table in ratios:
        peer = table[table["variant"] == PEER].iloc[0]
        rows += [
            (f"{title}: times as fast", FASTER, peer["ratio_cpu"], peer["ratio_cpu"] >= FASTER),
            (f"{title}: same features", 1.0, peer["score"], peer["score"] == 1),
        ]
    seconds = found.set_index("variant").loc["kit", "wall_s"]
    rows.append((f"seconds for {len(test):,} texts, at most", SECONDS, seconds, seconds < SECONDS))
    table = pd.DataFrame(rows, columns=["what", "bar", "measured", "reached"])
    return table.assign(reached=np.where(table["reached"], "yes", "no"))


def _always(call: Callable[[], Any]) -> common.Prepare:
    """Make a variant of a call that is the same in every round."""
    return lambda i: call


if __name__ == "__main__":
    main()
