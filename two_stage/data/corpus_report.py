"""What a corpus is made of and where it will disappoint, told before training: words, letter case, copies, warnings."""

import math
import textwrap
from collections.abc import Iterator
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from two_stage.data.corpus import corpus_tokenizer
from two_stage.data.corpus_copies import held_out_texts, leaked_texts, near_duplicates, token_batches
from two_stage.data.vocabulary import count_words, most_fragmented

WIDTH = 100  # columns of the screen

# --- Letter case ------------------------------------------------------------------------------------------------------


def lower_cases(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer makes all letters small, whatever its settings say: its normalizer is tried on "Ab"."""
    normalizer = tokenizer.backend_tokenizer.normalizer
    return normalizer is not None and "A" not in normalizer.normalize_str("Ab")


def letter_case(documents: Dataset, tokenizer: PreTrainedTokenizerBase, most_tokens: int = 200_000) -> float | None:
    """The share of words that have a capital letter, in a random sample of documents that is the same every time.

    Running English text has 0.10 to 0.20, German 0.4.

    Args:
        documents: as `corpus.load_corpus` gives them.
        tokenizer: by which they were tokenized; pieces that go on within a word begin with ##, as BERT's do.
        most_tokens: the size of the sample.

    Returns:
        The share, or None where there is none: the tokenizer lower-cases, or the alphabet has no capitals.
    """
    if lower_cases(tokenizer):
        return None
    pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    is_special = np.isin(np.arange(len(pieces)), tokenizer.all_special_ids)
    is_start = np.array([not piece.startswith("##") for piece in pieces]) | is_special
    bare = [piece.removeprefix("##") for piece in pieces]
    is_cased = np.array([text.isalpha() and text.lower() != text.upper() for text in bare]) & ~is_special
    is_capital = np.array([text != text.lower() for text in bare])
    shuffled = documents.select(np.random.default_rng(0).permutation(len(documents)))
    tokens, _ = next(token_batches(shuffled, most_tokens), (np.array([], np.int32), None))
    tokens = tokens[:most_tokens]
    words = np.flatnonzero(is_start[tokens])
    if not len(words):
        return None
    of_letters = np.logical_and.reduceat(is_cased[tokens], words)
    with_capital = np.logical_or.reduceat(is_capital[tokens], words)
    return float(with_capital[of_letters].mean()) if of_letters.any() else None


# --- Warnings ---------------------------------------------------------------------------------------------------------

# Published domain corpora have 2 to 8 billion tokens (Gururangan et al. 2020, table 1). Below a million there are fewer
# tokens than the texts of a large labelled set have: what they call task-adaptive, and train for 100 epochs.
FEW_TOKENS = 1_000_000
MANY_LONE_SENTENCES = 0.5
MANY_DUPLICATES = 0.3
MANY_UNKNOWN = 0.01  # BERT's vocabularies have every letter of their languages: their own texts have under 0.0001
# Measured with BERT's English vocabulary: English news and reports 1.03 to 1.14; French 1.6, Spanish 1.8, Dutch 2.1,
# German 2.3, Finnish 3.1, Russian 5.1.
MANY_PIECES = 1.5
FEW_CAPITALS, MANY_CAPITALS = 0.02, 0.8  # share of words; English news has 0.10 to 0.21, German text 0.38
# Share of tokens. A pair is gathered until it is full, then cut to fit, so some loss is ordinary: news and reports of
# 21 to 27 tokens a sentence lose 0.07 to 0.08 at --max_length 128, 0.02 to 0.04 at 256, 0.15 to 0.16 at 64.
MUCH_CUT = 0.1
MUCH_PADDING = 0.05  # rows of like length share a step, so ordinary corpora have 0.01


def warnings_of(report: dict[str, Any]) -> list[str]:
    """Where the corpus will disappoint: each warning says what was seen, why that is bad, and what to do.

    Args:
        report: the corpus report; a key that is missing, None or not a number was not measured and warns of nothing.
            With `no_next_sentence` true, nothing is said of next sentences.

    Returns:
        Warnings of one or two lines of the screen each, without line breaks; the gravest kind of flaw first.
    """
    return [*_leak_warnings(report), *_language_warnings(report), *_content_warnings(report), *_row_warnings(report)]


def _measured(report: dict[str, Any], key: str, otherwise: float = 0.0) -> float:
    """A number of the report, or `otherwise` where it was not measured."""
    value = report.get(key)
    return value if isinstance(value, int | float) and math.isfinite(value) else otherwise


def _share(report: dict[str, Any], part: str, whole: str) -> float:
    """One number of the report over another; 0 where either was not measured."""
    return _measured(report, part) / max(_measured(report, whole), 1)


def _leak_warnings(report: dict[str, Any]) -> Iterator[str]:
    """Of labelled texts that stand in the corpus."""
    if leaked := _measured(report, "held_out_texts_leaked"):
        looked_for = _measured(report, "held_out_texts")
        of = f" of {looked_for:,}" if looked_for else ""
        yield (
            f"{leaked:,}{of} held-out texts stand in the corpus word for word, so a comparison with and without stage "
            "one would flatter stage one: take the documents that hold them out."
        )


def _language_warnings(report: dict[str, Any]) -> Iterator[str]:
    """Of text that the checkpoint's vocabulary is not made for."""
    if (unknown := _measured(report, "unknown_share")) > MANY_UNKNOWN:
        yield (
            f"{percent(unknown)} of the words are [UNK], characters that the vocabulary does not have and that no "
            "training can tell apart: take a checkpoint of this alphabet, or clean the text."
        )
    if (pieces := _measured(report, "pieces_per_word")) > MANY_PIECES:
        yield (
            f"{pieces:.2f} pieces a word (English with an English vocabulary: 1.1), so words are learned in splinters: "
            "take a checkpoint of this language or field, or see if the text is damaged."
        )
    capitals = _measured(report, "words_with_capitals", otherwise=0.5)
    if capitals < FEW_CAPITALS:
        yield (
            f"{percent(capitals)} of the words have a capital, but the checkpoint tells A from a and would unlearn "
            "names: take the text as it was before lower-casing, or an uncased checkpoint."
        )
    if capitals > MANY_CAPITALS:
        yield (
            f"{percent(capitals)} of the words have a capital, and the checkpoint, which tells A from a, knows few "
            "such words: take an uncased checkpoint, or write the text in sentence case."
        )


def _content_warnings(report: dict[str, Any]) -> Iterator[str]:
    """Of a corpus that holds little, or little else than copies."""
    tokens = _measured(report, "tokens", otherwise=math.inf)
    if tokens < FEW_TOKENS and "streamed_sample" not in report:
        yield (
            f"{tokens:,} tokens are few: domains are learned from billions, and this is at best a task's own text. "
            "Collect more, or go over it many times (100 epochs, Gururangan et al. 2020)."
        )
    kept, copies = _measured(report, "documents"), _measured(report, "duplicate_documents")
    twins = kept * _share(report, "near_duplicate_documents", "near_duplicates_compared")
    if (share := (copies + twins) / max(kept + copies, 1)) > MANY_DUPLICATES:
        yield (
            f"{percent(share)} of the documents repeat another, word for word or nearly, so there is less to learn "
            "than the size says, and it is learned by heart: keep one of each, or take out templates."
        )


def _row_warnings(report: dict[str, Any]) -> Iterator[str]:
    """Of documents and sentences that make poor rows."""
    alone = _share(report, "one_sentence_documents", "documents")
    if alone > MANY_LONE_SENTENCES and not report.get("no_next_sentence"):
        yield (
            f"{percent(alone)} of the documents are one sentence, which has no next one to learn from: set "
            "--no_next_sentence, or, if they are longer, see that their sentences are split."
        )
    if (cut := _measured(report, "truncation_share")) > MUCH_CUT:
        yield (
            f"{percent(cut)} of the tokens are cut off, because sentences are long beside the rows, and go to waste: "
            "raise --max_length, or see that the sentences are split (in a .txt, one a line)."
        )
    if (padding := _measured(report, "padding_share")) > MUCH_PADDING:
        yield (
            f"{percent(padding)} of each batch is padding, and that share of the time is lost: batches of fewer rows "
            "hold rows of like length; lower the batch size and raise --gradient_accumulation_steps."
        )


# --- The table for the screen -----------------------------------------------------------------------------------------


def percent(share: float) -> str:
    """0.1234 → "12.3 %"; what is more than nothing and less than 0.05 % is "< 0.1 %"."""
    return "< 0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"


# group → key → what it is called
TABLE = {
    "corpus": {
        "streamed_sample": "first of the stream",
        "documents": "documents",
        "sentences": "sentences",
        "tokens": "tokens",
        "one_sentence_documents": "documents of one sentence",
    },
    "words": {
        "pieces_per_word": "pieces a word",
        "unknown_share": "unknown words",
        "words_with_capitals": "words with a capital",
        "new_words": "new words",
    },
    "pairs": {
        "pairs": "pairs an epoch",
        "tokens_a_pair": "tokens a pair",
        "random_next_share": "random next sentences",
        "no_next_share": "rows without a next",
        "truncation_share": "tokens cut off",
        "padding_share": "padding",
    },
    "duplicates": {
        "duplicate_documents": "exact copies, dropped",
        "near_duplicate_documents": "near duplicates",
        "near_duplicates_compared": "documents compared",
    },
    "leakage": {"held_out_texts": "held-out texts", "held_out_texts_leaked": "of them in the corpus"},
    "plan": {
        "rows_a_step": "pairs a step",
        "steps_an_epoch": "steps an epoch",
        "steps": "steps",
        "train_tokens": "tokens to train on",
        "seconds_a_step": "seconds a step",
        "hours": "hours",
        "memory_gb": "memory, GB",
    },
}
SHARES = {"words_with_capitals"}  # and every key that ends in _share


def report_lines(report: dict[str, Any]) -> str:
    """The corpus report as a table of at most 100 columns, two numbers a line, and the warnings under it.

    Args:
        report: the corpus report. What is missing or None is left out; a number of a key that is not known here is
            shown last under the key's own name; of lists, only `fragmented_words` ([word, count, pieces]) is shown.

    Returns:
        The text, lines parted by line breaks, none at the end.
    """
    known = {key for names in TABLE.values() for key in names}
    rest = {key: key.replace("_", " ") for key in report if key not in known}
    lines = []
    for group, names in {**TABLE, "other": rest}.items():
        cells = [
            f"{name:<26}{_spoken(key, report[key]):>13}" for key, name in names.items() if _is_shown(report.get(key))
        ]
        for i in range(0, len(cells), 2):
            lines.append(f"{group if i == 0 else '':<12}{'     '.join(cells[i : i + 2])}")
    if words := report.get("fragmented_words"):
        shown = ", ".join(f"{word} {count:,} × {pieces} pieces" for word, count, pieces in words)
        lines.append(textwrap.shorten(f"most broken words: {shown}", WIDTH, placeholder=" …"))
    for warning in warnings_of(report):
        lines += textwrap.wrap(warning, WIDTH, initial_indent="! ", subsequent_indent="  ")
    return "\n".join(lines)


def _is_shown(value: Any) -> bool:
    """Whether a value of the report is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _spoken(key: str, value: float) -> str:
    """A number as the table has it: shares as percentages, thousands parted, two digits behind the point."""
    if key in SHARES or key.endswith("_share"):
        return percent(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.2f}" if value >= 0.1 else f"{value:.2g}"


# --- All that documents alone tell ------------------------------------------------------------------------------------


def describe_documents(
    documents: Dataset, tokenizer: PreTrainedTokenizerBase, held_out_files: list[str], text_column: str
) -> dict[str, Any]:
    """The part of the report that needs no pairs: twins, words, capitals, leaked texts.

    Args:
        documents: with columns `input_ids` and `sentence_lengths`.
        tokenizer: theirs.
        held_out_files: labelled files whose texts are looked for; none may be given.
        text_column: where they have their text.

    Returns:
        Numbers by the names of TABLE, and `fragmented_words`: [word, occurrences, pieces] each.

    Raises:
        Refusal: a labelled file that cannot be read.
    """
    words, near = count_words(documents, tokenizer), near_duplicates(documents)
    report = {
        "near_duplicate_documents": near.found,
        "near_duplicates_compared": near.compared,
        "pieces_per_word": words.pieces_per_word,
        "unknown_share": words.unknown_share,
        "words_with_capitals": letter_case(documents, tokenizer),
        "fragmented_words": [
            [word.word, word.occurrences, len(word.pieces)] for word in most_fragmented(words, tokenizer, 20)
        ],
    }
    if held_out_files:
        texts = held_out_texts(held_out_files, text_column)
        encoded = corpus_tokenizer(tokenizer).encode_batch(texts, add_special_tokens=False)
        leak = leaked_texts(documents, [text.ids for text in encoded])
        report |= {"held_out_texts": leak.looked_for, "held_out_texts_leaked": leak.found}
    return report
