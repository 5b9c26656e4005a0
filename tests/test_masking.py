"""Masks: drawn row by row from the row's key, exactly 15 % of the tokens, 80/10/10, never a special token."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import (
    AutoTokenizer,
    BertTokenizer,
    DataCollatorForLanguageModeling,
    PreTrainedTokenizerBase,
    set_seed,
)

import run_pretraining as stage_one
from two_stage.command_line.exits import Refusal

QUICK = settings(deadline=None)
UNK, CLS, SEP, MASK = 1, 2, 3, 4
WORD, PIECE = 90, 50  # a whole word and a ## piece of the tiny vocabulary

# Ids of A and of B: whole words, ## pieces and [UNK], as many ## pieces as words; an A has a token, a B may have none
ids = st.one_of(st.integers(5, 44), st.integers(45, 84), st.integers(45, 84), st.integers(85, 115), st.just(UNK))
segments = st.tuples(st.lists(ids, min_size=1, max_size=40), st.lists(ids, max_size=40))


@pytest.fixture(scope="module")
def tokenizer(tiny_folder: Path) -> PreTrainedTokenizerBase:
    """The tiny tokenizer."""
    return AutoTokenizer.from_pretrained(tiny_folder)


@pytest.fixture(scope="module")
def collator(tokenizer: PreTrainedTokenizerBase) -> stage_one.RowKeyedMasking:
    """The product's collator, piece by piece."""
    return stage_one.RowKeyedMasking(tokenizer, mlm_probability=0.15)


@pytest.fixture(scope="module")
def by_words(tokenizer: PreTrainedTokenizerBase) -> stage_one.RowKeyedMasking:
    """The product's collator, by whole words."""
    return stage_one.RowKeyedMasking(tokenizer, mlm_probability=0.15, whole_words=True)


def row_of(a: list[int], b: list[int], key: int = 1, held_out: bool = False) -> dict[str, Any]:
    """A row as SentencePairs gives it."""
    row = stage_one.pair_row(a, b, CLS, SEP)
    return {**row, "next_sentence_label": 0 if b else -100, "mask_key": key, "is_held_out": held_out}


def made_up_rows(count: int, seed: int = 0, held_out: bool = False) -> list[dict[str, Any]]:
    """Rows of several lengths, every third without a B, half of their pieces ## pieces."""
    rng, rows = np.random.default_rng(seed), []
    for i in range(count):
        a = rng.integers(5, 85, rng.integers(4, 20)).tolist()
        b = rng.integers(5, 85, 9).tolist() if i % 3 else []
        rows.append(row_of(a, b, 2**63 + i, held_out))
    return rows


def masked_places(collator: stage_one.RowKeyedMasking, row: dict[str, Any]) -> list[int]:
    """Where a row is to be predicted."""
    return collator([row])["labels"][0].ne(-100).nonzero()[:, 0].tolist()


def budget_of(row: dict[str, Any], probability: float = 0.15) -> int:
    """How many tokens a row loses: of its length with [CLS] and [SEP], and at least one."""
    return max(1, round(len(row["input_ids"]) * probability))


