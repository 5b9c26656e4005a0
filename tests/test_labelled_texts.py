"""Labels and scores become shades and targets, texts rows of token ids, and splits are held against each other."""

import itertools
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, BertConfig, PreTrainedTokenizerBase

from run_sentiment import Settings
from tests.conftest import NOUNS, PLACES, SHADES, VERBS
from two_stage.checkpointing.handoff import Checkpoint
from two_stage.command_line.exits import Refusal
from two_stage.data.labelled_texts import (
    Reading,
    Scale,
    Texts,
    collate,
    keep,
    label_name,
    label_scale,
    load_splits,
    read_texts,
    row_target,
    text_reading,
    tokenize_texts,
)
from two_stage.data.sources import Sample, Source

WAYS = ("head", "head_tail", "windows")
SCALE = Scale(SHADES)


@pytest.fixture(scope="module")
def tokenizer(tiny_folder: Path) -> PreTrainedTokenizerBase:
    """The tiny checkpoint's tokenizer."""
    return AutoTokenizer.from_pretrained(tiny_folder)


def table(folder: Path, name: str, rows: list[dict[str, Any]]) -> list[str]:
    """Rows as JSONL, which keeps what is a number; as a data flag has it."""
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return [str(folder / name)]


def labelled(*rows: tuple[str, Any]) -> list[dict[str, Any]]:
    """Rows of a text and a label."""
    return [{"text": text, "label": label} for text, label in rows]


# --- Long texts -------------------------------------------------------------------------------------------------------

LONG = {"length": st.integers(0, 200), "room": st.integers(1, 40), "stride": st.integers(0, 60)}


