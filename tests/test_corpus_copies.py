"""Copies in a corpus: planted twins and leaks are found, and nothing else; naive twins agree."""

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

from two_stage.command_line.exits import Refusal
from two_stage.data.corpus import TOKENS
from two_stage.data.corpus_copies import gram_hashes, held_out_texts, leaked_texts, near_duplicates, token_batches

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
    assert both == (1050, both.found)
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
    assert sample.compared == 50
    assert 10 < sample.found < 25  # the first 50 have 10
    assert [near_duplicates(documents, limit=50) for _ in range(4)] == [sample] * 4
    assert near_duplicates(documents, limit=80).found == 40


# --- Held-out texts in the corpus -------------------------------------------------------------------------------------


def naive_leak(documents: list[list[int]], texts: list[list[int]], shortest: int) -> tuple[int, int]:
    """Every text at every place of every document."""
    long = [text for text in texts if len(text) >= shortest]
    return len(long), sum(
        any(row[k : k + len(text)] == text for row in documents for k in range(len(row))) for text in long
    )


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
    assert leaked_texts(corpus, texts) == (3, 2)


def test_no_text_is_lost_between_two_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first and last tokens of every document are found, wherever a batch ends."""
    monkeypatch.setattr("two_stage.data.corpus_copies.token_batches", lambda documents: token_batches(documents, 100))
    documents = made_up_documents(300)
    texts = [document[-9:] for document in documents] + [document[:7] for document in documents]
    assert leaked_texts(corpus_of(documents), texts).found == 600


def test_held_out_texts_of_every_format(tmp_path: Path) -> None:
    """A text as it stands goes before `tokens`."""
    (tmp_path / "a.csv").write_text("text,label\nSales rose .,up\n", encoding="utf-8")
    (tmp_path / "a.tsv").write_text("text\tlabel\nSales fell .\tdown\n", encoding="utf-8")
    rows = [{"tokens": ["Oslo", "fell"], "ner_tags": ["B-LOC", "O"]}, {"text": "as it stands", "tokens": ["as"]}]
    rows.append({"text": None, "tokens": ["Turin", "grew"], "ner_tags": ["B-LOC", "O"]})
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    pyarrow.parquet.write_table(pyarrow.table({"tokens": [["a", "b"]]}), tmp_path / "a.parquet")
    (tmp_path / "a.conll").write_text("Lima B-LOC\nrose O\n\nPerth B-LOC\n", encoding="utf-8")
    files = [str(tmp_path / f"a.{kind}") for kind in ("csv", "tsv", "jsonl", "parquet", "conll")]
    texts = ["Sales rose .", "Sales fell .", "Oslo fell", "as it stands", "Turin grew", "a b", "Lima rose", "Perth"]
    assert held_out_texts(files, "text") == texts


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"headline": "x"}, "no column text; found headline"),
        ({"tokens": "a b"}, "no column text; found tokens"),
        ({"tokens": ["a", 1]}, "column tokens must hold a list of words"),
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
