"""Every exercise refuses its stub and planted wrong answers, and takes the notebook's solution."""

import ast
import re
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest

from kit import lesson

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def _sigmoid(z):
    return np.exp(-np.logaddexp(0, -z))


def _slopes_summed(x, t, w, b):
    delta = _sigmoid(x @ w + b) - t
    return x.T @ delta, delta.sum()


def _slopes_uphill(x, t, w, b):
    delta = (t - _sigmoid(x @ w + b)) / len(t)
    return x.T @ delta, delta.sum()


def _slopes_of_squared_error(x, t, w, b):
    p = _sigmoid(x @ w + b)
    delta = 2 * (p - t) * p * (1 - p) / len(t)
    return x.T @ delta, delta.sum()


def _slopes_not_summed(x, t, w, b):
    delta = (_sigmoid(x @ w + b) - t) / len(t)
    return x.T @ delta, delta


def _slopes_overflowing(x, t, w, b):
    odds = np.exp(x @ w + b)
    delta = (odds / (1 + odds) - t) / len(t)
    return x.T @ delta, delta.sum()


def _step_in_place(w, g, v, *, lr, momentum):
    v *= momentum
    v += g
    w -= lr * v
    return w, v


def _softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def _masked(scores, nothing=-np.inf):
    return np.where(np.tri(len(scores), dtype=bool), scores, nothing)


def _mixed(scores, v):
    return _softmax(scores) @ v


def _bits_overflowing(logits, targets):
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return -np.log2(p[range(len(targets)), targets]).mean()


def _nucleus_by(p, stays, *, whole=True):
    order = np.argsort(-p)
    mass = p[order]
    kept = np.zeros_like(p)
    kept[order] = np.where(stays(np.cumsum(mass) - mass, mass), mass, 0.0)
    return kept / max(kept.sum(), 1e-9) if whole else kept


def _quantised(w, step, whole=np.round, kind=np.int8):
    return whole(w / step[:, None]).astype(kind), step


def _cache_bytes(*, layers, groups, head, tokens, size):
    return 2 * layers * groups * head * tokens * size


def _times(layers, rows, *, bytes_per_s, flop_per_s, sides=1, operations=2):
    n, m = np.array(layers).T
    moved = 4 * (n * m + sides * rows * (n + m))
    return moved / bytes_per_s, operations * rows * n * m / flop_per_s


def _least_time(layers, rows, *, joined=np.maximum, equal="memory", **told):
    memory, compute = _times(layers, rows, **told)
    limits = np.where(compute > memory, "compute", np.where(memory > compute, "memory", equal))
    return joined(memory, compute).sum(), limits.tolist()


def _least_of_sums(layers, rows, **told):
    memory, compute = _times(layers, rows, **told)
    return max(memory.sum(), compute.sum()), _least_time(layers, rows, **told)[1]


def _calibration_unsorted(p, truth, n_bins=10):
    bins = np.array_split(np.arange(len(p)), n_bins)
    return float(np.mean([abs(p[rows].mean() - truth[rows].mean()) for rows in bins]))


def _calibration_signed(p, truth, n_bins=10):
    bins = np.array_split(np.argsort(p, kind="stable"), n_bins)
    return float(np.mean([p[rows].mean() - truth[rows].mean() for rows in bins]))


def _number(text):
    return pd.to_numeric(text.strip("$€% "), errors="coerce")


def _information_of_signs(x, y):
    p = pd.crosstab(np.asarray(x), np.asarray(y), normalize=True).to_numpy()
    p = np.where(p > 0, p, 1e-3)  # smoothed, so that no logarithm is of nought
    independent = p.sum(1, keepdims=True) * p.sum(0, keepdims=True)
    return float((p * np.log(p / independent)).sum())


def _entropy_of_x(x, y):
    p = pd.Series(x).value_counts(normalize=True)
    return float(-(p * np.log(p)).sum())


def _of_groups(scores, m, stays):
    groups = scores.reshape(-1, m)
    return np.array([stays(group) for group in groups], dtype=bool).reshape(scores.shape)


