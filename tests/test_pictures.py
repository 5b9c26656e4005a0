"""The pictures: they say what the numbers say, nothing is cut off, and the same input gives the same bytes."""

import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgb, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from PIL import Image

from two_stage.results.pictures import (
    confusion_figure,
    draw_confusion_matrix,
    draw_learning_curves,
    draw_reliability,
    fonts_of,
    learning_curves_figure,
    logged,
    reliability_figure,
    shown_labels,
    whole_percent,
)
from two_stage.scoring.calibration import Reliability

# a missing letter, a nan in an area, a deprecated option: what matplotlib warns of is an error here
pytestmark = pytest.mark.filterwarnings("error")

SHADES = [
    "strongly pessimistic",
    "pessimistic",
    "mildly pessimistic",
    "neutral",
    "cautiously optimistic",
    "optimistic",
    "strongly optimistic",
]
UNKNOWN = "\U000f1234"  # for private use: no font has it
HEADLINE = {"accuracy": "accuracy", "macro_f1": "macro-F1", "perplexity": "perplexity"}


def made_up_confusion(size: int) -> np.ndarray:
    """Counts with a long tail and most of them on the diagonal."""
    rng = np.random.default_rng(size)
    return rng.poisson(3.0, (size, size)) + np.diag(rng.zipf(1.5, size) % 20_000)


def made_up_bins() -> Reliability:
    """Five bins, the first empty and the last the fullest."""
    return Reliability(
        np.array([np.nan, 0.3, 0.5, 0.75, 1.0]),
        np.array([np.nan, 0.25, 0.625, 0.75, 1.0]),
        np.array([0, 4, 8, 12, 400]),
    )


def made_up_log() -> list[dict[str, float]]:
    """A short training with two evaluations, as TrainerState keeps it, and one of the best checkpoint at the end."""
    return [
        {"step": 10, "epoch": 0.5, "loss": 1.5, "grad_norm": 2.0, "learning_rate": 1e-5},
        {"step": 20, "epoch": 1.0, "loss": 1.0, "grad_norm": 2.0, "learning_rate": 1e-5},
        {"step": 20, "epoch": 1.0, "eval_loss": 1.25, "eval_accuracy": 0.5, "eval_macro_f1": 0.75},
        {"step": 30, "epoch": 1.5, "loss": 0.5, "grad_norm": float("nan"), "learning_rate": 0.0},
        {"step": 40, "epoch": 2.0, "eval_loss": 1.75, "eval_accuracy": 0.6, "eval_macro_f1": 0.25},
        {"step": 40, "epoch": 2.0, "train_loss": 1.0, "train_runtime": 3.0},
        {"step": 40, "epoch": 2.0, "eval_loss": 1.25, "eval_accuracy": 0.5, "eval_macro_f1": 0.75},
    ]


def seen_texts(figure: Figure) -> list[Text]:
    """The texts that a drawing shows: without those of ticks outside of the axes."""
    figure.draw_without_rendering()
    unseen = set()
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
            unseen |= {tick.label2} | (set() if low <= tick.get_loc() <= high else {tick.label1})
    texts = figure.findobj(Text)
    return [text for text in texts if text.get_visible() and text.get_text().strip() and text not in unseen]


def assert_nothing_is_cut_off(figure: Figure) -> None:
    """Every text lies within the canvas, at least a few dots from its edge."""
    texts = seen_texts(figure)
    assert texts
    for text in texts:
        box = text.get_window_extent()
        assert min(box.x0, box.y0) >= 10, text
        assert box.x1 <= figure.bbox.width - 10, text
        assert box.y1 <= figure.bbox.height - 10, text


def overlapping(texts: list[Text]) -> list[tuple[str, str]]:
    """The pairs of level texts of which one covers a part of the other."""
    level = [text for text in texts if text.get_rotation() == 0]
    x0, y0, x1, y1 = np.array([text.get_window_extent().extents for text in level]).T[:, :, None]
    is_over = (np.minimum(x1, x1.T) > np.maximum(x0, x0.T)) & (np.minimum(y1, y1.T) > np.maximum(y0, y0.T))
    return [(level[a].get_text(), level[b].get_text()) for a, b in np.argwhere(is_over) if a < b]


