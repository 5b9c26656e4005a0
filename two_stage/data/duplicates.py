"""Texts that stand in two splits, word for word or nearly, which make a score a lie; and rows at odds over a label."""

import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from datasets.utils import tqdm

from two_stage.command_line.exits import Refusal, say

# --- What counts as the same text -------------------------------------------------------------------------------------

# Of words, pairs of neighbours and the text's two ends. A changed word takes three features away and brings three, so
# of n words one may change where (2n - 2) / (2n + 4) >= 0.8: one in 13, two apart in 27. Numbers count as words do: in
# "Profit rose to EUR 3.1 mn from EUR 2.4 mn in 2008" another company's figures make other news of the same mould.
LIKENESS = 0.8  # Jaccard
FEWEST_WORDS = 4  # of fewer, "Sales: +5 %" and "Sales: -5 %" are the same words; such texts must be equal to be twins

IDEOGRAPHS = "\u3040-\u30ff\u3400-\u9fff"  # with kana: written without spaces, so each is a word, much as for BERT
WORD = re.compile(rf"[{IDEOGRAPHS}]|\d+(?:[.,]\d+)*|[^\W{IDEOGRAPHS}]+")  # "5mn" is 5 and mn, as "5 mn" is


def normalised(text: str) -> str:
    """A text as it is compared: Unicode's NFKC, cases folded, white space squeezed.

    Args:
        text: as it stands in a row.

    Returns:
        A text; exact copies have the same one.
    """
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


class Twin(NamedTuple):
    """A text of one split and the likest text of the splits before it."""

    split: str
    index: int  # type: ignore[assignment]  # of the text in its split; hides tuple.index, which nobody needs here
    other_split: str
    other_index: int
    likeness: float  # at least LIKENESS; 1.0: the same words and pairs, so the same text but for punctuation
    is_exact: bool  # the same text but for letter case, white space and the forms of characters


def twins_across(splits: dict[str, list[str]]) -> list[Twin]:
    """Find the texts that an earlier split has too, word for word or with a word or two changed.

    Near copies are told by Jaccard's likeness over the sets of words and pairs of neighbouring words; order counts,
    punctuation does not. None is missed: candidates are all texts that share one of their rarest features (prefix
    filtering: Chaudhuri et al. 2006, A primitive operator for similarity joins in data cleaning; Bayardo et al. 2007,
    Scaling up all pairs similarity search), and each is then compared in full.

    Args:
        splits: texts by the split's name, the split that is trained on first. Copies within a split are no matter.

    Returns:
        At most one twin a text, in the order of the texts: an exact copy before a near one, then the likest, then the
        first. Memory is some 3 kB a text of 20 words; time grows with how many are cast in one mould.
    """
    texts = [normalised(text) for split in splits.values() for text in split]
    places = [(split, i) for split, rows in splits.items() for i in range(len(rows))]
    sets, word_counts = _feature_sets(texts)
    first_exact: dict[str, int] = {}
    found: dict[int, tuple[int, float, bool]] = {}  # a text → its twin, their likeness, whether it is exact
    start = 0
    for rows in splits.values():
        stop = start + len(rows)
        exact = {i: first_exact[texts[i]] for i in range(start, stop) if texts[i] in first_exact}
        found |= {i: (other, 1.0, True) for i, other in exact.items()}
        new = np.array([i for i in range(start, stop) if i not in exact and word_counts[i] >= FEWEST_WORDS], np.int64)
        # the first of each text alone: a headline that stands a thousand times is compared once
        old = np.array([i for i in first_exact.values() if word_counts[i] >= FEWEST_WORDS], np.int64)
        if len(new) and len(old):
            found |= {i: (other, likeness, False) for i, other, likeness in _likest(sets, new, old)}
        for i in range(start, stop):
            first_exact.setdefault(texts[i], i)
        start = stop
    return [
        Twin(*places[i], *places[other], likeness, is_exact) for i, (other, likeness, is_exact) in sorted(found.items())
    ]


def _feature_sets(texts: list[str]) -> tuple[Any, np.ndarray]:
    """The words and pairs of each text as a sparse 0/1 array (texts, features), rare ones first, and its word count."""
    from scipy.sparse import csr_array

    ids: dict[str, int] = {}
    tokens, counts = array("q", [0]), np.zeros(len(texts), dtype=np.int64)  # 0 stands before, between and behind texts
    for i, text in enumerate(texts):
        found = [ids.setdefault(word, len(ids) + 1) for word in WORD.findall(text)]
        tokens.extend(found)
        tokens.append(0)
        counts[i] = len(found)
    flat, size, rows = np.array(tokens), len(ids) + 1, np.arange(len(texts), dtype=np.int32)
    words, pairs = flat[flat > 0], flat[:-1] * size + flat[1:]
    codes = np.concatenate([pairs, size * size + words])
    _, features, uses = np.unique(codes, return_inverse=True, return_counts=True)
    rank = np.empty(len(uses), dtype=np.int32)
    rank[np.argsort(uses, kind="stable")] = np.arange(len(uses))
    row = np.concatenate([np.repeat(rows, counts + 1), np.repeat(rows, counts)])
    sets = csr_array((np.ones(len(row), dtype=np.int32), (row, rank[features])), shape=(len(texts), len(uses)))
    sets.sum_duplicates()  # sorts each row too
    sets.data[:] = 1
    return sets, counts


