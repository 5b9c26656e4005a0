"""The pictures of a run: confusion matrix, reliability diagram and learning curves, as PNG files.

Each `draw_…` writes what its `…_figure` makes. The same input gives the same bytes, whatever a matplotlibrc says.
"""

import math
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from two_stage.scoring.calibration import Reliability

DPI = 150  # dots an inch: at half its size, as a model card may show it, letters of 9 pt are still 9 dots high
MARGIN = 0.15  # inches of white round everything

# Okabe and Ito's colours, told apart by the colour-blind too; yellow is left out, it is too pale for a line on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vP"  # one fewer than colours, so that 42 lines differ in one or the other
INK, GREY, PALE = "#222222", "#666666", "#E4E4E4"

LOOK = {
    "text.parse_math": False,  # a label may hold $, _ or \, and means them
    "font.family": ["DejaVu Sans"],  # comes with matplotlib
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.labelpad": 6,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": PALE,
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.6,
    "lines.markersize": 5.5,
    "legend.frameon": False,
    "legend.borderaxespad": 0.3,
    "legend.handlelength": 1.6,
}


@contextmanager
def own_style() -> Iterator[None]:
    """Matplotlib's defaults and this module's look for a while, whatever a matplotlibrc says."""
    import matplotlib.style

    with matplotlib.style.context(["default", LOOK]):
        yield


# --- Confusion matrix -------------------------------------------------------------------------------------------------

LONGEST_LABEL = 30  # characters
COUNT_SIZE, SHARE_SIZE, TOTAL_SIZE = 10.5, 8.5, 9  # points
DIGIT_WIDTH = 0.64  # of a letter's size, in DejaVu Sans; a comma takes half of it
WHITE_FROM = 0.6  # share of the row: from here the blue is dark enough for white, at a contrast of 3.2 and more
MOST_WRITTEN, LEAST_CELL = 30, 0.18  # labels of a confusion matrix with counts in it; inches of a cell without
CAPTION = ", and share of the row (the colour). Framed: correct."
COLOURS_ALONE = "Share of the row; label_scores.json has the numbers. Framed: correct."
NUMBERED = " A label whose letters no font here has is called by its number."


def draw_confusion_matrix(
    path: Path, confusion: np.ndarray, labels: list[str], title: str, items: str = "texts"
) -> None:
    """Write the confusion matrix as a PNG picture.

    A cell's colour is its share of the row, so that a rare label is as visible as a frequent one. Of more than
    MOST_WRITTEN labels the cells are small and show their colour alone.

    Args:
        path: where it goes.
        confusion: counts (labels, labels): rows gold, columns predicted. A masked cell, where nothing can be counted,
            stays empty.
        labels: in their order. A long one is shortened; one that no installed font can draw is called by its number.
        title: stands above.
        items: what is counted.

    Raises:
        ValueError: the counts are not a square as large as there are labels.
    """
    write_png(path, confusion_figure(confusion, labels, title, items))


