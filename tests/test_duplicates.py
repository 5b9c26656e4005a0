"""Texts of two splits: what counts as a copy, found as a naive twin finds it, and told or refused in one line."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from two_stage.command_line.exits import Refusal
from two_stage.data import duplicates
from two_stage.data.duplicates import Twin, check_leakage, conflicting_rows, normalised, twins_across

QUICKSTART = Path(__file__).parent.parent / "recipes" / "quickstart" / "data"
LONG = "The mill in Oslo said on Monday that its sales of paper and board rose by 7.5 percent in the last quarter"


def places_of(splits: dict[str, list[str]]) -> dict[str, list[str]]:
    """Where made-up texts are said to come from."""
    return {split: [f"{split}.csv row {i + 1}" for i in range(len(texts))] for split, texts in splits.items()}


def twin_of(text: str, other: str) -> Twin | None:
    """The twin that a test text has in a train split of one text."""
    twins = twins_across({"train": [other], "test": [text]})
    return twins[0] if twins else None


# --- The naive twin ---------------------------------------------------------------------------------------------------


def naive_twins(splits: dict[str, list[list[str]]], join: Callable[[list[str]], str]) -> list[Twin]:
    """What twins_across is to find, by comparing every text with every earlier one; the words are given."""

    def features(words: list[str]) -> set[object]:
        return {*words, *zip([None, *words], [*words, None], strict=True)}

    found: list[Twin] = []
    earlier: list[tuple[str, int, list[str]]] = []
    for split, texts in splits.items():
        for index, words in enumerate(texts):
            best = None
            for other_split, other_index, other in earlier:
                a, b = features(words), features(other)
                is_exact = join(words).split() == join(other).split()
                likeness = 1.0 if is_exact else len(a & b) / len(a | b)
                near = likeness >= 0.8 and len(words) >= 4 and len(other) >= 4
                twin = Twin(split, index, other_split, other_index, likeness, is_exact)
                if (is_exact or near) and (best is None or (is_exact, likeness) > (best.is_exact, best.likeness)):
                    best = twin  # of equals the first stays
            found += [best] if best else []
        earlier += [(split, index, words) for index, words in enumerate(texts)]
    return found


def with_marks(words: list[str]) -> str:
    """Words as a text with marks that are no words: copies of other marks are near, not exact."""
    return " , ".join(words) + ("!" if len(words) % 2 else " .")


WORDS = st.sampled_from([*"abcdefgh", "7", "7.5", "1,000"])
EDITS = st.lists(st.tuples(st.integers(0, 20), WORDS, st.booleans()), max_size=3)


@st.composite
def split_words(draw: st.DrawFn) -> dict[str, list[list[str]]]:
    """Two or three splits of copies of a few texts, each with up to three words replaced or put in."""
    texts = draw(st.lists(st.lists(WORDS, max_size=24), min_size=1, max_size=3))
    splits: dict[str, list[list[str]]] = {}
    for split in ("train", "validation", "test")[: draw(st.integers(2, 3))]:
        splits[split] = []
        for number, edits in draw(st.lists(st.tuples(st.integers(0, len(texts) - 1), EDITS), max_size=5)):
            words = list(texts[number])
            for place, word, is_new in edits:
                words[place : place + (not is_new)] = [word]
            splits[split].append(words)
    return splits


@given(split_words())
def test_twins_are_those_of_the_naive_twin(splits: dict[str, list[list[str]]]) -> None:
    """A few short texts over few words, where many are near."""
    joined = {split: [with_marks(words) for words in texts] for split, texts in splits.items()}
    assert twins_across(joined) == naive_twins(splits, with_marks)


def natural_splits() -> dict[str, list[list[str]]]:
    """Texts of 3 to 30 words, few common and many rare; half of the later ones are earlier ones with changed words."""
    rng = np.random.default_rng(0)

    def some_words(count: int) -> list[str]:
        return [f"w{word}" for word in np.minimum(rng.zipf(1.4, count), 5_000)]

    splits = {"train": [some_words(count) for count in rng.integers(3, 31, 200)]}
    for split in ("validation", "test"):
        splits[split] = [some_words(count) for count in rng.integers(3, 31, 60)]
        for number in rng.integers(0, 200, 60):
            words = list(splits["train"][number])
            for place in rng.integers(0, len(words), rng.integers(0, 4)):
                words[place] = some_words(1)[0]
            splits[split].append(words)
    return splits


@pytest.mark.slow
@pytest.mark.parametrize("compared", [duplicates.COMPARED, 300])
def test_twins_of_natural_frequencies_are_those_of_the_naive_twin(
    monkeypatch: pytest.MonkeyPatch, compared: int
) -> None:
    """And where they are compared a few at a time."""
    monkeypatch.setattr(duplicates, "COMPARED", compared)
    splits = natural_splits()
    expected = naive_twins(splits, " ".join)
    assert sum(twin.is_exact for twin in expected) > 20
    assert sum(not twin.is_exact for twin in expected) > 20
    assert twins_across({split: [" ".join(words) for words in texts] for split, texts in splits.items()}) == expected


# --- What counts as a copy --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("Sales rose.", "  sales\n\trose. "),
        ("\uff33ales \ufb01rm", "SALES FIRM"),  # full-width S, the ligature fi
        ("Stra\u00dfe", "STRASSE"),
        ("5\u00a0mn", "5 mn"),  # a no-break space
        ("cafe\u0301", "CAF\u00c9"),
        ("!!!", "!!!"),
        ("\U0001f680", "\U0001f680 "),
        ("利润上升", "利润上升"),
        ("", " "),
    ],
)
def test_case_space_and_forms_of_characters_make_no_other_text(text: str, other: str) -> None:
    """Exact copies, with and without words."""
    assert twin_of(text, other) == Twin("test", 0, "train", 0, 1.0, True)


@pytest.mark.parametrize(
    "text",
    [
        LONG.replace("7.5", "8.1"),
        LONG.replace("Monday", "Friday"),
        LONG.replace("sales of ", ""),
        f"{LONG} - Reuters",
        LONG.replace(" in the last", ", in the last") + "!",
        LONG.replace("7.5 percent", "7.5percent"),
    ],
)
def test_a_long_text_with_a_word_or_two_changed_is_a_near_copy(text: str) -> None:
    """A number, a word, two words less, a source behind it, other marks, a space less."""
    twin = twin_of(text, LONG)
    assert twin is not None
    assert not twin.is_exact
    assert 0.8 <= twin.likeness <= 1.0


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("profit rose 3 %", "profit fell 5 %"),
        ("profit rose 3 %", "profit rose 5 %"),
        ("Sales: +5 %", "Sales: -5 %"),  # two words
        ("Margins went up!", "Margins went up?"),
        (
            "Ann Lee of Lee Partners called the final quarter alarming.",
            "Ann Lee of Lee Partners called the final quarter splendid.",
        ),
        (
            "Operating profit rose to EUR 3.1 mn from EUR 2.4 mn in the corresponding period in 2008 .",
            "Operating profit rose to EUR 9.2 mn from EUR 6.8 mn in the corresponding period in 2007 .",
        ),
        (LONG, " ".join(reversed(LONG.split()))),
        ("!!!", "???"),
        ("\U0001f680", "\U0001f4a9"),
        ("", "!"),
        ("利润上升百分之五", "利润下降百分之九"),
    ],
)
def test_texts_that_say_something_else_are_no_copies(text: str, other: str) -> None:
    """Short texts, new figures in an old mould, other order, no words at all."""
    assert twin_of(text, other) is None


@pytest.mark.parametrize(
    ("count", "changed", "is_near"), [(13, 1, True), (12, 1, False), (27, 2, True), (26, 2, False)]
)
def test_one_word_in_thirteen_may_change_and_two_in_twenty_seven(count: int, changed: int, is_near: bool) -> None:
    """The arithmetic of the threshold."""
    words = [f"w{i}" for i in range(count)]
    other = [f"x{i}" if i in (4, 9)[:changed] else word for i, word in enumerate(words)]
    twin = twin_of(" ".join(other), " ".join(words))
    assert (twin is not None) == is_near
    if twin:  # each changed word takes three of the 2n + 1 features away and brings three
        size = 2 * count + 1
        assert twin.likeness == (size - 3 * changed) / (size + 3 * changed)


def test_a_word_may_come_behind_eight() -> None:
    """Its three features are the rarest of its text: one feature less looked up, and the twin would be missed."""
    words = [f"w{i}" for i in range(8)]
    twin = twin_of(" ".join([*words, "Reuters"]), " ".join(words))
    assert twin is not None
    assert twin.likeness == 16 / 20  # of 17 features one goes, and three come
    assert twin_of(" ".join(words), " ".join([*words, "Reuters"])) is not None
    assert twin_of(" ".join([*words[1:], "Reuters"]), " ".join(words[1:])) is None


def test_texts_of_four_words_may_differ_in_marks_and_shorter_ones_may_not() -> None:
    """At the edge of what is too short."""
    assert twin_of("Margins went up again!", "Margins went up again?") == Twin("test", 0, "train", 0, 1.0, False)
    assert twin_of("Margins went up!", "Margins went up?") is None
    assert twin_of("No, no, no, no", "No, no") is None  # the same set of words and pairs
    assert twin_of("No, no", "No, no, no, no") is None


def test_ideographs_and_kana_are_words() -> None:
    """Languages without spaces have near copies too."""
    text = "公司表示第三季度净利润同比增长百分之五超出市场预期"
    twin = twin_of(text.replace("五", "六"), text)  # one of 25
    assert twin is not None
    assert twin.likeness == (51 - 3) / (51 + 3)
    assert twin_of("利益が増えた。", "利益が増えた!") == Twin("test", 0, "train", 0, 1.0, False)


def test_an_exact_copy_goes_before_a_near_one_and_the_likest_before_the_first() -> None:
    """Which twin is told, over three splits."""
    close, closer = LONG.replace("Monday", "Friday"), LONG + "!"
    splits = {"train": [close, close, closer], "validation": ["Something else."], "test": [LONG, LONG.upper(), close]}
    assert [(twin.index, twin.other_index, twin.is_exact) for twin in twins_across(splits)] == [
        (0, 2, False),
        (1, 2, False),
        (2, 0, True),
    ]
    splits["validation"] = [LONG]
    twins = twins_across(splits)
    assert [(twin.split, twin.index, twin.other_split, twin.other_index) for twin in twins] == [
        ("validation", 0, "train", 2),
        ("test", 0, "validation", 0),
        ("test", 1, "validation", 0),
        ("test", 2, "train", 0),
    ]
    assert [twin.is_exact for twin in twins] == [False, True, True, True]


def test_copies_within_a_split_are_no_twins() -> None:
    """They make no score a lie."""
    assert twins_across({"train": [LONG, LONG], "test": ["Else.", "Else."]}) == []


@pytest.mark.parametrize(
    "splits",
    [
        {},
        {"train": []},
        {"train": [], "test": []},
        {"train": [LONG, LONG]},
        {"train": [], "test": [LONG]},
        {"train": [LONG], "validation": [], "test": []},
        {"train": [LONG], "test": ["!!!"]},
    ],
)
def test_where_there_is_nothing_to_compare_nothing_is_found(splits: dict[str, list[str]]) -> None:
    """No split, one split, empty ones, nothing long enough."""
    assert twins_across(splits) == []
    assert check_leakage(splits, places_of(splits), allow=False) == {
        f"{split}_{kind}_copies": 0 for split in list(splits)[1:] for kind in ("exact", "near")
    }


# --- What is said of them ---------------------------------------------------------------------------------------------

LEAKY = {
    "train": ["Sales rose.", LONG, "Cash fell."],
    "validation": ["Nothing new.", "sales rose."],
    "test": [LONG.replace("Monday", "Friday"), "Cash  fell.", "Nothing new.", "Sales rose.", "New."],
}
COUNTS = {
    "validation_exact_copies": 1,
    "validation_near_copies": 0,
    "test_exact_copies": 3,
    "test_near_copies": 1,
}
# of the 22 words of LONG, "the" and "in" stand twice: 20 words, 23 pairs, so (43 - 3) / (43 + 3) = 0.87
TOLD = (
    "texts stand in two splits: validation has 1 exact and 0 near copies of train, "
    "test has 2 exact and 1 near copies of train, test has 1 exact and 0 near copies of validation; "
    "validation.csv row 2 is train.csv row 1, test.csv row 1 is nearly (0.87) train.csv row 2, "
    "test.csv row 2 is train.csv row 3 and 2 more"
)


def test_shared_texts_are_refused_in_one_line_with_counts_places_and_the_fix() -> None:
    """The whole line."""
    with pytest.raises(Refusal) as refusal:
        check_leakage(LEAKY, places_of(LEAKY), allow=False)
    assert str(refusal.value) == f"{TOLD}; take them out of one split, or go on with --allow_leakage"


def test_allowed_they_are_told_in_one_line_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    """The same line on the screen, the counts for the model card."""
    assert check_leakage(LEAKY, places_of(LEAKY), allow=True) == COUNTS
    said = capsys.readouterr().out
    assert said.startswith(f"{TOLD}; going on")
    assert said.count("\n") == 1


def test_up_to_three_copies_are_all_shown() -> None:
    """And no "0 more"."""
    splits = {"train": list("abc"), "test": list("abc")}
    with pytest.raises(Refusal, match=r"row 3 is train.csv row 3; take"):
        check_leakage(splits, places_of(splits), allow=False)


def test_clean_splits_are_passed_without_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    """Zeros for the model card."""
    splits = {"train": [LONG], "test": ["Sales rose."]}
    for allow in (False, True):
        assert check_leakage(splits, places_of(splits), allow) == {"test_exact_copies": 0, "test_near_copies": 0}
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("task", ["sentiment", "ner"])
def test_the_quickstart_shares_no_text(task: str) -> None:
    """The quickstart must not be refused."""
    splits = {}
    for split in ("train", "validation", "test"):
        if task == "sentiment":
            with open(QUICKSTART / f"sentiment_{split}.csv", encoding="utf-8", newline="") as file:
                splits[split] = [row["text"] for row in csv.DictReader(file)]
        else:
            lines = (QUICKSTART / f"ner_{split}.jsonl").read_text(encoding="utf-8").splitlines()
            splits[split] = [" ".join(json.loads(line)["tokens"]) for line in lines]
    assert not any(check_leakage(splits, places_of(splits), allow=False).values())


# --- Conflicting labels -----------------------------------------------------------------------------------------------


def test_rows_of_one_text_and_two_labels_are_found() -> None:
    """Each later row is held against the first of its text."""
    texts = ["Up.", "Down.", "up. ", "UP.", "Flat", "down."]
    assert conflicting_rows(texts, [1, 0, 0, 1, 1, 2]) == [(0, 2), (1, 5)]
    assert conflicting_rows(texts, [1, 0, 1, 1, 2, 0]) == []
    assert conflicting_rows([], []) == []


@given(st.lists(st.tuples(st.sampled_from(["a", "A ", "b", "a b", "a  B"]), st.integers(0, 2)), max_size=12))
def test_conflicting_rows_are_those_of_a_naive_search(rows: list[tuple[str, int]]) -> None:
    """Whatever the rows."""
    texts, labels = [text for text, _ in rows], [label for _, label in rows]
    same = [[normalised(a) == normalised(b) for a in texts] for b in texts]
    firsts = [line.index(True) for line in same]
    expected = [(first, row) for row, first in enumerate(firsts) if labels[first] != labels[row]]
    assert conflicting_rows(texts, labels) == expected