@given(**LONG)
def test_windows_join_to_the_text(length: int, room: int, stride: int) -> None:
    """Each is full but the last, shares as much as was asked with the one before, and the rest is the text."""
    pieces = list(range(1000, 1000 + length))
    windows = keep(pieces, room, Reading(long_text="windows", stride=stride))
    shared = min(stride, room // 2)
    assert all(len(window) == room for window in windows[:-1])
    assert len(windows[-1]) <= room
    for before, window in itertools.pairwise(windows):
        assert len(window) > shared  # it brings something new
        assert len(set(before) & set(window)) == shared
        assert before[room - shared :] == window[:shared]
    assert windows[0] + [piece for window in windows[1:] for piece in window[shared:]] == pieces


@given(**LONG)
def test_head_and_tail(length: int, room: int, stride: int) -> None:
    """Of a text that is too long a full row: a quarter from its beginning, the rest from its end."""
    pieces = list(range(length))
    (kept,) = keep(pieces, room, Reading(long_text="head_tail", stride=stride))
    if length <= room:
        assert kept == pieces
    else:
        head = room // 4
        assert kept == [i for i in range(length) if i < head or i >= length - (room - head)]
        assert len(kept) == room


@pytest.mark.parametrize("way", WAYS)
def test_a_text_that_fits_is_left_alone(way: str) -> None:
    """Up to the last piece, and an empty one too; one piece more is too long."""
    reading = Reading(long_text=way, stride=2)
    assert keep([], 8, reading) == [[]]
    assert keep(list(range(8)), 8, reading) == [list(range(8))]
    expected = {
        "head": [[0, 1, 2, 3, 4, 5, 6, 7]],
        "head_tail": [[0, 1, 3, 4, 5, 6, 7, 8]],
        "windows": [[0, 1, 2, 3, 4, 5, 6, 7], [6, 7, 8]],
    }
    assert keep(list(range(9)), 8, reading) == expected[way]


# --- Scores among shades ----------------------------------------------------------------------------------------------

EIGHTHS = st.integers(-400, 400).map(lambda n: n / 8)  # so that scores often lie on edges
SCORES = st.one_of(EIGHTHS, st.floats(-120, 120))


def edges(fewest: int) -> st.SearchStrategy[list[float]]:
    """Ascending bins."""
    return st.lists(EIGHTHS, min_size=fewest, max_size=7, unique=True).map(sorted)


def named(bins: list[float]) -> Scale:
    """A scale of as many shades as the bins cut."""
    return Scale([f"shade {i}" for i in range(len(bins) + 1)], bins)


@given(bins=edges(1), scores=st.lists(SCORES, min_size=1, max_size=20))
def test_a_score_falls_into_its_shade(bins: list[float], scores: list[float]) -> None:
    """As a loop over the edges has it; one on an edge falls into the higher shade. One number or many at once."""
    naive = []
    for score in scores:
        shade = 0
        for edge in bins:
            if score >= edge:
                shade += 1
        naive.append(shade)
    assert [int(named(bins).shade(score)) for score in scores] == naive
    assert named(bins).shade(np.array(scores)).tolist() == naive


def test_scores_without_bins_are_all_one_shade() -> None:
    """What a model of scores alone has; it gives one number, other models one a label."""
    scale = Scale([], None, is_regression=True)
    assert int(scale.shade(-7.0)) == 0
    assert (scale.outputs, Scale(SHADES, [0, 1], is_regression=True).outputs, SCALE.outputs) == (1, 1, 3)


@given(bins=edges(2), scores=st.lists(SCORES, min_size=2, max_size=20))
def test_a_place_among_shades(bins: list[float], scores: list[float]) -> None:
    """It never falls, stays within the shades, and away from the edges rounds to the shade's number."""
    scale = named(bins)
    places = [scale.place(score) for score in sorted(scores)]
    assert places == sorted(places)
    assert 0 <= places[0] <= places[-1] <= len(scale.labels) - 1
    for score, place in zip(sorted(scores), places, strict=True):
        if min(abs(score - edge) for edge in bins) > 1e-6:
            assert round(place) == scale.shade(score)


@given(bins=edges(2))
def test_places_by_hand(bins: list[float]) -> None:
    """Half-way on an edge, whole in the middle of a shade; the outer shades are as wide as their neighbours."""
    scale, last = named(bins), len(bins)
    assert [scale.place(edge) for edge in bins] == [i + 0.5 for i in range(last)]
    middles = [(a + b) / 2 for a, b in itertools.pairwise(bins)]
    assert [scale.place(middle) for middle in middles] == pytest.approx(range(1, last))
    first_width, last_width = bins[1] - bins[0], bins[-1] - bins[-2]
    assert scale.place(bins[0] - first_width / 2) == pytest.approx(0)
    assert scale.place(bins[0] - first_width / 4) == pytest.approx(0.25)
    assert scale.place(bins[-1] + last_width / 4) == pytest.approx(last - 0.25)
    assert scale.place(bins[-1] + last_width / 2) == pytest.approx(last)
    assert (scale.place(-1e9), scale.place(1e9)) == (0, last)


@given(bins=edges(2), score=SCORES)
def test_soft_targets_of_a_score(bins: list[float], score: float) -> None:
    """Shares of two neighbours at most, whose mean shade is the score's place; the gold shade is the score's own."""
    scale = named(bins)
    shade, target = row_target(("row", {"score": score}), Settings(score_column="score", soft_labels=True), scale)
    assert shade == scale.shade(score)
    assert min(target) >= 0
    assert sum(target) == pytest.approx(1)
    assert sum(i * share for i, share in enumerate(target)) == pytest.approx(scale.place(score))
    above = [i for i, share in enumerate(target) if share]
    assert above[-1] - above[0] <= 1


# --- One row's target -------------------------------------------------------------------------------------------------


def target_of(row: dict[str, Any], scale: Scale = SCALE, **flags: Any) -> tuple[int, list[float]]:
    """The shade and target of a row."""
    return row_target(("train.csv row 7", row), Settings(**flags), scale)


def test_targets_of_labels() -> None:
    """Names, and numbers that are names: a JSONL file holds 2, the flag holds "2"."""
    assert target_of({"label": "so-so"}) == (1, [0.0, 1.0, 0.0])
    assert target_of({"tone": "good"}, label_column="tone") == (2, [0.0, 0.0, 1.0])
    assert target_of({"label": -1}, Scale(["-1", "0", "1"])) == (0, [1.0, 0.0, 0.0])
    assert target_of({"label": "1"}, Scale(["-1", "0", "1"])) == (2, [0.0, 0.0, 1.0])


@pytest.mark.parametrize("label", [None, "", "Good", " good", "best", 1, 1.0, True, ["good"]])
def test_an_unknown_label_is_refused(label: Any) -> None:
    """The place, what was found and what is known."""
    found = re.escape(f"train.csv row 7: label {label!r} is none of bad, so-so, good (--labels)")
    with pytest.raises(Refusal, match=found):
        target_of({"label": label})


def test_a_missing_column_is_refused() -> None:
    """Labels, scores, or one label's shares; the message names the flag."""
    with pytest.raises(Refusal, match=r"row 7: no column label; found text .*--label_column"):
        target_of({"text": "Profit rose."})
    with pytest.raises(Refusal, match=r"row 7: no column score; found label .*--score_column"):
        target_of({"label": "good"}, score_column="score")
    with pytest.raises(Refusal, match=r"row 7: no column good; found bad, so-so .*--labels"):
        target_of({"bad": 1, "so-so": 1}, soft_labels=True)


def test_targets_of_scores() -> None:
    """Numbers, or the text of numbers; for regression the score itself."""
    binned = Scale(SHADES, [-0.5, 0.5])
    assert target_of({"score": "-0.5"}, binned, score_column="score") == (1, [0.0, 1.0, 0.0])
    assert target_of({"score": 0.5}, binned, score_column="score") == (2, [0.0, 0.0, 1.0])
    shares = target_of({"score": 0.25}, binned, score_column="score", soft_labels=True)
    assert shares == (1, [0.0, 0.75, 0.25])
    regression = Scale(SHADES, [-0.5, 0.5], is_regression=True)
    assert target_of({"score": "-3.25"}, regression, score_column="score") == (0, [-3.25])
    assert target_of({"score": 7}, Scale([], None, True), score_column="score") == (0, [7.0])


NO_NUMBERS: list[Any] = [None, "", "high", "1_000", 1e19, "nan", math.nan, "inf", -math.inf, True, [1], {}]


@pytest.mark.parametrize("value", [*NO_NUMBERS, 10**400], ids=lambda value: repr(value)[:8])
def test_a_score_that_is_no_number_is_refused(value: Any) -> None:
    """Also an integer that no float can hold, and a number whose square, as a loss has it, is infinite to one."""
    with pytest.raises(Refusal, match=r"train\.csv row 7: column score .*a finite number is expected"):
        target_of({"score": value}, Scale(SHADES, [0, 1]), score_column="score")


@given(shares=st.lists(st.one_of(st.integers(0, 9), st.floats(0, 1e6)), min_size=3, max_size=3).filter(any))
def test_targets_of_shares(shares: list[float]) -> None:
    """Annotators' counts or shares, as numbers or text, are divided by their sum; the greatest is the gold shade."""
    expected = [share / math.fsum(shares) for share in shares]
    for found in (shares, [repr(share) for share in shares]):
        row = dict(zip(SHADES, found, strict=True)) | {"label": "not read"}
        shade, target = target_of(row, soft_labels=True)
        assert target == pytest.approx(expected)
        assert shares[shade] == max(shares)


@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
def test_a_share_that_is_no_number_is_refused(value: Any) -> None:
    """Whichever label's it is."""
    with pytest.raises(Refusal, match=r"train\.csv row 7: column so-so .*a finite number is expected"):
        target_of({"bad": 1, "so-so": value, "good": 0}, soft_labels=True)


@pytest.mark.parametrize("shares", [(0, 0, 0), (1, -0.25, 0.25), (-1, -1, -1)])
def test_shares_of_nothing_are_refused(shares: tuple[float, ...]) -> None:
    """None negative, some above 0."""
    with pytest.raises(Refusal, match=r"train\.csv row 7: shares .*none may be negative"):
        target_of(dict(zip(SHADES, shares, strict=True)), soft_labels=True)


def test_names_say_no_score() -> None:
    """A model that predicts scores can be held against scores alone; a label's name is none."""
    regression = Scale(["bad", "good"], [0.0], is_regression=True)
    with pytest.raises(Refusal, match="--score_column"):
        target_of({"label": "good"}, regression)


# --- Reading a split --------------------------------------------------------------------------------------------------


def test_a_split_as_it_stands(tmp_path: Path) -> None:
    """Texts and places of several files in their order."""
    paths = table(tmp_path, "a.jsonl", labelled(("Profit rose.", "good"), ("Profit fell.", "bad")))
    paths += table(tmp_path, "b.jsonl", labelled(("Sales held.", "so-so")))
    split = read_texts(Source(tuple(paths)), Settings(), SCALE, labelled=True)
    assert split.texts == split.whole == ["Profit rose.", "Profit fell.", "Sales held."]
    assert split.places == [f"{paths[0]} row 1", f"{paths[0]} row 2", f"{paths[1]} row 1"]
    assert split.gold is not None
    assert split.gold.tolist() == [2, 0, 1]
    assert split.targets.tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0]]
    assert len(split) == 3
    fewer = read_texts(Source(tuple(paths)), Settings(), SCALE, labelled=True, sample=Sample(2))
    assert len(fewer) == 2
    assert set(fewer.texts) < set(split.texts)


