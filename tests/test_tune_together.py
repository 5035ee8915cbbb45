"""Members trained together end where the loop takes each alone, and the worst are dropped."""

import copy

import pytest
import torch
from torch import nn

from kit import models, train
from kit.tune import together
from kit.tune.job import Alone, Job, Outcome
from kit.tune.race import Race, Rungs
from kit.tune.together import MemberDropout, Together, shape_of

N, WIDTH = 240, 5


def rows(n: int = N, seed: int = 1) -> torch.Tensor:
    return torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(seed))


X, X_VAL = rows(), rows(90, 2)
TARGETS = {
    "yes/no": lambda x: x[:, 0] * x[:, 1] > 0,
    "classes": lambda x: torch.bucketize(x.sum(1), torch.tensor([-1.0, 1.0])),
    "quantity": lambda x: x.sum(1).sin(),
}
CONFIGS = [
    {"lr": 0.3, "momentum": 0.0, "weight_decay": 0.0},
    {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01},
    {"lr": 0.01, "momentum": 0.5, "weight_decay": 0.0},
    {"lr": 0.1, "momentum": 0.7, "weight_decay": 1e-4},
]


def net(n_outputs: int = 1, **settings) -> nn.Module:
    return models.MLP(WIDTH, n_outputs, hidden=(8,), **settings)


def job(model_fn=net, kind: str = "yes/no", **settings) -> Job:
    make = TARGETS[kind]
    told = {"epochs": 5, "batch": 32, "seed": 0, "loss": None} | settings
    return Job(model_fn, X, make(X), X_VAL, make(X_VAL), **told)


def raced(job: Job, configs, *, together: bool | None) -> Race:
    race = Race(job, configs, together=together)
    for _ in range(job.epochs):
        race.epoch()
    race.finish()
    return race


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("trace_from", [1, 10**9], ids=["traced", "untraced"])
def test_together_is_the_same_as_alone(kind, seed, trace_from, monkeypatch):
    monkeypatch.setattr(together, "TRACE_FROM", trace_from)
    smoothing = {} if kind == "quantity" else {"label_smoothing": 0.1}
    configs = [config | smoothing for config in CONFIGS]
    the_job = job(lambda: net(3 if kind == "classes" else 1), kind, seed=seed)

    one, many = (raced(the_job, configs, together=way).outcomes for way in (False, True))

    for alone, member in zip(one, many, strict=True):
        assert member.losses == pytest.approx(alone.losses, rel=5e-3)
        for name, weight in alone.weights.items():
            torch.testing.assert_close(member.weights[name], weight, rtol=1e-2, atol=1e-3)
    best = [min(range(4), key=lambda i: outcomes[i].best) for outcomes in (one, many)]
    assert best[0] == best[1]


