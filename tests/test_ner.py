"""Words and word pieces: every word keeps its tag, and every word gets one prediction."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

import run_ner

WORDS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12) | st.sampled_from(
    ["profit", "U.S.", "3,5%", "\u200b", "\u00ad", "ﬁrm", "東京", "e\u0301", " ", "[SEP]", "x" * 200]
)
SENTENCES = st.lists(st.lists(WORDS, min_size=1, max_size=8), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def tokenizer(tiny_folder: Path) -> PreTrainedTokenizerBase:
    """The tiny checkpoint's."""
    return AutoTokenizer.from_pretrained(tiny_folder)


def naive_rows(
    words: list[str], tags: list[int], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> tuple[list[int], list[int], list[int]]:
    """Word by word: its pieces alone, the tag on the first one, until the row is full."""
    ids, labels, first = [tokenizer.cls_token_id], [-100], []
    for word, tag in zip(words, tags, strict=True):
        pieces = tokenizer([word], is_split_into_words=True, add_special_tokens=False, verbose=False)["input_ids"]
        room = max(max_length - 1 - len(ids), 0)
        first.append(len(ids) if pieces and room else -1)
        ids += pieces[:room]
        labels += ([tag] + [-100] * (len(pieces) - 1))[: min(room, len(pieces))]
    return [*ids, tokenizer.sep_token_id], [*labels, -100], first


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sentences=SENTENCES, max_length=st.integers(8, 40), seed=st.integers(0, 99))
def test_alignment_equals_the_naive_twin(
    sentences: list[list[str]], max_length: int, seed: int, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Ids, labels and first pieces are those of going word by word, odd Unicode and cut rows included."""
    rng = np.random.default_rng(seed)
    tags = [rng.integers(0, 5, len(words)).tolist() for words in sentences]
    rows = run_ner.align_labels(sentences, tags, tokenizer, max_length)
    for row, words, given_tags in zip(rows, sentences, tags, strict=True):
        ids, labels, first = naive_rows(words, given_tags, tokenizer, max_length)
        assert (row["input_ids"], row["labels"], row["word_tokens"]) == (ids, labels, first)


def test_words_that_the_model_cannot_read_are_predicted_o(tokenizer: PreTrainedTokenizerBase) -> None:
    """Behind the limit, or without a word piece: O, so that a lost entity counts as missed."""
    words = [["profit", "\u200b", "rose", *["loss"] * 10]]
    rows = run_ner.align_labels(words, [[1] * 13], tokenizer, 8)
    results = np.ones((1, 1 + 8))  # the row's loss, then label 1 for every piece
    tags = run_ner.word_tags(results, rows, ["O", "B-ORG"])
    assert tags == [["B-ORG", "O", "B-ORG", *["B-ORG"] * 4, *["O"] * 6]]
    split = run_ner.Sentences(words, [["B-ORG"] * 13], rows)
    assert "7 words lie behind --max_length or have no word piece" in run_ner.split_line("test", split)


def test_labels_have_one_order(tokenizer: PreTrainedTokenizerBase) -> None:
    """O, then B- and I- of each type by name, also where a type has no I- in the file."""
    assert run_ner.tag_names([["B-PER", "O"], ["B-LOC", "I-LOC"]], ["a row 1", "a row 2"]) == [
        "O",
        "B-LOC",
        "I-LOC",
        "B-PER",
        "I-PER",
    ]


def test_label_smoothing_counts_labelled_words_alone() -> None:
    """Two words of two tags, smoothed by 0.2: 0.9 of one and 0.1 of the other; a piece without a label adds nothing."""
    trainer = SimpleNamespace(args=SimpleNamespace(label_smoothing_factor=0.2))
    logits = torch.tensor([[[math.log(3.0), 0.0], [0.0, 0.0], [5.0, -5.0]]])
    labels = torch.tensor([[0, 1, run_ner.NO_LABEL]])
    expected = -0.9 * math.log(0.75) - 0.1 * math.log(0.25) + math.log(2)
    assert run_ner.NerTrainer.sentence_losses(trainer, logits, labels).tolist() == pytest.approx([expected])
