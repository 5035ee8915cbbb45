"""Figures can be seen by everyone, and their digests tell when something changed."""

import io
import itertools

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import image

from kit import show

# ---- colours

# what a colour (linear RGB) looks like without red and without green cones: Machado, Oliveira and
# Fernandes, A Physiologically-based Model for Simulation of Color Vision Deficiency, IEEE TVCG 15
# (2009), the matrices of severity 1.0
VISIONS = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
}


def linear(colour: str) -> np.ndarray:
    channels = np.array(mpl.colors.to_rgb(colour))
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def contrast(one: str, two: str) -> float:
    """The ratio of WCAG 2 (2008)."""
    low, high = sorted(linear(colour) @ [0.2126, 0.7152, 0.0722] for colour in (one, two))
    return (high + 0.05) / (low + 0.05)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIELAB (1976) under D65 of a linear RGB colour."""
    to_xyz = [[0.4125, 0.3576, 0.1804], [0.2127, 0.7152, 0.0722], [0.0193, 0.1192, 0.9503]]
    xyz = to_xyz @ np.clip(rgb, 0, 1) / [0.9505, 1.0, 1.0888]
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("background", ["#ffffff", "#111111"])
@pytest.mark.parametrize("colour", show.PALETTE)
def test_every_colour_stands_out_on_light_and_on_dark(colour, background):
    assert contrast(colour, background) >= 3


def test_the_contrast_is_measured_as_the_standard_says():
    assert contrast("#000000", "#ffffff") == 21
    assert round(contrast("#777777", "#ffffff"), 2) == 4.48


@pytest.mark.parametrize("vision", VISIONS)
def test_no_two_colours_look_alike_to_any_common_vision(vision):
    seen = [lab(VISIONS[vision] @ linear(colour)) for colour in show.PALETTE]

    distances = [np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)]

    assert min(distances) > 25  # 2.3 can just be told apart side by side


# ---- figures

FRAME = pd.DataFrame({"epoch": [1, 2, 3], "train": [0.9, 0.5, 0.4], "test": [0.9, 0.6, 0.7]})
TABLE = pd.DataFrame({"predicted": [0.1, 0.5, 0.9], "observed": [0.2, 0.5, 0.8]})


def test_a_curve_is_labelled_at_its_ends_and_named_on_its_axes():
    ax = show.curve(FRAME, x="epoch", y=["train", "test"], title="Test rises", ylabel="loss (nats)")

    assert [line.get_ydata().tolist() for line in ax.lines] == [[0.9, 0.5, 0.4], [0.9, 0.6, 0.7]]
    assert [line.get_color() for line in ax.lines] == list(show.PALETTE[:2])
    assert [text.get_text() for text in ax.texts] == ["train", "test"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "loss (nats)")
    assert ax.get_title(loc="left") == "Test rises"


def test_one_curve_names_its_axis_instead_of_its_end():
    ax = show.curve(FRAME, x="epoch", y="train", title="Falls")

    assert ax.get_ylabel() == "train"
    assert list(ax.texts) == []


def test_scales_are_logarithmic_where_asked():
    ax = show.curve(FRAME, x="epoch", y="train", title="t", log_x=True, log_y=True)

    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")


def test_dates_and_words_keep_their_axis():
    frame = FRAME.assign(day=pd.date_range("2013-01-01", periods=3), word=["a", "b", "c"])

    for x in ("day", "word"):
        ax = show.curve(frame, x=x, y="train", title="t")
        assert show.png(ax.figure).startswith(b"\x89PNG")


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6))
@settings(max_examples=30)
def test_names_at_the_ends_of_lines_never_overlap(ends):
    names = [f"line {i}" for i in range(len(ends))]
    frame = pd.DataFrame({name: [0.5, end] for name, end in zip(names, ends, strict=True)})

    ax = show.curve(frame, y=names, title="t")

    ax.figure.draw_without_rendering()
    boxes = sorted((text.get_window_extent().y0, text.get_window_extent().y1) for text in ax.texts)
    assert len(boxes) == len(names)
    assert all(below[1] <= above[0] + 1 for below, above in itertools.pairwise(boxes))


def test_bars_carry_their_values_and_the_chosen_one_its_colour():
    ax = show.bars({"a": 1.0, "b": 2.5}, title="b leads", xlabel="score", highlight="b")

    assert [bar.get_width() for bar in ax.patches] == [1, 2.5]
    assert [text.get_text() for text in ax.texts] == ["1", "2.5"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
    colours = [mpl.colors.to_hex(bar.get_facecolor()) for bar in ax.patches]
    assert colours == [show.PALETTE[5], show.PALETTE[0]]
    assert ax.yaxis_inverted()


def test_calibration_is_drawn_against_the_diagonal():
    ax = show.calibration({"network": TABLE, "trees": TABLE}, title="Too sure")

    diagonal, *lines = ax.lines
    assert diagonal.get_xydata().tolist() == [[0.1, 0.1], [0.9, 0.9]]
    assert all(line.get_xydata().tolist() == TABLE.to_numpy().tolist() for line in lines)
    assert [text.get_text() for text in ax.texts] == ["perfect", "network", "trees"]


def test_missing_cells_are_drawn_worst_first_and_only_where_there_are_any():
    frame = pd.DataFrame({"a": [1, None, None, 4], "b": [1, 2, 3, 4], "c": [None, 2, 3, 4]})

    ax = show.missing(frame, title="a lacks half")
    none = show.missing(frame[["b"]], title="Nothing lacks")

    assert [bar.get_width() for bar in ax.patches] == [0.5, 0.25]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "c"]
    assert [bar.get_width() for bar in none.patches] == [0]


def test_figures_do_not_pile_up_in_pyplot():
    import matplotlib.pyplot as plt

    before = plt.get_fignums()

    show.curve(FRAME, y="train", title="t")

    assert plt.get_fignums() == before


def test_the_look_is_the_kits_and_leaves_that_of_others_alone():
    before = dict(mpl.rcParams)

    ax = show.axes(title="A finding", columns=1)

    assert not ax.spines["top"].get_visible()
    assert ax.get_title(loc="left") == "A finding"
    assert dict(mpl.rcParams) == before
    assert len(show.axes(columns=3)) == 3


@pytest.mark.parametrize("which", [{"y": "tran"}, {"y": ["tran"]}, {"y": "train", "x": "tran"}])
def test_an_unknown_column_is_told(which):
    with pytest.raises(ValueError) as caught:
        show.curve(FRAME, title="t", **which)

    assert str(caught.value) == (
        "show.curve: expected a known column, got 'tran' (str). Did you mean 'train'? "
        "Known: epoch, test, train."
    )


# ---- digests


def drawn(frame=FRAME, *, title="t", ylabel="loss", y=("train", "test"), **settings) -> str:
    ax = show.curve(frame, x="epoch", y=list(y), title=title, ylabel=ylabel, **settings)
    return repr(show.digest(ax))


def test_a_digest_says_what_the_figure_holds():
    assert drawn() == (
        "figure: t\n"
        "  x epoch (linear), y loss (linear)\n"
        "  line train n=3 min=0.4 mean=0.6 max=0.9\n"
        "  line test n=3 min=0.6 mean=0.733 max=0.9"
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"title": "u"},
        {"ylabel": "cost"},
        {"y": ("train",)},
        {"y": ("test", "train")},
        {"log_y": True},
        {"frame": FRAME[:2]},
        {"frame": FRAME.rename(columns={"test": "train", "train": "test"})},
    ],
    ids=str,
)
def test_a_digest_changes_with_what_is_drawn(changed):
    assert drawn(**changed) != drawn()


@given(st.integers(0, 2), st.sampled_from(["train", "test"]), st.floats(0.05, 1e6))
def test_a_digest_changes_with_any_value_that_changes_by_a_few_per_cent(row, name, change):
    frame = FRAME.copy()
    frame.loc[row, name] += change

    assert drawn(frame) != drawn()


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_a_digest_does_not_change_with_the_last_digits(seed):
    noise = np.random.default_rng(seed).uniform(-1e-9, 1e-9, (3, 2))
    frame = FRAME.copy()
    frame[["train", "test"]] *= 1 + noise

    assert drawn(frame) == drawn()


def test_every_kind_of_thing_on_the_axes_is_in_the_digest():
    ax = show.axes(title="All")
    ax.scatter([1, 2], [3, 4])
    ax.imshow(np.arange(4).reshape(2, 2), aspect="auto")
    ax.plot([1, np.nan], [np.nan, np.nan])
    other = show.bars({"a": 1, "b": 3}, title="Bars", xlabel="n")

    assert repr(show.digest([ax, other])) == (
        "figure: All\n"
        "  x – (linear), y – (linear)\n"
        "  line 2 n=0\n"
        "  points n=2 min=3 mean=3.5 max=4\n"
        "  image n=4 min=0 mean=1.5 max=3\n"
        "figure: Bars\n"
        "  x n (linear), y – (linear)\n"
        "  bars n=2 min=1 mean=2 max=3\n"
        "  names a, b"
    )


def test_a_notebook_gets_a_picture_with_alt_text_and_the_digest_as_text():
    digest = show.digest(show.curve(FRAME, y="train", title="Falls by half"))

    data, about = digest._repr_mimebundle_()

    assert set(data) == {"image/png", "text/plain"}
    assert data["text/plain"] == repr(digest)
    assert about == {"image/png": {"alt": "Falls by half"}}
    pixels = image.imread(io.BytesIO(data["image/png"]))
    assert pixels.shape == (round(3.6 * 110), round(6.4 * 110), 4)
    assert pixels[..., :3].std() > 0.01


def test_the_same_figure_gives_the_same_bytes():
    one, two = (show.png(show.curve(FRAME, y="train", title="t").figure) for _ in range(2))

    assert one == two


def test_an_area_a_circle_and_names_are_in_the_digest():
    from matplotlib.patches import Circle

    ax = show.axes()
    ax.fill_between([0, 1, 2], [1, 2, 3], [2, 3, 7])
    ax.plot(["mon", "tue", "wed"], [1, 2, 3])
    ax.add_patch(Circle((0, 0), 1))

    text = show.digest(ax).text

    assert "  points n=9 min=1" in text
    assert "max=7" in text
    assert "  bars n=0" in text
    assert "  names mon, tue, wed" in text


def test_a_digest_changes_with_the_order_of_bars():
    one, two = ({"a": 1.0, "b": 2.0}, {"b": 1.0, "a": 2.0})

    texts = [show.digest(show.bars(each, title="t", xlabel="x")).text for each in (one, two)]

    assert texts[0] != texts[1]


def test_a_line_that_ends_in_nothing_is_named_where_it_was_drawn_last():
    frame = pd.DataFrame({"epoch": [1, 2, 3], "train": [1.0, 2.0, np.nan], "test": [1.0, 1.5, 2.0]})

    ax = show.curve(frame, x="epoch", y=["train", "test"], title="t", ylabel="loss")

    assert {note.get_text(): note.xy[0] for note in ax.texts} == {"train": 2, "test": 3}


def test_a_bar_that_is_not_there_cannot_stand_out():
    with pytest.raises(ValueError) as error:
        show.bars({"trees": 1.0}, title="t", xlabel="x", highlight="tree")

    assert str(error.value) == (
        "show.bars: expected a known bar, got 'tree' (str). Did you mean 'trees'? Known: trees."
    )