@own_style()
def confusion_figure(confusion: np.ndarray, labels: list[str], title: str, items: str = "texts") -> "Figure":
    """The figure that `draw_confusion_matrix` writes."""
    size = len(labels)
    if confusion.shape != (size, size):
        raise ValueError(f"a confusion matrix of {size} labels has shape {(size, size)}, not {confusion.shape}")
    totals = confusion.sum(axis=1)
    widest = DIGIT_WIDTH * COUNT_SIZE / 72 * len(f"{confusion.max():,}") + 0.12
    is_written = size <= MOST_WRITTEN
    cell = max(min(6 / size, 1.0), 0.62, widest) if is_written else LEAST_CELL  # inches
    shares = np.ma.masked_array(confusion / np.maximum(totals, 1)[:, None])
    shares[totals == 0] = np.ma.masked
    is_counted = ~np.ma.getmaskarray(confusion)
    figure = new_figure()
    axes = inch_axes(figure, 0, 0, cell * size, cell * size)
    axes.pcolormesh(shares, cmap="Blues", vmin=0, vmax=1, edgecolors="white", linewidth=1.5 if is_written else 0.3)
    axes.set(xlim=(0, size), ylim=(size, 0), xlabel="predicted", ylabel="gold", facecolor="#F2F2F2")
    axes.spines[:].set_visible(False)
    for row, column in np.argwhere(is_counted).tolist():
        if row == column:
            axes.add_patch(_outline(row))
        if is_written:
            _write_cell(axes, row, column, int(confusion[row, column]), int(totals[row]))
    if is_written:
        _write_totals(axes, totals, items)
    families, missing = fonts_of([*labels, title])
    _name_cells(axes, shown_labels(labels, missing), families, cell)
    caption = items.capitalize() + CAPTION if is_written else COLOURS_ALONE
    caption += NUMBERED * any(missing.intersection(label) for label in labels)
    finish_figure(figure, shown(title, missing), caption, families)
    return figure


def _outline(place: int) -> Any:
    """The frame of a cell on the diagonal, within its white edges."""
    from matplotlib.patches import Rectangle

    return Rectangle((place + 0.03, place + 0.03), 0.94, 0.94, fill=False, edgecolor=INK, linewidth=1.3)


def _write_cell(axes: "Axes", row: int, column: int, count: int, total: int) -> None:
    """The count and, small below it, the share of the row; a cell of no item says 0 alone."""
    share = count / max(total, 1)
    colour = "white" if share > WHITE_FROM else INK if count else "#8A8A8A"
    weight = "bold" if row == column else "normal"
    _annotate(axes, f"{count:,}", (column, row), 6 if count else 0, size=COUNT_SIZE, weight=weight, color=colour)
    if count:
        _annotate(axes, whole_percent(share), (column, row), -8, size=SHARE_SIZE, color=colour)


def _annotate(axes: "Axes", text: str, cell: tuple[int, int], up: int, **options: Any) -> None:
    """Text in the middle of a cell (column, row), or some points above."""
    middle = (cell[0] + 0.5, cell[1] + 0.5)
    written = axes.annotate(text, middle, (0, up), textcoords="offset points", ha="center", va="center", **options)
    written.set_in_layout(False)  # is within the axes anyway; to measure 800 of them takes as long as to draw them


def _write_totals(axes: "Axes", totals: np.ndarray, items: str) -> None:
    """The items of each row, in grey on its right."""
    numbers = [f"{int(total):,}" for total in totals]
    right = 8 + DIGIT_WIDTH * TOTAL_SIZE * max(map(len, [*numbers, items]))  # points
    options: dict[str, Any] = {"textcoords": "offset points", "ha": "right", "color": GREY, "size": TOTAL_SIZE}
    for row, number in enumerate(numbers):
        axes.annotate(number, (len(totals), row + 0.5), (right, 0), va="center", **options)
    axes.annotate(items, (len(totals), 0), (right, 4), **options)


def whole_percent(share: float) -> str:
    """0.123 → "12 %"; what is not quite none or all is "<1 %" or ">99 %"."""
    if 0 < share < 0.005:
        return "<1 %"
    if 0.995 < share < 1:
        return ">99 %"
    # Python rounds 0.5 to 0 and 99.5 to 100, which would say none and all
    return f"{100 * share if share in (0, 1) else min(max(100 * share, 1), 99):.0f} %"


def _name_cells(axes: "Axes", names: list[str], families: list[str], cell: float) -> None:
    """Put the names to rows and columns; columns' stand level if each is narrower than a cell, else aslant."""
    places = np.arange(len(names)) + 0.5
    axes.tick_params(length=0, pad=5, labelsize=min(10, 0.6 * 72 * cell))  # lines of text fit the rows
    axes.set_yticks(places, names, fontfamily=families)
    axes.set_xticks(places, names, fontfamily=families)
    if any(label.get_window_extent().width > (cell - 0.1) * DPI for label in axes.get_xticklabels()):
        for label in axes.get_xticklabels():
            label.set(rotation=45, ha="right", va="top", rotation_mode="anchor")


