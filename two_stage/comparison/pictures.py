"""The pictures of a comparison: learning curves over labels, paired seeds, doses and labels, as PNG files and as SVG.

Each `…_figure` gives None where its data are not there. It is drawn for a width, because a picture that is merely made
smaller for a phone has letters that nobody can read. The same input gives the same bytes.
"""

import io
import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard
from xml.etree import ElementTree

import numpy as np

from two_stage.results.pictures import (
    COLOURS,
    GREY,
    INK,
    MARGIN,
    MARKERS,
    PALE,
    finish_figure,
    fonts_of,
    inch_axes,
    new_figure,
    own_style,
    shown,
    write_png,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# inches, of 96 CSS pixels each: a column of a page, and a screen of 360 pixels without its margins
PAGE, PHONE = 7.6, 3.4
LONGEST_NAME = 24  # characters of an arm's name
MOST_LABELS = 30  # more are in the table alone
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = COLOURS[:6]
BETTER, WORSE, NEITHER = GREEN, VERMILION, GREY
ARM_COLOURS = (BLUE, PURPLE, ORANGE, SKY)  # those that say neither better nor worse


def percent_text(fraction: float) -> str:
    """5 → "5 %"; 0.5 → "0.5 %"."""
    return f"{fraction:g} %"


def rows_of(comparison: dict[str, Any], fraction: float) -> int | None:
    """The labelled rows that a share of them is, if known; JSON makes text of numbers that are keys, 5 or 5.0.

    Of a share that has no end, such as 33.33333333, the key has six digits.
    """
    named = {f"{float(percent):g}": rows for percent, rows in comparison["train_rows"].items()}
    return named.get(f"{fraction:g}")


def is_number(value: Any) -> TypeGuard[float]:
    """Whether this is a finite number: an end of an interval that cannot be told is None or nan."""
    return isinstance(value, int | float) and math.isfinite(value)


# --- Learning curves --------------------------------------------------------------------------------------------------


@own_style()
def learning_curves_figure(comparison: dict[str, Any], width: float = PAGE, title: str = "") -> "Figure | None":
    """Score against labelled rows, one line an arm with the band of its interval; arms that are doses are left out.

    Args:
        comparison: the content of comparison.json.
        width: of the whole picture, inches.
        title: stands above, if any.

    Returns:
        The figure, or None where no arm has scores at two numbers of rows.
    """
    curves = {arm["name"]: _curve(comparison, arm["name"]) for arm in comparison["arms"] if arm["dose"] is None}
    curves = {name: [point for point in points if point["rows"]] for name, points in curves.items()}
    curves = {name: points for name, points in curves.items() if points}
    if max(map(len, curves.values()), default=0) < 2:
        return None
    families, missing = fonts_of([*curves, comparison["score_name"], title])
    figure = new_figure()
    axes = inch_axes(figure, 0, 0, width, 3.4 if width > PHONE else 2.7)
    axes.set_xscale("log")
    looks = _arm_looks(comparison)
    lines = {}
    for name, points in curves.items():
        lines[name] = _draw_band(axes, points, **looks[name])
    names = sorted(lines, key=lambda name: -curves[name][-1]["mean"])
    _add_legend(axes, [lines[name] for name in names], [_short(name, missing) for name in names], families, width)
    axes.set_xlabel("labelled rows (per cent of all)")
    axes.set_ylabel(_score_axis(comparison, missing), family=families)
    axes.grid(axis="y")
    ticks = {point["rows"]: percent_text(point["fraction"]) for points in curves.values() for point in points}
    axes.set_xticks(list(ticks), [f"{rows:,}\n{percent}" for rows, percent in ticks.items()])
    axes.set_xticks([], minor=True)
    axes.set_xlim(min(ticks) / 1.15, max(ticks) * 1.15)
    _fit(figure, width)
    _thin_labels(axes)
    finish_figure(figure, shown(title, missing), "", families)
    return figure


def _curve(comparison: dict[str, Any], arm: str) -> list[dict[str, Any]]:
    """The points of an arm with their `rows`, by ascending share of these."""
    points = [point for point in comparison["curves"] if point["arm"] == arm and is_number(point["mean"])]
    points.sort(key=lambda point: point["fraction"])
    return [{**point, "rows": rows_of(comparison, point["fraction"])} for point in points]


def _arm_looks(comparison: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Arm → colour, marker and dashes of its line; base is black and dashed, as what the others are held against."""
    others = [arm["name"] for arm in comparison["arms"] if arm["name"] != comparison["base"]]
    looks: dict[str, dict[str, Any]] = {comparison["base"]: {"color": INK, "marker": "o", "linestyle": (0, (4, 2))}}
    for place, name in enumerate(others):
        looks[name] = _look(place)
    return looks


def _look(place: int) -> dict[str, Any]:
    """Colour and marker of a line; five markers beside base's and four colours make twenty that differ."""
    return {"color": ARM_COLOURS[place % len(ARM_COLOURS)], "marker": MARKERS[1 + place % (len(MARKERS) - 1)]}


def _draw_band(axes: "Axes", points: list[dict[str, Any]], **look: Any) -> Any:
    """The line of the means, and the band of their intervals where these can be told; gives the line."""
    means, lows, highs = (
        np.array([point[name] if is_number(point[name]) else math.nan for point in points], dtype=float)
        for name in ("mean", "low", "high")
    )
    places = [point["rows"] for point in points]
    told = ~np.isnan(lows) & ~np.isnan(highs)
    axes.fill_between(places, lows, highs, where=told, color=look["color"], alpha=0.13, linewidth=0)
    for alone in np.flatnonzero(told & ~_has_neighbour(told)):  # a band of one point would not be seen
        axes.vlines(places[alone], lows[alone], highs[alone], color=look["color"], linewidth=1.2)
    (line,) = axes.plot(places, means, markeredgecolor="white", clip_on=False, **look)
    return line


def _has_neighbour(told: np.ndarray) -> np.ndarray:
    """Where the one before or after is true: bool (points,)."""
    padded = np.pad(told, 1)
    return padded[:-2] | padded[2:]


def _add_legend(axes: "Axes", lines: list[Any], names: list[str], families: list[str], width: float) -> None:
    """The lines' names: on the right in the order in which the lines end, or above where there is no room."""
    place: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.02, 0.5)}
    if width <= PHONE:
        place = {"loc": "lower left", "bbox_to_anchor": (0, 1.02)}
    axes.legend(lines, names, prop={"family": families}, handlelength=2.4, **place)