def contrast(a: Any, b: Any) -> float:
    """WCAG 2.1's contrast ratio of two colours: 1 to 21."""
    luminances = []
    for colour in (a, b):
        parts = np.array(to_rgb(colour))
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        luminances.append(float(linear @ [0.2126, 0.7152, 0.0722]) + 0.05)
    return max(luminances) / min(luminances)


# --- Files ------------------------------------------------------------------------------------------------------------

DRAWN: dict[str, Callable[[Path], object]] = {
    "confusion": lambda path: draw_confusion_matrix(path, made_up_confusion(7), SHADES, "Test split"),
    "reliability": lambda path: draw_reliability(path, {"before": made_up_bins()}, "Test split"),
    "curves": lambda path: draw_learning_curves(path, made_up_log(), HEADLINE),
}


@pytest.mark.parametrize("picture", DRAWN)
def test_the_file_is_a_whole_picture_with_white_all_round(picture: str, tmp_path: Path) -> None:
    """A PNG of 600 to 2,500 dots a side at 150 an inch, whose outermost dots are white and whose others are not."""
    DRAWN[picture](tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as image:
        assert image.format == "PNG"
        assert all(600 <= side <= 2500 for side in image.size)
        assert image.info["dpi"] == pytest.approx((150, 150), abs=0.1)
        dots = np.array(image.convert("RGB"))
    inner = dots[15:-15, 15:-15]
    assert (dots == 255).all(axis=2).sum() - (inner == 255).all(axis=2).sum() == dots[..., 0].size - inner[..., 0].size
    # and little more white than that
    assert all((inner[edge] < 255).any() for edge in (np.s_[:30], np.s_[-30:], np.s_[:, :30], np.s_[:, -30:]))


@pytest.mark.slow
@pytest.mark.parametrize("picture", DRAWN)
def test_the_same_input_gives_the_same_bytes(picture: str, tmp_path: Path) -> None:
    """Whatever a matplotlibrc says, which is left as it was; no chunk of the file tells a version or a date."""
    DRAWN[picture](tmp_path / "once.png")
    odd = {"font.size": 30, "text.usetex": True, "lines.linewidth": 9, "savefig.dpi": 30, "savefig.bbox": "tight"}
    with matplotlib.rc_context(odd):
        before = dict(matplotlib.rcParams)
        DRAWN[picture](tmp_path / "twice.png")
        assert dict(matplotlib.rcParams) == before
    content = (tmp_path / "once.png").read_bytes()
    assert content == (tmp_path / "twice.png").read_bytes()
    chunks, place = set(), 8
    while place < len(content):
        chunks.add(content[place + 4 : place + 8])
        place += 12 + int.from_bytes(content[place : place + 4], "big")
    assert chunks == {b"IHDR", b"pHYs", b"IDAT", b"IEND"}


@pytest.mark.slow
def test_importing_is_light_and_drawing_is_without_pyplot(tmp_path: Path) -> None:
    """Matplotlib is loaded at the first picture, and its pyplot, which keeps every figure, never."""
    lines = f"""
import sys
from pathlib import Path
import two_stage.results.pictures as pictures
assert not any(name.startswith(("matplotlib", "torch")) for name in sys.modules)
pictures.draw_learning_curves(Path({str(tmp_path / "a.png")!r}), [{{"step": 1, "loss": 2.0}}], {{}})
assert "matplotlib" in sys.modules and "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", lines], check=True, cwd=Path(__file__).parent.parent)


# --- Confusion matrix -------------------------------------------------------------------------------------------------


def cell_texts(figure: Figure, size: int) -> dict[tuple[int, int], list[str]]:
    """(row, column) → the texts whose middle lies in this cell, from the top."""
    axes = figure.axes[0]
    found: dict[tuple[int, int], list[tuple[float, str]]] = {}
    for text in axes.texts:
        box = text.get_window_extent()
        x, y = axes.transData.inverted().transform(((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2))
        if 0 <= x < size and 0 <= y < size:
            found.setdefault((int(y), int(x)), []).append((-box.y1, text.get_text()))
    return {cell: [text for _, text in sorted(texts)] for cell, texts in found.items()}


def test_a_cell_tells_count_and_share_of_its_row() -> None:
    """Rows are gold and go down, columns are predicted; to the right stands how many texts a row has."""
    confusion = np.array([[1500, 500, 0], [1, 299, 0], [0, 0, 0]])
    figure = confusion_figure(confusion, ["bad", "so-so", "good"], "Seven of nine")
    assert cell_texts(figure, 3) == {
        (0, 0): ["1,500", "75 %"],
        (0, 1): ["500", "25 %"],
        (0, 2): ["0"],
        (1, 0): ["1", "<1 %"],
        (1, 1): ["299", ">99 %"],
        (1, 2): ["0"],
        (2, 0): ["0"],
        (2, 1): ["0"],
        (2, 2): ["0"],
    }
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts][-4:] == ["2,000", "300", "0", "texts"]
    assert axes.transData.transform((0, 0))[1] > axes.transData.transform((0, 3))[1]  # the first row is the upper one
    assert [label.get_text() for label in axes.get_yticklabels()] == ["bad", "so-so", "good"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["bad", "so-so", "good"]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("gold", "predicted")
    assert "Seven of nine" in [text.get_text() for text in figure.texts]


def test_colour_is_the_share_of_the_row_and_none_for_a_row_of_no_text() -> None:
    """Ten times as many texts of a label do not darken its row."""
    confusion = np.array([[3, 1, 0], [20, 60, 0], [0, 0, 0]])
    colours = confusion_figure(confusion, ["a", "b", "c"], "").axes[0].collections[0].get_array()
    assert np.asarray(colours)[:2].tolist() == [[0.75, 0.25, 0], [0.25, 0.75, 0]]
    assert np.ma.getmaskarray(colours).tolist() == [[False] * 3, [False] * 3, [True] * 3]


def test_a_masked_cell_stays_empty() -> None:
    """Neither a count nor a share nor a frame; its row's shares and total are of the other cells."""
    confusion = np.ma.masked_array([[3, 1], [4, 0]], mask=[[False, False], [False, True]])
    figure = confusion_figure(confusion, ["ORG", "(none)"], "")
    assert cell_texts(figure, 2) == {(0, 0): ["3", "75 %"], (0, 1): ["1", "25 %"], (1, 0): ["4", "100 %"]}
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts][-3:] == ["4", "4", "texts"]
    assert len([patch for patch in axes.patches if isinstance(patch, Rectangle)]) == 1
    colours = axes.collections[0].get_array()
    assert np.ma.getmaskarray(colours).tolist() == [[False, False], [False, True]]


