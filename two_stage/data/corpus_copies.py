"""Copies in a corpus: documents that nearly repeat an earlier one, and labelled texts that stand in it."""

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset
from datasets.utils import tqdm

from two_stage.command_line.exits import Refusal
from two_stage.data.files import check_files
from two_stage.data.tables import LABELLED_FORMATS, PlacedRow, read_rows, text_value, word_list

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

    compared: int  # documents looked at: all, or a random sample, where many a twin is not drawn
    found: int  # of them, how many nearly repeat an earlier one that itself repeats none


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

    if len(documents) > limit:
        documents = documents.select(np.sort(np.random.default_rng(0).permutation(len(documents))[:limit]))
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
    return NearDuplicates(len(documents), found)


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
    """How many labelled texts stand word for word in the corpus."""

    looked_for: int  # texts that are long enough to be no chance
    found: int


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
        The counts.
    """
    # the hash of a text's beginning → its length → its bytes → how often it stands in `texts`
    wanted: dict[int, dict[int, Counter[bytes]]] = {}
    for text in texts:
        if len(text) >= shortest:
            ids = np.array(text, dtype=np.int32)
            beginning = int(gram_hashes(ids[:shortest], shortest)[0])
            wanted.setdefault(beginning, {}).setdefault(len(ids), Counter())[ids.tobytes()] += 1
    beginnings = np.array(sorted(wanted), dtype=np.uint64)
    is_likely = np.zeros(2**20, dtype=bool)  # by the upper 20 bits: fits a cache, and rules out most runs
    is_likely[beginnings >> np.uint64(44)] = True
    found = 0
    with tqdm(total=len(documents), desc="Looking for held-out texts", delay=2) as progress:
        for tokens, offsets in token_batches(documents) if wanted else ():
            hashes = gram_hashes(tokens.astype(np.int32, copy=False), shortest)
            places = np.flatnonzero(is_likely[hashes >> np.uint64(44)])
            places = places[np.isin(hashes[places], beginnings)]
            stops = offsets[np.searchsorted(offsets, places, side="right")]  # a text ends before its document does
            for place, stop in zip(places.tolist(), stops.tolist(), strict=True):
                for length, by_bytes in wanted[int(hashes[place])].items():
                    if place + length <= stop:
                        found += by_bytes.pop(tokens[place : place + length].tobytes(), 0)
            progress.update(len(offsets) - 1)
    return Leak(sum(len(text) >= shortest for text in texts), found)


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
    """The text of a labelled row as it stands, for so a corpus would have it, else its words joined."""
    # the corpus may call its column otherwise
    column = next((name for name in (text_column, "text") if row[1].get(name) is not None), None)
    if column is None and isinstance(row[1].get("tokens"), list):
        return " ".join(word_list(row, "tokens"))
    return text_value(row, column or text_column, "text_column")
