"""The report of a comparison: every number is the dict's, no text breaks out, and the page is whole on every screen."""

import copy
import math
import re
import shutil
import subprocess
from collections.abc import Callable
from html import escape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.test_comparison_pictures import ARMS, NASTY, made_up_comparison
from tests.test_pictures import contrast
from two_stage.comparison import report
from two_stage.comparison.outcome import NO_VERDICT
from two_stage.comparison.pictures import FIGURES
from two_stage.comparison.report import difference_text, report_markdown, report_page, score_text, write_report

VOID = {"meta", "link", "br", "img", "hr", "input"}
SECTIONS = ["curves", "results", "seeds", "doses", "labels", "flips", "pretraining", "cost", "calibration"]
SECTIONS += ["certainty", "cells", "lineage"]


class Page(HTMLParser):
    """A page read strictly: every element is closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[tuple[str, dict[str, str | None]]] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}  # id of the caption → rows of cells
        self.texts: dict[str, list[str]] = {}  # element → texts in it
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open an element, in which text may follow."""
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(self.elements[-1])
        self.texts.setdefault(tag, []).append("")
        if tag == "table":
            self.rows = self.tables[f"table {len(self.tables)}"] = []
        elif tag == "span" and self.open[-2][0] == "caption":
            self.tables[str(dict(attrs)["id"])] = self.tables.pop(f"table {len(self.tables) - 1}")
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element of SVG that closes itself."""
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        """Close the element that was opened last."""
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        """Text belongs to all elements around it, and to the cell."""
        for tag in {tag for tag, _ in self.open}:
            self.texts[tag][-1] += data
        if any(tag in ("td", "th") for tag, _ in self.open):
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the report of the made-up comparison."""
    folder = tmp_path_factory.mktemp("report")
    names = ["report.html", "report.md", "learning_curves.png", "paired_seeds.png", "doses.png", "label_changes.png"]
    assert write_report(folder, made_up_comparison()) == names
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    return folder


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page in no time."""
    monkeypatch.setattr(report, "comparison_svgs", lambda comparison, alternatives: {})


@pytest.fixture
def pictures_as_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page in half the time: a mark stands where there is a picture."""

    def marks(comparison: dict[str, Any], alternatives: dict[str, str]) -> dict[str, dict[str, str]]:
        return {name: {"page": f"[{name}]", "phone": ""} for name, make in FIGURES.items() if make(comparison)}

    monkeypatch.setattr(report, "comparison_svgs", marks)
    monkeypatch.setattr(report, "draw_comparison", lambda folder, comparison: [])


# --- Numbers ----------------------------------------------------------------------------------------------------------


@given(st.floats(-2, 2), st.sampled_from([100, 100.0, 1]))
@example(0.0004, 100)
@example(-0.0004, 100)
@example(0.00004, 1)
def test_a_difference_is_told_to_its_last_digit_and_never_loses_its_sign(value: float, points: float) -> None:
    """Within half of the last digit; where 0 stands the value is as good as 0, and no zero has a sign."""
    text = difference_text(value, points)
    told = float(text.replace("−", "-"))
    digits = len(text.split(".")[1])
    assert abs(told - points * value) <= 0.5001 * 10**-digits
    if told:
        assert text[0] == ("+" if value > 0 else "−")
        assert told * value > 0
    else:
        assert text == ("0.0" if points == 100 else "0.000")
        assert abs(points * value) <= (0.0051 if points == 100 else 0.000051)


def test_numbers_by_hand() -> None:
    """Points with one digit, others with three; what is not known is a dash."""
    assert [difference_text(v, 100) for v in (0.021, -0.0312, 0.0004, 0, -0.0)] == [
        "+2.1",
        "−3.1",
        "+0.04",
        "0.0",
        "0.0",
    ]
    assert [difference_text(v, 1) for v in (0.021, -0.00004, -0.0312)] == ["+0.021", "0.000", "−0.031"]
    assert [difference_text(v, 100) for v in (None, math.nan, math.inf)] == ["–"] * 3
    assert [score_text(v) for v in (0.7129, None, math.nan)] == ["0.713", "–", "–"]


