"""The report of a comparison: one self-contained page, a summary in Markdown, and the pictures of both.

The page, `report.html.jinja`, holds what is said of everything; here the numbers get the form in which they are
read.
"""

import math
import re
import unicodedata
from pathlib import Path
from typing import Any

from two_stage.command_line.exits import Refusal, run_script
from two_stage.command_line.redaction import redacted_values
from two_stage.comparison.outcome import NO_VERDICT, NONE, better_seeds, read_json, spoken_cost
from two_stage.comparison.paired import spoken_difference
from two_stage.comparison.pictures import (
    TITLES,
    comparison_svgs,
    draw_comparison,
    is_number,
    percent_text,
    rows_of,
)
from two_stage.results.pictures import UNDRAWABLE
from two_stage.results.report import markdown_cell

PAGE_TEMPLATE = "report.html.jinja"
SENSES = {"paid off": "good", "cost": "bad", "cannot tell": "open"}  # verdict's word → how the page shows it
ABSENT: dict[str, Any] = {"notes": [], "settings": {}, "lineage": {}, "command": "", "started": "", "hours": None}
ANSWERS = {"paid off": "Yes, it paid off", "cost": "No, it cost"}  # any other word is the answer itself


def write_report(folder: Path, comparison: dict[str, Any]) -> list[str]:
    """Write what a comparison found: report.html, report.md and the pictures.

    The page loads nothing, runs nothing and holds its pictures, so that it can be sent as one file. The same comparison
    gives the same bytes.

    Args:
        folder: where they go; it exists.
        comparison: the content of comparison.json. Its texts may hold anything.

    Returns:
        The names of the files written. A picture whose data are not there is not.
    """
    comparison = _readable(redacted_values(ABSENT | comparison))
    pictures = draw_comparison(folder, comparison)
    (folder / "report.html").write_text(report_page(comparison), encoding="utf-8")
    (folder / "report.md").write_text(report_markdown(comparison, pictures), encoding="utf-8")
    return ["report.html", "report.md", *pictures]


def report_page(comparison: dict[str, Any]) -> str:
    """The report as a page in HTML.

    Args:
        comparison: the content of comparison.json.

    Returns:
        The page; every text of the comparison is escaped.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    svgs = comparison_svgs(comparison, _alternatives(comparison))
    pages = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return pages.get_template(PAGE_TEMPLATE).render(
        comparison=comparison,
        verdict=_verdict(comparison),
        facts=_key_facts(comparison),
        # ElementTree made these, and escaped what is text in them
        svgs={name: {place: Markup(svg) for place, svg in found.items()} for name, found in svgs.items()},
        groups=_result_groups(comparison),
        sentences=[_sentence(difference) for difference in comparison["differences"]],
        labels=_label_rows(comparison),
        flips=_flips(comparison),
        pretraining=_pretraining_rows(comparison),
        forgetting=_forgetting(comparison),
        costs=_cost_rows(comparison),
        calibration=_calibration_rows(comparison),
        certainty=_certainty(comparison),
        cells=_cell_rows(comparison),
        records=_records(comparison),
        subtitle=_subtitle(comparison),
    )


def _readable(value: Any) -> Any:
    """The same data without control characters and halves of surrogate pairs, which no page can hold."""
    if isinstance(value, str):
        return "".join(letter for letter in value if letter in "\n\t" or unicodedata.category(letter) not in UNDRAWABLE)
    if isinstance(value, dict):
        return {_readable(key): _readable(item) for key, item in value.items()}
    return [_readable(item) for item in value] if isinstance(value, list | tuple) else value


# --- Numbers ----------------------------------------------------------------------------------------------------------


def difference_text(value: Any, points: float) -> str:
    """A difference of scores as `spoken_difference` has it, with a typographic minus.

    Args:
        value: of scores; None or nan where it cannot be told.
        points: what a score of 1 is shown as.
    """
    return spoken_difference(value, points).replace("-", "−") if is_number(value) else NONE


def _with_unit(value: Any, comparison: dict[str, Any]) -> str:
    """A difference and, where differences are shown as points, the unit."""
    text = difference_text(value, comparison["points"])
    return f"{text} points" if comparison["points"] == 100 and text != NONE else text


def score_text(value: Any) -> str:
    """A score with three digits, or a dash."""
    return f"{value:.3f}" if is_number(value) else NONE


def _from_to(low: str, high: str) -> str:
    """The two ends of an interval, or a dash."""
    return NONE if NONE in (low, high) else f"{low} to {high}"


def _difference_interval(row: dict[str, Any], points: float) -> str:
    """The ends of a difference's interval."""
    return _from_to(difference_text(row["low"], points), difference_text(row["high"], points))