def test_a_split_of_pairs(tmp_path: Path) -> None:
    """The second text of each row, and both as one text for the check of leakage."""
    rows = [{"text": "Oslo bank rose.", "firm": firm, "label": "good"} for firm in ("Oslo bank", "Lima mine")]
    asked = Settings(text_pair_column="firm")
    split = read_texts(Source(tuple(table(tmp_path, "a.jsonl", rows))), asked, SCALE, labelled=True)
    assert split.pairs == ["Oslo bank", "Lima mine"]
    assert split.whole == ["Oslo bank rose. | Oslo bank", "Oslo bank rose. | Lima mine"]
    with pytest.raises(Refusal, match=r"row 1: no column firm; .*--text_pair_column"):
        read_texts(Source(tuple(table(tmp_path, "b.jsonl", labelled(("x", "good"))))), asked, SCALE, labelled=True)
    rows[1]["firm"] = " "
    with pytest.raises(Refusal, match="row 2: column firm is empty"):
        read_texts(Source(tuple(table(tmp_path, "c.jsonl", rows))), asked, SCALE, labelled=True)


def test_a_test_file_needs_no_labels(tmp_path: Path) -> None:
    """It has no gold then, and targets of the right shape; where labels are needed it is refused."""
    paths = table(tmp_path, "new.jsonl", [{"text": "Profit rose."}, {"text": "Profit fell."}])
    split = read_texts(Source(tuple(paths)), Settings(), SCALE, labelled=False)
    assert split.gold is None
    assert split.targets.shape == (2, 3)
    assert read_texts(Source(tuple(paths)), Settings(), Scale([], None, True), labelled=False).targets.shape == (2, 1)
    for flags in ({}, {"score_column": "score"}, {"soft_labels": True}):
        assert read_texts(Source(tuple(paths)), Settings(**flags), SCALE, labelled=False).gold is None
        with pytest.raises(Refusal, match="row 1: no column"):
            read_texts(Source(tuple(paths)), Settings(**flags), SCALE, labelled=True)


@pytest.mark.parametrize(
    ("flags", "label"),
    [({}, {"label": "good"}), ({"score_column": "score"}, {"score": 1}), ({"soft_labels": True}, {"good": 1})],
    ids=["label", "score", "shares"],
)
def test_a_test_file_has_all_labels_or_none(flags: dict[str, Any], label: dict[str, Any], tmp_path: Path) -> None:
    """A file of which some rows have one is refused: its scores would be of those rows alone."""
    full = label | ({"bad": 0, "so-so": 0} if "soft_labels" in flags else {})
    rows = [{"text": "Profit rose."} | full, {"text": "Profit fell."}, {"text": "Profit held."} | full]
    scale = Scale(SHADES, [0, 1])
    with pytest.raises(Refusal, match="2 of 3 rows have a label; label all or none"):
        read_texts(Source(tuple(table(tmp_path, "some.jsonl", rows))), Settings(**flags), scale, labelled=False)
    split = read_texts(
        Source(tuple(table(tmp_path, "all.jsonl", [rows[0], rows[2]]))), Settings(**flags), scale, labelled=False
    )
    assert split.gold is not None
    assert split.gold.tolist() == [2, 2]


@pytest.mark.parametrize(("flags", "has_gold"), [({}, False), ({"score_column": "label"}, True)])
def test_hidden_labels_are_none(flags: dict[str, Any], has_gold: bool, tmp_path: Path) -> None:
    """-1 is what data sets of the Hub have for the labels of a test split; as a score it is one."""
    paths = table(tmp_path, "test.jsonl", [{"text": "Profit rose.", "label": -1}, {"text": "It fell.", "label": -1}])
    split = read_texts(Source(tuple(paths)), Settings(**flags), Scale(SHADES, [0, 1]), labelled=False)
    assert (split.gold is not None) == has_gold
    named = Scale(["-1", "0", "1"], None)
    assert read_texts(Source(tuple(paths)), Settings(), named, labelled=False).gold is not None
    with pytest.raises(Refusal, match="row 1: label -1 is none of"):
        read_texts(Source(tuple(paths)), Settings(), SCALE, labelled=True)


def test_shares_of_some_labels_are_not_taken_for_none(tmp_path: Path) -> None:
    """A column a label; of a test file too, one that lacks is told, and the file is not predicted as if unlabelled."""
    paths = table(tmp_path, "a.jsonl", [{"text": "Profit rose.", "bad": 0, "good": 1}])
    with pytest.raises(Refusal, match="row 1: no column so-so"):
        read_texts(Source(tuple(paths)), Settings(soft_labels=True), SCALE, labelled=False)


@pytest.mark.parametrize(
    ("text", "found"), [("", "is empty"), (" \t\n", "is empty"), (None, "is empty"), (3, "holds 3")]
)
def test_an_empty_text_is_refused(text: Any, found: str, tmp_path: Path) -> None:
    """By its place, labelled or not."""
    rows = labelled(("Profit rose.", "good"), (text, "bad"))
    for is_labelled in (True, False):
        with pytest.raises(Refusal, match=rf"row 2: column text {found}"):
            read_texts(Source(tuple(table(tmp_path, "a.jsonl", rows))), Settings(), SCALE, labelled=is_labelled)


def test_a_split_of_no_rows_is_refused(tmp_path: Path) -> None:
    """A header alone."""
    (tmp_path / "none.csv").write_text("text,label\n", encoding="utf-8")
    with pytest.raises(Refusal, match=r"none\.csv: no row in it"):
        read_texts(Source((str(tmp_path / "none.csv"),)), Settings(), SCALE, labelled=False)


