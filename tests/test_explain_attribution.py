import dataclasses

import matplotlib.pyplot as plt
import numpy as np
import pytest
import shap as stock
from numpy.testing import assert_allclose

from kit import show
from kit.explain.attribution import record


@pytest.fixture(autouse=True)
def figures():
    yield
    plt.close("all")


def made(*, outputs=None, errors=True, lengths=None, n=30):
    """Return a record of random values that add up; the third feature is by far the strongest."""
    rng = np.random.default_rng(0)
    shape = (n, 4) if outputs is None else (n, 4, len(outputs))
    values = rng.normal(size=shape) * np.array([1.0, 2, 9, 4]).reshape(
        1, 4, *[1] * (len(shape) - 2)
    )
    base = np.full((n, *shape[2:]), 0.5)
    data = rng.normal(size=(n, 4))
    if lengths:
        data = np.array([["the", "cat", "sat", "down"], ["a", "cat", "", ""]], object)
        values[1, 2:] = 0
    return record(
        values=values,
        base_values=base,
        predictions=base + values.sum(1),
        data=data,
        names=["age", "size", "place", "time"],
        method="by hand",
        outputs=outputs,
        error_std=np.abs(values) / 100 if errors else None,
        lengths=lengths,
    )


def test_the_table_has_a_row_a_feature_the_strongest_first():
    found = made()

    assert found.table["feature"].tolist() == ["place", "time", "size", "age"]
    sizes = found.table.set_index("feature")["mean_abs_value"]
    assert_allclose(sizes["age"], np.abs(found.values[:, 0]).mean())
    assert_allclose(found.table["mean_error_std"], found.table["mean_abs_value"] / 100)


def test_the_table_averages_over_outputs():
    found = made(outputs=["yes", "no"])

    sizes = found.table.set_index("feature")["mean_abs_value"]
    assert_allclose(sizes["size"], np.abs(found.values[:, 1]).mean())


def test_facts_lead_with_the_strongest_feature_and_tell_the_error():
    found = made()

    facts = dataclasses.replace(found, extra={"r2": np.array([0.5, 0.7, 0.6])}).facts()

    assert list(facts) == ["strongest", "method", "rows", "error", "R² of the fit"]
    assert facts["strongest"].startswith("place (")
    assert facts["error"] == "1 % of the mean value"
    assert facts["R² of the fit"] == "0.6"
    whole = dataclasses.replace(found, extra={"r2": np.ones(3), "stability": np.array([0.9, 1])})
    assert whole.facts()["R² of the fit"] == "1; seeds agree to 0.95"


def test_top_orders_the_features_of_one_row():
    found = made(outputs=["yes", "no"])

    top = found.top(11, 3, output="no")

    column = found.values[11, :, 1]
    assert column[2] < 0 < column[3]  # the strongest one lowers the prediction
    order = np.argsort(-np.abs(column))[:3]
    assert top["feature"].tolist() == [found.names[j] for j in order]
    assert_allclose(top["value"], column[order])
    assert_allclose(top["data"], found.data[11, order])
    assert_allclose(top["error_std"], np.abs(column[order]) / 100)


def test_one_output_alone_is_a_record_of_its_own():
    found = made(outputs=["yes", "no"])

    alone = found.one("no")

    assert alone.outputs is None
    assert_allclose(alone.values, found.values[:, :, 1])
    assert_allclose(alone.values.sum(1) + alone.base_values, alone.predictions)
    assert alone.one() is alone


def test_one_output_asks_and_runs_again_for_itself():
    whole = made(outputs=["yes", "no"])
    found = dataclasses.replace(
        whole, rerun=lambda model: model, ask=lambda rows: np.stack([rows[:, 0], rows[:, 1]], 1)
    )

    alone = found.one("no")

    assert_allclose(alone.ask(found.data), found.data[:, 1])
    assert_allclose(alone.rerun(whole).values, whole.values[:, :, 1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda a: a.top(30, output=0),
            (
                "explain.Attribution.top: expected a row from 0 to 29, got 30 (int). "
                "Pass i=0 for the first."
            ),
        ),
        (
            lambda a: a.top(0),
            (
                "explain.Attribution.top: expected one of several outputs, got None (NoneType). "
                "Pass output='yes'. Known: yes, no."
            ),
        ),
        (
            lambda a: a.waterfall(0, output="noo"),
            (
                "explain.Attribution.waterfall: expected a known output, got 'noo' (str). "
                "Did you mean 'no'? Known: no, yes."
            ),
        ),
        (
            lambda a: a.one(2),
            (
                "explain.Attribution.one: expected an output from 0 to 1, got 2 (int). "
                "Pass output=0 for the first."
            ),
        ),
    ],
)
def test_a_row_or_output_that_is_not_there_is_refused(call, message):
    with pytest.raises(ValueError) as caught:
        call(made(outputs=["yes", "no"]))

    assert str(caught.value) == message