def naive_words(row: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """The row's words, as positions: a ## piece goes with the piece before it, unless that is a special token."""
    words: list[list[int]] = []
    is_word_before = False
    for place, piece in enumerate(tokenizer.convert_ids_to_tokens(row["input_ids"].tolist())):
        if piece in ("[CLS]", "[SEP]", "[PAD]", "[MASK]"):
            is_word_before = False
        elif piece.startswith("##") and is_word_before:
            words[-1].append(place)
        else:
            words.append([place])
            is_word_before = True
    return words


# --- Which pieces -----------------------------------------------------------------------------------------------------


def test_masks_do_not_know_their_batch(
    collator: stage_one.RowKeyedMasking, by_words: stage_one.RowKeyedMasking
) -> None:
    """A row is masked alike alone, in any batch, and again, whatever the global generators have been seeded with."""
    rows = made_up_rows(12)
    for masking in (collator, by_words):
        set_seed(1)
        together = masking(rows)
        set_seed(2)
        for i, row in enumerate(rows):
            alone, length = masking([row]), len(row["input_ids"])
            for name in ("input_ids", "labels"):
                assert torch.equal(together[name][i, :length], alone[name][0])
        assert torch.equal(together["labels"], masking(rows)["labels"])


def test_another_key_gives_another_mask(collator: stage_one.RowKeyedMasking) -> None:
    """The key, and nothing else, decides."""
    row = made_up_rows(1)[0]
    masks = {tuple(masked_places(collator, {**row, "mask_key": key})) for key in range(20)}
    assert len(masks) > 10


def test_padding_is_masked_out(collator: stage_one.RowKeyedMasking) -> None:
    """Padding has attention 0, type 0, label -100, and the rows are as given where nothing is masked."""
    rows = made_up_rows(8)
    before = [row["input_ids"].copy() for row in rows]
    batch = collator(rows)
    longest = batch["labels"].shape[1]
    assert batch["next_sentence_label"].tolist() == [row["next_sentence_label"] for row in rows]
    for i, row in enumerate(rows):
        assert np.array_equal(row["input_ids"], before[i])  # the data set's own array is not written to
        ids = torch.from_numpy(row["input_ids"])
        types = [*row["token_type_ids"].tolist(), *[0] * (longest - len(ids))]
        assert batch["token_type_ids"][i].tolist() == types
        assert batch["attention_mask"][i].tolist() == [1] * len(ids) + [0] * (longest - len(ids))
        assert batch["labels"][i, len(ids) :].eq(-100).all()
        assert batch["input_ids"][i, len(ids) :].eq(0).all()
        kept = batch["labels"][i, : len(ids)] == -100
        assert torch.equal(batch["input_ids"][i, : len(ids)][kept], ids[kept])
        assert torch.equal(batch["labels"][i, : len(ids)][~kept], ids[~kept])


@QUICK
@given(segments=segments, key=st.integers(0, 2**64 - 1), probability=st.sampled_from([0.0, 0.01, 0.15, 0.4, 1.0]))
@example(segments=([WORD], []), key=1, probability=0.15)
@example(segments=([UNK], []), key=1, probability=0.15)
@example(segments=([WORD] * 7, []), key=1, probability=0.5)  # 4.5 of 9 tokens
def test_a_row_loses_an_exact_count(
    segments: tuple[list[int], list[int]], key: int, probability: float, collator: stage_one.RowKeyedMasking
) -> None:
    """The rounded share of all its tokens, at least one, and no more than there are; never [CLS] or [SEP]."""
    row = row_of(*segments, key)
    collator = stage_one.RowKeyedMasking(collator.tokenizer, mlm_probability=probability)
    places = masked_places(collator, row)
    pieces = len(row["input_ids"]) - 2 - (len(segments[1]) > 0)
    assert len(places) == min(budget_of(row, probability), pieces) >= 1
    assert not {CLS, SEP} & set(row["input_ids"][places].tolist())


@pytest.mark.parametrize("whole_words", [False, True])
@pytest.mark.parametrize("text", [[MASK], [SEP, MASK], [0]])
def test_a_row_of_special_tokens_loses_nothing(
    tokenizer: PreTrainedTokenizerBase, whole_words: bool, text: list[int]
) -> None:
    """Texts can spell [MASK]; such a row has nothing to predict, and is no error."""
    masking = stage_one.RowKeyedMasking(tokenizer, mlm_probability=0.15, whole_words=whole_words)
    batch = masking([row_of(text, []), row_of([WORD], [])])
    assert batch["labels"][0].eq(-100).all()
    assert batch["masked_positions"].tolist() == [len(batch["labels"][0]) + 1]


@pytest.mark.slow
def test_every_piece_is_as_likely(collator: stage_one.RowKeyedMasking) -> None:
    """[UNK] too: over 3,000 rows of twenty tokens each of the seventeen pieces has its chance of 3 / 17."""
    rows = [row_of([UNK, *[WORD] * 8], [PIECE, *[WORD] * 7], key) for key in range(3000)]
    shares = collator(rows)["labels"].ne(-100).float().mean(0)
    special = torch.tensor([0, 10, 19])
    assert shares[special].eq(0).all()
    others = np.delete(shares.numpy(), special)
    assert others == pytest.approx(3 / 17, abs=0.035)  # five standard deviations


# --- Whole words ------------------------------------------------------------------------------------------------------


@QUICK
@given(segments=segments, key=st.integers(0, 2**64 - 1), probability=st.sampled_from([0.01, 0.15, 0.4, 1.0]))
@example(segments=([WORD, PIECE, PIECE, PIECE], []), key=1, probability=0.15)  # one word, four times the budget
@example(segments=([WORD], [PIECE, PIECE]), key=1, probability=0.2)  # B begins inside a word
def test_whole_words_equal_the_naive_grouping(
    segments: tuple[list[int], list[int]], key: int, probability: float, tokenizer: PreTrainedTokenizerBase
) -> None:
    """A word is masked whole or not at all; as many as fit the budget, and one alone where none does: the shortest."""
    masking = stage_one.RowKeyedMasking(tokenizer, mlm_probability=probability, whole_words=True)
    row = row_of(*segments, key)
    places, words = set(masked_places(masking, row)), naive_words(row, tokenizer)
    masked = [word for word in words if places & set(word)]
    assert places == {place for word in masked for place in word}
    left = budget_of(row, probability) - len(places)
    if left < 0:
        assert len(masked) == 1
        assert len(masked[0]) == min(map(len, words))
        assert min(map(len, words)) > budget_of(row, probability)
    else:
        assert masked
        assert all(len(word) > left for word in words if word not in masked)


def test_a_word_cut_in_two_does_not_reach_over_sep(by_words: stage_one.RowKeyedMasking) -> None:
    """A's last word, and a B that begins with a ## piece, are two words: either is masked without the other."""
    rows = [row_of([WORD, PIECE], [PIECE, PIECE, WORD], key) for key in range(300)]
    seen = {tuple(masked_places(by_words, row)) for row in rows}
    assert seen == {(6,)}  # 15 % of eight tokens is one: only the last word fits
    by_third = stage_one.RowKeyedMasking(by_words.tokenizer, mlm_probability=0.25, whole_words=True)
    assert {tuple(masked_places(by_third, row)) for row in rows} == {(1, 2), (4, 5), (6,)}


@pytest.mark.slow
def test_words_are_drawn_evenly(by_words: stage_one.RowKeyedMasking) -> None:
    """In a row of one-piece words every word is as likely, the first and the last among them."""
    rows = [row_of([WORD] * 9, [WORD] * 8, key) for key in range(3000)]
    shares = by_words(rows)["labels"].ne(-100).float().mean(0).numpy()
    assert np.delete(shares, [0, 10, 19]) == pytest.approx(3 / 17, abs=0.035)


def test_a_vocabulary_without_pieces_has_no_whole_words() -> None:
    """Refused rather than masked piece by piece in silence; piece by piece it is taken."""
    words = BertTokenizer(vocab={word: i for i, word in enumerate("[PAD] [UNK] [CLS] [SEP] [MASK] ship".split())})
    with pytest.raises(Refusal, match="no ## pieces"):
        stage_one.RowKeyedMasking(words, mlm_probability=0.15, whole_words=True)
    assert masked_places(stage_one.RowKeyedMasking(words, mlm_probability=0.15), row_of([5], [])) == [1]


# --- What stands there instead ----------------------------------------------------------------------------------------


def replacements(batch: dict[str, torch.Tensor]) -> tuple[float, float]:
    """Of the masked pieces, the share that [MASK] stands for and the share that is left as it was."""
    masked = batch["labels"] != -100
    given, gold = batch["input_ids"][masked], batch["labels"][masked]
    return given.eq(MASK).float().mean().item(), given.eq(gold).float().mean().item()


@pytest.mark.parametrize("whole_words", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_eighty_ten_ten(tokenizer: PreTrainedTokenizerBase, whole_words: bool) -> None:
    """Of 11,000 masked pieces 80 % are [MASK], 10 % kept, 10 % any id of the vocabulary, drawn piece by piece.

    transformers' own collator has the same shares, and none of them by whole words.
    """
    rows = made_up_rows(3000)
    masking = stage_one.RowKeyedMasking(tokenizer, mlm_probability=0.15, whole_words=whole_words)
    batch = masking(rows)
    masked = batch["labels"] != -100
    assert masked.sum() > 5000
    by_chance = 0.1 / len(tokenizer)  # a random id that is [MASK], or the piece that stood there
    assert replacements(batch) == pytest.approx((0.8 + by_chance, 0.1 + by_chance), abs=0.015)
    given, gold = batch["input_ids"][masked], batch["labels"][masked]
    others = given[given.ne(MASK) & given.ne(gold)]
    counts = torch.bincount(others, minlength=len(tokenizer))
    assert len(counts) == len(tokenizer)
    assert counts.gt(0).float().mean() > 0.95  # special ids among them, as in the original
    assert counts.max() < 8 * counts.float().mean()
    if not whole_words:
        stock = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15, seed=1)
        texts = [{"input_ids": row["input_ids"].tolist()} for row in rows]
        assert replacements(batch) == pytest.approx(replacements(stock(texts)), abs=0.02)


@pytest.mark.slow
def test_the_pieces_of_a_word_are_replaced_one_by_one(tokenizer: PreTrainedTokenizerBase) -> None:
    """Of masked words of two pieces 64 % are [MASK] twice; drawn once a word it would be 80 %."""
    masking = stage_one.RowKeyedMasking(tokenizer, mlm_probability=0.15, whole_words=True)
    batch = masking([row_of([WORD, PIECE] * 10, [], key) for key in range(3000)])
    both = batch["input_ids"][batch["labels"] != -100].view(-1, 2).eq(MASK)
    assert len(both) == 3000
    assert both.all(1).float().mean() == pytest.approx(0.64, abs=0.03)


# --- Held-out rows, and what the head is told -------------------------------------------------------------------------


def test_held_out_rows_are_masked_alike_in_every_run(tokenizer: PreTrainedTokenizerBase) -> None:
    """15 %, piece by piece, whatever training does."""
    rows = made_up_rows(40, held_out=True)
    batches = [
        stage_one.RowKeyedMasking(tokenizer, mlm_probability=probability, whole_words=whole_words)(rows)
        for probability, whole_words in ((0.15, False), (0.4, True), (0.05, False))
    ]
    for batch in batches[1:]:
        assert all(torch.equal(batch[name], batches[0][name]) for name in batch)
    for row, labels in zip(rows, batches[0]["labels"], strict=True):
        assert labels.ne(-100).sum() == budget_of(row)


@QUICK
@given(rows=st.lists(segments, min_size=1, max_size=6), key=st.integers(0, 2**32), whole_words=st.booleans())
def test_masked_positions_are_those_of_the_labels(
    rows: list[tuple[list[int], list[int]]], key: int, whole_words: bool, tokenizer: PreTrainedTokenizerBase
) -> None:
    """They count through rows and columns of the padded batch, in order."""
    masking = stage_one.RowKeyedMasking(tokenizer, mlm_probability=0.15, whole_words=whole_words)
    batch = masking([row_of(*row, key + i) for i, row in enumerate(rows)])
    flat = [label for labels in batch["labels"].tolist() for label in labels]
    assert batch["masked_positions"].tolist() == [place for place, label in enumerate(flat) if label != -100]
    assert batch["masked_positions"].dtype == torch.long
    read = batch["read_positions"]
    assert read[:, 0].eq(0).all()  # [CLS]
    assert read.shape[1] == 1 + batch["labels"].ne(-100).sum(dim=1).max()
    through_rows = torch.arange(len(rows))[:, None] * batch["labels"].shape[1] + read
    assert torch.equal(through_rows.flatten()[batch["masked_reads"]], batch["masked_positions"])


def test_a_vocabulary_with_gaps_is_taken() -> None:
    """A vocab.txt with a word twice leaves an id without a word; rows of the ids around it are masked all the same."""
    words = BertTokenizer(vocab={"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, "ship": 5, "##s": 7})
    for whole_words in (False, True):
        masking = stage_one.RowKeyedMasking(words, mlm_probability=1.0, whole_words=whole_words)
        assert masked_places(masking, row_of([5, 7], [])) == [1, 2]
