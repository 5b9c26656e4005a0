"""The pictures of a comparison: they say what the numbers say, nothing is cut off, and their colours are the page's."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from tests.test_pictures import assert_nothing_is_cut_off, overlapping, seen_texts
from two_stage.comparison.pictures import (
    BETTER,
    FIGURES,
    MOST_LABELS,
    NEITHER,
    PAGE,
    PHONE,
    VARIABLES,
    WORSE,
    comparison_svgs,
    dose_lines,
    doses_figure,
    draw_comparison,
    label_changes_figure,
    learning_curves_figure,
    paired_seeds_figure,
    percent_text,
    rows_of,
    svg_element,
)
from two_stage.results.pictures import DPI

# a missing letter, a nan in an area, a deprecated option: what matplotlib warns of is an error here
pytestmark = pytest.mark.filterwarnings("error")

NASTY = (
    "<script>alert(1)</script>",
    "{{ 7*7 }}",
    '" onload="alert(2)',
    "a | b || c",
    "\u202eright to left\u202c שלום",
    "👍🏽 great \x00\ud800\x1b[31m",
    "very long " * 200,
)
ARMS = ("base", "stage_one", "plain <b>", "stage_one@10")
GAINS = {"stage_one": (0.05, 0.03, 0.021), "plain <b>": (0.01, 0.0, -0.024), "stage_one@10": (0.02, 0.01, 0.009)}
BASES = (0.512, 0.634, 0.702)


def made_up_comparison(gain: float = 0.021, half: float = 0.013, higher_is_better: bool = True) -> dict[str, Any]:
    """A comparison of four arms, three shares of the rows and three seeds, one cell of them failed.

    Args:
        gain: of the headline comparison, stage_one at 100 %.
        half: half the width of every interval.
        higher_is_better: of the score.
    """
    fractions, seeds, points = [5, 25, 100], [0, 1, 2], 100 if higher_is_better else 1
    curves, differences, cells = [], [], []
    noise = np.random.default_rng(0).normal(0, 0.006, (4, 3, 3)).round(5)
    for a, arm in enumerate(ARMS):
        for f, fraction in enumerate(fractions):
            added = 0.0 if arm == "base" else gain if (arm, fraction) == ("stage_one", 100) else GAINS[arm][f]
            failed = (arm, fraction) == ("plain <b>", 5)
            kept = seeds[:2] if failed else seeds
            each = [round(BASES[f] + added + float(noise[a, f, seed]), 5) for seed in kept]
            mean = float(np.mean(each))
            curve = {"arm": arm, "fraction": fraction, "mean": mean, "low": mean - 0.02, "high": mean + 0.02}
            curves.append(curve | {"each": each, "seeds": kept})
            for seed in seeds:
                is_failed = seed not in kept
                scores = {} if is_failed else {"macro_f1": each[seed], "accuracy": 0.8, "calibration_error": 0.05}
                cells.append(
                    {"arm": arm, "fraction": fraction, "seed": seed, "folder": f"cells/{arm}/{fraction}-percent/{seed}"}
                    | {"status": "failed" if is_failed else "finished", "minutes": None if is_failed else 1.25}
                    | {"reason": f"out of memory {NASTY[0]}" if is_failed else "", "scores": scores}
                )
            if arm == "base":
                continue
            told = [ours - theirs for ours, theirs in zip(each, curves[f]["each"], strict=False)]
            ups = sum((change > 0) == higher_is_better for change in told)
            word = "cannot tell"
            if abs(added) > half:
                word = "paid off" if (added > 0) == higher_is_better else "cost"
            change = {"arm": arm, "fraction": fraction, "mean": added, "low": added - half, "high": added + half}
            differences.append(
                change
                | {"p_value": 0.0004 if abs(added) > 2 * half else 0.21, "adjusted_p_value": 0.037 + a / 100 + f / 1000}
                | {"seeds": kept, "each": told, "seeds_up": ups, "word": word, "sentence": f"{arm}: {word} {NASTY[2]}."}
                | {"more": "", "detectable": 0.0194, "seed_sd": 0.0061, "item_error": 0.0042}
            )
    headline = next(d for d in differences if (d["arm"], d["fraction"]) == ("stage_one", 100))
    return {
        "title": "Did stage one pay off?",
        "task": "sentiment",
        "score": "macro_f1",
        "score_name": "macro-F1" if higher_is_better else "mean absolute error",
        "points": points,
        "higher_is_better": higher_is_better,
        "items": 1484,
        "item_name": "texts",
        "seeds": seeds,
        "fractions": fractions,
        "train_rows": {"5": 193, "25": 966, "100": 3865},
        "base": "base",
        "headline": {"arm": "stage_one", "fraction": 100},
        "verdict": {"word": headline["word"], **_sentence(headline, points)},
        "arms": _arms(),
        "cells": cells,
        "curves": curves,
        "differences": differences,
        "labels": _labels(),
        "flips": _flips(),
        "calibration": [
            {"arm": arm, "fraction": fraction, "mean": 0.051 + a / 100, "each": [0.05, 0.052]}
            for a, arm in enumerate(ARMS)
            for fraction in fractions
        ],
        "settings": {
            "stage one": {"learning_rate": 5e-5, "note": NASTY[0]},
            "stage two": {"epochs": 3, "frozen": None},
        },
        "lineage": {"commit": "a1b2c3d", "versions": {"torch": "2.13.0"}, "test_file": {"test.csv": "0f" * 32}}
        | {"machine": "2 CPU cores"},
        "command": 'python run_comparison.py --recipe r.yaml --note "```" --lots "<b>"',
        "started": "2026-11-23 20:45 UTC",
        "hours": 1.4,
        "notes": [f"1 of 36 cells failed {NASTY[0]}"],
    }


def _sentence(headline: dict[str, Any], points: float) -> dict[str, str]:
    """What the verdict says in a sentence, and what would tell more."""
    change, low, high = (points * headline[name] for name in ("mean", "low", "high"))
    ends = f"(95 % interval {low:.1f} to {high:.1f})"
    more = "If the true difference is what was seen, about 7 more seeds would tell, or about 1,900 more test texts."
    if headline["word"] == "cannot tell":
        return {"sentence": f"Cannot tell: stage one changed macro-F1 by {change:+.1f} points {ends}.", "more": more}
    done = "added" if change > 0 else "took"
    away = "" if change > 0 else " away"
    sentence = f"Stage one {done} {abs(change):.1f} macro-F1 points{away} {ends}: it {headline['word']}."
    return {"sentence": sentence, "more": ""}


def _arms() -> list[dict[str, Any]]:
    """Base, two arms and a dose of one of them."""
    own = {"mlm_loss_before": 6.791, "mlm_loss": 5.543, "mlm_accuracy_before": 0.112, "mlm_accuracy": 0.241}
    learned = own | {"nsp_accuracy": 0.871, "general_mlm_loss_before": 7.302, "general_mlm_loss": 7.391}
    spent = {"tokens": 600123, "minutes": 8.14, "steps": 311}
    arms = []
    for name, title, dose, cost, pretraining in (
        ("base", "the checkpoint as it is", None, None, None),
        ("stage_one", "after stage one " + NASTY[5], None, spent, learned),
        ("plain <b>", NASTY[6], None, {"tokens": 70000, "minutes": 181.0, "steps": 44}, {"general_mlm_loss": 7.1}),
        ("stage_one@10", "a tenth of stage one", 10, {"tokens": 60012, "minutes": 0.81, "steps": 32}, None),
    ):
        arm = {"name": name, "title": title, "checkpoint": f"outputs/{name}", "dose": dose}
        arms.append(arm | {"dose_of": "stage_one" if dose else None, "cost": cost, "pretraining": pretraining})
    return arms


def _labels() -> list[dict[str, Any]]:
    """Five labels: a gain, a loss, two that cannot be told and one without an interval."""
    rows = (("neutral", 287, 0.851, 0.034, 0.02), ("$\\frac{<1}$ & <b>", 41, 0.402, -0.067, 0.03))
    rows += (
        ("cautiously optimistic about it all", 1033, 0.622, 0.011, 0.02),
        ("negatif é שלום", 99, 0.71, -0.004, 0.03),
    )
    labels = [
        {"label": label, "support": support, "base": base, "arm": base + change, "difference": change}
        | {"low": change - half, "high": change + half}
        for label, support, base, change, half in rows
    ]
    none = {"label": "rare", "support": 1, "base": 0.0, "arm": 0.0, "difference": 0.0, "low": None, "high": None}
    return [*labels, none]


def _flips() -> dict[str, Any]:
    """Texts that changed sides, every nasty one among them."""
    seen = {"gold": "neutral", "base": "negative", "arm": "neutral", "base_right": 0, "arm_right": 3}
    right = [{"text": text, **seen} for text in NASTY]
    wrong = [{"text": "It went as it had to.", **seen, "base_right": 3, "arm_right": 1}]
    return {"right": 31, "wrong": 25, "items": 1484, "examples": {"right": right, "wrong": wrong}}


def drawn(figure: Figure | None) -> Figure:
    """The figure, which is there."""
    assert figure is not None
    return figure


# --- What is drawn ----------------------------------------------------------------------------------------------------


def test_learning_curves_are_the_means_over_the_rows() -> None:
    """One line an arm that is no dose, at the number of labelled rows; the band reaches from low to high."""
    comparison = made_up_comparison()
    axes = drawn(learning_curves_figure(comparison)).axes[0]
    found = {tuple(line.get_xdata()): [] for line in axes.lines}
    for line in axes.lines:
        found[tuple(line.get_xdata())].append(line.get_ydata().tolist())
    want = [[c["mean"] for c in comparison["curves"] if c["arm"] == arm] for arm in ARMS[:3]]
    assert found == {(193, 966, 3865): want}
    for band, means in zip(axes.collections, want, strict=True):
        heights = band.get_paths()[0].vertices[:, 1]
        assert heights.min() == pytest.approx(means[0] - 0.02)
        assert heights.max() == pytest.approx(means[2] + 0.02)
    assert axes.get_xscale() == "log"
    assert [t.get_text() for t in axes.get_xticklabels()] == ["193\n5 %", "966\n25 %", "3,865\n100 %"]
    # in the order in which the lines end
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["stage_one", "base", "plain <b>"]


def test_tick_labels_that_would_touch_are_left_out_but_the_last_stays() -> None:
    """Of shares that lie close together; a point of an unknown number of rows is left out."""
    comparison = made_up_comparison()
    points = [(70, 7000), (80, 8000), (90, 9000), (100, 10000), (1, None)]
    comparison["fractions"] = sorted(fraction for fraction, _ in points)
    comparison["train_rows"] = {f"{fraction}.0": rows for fraction, rows in points if rows}
    curve = {"arm": "base", "mean": 0.5, "low": None, "high": None, "each": [0.5], "seeds": [0]}
    comparison["curves"] = [{**curve, "fraction": fraction} for fraction, _ in points]
    figure = drawn(learning_curves_figure(comparison, PHONE))
    (line,) = figure.axes[0].lines
    assert line.get_xdata().tolist() == [7000, 8000, 9000, 10000]
    names = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert names[-1] == "10,000\n100 %"
    assert "" in names
    assert not overlapping(seen_texts(figure))


@pytest.mark.parametrize("is_higher", [True, False])
def test_each_seed_is_a_line_from_base_to_arm(is_higher: bool) -> None:
    """With the same seed, in all panels at one scale; green and whole where the arm is better."""
    comparison = made_up_comparison(gain=0.09, higher_is_better=is_higher)
    scores = {(c["arm"], c["fraction"]): dict(zip(c["seeds"], c["each"], strict=True)) for c in comparison["curves"]}
    panels = [(arm, fraction) for arm in ARMS[1:3] for fraction in (5, 25, 100)]
    figure = drawn(paired_seeds_figure(comparison))
    assert len(figure.axes) == 6
    assert len({round(float(np.ptp(axes.get_ylim())), 9) for axes in figure.axes}) == 1
    for (arm, fraction), axes in zip(panels, figure.axes, strict=True):
        seeds = list(scores[arm, fraction])
        want = [[scores["base", fraction][seed], scores[arm, fraction][seed]] for seed in seeds]
        *lines, mean = axes.lines
        assert all(axes.get_ylim()[0] < score < axes.get_ylim()[1] for pair in want for score in pair)
        assert [list(line.get_ydata()) for line in lines] == want
        assert list(mean.get_ydata()) == pytest.approx(np.mean(want, axis=0))
        better = 0
        for line, (base, ours) in zip(lines, want, strict=True):
            is_better = (ours > base) == is_higher
            better += is_better
            assert to_hex(line.get_color()).upper() == (BETTER if is_better else WORSE).upper()
            assert (line.get_linestyle() == "-") == is_better
        heading, percent, counted = (text.get_text() for text in axes.texts)
        assert heading == (f"{arm} against base" if fraction == 5 else "")
        assert (percent, counted) == (f"{fraction} %", f"{better} of {len(seeds)} better")


@pytest.mark.parametrize("size", [0.001, 1.0, 1000.0])
def test_seeds_fill_their_panels_whatever_the_scores_unit(size: float) -> None:
    """An error is no share: in panels as high as a share is long its lines would all be flat; alike, they have room."""
    comparison = made_up_comparison(higher_is_better=False)
    for curve in comparison["curves"]:
        curve["each"] = [size * score for score in curve["each"]]
    axes = drawn(paired_seeds_figure(comparison)).axes
    lengths = [abs(float(np.ptp(line.get_ydata()))) for each in axes for line in each.lines]
    assert 0.4 < max(lengths) / np.ptp(axes[0].get_ylim()) < 1
    for curve in comparison["curves"]:
        curve["each"] = [size] * len(curve["each"])
    assert np.ptp(drawn(paired_seeds_figure(comparison)).axes[0].get_ylim()) == pytest.approx(0.02 * size)


def test_seeds_that_base_or_arm_has_alone_are_no_pair() -> None:
    """The failed cell's seed is left out; without a common seed there is no panel, without a panel no picture."""
    comparison = made_up_comparison()
    for curve in comparison["curves"]:
        if curve["arm"] == "base":
            curve["seeds"] = [7, 8, 2]
    figure = drawn(paired_seeds_figure(comparison))
    assert [len(axes.lines) for axes in figure.axes] == [2, 2, 2, 2, 2]  # a seed and the mean; of one panel none
    for curve in comparison["curves"]:
        curve["seeds"] = [9, 10, 11][: len(curve["seeds"])] if curve["arm"] == "base" else curve["seeds"]
    assert paired_seeds_figure(comparison) is None


