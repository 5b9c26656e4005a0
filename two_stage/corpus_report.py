"""What a corpus is made of and where it will disappoint, told before training: twins, leaked test texts, warnings."""

import math
import textwrap
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset
from datasets.utils import tqdm
from transformers import PreTrainedTokenizerBase

from two_stage.corpus import corpus_tokenizer
from two_stage.exits import Refusal
from two_stage.tables import PlacedRow, broken_text, check_files, read_rows, text_value
from two_stage.vocabulary import count_words, most_fragmented

LABELLED_FORMATS = ("csv", "tsv", "jsonl", "parquet", "conll", "bio")
WIDTH = 100  # columns of the screen

# --- Runs of tokens, hashed -------------------------------------------------------------------------------------------

BATCH_TOKENS = 1_000_000  # 4 MB of ids and, while they are hashed, 8 MB a temporary array


def token_batches(documents: Dataset, most_tokens: int = BATCH_TOKENS) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The tokens of whole documents, laid end to end, some documents at a time.

    Args:
        documents: with a column `input_ids`.
        most_tokens: a batch is given out once it has so many. It is longer by less than 64 documents.

    Yields:
        tokens, int32 (tokens,), and offsets, int64 (documents + 1,): document d is tokens[offsets[d] : offsets[d + 1]].
    """
    parts: list[np.ndarray] = []
    lengths: list[np.ndarray] = []
    count = 0
    for table in documents.with_format("arrow", columns=["input_ids"]).iter(batch_size=64):
        rows = table["input_ids"].combine_chunks()
        parts.append(rows.flatten().to_numpy(zero_copy_only=False))
        lengths.append(rows.value_lengths().to_numpy(zero_copy_only=False))
        count += len(parts[-1])
        if count >= most_tokens:
            yield np.concatenate(parts), np.concatenate([[0], *lengths]).cumsum()
            parts, lengths, count = [], [], 0
    if parts:
        yield np.concatenate(parts), np.concatenate([[0], *lengths]).cumsum()


def gram_hashes(tokens: np.ndarray, size: int) -> np.ndarray:
    """A 64-bit hash of each run of `size` tokens: a polynomial that wraps around (Karp and Rabin 1987).

    The upper bits depend on every token of the run, so they can be taken alone.

    Args:
        tokens: ids, int (tokens,).
        size: tokens a run, at least 1.

    Returns:
        uint64 (tokens - size + 1,), or none where there are fewer tokens than `size`.
    """
    count = max(len(tokens) - size + 1, 0)
    wide, hashes = tokens.astype(np.uint64), np.full(count, size, dtype=np.uint64)
    for i in range(size):
        hashes += wide[i : i + count]
        hashes *= np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: odd, so that nothing is lost
    return hashes


# --- Near duplicates --------------------------------------------------------------------------------------------------

SHINGLE = 5  # tokens; three or four that two texts share may be chance, five are copied
LIKENESS = 0.8  # Jaccard; in a text of 100 tokens two changed words
BANDS, BAND_ROWS = 21, 6  # a pair at 0.8 meets in a band with chance 1 - (1 - 0.8^6)^21 = 99.8 %, one at 0.3 with 1.5 %
LIKENESS_ERROR = (LIKENESS * (1 - LIKENESS) / (BANDS * BAND_ROWS)) ** 0.5  # of MinHash's guess: 0.036


class NearDuplicates(NamedTuple):
    """How many documents nearly repeat an earlier one."""

    compared: int  # documents looked at: all, or a random sample
    found: int  # of them, how many nearly repeat an earlier one that itself repeats none
    threshold: float  # Jaccard likeness from which two documents count as twins
    documents: int  # in the corpus; more than `compared` says that this is a sample, where many a twin is not drawn


def near_duplicates(documents: Dataset, limit: int = 20_000) -> NearDuplicates:
    """Count the documents that a de-duplication would drop: those with an earlier twin that is kept.

    Likeness is Jaccard's, over the sets of 5-token runs. MinHash (Broder 1997) in bands (datasketch's MinHashLSH)
    finds candidates; the likest eight are compared exactly, so what is counted is a twin. A document shorter than five
    tokens is one run. One changed word changes five runs, so of a text under 50 tokens it makes no twin.

    Args:
        documents: as `corpus.load_corpus` gives them.
        limit: documents to compare; of more, a sample that is the same every time. What is found in a sample is a
            lower bound: a document counts only if its twin was drawn with it.

    Returns:
        The counts. Memory is a few kilobytes a document compared.
    """
    from datasketch import MinHash, MinHashLSH

    count = len(documents)
    if count > limit:
        documents = documents.select(np.sort(np.random.default_rng(0).permutation(count)[:limit]))
    rows = documents.with_format("numpy", columns=["input_ids"])
    index = MinHashLSH(num_perm=BANDS * BAND_ROWS, params=(BANDS, BAND_ROWS))
    minhash = MinHash(BANDS * BAND_ROWS, hashfunc=int)  # the shingles are hashed already
    signatures = _signatures(documents, minhash)
    found = 0
    for number in np.flatnonzero(_meets_another(signatures)).tolist():
        shingles, minhash.hashvalues = _shingles(rows[number]["input_ids"]), signatures[number]
        candidates = np.array(index.query(minhash), dtype=np.int64)
        likeness = (signatures[candidates] == signatures[number]).mean(axis=1)
        # not all: of a template there may be thousands, each somewhat like this one
        likest = [i for i in np.lexsort((candidates, -likeness))[:8] if likeness[i] > LIKENESS - 3 * LIKENESS_ERROR]
        if any(_jaccard(shingles, _shingles(rows[int(candidates[i])]["input_ids"])) >= LIKENESS for i in likest):
            found += 1
        else:  # a twin is not indexed: of ten thousand copies, each is compared with the first alone
            index.insert(number, minhash, check_duplication=False)
    return NearDuplicates(len(documents), found, LIKENESS, count)


def _signatures(documents: Dataset, minhash: Any) -> np.ndarray:
    """Each document's, by datasketch's `minhash`, which they share: uint32 (documents, BANDS * BAND_ROWS)."""
    signatures = np.tile(minhash.hashvalues, (len(documents), 1))
    number = 0
    with tqdm(total=len(documents), desc="Looking for near duplicates", delay=2) as progress:
        for tokens, offsets in token_batches(documents):
            hashes = gram_hashes(tokens, SHINGLE)  # of runs across two documents too, which nobody takes
            for start, stop in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
                is_short = stop - start < SHINGLE
                shingles = _shingles(tokens[start:stop]) if is_short else hashes[start : stop - SHINGLE + 1]
                minhash.clear()
                for i in range(0, len(shingles), 10_000):  # each hashed 126 ways: 5 MB a temporary array
                    minhash.update_batch((shingles[i : i + 10_000] >> np.uint64(32)).tolist())
                signatures[number] = minhash.hashvalues
                number += 1
            progress.update(len(offsets) - 1)
    return signatures


def _meets_another(signatures: np.ndarray) -> np.ndarray:
    """Whether a document has a band like another's: bool (documents,). No other can be anybody's candidate."""
    multipliers = np.random.default_rng(0).integers(2**64, size=BAND_ROWS, dtype=np.uint64)
    meets = np.zeros(len(signatures), dtype=bool)
    for band in np.split(signatures.astype(np.uint64), BANDS, axis=1):
        # by a hash of 64 bits: bands alike have the same, and of others hardly two
        _, which, uses = np.unique(band @ multipliers, return_inverse=True, return_counts=True)
        meets |= uses[which] > 1
    return meets


def _shingles(tokens: np.ndarray) -> np.ndarray:
    """The hashes of a document's set of 5-token runs, ascending: uint64 (runs,)."""
    return np.unique(gram_hashes(tokens, max(min(SHINGLE, len(tokens)), 1)))