# --- Rows of token ids ------------------------------------------------------------------------------------------------

WORDS = st.sampled_from([*(NOUNS + VERBS + PLACES), "Ölpreis", "2,5", "[SEP]", "利益", "🚀", "\u200b", "re-priced"])
LINES = st.lists(WORDS, min_size=1, max_size=30).map(" ".join)


def tokenized(
    tokenizer: PreTrainedTokenizerBase,
    texts: list[str],
    pairs: list[str] | None = None,
    weights: np.ndarray | None = None,
    **reading: Any,
) -> Texts:
    """A split of texts whose targets tell them apart, with its rows."""
    targets = np.arange(len(texts) * 3, dtype=np.float64).reshape(-1, 3)
    split = Texts(texts, pairs, [f"row {i}" for i in range(len(texts))], None, targets)
    weights = np.ones(len(texts)) if weights is None else weights
    tokenize_texts(split, Reading(**reading), tokenizer, weights)
    return split


@given(texts=st.lists(LINES, min_size=1, max_size=5), way=st.sampled_from(WAYS))
def test_texts_that_fit_are_the_tokenizers_own(tokenizer: PreTrainedTokenizerBase, texts: list[str], way: str) -> None:
    """As a pipeline will tokenize them, whatever is done to longer ones."""
    stock = tokenizer(texts)
    longest = max(map(len, stock["input_ids"]))
    split = tokenized(tokenizer, texts, max_length=max(longest, 8), long_text=way)
    assert split.rows["input_ids"][:] == stock["input_ids"]
    assert split.rows["text"][:] == list(range(len(texts)))
    assert split.rows["targets"][:] == split.targets.tolist()
    assert split.rows.column_names == ["input_ids", "text", "targets", "weights"]
    assert split.cut == 0


@given(texts=st.lists(LINES, min_size=1, max_size=5), longest=st.integers(8, 40))
def test_the_head_is_the_tokenizers_own(tokenizer: PreTrainedTokenizerBase, texts: list[str], longest: int) -> None:
    """Long texts are truncated as `truncation=True` does, and counted."""
    split = tokenized(tokenizer, texts, max_length=longest)
    assert split.rows["input_ids"][:] == tokenizer(texts, truncation=True, max_length=longest)["input_ids"]
    assert split.cut == sum(len(ids) > longest for ids in tokenizer(texts)["input_ids"])


@given(rows=st.lists(st.tuples(LINES, LINES), min_size=1, max_size=4), way=st.sampled_from(WAYS))
def test_pairs_that_fit_are_the_tokenizers_own(
    tokenizer: PreTrainedTokenizerBase, rows: list[tuple[str, str]], way: str
) -> None:
    """Ids and token types, with seconds of half a row at most."""
    texts, pairs = map(list, zip(*rows, strict=True))
    stock = tokenizer(texts, pairs)
    seconds = max(types.count(1) for types in stock["token_type_ids"])
    longest = max(8, 2 * seconds, *map(len, stock["input_ids"]))
    split = tokenized(tokenizer, texts, pairs, max_length=longest, long_text=way)
    assert split.rows["input_ids"][:] == stock["input_ids"]
    assert split.rows["token_type_ids"][:] == stock["token_type_ids"]
    assert split.cut == 0


@given(rows=st.lists(st.tuples(LINES, LINES), min_size=1, max_size=4), longest=st.integers(8, 40))
def test_the_heads_of_pairs_are_the_tokenizers_own(
    tokenizer: PreTrainedTokenizerBase, rows: list[tuple[str, str]], longest: int
) -> None:
    """Of two long texts as much of each as a pipeline leaves, the odd piece to the longer one."""
    texts, pairs = map(list, zip(*rows, strict=True))
    split = tokenized(tokenizer, texts, pairs, max_length=longest)
    stock = tokenizer(texts, pairs, truncation=True, max_length=longest)
    assert split.rows["input_ids"][:] == stock["input_ids"]
    assert split.rows["token_type_ids"][:] == stock["token_type_ids"]
    assert split.cut == sum(len(ids) > longest for ids in tokenizer(texts, pairs)["input_ids"])


def test_a_long_second_text_beside_a_short_one_is_read_whole(tokenizer: PreTrainedTokenizerBase) -> None:
    """Nothing is cut off a row that fits, as no pipeline would: three pieces and twenty in a row of 32."""
    texts, pairs = ["profit rose ."], ["bank " * 20]
    stock = tokenizer(texts, pairs)
    assert len(stock["input_ids"][0]) == 26
    split = tokenized(tokenizer, texts, pairs, max_length=32)
    assert split.rows["input_ids"][:] == stock["input_ids"]
    assert split.cut == 0


@pytest.mark.slow
@given(
    rows=st.lists(st.tuples(LINES, LINES), min_size=1, max_size=4),
    is_pair=st.booleans(),
    longest=st.integers(8, 32),
    way=st.sampled_from(WAYS),
    stride=st.integers(0, 20),
)
def test_rows_of_long_texts(
    tokenizer: PreTrainedTokenizerBase,
    rows: list[tuple[str, str]],
    is_pair: bool,
    longest: int,
    way: str,
    stride: int,
) -> None:
    """None is longer than was asked, each has its special tokens, and a text's rows share its weight and target."""
    texts, pairs = [a for a, _ in rows], [b for _, b in rows] if is_pair else None
    weights = np.arange(1.0, len(rows) + 1)
    split = tokenized(tokenizer, texts, pairs, weights, max_length=longest, long_text=way, stride=stride)
    whole = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    sums = np.zeros(len(rows))
    read: list[list[int]] = [[] for _ in rows]  # what is read of each first text, all its rows
    for row in split.rows:
        ids, types = row["input_ids"], row.get("token_type_ids", [0] * len(row["input_ids"]))
        assert len(ids) <= longest
        assert ids[0] == tokenizer.cls_token_id
        assert ids[-1] == ids[types.count(0) - 1] == tokenizer.sep_token_id
        assert types == sorted(types)
        assert (1 in types) == is_pair
        assert row["targets"] == split.targets[row["text"]].tolist()
        sums[row["text"]] += row["weights"]
        read[row["text"]] += ids[1 : types.count(0) - 1]
    assert sums / sums.sum() == pytest.approx(weights / weights.sum())
    assert np.mean(split.rows["weights"][:]) == pytest.approx(1)
    for pieces, found in zip(whole, read, strict=True):
        if way == "windows":  # every piece is read, in order
            assert len(found) >= len(pieces)
            assert set(found) == set(pieces)
        else:
            assert found == pieces[: len(found)] if way == "head" else found[-1:] == pieces[-1:]
            assert len(found) <= len(pieces)


