"""The corpus report: letter case, warnings at their thresholds, and a table that fits the screen."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, BertTokenizer

from tests.test_corpus_copies import corpus_of
from two_stage.data.corpus_report import letter_case, lower_cases, percent, report_lines, warnings_of

# --- Letter case ------------------------------------------------------------------------------------------------------


def letters_tokenizer(lower: bool, tmp_path: Path) -> BertTokenizer:
    """A saved and loaded tokenizer that knows the letters, whole words apart from names."""
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZäЖж"
    words = [*letters, *(f"##{letter}" for letter in letters), ".", "5", "中", "##5", "sales"]
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])}
    BertTokenizer(vocab=vocabulary, do_lower_case=lower).save_pretrained(tmp_path)
    return AutoTokenizer.from_pretrained(tmp_path)


def case_of(documents: list[list[str]], tokenizer: BertTokenizer, **kwargs: int) -> float | None:
    """The letter case of documents of sentences."""
    ids = [tokenizer(" ".join(sentences), add_special_tokens=False)["input_ids"] for sentences in documents]
    return letter_case(corpus_of(ids), tokenizer, **kwargs)


@pytest.mark.parametrize(
    ("documents", "share"),
    [
        ([["Oslo fell", "sales fell ."]], 1 / 4),
        ([["oslo"], ["Fell"]], 1 / 2),  # the second document begins a word
        ([["iPad USA usa"]], 2 / 3),
        ([["Жж жж 5 A5 中 ☃ sales"]], 1 / 3),  # numbers, signs and letters without case are no words
        ([["5 . 中"]], None),
        ([["."]], None),
    ],
)
def test_capitals_are_counted_by_word(documents: list[list[str]], share: float | None, tmp_path: Path) -> None:
    """A word is its pieces together, and counts if all of it is letters that have a case."""
    assert case_of(documents, letters_tokenizer(False, tmp_path)) == share


def test_case_is_measured_on_a_sample(tmp_path: Path) -> None:
    """A long document is cut at most_tokens."""
    tokenizer = letters_tokenizer(False, tmp_path)
    documents = [["a B"] * 50] * 20
    assert case_of(documents, tokenizer, most_tokens=40) == 0.5
    assert case_of(documents, tokenizer, most_tokens=1) == 0


def test_a_tokenizer_that_lower_cases_has_no_case(tmp_path: Path) -> None:
    """None says that there is nothing to measure."""
    tokenizer = letters_tokenizer(True, tmp_path)
    assert case_of([["Oslo fell"]], tokenizer) is None
    assert lower_cases(tokenizer)
    assert not lower_cases(letters_tokenizer(False, tmp_path))


def test_lower_casing_is_tried_and_not_read(tmp_path: Path) -> None:
    """`do_lower_case` in a config that disagrees with tokenizer.json does not mislead; neither does no normalizer."""
    tokenizer = letters_tokenizer(False, tmp_path)
    tokenizer.do_lower_case = True
    assert not lower_cases(tokenizer)
    tokenizer.backend_tokenizer.normalizer = None
    assert not lower_cases(tokenizer)


# --- Warnings and the table -------------------------------------------------------------------------------------------

SOUND: dict[str, Any] = {
    "documents": 20_000,
    "sentences": 150_000,
    "tokens": 3_300_000,
    "one_sentence_documents": 200,
    "pieces_per_word": 1.1,
    "unknown_share": 0.0001,
    "words_with_capitals": 0.15,
    "pairs": 33_000,
    "tokens_a_pair": 103.4,
    "random_next_share": 0.5,
    "no_next_share": 0.188,
    "truncation_share": 0.069,
    "padding_share": 0.012,
    "duplicate_documents": 120,
    "near_duplicate_documents": 14,
    "near_duplicates_compared": 20_000,
    "held_out_texts": 484,
    "held_out_texts_leaked": 0,
    "rows_a_step": 32,
    "steps_an_epoch": 1032,
    "steps": 3096,
    "train_tokens": 10_244_060,
    "seconds_a_step": 0.412,
    "hours": 0.354,
    "memory_gb": 6.25,
    "fragmented_words": [["mln", 4051, 2], ["dlrs", 3300, 3], ["tonnes", 1200, 2]],
}


WORST = SOUND | {
    "tokens": 999_999,
    "documents": 2_000_000,
    "one_sentence_documents": 1_900_000,
    "unknown_share": 0.123,
    "pieces_per_word": 5.09,
    "words_with_capitals": 0.999,
    "truncation_share": 0.456,
    "padding_share": 0.234,
    "held_out_texts": 123_456,
    "held_out_texts_leaked": 12_345,
    "duplicate_documents": 12_000_000,
}


def test_a_sound_corpus_has_no_warning() -> None:
    """The figures of ordinary news."""
    assert warnings_of(SOUND) == []


@pytest.mark.parametrize("empty", [{}, dict.fromkeys(SOUND), dict.fromkeys(SOUND, float("nan"))])
def test_what_was_not_measured_warns_of_nothing(empty: dict[str, Any]) -> None:
    """Missing, None, and not a number."""
    assert warnings_of(empty) == []


@pytest.mark.parametrize(
    ("sound", "flawed", "words"),
    [
        ({"tokens": 1_000_000}, {"tokens": 999_999}, ["999,999 tokens", "100 epochs", "ollect more"]),
        (
            {"one_sentence_documents": 10_000},
            {"one_sentence_documents": 10_001},
            ["50.0 % of the documents", "--no_next_sentence"],
        ),
        ({"unknown_share": 0.01}, {"unknown_share": 0.0105}, ["1.1 %", "[UNK]", "alphabet"]),
        ({"pieces_per_word": 1.5}, {"pieces_per_word": 1.51}, ["1.51 pieces", "splinters", "language"]),
        ({"words_with_capitals": 0.02}, {"words_with_capitals": 0.019}, ["1.9 %", "before lower-casing", "uncased"]),
        ({"words_with_capitals": 0.8}, {"words_with_capitals": 0.81}, ["81.0 %", "uncased"]),
        ({"truncation_share": 0.1}, {"truncation_share": 0.101}, ["10.1 %", "--max_length"]),
        ({"padding_share": 0.05}, {"padding_share": 0.051}, ["5.1 %", "--gradient_accumulation_steps"]),
        ({"held_out_texts_leaked": 0}, {"held_out_texts_leaked": 1}, ["1 of 484", "flatter", "take the documents"]),
        # 20,000 kept of 28,500 are 8,500 exact copies, 29.8 %, and 14 near ones
        ({"duplicate_documents": 8_500}, {"duplicate_documents": 8_600}, ["30.1 %", "keep one of each"]),
        (  # of a sample of 100, 29 and 30: with 120 exact copies 29.4 % and 30.4 %
            {"near_duplicates_compared": 100, "near_duplicate_documents": 29},
            {"near_duplicates_compared": 100, "near_duplicate_documents": 30},
            ["30.4 %", "nearly"],
        ),
    ],
)
def test_warnings_on_both_sides_of_their_thresholds(
    sound: dict[str, Any], flawed: dict[str, Any], words: list[str]
) -> None:
    """One flaw, one warning, which says what was seen and what to do."""
    assert warnings_of(SOUND | sound) == []
    (warning,) = warnings_of(SOUND | flawed)
    assert all(word in warning for word in words)


@pytest.mark.parametrize("key", WORST)
def test_every_key_may_be_missing_or_alone(key: str) -> None:
    """Each part of the report is measured, or not, by itself."""
    assert report_lines({name: value for name, value in WORST.items() if name != key})
    assert report_lines({key: WORST[key]})


def test_lone_sentences_do_not_matter_without_next_sentences() -> None:
    """The user has done what the warning would ask for."""
    assert warnings_of(SOUND | {"one_sentence_documents": 20_000, "no_next_sentence": True}) == []


def test_the_report_fits_the_screen() -> None:
    """100 columns, and no warning longer than two lines, whatever is wrong."""
    for worst in (WORST, WORST | {"words_with_capitals": 0.0001}):
        lines = report_lines(worst).split("\n")
        assert all(len(line) <= 100 for line in lines)
        assert sum(line.startswith("! ") for line in lines) == len(warnings_of(worst)) == 9
        behind = [i for i, line in enumerate(lines) if line.startswith("! ")]
        assert all(after - before <= 2 for before, after in pairwise([*behind, len(lines)]))


def test_the_report_names_every_number() -> None:
    """Groups in order, numbers as people write them."""
    shown = report_lines(SOUND)
    rows = [line.split()[0] for line in shown.split("\n") if not line.startswith(" ")]
    assert rows == ["corpus", "words", "pairs", "duplicates", "leakage", "plan", "most"]
    parts = [
        "3,300,000",
        "random next sentences            50.0 %",
        "unknown words                   < 0.1 %",
        "103.40",
    ]
    parts += ["mln 4,051 × 2 pieces, dlrs", "held-out texts", "10,244,060", "0.41", "near duplicates"]
    assert [part for part in parts if part not in shown] == []


def test_missing_keys_lists_and_new_keys() -> None:
    """A key that the table does not know comes last; lists and flags stay in the file."""
    assert report_lines({}) == ""
    report = {
        "documents": 3,
        "tokens": None,
        "files": ["a.txt"],
        "new_share": 0.5,
        "is_new": True,
        "fragmented_words": [],
    }
    corpus, other = report_lines({**report, "tokens": 2_000_000}).split("\n")
    assert corpus.split() == ["corpus", "documents", "3", "tokens", "2,000,000"]
    assert other.split() == ["other", "new", "share", "50.0", "%"]
    words = [["pneumonoultramicroscopic", 10, 9]] * 9
    assert len(report_lines({"fragmented_words": words})) <= 100


@pytest.mark.parametrize(("share", "text"), [(0, "0.0 %"), (0.0001, "< 0.1 %"), (0.1234, "12.3 %"), (1, "100.0 %")])
def test_percentages(share: float, text: str) -> None:
    """A small share is not shown as none."""
    assert percent(share) == text
