"""What a model of so many positions reads of words that are more: windows that overlap, and documents around them."""

from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np


class Split(Protocol):
    """What is asked of a split of sentences."""

    @property
    def lengths(self) -> np.ndarray:
        """Words of every sentence: int (sentences,)."""

    chosen: np.ndarray  # which sentences get windows: int (chosen,)
    documents: np.ndarray | None  # the number of each sentence's document, ascending: int (sentences,)


class Windows(NamedTuple):
    """What the model reads at once, and which of it each window answers for, as word numbers: int (windows,) each."""

    start: np.ndarray  # the first word that is read
    stop: np.ndarray  # behind the last one
    first: np.ndarray  # the first word that is answered for
    last: np.ndarray  # behind the last one


def sentence_windows(
    starts: np.ndarray, first: int, last: int, room: int, shared: int
) -> list[tuple[int, int, int, int]]:
    """Cover a sentence by windows that overlap, and part the overlaps in their middle.

    Args:
        starts: where each word's pieces start, see Pieces.
        first, last: the sentence's words, the last exclusive.
        room: word pieces of a window; no word has more.
        shared: word pieces that neighbours share, as near as whole words come.

    Returns:
        (start, stop, first, last) a window; every word is answered for by exactly one, and each answers for some.
    """
    covers = []
    start = first
    while True:
        stop = min(int(np.searchsorted(starts, starts[start] + room, side="right")) - 1, last)
        covers.append((start, stop))
        if stop == last:
            break
        # back by what is shared, but not so far that the next word would not fit
        start = int(np.searchsorted(starts, max(starts[stop] - shared, starts[stop + 1] - room)))
    middles = [
        int(np.searchsorted(starts, (starts[behind[0]] + starts[before[1]]) / 2)) for before, behind in pairwise(covers)
    ]
    owns = zip([first, *middles], [*middles, last], strict=True)
    # between very long words a window may show no word more than its neighbours do: nothing would be learned from it
    return [(*cover, *own) for cover, own in zip(covers, owns, strict=True) if own[0] < own[1]]


def plan_windows(starts: np.ndarray, split: Split, room: int, stride: int, context: int) -> Windows:
    """The windows of the sentences that count, each with as much of its document around it as is asked for and fits.

    Args:
        starts: where each word's pieces start, see `sentence_windows`.
        split: words of every sentence, which sentences count, and which are of one document.
        room: word pieces of a window, without [CLS] and [SEP].
        stride: word pieces that windows of one sentence share, half a window at most.
        context: word pieces of the document on each side.
    """
    stops = np.cumsum(split.lengths)
    begins = stops - split.lengths
    rows: list[tuple[int, int, int, int]] = []
    of_sentence: list[int] = []
    for i in split.chosen.tolist():
        first, last = int(begins[i]), int(stops[i])
        if starts[last] - starts[first] <= room:
            rows.append((first, last, first, last))
        else:
            rows += sentence_windows(starts, first, last, room, min(stride, room // 2))
        of_sentence += [i] * (len(rows) - len(of_sentence))
    windows = Windows(*np.array(rows).T)
    if context:
        documents = np.zeros(len(stops), dtype=int) if split.documents is None else split.documents
        first_of = np.searchsorted(documents, documents[of_sentence], side="left")
        last_of = np.searchsorted(documents, documents[of_sentence], side="right") - 1
        # more than a row has room for is no more; a number of any size may have been typed
        windows = widened(windows, starts, begins[first_of], stops[last_of], room, min(context, room))
    return windows


def widened(
    windows: Windows, starts: np.ndarray, document_start: np.ndarray, document_stop: np.ndarray, room: int, context: int
) -> Windows:
    """Let windows read on, on both sides, into their document; what one side does not need the other may take.

    Devlin et al. 2019, section 5.3, did so for CoNLL-2003; Schweter and Akbik 2020, FLERT, say what it gives.

    Args:
        windows: as planned; what they answer for stays.
        starts: see Pieces.
        document_start, document_stop: the words of each window's document: int (windows,).
        room: word pieces of a window.
        context: most word pieces of a side.
    """
    spare = room - (starts[windows.stop] - starts[windows.start])
    left = np.minimum(starts[windows.start] - starts[document_start], context)
    right = np.minimum(starts[document_stop] - starts[windows.stop], context)
    left = np.minimum(left, np.maximum(spare // 2, spare - right))
    right = np.minimum(right, spare - left)
    start = np.searchsorted(starts, starts[windows.start] - left)
    stop = np.searchsorted(starts, starts[windows.stop] + right, side="right") - 1
    return windows._replace(start=start, stop=stop)