@pytest.mark.parametrize(("way", "cut"), [("head", 2), ("head_tail", 2), ("windows", 0)])
def test_texts_that_lose_a_part_are_counted(tokenizer: PreTrainedTokenizerBase, way: str, cut: int) -> None:
    """Two of four are longer than 8 - 2 pieces; in windows nothing is lost."""
    texts = ["bank " * n for n in (5, 6, 7, 40)]
    split = tokenized(tokenizer, texts, max_length=8, long_text=way, stride=2)
    assert split.cut == cut
    numbers = split.rows["text"][:]
    assert [numbers.count(i) for i in range(4)] == ([1, 1, 2, 10] if way == "windows" else [1] * 4)


def test_a_second_text_that_loses_a_part_is_counted(tokenizer: PreTrainedTokenizerBase) -> None:
    """Half a row of it is left, with its [SEP], and room for the first text, which is read in windows."""
    fell, bank = tokenizer.convert_tokens_to_ids(["fell", "bank"])
    for length, cut in ((7, 0), (8, 1), (40, 1)):
        reading: dict[str, Any] = {"max_length": 16, "long_text": "windows", "stride": 0}
        split = tokenized(tokenizer, ["fell " * 30], ["bank " * length], **reading)
        assert split.cut == cut
        rows = split.rows["input_ids"][:]
        assert [ids.count(bank) for ids in rows] == [7] * 5
        assert [ids.count(fell) for ids in rows] == [6] * 5