class Tied(nn.Module):
    """A net that uses one matrix twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.second.weight = self.first.weight
        self.out = nn.Linear(WIDTH, 1)

    def forward(self, x):
        return self.out(torch.tanh(self.second(torch.tanh(self.first(x)))))


def test_tied_weights_stay_tied_and_are_kept_under_both_names():
    one, many = (raced(job(Tied), CONFIGS, together=way).outcomes for way in (False, True))

    for alone, member in zip(one, many, strict=True):
        assert member.losses == pytest.approx(alone.losses, rel=5e-3)
        for name, weight in alone.weights.items():
            torch.testing.assert_close(member.weights[name], weight, rtol=1e-2, atol=1e-3)


def test_tracing_leaves_running_statistics_as_they_were(monkeypatch):
    def model():
        return nn.Sequential(nn.BatchNorm1d(WIDTH, affine=False), nn.Linear(WIDTH, 1))

    found = []
    for trace_from in (1, 10**9):
        monkeypatch.setattr(together, "TRACE_FROM", trace_from)
        found.append([each.losses for each in raced(job(model), CONFIGS, together=True).outcomes])

    assert found[0] == [pytest.approx(losses, rel=1e-5) for losses in found[1]]


def test_members_whose_attention_drops_its_own_fraction_are_kept_apart():
    def model(dropout):
        return nn.TransformerEncoderLayer(WIDTH * 2, 2, 8, dropout=dropout)

    keys = [shape_of(model(dropout), {"dropout": dropout}) for dropout in (0.1, 0.6)]

    assert keys[0] != keys[1]


def _dropping(dropout):
    return nn.Sequential(nn.Linear(WIDTH, 8), nn.Dropout(dropout), nn.Linear(8, 1))


def test_all_may_be_dropped():
    configs = [{"lr": 0.1, "dropout": dropout} for dropout in (0.5, 1.0)]

    race = raced(job(_dropping), configs, together=True)

    assert [each.state for each in race.outcomes] == ["done", "done"]


def test_alone_is_the_loop_of_train_fit():
    config = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}
    the_job = job()

    losses = raced(the_job, [config], together=False).outcomes[0].losses

    def sgd(weights, **settings):
        return torch.optim.SGD(weights, momentum=0.9, **settings)

    fitted = train.fit(
        the_job.build(config),
        *(the_job.X, the_job.y),
        validation=(the_job.X_val, the_job.y_val),
        epochs=5,
        lr=0.1,
        weight_decay=0.01,
        batch=32,
        optimizer=sgd,
    )
    assert losses == pytest.approx(fitted.table["validation_loss"].tolist(), rel=1e-4)


def test_smoothed_labels_are_those_of_torch():
    logits, classes = torch.randn(20, 3), torch.randint(0, 3, (20,))
    yes = classes > 1

    ours = job(kind="classes").train_loss(logits, classes, 0.2)
    ours_yes = job().train_loss(logits[:, :1], yes, 0.2)

    theirs = nn.functional.cross_entropy(logits, classes, label_smoothing=0.2)
    pairs = torch.stack([torch.zeros(20), logits[:, 0]], dim=1)
    theirs_yes = nn.functional.cross_entropy(pairs, yes.long(), label_smoothing=0.2)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    assert ours_yes.item() == pytest.approx(theirs_yes.item(), rel=1e-5)


def test_the_weights_of_a_member_are_those_that_gave_its_best_loss():
    the_job = job()

    outcomes = raced(the_job, CONFIGS, together=True).outcomes

    for outcome in outcomes:
        model = net()
        model.load_state_dict(outcome.weights)
        loss = the_job.judge(train.predict(model, X_VAL))
        assert float(loss) == pytest.approx(outcome.best, rel=1e-4)


@pytest.mark.parametrize("trace_from", [1, 10**9], ids=["traced", "untraced"])
def test_every_member_drops_its_own_fraction_of_its_own_cells(trace_from, monkeypatch):
    monkeypatch.setattr(together, "TRACE_FROM", trace_from)

    class Drops(nn.Module):
        """Learns the mean of what its dropout lets through."""

        def __init__(self, dropout: float) -> None:
            super().__init__()
            self.drop = nn.Dropout(dropout)
            self.level = nn.Parameter(torch.zeros(1))

        def forward(self, x):
            ones = self.drop(torch.ones_like(x))
            return self.level * 0 + (self.level - (ones == 0).float().mean(1)).square()

    configs = [{"lr": 0.5, "momentum": 0.0, "dropout": p} for p in (0.1, 0.5, 0.8, 0.8)]
    the_job = job(Drops, "quantity", loss=lambda outputs, y: outputs.mean(), epochs=20)
    group = Together(the_job, configs, [Drops(config["dropout"]) for config in configs])

    for epoch in range(20):
        group.epoch(epoch)

    levels = [float(group.weights(i)["level"]) for i in range(4)]
    assert levels[:3] == pytest.approx([0.1, 0.5, 0.8], abs=0.05)
    assert levels[2] != levels[3]


def test_members_of_other_dropout_have_one_shape_and_of_other_widths_or_settings_have_not():
    def key(**config):
        return shape_of(build(**config), config)

    def build(dropout=0.1, hidden=8, scale=1.0):
        return models.MLP(WIDTH, 1, hidden=(hidden,), dropout=dropout)

    assert key(dropout=0.1) == key(dropout=0.4)
    assert key(hidden=8) != key(hidden=9)
    assert key(scale=1.0) != key(scale=2.0)  # it may change what no repr shows


def test_a_fraction_that_no_module_holds_keeps_members_apart():
    class Hidden(nn.Module):
        def __init__(self, dropout: float) -> None:
            super().__init__()
            self.line, self.dropout = nn.Linear(WIDTH, 1), dropout

        def forward(self, x):
            return nn.functional.dropout(self.line(x), self.dropout, self.training)

    keys = [shape_of(Hidden(p), {"dropout": p}) for p in (0.1, 0.2)]

    assert keys[0] != keys[1]


def test_the_models_that_were_built_are_not_changed():
    model = nn.Sequential(nn.Linear(WIDTH, 4), nn.Dropout(0.3), nn.Linear(4, 1))
    before = copy.deepcopy(model.state_dict())

    group = Together(job(lambda dropout: model), [{"dropout": 0.3}] * 2, [model, model])
    group.epoch(0)

    assert type(model[1]) is nn.Dropout
    assert all(torch.equal(before[name], now) for name, now in model.state_dict().items())
    assert group.weights(0).keys() == before.keys()
    assert not MemberDropout(0.1).state_dict()


def test_what_is_frozen_stays_as_it_was():
    def build():
        model = nn.Sequential(nn.Linear(WIDTH, 4), nn.ReLU(), nn.Linear(4, 1))
        model[0].requires_grad_(False)
        return model

    the_job = job(build)
    first = the_job.build({})

    outcomes = raced(the_job, CONFIGS[:2], together=True).outcomes

    for outcome in outcomes:
        assert torch.equal(outcome.weights["0.weight"], first.state_dict()["0.weight"])
        assert not torch.equal(outcome.weights["2.weight"], first.state_dict()["2.weight"])


def test_a_model_that_cannot_be_trained_together_is_trained_one_by_one_and_the_record_says_so():
    def build():
        return nn.Sequential(nn.Linear(WIDTH, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1))

    race = raced(job(build), CONFIGS[:2], together=True)
    alone = raced(job(build), CONFIGS[:2], together=False)

    assert race.notes[0].startswith("2 one by one: cannot be trained together (RuntimeError:")
    assert [each.losses for each in race.outcomes] == [each.losses for each in alone.outcomes]


def test_a_member_whose_loss_is_no_number_is_stopped_and_the_others_go_on_as_without_it():
    wild = {"lr": 1e30, "momentum": 0.9, "weight_decay": 0.0}

    with_it = raced(job(), [CONFIGS[0], wild, CONFIGS[1]], together=True).outcomes
    without = raced(job(), [CONFIGS[0], CONFIGS[1]], together=True).outcomes

    assert with_it[1].state == "failed"
    assert with_it[1].why == "diverged: the loss was nan in epoch 1"
    for one, two in zip([with_it[0], with_it[2]], without, strict=True):
        assert one.losses == pytest.approx(two.losses, rel=1e-4)


def test_a_model_that_fails_half_way_fails_alone():
    class Fragile(nn.Module):
        def __init__(self, fragile: bool) -> None:
            super().__init__()
            self.line, self.fragile, self.calls = nn.Linear(WIDTH, 1), fragile, 0

        def forward(self, x):
            self.calls += 1
            if self.fragile and self.calls > 12:
                raise RuntimeError("it broke")
            return self.line(x)

    configs = [{"fragile": False}, {"fragile": True}]

    outcomes = raced(job(Fragile), configs, together=True).outcomes

    assert [each.state for each in outcomes] == ["done", "failed"]
    assert outcomes[1].why == "RuntimeError: it broke"


# ---- halving


def outcome(*losses: float) -> Outcome:
    return Outcome({}, losses=list(losses))


def test_one_of_three_goes_on_after_epochs_2_4_and_8_and_four_at_least():
    rungs, members = Rungs(12), [outcome(1.0 + i) for i in range(64)]
    left = []

    for _ in range(11):
        for each in members:
            each.losses.append(each.losses[0])
        losers = rungs.losers(members)
        members = [each for each in members if each not in losers]
        left.append(len(members))

    assert left == [21, 21, 7, 7, 7, 7, 4, 4, 4, 4, 4]
    assert [each.losses[0] for each in members] == [1.0, 2.0, 3.0, 4.0]


def test_a_later_generation_is_held_against_those_before_it():
    rungs = Rungs(12)
    rungs.losers([outcome(0.5, 0.5) for _ in range(30)])

    losers = rungs.losers([outcome(0.4, 0.4), outcome(0.6, 0.6)])

    assert [each.best for each in losers] == [0.6]


def test_rungs_that_end_the_race_are_left_out():
    assert Rungs(4).losers([outcome(1.0, 1.0, 1.0, 1.0 + i) for i in range(20)]) == []


@pytest.mark.parametrize(("together_s", "engine"), [(3.9, Together), (4.1, Alone)])
def test_auto_goes_by_the_clock(together_s, engine, monkeypatch):
    clock = iter([together_s, 1.0])  # of a step of all four, of a step of one
    monkeypatch.setattr("kit.tune.race._fastest_s", lambda job, step: next(clock))

    race = Race(job(), CONFIGS, together=None)

    assert {type(group) for group, _ in race._groups} == {engine}
    way = "together" if engine is Together else "one by one"
    ratio = f"{4 / together_s:.1f}"
    assert race.notes == [f"4 {way}: a step is {ratio} times as fast together"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_256_members_are_trained_at_once_and_agree_with_the_loop():
    y, y_val = (TARGETS["yes/no"](each) for each in (X, X_VAL))
    given = [each.cuda() for each in (X, y, X_VAL, y_val)]
    the_job = Job(net, *given, epochs=3, batch=32, seed=0, loss=None)
    configs = [{"lr": 10 ** (-3 + 3 * i / 255), "momentum": 0.5} for i in range(256)]

    many = raced(the_job, configs, together=True)

    assert len(many._groups) == 1
    assert len(many._groups[0][1]) == 256
    for i in (0, 100, 200):
        alone = raced(the_job, [configs[i]], together=False).outcomes[0]
        assert many.outcomes[i].losses == pytest.approx(alone.losses, rel=5e-3)
        assert all(weight.is_cuda for weight in many.outcomes[i].weights.values())