def test_doses_go_from_base_to_the_whole_of_stage_one() -> None:
    """At 0 nothing is gained, at 10 what the copy gains and at 100 what the arm gains, in points."""
    comparison = made_up_comparison()
    lines = dose_lines(comparison)
    gains = {key: [(p["dose"], p["mean"]) for p in points] for key, points in lines.items()}
    assert gains == {
        ("stage_one", 5): [(0, 0.0), (10, 0.02), (100, 0.05)],
        ("stage_one", 25): [(0, 0.0), (10, 0.01), (100, 0.03)],
        ("stage_one", 100): [(0, 0.0), (10, 0.009), (100, 0.021)],
    }
    axes = drawn(doses_figure(comparison)).axes[0]
    heights = [list(line.get_ydata()) for line in axes.lines[1:]]
    assert heights == [pytest.approx([100 * gain for _, gain in points]) for points in gains.values()]
    for line in axes.lines[1:]:
        assert list(line.get_xdata()) == pytest.approx([0, 10, 100], abs=1)
    reaches = [sorted(reach.get_segments()[0][:, 1]) for reach in axes.collections]
    want = [(100 * (g - 0.013), 100 * (g + 0.013)) for points in gains.values() for dose, g in points if dose]
    assert reaches == [pytest.approx(ends) for ends in want]