def _score_axis(comparison: dict[str, Any], missing: set[str]) -> str:
    """What stands beside an axis of scores; which way is better is said where it is not the usual one."""
    name = _short(comparison["score_name"], missing)
    return name if comparison["higher_is_better"] else f"{name} (lower is better)"


def _short(text: str, missing: set[str], longest: int = LONGEST_NAME) -> str:
    """Text on one line that is not too long, with a □ for each letter that no font has."""
    line = shown(text, missing)
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"


# --- Paired seeds -----------------------------------------------------------------------------------------------------

PANEL_HEIGHT = 1.9  # inches
HEADING = 0.72  # inches above a panel: what it is, and what changed


@own_style()
def paired_seeds_figure(comparison: dict[str, Any], width: float = PAGE, title: str = "") -> "Figure | None":
    """Each seed a line from base to arm, one panel a share of the rows; arms that are doses are left out.

    The panels have scores of their own at the axis but one scale, so that equal slopes are equal differences.

    Args:
        comparison: the content of comparison.json.
        width: of the whole picture, inches.
        title: stands above, if any.

    Returns:
        The figure, or None where no arm is held against base.
    """
    arms = [arm["name"] for arm in comparison["arms"] if arm["dose"] is None and arm["name"] != comparison["base"]]
    panels = {name: [pairs for pairs in _seed_pairs(comparison, name) if pairs["base"]] for name in arms}
    everything = [pairs["base"] + pairs["arm"] for found in panels.values() for pairs in found]
    if not everything:
        return None
    # a share of room above and below, and some room even if all seeds are alike: a hundredth of the largest score
    least = 0.01 * max(abs(value) for values in everything for value in values) or 0.01
    half = max(0.62 * max(max(values) - min(values) for values in everything), least)
    families, missing = fonts_of([*arms, comparison["base"], comparison["score_name"], title])
    figure = new_figure()
    most = max(int(width / 1.13), 1)  # panels side by side
    longest = LONGEST_NAME if width > PHONE else LONGEST_NAME // 2  # a heading must not be wider than the panels
    across, top = width / min(max(len(found) for found in panels.values()), most), 0.0
    base = _short(comparison["base"], missing, LONGEST_NAME // 2)
    for name, found in panels.items():
        for start in range(0, len(found), most):
            top -= PANEL_HEIGHT + HEADING + 0.45
            for place, pairs in enumerate(found[start : start + most]):
                axes = inch_axes(figure, place * across, top, min(across - 0.5, 1.7), PANEL_HEIGHT)
                heading = f"{_short(name, missing, longest)} against {base}" * (place == 0)
                _draw_pairs(axes, pairs, comparison, half, heading, families)
                if place == 0:
                    axes.set_ylabel(_score_axis(comparison, missing), family=families)
    _fit(figure, width)
    finish_figure(figure, shown(title, missing), "", families)
    return figure


def _seed_pairs(comparison: dict[str, Any], arm: str) -> list[dict[str, Any]]:
    """Of each share of the rows the scores of base and of the arm with the same seeds, and the difference."""
    ours, bases = (
        {point["fraction"]: dict(zip(point["seeds"], point["each"], strict=True)) for point in _curve(comparison, name)}
        for name in (arm, comparison["base"])
    )
    found = []
    for fraction in sorted(ours.keys() & bases.keys()):
        seeds = [seed for seed in ours[fraction] if seed in bases[fraction]]
        base = [bases[fraction][seed] for seed in seeds]
        found.append({"fraction": fraction, "base": base, "arm": [ours[fraction][seed] for seed in seeds]})
    return found


def _draw_pairs(
    axes: "Axes", pairs: dict[str, Any], comparison: dict[str, Any], half: float, heading: str, families: list[str]
) -> None:
    """One panel: thin lines for the seeds, dashed where the arm is worse, and a thick one for their mean."""
    sign = 1 if comparison["higher_is_better"] else -1
    better = 0
    for base, arm in zip(pairs["base"], pairs["arm"], strict=True):
        gain = sign * (arm - base)
        better += gain > 0
        colour = BETTER if gain > 0 else WORSE if gain < 0 else NEITHER
        style = (0, (3, 1.5)) if gain < 0 else "-"
        axes.plot([0, 1], [base, arm], color=colour, linestyle=style, marker="o", markersize=4, linewidth=1.2)
    means = [float(np.mean(pairs["base"])), float(np.mean(pairs["arm"]))]
    axes.plot([0, 1], means, color=INK, linewidth=3, alpha=0.35, solid_capstyle="round", zorder=1)
    everything = pairs["base"] + pairs["arm"]
    middle = (max(everything) + min(everything)) / 2
    axes.set(xlim=(-0.25, 1.25), ylim=(middle - half, middle + half))
    axes.set_xticks([0, 1], ["base", "arm"])
    axes.locator_params(axis="y", nbins=4)
    axes.ticklabel_format(axis="y", useOffset=False, style="plain")
    axes.tick_params(axis="y", labelsize=8.5, length=0)
    axes.grid(axis="y")
    options: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "annotation_clip": False}
    counted = f"{better} of {len(pairs['base'])} better"
    axes.annotate(heading, (0, 1), (0, 38), weight="bold", family=families, **options)
    axes.annotate(percent_text(pairs["fraction"]), (0, 1), (0, 21), weight="bold", size=9.5, **options)
    axes.annotate(counted, (0, 1), (0, 8), color=GREY, size=8.5, **options)