def _p_text(value: Any) -> str:
    """A p-value with three digits; a smaller one is told to be smaller."""
    return NONE if not is_number(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


def _minutes_text(minutes: Any) -> str:
    """A time in minutes, or in hours if it is long."""
    if not is_number(minutes):
        return NONE
    return f"{minutes:,.1f} minutes" if minutes < 120 else f"{minutes / 60:,.1f} hours"


def _count_text(count: Any) -> str:
    """A whole number with its thousands apart, or a dash."""
    return f"{count:,.0f}" if is_number(count) else NONE


def _strip(row: dict[str, Any], mean: float, scale: tuple[float, float]) -> dict[str, str] | None:
    """Where a small picture of an interval has its marks, in per cent of its width; None without an interval."""
    if not all(is_number(value) for value in (mean, row["low"], row["high"])):
        return None
    places = {"low": row["low"], "mean": mean, "high": row["high"], "zero": 0.0}
    across = max(scale[1] - scale[0], 1e-9)
    return {name: f"{6 + 88 * (value - scale[0]) / across:.2f}" for name, value in places.items()}


def _scale(rows: list[dict[str, Any]]) -> tuple[float, float]:
    """The ends of an axis that holds all the intervals and 0."""
    ends = [row[name] for row in rows for name in ("low", "high") if is_number(row[name])]
    return min([0.0, *ends]), max([0.0, *ends])


# --- Verdict and facts ------------------------------------------------------------------------------------------------


def _headline(comparison: dict[str, Any]) -> dict[str, Any] | None:
    """The difference that the verdict is about."""
    return _difference(comparison, comparison["headline"]) if comparison["headline"] else None


def _difference(comparison: dict[str, Any], cell: dict[str, Any]) -> dict[str, Any] | None:
    """The difference of an arm at a share of the rows, if there is one."""
    found = (d for d in comparison["differences"] if all(d[name] == cell[name] for name in ("arm", "fraction")))
    return next(found, None)


def _verdict(comparison: dict[str, Any]) -> dict[str, Any]:
    """The answer in a word, the sentence, how it is shown, and the marks of the interval's picture."""
    verdict, headline = comparison["verdict"] or NO_VERDICT, _headline(comparison)
    answer = ANSWERS.get(verdict["word"], verdict["word"][:1].upper() + verdict["word"][1:])
    sentence = verdict["sentence"].removeprefix(f"{answer}: ")  # the answer stands above it
    return {
        "answer": answer,
        "sense": SENSES.get(verdict["word"], "open"),
        "sentence": sentence[:1].upper() + sentence[1:],
        "more": verdict["more"],
        "strip": _strip(headline, headline["mean"], _scale([headline])) if headline else None,
        "mean": _with_unit(headline["mean"], comparison) if headline else "",
    }


def _key_facts(comparison: dict[str, Any]) -> list[tuple[str, str, str]]:
    """What stands beside the verdict: name, value, and what it is."""
    headline = _headline(comparison)
    items = f"{comparison['items']:,} {comparison['item_name']}"
    if headline is None:
        seeds = ", ".join(map(str, comparison["seeds"]))
        return [("Seeds", str(len(comparison["seeds"])), seeds), ("Test split", items, "each model scored once")]
    arm, percent = headline["arm"], percent_text(headline["fraction"])
    lower = "" if comparison["higher_is_better"] else "; lower is better"
    facts = [
        ("Change", _with_unit(headline["mean"], comparison), f"{comparison['score_name']}{lower}"),
        ("95 % interval", _difference_interval(headline, comparison["points"]), f"{arm} minus {comparison['base']}"),
        ("Seeds better", better_seeds(headline), "the same seeds in both"),
        ("Tested on", items, "the same for all arms"),
        ("Labelled rows", _count_text(rows_of(comparison, headline["fraction"])), f"{percent} of what there is"),
    ]
    cost = next((row["cost"] for row in comparison["arms"] if row["name"] == arm), None)
    if cost:
        spent = f"{_count_text(cost.get('tokens'))} tokens, {_count_text(cost.get('steps'))} steps"
        facts.append(("Stage one took", _minutes_text(cost.get("minutes")), spent))
    return facts


def _subtitle(comparison: dict[str, Any]) -> str:
    """What was compared, in a line."""
    task = {"sentiment": "Sentiment", "ner": "Named entities"}.get(comparison["task"], comparison["task"])
    arms = [arm for arm in comparison["arms"] if arm["name"] != comparison["base"]]
    seeds = len(comparison["seeds"])
    counted = f"{len(arms)} arm{'s' * (len(arms) != 1)} against {comparison['base']}, {seeds} seed{'s' * (seeds != 1)}"
    return f"{task}: {counted}, {comparison['score_name']} on {comparison['items']:,} test {comparison['item_name']}"


# --- Tables -----------------------------------------------------------------------------------------------------------


def _result_groups(comparison: dict[str, Any]) -> list[dict[str, Any]]:
    """The main table: of each share of the rows one row an arm, base among them."""
    scale = _scale(comparison["differences"])
    groups = []
    for fraction in comparison["fractions"]:
        rows = [_result_row(comparison, arm["name"], fraction, scale) for arm in comparison["arms"]]
        name = f"{percent_text(fraction)} of the labelled rows: {_count_text(rows_of(comparison, fraction))}"
        groups.append({"name": name, "fraction": fraction, "rows": rows})
    return groups


def _result_row(comparison: dict[str, Any], arm: str, fraction: float, scale: tuple[float, float]) -> dict[str, Any]:
    """One arm at one share of the rows: its score, and how it compares with base."""
    cell = {"arm": arm, "fraction": fraction}
    curve = next((c for c in comparison["curves"] if all(c[name] == cell[name] for name in cell)), None)
    row = {
        "arm": arm,
        "mean": score_text(curve["mean"]) if curve else NONE,
        "interval": _from_to(score_text(curve["low"]), score_text(curve["high"])) if curve else NONE,
        "is_base": arm == comparison["base"],
        "is_headline": comparison["headline"] == cell,
        "word": "" if curve else "no score",
        "sense": "open",
    } | dict.fromkeys(("difference", "difference_interval", "better", "p", "adjusted"), "")
    row["strip"] = None
    difference = _difference(comparison, cell)
    if difference:
        points = comparison["points"]
        row |= {
            "difference": difference_text(difference["mean"], points),
            "difference_interval": _difference_interval(difference, points),
            "better": better_seeds(difference),
            "p": _p_text(difference["p_value"]),
            "adjusted": NONE if row["is_headline"] else _p_text(difference["adjusted_p_value"]),
            "word": difference["word"],
            "sense": SENSES.get(difference["word"], "open"),
            "strip": _strip(difference, difference["mean"], scale),
        }
    return row


def _sentence(difference: dict[str, Any]) -> dict[str, str]:
    """A comparison in words."""
    name = f"{difference['arm']}, {percent_text(difference['fraction'])} of the rows"
    return {"name": name, "text": f"{difference['sentence']} {difference['more']}".strip()}


def _label_rows(comparison: dict[str, Any]) -> list[dict[str, Any]]:
    """The labels' table, the largest gain first; F1 is shown in points whatever the headline score is."""
    scale = _scale(comparison["labels"])
    is_counted = any("support" in label for label in comparison["labels"])
    return [
        {
            "label": label["label"],
            "support": _count_text(label.get("support")) if is_counted else None,
            "base": score_text(label["base"]),
            "arm": score_text(label["arm"]),
            "difference": difference_text(label["difference"], 100),
            "interval": _difference_interval(label, 100),
            "strip": _strip(label, label["difference"], scale),
            "sense": _label_sense(label),
        }
        for label in sorted(comparison["labels"], key=lambda label: -_or_least(label["difference"]))
    ]


def _label_sense(label: dict[str, Any]) -> str:
    """Whether the interval of a label's change leaves 0 out, and on which side."""
    if not (is_number(label["low"]) and is_number(label["high"])):
        return "open"
    return "good" if label["low"] > 0 else "bad" if label["high"] < 0 else "open"


def _or_least(value: Any) -> float:
    """The number to sort by: what cannot be told comes last."""
    return float(value) if is_number(value) else -math.inf


LONG_TEXT = 320  # letters of an example that are shown; the rest unfolds


def _flips(comparison: dict[str, Any]) -> dict[str, Any] | None:
    """How many items changed sides, with examples of each kind."""
    flips = comparison["flips"]
    if not flips or not comparison["headline"]:
        return None
    kinds = {"right": "Wrong before, right after", "wrong": "Right before, wrong after"}
    tables = [
        {"name": kinds[kind], "kind": kind, "rows": [_example(example) for example in flips["examples"][kind]]}
        for kind in kinds
        if flips["examples"].get(kind)
    ]
    most = max(flips["right"], flips["wrong"], 1)
    shares = {kind: f"{100 * flips[kind] / most:.1f}" for kind in kinds}
    net = flips["right"] - flips["wrong"]
    return {"tables": tables, "shares": shares, "net": f"{net:+,}".replace("-", "−") if net else "0", **flips}


def _example(example: dict[str, Any]) -> dict[str, Any]:
    """One changed item, its text in a part that is seen and a part that unfolds."""
    text = str(example["text"])
    cut = len(text) if len(text) <= LONG_TEXT else text.rfind(" ", LONG_TEXT // 2, LONG_TEXT) + 1 or LONG_TEXT
    return {**example, "start": text[:cut], "rest": text[cut:]}


# What stage one measures of itself: name, whether more is better.
MEASURES = {
    "mlm_loss": ("masked-word loss, own texts (nats)", False),
    "mlm_accuracy": ("masked-word accuracy, own texts", True),
    "nsp_accuracy": ("next-sentence accuracy, own texts", True),
    "general_mlm_loss": ("masked-word loss, general texts (nats)", False),
}


def _pretraining_rows(comparison: dict[str, Any]) -> list[dict[str, str]]:
    """What stage one learned: each arm's measures before and after."""
    rows = []
    for arm in comparison["arms"]:
        found = arm["pretraining"] or {}
        for name, (spoken, more_is_better) in MEASURES.items():
            before, after = found.get(f"{name}_before"), found.get(name)
            if not is_number(after):
                continue
            row = {"arm": arm["name"], "measure": spoken, "before": score_text(before), "after": score_text(after)}
            row |= {"change": NONE, "word": "", "sense": "open"}
            if is_number(before):
                is_better = (after > before) == more_is_better
                row["change"] = difference_text(after - before, 1)
                if after != before:
                    row |= {"word": "better", "sense": "good"} if is_better else {"word": "worse", "sense": "bad"}
            rows.append(row)
    return rows


def _forgetting(comparison: dict[str, Any]) -> list[str]:
    """What became of general language, one sentence an arm for which it was measured."""
    lines = []
    for arm in comparison["arms"]:
        found = arm["pretraining"] or {}
        before, after = found.get("general_mlm_loss_before"), found.get("general_mlm_loss")
        if is_number(before) and is_number(after):
            said = "it is no worse at general language than before" if after <= before else "it forgot some of it"
            move = "went from" if after == before else "fell from" if after < before else "rose from"
            ends = f"{score_text(before)} to {score_text(after)} nats"
            lines.append(f"{arm['name']}: on general texts the masked-word loss {move} {ends}, so {said}.")
    return lines


def _cost_rows(comparison: dict[str, Any]) -> list[dict[str, str]]:
    """What went into each arm, and what came of it at the share of the rows that the verdict is about."""
    fraction = (comparison["headline"] or {"fraction": comparison["fractions"][-1]})["fraction"]
    if not any(arm["cost"] for arm in comparison["arms"]):
        return []
    rows = []
    for arm in comparison["arms"]:
        cost = arm["cost"] or {}
        minutes = [cell["minutes"] for cell in comparison["cells"] if cell["arm"] == arm["name"]]
        minutes = [value for value in minutes if is_number(value)]
        difference = _difference(comparison, {"arm": arm["name"], "fraction": fraction})
        rows.append(
            {
                "arm": arm["name"],
                "title": arm["title"],
                "tokens": _count_text(cost.get("tokens")),
                "steps": _count_text(cost.get("steps")),
                "minutes": _minutes_text(cost.get("minutes")),
                "fine_tuning": _minutes_text(sum(minutes)) if minutes else NONE,
                "gain": _with_unit(difference["mean"], comparison) if difference else NONE,
                "percent": percent_text(fraction),
            }
        )
    return rows


def _calibration_rows(comparison: dict[str, Any]) -> list[dict[str, Any]]:
    """The calibration error of each arm, one column a share of the rows."""
    found = {(row["arm"], row["fraction"]): row["mean"] for row in comparison["calibration"]}
    return [
        {"arm": arm["name"], "values": [score_text(found.get((arm["name"], f))) for f in comparison["fractions"]]}
        for arm in comparison["arms"]
        if any(name == arm["name"] for name, _ in found)
    ]


def _cell_rows(comparison: dict[str, Any]) -> dict[str, Any]:
    """Every cell with all its scores, and apart those that have none."""
    scores = list(dict.fromkeys(name for cell in comparison["cells"] for name in cell["scores"]))
    rows = [
        {
            "percent": percent_text(cell["fraction"]),
            "time": f"{cell['minutes']:.1f}" if is_number(cell["minutes"]) else NONE,
            "values": [f"{value:.4f}" if is_number(value) else NONE for value in map(cell["scores"].get, scores)],
            **cell,
        }
        for cell in comparison["cells"]
    ]
    return {"scores": scores, "rows": rows, "missing": [row for row in rows if row["status"] != "finished"]}


def _records(comparison: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Settings, versions and files as tables: heading and what stands in it."""
    lineage = comparison["lineage"]
    tables = [(f"Settings of {name}", values) for name, values in comparison["settings"].items()]
    tables += [(name.replace("_", " ").capitalize(), value) for name, value in lineage.items() if type(value) is dict]
    tables += [("Code and machine", {name: value for name, value in lineage.items() if type(value) is not dict})]
    return [(name, values) for name, values in tables if values]


def _certainty(comparison: dict[str, Any]) -> list[str]:
    """How the intervals are made and what they can tell, in plain sentences."""
    headline = _headline(comparison)
    seeds, items = (
        len(headline["each"] if headline else comparison["seeds"]),
        f"{comparison['items']:,} {comparison['item_name']}",
    )
    lines = [
        f"Two things are chance in such a comparison: the seeds ({seeds}) and the test {comparison['item_name']} "
        f"({comparison['items']:,}). Each arm is held against {comparison['base']} with the same seeds and the same "
        f"{comparison['item_name']}, and a 95 % interval counts both: how much the difference changes from seed to "
        f"seed, and how much it would change with other {comparison['item_name']} of the same kind.",
        "The model of each cell was scored on the test split once.",
    ]
    others = len(comparison["differences"]) - (headline is not None)
    if others > 1:
        named = "The verdict is about one comparison that was named beforehand. The other" if headline else "These"
        lines.append(
            f"{named} {others} have p-values that are adjusted for their number, because of many comparisons some "
            "would look good by chance; their intervals are each for itself."
        )
    if headline:
        lines += _what_would_tell(comparison, headline, items)
    return lines


def _what_would_tell(comparison: dict[str, Any], headline: dict[str, Any], items: str) -> list[str]:
    """What the design of the verdict's comparison can find, and what limits it."""
    if headline["detectable"] == 0:
        return [f"With every seed, and of any draw of the test {comparison['item_name']}, the difference is the same."]
    lines = []
    if is_number(headline["detectable"]):
        smallest = _with_unit(abs(headline["detectable"]), comparison).lstrip("+")
        lines.append(f"A true difference of {smallest} would be found in four of five such comparisons.")
    seeds, of_items = len(headline["each"]), headline["item_error"]
    if is_number(headline["seed_sd"]) and is_number(of_items) and seeds > 1:
        of_seeds = headline["seed_sd"] / seeds**0.5
        errors = [f"{comparison['points'] * error:.2g}" for error in (headline["seed_sd"], of_seeds, of_items)]
        names = ("seeds", f"test {comparison['item_name']}")
        larger, smaller = names if of_seeds > of_items else names[::-1]
        advice = f"More {larger} would narrow the interval more than more {smaller}."
        if max(of_seeds, of_items) <= 1.25 * min(of_seeds, of_items):
            advice = f"More {larger} would narrow the interval about as much as more {smaller}."
        lines.append(
            f"From seed to seed the difference scatters by {errors[0]} (standard deviation), which leaves an error of "
            f"{errors[1]} after {seeds} seeds; that there are but {items} leaves one of {errors[2]}. {advice}"
        )
    return lines


def _alternatives(comparison: dict[str, Any]) -> dict[str, str]:
    """What the pictures say, for those who do not see them."""
    score = comparison["score_name"]
    ends = []
    for arm in comparison["arms"]:
        points = sorted((c for c in comparison["curves"] if c["arm"] == arm["name"]), key=lambda c: c["fraction"])
        if points and arm["dose"] is None:
            values = (f"{score_text(point['mean'])} at {percent_text(point['fraction'])}" for point in points)
            ends.append(f"{arm['name']}: {', '.join(values)}")
    return {
        "learning_curves": f"Line chart of {score} against labelled rows. {'; '.join(ends)}.",
        "paired_seeds": f"Each seed's {score} with base and with the arm, joined by a line; one panel a share of the "
        "labelled rows. The table above says in how many seeds the arm is better.",
        "doses": f"Line chart of the change in {score} against per cent of stage one's steps; the numbers are in the "
        "table of all arms.",
        "label_changes": "Dot and interval of the change in F1 of each label; the numbers are in the table below.",
    }


# --- Markdown ---------------------------------------------------------------------------------------------------------

COLUMNS = ("labelled rows", "arm", "score [95 % interval]", "difference [95 % interval]", "seeds better", "p", "word")


def report_markdown(comparison: dict[str, Any], pictures: list[str]) -> str:
    """The verdict and the main table in Markdown, to paste into a README or a paper.

    Args:
        comparison: the content of comparison.json.
        pictures: files beside it that are linked.

    Returns:
        The text; a text of the comparison cannot break out of its line or its cell.
    """
    verdict = _verdict(comparison)
    lines = [f"# {markdown_cell(comparison['title'])}", "", f"**{markdown_cell(verdict['answer'])}.**"]
    lines[-1] += f" {markdown_cell(verdict['sentence'])} {markdown_cell(verdict['more'])}".rstrip()
    lines += ["", markdown_cell(_subtitle(comparison)) + ".", ""]
    lines += [f"- {markdown_cell(note)}" for note in comparison["notes"]] + [""] * bool(comparison["notes"])
    lines += [f"| {' | '.join(COLUMNS)} |", "|---|---|---|---|---|---|---|"]
    for group in _result_groups(comparison):
        for row in group["rows"]:
            lines.append(f"| {' | '.join(map(markdown_cell, _markdown_row(comparison, group['fraction'], row)))} |")
    lines += ["", markdown_cell(_legend(comparison))]
    costs = [f"{arm['name']} took {spoken_cost(arm['cost'])}" for arm in comparison["arms"] if arm["cost"]]
    lines += ["", f"Stage one: {markdown_cell('; '.join(costs))}."] if costs else []
    for picture in pictures:
        lines += ["", f"![{TITLES[picture.removesuffix('.png')]}]({picture})"]
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", comparison["command"])), default=0))
    lines += ["", "Run it again:", "", f"{fence}bash", comparison["command"].strip(), fence]
    return "\n".join(lines) + "\n"


def _legend(comparison: dict[str, Any]) -> str:
    """What the main table's numbers are."""
    better = "higher" if comparison["higher_is_better"] else "lower"
    unit = " in points, hundredths of it" if comparison["points"] == 100 else ""
    return (
        f"Scores are {comparison['score_name']} ({better} is better), differences{unit}: arm minus "
        f"{comparison['base']}; 95 % intervals over seeds and test {comparison['item_name']}. The p of all rows but "
        "the bold one is adjusted for the number of comparisons."
    )


def _markdown_row(comparison: dict[str, Any], fraction: float, row: dict[str, Any]) -> list[str]:
    """The main table's row in Markdown, before its cells are escaped; the verdict's is bold."""
    difference = f"{row['difference']} [{row['difference_interval']}]" if row["difference"] else ""
    cells = [
        f"{_count_text(rows_of(comparison, fraction))} ({percent_text(fraction)})",
        row["arm"],
        f"{row['mean']} [{row['interval']}]" if row["mean"] != NONE else NONE,
        difference,
        row["better"],
        row["p"] if row["is_headline"] else row["adjusted"],
        row["word"],
    ]
    return [f"**{cell}**" if row["is_headline"] and cell else cell for cell in cells]


def main(folders: list[str]) -> None:
    """Write the reports of finished comparisons anew, from their comparison.json.

    Raises:
        Refusal: no folder, or one without a comparison.
    """
    found = [(folder, read_json(Path(folder, "comparison.json"))) for folder in folders]
    missing = [folder for folder, comparison in found if "differences" not in comparison]
    if missing or not found:
        raise Refusal(f"{', '.join(missing) or 'no folder'}: no comparison.json of a comparison; name another")
    for folder, comparison in found:
        print(f"{folder}: {', '.join(write_report(Path(folder), comparison))}")


if __name__ == "__main__":
    run_script(main)
