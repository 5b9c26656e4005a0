"""The corpus report: planted twins and leaks are found, naive twins agree, and warnings come at their thresholds."""

import json
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, BertTokenizer

from two_stage.corpus import TOKENS
from two_stage.corpus_report import (
    gram_hashes,
    held_out_texts,
    leaked_texts,
    letter_case,
    lower_cases,
    near_duplicates,
    percent,
    report_lines,
    token_batches,
    warnings_of,
)
from two_stage.exits import Refusal

FULL_STOP = 1


def corpus_of(documents: list[list[int]]) -> Dataset:
    """Documents of one sentence each."""
    return Dataset.from_dict({"input_ids": documents, "sentence_lengths": [[len(row)] for row in documents]}, TOKENS)


def made_up_documents(count: int, seed: int = 0) -> list[list[int]]:
    """Documents of 8 to 15 sentences of 8 to 12 common and rare words and a full stop: 72 to 195 tokens."""
    rng = np.random.default_rng(seed)
    documents = []
    for _ in range(count):
        words = [np.minimum(rng.zipf(1.3, rng.integers(8, 13)) + 1, 30_000) for _ in range(rng.integers(8, 16))]
        documents.append([token for sentence in words for token in [*sentence.tolist(), FULL_STOP]])
    return documents


def runs(document: list[int]) -> set[tuple[int, ...]]:
    """The set of runs of five tokens, as near_duplicates documents it."""
    return {tuple(document[i : i + 5]) for i in range(max(len(document) - 4, 1))}


def likeness(a: list[int], b: list[int]) -> float:
    """Jaccard's likeness, naively."""
    return len(runs(a) & runs(b)) / len(runs(a) | runs(b))


def near_twin(document: list[int], rng: random.Random) -> list[int]:
    """The document with one word changed, a full stop taken out, or its last sentence cut."""
    stops = [i for i, token in enumerate(document) if token == FULL_STOP]
    changed = list(document)
    kind = rng.randrange(3)
    if kind == 0:
        changed[rng.randrange(len(changed))] = 29_999
    elif kind == 1:
        del changed[rng.choice(stops)]
    else:
        del changed[stops[-2] + 1 :]
    return changed


# --- Runs of tokens ---------------------------------------------------------------------------------------------------


@given(tokens=st.lists(st.integers(0, 30_521), max_size=30), size=st.integers(1, 8))
def test_runs_have_the_same_hash_where_they_are_the_same(tokens: list[int], size: int) -> None:
    """As many hashes as runs, and two are equal where their runs are."""
    hashes = gram_hashes(np.array(tokens, dtype=np.int32), size).tolist()
    naive = [tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1)]
    assert len(hashes) == len(naive)
    assert len(set(hashes)) == len(set(naive)) == len(set(zip(hashes, naive, strict=True)))


def test_upper_bits_of_a_hash_depend_on_the_last_token() -> None:
    """MinHash takes the upper 32 bits alone, the leak search the upper 20."""
    tokens = np.concatenate([[7, 7, 7, 7, token] for token in range(2000)]).astype(np.int32)
    hashes = gram_hashes(tokens, 5)[::5]
    assert len(set((hashes >> np.uint64(32)).tolist())) == 2000
    assert len(set((hashes >> np.uint64(44)).tolist())) > 1990


@pytest.mark.parametrize("most_tokens", [1, 300, 10**6])
def test_batches_hold_every_document_once(most_tokens: int) -> None:
    """In the order of the data set, rows without tokens included, also of a data set with another order."""
    documents = [list(range(number % 7)) for number in range(500)]
    seen = [
        tokens[start:stop].tolist()
        for tokens, offsets in token_batches(corpus_of(documents).select(range(499, -1, -1)), most_tokens)
        for start, stop in pairwise(offsets)
    ]
    assert seen == documents[::-1]


# --- Near duplicates --------------------------------------------------------------------------------------------------


def test_planted_twins_are_found_and_nothing_else() -> None:
    """5 % of the documents are twins of others; recall and precision at least 0.95."""
    rng = random.Random(0)
    originals = made_up_documents(1000)
    twins = [near_twin(document, rng) for document in rng.sample(originals, 50)]
    alone = near_duplicates(corpus_of(originals))
    assert alone.found == 0
    order = originals + twins
    rng.shuffle(order)
    both = near_duplicates(corpus_of(order))
    assert both == (1050, both.found, 0.8, 1050)
    assert both.found - alone.found >= 0.95 * len(twins)
    assert len(twins) >= 0.95 * both.found


def test_a_twin_is_what_jaccard_says_it_is() -> None:
    """Pairs on both sides of the threshold: what counts is the exact likeness, not MinHash's guess at it."""
    rng = random.Random(1)
    originals = made_up_documents(150, seed=1)
    expected, documents = 0, []
    for document in originals:
        changed = list(document)
        for place in rng.sample(range(len(document)), rng.randint(1, 4)):
            changed[place] = 29_000 + place
        documents += [document, changed]
        expected += likeness(document, changed) >= 0.8
    assert 20 < expected < 130
    assert near_duplicates(corpus_of(documents)).found == pytest.approx(expected, abs=1)