def test_what_is_counted_need_not_be_texts() -> None:
    """Its name stands over the totals, in the caption and beside the bars, and nothing is cut off."""
    matrix = confusion_figure(made_up_confusion(3), list("abc"), "", "entities and all that")
    assert matrix.axes[0].texts[-1].get_text() == "entities and all that"
    assert any(text.get_text().startswith("Entities and all that, and share") for text in matrix.texts)
    bars = reliability_figure({"before": made_up_bins()}, "", "entities")
    assert bars.axes[1].get_ylabel() == "entities"
    for figure in (matrix, bars):
        assert_nothing_is_cut_off(figure)
        assert not any("text" in text.get_text().lower() for text in seen_texts(figure))
    right = matrix.axes[0].texts[-1].get_window_extent()
    assert right.x0 > matrix.axes[0].get_window_extent().x1  # beside the cells, not over them


def test_the_diagonal_is_framed_and_bold() -> None:
    """One frame a label, around the cell that is right; the counts in them are bold, and no others."""
    figure = confusion_figure(made_up_confusion(4) + 1, list("abcd"), "")
    axes = figure.axes[0]
    frames = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    centres = [(frame.get_x() + frame.get_width() / 2, frame.get_y() + frame.get_height() / 2) for frame in frames]
    assert np.allclose(centres, [(i + 0.5, i + 0.5) for i in range(4)])
    assert [text.xy for text in axes.texts if text.get_weight() == "bold"] == [(i + 0.5, i + 0.5) for i in range(4)]