@pytest.mark.parametrize("errors", [True, False])
@pytest.mark.parametrize(
    "draw",
    [
        lambda e: stock.plots.bar(e, show=False),
        lambda e: stock.plots.beeswarm(e, show=False),
        lambda e: stock.plots.heatmap(e, show=False),
        lambda e: stock.plots.violin(e, show=False),
        lambda e: stock.plots.scatter(e[:, "size"], show=False),
        lambda e: stock.plots.waterfall(e[0], show=False),
        lambda e: stock.plots.force(e[0], matplotlib=True, show=False),
        lambda e: stock.plots.decision(
            e.base_values[0], e.values, e.data, feature_names=e.feature_names, show=False
        ),
    ],
    ids=["bar", "beeswarm", "heatmap", "violin", "scatter", "waterfall", "force", "decision"],
)
def test_every_plot_of_shap_takes_what_to_shap_gives(draw, errors):
    draw(made(errors=errors).to_shap())

    assert plt.gcf().axes


def test_one_output_of_several_can_be_plotted_by_shap():
    explanation = made(outputs=["yes", "no"]).to_shap()

    stock.plots.beeswarm(explanation[:, :, "no"], show=False)

    assert explanation.shape == (30, 4, 2)
    assert [label.get_text() for label in plt.gca().get_yticklabels()][-1] == "place"


def test_shap_and_lime_get_what_the_record_holds():
    found = made()

    explanation, local = found.to_shap(), found.to_lime(3, num_features=2)

    assert explanation.values.dtype == explanation.base_values.dtype == np.float64
    assert explanation.feature_names == found.names
    assert_allclose(explanation.values, found.values)
    top = found.top(3, 2)
    assert local.as_list() == list(zip(top["feature"], top["value"], strict=True))
    assert local.predicted_value == found.predictions[3]
    assert local.intercept[1] == 0.5


def test_lime_draws_classes_and_texts():
    classes, texts = made(outputs=["yes", "no"]).to_lime(0), made(n=2, lengths=[4, 2])

    figure, page = classes.as_pyplot_figure(label=1), classes.as_html()

    assert figure.axes[0].get_title() == "Local explanation for class no"
    assert '"place"' in page
    assert {word for word, _ in texts.to_lime(1).as_list()} == {"a", "cat"}


def test_texts_of_different_lengths_keep_their_own_tokens():
    found = made(n=2, lengths=[4, 2])

    explanation = found.to_shap()

    assert explanation[1].data.tolist() == ["a", "cat"]
    assert_allclose(explanation[0].values, found.values[0])
    assert_allclose(explanation[1].values, found.values[1, :2])
    assert "cat" in stock.plots.text(explanation[0], display=False)
    sizes = found.table.set_index("feature")["mean_abs_value"]
    assert_allclose(sizes["cat"], np.abs(found.values[:, 1]).mean())
    assert set(sizes.index) == {"the", "cat", "sat", "down", "a"}
    assert found.top(1)["feature"].isin(["a", "cat"]).all()


def test_the_bar_picture_shows_the_mean_sizes():
    found = made()

    ax = found.bar(n=3)

    assert_allclose([bar.get_width() for bar in ax.patches], found.table["mean_abs_value"][:3])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["place", "time", "size"]
    assert ax.get_title(loc="left") + ax.get_title() == "place moves predictions most"


def test_the_waterfall_leads_from_the_base_to_the_prediction():
    found = made()

    ax = found.waterfall(5, n=2)

    spans = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in ax.patches]
    assert_allclose([end - start for start, end in spans][:2], found.top(5, 2)["value"])
    assert_allclose(spans[-1][0], found.base_values[5])
    assert_allclose(spans[0][1], found.predictions[5])
    assert_allclose([spans[0][0], spans[1][0]], [spans[1][1], spans[2][1]])
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels[-1] == "all others"
    assert labels[0].split(" = ")[0] == found.top(5)["feature"][0]


def test_the_waterfall_writes_large_numbers_out():
    found = made()
    found = dataclasses.replace(found, data=1e6 * np.abs(found.data) + 1e6)

    labels = [label.get_text() for label in found.waterfall(5, n=2).get_yticklabels()]

    assert labels[0] == f"place = {found.data[5, 2]:,.0f}"


def test_a_table_is_not_a_text_to_highlight():
    with pytest.raises(TypeError) as caught:
        made().highlight(2)

    assert str(caught.value) == (
        "explain.Attribution.highlight: expected an attribution of texts, got one of a table. "
        "Draw it: attribution.waterfall(2)."
    )


def test_the_beeswarm_shows_every_row_at_its_value_and_is_the_same_every_time():
    found = made(outputs=["yes", "no"])

    ax = found.beeswarm(n=2, output="yes")

    values = found.values[:, :, 0]
    order = np.argsort(-np.abs(values).mean(0))
    for place, points in enumerate(ax.collections):
        offsets = np.asarray(points.get_offsets())
        assert_allclose(offsets[:, 0], values[:, order[place]])
        assert np.abs(offsets[:, 1] - place).max() < 0.5
    again = found.beeswarm(n=2, output="yes")
    assert str(show.digest(again)) == str(show.digest(ax))


def test_a_card_shows_facts_and_table_without_script():
    card = made()._repr_html_()

    assert "place" in card
    assert "<script" not in card