def test_labels_are_sorted_and_coloured_by_what_their_interval_says() -> None:
    """The largest gain above; a triangle where the interval leaves 0 out; of many labels the frequent ones."""
    comparison = made_up_comparison()
    axes = drawn(label_changes_figure(comparison)).axes[0]
    dots = [(line.get_xdata()[0], line.get_marker(), line.get_color()) for line in axes.lines[1:]]
    assert [x for x, *_ in dots] == pytest.approx([3.4, 1.1, 0.0, -0.4, -6.7])
    assert [marker for _, marker, _ in dots] == ["^", "o", "o", "o", "v"]
    assert [colour for *_, colour in dots] == [BETTER, NEITHER, NEITHER, NEITHER, WORSE]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names[0] == "neutral (287)"
    assert names[4] == "$\\frac{<1}$ & <b> (41)"
    label = comparison["labels"][0]
    comparison["labels"] = [{**label, "label": f"l{i}", "support": i} for i in range(MOST_LABELS + 5)]
    names = [t.get_text() for t in drawn(label_changes_figure(comparison)).axes[0].get_yticklabels()]
    assert len(names) == MOST_LABELS
    assert "l4 (4)" not in names
    assert "l5 (5)" in names
    del comparison["labels"][0]["support"]
    comparison["labels"] = comparison["labels"][:1]
    assert drawn(label_changes_figure(comparison)).axes[0].get_yticklabels()[0].get_text() == "l0"