# --- Doses ------------------------------------------------------------------------------------------------------------


@own_style()
def doses_figure(comparison: dict[str, Any], width: float = PAGE, title: str = "") -> "Figure | None":
    """What an arm gains after a part of stage one's steps: 0 is base, 100 the whole of stage one.

    Args:
        comparison: the content of comparison.json.
        width: of the whole picture, inches.
        title: stands above, if any.

    Returns:
        The figure, or None where no arm is a dose.
    """
    lines = dose_lines(comparison)
    if not lines:
        return None
    families, missing = fonts_of([*(of for of, _ in lines), comparison["score_name"], title])
    figure = new_figure()
    axes = inch_axes(figure, 0, 0, width, 3.0 if width > PHONE else 2.5)
    axes.axhline(0, color=GREY, linewidth=1, linestyle=(0, (4, 2)))
    has_many = len({of for of, _ in lines}) > 1
    drawn = []
    for place, ((of, fraction), points) in enumerate(lines.items()):
        # side by side, so that no interval hides another
        aside = place - (len(lines) - 1) / 2
        name = f"{_short(of, missing) + ', ' if has_many else ''}{percent_text(fraction)} of the rows"
        line = _draw_reaches(axes, points, comparison["points"], aside, **_look(place))
        drawn.append((points[-1]["mean"], line, name))
    drawn.sort(key=lambda end: -end[0])
    _add_legend(axes, [line for _, line, _ in drawn], [name for *_, name in drawn], families, width)
    axes.set_xlabel("per cent of stage one's steps (0: base)")
    axes.set_ylabel(_gain_axis(comparison, missing), family=families)
    axes.set_xticks(sorted({point["dose"] for points in lines.values() for point in points}))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.grid(axis="y")
    _fit(figure, width)
    _thin_labels(axes)
    finish_figure(figure, shown(title, missing), "", families)
    return figure