def test_numbers_stand_out_from_every_colour() -> None:
    """At a contrast of 3 and more, WCAG's least for large letters: on blues of 14 shares, and on the grey of none."""
    confusion = np.zeros((15, 15), dtype=np.int64)
    confusion[np.arange(14), np.arange(14)] = np.linspace(0, 100, 14).astype(int)
    confusion[:14, 14] = 100 - confusion.diagonal()[:14]
    axes = confusion_figure(confusion, list("abcdefghijklmno"), "").axes[0]
    blues = axes.collections[0].to_rgba(confusion / 100)
    blues[14] = to_rgba(axes.get_facecolor())
    cells = [(text, int(text.xy[1]), int(text.xy[0])) for text in axes.texts if text.xy[0] % 1 == 0.5]
    assert len(cells) > 225
    for text, row, column in cells:
        assert contrast(text.get_color(), blues[row, column]) >= 3, (text, row, column)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "labels"),
    [(1, ["one"]), (2, ["no", "yes"]), (7, SHADES), (20, [f"a label that is far too long {i}" for i in range(20)])],
)
def test_nothing_overlaps_and_nothing_is_cut_off(size: int, labels: list[str]) -> None:
    """From one label to twenty, long and short, with counts up to millions and a title of several lines."""
    confusion = made_up_confusion(size)
    confusion[0, 0] = 1_234_567
    figure = confusion_figure(confusion, labels, "A title longer than the picture is wide, of the test split. " * 6)
    assert_nothing_is_cut_off(figure)
    assert overlapping(seen_texts(figure)) == []
    axes = figure.axes[0]
    cell = axes.get_window_extent().width / size
    assert all(text.get_window_extent().width < cell for text in axes.texts if text.xy[0] < size)


@pytest.mark.slow
def test_a_hundred_labels_fit_a_page() -> None:
    """Colours and names alone, no name over another, and no picture two men long."""
    figure = confusion_figure(made_up_confusion(100), [f"a category called {i}" for i in range(100)], "A title")
    axes = figure.axes[0]
    assert cell_texts(figure, 100) == {}
    assert len(axes.patches) == 100
    assert max(figure.get_size_inches()) < 25
    assert_nothing_is_cut_off(figure)
    rows = [label.get_window_extent() for label in axes.get_yticklabels()]
    assert all(upper.y0 >= lower.y1 for upper, lower in pairwise(rows))


def test_names_stand_level_where_they_fit_and_aslant_where_not() -> None:
    """Aslant names end under their column, so that each is read as that column's."""
    short = confusion_figure(made_up_confusion(3), ["bad", "so-so", "good"], "")
    assert {label.get_rotation() for label in short.axes[0].get_xticklabels()} == {0}
    figure = confusion_figure(made_up_confusion(7), SHADES, "")
    labels = figure.axes[0].get_xticklabels()
    assert {label.get_rotation() for label in labels} == {45}
    for column, label in enumerate(labels):
        middle = figure.axes[0].transData.transform((column + 0.5, 7))[0]
        assert label.get_window_extent().x1 == pytest.approx(middle, abs=20)


@pytest.mark.parametrize("label", ["$a_b$", r"\alpha_{x}", "50 % ^2", r"\$1$", "_hidden", "منظمة", "организация"])
def test_labels_are_shown_as_they_are(label: str) -> None:
    """No $ makes mathematics of them: the drawn text is as wide as its letters, and every text is plain."""
    figure = confusion_figure(made_up_confusion(2), [label, "x"], label)
    first = figure.axes[0].get_yticklabels()[0]
    assert first.get_text() == label
    assert not any(text.get_parse_math() or text.get_usetex() for text in figure.findobj(Text))
    assert label in [text.get_text() for text in figure.texts]
    assert_nothing_is_cut_off(figure)
    letters = [figure.text(0, 0, letter, size=10, parse_math=False).get_window_extent().width for letter in label]
    if label.isascii():  # Arabic letters are joined, and narrower then
        assert first.get_window_extent().width > 0.8 * sum(letters)