def test_a_picture_without_data_is_not_drawn(tmp_path: Path) -> None:
    """One share of the rows has no curve; no copy on the way no doses; nothing finished nothing at all."""
    comparison = made_up_comparison()
    comparison["curves"] = [curve for curve in comparison["curves"] if curve["fraction"] == 25]
    comparison["differences"] = [row for row in comparison["differences"] if row["fraction"] == 25]
    for arm in comparison["arms"]:
        arm["dose"] = None
    comparison["labels"] = comparison["labels"][-1:]
    found = {name for name, make in FIGURES.items() if make(comparison) is not None}
    assert found == {"paired_seeds", "label_changes"}
    comparison |= {"curves": [], "differences": [], "labels": []}
    assert draw_comparison(tmp_path, comparison) == []
    assert list(tmp_path.iterdir()) == []
    assert comparison_svgs(comparison, {}) == {}


# --- How it is drawn --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [PAGE, pytest.param(PHONE, marks=pytest.mark.slow)])
@pytest.mark.parametrize("picture", FIGURES)
def test_nothing_is_cut_off_or_covered_and_the_width_is_kept(picture: str, width: float) -> None:
    """At a page's and at a phone's width, with names that are too long; letters are at least 8 points high."""
    comparison = made_up_comparison()
    comparison["arms"][2]["name"] = NASTY[6]
    for row in comparison["curves"] + comparison["differences"]:
        row["arm"] = NASTY[6] if row["arm"] == ARMS[2] else row["arm"]
    figure = drawn(FIGURES[picture](comparison, width))
    assert_nothing_is_cut_off(figure)
    texts = seen_texts(figure)
    assert not overlapping(texts)
    assert min(text.get_fontsize() for text in texts) >= 8
    assert figure.bbox.width / DPI == pytest.approx(width, abs=0.06)