def _highest(scores, n, m):
    return _of_groups(scores, m, lambda group: group.argsort().argsort() >= m - n)


def _hidden(X, W1, b1):
    return np.maximum(X @ W1.T + b1, 0)


def _fitted(given, goal, bias=None):
    weights = np.linalg.lstsq(given, goal, rcond=None)[0].T
    return weights, np.zeros(goal.shape[1]) if bias is None else bias


def _refit_about_the_line(X, W1, b1, W2, b2, keep):
    given = np.column_stack([(X @ W1.T + b1)[:, keep], np.ones(len(X))])
    weights, _ = _fitted(given, _hidden(X, W1, b1) @ W2.T + b2)
    return weights[:, :-1], weights[:, -1]


def _refit_of_the_bias_alone(X, W1, b1, W2, b2, keep):
    hidden, gone = _hidden(X, W1, b1), np.setdiff1d(np.arange(len(W1)), keep)
    return W2[:, keep], b2 + hidden[:, gone].mean(0) @ W2[:, gone].T


def _chosen_by(layers, budget, judge, fits=np.less_equal):
    choices = [[]]
    for sizes in layers:
        choices = [[*choice, i] for choice in choices for i in range(len(sizes))]
    total = [np.sum([s[i] for s, i in zip(layers, c, strict=True)], axis=0) for c in choices]
    able = [(judge(*t), c) for t, c in zip(total, choices, strict=True) if fits(t[0], budget)]
    return min(able)[1] if able else None


def _fastest(layers, budget):
    return [min(range(len(sizes)), key=lambda i: sizes[i]) for sizes in layers]


def _greedy(layers, budget):
    chosen, left = [], budget
    for sizes in layers:
        able = [i for i, (ms, _) in enumerate(sizes) if ms <= left]
        if not able:
            return None
        chosen.append(min(able, key=lambda i: sizes[i][1]))
        left -= sizes[chosen[-1]][0]
    return chosen


# exercise -> wrong answers that a learner might give; an exercise without them fails the test
def _adamw(w, g, m, s, k, *, lr, decay=0.0):
    m, s = 0.9 * m + 0.1 * g, 0.999 * s + 0.001 * g**2
    step = m / (1 - 0.9**k) / (np.sqrt(s / (1 - 0.999**k)) + 1e-8)
    return w - lr * decay * w - lr * step, m, s


def _survivors(losses, rungs, keep, judge, rounded=np.ceil):
    running = list(range(len(losses)))
    for rung in rungs:
        running.sort(key=lambda i: judge(losses[i][:rung]))
        running = running[: int(rounded(keep * len(running)))]
    return sorted(running)