def test_long_labels_are_shortened_on_one_line() -> None:
    """30 characters stay; of 31, 29 and an ellipsis; what breaks a line or has no shape goes."""
    assert shown_labels(["a" * 30, "b" * 31, "c " * 20, "two\nlines\x00 \t here"], set()) == [
        "a" * 30,
        "b" * 29 + "…",
        "c " * 14 + "c…",
        "two lines here",
    ]


def test_a_label_that_no_font_can_draw_is_called_by_its_number(tmp_path: Path) -> None:
    """And the picture says so; a title shows a □ in the letter's place. Nothing warns of a missing glyph."""
    draw_confusion_matrix(tmp_path / "a.png", np.eye(2, dtype=int), ["a", f"b{UNKNOWN}"], f"of {UNKNOWN}")
    figure = confusion_figure(np.eye(2, dtype=int), ["a", f"b{UNKNOWN}"], f"of {UNKNOWN}")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["a", "label 2"]
    texts = " ".join(text.get_text() for text in figure.texts)
    assert "of □" in texts
    assert "by its number" in texts.replace("\n", " ")
    plain = confusion_figure(np.eye(2, dtype=int), ["a", "b"], "").texts
    assert not any("number" in text.get_text() for text in plain)


def test_a_letter_is_looked_for_in_every_font(tmp_path: Path) -> None:
    """A script A, which DejaVu Sans lacks, comes from another font; nothing is loaded for letters that it has."""
    families, missing = fonts_of(["Ab ж\n\u200d", "\U0001d49c"])
    assert families[0] == "DejaVu Sans"
    assert len(families) == 2
    assert missing == set()
    assert fonts_of(["Ab ж\n\u200d"]) == (["DejaVu Sans"], set())
    assert fonts_of([UNKNOWN])[1] == {UNKNOWN}
    draw_confusion_matrix(tmp_path / "a.png", np.eye(2, dtype=int), ["\U0001d49c", "b"], "\U0001d49c")
    figure = reliability_figure({"\U0001d49c": made_up_bins()}, "")
    figure.draw_without_rendering()