@pytest.mark.slow
def test_the_files_have_the_same_bytes_twice(tmp_path: Path) -> None:
    """And are named after what they show."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        written = draw_comparison(tmp_path / folder, made_up_comparison())
        assert written == [f"{name}.png" for name in FIGURES]
    for name in written:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


class Elements(HTMLParser):
    """The elements of an SVG text with their attributes, and what text stands between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep it."""
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        """Keep it."""
        self.text += data


@pytest.mark.slow
def test_an_svg_takes_its_colours_from_the_page_and_loads_nothing() -> None:
    """No colour, style sheet, text or comment of its own; ids bear its name, and those that are used are there."""
    figure = drawn(paired_seeds_figure(made_up_comparison(), PHONE))
    svg = svg_element(figure, "seeds-phone", f"what it says {NASTY[0]} {NASTY[2]}")
    assert svg == svg_element(figure, "seeds-phone", f"what it says {NASTY[0]} {NASTY[2]}")
    page = Elements(svg)
    assert page.found[0][1]["aria-label"] == f"what it says {NASTY[0]} {NASTY[2]}"
    assert page.text.strip() == ""
    assert not re.search(r"#[0-9a-fA-F]{6}|<style|<metadata|<!--|<\?|http|<image", svg)
    assert {tag for tag, _ in page.found} <= {"svg", "g", "path", "use", "defs", "clippath", "rect"}
    assert set(re.findall(r"var\(--(\w+)\)", svg)) <= set(VARIABLES.values())
    ids = [attributes["id"] for _, attributes in page.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = set(re.findall(r"url\(#([^)]+)\)", svg)) | set(re.findall(r'href="#([^"]+)"', svg))
    assert used == set(ids)
    assert all(name.startswith("seeds-phone-") for name in ids)


def test_shares_and_rows() -> None:
    """Keys may be 5 or 5.0, as JSON makes them; a share may be a broken number."""
    assert [percent_text(fraction) for fraction in (5, 25.0, 0.5)] == ["5 %", "25 %", "0.5 %"]
    comparison = {"train_rows": {"5.0": 12, "100": 240}}
    assert [rows_of(comparison, fraction) for fraction in (5, 100.0, 7)] == [12, 240, None]
    third = {f"{100 / 3:g}": 80}  # as comparison.json calls it
    assert rows_of({"train_rows": third}, 100 / 3) == 80