WRONG = {
    "augment.mixup": [
        lambda xa, xb, ya, yb, lam: ((1 - lam) * xa + lam * xb, (1 - lam) * ya + lam * yb),
        lambda xa, xb, ya, yb, lam: (lam * xa + (1 - lam) * xb, ya if lam >= 0.5 else yb),
        lambda xa, xb, ya, yb, lam: lam * xa + (1 - lam) * xb,
    ],
    "augment.worth_it": [
        lambda gains, t: np.mean(gains) > t * np.std(gains),
        lambda gains, t: min(gains) > 0,
        lambda gains, t: abs(np.mean(gains)) > t * np.std(gains, ddof=1) / np.sqrt(len(gains)),
    ],
    "clean.amount": [
        lambda text: _number(text.replace(",", "")),
        lambda text: _number(text.replace(".", "").replace(",", ".")),
        lambda text: _number(text) if text != "n/a" else None,
    ],
    "clean.key": [
        lambda name: name.lower().replace(",", "").replace(".", ""),
        lambda name: name.lower().split()[0],
        lambda name: frozenset(name.lower().split()),
    ],
    "select.information": [_information_of_signs, _entropy_of_x],
    "select.rss": [
        lambda G, c, yy, columns: yy - (c[columns] ** 2 / np.diag(G)[columns]).sum(),
        lambda G, c, yy, columns: yy - c[columns] @ np.linalg.solve(G, c)[columns],
    ],
    "explain.shapley": [
        lambda game, player: game[frozenset({player})] - game[frozenset()],
        lambda game, player: game[max(game, key=len)] - game[max(game, key=len) - {player}],
        # the mean over sets instead of orders: right for two players, and only for them
        lambda game, player: np.mean(
            [game[s | {player}] - game[s] for s in game if player not in s]
        ),
    ],
    "explain.slopes": [
        lambda z, f, weight: np.linalg.lstsq(z, f, rcond=None)[0],
        lambda z, f, weight: np.linalg.lstsq(np.c_[np.ones(len(z)), z], f, rcond=None)[0][1:],
        lambda z, f, weight: np.linalg.lstsq(z * weight[:, None], f * weight, rcond=None)[0],
    ],
    "start.late_frac": [
        lambda delay: (delay.dropna() > 15).mean(),
        lambda delay: (delay >= 15).sum() / len(delay),
        lambda delay: (delay.dropna().abs() >= 15).mean(),
    ],
    "start.known_before": [
        {"sched_dep_time", "sched_arr_time", "carrier", "origin", "dest", "distance"},
        {"sched_dep_time", "sched_arr_time", "carrier", "origin", "dest", "tailnum"}
        | {"distance", "dep_delay"},
    ],
    "start.worth_an_alarm": [
        lambda p, *, alarm_cost, surprise_cost: p > 0.5,
        lambda p, *, alarm_cost, surprise_cost: p > alarm_cost,
        lambda p, *, alarm_cost, surprise_cost: p * surprise_cost < alarm_cost,
    ],
    "tune.adamw": [
        lambda w, g, m, s, k, **told: _adamw(w, g + told["decay"] * w, m, s, k, lr=told["lr"]),
        lambda w, g, m, s, k, **told: _adamw(w, g, m, s, 10**9, **told),
        lambda w, g, m, s, k, **told: _adamw(w, g, m, s, k, **told)[0],
    ],
    "tune.halving": [
        lambda losses, rungs, keep: sorted(
            np.argsort([min(row) for row in losses])[: int(np.ceil(keep * len(losses)))]
        ),
        lambda losses, rungs, keep: _survivors(losses, rungs, keep, lambda seen: seen[-1]),
        lambda losses, rungs, keep: _survivors(losses, rungs, keep, min, np.floor),
    ],
    "language_model.attend": [
        lambda q, k, v: _mixed(q @ k.T / np.sqrt(q.shape[1]), v),
        lambda q, k, v: _mixed(_masked(q @ k.T), v),
        lambda q, k, v: _mixed(_masked(q @ k.T / len(q)), v),
        lambda q, k, v: _mixed(_masked(k @ q.T / np.sqrt(q.shape[1])), v),
        lambda q, k, v: np.tril(_softmax(q @ k.T / np.sqrt(q.shape[1]))) @ v,
        lambda q, k, v: _masked(q @ k.T / np.sqrt(q.shape[1]), nothing=0.0) @ v,
    ],
    "language_model.bits": [
        lambda logits, targets: -np.log(_softmax(logits))[range(len(targets)), targets].mean(),
        lambda logits, targets: -np.log2(_softmax(logits)[range(len(targets)), targets].mean()),
        lambda logits, targets: -np.log2(_softmax(logits))[range(len(targets)), targets].sum(),
        lambda logits, targets: _bits_overflowing(logits, targets),
    ],
    "language_model.nucleus": [
        lambda p, top_p: p,
        lambda p, top_p: np.where(p >= top_p * p.max(), p, 0.0),
        lambda p, top_p: _nucleus_by(p, lambda before, mass: before + mass <= top_p),
        lambda p, top_p: _nucleus_by(p, lambda before, mass: before <= top_p),
        lambda p, top_p: _nucleus_by(p, lambda before, mass: before < top_p, whole=False),
    ],
    "infer.quantise": [
        lambda w: (np.round(w / np.abs(w).max() * 127).astype(np.int8), np.abs(w).max() / 127),
        lambda w: _quantised(w, np.abs(w).max(axis=1) / 128),
        lambda w: _quantised(w, w.max(axis=1) / 127),
        lambda w: _quantised(w, np.abs(w).max(axis=1) / 127, np.trunc),
        lambda w: _quantised(w, np.abs(w).max(axis=1) / 127, kind=float),
        lambda w: _quantised(w, np.abs(w).max(axis=1) / 127),  # nought by nought
    ],
    "infer.texts_that_fit": [
        lambda memory, *, weights, **shape: (memory - weights) / _cache_bytes(**shape),
        lambda memory, *, weights, **shape: memory // _cache_bytes(**shape),
        lambda memory, *, weights, **shape: (memory - weights) // _cache_bytes(**shape),
        lambda memory, *, weights, **shape: (
            max(0, memory - weights) // (_cache_bytes(**shape) // 2)
        ),
    ],
    "infer.least_time": [
        lambda layers, rows, **rates: _least_time(layers, rows, **rates, joined=np.add),
        lambda layers, rows, **rates: _least_time(layers, rows, **rates, sides=0),
        lambda layers, rows, **rates: _least_time(layers, rows, **rates, operations=1),
        lambda layers, rows, **rates: _least_time(layers, rows, **rates, equal="compute"),
        lambda layers, rows, **rates: _least_time(layers, rows, **rates)[0],
        lambda layers, rows, **rates: _least_of_sums(layers, rows, **rates),
    ],
    "prune.nm_mask": [
        lambda scores, n, m: scores >= np.sort(scores)[:, -scores.shape[1] * n // m, None],
        lambda scores, n, m: ~_highest(scores, n, m),
        lambda scores, n, m: _highest(scores, m - n, m),
        lambda scores, n, m: _highest(np.abs(scores), n, m),
        lambda scores, n, m: _highest(scores, n, m).astype(float),
        lambda scores, n, m: _of_groups(scores, m, lambda group: group >= np.sort(group)[m - n]),
        lambda scores, n, m: _highest(scores.T.copy(), n, len(scores)).T,
    ],
    "prune.refit": [
        _refit_of_the_bias_alone,
        lambda X, W1, b1, W2, b2, keep: _fitted(
            _hidden(X, W1, b1)[:, keep], _hidden(X, W1, b1) @ W2.T, b2
        ),
        lambda X, W1, b1, W2, b2, keep: _fitted(
            _hidden(X, W1, b1)[:, keep], _hidden(X, W1, b1) @ W2.T + b2
        ),
        _refit_about_the_line,
        lambda X, W1, b1, W2, b2, keep: _fitted(_hidden(X, W1, b1)[:, keep], X)[0],
    ],
    "prune.under_budget": [
        _fastest,
        _greedy,
        lambda layers, budget: _chosen_by(layers, budget, lambda ms, loss: loss, np.less),
        lambda layers, budget: _chosen_by(layers, budget, lambda ms, loss: ms * loss),
        lambda layers, budget: _chosen_by(layers, np.inf, lambda ms, loss: loss),
        lambda layers, budget: (
            _chosen_by(layers, budget, lambda ms, loss: loss) or _fastest(layers, budget)
        ),
    ],
    "tune.limit": [
        lambda A: 2 / np.linalg.eigvalsh(A.T @ A / len(A))[-1],
        lambda A: 1 / np.linalg.eigvalsh(A.T @ A)[-1],
        lambda A: len(A) / np.trace(A.T @ A),
    ],
    "train.gradient": [
        _slopes_summed,
        _slopes_uphill,
        _slopes_of_squared_error,
        _slopes_not_summed,
        _slopes_overflowing,
    ],
    "train.step": [
        lambda w, g, v, *, lr, momentum: (w - lr * g, momentum * v + g),
        lambda w, g, v, *, lr, momentum: (w - lr * v, momentum * v + g),
        lambda w, g, v, *, lr, momentum: (w + lr * (momentum * v + g), momentum * v + g),
        lambda w, g, v, *, lr, momentum: w - lr * (momentum * v + g),
        _step_in_place,
    ],
    "train.calibration_error": [
        lambda p, truth, n_bins=10: float(abs(p.mean() - truth.mean())),
        lambda p, truth, n_bins=10: float(((p - truth) ** 2).mean()),
        _calibration_unsorted,
        _calibration_signed,
    ],
}


def answers(path: Path, tag: str) -> dict[str, tuple[str, str]]:
    """Return exercise -> (its cell's source without the check, what the check is given)."""
    found = {}
    for cell in nbformat.read(path, as_version=4).cells:
        if tag in cell.metadata.get("tags", []):
            tree = ast.parse(cell.source)
            call = tree.body.pop().value
            name, answer = call.args
            found[ast.literal_eval(name)] = ast.unparse(tree), ast.unparse(answer)
    return found


def taken(tag: str) -> dict[str, tuple[Path, str, str]]:
    return {
        name: (path, *parts) for path in NOTEBOOKS for name, parts in answers(path, tag).items()
    }


STUBS, SOLUTIONS = taken("exercise-stub"), taken("exercise-solution")
every = pytest.mark.parametrize("name", lesson.names())


def run(path: Path, source: str, answer: str) -> object:
    """Evaluate a cell's answer with nothing but the names that the exercises may rely on."""
    scope = {"np": np, "pd": pd, "lesson": lesson}
    exec(compile(source, str(path), "exec"), scope)
    return eval(answer, scope)


def test_every_exercise_has_a_stub_a_solution_and_planted_wrong_answers():
    names = set(lesson.names())

    assert set(STUBS) == names
    assert set(SOLUTIONS) == names
    assert set(WRONG) == names
    assert all(len(wrong) >= 2 for wrong in WRONG.values())


@every
def test_the_stub_is_told_not_yet(name):
    verdict = lesson.check(name, run(*STUBS[name]))

    assert not verdict.passed
    assert verdict.text.startswith(f"{name}: not yet: tried ")


@every
def test_the_solution_of_the_notebook_passes(name):
    verdict = lesson.check(name, run(*SOLUTIONS[name]))

    assert verdict.passed, verdict.text


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    ("name", "i"), [(name, i) for name, wrong in WRONG.items() for i in range(len(wrong))]
)
def test_a_planted_wrong_answer_fails_on_what_it_gives_and_not_by_a_crash(name, i):
    verdict = lesson.check(name, WRONG[name][i])

    assert not verdict.passed
    assert ": not yet: tried " in verdict.text


def test_a_step_in_place_is_told_that_it_changed_what_it_was_given():
    verdict = lesson.check("train.step", _step_in_place)

    assert verdict.text == (
        "train.step: not yet: tried the arrays that were passed in, expected unchanged, "
        "got w = [0.95, -2.4], v = [0.5, 4.0]. Stuck? lesson.hint('train.step')"
    )


@every
def test_no_hint_is_the_solution(name):
    _, source, answer = SOLUTIONS[name]
    hints = lesson._find(name, "lesson.hint").hints
    lines = [line.strip() for line in f"{source}\n{answer}".splitlines() if len(line.strip()) > 40]

    assert len(hints) >= 2
    assert [line for line in lines for hint in hints if line in hint] == []


@every
def test_the_stored_outputs_say_not_yet_and_passed(name):
    for found, word in [(STUBS, "not yet: "), (SOLUTIONS, "passed. ")]:
        path = found[name][0]
        texts = [
            out["data"]["text/plain"]
            for cell in nbformat.read(path, as_version=4).cells
            if cell.cell_type == "code" and f'lesson.check("{name}"' in cell.source
            for out in cell.outputs
            if out.output_type == "execute_result"
        ]

        assert any(re.match(rf"{re.escape(name)}: {word}", text) for text in texts)
