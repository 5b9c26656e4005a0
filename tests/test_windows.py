"""Windows over long sentences: every word is answered for once, none is too long, and documents stand around them."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from two_stage.data.windows import Windows, plan_windows, sentence_windows

COUNTS = st.lists(st.integers(1, 9), min_size=1, max_size=40)  # word pieces of each word


def word_starts(counts: list[int]) -> np.ndarray:
    """Where each word's pieces start."""
    return np.concatenate([[0], np.cumsum(counts)])


def naive_windows(counts: list[int], room: int, shared: int) -> list[tuple[int, int, int, int]]:
    """Word by word, with sums instead of searches."""
    covers, start = [], 0
    while True:
        stop = start
        while stop < len(counts) and sum(counts[start : stop + 1]) <= room:
            stop += 1
        covers.append((start, stop))
        if stop == len(counts):
            break
        start = stop
        while (
            start > covers[-1][0] + 1
            and sum(counts[start - 1 : stop]) <= shared
            and sum(counts[start - 1 : stop + 1]) <= room
        ):
            start -= 1
    cuts = [0]
    for (_, stop), (start, _) in pairwise(covers):
        cut = start
        while sum(counts[start:cut]) < sum(counts[cut:stop]):
            cut += 1
        cuts.append(cut)
    cuts.append(len(counts))
    return [(*cover, cuts[i], cuts[i + 1]) for i, cover in enumerate(covers) if cuts[i] < cuts[i + 1]]


@given(counts=COUNTS, room=st.integers(9, 30), shared=st.integers(0, 15), offset=st.integers(0, 5))
def test_windows_equal_the_naive_twin(counts: list[int], room: int, shared: int, offset: int) -> None:
    """Wherever the sentence stands in its split."""
    shared = min(shared, room // 2)
    found = sentence_windows(word_starts([1] * offset + counts + [3]), offset, offset + len(counts), room, shared)
    expected = naive_windows(counts, room, shared)
    assert found == [tuple(number + offset for number in window) for window in expected]


@example(counts=[7, 1, 2, 1, 7], room=10, shared=5)  # the window in the middle has nothing of its own
@given(counts=COUNTS, room=st.integers(9, 30), shared=st.integers(0, 15))
def test_every_word_is_answered_for_once_with_words_around_it(counts: list[int], room: int, shared: int) -> None:
    """No window is too long, and at a cut both sides see half of what is shared, but for the width of a word."""
    shared, starts = min(shared, room // 2), word_starts(counts)
    found = sentence_windows(starts, 0, len(counts), room, shared)
    assert [word for *_, first, last in found for word in range(first, last)] == list(range(len(counts)))
    for start, stop, first, last in found:
        assert start <= first < last <= stop
        assert starts[stop] - starts[start] <= room
    for (_, stop, _, cut), (start, *_) in pairwise(found):
        assert starts[stop] - starts[start] <= shared  # never more
        assert (
            stop == len(counts)
            or starts[stop] - starts[start] > shared - max(counts)
            or starts[stop + 1] - starts[start] > room - max(counts)
        )
        assert abs((starts[stop] - starts[cut]) - (starts[cut] - starts[start])) <= 2 * max(counts)


def split_of(
    lengths: list[int], documents: list[int] | None = None, chosen: list[int] | None = None
) -> SimpleNamespace:
    """A split of sentences of so many words."""
    return SimpleNamespace(
        lengths=np.array(lengths),
        documents=None if documents is None else np.array(documents),
        chosen=np.arange(len(lengths)) if chosen is None else np.array(chosen),
    )


def rows_of(windows: Windows) -> list[tuple[int, ...]]:
    """(start, stop, first, last) of each window."""
    return list(zip(*(column.tolist() for column in windows), strict=True))


def test_context_stays_in_the_document_and_in_the_row() -> None:
    """Sentences of 3, 2, 4 and 2 words of one piece; the third begins another document."""
    split, starts = split_of([3, 2, 4, 2], documents=[0, 0, 1, 1]), np.arange(12)
    assert rows_of(plan_windows(starts, split, room=8, stride=2, context=2)) == [
        (0, 5, 0, 3),  # two words to the right, none to the left
        (1, 5, 3, 5),
        (5, 11, 5, 9),
        (7, 11, 9, 11),
    ]
    # what the left does not need the right may take, and the room bounds both: 4 words of 6 leave one for each side
    assert rows_of(plan_windows(starts, split_of([3, 2, 4, 2]), room=6, stride=2, context=3)) == [
        (0, 6, 0, 3),
        (1, 7, 3, 5),
        (4, 10, 5, 9),
        (6, 11, 9, 11),
    ]


def test_a_context_of_any_size_fills_the_row() -> None:
    """As one of the row's size does."""
    wide = [rows_of(plan_windows(np.arange(12), split_of([3, 2, 4, 2]), 8, 2, context)) for context in (8, 10**30)]
    assert wide[0] == wide[1]


def test_sentences_that_are_left_out_are_still_context() -> None:
    """--max_train_samples takes single sentences; their neighbours are read, and not answered for."""
    windows = plan_windows(np.arange(12), split_of([3, 2, 4, 2], chosen=[1]), room=8, stride=2, context=2)
    assert rows_of(windows) == [(1, 7, 3, 5)]


@given(
    sentences=st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=12), min_size=1, max_size=8),
    room=st.integers(6, 20),
    context=st.integers(0, 12),
    marked=st.booleans(),
    data=st.data(),
)
def test_context_equals_the_naive_twin(
    sentences: list[list[int]], room: int, context: int, marked: bool, data: st.DataObject
) -> None:
    """Word by word outwards, as far as room, context and document allow."""
    documents = sorted(data.draw(st.lists(st.integers(0, 3), min_size=len(sentences), max_size=len(sentences))))
    starts = word_starts([count for sentence in sentences for count in sentence])
    split = split_of([len(sentence) for sentence in sentences], documents if marked else None)
    plain = rows_of(plan_windows(starts, split, room, stride=3, context=0))
    wide = rows_of(plan_windows(starts, split, room, stride=3, context=context))
    ends = np.cumsum(split.lengths)
    for (start, stop, first, last), (left, right, *own) in zip(plain, wide, strict=True):
        assert own == [first, last]
        sentence = int(np.searchsorted(ends, first, side="right"))
        same = [i for i in range(len(sentences)) if not marked or documents[i] == documents[sentence]]
        begin, end = int(ends[same[0]] - split.lengths[same[0]]), int(ends[same[-1]])
        spare = room - int(starts[stop] - starts[start])
        wanted_left, wanted_right = (
            min(context, int(n)) for n in (starts[start] - starts[begin], starts[end] - starts[stop])
        )
        for_left = min(wanted_left, max(spare // 2, spare - wanted_right))
        expected_left, expected_right = start, stop
        while expected_left > begin and starts[start] - starts[expected_left - 1] <= for_left:
            expected_left -= 1
        while expected_right < end and starts[expected_right + 1] - starts[stop] <= min(wanted_right, spare - for_left):
            expected_right += 1
        assert (left, right) == (expected_left, expected_right)


@pytest.mark.parametrize("stride", [0, 4, 1000])
def test_a_stride_is_half_a_window_at_most(stride: int) -> None:
    """100 words in rows of 10: 10 windows without a stride, 16 with one of 4, 19 with half a window."""
    windows = plan_windows(np.arange(101), split_of([100]), room=10, stride=stride, context=0)
    assert len(windows.start) == {0: 10, 4: 16, 1000: 19}[stride]