def _jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """What two sets share, over what they have together; 0 for two empty sets."""
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / max(len(a) + len(b) - shared, 1)


# --- Held-out texts in the corpus -------------------------------------------------------------------------------------


class Leak(NamedTuple):
    """Which labelled texts stand word for word in the corpus."""

    looked_for: int  # texts that are long enough to be no chance
    found: int
    indices: list[int]  # of those found, ascending, as the caller's list counts them


def leaked_texts(documents: Dataset, texts: list[list[int]], shortest: int = 6) -> Leak:
    """Find labelled texts that occur in a document, all their tokens in a row, across sentence borders too.

    The first `shortest` tokens of each text are looked up among all runs of the corpus by a rolling hash (Karp and
    Rabin 1987), and the whole text is compared where they are found. One pass; memory does not grow with the corpus.

    Args:
        documents: as `corpus.load_corpus` gives them.
        texts: token ids by the same tokenizer, no special tokens.
        shortest: tokens; a shorter text ("Sales rose.") is not looked for, it would be found by chance. So may some be
            that are little longer: of 4,818 news sentences of the 2000s, newswire of 1987 has 8, of 6 to 9 tokens.

    Returns:
        The counts, and which.
    """
    # the hash of a text's beginning → its length → its bytes → where it stands in `texts`
    wanted: dict[int, dict[int, dict[bytes, list[int]]]] = {}
    for number, text in enumerate(texts):
        if len(text) >= shortest:
            ids = np.array(text, dtype=np.int32)
            beginning = int(gram_hashes(ids[:shortest], shortest)[0])
            wanted.setdefault(beginning, {}).setdefault(len(ids), {}).setdefault(ids.tobytes(), []).append(number)
    beginnings = np.array(sorted(wanted), dtype=np.uint64)
    is_likely = np.zeros(2**20, dtype=bool)  # by the upper 20 bits: fits a cache, and rules out most runs
    is_likely[beginnings >> np.uint64(44)] = True
    found: list[int] = []
    with tqdm(total=len(documents), desc="Looking for held-out texts", delay=2) as progress:
        for tokens, offsets in token_batches(documents) if wanted else ():
            hashes = gram_hashes(tokens.astype(np.int32, copy=False), shortest)
            places = np.flatnonzero(is_likely[hashes >> np.uint64(44)])
            places = places[np.isin(hashes[places], beginnings)]
            stops = offsets[np.searchsorted(offsets, places, side="right")]  # a text ends before its document does
            for place, stop in zip(places.tolist(), stops.tolist(), strict=True):
                for length, by_bytes in wanted[int(hashes[place])].items():
                    if place + length <= stop:
                        found += by_bytes.pop(tokens[place : place + length].tobytes(), [])
            progress.update(len(offsets) - 1)
    return Leak(sum(len(text) >= shortest for text in texts), len(found), sorted(found))