def test_short_documents_are_one_run() -> None:
    """Under five tokens a document is its own only run, so its twin is the same document."""
    documents = [[5, 6, 7], [5, 6, 7], [5, 6], [6, 7], [5, 6, 7, 0], [0, 5, 6, 7], [5], [5]]
    assert near_duplicates(corpus_of(documents)).found == 2


def test_of_many_copies_all_but_the_first_count() -> None:
    """What a de-duplication would drop."""
    document = made_up_documents(1)[0]
    assert near_duplicates(corpus_of([document] * 400)).found == 399


def test_a_sample_says_that_it_is_one_and_is_always_the_same() -> None:
    """Of a sample, only twins drawn together are found."""
    documents = corpus_of(made_up_documents(40) * 2)
    sample = near_duplicates(documents, limit=50)
    assert (sample.compared, sample.documents) == (50, 80)
    assert 10 < sample.found < 25  # the first 50 have 10
    assert [near_duplicates(documents, limit=50) for _ in range(4)] == [sample] * 4
    assert near_duplicates(documents, limit=80).found == 40


# --- Held-out texts in the corpus -------------------------------------------------------------------------------------


def naive_leak(documents: list[list[int]], texts: list[list[int]], shortest: int) -> tuple[int, int, list[int]]:
    """Every text at every place of every document."""
    long = [i for i, text in enumerate(texts) if len(text) >= shortest]
    found = [
        i for i in long if any(row[k : k + len(texts[i])] == texts[i] for row in documents for k in range(len(row)))
    ]
    return len(long), len(found), found


few_ids = st.lists(st.integers(0, 2), max_size=14)


@given(documents=st.lists(few_ids, min_size=1, max_size=6), texts=st.lists(few_ids, max_size=8), shortest=st.just(3))
def test_leaks_are_those_of_a_naive_search(documents: list[list[int]], texts: list[list[int]], shortest: int) -> None:
    """Over three token ids, where everything repeats and overlaps."""
    texts += [document[2:9] for document in documents]
    assert leaked_texts(corpus_of(documents), texts, shortest) == naive_leak(documents, texts, shortest)


def test_a_text_is_found_across_sentences_but_not_across_documents() -> None:
    """The second text runs from one document on into the next; the last is too short."""
    corpus = Dataset.from_dict(
        {"input_ids": [[1, 2, 3, 4, 5, 6, 7], [8, 9, 10, 11]], "sentence_lengths": [[4, 3], [4]]}, TOKENS
    )
    texts = [[2, 3, 4, 5, 6, 7], [4, 5, 6, 7, 8, 9], [1, 2, 3, 4, 5, 6, 7], [5, 6, 7]]
    assert leaked_texts(corpus, texts) == (3, 2, [0, 2])


def test_no_text_is_lost_between_two_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first and last tokens of every document are found, wherever a batch ends."""
    monkeypatch.setattr("two_stage.corpus_report.token_batches", lambda documents: token_batches(documents, 100))
    documents = made_up_documents(300)
    texts = [document[-9:] for document in documents] + [document[:7] for document in documents]
    assert leaked_texts(corpus_of(documents), texts).found == 600


def test_held_out_texts_of_every_format(tmp_path: Path) -> None:
    """A text column goes before `tokens`."""
    (tmp_path / "a.csv").write_text("text,label\nSales rose .,up\n", encoding="utf-8")
    (tmp_path / "a.tsv").write_text("text\tlabel\nSales fell .\tdown\n", encoding="utf-8")
    rows = [{"tokens": ["Oslo", "fell"], "ner_tags": ["B-LOC", "O"]}, {"text": "as it stands", "tokens": ["as"]}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    pyarrow.parquet.write_table(pyarrow.table({"tokens": [["a", "b"]]}), tmp_path / "a.parquet")
    (tmp_path / "a.conll").write_text("Lima B-LOC\nrose O\n\nPerth B-LOC\n", encoding="utf-8")
    files = [str(tmp_path / f"a.{kind}") for kind in ("csv", "tsv", "jsonl", "parquet", "conll")]
    texts = ["Sales rose .", "Sales fell .", "Oslo fell", "as it stands", "a b", "Lima rose", "Perth"]
    assert held_out_texts(files, "text") == texts


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"headline": "x"}, "no column text; found headline"),
        ({"tokens": "a b"}, "no column text; found tokens"),
        ({"tokens": ["a", 1]}, "no column text; found tokens"),
        ({"text": " "}, "column text is empty"),
        ({"tokens": ["\ud800"]}, "half of a character"),
    ],
)
def test_rows_without_a_text_are_refused(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    """Naming the column, or what is wrong with the text."""
    (tmp_path / "a.jsonl").write_text(json.dumps(row), encoding="utf-8")
    with pytest.raises(Refusal, match=message):
        held_out_texts([str(tmp_path / "a.jsonl")], "text")


def test_held_out_files_of_other_formats_are_refused(tmp_path: Path) -> None:
    """A .txt has no rows."""
    (tmp_path / "a.txt").write_text("x", encoding="utf-8")
    with pytest.raises(Refusal, match="cannot tell the format"):
        held_out_texts([str(tmp_path / "a.txt")], "text")


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
        "unknown tokens                  < 0.1 %",
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
