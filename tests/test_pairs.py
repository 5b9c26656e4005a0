"""Sentence pairs: equal to a naive twin of BERT's own builder, and right on any corpus that hypothesis thinks of."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, set_seed

import run_pretraining as stage_one
from two_stage.data.corpus import TOKENS

Documents = list[list[list[int]]]  # documents of sentences of token ids
Lengths = list[list[int]]  # tokens of each sentence of each document
NaiveRow = tuple[list[int], list[int], int, int]  # A, B, label, how many tokens were cut off

QUICK = settings(deadline=None)
sentence_lengths = st.one_of(st.integers(1, 30), st.just(1), st.integers(60, 300))
corpora: st.SearchStrategy[Lengths] = st.lists(
    st.lists(sentence_lengths, min_size=1, max_size=12), min_size=2, max_size=6
)
LIMITS, SEEDS = st.integers(2, 60), st.integers(0, 2**32)
SHARES = st.sampled_from([0.0, 0.1, 0.5, 1.0])

# The corpora that an arithmetic over offsets trips over first
DEGENERATE: dict[str, Lengths] = {
    "two documents of one token": [[1], [1]],
    "one-token sentences": [[1] * 40, [1] * 3],
    "one giant sentence": [[600], [7]],
    "two giant sentences": [[600, 599], [300]],
    "lone sentences among long documents": [[9], [12, 8, 30, 5, 17, 22, 9, 9], [3], [30], [2, 2]],
    "a giant sentence amid short ones": [[3, 4, 400, 2, 1], [5, 5], [61]],
}


def made_up_documents(lengths: Lengths) -> Documents:
    """Documents whose every token is another number, so that equal lists are the same place in the same document."""
    documents, token = [], 0
    for document in lengths:
        documents.append([])
        for length in document:
            documents[-1].append(list(range(token, token + length)))
            token += length
    return documents


def bounds_of(documents: Documents, limit: int) -> stage_one.Bounds:
    """The product's bounds of documents that are given as lists."""
    lengths = np.array([len(sentence) for document in documents for sentence in document], dtype=np.int32)
    return stage_one.Bounds(lengths, np.cumsum([0, *map(len, documents)]), limit)


def chosen(short: float = 0.1, chance: float = 0.5) -> stage_one.Settings:
    """Settings of how pairs are made."""
    return stage_one.Settings(short_pair_probability=short, random_next_probability=chance)


def flat(sentences: list[list[int]]) -> list[int]:
    """The tokens of sentences."""
    return [token for sentence in sentences for token in sentence]


def built_rows(
    rows_of: Callable[..., Any], documents: Documents, index: int, limit: int, how: stage_one.Settings, seed: int
) -> list[NaiveRow]:
    """The product's rows of one document, as tokens."""
    rows = rows_of(index, bounds_of(documents, limit), limit, how, random.Random(seed))
    return [(flat(documents[a])[i:j], flat(documents[b])[k:m], label, cut) for a, i, j, b, k, m, label, cut in rows]


# --- Naive twins ------------------------------------------------------------------------------------------------------