def shown_labels(labels: Iterable[str], missing: set[str]) -> list[str]:
    """Labels as a picture shows them: on one line, not too long, and by number if letters are missing."""
    lines = [
        f"label {number}" if missing.intersection(label) else shown(label, missing)
        for number, label in enumerate(labels, 1)
    ]
    return [line if len(line) <= LONGEST_LABEL else line[: LONGEST_LABEL - 1].rstrip() + "…" for line in lines]


# --- Reliability ------------------------------------------------------------------------------------------------------

SMALLEST, LARGEST = 14.0, 170.0  # area of a marker, points²: of a bin with one item, and of the fullest


def draw_reliability(path: Path, curves: dict[str, "Reliability"], title: str, items: str = "texts") -> None:
    """Write a reliability diagram as a PNG picture: accuracy over confidence, and how many items are how sure.

    Guo et al. 2017 (On Calibration of Modern Neural Networks, section 2): on the diagonal a model is as often right as
    it is sure; below it, it is overconfident. A marker grows with its bin's items.

    Args:
        path: where it goes.
        curves: name → bins of equal width over 0..1, such as before and after calibration.
        title: stands above.
        items: what is counted.
    """
    write_png(path, reliability_figure(curves, title, items))


@own_style()
def reliability_figure(curves: dict[str, "Reliability"], title: str, items: str = "texts") -> "Figure":
    """The figure that `draw_reliability` writes."""
    figure = new_figure()
    upper = inch_axes(figure, 0, 1.3, 4.4, 4.4)
    lower = inch_axes(figure, 0, 0, 4.4, 1.05, sharex=upper)
    families, missing = fonts_of([*curves, title])
    (diagonal,) = upper.plot([0, 1], [0, 1], color=GREY, linestyle=(0, (4, 3)), linewidth=1.2)
    fullest = max(int(bins.count.max()) for bins in curves.values())
    lines = []
    for i, bins in enumerate(curves.values()):
        colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
        full = bins.count > 0
        x, y, count = bins.confidence[full], bins.accuracy[full], bins.count[full]
        upper.plot(x, y, color=colour, linewidth=1.2, alpha=0.6)
        areas = SMALLEST + (LARGEST - SMALLEST) * count / fullest
        # not clipped: a bin at 1.0 keeps its whole marker
        upper.scatter(x, y, s=areas, c=colour, marker=marker, edgecolors="white", clip_on=False, zorder=3)
        _draw_counts(lower, bins.count, i, len(curves), colour)
        lines.append(_line_sample(colour, marker))
    upper.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", ylabel="accuracy")
    upper.tick_params(labelbottom=False)
    lower.set(xlabel="confidence", ylabel=items)
    lower.yaxis.set_major_locator(_integers(3))
    lower.yaxis.set_major_formatter("{x:,.0f}")
    upper.grid()
    lower.grid(axis="y")
    figure.align_ylabels()
    names = [*(shown(name, missing) for name in curves), "as often right as sure"]
    upper.legend([*lines, diagonal], names, loc="lower left", bbox_to_anchor=(0, 1), prop={"family": families})
    finish_figure(figure, shown(title, missing), "", families)
    return figure


def _draw_counts(axes: "Axes", count: np.ndarray, place: int, curves: int, colour: str) -> None:
    """The bars of one curve's bins; those of two curves stand side by side."""
    width = 1 / len(count)
    left = width * (np.arange(len(count)) + 0.08 + 0.84 * place / curves)
    axes.bar(left, count, 0.84 * width / curves, align="edge", color=colour, alpha=0.85)


