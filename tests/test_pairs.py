"""Sentence pairs: equal to a naive twin of BERT's own builder, and right on any corpus that hypothesis thinks of."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

import run_pretraining as stage_one
from two_stage.corpus import TOKENS

Documents = list[list[list[int]]]  # documents of sentences of token ids

corpora: st.SearchStrategy[Documents] = st.lists(
    st.lists(st.lists(st.integers(5, 99), min_size=1, max_size=30), min_size=1, max_size=12), min_size=2, max_size=6
)


def naive_truncation(a: list[int], b: list[int], limit: int, rng: random.Random) -> tuple[list[int], list[int]]:
    """google-research/bert, truncate_seq_pair: one token at a time from the longer side, a tie from B."""
    a, b = list(a), list(b)
    length_a, length_b = len(a), len(b)
    while length_a + length_b > limit:
        if length_a > length_b:
            length_a -= 1
        else:
            length_b -= 1
    for side, length in ((a, length_a), (b, length_b)):
        lost = len(side) - length
        coins = rng.getrandbits(lost)
        for toss in range(lost):
            side.pop(0 if coins >> toss & 1 else -1)
    return a, b


def naive_pairs(
    documents: Documents, index: int, limit: int, short: float, chance: float, rng: random.Random
) -> list[tuple[list[int], list[int], int]]:
    """google-research/bert, create_instances_from_document, line by line over lists of tokens."""
    document, pairs = documents[index], []
    target = rng.randint(2, limit) if rng.random() < short else limit
    chunk: list[list[int]] = []
    length = i = 0
    while i < len(document):
        chunk.append(document[i])
        length += len(document[i])
        if i == len(document) - 1 or length >= target:
            a_end = rng.randint(1, len(chunk) - 1) if len(chunk) >= 2 else 1
            a = [token for sentence in chunk[:a_end] for token in sentence]
            if len(chunk) == 1 or rng.random() < chance:
                other = rng.randrange(len(documents) - 1)
                other += other >= index
                start = rng.randrange(len(documents[other]))
                b: list[int] = []
                for sentence in documents[other][start:]:
                    b += sentence
                    if len(b) >= target - len(a):
                        break
                is_random = 1
                i -= len(chunk) - a_end
            else:
                b, is_random = [token for sentence in chunk[a_end:] for token in sentence], 0
            pairs.append((*naive_truncation(a, b, limit, rng), is_random))
            chunk, length = [], 0
        i += 1
    return pairs


def sentence_offsets(documents: Documents) -> list[np.ndarray]:
    """Token offsets of each document's sentences, as SentencePairs keeps them."""
    return [np.cumsum([0, *map(len, document)]) for document in documents]


def built_pairs(
    documents: Documents, index: int, limit: int, short: float, chance: float, seed: int
) -> list[tuple[list[int], list[int], int]]:
    """The product's pairs of one document, as tokens."""
    flat = [[token for sentence in document for token in sentence] for document in documents]
    chosen = stage_one.Settings(short_pair_probability=short, random_next_probability=chance)
    ranges = stage_one.document_pairs(index, sentence_offsets(documents), limit, chosen, random.Random(seed))
    return [(flat[a][i:j], flat[b][k:m], is_random) for a, i, j, b, k, m, is_random in ranges]


@settings(max_examples=300, deadline=None)
@given(
    documents=corpora,
    limit=st.integers(2, 60),
    short=st.sampled_from([0.0, 0.1, 1.0]),
    chance=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 2**32),
)
def test_pairs_equal_the_naive_twin(documents: Documents, limit: int, short: float, chance: float, seed: int) -> None:
    """Token ranges by arithmetic give the pairs that lists of tokens give, with the same draws."""
    for index in range(len(documents)):
        expected = naive_pairs(documents, index, limit, short, chance, random.Random(seed))
        assert built_pairs(documents, index, limit, short, chance, seed) == expected


@settings(max_examples=200, deadline=None)
@given(documents=corpora, limit=st.integers(2, 60), seed=st.integers(0, 2**32))
def test_every_pair_is_sound(documents: Documents, limit: int, seed: int) -> None:
    """Both sides hold a token, both fit, a random B is never from its own document, a true B goes on where A ends."""
    chosen = stage_one.Settings()
    offsets = sentence_offsets(documents)
    for index in range(len(documents)):
        for a, i, j, b, k, m, is_random in stage_one.document_pairs(index, offsets, limit, chosen, random.Random(seed)):
            assert a == index
            assert 0 <= i < j <= offsets[a][-1]
            assert 0 <= k < m <= offsets[b][-1]
            assert (j - i) + (m - k) <= limit
            assert is_random == (b != a)
            if not is_random:
                assert j <= k


@settings(max_examples=100, deadline=None)
@given(documents=corpora, seed=st.integers(0, 2**32))
def test_no_token_of_a_document_is_lost(documents: Documents, seed: int) -> None:
    """With room for everything, the first segments and true second ones cover each document from end to end."""
    chosen = stage_one.Settings(short_pair_probability=0.5)
    offsets = sentence_offsets(documents)
    for index in range(len(documents)):
        covered = []
        for a, i, j, b, k, m, _ in stage_one.document_pairs(index, offsets, 10_000, chosen, random.Random(seed)):
            covered += [*range(i, j), *(range(k, m) if b == a else ())]
        assert covered == list(range(offsets[index][-1]))