@pytest.mark.slow
@given(data=st.data(), size=st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_any_matrix_with_any_labels_is_whole(data: st.DataObject, size: int) -> None:
    """Text of every script and none, counts of every size."""
    labels = data.draw(st.lists(st.text(max_size=40), min_size=size, max_size=size))
    counts = data.draw(st.lists(st.integers(0, 10**7), min_size=size**2, max_size=size**2))
    figure = confusion_figure(np.array(counts).reshape(size, size), labels, data.draw(st.text(max_size=80)))
    assert_nothing_is_cut_off(figure)


def test_a_matrix_of_another_size_is_refused() -> None:
    """Three labels have no two by two matrix."""
    with pytest.raises(ValueError, match=r"3 labels has shape \(3, 3\), not \(2, 2\)"):
        confusion_figure(np.eye(2, dtype=int), ["a", "b", "c"], "")


@given(texts=st.integers(1, 3000), data=st.data())
def test_a_percentage_says_none_or_all_only_if_it_is_so(texts: int, data: st.DataObject) -> None:
    """And is no more than half a percent, at the ends one, from the share."""
    count = data.draw(st.integers(0, texts))
    spoken = whole_percent(count / texts)
    assert (spoken == "0 %") == (count == 0)
    assert (spoken == "100 %") == (count == texts)
    if spoken[0] in "<>":
        assert 0 < min(count, texts - count) / texts < 0.005
    else:
        assert float(spoken.removesuffix(" %")) == pytest.approx(100 * count / texts, abs=0.5001)


def test_percentages_by_hand() -> None:
    """The half percents at both ends are 1 and 99, not none and all."""
    shares = (0, 1 / 201, 1 / 200, 0.123, 0.5, 199 / 200, 200 / 201, 1)
    assert [whole_percent(share) for share in shares] == "0 %|<1 %|1 %|12 %|50 %|99 %|>99 %|100 %".split("|")


# --- Reliability ------------------------------------------------------------------------------------------------------


def test_a_marker_stands_at_confidence_and_accuracy_and_grows_with_its_texts() -> None:
    """Of every bin that has a text; the upper panel is a square from 0 to 1 with its diagonal."""
    upper = reliability_figure({"before": made_up_bins()}, "").axes[0]
    (markers,) = upper.collections
    assert np.asarray(markers.get_offsets()).tolist() == [[0.3, 0.25], [0.5, 0.625], [0.75, 0.75], [1.0, 1.0]]
    assert len(markers.get_sizes()) == 4
    assert all(small < large for small, large in pairwise(markers.get_sizes()))
    assert not markers.get_clip_on()
    assert upper.lines[0].get_xydata().tolist() == [[0, 0], [1, 1]]
    assert upper.get_xlim() == upper.get_ylim() == (0, 1)
    box = upper.get_window_extent()
    assert box.width == pytest.approx(box.height)
    assert upper.get_aspect() == 1


def test_the_histogram_stands_in_its_bins_below() -> None:
    """Bars as high as the counts, within their bins, the two curves' side by side."""
    other = made_up_bins()._replace(count=np.array([0, 0, 24, 0, 400]))
    upper, lower = reliability_figure({"before": made_up_bins(), "calibrated": other}, "").axes
    bars = lower.patches
    assert [bar.get_height() for bar in bars] == [0, 4, 8, 12, 400, 0, 0, 24, 0, 400]
    for place, bar in enumerate(bars):
        assert place % 5 / 5 < bar.get_x() < bar.get_x() + bar.get_width() < (place % 5 + 1) / 5
    assert all(bars[i].get_x() + bars[i].get_width() <= bars[i + 5].get_x() + 1e-9 for i in range(5))
    assert bars[0].get_facecolor() != bars[5].get_facecolor()
    assert lower.get_xlim() == (0, 1)
    assert lower.get_position().y1 < upper.get_position().y0
    assert lower.get_position().x0 == pytest.approx(upper.get_position().x0)


def test_curves_are_named_and_nothing_is_cut_off() -> None:
    """Names with _ and $ too, a marker at the corner, and a long title."""
    curves = {"_before $x_1$": made_up_bins(), "calibrated, at a temperature of 1.83 that was fitted": made_up_bins()}
    figure = reliability_figure(curves, "The confidence of a model on the validation split of a long-named corpus")
    names = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert names == [*curves, "as often right as sure"]
    assert_nothing_is_cut_off(figure)
    assert overlapping(seen_texts(figure)) == []
    legend = figure.axes[0].get_legend().get_window_extent()
    assert legend.y0 >= figure.axes[0].get_window_extent().y1  # beside the curves, never over them


def test_one_text_or_none_still_makes_a_picture(tmp_path: Path) -> None:
    """One bin with one text, and bins that are all empty."""
    nothing = Reliability(np.full(10, np.nan), np.full(10, np.nan), np.zeros(10, dtype=np.int64))
    draw_reliability(tmp_path / "none.png", {"before": nothing}, "")
    one = Reliability(nothing.confidence.copy(), nothing.accuracy.copy(), nothing.count.copy())
    one.confidence[7], one.accuracy[7], one.count[7] = 0.72, 1.0, 1
    figure = reliability_figure({"before": one}, "")
    (markers,) = figure.axes[0].collections
    assert np.asarray(markers.get_offsets()).tolist() == [[0.72, 1.0]]
    assert_nothing_is_cut_off(figure)


# --- Learning curves --------------------------------------------------------------------------------------------------


def test_the_curves_are_the_logged_numbers() -> None:
    """Losses on the left, the named scores on the right; the evaluation after training is of another step's weights."""
    figure = learning_curves_figure(made_up_log(), HEADLINE)
    assert figure is not None
    left, right = figure.axes
    training, validation = (line.get_xydata().tolist() for line in left.lines)
    assert training == [[10, 1.5], [20, 1.0], [30, 0.5]]
    assert validation == [[20, 1.25], [40, 1.75]]
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["training", "validation"]
    accuracy, macro_f1 = (line.get_xydata().tolist() for line in right.lines)
    assert accuracy == [[20, 0.5], [40, 0.6]]
    assert macro_f1 == [[20, 0.75], [40, 0.25]]
    assert right.get_xlim() == left.get_xlim()
    assert_nothing_is_cut_off(figure)
    assert overlapping(seen_texts(figure)) == []


def test_the_legend_names_each_line_by_its_colour_from_the_highest_end() -> None:
    """Two scores that cross: the one that ends higher is named first."""
    log = made_up_log()
    for entry, accuracy in zip((log[2], log[4]), (0.6, 0.2), strict=True):
        entry["eval_accuracy"] = accuracy
    figure = learning_curves_figure(log, HEADLINE)
    assert figure is not None
    right = figure.axes[1]
    named = {
        text.get_text(): handle.get_color()
        for text, handle in zip(right.get_legend().get_texts(), right.get_legend().legend_handles, strict=True)
    }
    assert list(named) == ["macro-F1", "accuracy"]
    assert named == {"accuracy": right.lines[0].get_color(), "macro-F1": right.lines[1].get_color()}
    assert named["accuracy"] != named["macro-F1"]


def test_without_a_training_log_nothing_is_written(tmp_path: Path) -> None:
    """An evaluation alone, the summary of a training alone, and losses that are all nan or infinite."""
    evaluation, summary = made_up_log()[2], made_up_log()[5]
    lost = [{"step": 1, "loss": float("nan")}, {"step": 2, "loss": float("inf")}]
    for log in ([], [evaluation, summary], lost):
        assert not draw_learning_curves(tmp_path / "curves.png", log, HEADLINE)
    assert list(tmp_path.iterdir()) == []


def test_without_a_named_score_there_is_no_right_panel(tmp_path: Path) -> None:
    """No evaluation, a score that was never finite, or none that is asked for."""
    log = made_up_log()
    assert draw_learning_curves(tmp_path / "curves.png", [log[0], log[1]], HEADLINE)
    assert (tmp_path / "curves.png").is_file()
    never = [log[0], {"step": 10, "eval_loss": 1.0, "eval_accuracy": float("nan")}]
    for entries, headline in (([log[0]], HEADLINE), (never, HEADLINE), (log, {}), (log, {"f1": "F1"})):
        figure = learning_curves_figure(entries, headline)
        assert figure is not None
        assert len(figure.axes) == 1
        assert_nothing_is_cut_off(figure)


def test_one_point_is_seen() -> None:
    """A line of one point has no length, so it has a marker; a line of very many has none."""
    figure = learning_curves_figure([{"step": 5, "loss": 2.0}, {"step": 5, "eval_accuracy": 0.5}], HEADLINE)
    assert figure is not None
    for axes in figure.axes:
        (line,) = axes.lines
        assert line.get_marker() not in ("", "None", None)
    assert figure.axes[0].get_legend() is None
    many = learning_curves_figure([{"step": step, "loss": 1 / step} for step in range(1, 500)], HEADLINE)
    assert many is not None
    assert many.axes[0].lines[0].get_marker() in ("", "None")


def test_great_numbers_are_not_cut_off() -> None:
    """A loss and a perplexity of many millions, steps too, and as many names as there are colours, and more."""
    headline = {f"score_{i}": f"a score with quite a long name, $s_{i}$" for i in range(9)}
    log: list[dict[str, float]] = []
    for step in range(1, 2_000_000, 500_000):
        log += [{"step": step, "loss": 1e30 / step}, {"step": step, "eval_loss": 1e30 / step}]
        log[-1] |= {f"eval_score_{i}": 1e9 * i / step for i in range(9)}
    figure = learning_curves_figure(log, headline)
    assert figure is not None
    assert_nothing_is_cut_off(figure)
    assert overlapping(seen_texts(figure)) == []
    styles = [(line.get_color(), line.get_marker()) for line in figure.axes[1].lines]
    assert len(set(styles)) == 9


def test_logged_keeps_the_first_finite_value_of_a_step_in_order() -> None:
    """A value that is not finite does not count as a step's first."""
    log: list[dict[str, float]] = [
        {"step": 9, "loss": 3.0},
        {"step": 4, "loss": float("-inf")},
        {"step": 4, "loss": 2.0},
        {"step": 4, "loss": 1.0},
        {"step": 5},
    ]
    assert logged(log, "loss") == [(4, 2.0), (9, 3.0)]