COMPARED = 8_000_000  # features of texts that are compared together: some 200 MB at most


def _likest(sets: Any, new: np.ndarray, old: np.ndarray) -> Iterator[tuple[int, int, float]]:
    """Each row of `new` with the likest row of `old`, the first of equals, where there is one near enough."""
    sizes = np.diff(sets.indptr).astype(np.int64)
    # two sets so alike share ceil(LIKENESS * size) features of either: they miss at most the rest, so of the rest and
    # one more, taken in one order, they share at least one
    head = sizes - np.ceil(LIKENESS * sizes - 1e-9).astype(np.int64) + 1
    heads = sets.copy()
    heads.data[np.arange(sets.nnz) - np.repeat(sets.indptr[:-1], sizes) >= np.repeat(head, sizes)] = 0
    heads.eliminate_zeros()
    index = heads[old].T.tocsr()  # feature → the old texts that have it among their rarest
    work = np.cumsum(sizes[new] * (heads[new] @ np.diff(index.indptr).astype(np.int64)))
    cuts = np.flatnonzero(np.diff(work // COMPARED)) + 1
    with tqdm(total=len(new), desc="Looking for texts of two splits", delay=2) as progress:
        for part in np.split(new, cuts):
            met = (heads[part] @ index).tocoo()
            mine, other = part[met.row], old[met.col]
            alike = np.minimum(sizes[mine], sizes[other]) >= LIKENESS * np.maximum(sizes[mine], sizes[other]) - 1e-9
            mine, other = mine[alike], other[alike]
            shared = sets[mine].multiply(sets[other]).sum(axis=1)
            likeness = shared / (sizes[mine] + sizes[other] - shared)
            order = np.lexsort((other, -likeness, mine))
            order = order[likeness[order] >= LIKENESS]
            _, firsts = np.unique(mine[order], return_index=True)
            best = order[firsts]
            yield from zip(mine[best].tolist(), other[best].tolist(), likeness[best].tolist(), strict=True)
            progress.update(len(part))


# --- What is said of them ---------------------------------------------------------------------------------------------

SHOWN = 3  # copies whose places are told


def check_leakage(splits: dict[str, list[str]], places: dict[str, list[str]], allow: bool) -> dict[str, int]:
    """Refuse splits that share texts, or only say so where the user allows it.

    Args:
        splits: texts by the split's name, the split that is trained on first.
        places: of every text where it came from, "train.csv row 12".
        allow: whether --allow_leakage was given.

    Returns:
        For the model card: of each split but the first how many of its texts an earlier one has, "test_exact_copies"
        and "test_near_copies".

    Raises:
        Refusal: counts by pairs of splits, the places of the first copies, and how to mend it.
    """
    twins = twins_across(splits)
    if twins and not allow:
        raise Refusal(f"{_told(twins, places)}; take them out of one split, or go on with --allow_leakage")
    if twins:
        say(f"{_told(twins, places)}; going on by --allow_leakage: scores on them tell what was learnt by heart")
    counts = Counter((twin.split, twin.is_exact) for twin in twins)
    return {
        f"{split}_{kind}_copies": counts[split, kind == "exact"]
        for split in list(splits)[1:]
        for kind in ("exact", "near")
    }


def _told(twins: list[Twin], places: dict[str, list[str]]) -> str:
    """How many copies which splits share, and where the first stand."""
    pairs = dict.fromkeys((twin.split, twin.other_split) for twin in twins)  # in their order, each once
    counts = Counter((twin.split, twin.other_split, twin.is_exact) for twin in twins)
    shares = [f"{a} has {counts[a, b, True]:,} exact and {counts[a, b, False]:,} near copies of {b}" for a, b in pairs]
    shown = [
        f"{places[twin.split][twin.index]} {'is' if twin.is_exact else f'is nearly ({twin.likeness:.2f})'} "
        f"{places[twin.other_split][twin.other_index]}"
        for twin in twins[:SHOWN]
    ]
    more = f" and {len(twins) - SHOWN:,} more" if len(twins) > SHOWN else ""
    return f"texts stand in two splits: {', '.join(shares)}; {', '.join(shown)}{more}"


def conflicting_rows(texts: list[str], labels: list[int]) -> list[tuple[int, int]]:
    """Find rows of one split that have the same text and another label.

    Args:
        texts: one a row; texts are the same if they are so `normalised`.
        labels: as many.

    Returns:
        Indices (first row, later row), ascending by the later one: each row whose label is not that of the first row
        of its text.
    """
    first: dict[str, int] = {}
    pairs = [(first.setdefault(normalised(text), i), i) for i, text in enumerate(texts)]
    return [(i, j) for i, j in pairs if labels[i] != labels[j]]