def _draw_reaches(axes: "Axes", points: list[dict[str, Any]], scale: float, aside: float, **look: Any) -> Any:
    """The line of the means, and upright lines for their intervals, a little to one side; gives the line."""
    steps = [point["dose"] + 0.9 * aside for point in points]
    for x, point in zip(steps, points, strict=True):
        if is_number(point["low"]) and is_number(point["high"]):
            axes.vlines(x, scale * point["low"], scale * point["high"], color=look["color"], linewidth=2, alpha=0.5)
    (line,) = axes.plot(steps, [scale * point["mean"] for point in points], markeredgecolor="white", **look)
    return line


def dose_lines(comparison: dict[str, Any]) -> dict[tuple[str, float], list[dict[str, Any]]]:
    """(arm that was stopped on the way, share of the rows) → its differences by dose, from 0 to 100 per cent.

    Args:
        comparison: the content of comparison.json.

    Returns:
        Points with `dose`, `mean`, `low` and `high`. Base is the point at 0, whose difference from itself is 0.
    """
    doses = {arm["name"]: arm for arm in comparison["arms"] if arm["dose"] is not None}
    found: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for difference in comparison["differences"]:
        if difference["arm"] in doses and is_number(difference["mean"]):
            arm = doses[difference["arm"]]
            line = found.setdefault((arm["dose_of"] or "", difference["fraction"]), [])
            line.append({**difference, "dose": arm["dose"]})
    for (of, fraction), line in found.items():
        whole = [point for point in comparison["differences"] if (point["arm"], point["fraction"]) == (of, fraction)]
        line += [{**point, "dose": 100} for point in whole if is_number(point["mean"])]
        line += [{"dose": 0, "mean": 0.0, "low": None, "high": None}]
        line.sort(key=lambda point: point["dose"])
    return dict(sorted(found.items()))


def _gain_axis(comparison: dict[str, Any], missing: set[str]) -> str:
    """What stands beside an axis of differences."""
    unit = " (points)" if comparison["points"] == 100 else ""
    less = "" if comparison["higher_is_better"] else ",\nlower is better"
    return f"change in {_short(comparison['score_name'], missing)}{unit}{less}"


# --- Labels -----------------------------------------------------------------------------------------------------------