def _line_sample(colour: str, marker: str) -> Any:
    """A line for the legend, whose markers have all one size."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color=colour, marker=marker, markersize=6.5, linewidth=1.2)


# --- Learning curves --------------------------------------------------------------------------------------------------

MANY_POINTS = 30  # more are a line without markers


def draw_learning_curves(path: Path, log_history: list[dict[str, float]], headline: dict[str, str]) -> bool:
    """Write the losses and, beside them, the scores over the steps of a training as a PNG picture.

    Args:
        path: where it goes.
        log_history: of transformers' TrainerState: entries with `step` and `loss`, or `eval_loss` and other `eval_…`.
            What is not finite is left out. Of two evaluations at one step the first counts: the second is of the best
            checkpoint, loaded again after the last step.
        headline: score, without eval_ → what it is called. Those that were never logged are passed over.

    Returns:
        Whether there was a training loss; without one nothing is written.
    """
    figure = learning_curves_figure(log_history, headline)
    if figure is not None:
        write_png(path, figure)
    return figure is not None


@own_style()
def learning_curves_figure(log_history: list[dict[str, float]], headline: dict[str, str]) -> "Figure | None":
    """The figure that `draw_learning_curves` writes, or None without a training loss."""
    training = logged(log_history, "loss")
    if not training:
        return None
    families, missing = fonts_of(headline.values())
    figure = new_figure()
    left = inch_axes(figure, 0, 0, 4.4, 3.1)
    losses = {"training": training, "validation": logged(log_history, "eval_loss")}
    lines = [_draw_curve(left, points, i) for i, points in enumerate(losses.values()) if points]
    left.set_ylabel("loss")
    if len(lines) > 1:  # to the right: on the left may stand a factor of the axis, such as 1e7
        left.legend(lines, list(losses), loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    scores = {shown(name, missing): logged(log_history, f"eval_{score}") for score, name in headline.items()}
    if any(scores.values()):
        right = inch_axes(figure, 5.5, 0, 4.4, 3.1, sharex=left)
        _draw_scores(right, {name: points for name, points in scores.items() if points}, families)
    for axes in figure.axes:
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(_integers(5))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.grid(axis="y")
    finish_figure(figure, "", "", families)
    return figure


def _draw_scores(axes: "Axes", scores: dict[str, list[tuple[int, float]]], families: list[str]) -> None:
    """The scores' lines, and on the right their names, in the order in which the lines end."""
    lines = {name: _draw_curve(axes, points, i) for i, (name, points) in enumerate(scores.items())}
    names = sorted(scores, key=lambda name: -scores[name][-1][1])
    place: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.02, 0.5)}
    axes.legend([lines[name] for name in names], names, prop={"family": families}, **place)
    axes.set_ylabel("validation score")


def logged(log_history: list[dict[str, float]], name: str) -> list[tuple[int, float]]:
    """The finite values of one name as (step, value), ascending by step; of one step the first."""
    points: dict[int, float] = {}
    for entry in log_history:
        if name in entry and math.isfinite(entry[name]):
            points.setdefault(int(entry["step"]), entry[name])
    return sorted(points.items())


def _draw_curve(axes: "Axes", points: Sequence[tuple[int, float]], place: int) -> Any:
    """One line over the steps; a few points are marked, or a single one would not be seen."""
    steps, values = zip(*points, strict=True)
    marker = MARKERS[place % len(MARKERS)] if len(points) <= MANY_POINTS else ""
    (line,) = axes.plot(steps, values, color=COLOURS[place % len(COLOURS)], marker=marker, markeredgecolor="white")
    return line


# --- Figures and files ------------------------------------------------------------------------------------------------


def new_figure() -> "Figure":
    """An empty figure of 1 by 1 inch; `finish_figure` makes it as large as what is drawn."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((1, 1), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def inch_axes(figure: "Figure", left: float, bottom: float, width: float, height: float, **options: Any) -> "Axes":
    """Axes at a place that is given in inches; `options` go to matplotlib's `add_axes`."""
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up), **options)