@given(a=st.integers(1, 200), b=st.integers(1, 200), limit=st.integers(2, 150))
def test_truncation_equals_the_loop(a: int, b: int, limit: int) -> None:
    """The closed form equals cutting one token at a time."""
    cut = naive_truncation([0] * a, [0] * b, limit, random.Random(0))
    assert stage_one.truncated_lengths(a, b, limit) == tuple(map(len, cut))


@pytest.mark.parametrize(("sentences", "expected"), [(1, 1.0), (2, 0.675), (5, 0.60), (60, 0.55)])
def test_random_share_is_that_of_the_original(sentences: int, expected: float) -> None:
    """Chunks of one sentence are always random, so the share lies above half, as measured on Google's own code."""
    rng = random.Random(1)
    documents = [[[7] * rng.randint(10, 30) for _ in range(sentences)] for _ in range(max(40, 3000 // sentences))]
    offsets, chosen = sentence_offsets(documents), stage_one.Settings()
    labels = [
        pair[-1]
        for index in range(len(documents))
        for pair in stage_one.document_pairs(index, offsets, 125, chosen, random.Random(index))
    ]
    assert np.mean(labels) == pytest.approx(expected, abs=0.04)


def test_lost_tokens_leave_front_and_back_evenly() -> None:
    """Each lost token goes from the front with chance one half."""
    rng = random.Random(3)
    fronts = [stage_one.cut_range(0, 101, 1, rng)[0] for _ in range(400)]
    assert np.mean(fronts) == pytest.approx(50, abs=1)
    assert np.var(fronts) == pytest.approx(25, rel=0.25)  # of a hundred fair coins


@pytest.fixture(scope="module")
def documents() -> Dataset:
    """Twenty documents of token ids."""
    rng = random.Random(5)
    rows = [
        [[rng.randint(5, 80) for _ in range(rng.randint(3, 12))] for _ in range(rng.randint(1, 9))] for _ in range(20)
    ]
    columns = {
        "input_ids": [[token for sentence in row for token in sentence] for row in rows],
        "sentence_lengths": [[len(sentence) for sentence in row] for row in rows],
    }
    return Dataset.from_dict(columns, features=TOKENS)


def pairs_of(documents: Dataset, folder: Path, key: str = "1/train") -> stage_one.SentencePairs:
    """A data set of pairs with the tiny tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return stage_one.SentencePairs(documents, tokenizer, stage_one.Settings(max_length=32), key)


def test_rows_have_berts_form(documents: Dataset, tiny_folder: Path) -> None:
    """[CLS] A [SEP] is segment 0, B [SEP] is segment 1, and the row is as long as it says."""
    pairs = pairs_of(documents, tiny_folder)
    for i in range(len(pairs)):
        row = pairs[i]
        ids, types = row["input_ids"].tolist(), row["token_type_ids"].tolist()
        assert len(ids) == len(types) == pairs.lengths[i] <= 32
        assert ids[0] == 2
        assert ids[-1] == 3
        assert ids.count(3) == 2
        assert types == [0] * (ids.index(3) + 1) + [1] * (len(ids) - ids.index(3) - 1)


def test_every_epoch_has_new_pairs_and_the_same_count(documents: Dataset, tiny_folder: Path) -> None:
    """Another epoch, another plan, equally long; the same epoch again, the same plan."""
    pairs = pairs_of(documents, tiny_folder)
    first, mask_keys = pairs.plan.copy(), {pairs[i]["mask_key"] for i in range(len(pairs))}
    pairs.set_epoch(1)
    assert len(pairs.plan) == len(pairs) == len(first)
    assert not np.array_equal(pairs.plan, first)
    assert mask_keys.isdisjoint(pairs[i]["mask_key"] for i in range(len(pairs)))
    pairs.set_epoch(0)
    assert np.array_equal(pairs.plan, first)


def test_held_out_pairs_have_their_own_draws(documents: Dataset, tiny_folder: Path) -> None:
    """Another key, another plan."""
    plan = pairs_of(documents, tiny_folder).plan
    other = pairs_of(documents, tiny_folder, "1/held out").plan
    assert plan.shape != other.shape or not np.array_equal(plan, other)


def row_keys(rows: list[dict[str, Any]]) -> list[int]:
    """What a data worker hands on of its rows: their mask keys."""
    return [row["mask_key"] for row in rows]


def test_a_worker_that_outlives_an_epoch_sees_the_next(documents: Dataset, tiny_folder: Path) -> None:
    """The epoch is shared memory: data workers that were started in epoch 0 give epoch 2's rows when it begins."""
    pairs = pairs_of(documents, tiny_folder)
    loader = torch.utils.data.DataLoader(pairs, 4, num_workers=2, persistent_workers=True, collate_fn=row_keys)
    first = [key for batch in loader for key in batch]
    pairs.set_epoch(2)
    assert [key for batch in loader for key in batch] == [pairs[i]["mask_key"] for i in range(len(pairs))] != first