@own_style()
def label_changes_figure(comparison: dict[str, Any], width: float = PAGE, title: str = "") -> "Figure | None":
    """How the F1 of each label changed: a dot and its interval, the largest gain above.

    Args:
        comparison: the content of comparison.json.
        width: of the whole picture, inches.
        title: stands above, if any.

    Returns:
        The figure, or None where no label has a difference. Of many labels the most frequent are drawn.
    """
    labels = [label for label in comparison["labels"] if is_number(label["difference"])]
    labels = sorted(labels, key=lambda label: -label.get("support", 0))[:MOST_LABELS]
    labels.sort(key=lambda label: -label["difference"])
    if not labels:
        return None
    families, missing = fonts_of([*(label["label"] for label in labels), title])
    figure = new_figure()
    is_wide = width > PHONE
    height = 0.34 if is_wide else 0.5  # inches a label: on a phone its name stands above its line
    axes = inch_axes(figure, 0, 0, width, height * len(labels))
    axes.axvline(0, color=GREY, linewidth=1, linestyle=(0, (4, 2)))
    names = [_short(label["label"], missing) for label in labels]
    names = [
        f"{name} ({label['support']:,})" if "support" in label else name
        for name, label in zip(names, labels, strict=True)
    ]
    for row, label in enumerate(labels):
        _draw_change(axes, row + (0 if is_wide else 0.2), label)
        if not is_wide:
            place: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "family": families}
            axes.text(0, row - 0.02, names[row], size=9, va="bottom", **place)
    axes.set_yticks(range(len(labels)), names if is_wide else [""] * len(labels), family=families)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_xlabel("change in F1 (points)")
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    _fit(figure, width)
    finish_figure(figure, shown(title, missing), "", families)
    return figure


def _draw_change(axes: "Axes", row: float, label: dict[str, Any]) -> None:
    """One label's dot and interval: coloured, and pointed, where the interval leaves 0 out."""
    colour, marker = NEITHER, "o"
    if is_number(label["low"]) and is_number(label["high"]):
        if label["low"] > 0:
            colour, marker = BETTER, "^"
        elif label["high"] < 0:
            colour, marker = WORSE, "v"
        axes.hlines(row, 100 * label["low"], 100 * label["high"], color=colour, linewidth=2.2, alpha=0.55)
    axes.plot(100 * label["difference"], row, color=colour, marker=marker, markersize=7, markeredgecolor="white")


# --- Figures and files ------------------------------------------------------------------------------------------------

FIGURES: dict[str, Callable[..., "Figure | None"]] = {
    "learning_curves": learning_curves_figure,
    "paired_seeds": paired_seeds_figure,
    "doses": doses_figure,
    "label_changes": label_changes_figure,
}
TITLES = {
    "learning_curves": "Score against labelled rows",
    "paired_seeds": "Seed by seed, from base to arm",
    "doses": "How much of stage one is enough",
    "label_changes": "Label by label",
}


def draw_comparison(folder: Path, comparison: dict[str, Any]) -> list[str]:
    """Write the pictures as PNG files.

    Args:
        folder: where they go.
        comparison: the content of comparison.json.

    Returns:
        The names of those written: one whose data are not there is not.
    """
    written = []
    for name, make in FIGURES.items():
        figure = make(comparison, PAGE, TITLES[name])
        if figure is not None:
            write_png(folder / f"{name}.png", figure)
            written.append(f"{name}.png")
    return written


def comparison_svgs(comparison: dict[str, Any], alternatives: dict[str, str]) -> dict[str, dict[str, str]]:
    """The pictures as SVG elements that can stand in a page.

    Args:
        comparison: the content of comparison.json.
        alternatives: picture → what it says, for those who do not see it.

    Returns:
        Picture → `page` and `phone` → element. One whose data are not there is left out.
    """
    found: dict[str, dict[str, str]] = {}
    for name, make in FIGURES.items():
        for place, width in (("page", PAGE), ("phone", PHONE)):
            figure = make(comparison, width)
            if figure is not None:
                found.setdefault(name, {})[place] = svg_element(figure, f"{name}-{place}", alternatives[name])
    return found