def _integers(most: int) -> Any:
    """Ticks at whole numbers, some `most` of them."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(most, integer=True)


def finish_figure(figure: "Figure", title: str, caption: str, families: list[str]) -> None:
    """Set title and caption above what is drawn, and make the canvas as large as all of it and a margin.

    So nothing can be cut off, however long a label is, and panels keep their size.

    Args:
        figure: of `new_figure`, drawn.
        title: above all, bold; none if empty.
        caption: below the title, small and grey; none if empty.
        families: fonts that have the letters of both, of `fonts_of`.
    """
    box = figure.get_tightbbox()
    top = box.y1 + 0.12
    for text, size, weight, colour in ((caption, 9, "normal", GREY), (title, 12, "bold", INK)):
        if text:
            letter = size / 72 * (0.66 if weight == "bold" else 0.56)  # inches, on an average
            lines = textwrap.wrap(text, int(max(box.width, 4.2) / letter), break_on_hyphens=False)
            written = figure.text(
                box.x0, top, "\n".join(lines), size=size, weight=weight, color=colour, family=families,
                va="bottom", transform=figure.dpi_scale_trans,
            )  # fmt: skip
            top += written.get_window_extent().height / DPI + 0.08
    box = figure.get_tightbbox()
    across, up = (math.ceil((length + 2 * MARGIN) * DPI) / DPI for length in (box.width, box.height))
    for axes in figure.axes:
        x, y, width, height = axes.get_position(original=True).bounds * np.tile(figure.get_size_inches(), 2)
        x, y = x - box.x0 + MARGIN, y - box.y0 + MARGIN
        axes.set_position((x / across, y / up, width / across, height / up))
    for written in figure.texts:
        x, y = written.get_position()
        written.set_position((x - box.x0 + MARGIN, y - box.y0 + MARGIN))
    figure.set_size_inches(across, up)


@own_style()
def write_png(path: Path, figure: "Figure") -> None:
    """Write the figure, without the version and date that matplotlib puts into a PNG file."""
    figure.savefig(path, format="png", dpi=DPI, metadata={"Software": None})


# --- Letters ----------------------------------------------------------------------------------------------------------


UNDRAWABLE = ("Cc", "Cs")  # control characters and halves of a surrogate pair
WITHOUT_SHAPE = (*UNDRAWABLE, "Cf", "Zs", "Zl", "Zp")  # and joiners and spaces, which a font need not have


def fonts_of(texts: Iterable[str]) -> tuple[list[str], set[str]]:
    """Fonts that together have all letters of the texts: DejaVu Sans, then what else is installed and needed.

    Args:
        texts: of any script.

    Returns:
        Families, in the order in which a letter is looked for, and the letters that none has.
    """
    from matplotlib.font_manager import findfont, fontManager
    from matplotlib.ft2font import FT2Font

    families = ["DejaVu Sans"]
    letters = {letter for text in texts for letter in text}
    letters -= {letter for letter in letters if unicodedata.category(letter) in WITHOUT_SHAPE}
    face = FT2Font(findfont(families[0]))
    missing = {letter for letter in letters if not face.get_char_index(ord(letter))}
    upright = [font for font in fontManager.ttflist if font.style == "normal" and font.weight == 400]
    # sans-serif ones first; matplotlib's own last resort has a box for every letter
    for font in sorted(upright, key=lambda font: ("Sans" not in font.name, font.name)) if missing else ():
        if missing and font.name != "Last Resort High-Efficiency" and Path(font.fname).is_file():
            face = FT2Font(font.fname)
            found = {letter for letter in missing if face.get_char_index(ord(letter))}
            families += [font.name] if found else []
            missing -= found
    return families, missing


def shown(text: str, missing: set[str]) -> str:
    """Text on one line, without control characters, with a □ for each letter that no font has."""
    line = "".join(letter for letter in " ".join(text.split()) if unicodedata.category(letter) not in UNDRAWABLE)
    return "".join("□" if letter in missing else letter for letter in line)