# --- The page ---------------------------------------------------------------------------------------------------------


def test_the_page_is_well_made_and_loads_nothing(written: Path) -> None:
    """Balanced, ids once, headings in order, every table with a caption and scopes, pictures with alternatives."""
    text = (written / "report.html").read_text(encoding="utf-8")
    assert len(text.encode()) < 1_500_000
    page = Page(text)
    tags = [tag for tag, _ in page.elements]
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "form", "audio", "video"} & set(tags)
    assert "<script" not in text.lower()
    assert not re.search(r"https?:|url\((?!#)|@import|javascript:", text)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "srcset", "action")], tag
        if "href" in attributes:
            assert str(attributes["href"])[0] == "#"
            assert str(attributes["href"])[1:] in ids
        if "aria-labelledby" in attributes:
            assert attributes["aria-labelledby"] in ids
        if tag == "th":
            assert attributes["scope"] in ("col", "row", "rowgroup")
        if tag == "svg":
            assert attributes.get("aria-hidden") == "true" or (attributes["role"] == "img" and attributes["aria-label"])
    assert tags.count("table") == tags.count("caption") == len(page.tables)
    headings = [int(tag[1]) for tag in tags if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(headings))
    assert ("html", {"lang": "en"}) in page.elements
    (policy,) = (a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline';")
    assert "script" not in policy
    assert page.elements[tags.index("a")] == ("a", {"class": "skip", "href": "#verdict"})
    assert [name for name in SECTIONS if name in ids] == SECTIONS == [name for name in ids if name in SECTIONS]


def test_every_row_of_a_table_has_as_many_cells_as_its_head(written: Path) -> None:
    """But for the rows that name a group."""
    page = Page((written / "report.html").read_text(encoding="utf-8"))
    for name, rows in page.tables.items():
        assert {len(row) for row in rows} <= {len(rows[0]), 1}, name
        assert sum(len(row) == 1 for row in rows) == (3 if name == "results-caption" else 0)


def test_the_main_table_holds_every_number(written: Path) -> None:
    """Score, difference, intervals, seeds, both p-values and the word, of each arm at each share of the rows."""
    page, comparison = Page((written / "report.html").read_text(encoding="utf-8")), made_up_comparison()
    curves = {(row["arm"], row["fraction"]): row for row in comparison["curves"]}
    differences = {(row["arm"], row["fraction"]): row for row in comparison["differences"]}
    rows = [[cell.strip() for cell in row] for row in page.tables["results-caption"][1:]]
    assert [row[0] for row in rows if len(row) == 1] == [
        "5 % of the labelled rows: 193",
        "25 % of the labelled rows: 966",
        "100 % of the labelled rows: 3,865",
    ]
    want = []
    for fraction in (5, 25, 100):
        for arm in ARMS:
            c, d = curves[arm, fraction], differences.get((arm, fraction))
            ends = f"{c['low']:.3f} to {c['high']:.3f}"
            if d is None:
                want.append([arm, f"{c['mean']:.3f}", "", "", "", "the base", "", "", "", ends])
                continue
            up = f"{sum(value > 0 for value in d['each'])} of {len(d['each'])}"
            p = "<0.001" if d["p_value"] == 0.0004 else "0.210"
            adjusted = "–" if (arm, fraction) == ("stage_one", 100) else f"{d['adjusted_p_value']:.3f}"
            told = [
                f"{100 * d[name]:+.1f}".replace("-", "−").replace("+0.0", "0.0") for name in ("mean", "low", "high")
            ]
            row = [arm, f"{c['mean']:.3f}", told[0], f"{told[1]} to {told[2]}", "", d["word"], up, p, adjusted, ends]
            want.append(row)
    assert [row for row in rows if len(row) > 1] == want


def test_the_other_tables_hold_every_number(written: Path) -> None:
    """Labels, examples, pretraining, cost, calibration and cells."""
    page, comparison = Page((written / "report.html").read_text(encoding="utf-8")), made_up_comparison()
    tables = {name: [[cell.strip() for cell in row] for row in rows[1:]] for name, rows in page.tables.items()}
    assert tables["labels-caption"][0] == ["neutral", "287", "0.851", "0.885", "+3.4", "+1.4 to +5.4", ""]
    assert tables["labels-caption"][2] == ["rare", "1", "0.000", "0.000", "0.0", "–", ""]
    assert tables["labels-caption"][4] == ["$\\frac{<1}$ & <b>", "41", "0.402", "0.335", "−6.7", "−9.7 to −3.7", ""]
    assert tables["pretraining-caption"] == [
        ["stage_one", "masked-word loss, own texts (nats)", "6.791", "5.543", "−1.248", "better"],
        ["stage_one", "masked-word accuracy, own texts", "0.112", "0.241", "+0.129", "better"],
        ["stage_one", "next-sentence accuracy, own texts", "–", "0.871", "–", ""],
        ["stage_one", "masked-word loss, general texts (nats)", "7.302", "7.391", "+0.089", "worse"],
        ["plain <b>", "masked-word loss, general texts (nats)", "–", "7.100", "–", ""],
    ]
    assert tables["cost-caption"] == [
        ["base", "–", "–", "–", "–", "11.2 minutes"],
        ["stage_one", "600,123", "311", "8.1 minutes", "+2.1 points", "11.2 minutes"],
        ["plain <b>", "70,000", "44", "3.0 hours", "−2.4 points", "10.0 minutes"],
        ["stage_one@10", "60,012", "32", "0.8 minutes", "+0.9 points", "11.2 minutes"],
    ]
    assert tables["calibration-caption"][1] == ["stage_one", "0.061", "0.061", "0.061"]
    assert tables["flips-wrong"] == [["It went as it had to.", "neutral", "negative", "neutral", "3 → 1"]]
    assert len(tables["cells-caption"]) == 36
    assert tables["missing-caption"] == [["plain <b>", "5 %", "2", "failed", f"out of memory {NASTY[0]}"]]
    for row, cell in zip(tables["cells-caption"], comparison["cells"], strict=True):
        scores = [f"{value:.4f}" for value in cell["scores"].values()] or ["–"] * 3
        minutes = "–" if cell["minutes"] is None else f"{cell['minutes']:.1f}"
        assert row == [cell["arm"], f"{cell['fraction']} %", str(cell["seed"]), minutes, *scores, cell["folder"]]
    assert tables["record-1"] == [["learning_rate", "5e-05"], ["note", NASTY[0]]]
    assert tables["record-2"] == [["epochs", "3"], ["frozen", "not set"]]
    assert tables["record-3"] == [["torch", "2.13.0"]]


def test_the_verdict_stands_first_with_its_facts(written: Path) -> None:
    """The word, the sentence and six facts; the forgetting is told as what it is."""
    page = Page((written / "report.html").read_text(encoding="utf-8"))
    assert [text.strip() for text in page.texts["p"][1:3]] == [
        "Yes, it paid off",
        "Stage one added 2.1 macro-F1 points (95 % interval 0.8 to 3.4): it paid off.",
    ]
    facts = dict(zip(page.texts["dt"], page.texts["dd"], strict=True))
    assert facts == {
        "Change": "+2.1 pointsmacro-F1",
        "95 % interval": "+0.8 to +3.4stage_one minus base",
        "Seeds better": "3 of 3the same seeds in both",
        "Tested on": "1,484 textsthe same for all arms",
        "Labelled rows": "3,865100 % of what there is",
        "Stage one took": "8.1 minutes600,123 tokens, 311 steps",
    }
    paragraphs = " ".join(page.texts["p"])
    assert "rose from 7.302 to 7.391 nats, so it forgot some of it" in paragraphs
    assert "A true difference of 1.9 points would be found" in paragraphs
    # 0.61 / sqrt(3) = 0.35; 0.42 is within a quarter of it
    assert "scatters by 0.61 (standard deviation), which leaves an error of 0.35 after 3 seeds" in paragraphs
    assert "leaves one of 0.42. More test texts would narrow the interval about as much as more seeds." in paragraphs
    assert "The other 8 have p-values that are adjusted" in paragraphs


@pytest.mark.usefixtures("without_pictures")
def test_texts_stay_texts() -> None:
    """Whatever stands wherever a text may stand, it is text: no element and no attribute comes of it."""
    comparison = made_up_comparison()
    plain = Page(report_page(report._readable(comparison)))
    nasty = "".join(NASTY[:6]) + "</section></main></style><style>"

    def spoil(value: Any, key: str = "") -> Any:
        """The same with every free text spoiled."""
        if isinstance(value, dict):
            return {name: spoil(item, name) for name, item in value.items()}
        if isinstance(value, list):
            return [spoil(item, key) for item in value]
        spoiled = (
            "title",
            "checkpoint",
            "sentence",
            "more",
            "reason",
            "folder",
            "gold",
            "base_said",
            "notes",
            "commit",
        )
        spoiled += ("score_name", "item_name", "machine", "command", "started", "note", "torch", "label")
        return value + nasty if isinstance(value, str) and key in spoiled else value

    page_text = report_page(report._readable(spoil(comparison)))
    page = Page(page_text)
    assert [tag for tag, _ in page.elements].count("td") == [tag for tag, _ in plain.elements].count("td")
    assert {tag for tag, _ in page.elements} == {tag for tag, _ in plain.elements}
    assert {name for _, a in page.elements for name in a} == {name for _, a in plain.elements for name in a}
    assert "{{ 7*7 }}" in page_text
    assert "\x00" not in page_text
    assert escape(NASTY[0]) in page_text


def _nothing(comparison: dict[str, Any]) -> None:
    """All cells failed."""
    comparison |= {"curves": [], "differences": [], "labels": [], "flips": None, "calibration": [], "train_rows": {}}
    comparison |= {"headline": None, "verdict": None}
    for cell in comparison["cells"]:
        cell |= {"status": "failed", "reason": "no disk", "scores": {}, "minutes": None}


def _base_alone(comparison: dict[str, Any]) -> None:
    """One arm, and nothing to hold against it."""
    comparison |= {"arms": comparison["arms"][:1], "differences": [], "labels": [], "flips": None, "calibration": []}
    comparison |= {"headline": None, "verdict": None, "notes": []}
    for name in ("cells", "curves"):
        comparison[name] = [row for row in comparison[name] if row["arm"] == "base"]


def _one_share(comparison: dict[str, Any]) -> None:
    """All the labelled rows alone."""
    comparison["fractions"] = [100]
    for name in ("cells", "curves", "differences", "calibration"):
        comparison[name] = [row for row in comparison[name] if row["fraction"] == 100]


def _one_seed(comparison: dict[str, Any]) -> None:
    """Nothing that an interval could be made of."""
    unknown = dict.fromkeys(("low", "high", "detectable", "seed_sd", "item_error"))
    for row in comparison["differences"] + comparison["curves"]:
        row |= {**unknown, "each": row["each"][:1], "seeds": row["seeds"][:1]}
    labels = [{**row, "low": None, "high": None} for row in comparison["labels"]]
    for label in labels:
        del label["support"]
    comparison |= {"seeds": [0], "labels": labels}


def _no_extras(comparison: dict[str, Any]) -> None:
    """Only what must be there."""
    for arm in comparison["arms"]:
        arm |= {"cost": None, "pretraining": None, "dose": None, "dose_of": None}
    comparison |= {"flips": None, "labels": [], "calibration": [], "notes": [], "settings": {}, "lineage": {}}
    comparison |= {"command": "", "started": "", "hours": None}


ABSENT: dict[Callable[[dict[str, Any]], None], set[str]] = {
    _nothing: {"curves", "seeds", "doses", "labels", "flips", "calibration"},
    _base_alone: {"seeds", "doses", "labels", "flips", "pretraining", "cost", "calibration"},
    _one_share: {"curves"},
    _one_seed: set(),
    _no_extras: {"doses", "labels", "flips", "pretraining", "cost", "calibration", "lineage"},
}


@pytest.mark.usefixtures("pictures_as_marks")
@pytest.mark.parametrize(
    "change",
    [pytest.param(change, marks=() if change is _base_alone else pytest.mark.slow) for change in ABSENT],
    ids=lambda change: change.__name__,
)
def test_a_section_without_data_is_left_out(change: Callable[[dict[str, Any]], None], tmp_path: Path) -> None:
    """And what is there is whole, in the page and in Markdown."""
    comparison = made_up_comparison()
    change(comparison)
    before = copy.deepcopy(comparison)
    names = write_report(tmp_path, comparison)
    assert comparison == before
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    found = {attributes.get("id") for _, attributes in page.elements}
    assert set(SECTIONS) - found == ABSENT[change]
    links = {str(attributes["href"])[1:] for tag, attributes in page.elements if tag == "a"}
    assert links == found & set(SECTIONS) | {"verdict"}
    # a heading over nothing, a table without rows, a number that is none
    assert not re.search(r"</h[23]>\s*</section>|<tbody>\s*</tbody>|<ul>\s*</ul>|\bnan\b|\binf\b|>None<", text)
    assert ("No verdict" in text) == (comparison["headline"] is None)
    assert (NO_VERDICT["sentence"].removeprefix("No verdict: b") in text) == (comparison["headline"] is None)
    markdown_rows((tmp_path / "report.md").read_text(encoding="utf-8"))
    if change is _nothing:
        assert text.count("no score") == 12
    if change is _one_seed:
        assert page.tables["labels-caption"][:2] == [
            ["label", "base", "stage_one", "difference", "its interval", "dashed: 0"],
            ["neutral", "0.851", "0.885", "+3.4", "–", ""],
        ]
        assert "–</td>" in text
        assert "would narrow" not in text


@pytest.mark.parametrize(
    ("gain", "higher_is_better", "answer", "sense"),
    [
        (0.021, True, "Yes, it paid off", "good"),
        (-0.031, True, "No, it cost", "bad"),
        (0.004, True, "Cannot tell", "open"),
        (-0.031, False, "Yes, it paid off", "good"),
    ],
)
@pytest.mark.usefixtures("without_pictures")
def test_bad_news_is_told_as_plainly(gain: float, higher_is_better: bool, answer: str, sense: str) -> None:
    """Answer, colour and sides; where lower is better, better stands on the left and points are none."""
    page_text = report_page(made_up_comparison(gain, higher_is_better=higher_is_better))
    page = Page(page_text)
    assert page.texts["p"][1].strip() == answer
    assert not page.texts["p"][2].startswith(answer)  # which is said once
    assert page.texts["p"][2][0].isupper()
    (section,) = (attributes for tag, attributes in page.elements if attributes.get("id") == "verdict")
    assert section["class"] == f"verdict {sense}"
    assert ("← worse" in page_text) == higher_is_better
    assert ("better →" in page_text) == higher_is_better
    points = f"{100 * gain:+.1f} points" if higher_is_better else f"{gain:+.3f}"
    assert f"<b>{points.replace('-', '−')}</b>" in page_text
    better = {0.021: 3, -0.031: 0, 0.004: 1}[gain] if higher_is_better else 3
    assert f"<b>{better} of 3</b>" in page_text
    strip = page_text[page_text.index('class="strip"') :]
    places = [float(value) for value in re.findall(r'[xc]x?[12]?="([\d.]+)%"', strip)[:5]]
    zero, _, low, high, mean = places
    assert low < mean < high
    assert (mean > zero) == (gain > 0)
    assert (low < zero < high) == (answer == "Cannot tell")
    assert min(places) == pytest.approx(6)
    assert max(places) == pytest.approx(94)


@pytest.mark.usefixtures("without_pictures")
def test_where_nothing_differs_no_difference_is_said_to_be_found() -> None:
    """Neither seeds nor texts scatter, so that a difference of nothing would be found, and more of neither helps."""
    comparison = made_up_comparison()
    for row in comparison["differences"]:
        row |= dict.fromkeys(("mean", "low", "high", "detectable", "seed_sd", "item_error"), 0.0)
    told = " ".join(Page(report_page(comparison)).texts["p"])
    assert "With every seed, and of any draw of the test texts, the difference is the same." in told
    assert "would be found" not in told
    assert "would narrow" not in told


@pytest.mark.usefixtures("without_pictures")
def test_without_a_verdict_nothing_is_said_of_it() -> None:
    """The comparison that was named beforehand has no scores; the others are adjusted all the same."""
    comparison = made_up_comparison() | {"headline": None, "verdict": None, "labels": [], "flips": None}
    comparison["differences"] = [row for row in comparison["differences"] if row["fraction"] < 100]
    told = " ".join(Page(report_page(comparison)).texts["p"])
    assert "These 6 have p-values that are adjusted for their number" in told
    assert "The verdict is about" not in told


@pytest.mark.slow
def test_the_same_comparison_gives_the_same_bytes(written: Path, tmp_path: Path) -> None:
    """Of all files."""
    for name in write_report(tmp_path, made_up_comparison()):
        assert (tmp_path / name).read_bytes() == (written / name).read_bytes()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_and_pictures_stand_out_from_the_paper(scheme: str) -> None:
    """WCAG 2.1: a contrast of 4.5 for letters (1.4.3), of 3 for what must be seen in a picture (1.4.11)."""
    template = Path(report.__file__).with_name(report.PAGE_TEMPLATE)
    blocks = re.findall(r":root \{(.*?)\}", template.read_text(encoding="utf-8"), re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#\w+)", blocks[["light", "dark"].index(scheme)]))
    papers = ["paper", "card", "good-card", "bad-card", "open-card"]
    for name in ("ink", "grey", "accent", "good", "bad", "open"):
        for paper in papers:
            if paper in ("paper", "card") or name in ("ink", "grey") or paper.startswith(name):
                assert contrast(colours[name], colours[paper]) >= 4.5, (name, paper)
    for name in ("blue", "vermilion", "green", "purple", "orange", "sky"):
        assert contrast(colours[name], colours["paper"]) >= 3, name


# --- Markdown ---------------------------------------------------------------------------------------------------------


def markdown_rows(text: str) -> list[list[str]]:
    """The cells of the table's rows, of which all have as many."""
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("|")]
    assert {len(row) for row in rows} == {7}
    return [[cell.strip() for cell in row] for row in rows[2:]]


def test_the_markdown_can_be_pasted(written: Path) -> None:
    """The table's numbers are the page's, the verdict's row is bold, and the pictures are linked."""
    text = (written / "report.md").read_text(encoding="utf-8")
    rows = markdown_rows(text)
    assert len(rows) == 12
    assert rows[0] == ["193 (5 %)", "base", "0.513 [0.493 to 0.533]", "", "", "", ""]
    assert rows[2][1] == "plain &lt;b>"
    assert rows[2][5] == "0.057"
    bold = [
        "3,865 (100 %)",
        "stage_one",
        "0.720 [0.700 to 0.740]",
        "+2.1 [+0.8 to +3.4]",
        "3 of 3",
        "0.210",
        "paid off",
    ]
    assert rows[9] == [f"**{cell}**" for cell in bold]
    assert text.startswith("# Did stage one pay off?\n\n**Yes, it paid off.** Stage one added 2.1 macro-F1 points")
    assert re.findall(r"!\[[\w ,]+\]\((\w+\.png)\)", text) == [
        "learning_curves.png",
        "paired_seeds.png",
        "doses.png",
        "label_changes.png",
    ]
    assert "<script" not in text
    assert '````bash\npython run_comparison.py --recipe r.yaml --note "```" --lots "<b>"\n````' in text


def test_no_text_breaks_out_of_a_markdown_cell() -> None:
    """Nor out of its line."""
    comparison = made_up_comparison()
    nasty = "a | b\n\n# heading <b>"
    comparison["arms"][0]["name"] = comparison["base"] = nasty
    comparison |= {
        "notes": [nasty],
        "score_name": nasty,
        "curves": [{**c, "word": nasty} for c in comparison["curves"]],
    }
    text = report_markdown(comparison, [])
    assert markdown_rows(text)[0][1] == "a \\| b # heading &lt;b>"
    assert [line for line in text.splitlines() if line.startswith("#")] == ["# Did stage one pay off?"]


# --- In a browser -----------------------------------------------------------------------------------------------------

MEASURE = """<!DOCTYPE html><meta charset="utf-8"><body style="margin:0">
<iframe id="page" src="report.html" style="width:{width}px;height:4000px;border:0"></iframe><pre id="found"></pre>
<script>
document.getElementById("page").onload = (event) => {{
  const page = event.target.contentDocument, root = page.documentElement, found = [];
  found.push("scroll " + root.scrollWidth + " of " + root.clientWidth);
  found.push("loaded " + event.target.contentWindow.performance.getEntriesByType("resource").length);
  found.push("scripts " + page.scripts.length);
  for (const element of page.querySelectorAll("main *, header *")) {{
    const box = element.getBoundingClientRect(), size = parseFloat(getComputedStyle(element).fontSize);
    if (box.width && box.right > root.clientWidth + 1 && !element.closest(".scroll, svg"))
      found.push("sticks out " + element.tagName + " " + element.className);
    if (box.width && size < 11 && element.textContent.trim() && !element.closest("svg")) found.push("small " + size);
  }}
  const seen = (name) => [...page.querySelectorAll(name)].filter((element) => element.getBoundingClientRect().width);
  found.push("pictures " + seen("figure .wide").length + " wide " + seen("figure .narrow").length + " narrow");
  document.getElementById("found").textContent = found.join("\\n");
}};
</script>"""


def chromium(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """What a browser says that shows a page without a window and without a network."""
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("there is no chromium to look at the page with")
    fixed = [
        "--no-sandbox",
        "--headless=new",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={folder / 'profile'}",
    ]
    fixed += ["--host-resolver-rules=MAP * ~NOTFOUND", "--allow-file-access-from-files", "--enable-logging=stderr"]
    return subprocess.run([browser, *fixed, *flags], capture_output=True, text=True, timeout=120, check=True)


@pytest.mark.slow
@pytest.mark.parametrize(("width", "pictures"), [(360, "0 wide 4 narrow"), (1280, "4 wide 0 narrow")])
def test_in_a_browser_nothing_sticks_out_and_nothing_is_loaded(
    written: Path, tmp_path: Path, width: int, pictures: str
) -> None:
    """At a phone's and at a desk's width; wide tables scroll in a box of their own."""
    shutil.copy(written / "report.html", tmp_path / "report.html")
    (tmp_path / "measure.html").write_text(MEASURE.format(width=width), encoding="utf-8")
    shown = chromium(
        tmp_path,
        "--window-size=1400,4200",
        "--virtual-time-budget=5000",
        "--dump-dom",
        f"file://{tmp_path}/measure.html",
    )
    found = re.search(r'<pre id="found">(.*?)</pre>', shown.stdout, re.DOTALL)
    assert found is not None
    assert found[1].splitlines() == [f"scroll {width} of {width}", "loaded 0", "scripts 0", f"pictures {pictures}"]
    console = [line for line in shown.stderr.splitlines() if "CONSOLE" in line]
    assert console == []


@pytest.mark.slow
def test_the_page_prints_on_a4(written: Path, tmp_path: Path) -> None:
    """On a handful of pages, with what is folded up unfolded."""
    target = tmp_path / "report.pdf"
    chromium(tmp_path, "--no-pdf-header-footer", f"--print-to-pdf={target}", f"file://{written}/report.html")
    content = target.read_bytes()
    assert content.startswith(b"%PDF")
    boxes = re.findall(rb"/MediaBox \[\s*0 0 ([\d.]+) ([\d.]+)", content)
    assert 5 <= len(boxes) <= 14
    for across, up in boxes:
        assert float(across) == pytest.approx(595, abs=1.5)  # A4 in points
        assert float(up) == pytest.approx(842, abs=1.5)