def test_a_batch_of_rows(tokenizer: PreTrainedTokenizerBase) -> None:
    """As long as its longest row; one target a row."""
    split = tokenized(tokenizer, ["profit rose", "bank"], ["loss", "mine fell"], max_length=32)
    batch = collate(list(split.rows), tokenizer.pad_token_id)
    stock = tokenizer(["profit rose", "bank"], ["loss", "mine fell"], padding=True, return_tensors="pt")
    for name in ("input_ids", "token_type_ids", "attention_mask"):
        assert torch.equal(batch[name], stock[name])
    assert batch["targets"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert batch["weights"].tolist() == [1, 1]
    assert batch["text"].tolist() == [0, 1]
    single = collate(list(tokenized(tokenizer, ["profit rose", "bank"], max_length=32).rows), tokenizer.pad_token_id)
    assert "token_type_ids" not in single
    assert single["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]


# --- Splits against each other ----------------------------------------------------------------------------------------

TRAIN = [
    ("Profit rose in Oslo and sales grew.", "good"),
    ("The mine in Lima sank and cash dropped.", "bad"),
    ("Margin eased while the order plan held firm.", "so-so"),
    ("Debt fell.", "good"),
]
VALIDATION = [
    ("Bank", "so-so"),
    ("Shares of a drug unit in Turin slid and jumped and slid once more.", "bad"),
    ("Ship price up", "good"),
    ("Perth cost sank.", "bad"),
]
FLAGS: dict[str, Any] = {"labels": SHADES}
SHORT = Reading(max_length=32)


def three_splits(folder: Path, *test: dict[str, Any], **flags: Any) -> Settings:
    """The flags of a training, a validation and a test file."""
    return Settings(
        **FLAGS | flags,
        train_file=table(folder, "train.jsonl", labelled(*TRAIN)),
        validation_file=table(folder, "validation.jsonl", labelled(*VALIDATION)),
        test_file=table(folder, "test.jsonl", list(test) or [{"text": "Quito plan slid"}]),
    )


def test_splits_as_they_are_trained_on(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, capsys: pytest.CaptureFixture[str]
) -> None:
    """Training rows stand as the file has them, others by length, longest first, each with its text's number."""
    splits, facts = load_splits(three_splits(tmp_path), SCALE, SHORT, tokenizer)
    assert list(splits) == ["train", "validation", "test"]
    assert splits["train"].rows["text"][:] == [0, 1, 2, 3]
    assert splits["train"].rows["input_ids"][:] == tokenizer([text for text, _ in TRAIN])["input_ids"]
    rows = splits["validation"].rows
    lengths = [len(ids) for ids in rows["input_ids"][:]]
    assert lengths == sorted(lengths, reverse=True)
    assert len(set(lengths)) > 1
    assert sorted(rows["text"][:]) == [0, 1, 2, 3]
    assert rows["text"][:] != [0, 1, 2, 3]
    for row in rows:
        text, label = VALIDATION[row["text"]]
        assert row["input_ids"] == tokenizer(text)["input_ids"]
        assert row["targets"] == [float(label == shade) for shade in SHADES]
    counted = {
        "train": "4 texts: 1 bad, 1 so-so, 2 good",
        "validation": "4 texts: 2 bad, 1 so-so, 1 good",
        "test": "1 texts: no labels (column label)",
    }
    copies = ", ".join(f"0 {name} {kind} copies" for name in ("validation", "test") for kind in ("exact", "near"))
    assert facts == counted | {"texts in two splits": copies}
    assert capsys.readouterr().out.splitlines() == [f"{name}: {line}" for name, line in counted.items()]


def test_only_training_texts_are_weighted(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Balanced over the training labels; a validation loss stays the mean over texts."""
    splits, _ = load_splits(three_splits(tmp_path, class_weights=["balanced"]), SCALE, SHORT, tokenizer)
    assert splits["train"].rows["weights"][:] == pytest.approx([2 / 3, 4 / 3, 4 / 3, 2 / 3])
    assert splits["validation"].rows["weights"][:] == [1] * 4


def test_windows_of_one_text_in_a_split(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Rows by length, each text's windows with its number, and texts that weigh alike."""
    reading = Reading(max_length=8, long_text="windows", stride=1)
    splits, _ = load_splits(three_splits(tmp_path), SCALE, reading, tokenizer)
    for split in splits.values():
        numbers, weights = np.array(split.rows["text"][:]), np.array(split.rows["weights"][:])
        assert len(numbers) > len(split) or split is splits["test"]
        texts = np.bincount(numbers, weights)
        assert texts == pytest.approx(np.full(len(split), texts[0]))
    lengths = [len(ids) for ids in splits["validation"].rows["input_ids"][:]]
    assert lengths == sorted(lengths, reverse=True)


def test_scores_are_told_by_their_range(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without labels there are no counts, and with none nothing is missing either."""
    rows = [{"text": "Profit rose.", "score": 1.5}, {"text": "Debt fell", "score": -0.25}]
    asked = Settings(
        train_file=table(tmp_path, "a.jsonl", rows), score_column="score", loss="regression", max_length=32
    )
    splits, facts = load_splits(asked, Scale([], None, is_regression=True), SHORT, tokenizer)
    assert facts == {"train": "2 texts: scores from -0.25 to 1.5"}
    assert splits["train"].rows["targets"][:] == [[1.5], [-0.25]]
    assert capsys.readouterr().out == "train: 2 texts: scores from -0.25 to 1.5\n"


def test_a_text_of_two_splits_is_refused(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, capsys: pytest.CaptureFixture[str]
) -> None:
    """With both places, whatever its case and spaces; --allow_leakage goes on and the card says so."""
    copy = {"text": f"  {TRAIN[1][0].upper()} "}
    asked = three_splits(tmp_path, {"text": "Quito plan slid"}, copy)
    with pytest.raises(Refusal, match="--allow_leakage") as refusal:
        load_splits(asked, SCALE, SHORT, tokenizer)
    assert f"{asked.test_file[0]} row 2 is {asked.train_file[0]} row 2" in str(refusal.value)  # type: ignore[index]
    assert "test has 1 exact and 0 near copies of train" in str(refusal.value)
    capsys.readouterr()
    asked = three_splits(tmp_path, {"text": "Quito plan slid"}, copy, allow_leakage=True)
    splits, facts = load_splits(asked, SCALE, SHORT, tokenizer)
    assert len(splits["test"]) == 2
    assert "1 test exact copies" in facts["texts in two splits"]
    assert "0 validation exact copies" in facts["texts in two splits"]
    assert "test has 1 exact" in capsys.readouterr().out


def test_the_same_text_of_another_company_is_another(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Of pairs both texts count: only the row whose second text is the same too is refused."""

    def asked(firm: str) -> Settings:
        rows = [{"text": "Bank up", "firm": "Oslo", "label": "good"}]
        test = [{"text": "Bank up", "firm": firm, "label": "bad"}]
        files = table(tmp_path, "a.jsonl", rows) + table(tmp_path, "b.jsonl", test)
        return Settings(**FLAGS, train_file=files[:1], test_file=files[1:], text_pair_column="firm")

    assert len(load_splits(asked("Lima"), SCALE, SHORT, tokenizer)[0]["test"]) == 1
    with pytest.raises(Refusal, match=r"row 1 is .*row 1"):
        load_splits(asked("oslo"), SCALE, SHORT, tokenizer)


def test_an_unknown_label_of_any_split_is_refused(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """By its file and row."""
    asked = three_splits(tmp_path, {"text": "Quito plan slid", "label": "great"})
    with pytest.raises(Refusal, match=r"test\.jsonl row 1: label 'great' is none of bad, so-so, good"):
        load_splits(asked, SCALE, SHORT, tokenizer)


@pytest.mark.parametrize("name", ["train", "validation"])
def test_only_a_test_file_may_lack_labels(name: str, tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """What is trained on, or scored every epoch, needs them."""
    asked = three_splits(tmp_path)
    setattr(asked, f"{name}_file", table(tmp_path, "bare.jsonl", [{"text": "Margin grew"}]))
    with pytest.raises(Refusal, match=r"bare\.jsonl row 1: no column label"):
        load_splits(asked, SCALE, SHORT, tokenizer)


def printed(folder: Path, tokenizer: PreTrainedTokenizerBase, capsys: Any, rows: list[Any], **reading: Any) -> str:
    """What is said of a training file, whose second texts are in the column firm, if it has that."""
    pair_column = "firm" if "firm" in rows[0] else None
    asked = Settings(**FLAGS, train_file=table(folder, "train.jsonl", rows), text_pair_column=pair_column)
    capsys.readouterr()
    load_splits(asked, SCALE, Reading(**{"max_length": 32} | reading), tokenizer)
    return capsys.readouterr().out


def test_what_is_odd_in_training_texts(tmp_path: Path, tokenizer: PreTrainedTokenizerBase, capsys: Any) -> None:
    """A label that never occurs, and one text with two labels, by its rows; nothing of it where nothing is odd."""
    rows = [("Profit rose.", "good"), ("Debt fell.", "bad"), ("PROFIT  rose.", "bad"), ("Debt fell.", "bad")]
    said = printed(tmp_path, tokenizer, capsys, labelled(*rows))
    file = str(tmp_path / "train.jsonl")
    assert said.splitlines() == [
        "train: 4 texts: 3 bad, 0 so-so, 1 good",
        "! no training text is labelled so-so: it will hardly ever be predicted",
        f"! 1 training texts stand there twice with different labels, first {file} row 1 and {file} row 3",
    ]


def test_texts_that_are_cut_are_told(tmp_path: Path, tokenizer: PreTrainedTokenizerBase, capsys: Any) -> None:
    """How many, what they lost, and what would read more; a text in windows loses nothing."""
    rows = labelled(("bank " * 30, "good"), ("bank fell", "bad"), ("mine " * 31, "so-so"))
    said = {way: printed(tmp_path, tokenizer, capsys, rows, max_length=16, long_text=way) for way in WAYS}
    assert said["windows"] == "train: 3 texts: 1 bad, 1 so-so, 1 good\n"
    assert "; 2 are longer than --max_length 16 and lost their end" in said["head"]
    assert "head_tail" in said["head"]
    assert "; 2 are longer than --max_length 16 and lost their middle" in said["head_tail"]


def test_a_second_text_that_is_cut_is_told(tmp_path: Path, tokenizer: PreTrainedTokenizerBase, capsys: Any) -> None:
    """No way to read a long first text helps a second one, so none is advised to who has it already."""
    rows = [{"text": "bank fell " * 9, "firm": "mine " * 40, "label": label} for label in SHADES]
    said = printed(tmp_path, tokenizer, capsys, rows, max_length=16, long_text="windows")
    assert "3 are longer than --max_length 16" in said
    assert "windows reads more" not in said


# --- The scale and the reading ----------------------------------------------------------------------------------------


def checkpoint_of(tokenizer: PreTrainedTokenizerBase, labels: list[str] | None = None, **config: Any) -> Checkpoint:
    """A checkpoint of stage one, or of a sentiment model with these labels."""
    if labels:
        config |= {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
        config = {"architectures": ["BertForSequenceClassification"]} | config
    return Checkpoint("the folder", BertConfig(**config), tokenizer, None, None)


def test_scales_as_typed(tokenizer: PreTrainedTokenizerBase) -> None:
    """Labels by name, cut from a score, or a score to predict with names and without."""
    encoder, train = checkpoint_of(tokenizer), ["train.csv"]
    assert label_scale(Settings(labels=SHADES, train_file=train), encoder) == SCALE
    cut: dict[str, Any] = {"labels": SHADES, "score_column": "score", "bins": [-1.0, 1.0], "train_file": train}
    assert label_scale(Settings(**cut), encoder) == Scale(SHADES, [-1.0, 1.0])
    assert label_scale(Settings(**cut, soft_labels=True), encoder) == Scale(SHADES, [-1.0, 1.0])
    assert label_scale(Settings(**cut, loss="regression"), encoder) == Scale(SHADES, [-1.0, 1.0], True)
    score: dict[str, Any] = {"score_column": "score", "loss": "regression", "train_file": train}
    assert label_scale(Settings(**score), encoder) == Scale([], None, True)
    assert label_scale(Settings(labels=SHADES, soft_labels=True, train_file=train), encoder) == SCALE


SCORED: dict[str, Any] = {"score_column": "score"}


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        (
            {"labels": ["bad", "good", "bad"]},
            "--labels bad, good, bad: two at least are needed, none empty and none twice",
        ),
        ({"labels": ["good"]}, "--labels good: two at least are needed, none empty and none twice"),
        ({"labels": ["bad", "gold"]}, r"label gold: is a column of predictions\.csv"),
        ({"labels": ["text", "good"]}, r"label text: is a column of predictions\.csv"),
        ({"labels": SHADES, **SCORED}, "3 --labels and 0 --bins; .*, or take --loss regression"),
        ({"labels": SHADES, **SCORED, "bins": [0.0]}, "3 --labels and 1 --bins"),
        ({"labels": SHADES, **SCORED, "bins": [0.0, 1, 2]}, "3 --labels and 3 --bins"),
        ({"labels": SHADES, **SCORED, "loss": "regression"}, "3 --labels and 0 --bins; .*, or leave them out"),
        (
            {"labels": ["bad", "good"], **SCORED, "bins": [0.0], "soft_labels": True},
            "--soft_labels from a score: needs two --bins at least",
        ),
        ({**SCORED, "bins": [0.0, 1.0]}, "give the labels, worst first"),
        ({**SCORED, "bins": [0.0, 1.0], "loss": "regression"}, "give the labels, worst first"),
        (SCORED, "give the labels, worst first"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else None,
)
def test_scales_that_do_not_fit_are_refused(
    flags: dict[str, Any], found: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    """One label twice, a label that is a column, labels and bins of other numbers, no width to tell shares by."""
    with pytest.raises(Refusal, match=found):
        label_scale(Settings(**flags, train_file=["train.csv"]), checkpoint_of(tokenizer))


def test_the_labels_that_were_found_are_listed(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Only the user knows their order; each is listed once, of all files."""
    files = table(tmp_path, "a.jsonl", labelled(("a", "good"), ("b", "bad"), ("c", "good")))
    files += table(tmp_path, "b.jsonl", labelled(("d", 3)))
    with pytest.raises(Refusal, match=r"give --labels in their order, worst first; found: 3, bad, good$"):
        label_scale(Settings(train_file=files), checkpoint_of(tokenizer))
    with pytest.raises(Refusal, match=r"row 1: no column tone; found text, label \(pick one with --label_column\)"):
        label_scale(Settings(train_file=files, label_column="tone"), checkpoint_of(tokenizer))
    with pytest.raises(Refusal, match="the folder: is no sentiment model, and there is no --train_file"):
        label_scale(Settings(labels=SHADES, test_file=files), checkpoint_of(tokenizer))


def test_a_trained_folder_knows_its_scale(tokenizer: PreTrainedTokenizerBase) -> None:
    """Nothing need be typed, to predict or to train on; the same typed again is no contradiction."""
    trained = checkpoint_of(tokenizer, SHADES)
    for asked in (Settings(test_file=["x"]), Settings(train_file=["x"]), Settings(train_file=["x"], labels=SHADES)):
        assert label_scale(asked, trained) == SCALE
    other_head = checkpoint_of(tokenizer, SHADES, architectures=["SentimentModel"])
    assert label_scale(Settings(test_file=["x"]), other_head) == SCALE
    binned = checkpoint_of(tokenizer, SHADES, bins=[-0.5, 0.5])
    asked = Settings(**SCORED, bins=[-0.5, 0.5], labels=SHADES, train_file=["x"], soft_labels=True)
    assert label_scale(asked, binned) == Scale(SHADES, [-0.5, 0.5])
    assert label_scale(Settings(**SCORED, test_file=["x"]), binned) == Scale(SHADES, [-0.5, 0.5])


def test_a_trained_folder_of_scores_knows_its_scale(tokenizer: PreTrainedTokenizerBase) -> None:
    """With shades and without; to train on it the loss must be typed, to predict it need not."""
    config: dict[str, Any] = {"problem_type": "regression", "bins": [-0.5, 0.5], "shades": SHADES}
    folder, scale = checkpoint_of(tokenizer, ["score"], **config), Scale(SHADES, [-0.5, 0.5], True)
    assert label_scale(Settings(test_file=["x"]), folder) == scale
    assert label_scale(Settings(**SCORED, test_file=["x"]), folder) == scale
    assert label_scale(Settings(**SCORED, train_file=["x"], loss="regression"), folder) == scale
    bare = checkpoint_of(tokenizer, ["score"], problem_type="regression")
    assert label_scale(Settings(test_file=["x"]), bare) == Scale([], None, True)
    for trained in (folder, bare):
        with pytest.raises(Refusal, match="predicts scores; to train it further, add --loss regression"):
            label_scale(Settings(**SCORED, train_file=["x"]), trained)
    with pytest.raises(Refusal, match=r"was trained for scores bad, so-so, good with --bins \[-0\.5, 0\.5\]"):
        label_scale(Settings(**SCORED, bins=[0.0, 0.5], test_file=["x"]), folder)


@pytest.mark.parametrize(
    "flags",
    [
        {"labels": SHADES[::-1]},
        {"labels": [*SHADES, "best"]},
        {"labels": ["bad", "good"]},
        {**SCORED, "bins": [0.0, 1.0]},
        {**SCORED, "loss": "regression"},
    ],
    ids=lambda flags: " ".join(map(str, itertools.chain(*flags.items()))),
)
def test_another_scale_than_a_trained_folders_is_refused(
    flags: dict[str, Any], tokenizer: PreTrainedTokenizerBase
) -> None:
    """Another order, other labels, bins, or a score instead of labels."""
    folder = checkpoint_of(tokenizer, SHADES, bins=[-0.5, 0.5])
    with pytest.raises(Refusal, match=r"the folder: was trained for the labels bad, so-so, good with --bins"):
        label_scale(Settings(**flags, train_file=["x"]), folder)


@pytest.mark.parametrize(
    "names", [{1: "bad", 2: "good"}, {0: "bad", 1: "bad"}, {0: 1, 1: 2}, {0: None, 1: "good"}], ids=repr
)
def test_labels_that_are_none_are_refused(names: dict[int, Any], tokenizer: PreTrainedTokenizerBase) -> None:
    """Of a folder from elsewhere: numbered from 1, one name twice, or no names."""
    found = checkpoint_of(tokenizer, architectures=["BertForSequenceClassification"])
    found.config.id2label = names
    with pytest.raises(Refusal, match=r"config\.json calls its labels \{.*mend id2label: a name for each of 0 to 1"):
        label_scale(Settings(test_file=["x"]), found)


def test_a_model_of_another_task_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    """Its labels are no shades."""
    tagger = checkpoint_of(tokenizer, ["O", "B-LOC"], architectures=["BertForTokenClassification"])
    with pytest.raises(Refusal, match="is a BertForTokenClassification"):
        label_scale(Settings(test_file=["x"]), tagger)


def test_scores_need_the_bins_of_a_trained_folder(tokenizer: PreTrainedTokenizerBase) -> None:
    """A folder that was trained on names cannot tell where a score falls; all would fall into the first shade."""
    with pytest.raises(Refusal, match="the folder"):
        label_scale(Settings(**SCORED, test_file=["x"]), checkpoint_of(tokenizer, SHADES))


def test_shares_from_a_score_need_two_bins_of_a_trained_folder(tokenizer: PreTrainedTokenizerBase) -> None:
    """One edge alone says nothing of how wide a shade is, no more than where the bins are typed."""
    folder = checkpoint_of(tokenizer, ["bad", "good"], bins=[0.0])
    with pytest.raises(Refusal, match="--soft_labels from a score: needs two --bins"):
        label_scale(Settings(**SCORED, soft_labels=True, train_file=["x"]), folder)


def test_a_data_set_brings_the_names_of_its_labels(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Numbers in its files, names in its features; --labels gives the order of the shades all the same."""
    features = Features({"text": Value("string"), "label": ClassLabel(names=["good", "bad", "so-so"])})
    for split, texts in {"train": ["Profit rose .", "Cash fell .", "Debt held ."], "test": ["Sales grew ."]}.items():
        rows = Dataset.from_dict({"text": texts, "label": [0, 1, 2][: len(texts)]}, features)
        rows.to_parquet(tmp_path / f"{split}.parquet")
    asked = Settings(dataset=str(tmp_path))
    with pytest.raises(Refusal, match="worst first; found: bad, good, so-so"):
        label_scale(asked, checkpoint_of(tokenizer))
    scale = label_scale(Settings(dataset=str(tmp_path), labels=SHADES), checkpoint_of(tokenizer))
    splits, _ = load_splits(asked, scale, Reading(32), tokenizer)
    assert {name: split.gold.tolist() for name, split in splits.items() if split.gold is not None} == {
        "train": [2, 0, 1],
        "test": [2],
    }
    assert splits["train"].places[0] == f"{tmp_path} train row 1"
    assert "train: 3 texts: 1 bad, 1 so-so, 1 good" in capsys.readouterr().out


def test_how_texts_are_read(tokenizer: PreTrainedTokenizerBase) -> None:
    """What is typed, else what a trained folder was trained with, else the default, as far as positions go."""
    assert text_reading(Settings(), checkpoint_of(tokenizer)) == Reading(128, "head", 32)
    assert text_reading(Settings(), checkpoint_of(tokenizer, max_position_embeddings=64)).max_length == 64
    typed = Settings(max_length=200, long_text="windows", stride=0)
    assert text_reading(typed, checkpoint_of(tokenizer)) == Reading(200, "windows", 0)
    trained = checkpoint_of(tokenizer, SHADES, reading={"max_length": 48, "long_text": "head_tail", "stride": 8})
    assert text_reading(Settings(), trained) == Reading(48, "head_tail", 8)
    assert text_reading(Settings(long_text="windows"), trained) == Reading(48, "windows", 8)
    with pytest.raises(Refusal, match="--max_length 65: the folder takes 8 to 64 tokens"):
        text_reading(Settings(max_length=65), checkpoint_of(tokenizer, max_position_embeddings=64))


@pytest.mark.parametrize(
    ("value", "name"),
    [("good", "good"), (2, "2"), (2.0, "2"), (-1.0, "-1"), (0.5, "0.5"), (True, "true"), (None, ""), ("2.0", "2.0")],
)
def test_labels_as_tables_hold_them(value: Any, name: str) -> None:
    """Pandas writes 2 as 2.0 where a row has no label, JSON has true; a text stands as it is."""
    assert label_name(value) == name