def _fit(figure: "Figure", width: float) -> None:
    """Make the axes so much narrower or wider that all that is drawn is `width` inches wide, margins included."""
    for _ in range(2):  # narrower axes may have fewer ticks, and these other labels
        box = figure.get_tightbbox()
        places = [axes.get_position(original=True).bounds for axes in figure.axes]
        span = max(x + across for x, _, across, _ in places) - min(x for x, *_ in places)
        share = max(1 + (width - 2 * MARGIN - box.width) / span, 0.4)
        for axes, (x, y, across, up) in zip(figure.axes, places, strict=True):
            axes.set_position((share * x, y, share * across, up))


def _thin_labels(axes: "Axes") -> None:
    """Leave out labels of the x axis that would touch the next one, from the right: the last always stays."""
    labels = axes.get_xticklabels()
    texts = [label.get_text() for label in labels]
    reached = math.inf
    for place in np.argsort([-label.get_window_extent().x1 for label in labels]).tolist():
        box = labels[place].get_window_extent()
        if box.x1 + 4 > reached:
            texts[place] = ""
        else:
            reached = box.x0
    axes.set_xticks(axes.get_xticks(), texts)


# --- SVG --------------------------------------------------------------------------------------------------------------

# The page has a light and a dark value for each of these, so that its pictures follow it.
VARIABLES = {
    INK: "ink",
    GREY: "grey",
    PALE: "pale",
    "#FFFFFF": "paper",
    BLUE: "blue",
    VERMILION: "vermilion",
    GREEN: "green",
    PURPLE: "purple",
    ORANGE: "orange",
    SKY: "sky",
    "#000000": "ink",
}
SVG, XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"


def svg_element(figure: "Figure", name: str, alternative: str) -> str:
    """The figure as an SVG element that can stand in a page: without a word of its own, letters are outlines.

    So it looks the same whatever fonts a reader has, loads nothing, and no text from the data is in it but the
    alternative. Its colours are the page's variables.

    Args:
        figure: finished.
        name: stands before every id, so that several pictures can stand in one page.
        alternative: what the picture says, for those who do not see it.

    Returns:
        One `<svg>` element, in HTML and in XML.
    """
    import matplotlib

    written = io.BytesIO()
    with own_style(), matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):
        figure.savefig(written, format="svg", transparent=True)
    root = ElementTree.fromstring(written.getvalue())  # the parser drops the comments, which hold the texts
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{SVG}style", f"{SVG}metadata") or not child.tag.startswith(SVG):
                parent.remove(child)
    _plain_names(root, name)
    for attribute in ("version", "xmlns", "width", "height"):
        root.attrib.pop(attribute, None)
    root.attrib |= {"role": "img", "aria-label": alternative, "class": "picture"}
    across = float(root.attrib["viewBox"].split()[2]) / 72 * 96  # points → CSS pixels
    root.attrib["style"] = f"max-width: {across:.0f}px; stroke-linejoin: round; stroke-linecap: butt"
    return ElementTree.tostring(root, encoding="unicode")


def _plain_names(root: ElementTree.Element, name: str) -> None:
    """Take namespaces off, put `name` before the ids that are used and drop the others, and name the colours."""
    wanted = set(re.findall(r"#([\w-]+)", " ".join(_references(root))))
    for element in root.iter():
        element.tag = element.tag.removeprefix(SVG)
        element.text = element.tail = None
        attributes = {}
        for key, value in element.attrib.items():
            key = key.removeprefix(XLINK)
            if key == "id":
                if value in wanted:
                    attributes[key] = f"{name}-{value}"
            elif key == "href" or "url(#" in value:
                attributes[key] = value.replace("#", f"#{name}-")
            else:
                attributes[key] = _in_variables(value) if key in ("style", "fill", "stroke") else value
        element.attrib.clear()
        element.attrib.update(attributes)


def _references(root: ElementTree.Element) -> Iterable[str]:
    """The attributes that name another element."""
    for element in root.iter():
        yield from (value for key, value in element.attrib.items() if key.endswith("href") or "url(#" in value)


def _in_variables(style: str) -> str:
    """Style with the page's variables in place of colours; a colour that the page does not know is an error."""
    known = {colour.lower(): f"var(--{variable})" for colour, variable in VARIABLES.items()}
    return re.sub("#[0-9a-f]{6}", lambda found: known[found[0]], style)