def held_out_texts(files: list[str], text_column: str) -> list[str]:
    """The texts of labelled files, of both kinds that stage two reads.

    Args:
        files: .csv, .tsv, .jsonl, .parquet or .conll, packed or not, as tables.read_rows takes them.
        text_column: where a row has its text; a row without it may have a list `tokens`, which is joined by spaces.

    Returns:
        One text a row, in the files' order.

    Raises:
        Refusal: a file that is missing or cannot be read, a row with neither, or a text that is empty or broken.
    """
    check_files(files, LABELLED_FORMATS)
    texts = [_row_text(row, text_column) for file in files for row in read_rows(file)]
    if files and not texts:
        raise Refusal(f"{', '.join(files)}: no row in it, so nothing to look for in the corpus")
    return texts


def _row_text(row: PlacedRow, text_column: str) -> str:
    """The text of a labelled row, or its words joined; a Refusal where there is neither."""
    place, values = row
    words = values.get("tokens")
    if text_column not in values and "text" in values:  # the corpus may call its column otherwise
        return text_value(row, "text", "text_column")
    if text_column in values or not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        return text_value(row, text_column, "text_column")
    text = " ".join(words)
    if broken_text(text):
        raise Refusal(f"{place}: column tokens holds half of a character (a lone surrogate); mend the text")
    return text


# --- Letter case ------------------------------------------------------------------------------------------------------


def lower_cases(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer makes all letters small, whatever its settings say: its normalizer is tried on "Ab"."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:  # a tokenizer in Python
        return bool(getattr(tokenizer, "do_lower_case", False))
    return backend.normalizer is not None and "A" not in backend.normalizer.normalize_str("Ab")


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
            f"{percent(unknown)} of the tokens are [UNK], characters that the vocabulary does not have and that no "
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
        "unknown_share": "unknown tokens",
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