def naive_parts(documents: Documents, limit: int) -> Documents:
    """Sentences longer than a row cut into as few equal parts as are at most half a row long."""
    parted = []
    for document in documents:
        parted.append([])
        for sentence in document:
            parts = 1
            while len(sentence) > limit and parts * max(limit // 2, 1) < len(sentence):
                parts += 1
            ends = [len(sentence) * part // parts for part in range(parts + 1)]
            parted[-1] += [sentence[ends[part] : ends[part + 1]] for part in range(parts)]
    return parted


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


def naive_target(limit: int, short: float, rng: random.Random) -> int:
    """google-research/bert: mostly a whole row, sometimes any shorter length, drawn once a document."""
    return rng.randint(2, limit) if rng.random() < short else limit


def naive_pairs(
    documents: Documents, index: int, limit: int, short: float, chance: float, rng: random.Random
) -> list[NaiveRow]:
    """google-research/bert, create_instances_from_document, line by line over lists of tokens.

    But for a chunk of one sentence, which is a row with no B and no label, whole; the walk goes on behind it.
    """
    document, pairs = documents[index], []
    target = naive_target(limit, short, rng)
    chunk: list[list[int]] = []
    length = i = 0
    while i < len(document):
        chunk.append(document[i])
        length += len(document[i])
        if i == len(document) - 1 or length >= target:
            if len(chunk) == 1:
                pairs.append((chunk[0], [], -100, 0))
            else:
                a_end = rng.randint(1, len(chunk) - 1)
                a, b, label = flat(chunk[:a_end]), flat(chunk[a_end:]), 0
                if rng.random() < chance:
                    other = rng.randrange(len(documents) - 1)
                    other += other >= index
                    start = rng.randrange(len(documents[other]))
                    b, label = [], 1
                    for sentence in documents[other][start:]:
                        b += sentence
                        if len(b) >= target - len(a):
                            break
                    i -= len(chunk) - a_end
                short_a, short_b = naive_truncation(a, b, limit, rng)
                pairs.append((short_a, short_b, label, len(a) + len(b) - len(short_a) - len(short_b)))
            chunk, length = [], 0
        i += 1
    return pairs


def naive_windows(document: list[list[int]], target: int) -> list[NaiveRow]:
    """Sentence after sentence while they fit; one that does not fit an empty row is cut, and its rest goes on."""
    rows, row, sentences = [], [], [list(sentence) for sentence in document]
    while sentences:
        if len(row) + len(sentences[0]) <= target:
            row += sentences.pop(0)
        elif not row:
            row, sentences[0] = sentences[0][:target], sentences[0][target:]
            rows.append(row)
            row = []
        else:
            rows.append(row)
            row = []
    return [(row, [], -100, 0) for row in [*rows, row] if row]


# --- Bounds -----------------------------------------------------------------------------------------------------------


@QUICK
@given(lengths=corpora, limit=LIMITS)
@example(lengths=[[10**6, 5], [1]], limit=40)  # a product of length and parts does not fit 32 bits
def test_long_sentences_become_several(lengths: Lengths, limit: int) -> None:
    """Above a row's length a sentence is as few parts of at most half a row as can be, equal up to one token."""
    starts = np.cumsum([0, *map(len, lengths)])
    bounds = stage_one.Bounds(np.array(flat(lengths), dtype=np.int32), starts, limit)
    assert len(bounds) == len(lengths)
    assert bounds.tokens[-1] == sum(map(sum, lengths))
    half = max(limit // 2, 1)
    for index, document in enumerate(lengths):
        parts = np.diff(bounds.of(index)).tolist()
        assert bounds.of(index)[0] == 0
        assert sum(parts) == sum(document)
        for length in document:
            count = 1 if length <= limit else -(-length // half)
            mine, parts = parts[:count], parts[count:]
            assert sum(mine) == length
            assert max(mine) - min(mine) <= 1
            assert max(mine) <= (limit if count == 1 else half)
        assert not parts


@QUICK
@given(lengths=corpora, limit=LIMITS)
def test_bounds_equal_the_naive_twin(lengths: Lengths, limit: int) -> None:
    """Two flat arrays say what lists of lists say."""
    documents = made_up_documents(lengths)
    bounds = bounds_of(documents, limit)
    for index, document in enumerate(naive_parts(documents, limit)):
        assert bounds.of(index).tolist() == np.cumsum([0, *map(len, document)]).tolist()


# --- Pairs ------------------------------------------------------------------------------------------------------------


def check_twin(lengths: Lengths, limit: int, short: float, chance: float, seed: int) -> None:
    """Token ranges by arithmetic give the rows that lists of tokens give, with the same draws."""
    documents = made_up_documents(lengths)
    parted = naive_parts(documents, limit)
    how = chosen(short, chance)
    for index in range(len(documents)):
        expected = naive_pairs(parted, index, limit, short, chance, random.Random(seed))
        assert built_rows(stage_one.document_pairs, documents, index, limit, how, seed) == expected
        target = naive_target(limit, short, random.Random(seed))
        windows = built_rows(stage_one.document_windows, documents, index, limit, how, seed)
        assert windows == naive_windows(parted[index], target)


def check_soundness(lengths: Lengths, limit: int, seed: int) -> None:
    """What must hold of every pair, whoever built it."""
    bounds = bounds_of(made_up_documents(lengths), limit)
    for index in range(len(lengths)):
        sentences = bounds.of(index).tolist()
        for a, i, j, b, k, m, label, cut in stage_one.document_pairs(
            index, bounds, limit, chosen(), random.Random(seed)
        ):
            assert a == index
            assert 0 <= i < j <= bounds.of(a)[-1]
            assert 0 <= k <= m <= bounds.of(b)[-1]
            assert (label == -100) == (k == m)
            assert (j - i) + (m - k) <= limit
            assert cut == 0 or (cut > 0 and (j - i) + (m - k) == limit)
            if label == -100:
                assert (b, cut) == (index, 0)
                assert sentences.index(j) - sentences.index(i) == 1  # one whole sentence
            elif label == 1:
                assert b != index
            else:
                assert (b, label) == (index, 0)
                assert j <= k <= j + cut  # what lies between was cut off
                assert any(j <= sentence <= k for sentence in sentences)


@QUICK
@given(lengths=corpora, limit=LIMITS, short=SHARES, chance=SHARES, seed=SEEDS)
def test_rows_equal_the_naive_twins(lengths: Lengths, limit: int, short: float, chance: float, seed: int) -> None:
    """Pairs and windows, on any corpus."""
    check_twin(lengths, limit, short, chance, seed)


@QUICK
@given(lengths=corpora, limit=LIMITS, seed=SEEDS)
def test_every_pair_is_sound(lengths: Lengths, limit: int, seed: int) -> None:
    """Both sides where there is a label, both fit, a random B from elsewhere, a true B where A ends."""
    check_soundness(lengths, limit, seed)


@pytest.mark.parametrize("lengths", DEGENERATE.values(), ids=DEGENERATE)
@pytest.mark.parametrize("limit", [2, 3, 4, 5, 13, 60])
def test_degenerate_corpora(lengths: Lengths, limit: int) -> None:
    """What hypothesis may not think of on its own."""
    for seed in range(3):
        check_twin(lengths, limit, short=0.5, chance=0.5, seed=seed)
        check_soundness(lengths, limit, seed)


def test_pairs_of_a_worked_example() -> None:
    """By hand: rows of ten tokens; sentences of 4, 4, 4 and 12, the last cut into 4 + 4 + 4; then 7."""
    documents = made_up_documents([[4, 4, 4, 12, 7], [5, 5]])
    assert bounds_of(documents, 10).of(0).tolist() == [0, 4, 8, 12, 16, 20, 24, 31]
    true = built_rows(stage_one.document_pairs, documents, 0, 10, chosen(0.0, 0.0), 0)
    # chunks of twelve tokens lose two; what is left, the sentence of seven, has nothing to go with
    assert [(len(a), len(b), label, cut) for a, b, label, cut in true[-1:]] == [(7, 0, -100, 0)]
    assert [(len(a) + len(b), label, cut) for a, b, label, cut in true[:-1]] == [(10, 0, 2)] * 2
    random_ones = built_rows(stage_one.document_pairs, documents, 0, 10, chosen(0.0, 1.0), 0)
    assert {label for *_, label, _ in random_ones} == {1, -100}
    assert all(min(b) >= 31 for _, b, label, _ in random_ones if label == 1)


@QUICK
@given(lengths=corpora, seed=SEEDS)
def test_no_token_of_a_document_is_lost(lengths: Lengths, seed: int) -> None:
    """With room for everything, the first segments and true second ones cover each document from end to end."""
    bounds = bounds_of(made_up_documents(lengths), 10_000)
    for index in range(len(lengths)):
        covered = []
        for _, i, j, b, k, m, *_ in stage_one.document_pairs(index, bounds, 10_000, chosen(0.5), random.Random(seed)):
            covered += [*range(i, j), *(range(k, m) if b == index else ())]
        assert covered == list(range(bounds.of(index)[-1]))


@QUICK
@given(lengths=corpora, limit=LIMITS, short=SHARES, seed=SEEDS)
def test_windows_cover_a_document(lengths: Lengths, limit: int, short: float, seed: int) -> None:
    """Rows follow one another from end to end, none too long, and none is cut in a sentence that would have ended."""
    bounds = bounds_of(made_up_documents(lengths), limit)
    for index in range(len(lengths)):
        sentences, place = bounds.of(index).tolist(), 0
        for a, i, j, b, k, m, label, cut in stage_one.document_windows(
            index, bounds, limit, chosen(short), random.Random(seed)
        ):
            assert (a, b, label, cut) == (index, index, -100, 0)
            assert (i, k) == (place, m)
            assert i < j <= i + limit
            assert j in sentences or not any(i < sentence <= j for sentence in sentences)
            place = j
        assert place == sentences[-1]


@given(a=st.integers(1, 200), b=st.integers(1, 200), limit=st.integers(2, 150))
def test_truncation_equals_the_loop(a: int, b: int, limit: int) -> None:
    """The closed form equals cutting one token at a time."""
    cut = naive_truncation([0] * a, [0] * b, limit, random.Random(0))
    assert stage_one.truncated_lengths(a, b, limit) == tuple(map(len, cut))


def test_lost_tokens_leave_front_and_back_evenly() -> None:
    """Each lost token goes from the front with chance one half."""
    rng = random.Random(3)
    fronts = [stage_one.cut_range(0, 101, 1, rng)[0] for _ in range(400)]
    assert np.mean(fronts) == pytest.approx(50, abs=1)
    assert np.var(fronts) == pytest.approx(25, rel=0.25)  # of a hundred fair coins


@pytest.mark.parametrize("sentences", [1, 2, 5, 60])
@pytest.mark.parametrize("chance", [0.5, 0.25])
def test_random_share_is_what_was_asked(sentences: int, chance: float) -> None:
    """Of some 4,000 labelled pairs, however long the documents are; of lone sentences none is labelled."""
    rng = random.Random(1)
    count = {1: 400, 2: 4400, 5: 3300, 60: 330}[sentences]  # documents that give some 4,000 labelled pairs
    bounds = bounds_of([[[7] * rng.randint(10, 30) for _ in range(sentences)] for _ in range(count)], 125)
    plan = stage_one.plan_pairs(bounds, 125, chosen(chance=chance), "2/train")
    labels = plan["label"][plan["label"] != -100]
    if sentences == 1:
        assert len(plan) == count
        assert not len(labels)
    else:
        assert 3500 < len(labels) < 5000
        assert labels.mean() == pytest.approx(chance, abs=0.02)


def test_a_random_b_comes_from_any_other_document() -> None:
    """Evenly from all the others, the last and the first among them, and never from its own."""
    documents = made_up_documents([[5, 5]] * 5)
    bounds = bounds_of(documents, 60)
    others = [
        pair[3]
        for seed in range(2000)
        for pair in stage_one.document_pairs(2, bounds, 60, chosen(0.0, 1.0), random.Random(seed))
        if pair[6] == 1
    ]
    assert np.bincount(others, minlength=5) / len(others) == pytest.approx([0.25, 0.25, 0, 0.25, 0.25], abs=0.04)


# --- Data sets --------------------------------------------------------------------------------------------------------


def dataset_of(lengths: Lengths, seed: int = 5) -> Dataset:
    """Documents of random token ids as `load_corpus` gives them."""
    rng = random.Random(seed)
    columns = {
        "input_ids": [[rng.randint(5, 80) for _ in range(sum(document))] for document in lengths],
        "sentence_lengths": lengths,
    }
    return Dataset.from_dict(columns, features=TOKENS)


@pytest.fixture(scope="module")
def documents() -> Dataset:
    """Thirty documents; every fifth is one sentence, and the third has one of eighty tokens."""
    rng = random.Random(5)
    lengths = [[rng.randint(3, 12) for _ in range(rng.randint(2, 9) if i % 5 else 1)] for i in range(30)]
    lengths[3][1] = 80
    return dataset_of(lengths)


def pairs_of(documents: Dataset, folder: Path, seed: int | None = 1, **how: Any) -> stage_one.SentencePairs:
    """A data set of pairs with the tiny tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return stage_one.SentencePairs(documents, tokenizer, stage_one.Settings(max_length=32, **how), seed)


def test_a_row_by_hand() -> None:
    """With and without a B."""
    row = stage_one.pair_row([7, 8], [9], cls=2, sep=3)
    assert row["input_ids"].tolist() == [2, 7, 8, 3, 9, 3]
    assert row["token_type_ids"].tolist() == [0, 0, 0, 0, 1, 1]
    alone = stage_one.pair_row([7, 8], (), cls=2, sep=3)
    assert alone["input_ids"].tolist() == [2, 7, 8, 3]
    assert alone["token_type_ids"].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("alone", [False, True])
def test_rows_have_berts_form(documents: Dataset, tiny_folder: Path, alone: bool) -> None:
    """[CLS] A [SEP] is segment 0, B [SEP] segment 1; as long as it says; and the tokens are the documents' own."""
    pairs = pairs_of(documents, tiny_folder, no_next_sentence=alone)
    texts = documents["input_ids"]
    for i, (a, i_start, i_stop, b, k_start, k_stop, label, _) in enumerate(pairs.plan.tolist()):
        row = pairs[i]
        ids, types = row["input_ids"].tolist(), row["token_type_ids"].tolist()
        first, second = texts[a][i_start:i_stop], texts[b][k_start:k_stop]
        assert ids == [2, *first, 3, *([*second, 3] if second else [])]
        assert types == [0] * (len(first) + 2) + [1] * (len(ids) - len(first) - 2)
        assert len(ids) == pairs.lengths[i] <= 32
        assert row["next_sentence_label"] == label
        assert (label == -100) == (not second)
        assert row["is_held_out"] is False
    labelled = pairs.plan["label"] != -100
    assert pairs.has_next_sentences == labelled.any() == (not alone)
    assert not labelled.all()


def test_lone_sentences_have_no_next_sentence(tiny_folder: Path) -> None:
    """A corpus of headlines is trained on masked words alone, and its every token is."""
    pairs = pairs_of(dataset_of([[9]] * 40), tiny_folder)
    assert not pairs.has_next_sentences
    assert sorted(pairs.plan["a_document"].tolist()) == list(range(40))
    assert pairs.lengths.tolist() == [11] * 40


@pytest.mark.parametrize("alone", [False, True])
def test_every_epoch_has_new_rows_and_the_same_count(documents: Dataset, tiny_folder: Path, alone: bool) -> None:
    """Another epoch, another plan, equally long; the same epoch again, the same plan."""
    pairs = pairs_of(documents, tiny_folder, no_next_sentence=alone)
    first, mask_keys = pairs.plan.copy(), {pairs[i]["mask_key"] for i in range(len(pairs))}
    assert len(mask_keys) == len(pairs)
    seen = [first]
    for epoch in (1, 2, 3):
        pairs.set_epoch(epoch)
        assert len(pairs.plan) == len(pairs) == len(first)
        assert not any(np.array_equal(pairs.plan, plan) for plan in seen)
        seen.append(pairs.plan.copy())
        assert mask_keys.isdisjoint(pairs[i]["mask_key"] for i in range(len(pairs)))
        mask_keys |= {pairs[i]["mask_key"] for i in range(len(pairs))}
    assert len({plan["a_document"][0] for plan in seen}) > 1  # not the same documents always come first, and last
    pairs.set_epoch(0)
    assert np.array_equal(pairs.plan, first)


def test_pairs_themselves_are_new(documents: Dataset, tiny_folder: Path) -> None:
    """Not only their order: most of the next epoch's labelled pairs were not in the one before."""
    pairs = pairs_of(documents, tiny_folder)
    first = {tuple(row) for row in pairs.plan.tolist() if row[6] != -100}
    pairs.set_epoch(1)
    second = {tuple(row) for row in pairs.plan.tolist() if row[6] != -100}
    assert len(first & second) < 0.3 * len(first)


def test_another_seed_gives_other_pairs(documents: Dataset, tiny_folder: Path) -> None:
    """And the same one the same, whatever the global generators have been seeded with."""
    set_seed(1)
    plan = pairs_of(documents, tiny_folder, seed=1).plan
    set_seed(2)
    assert np.array_equal(pairs_of(documents, tiny_folder, seed=1).plan, plan)
    other = pairs_of(documents, tiny_folder, seed=2).plan
    assert plan.shape != other.shape or not np.array_equal(plan, other)


def test_held_out_pairs_know_no_seed(documents: Dataset, tiny_folder: Path) -> None:
    """They have draws of their own, the same in every run, and say that they are held out."""
    set_seed(1)
    held_out = pairs_of(documents, tiny_folder, seed=None)
    set_seed(2)
    again = pairs_of(documents, tiny_folder, seed=None)
    assert np.array_equal(held_out.plan, again.plan)
    assert [held_out[i]["mask_key"] for i in range(20)] == [again[i]["mask_key"] for i in range(20)]
    assert held_out[0]["is_held_out"] is True
    trained = pairs_of(documents, tiny_folder).plan
    assert trained.shape != held_out.plan.shape or not np.array_equal(trained, held_out.plan)


@pytest.mark.parametrize("cap", [1, 2, 7, 50])
def test_held_out_pairs_are_capped_evenly(documents: Dataset, tiny_folder: Path, cap: int) -> None:
    """Drawn from end to end at even steps, so no document is preferred; training pairs are not capped."""
    whole = [tuple(row) for row in pairs_of(documents, tiny_folder, seed=None).plan.tolist()]
    capped = pairs_of(documents, tiny_folder, seed=None, max_eval_samples=cap)
    assert len(capped) == len(capped.plan) == len(capped.lengths) == cap < len(whole)
    places = [whole.index(tuple(row)) for row in capped.plan.tolist()]
    steps = np.diff(places)
    assert places[0] == 0
    if cap > 1:
        assert places[-1] == len(whole) - 1
        assert steps.min() >= 1
        assert steps.max() - steps.min() <= 1
    assert len(pairs_of(documents, tiny_folder, max_eval_samples=cap)) > 50


def test_pairs_of_selected_documents(documents: Dataset, tiny_folder: Path) -> None:
    """Documents that were put in another order, as held-out ones are, keep their own sentences and tokens."""
    order = [17, 3, 28, 0, 9]
    columns = {name: [documents[name][i] for i in order] for name in ("input_ids", "sentence_lengths")}
    expected = pairs_of(Dataset.from_dict(columns, features=TOKENS), tiny_folder)
    selected = pairs_of(documents.select(order), tiny_folder)
    assert np.array_equal(selected.plan, expected.plan)
    assert all(np.array_equal(selected[i]["input_ids"], expected[i]["input_ids"]) for i in range(len(expected)))


def row_keys(rows: list[dict[str, Any]]) -> list[tuple[int, ...]]:
    """What a data worker hands on of its rows: their mask keys and tokens."""
    return [(row["mask_key"], *row["input_ids"].tolist()) for row in rows]


def test_a_worker_that_outlives_an_epoch_sees_the_next(documents: Dataset, tiny_folder: Path) -> None:
    """The epoch is shared memory: data workers that were started in epoch 0 give epoch 2's rows when it begins."""
    pairs = pairs_of(documents, tiny_folder)
    loader = torch.utils.data.DataLoader(pairs, 4, num_workers=2, persistent_workers=True, collate_fn=row_keys)
    first = [row for batch in loader for row in batch]
    assert first == row_keys([pairs[i] for i in range(len(pairs))])
    pairs.set_epoch(2)
    assert [row for batch in loader for row in batch] == row_keys([pairs[i] for i in range(len(pairs))]) != first


def test_held_out_pairs_stay_whatever_epoch_is_counted(documents: Dataset, tiny_folder: Path) -> None:
    """Accelerate tells a loader's data set of an epoch at every evaluation; held-out pairs have none."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    pairs = stage_one.SentencePairs(documents, tokenizer, stage_one.Settings(max_length=32), None)
    plan, keys = pairs.plan.copy(), [pairs[i]["mask_key"] for i in range(len(pairs))]
    pairs.set_epoch(3)
    assert np.array_equal(pairs.plan, plan)
    assert [pairs[i]["mask_key"] for i in range(len(pairs))] == keys
