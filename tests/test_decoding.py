"""Legal tags and how probable entities are, against all sequences written out, arithmetic by hand and seqeval."""

import itertools
import math
import random
import tracemalloc
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from two_stage.scoring import decoding
from two_stage.scoring.calibration import softmax
from two_stage.scoring.decoding import best_tags, entity_probabilities


def transitions(types: int) -> tuple[np.ndarray, np.ndarray]:
    """Which tags may stand first, (T,), and which behind which, (T, T), written out: [a, b] whether b may follow a."""
    tags = np.arange(1 + 2 * types)
    kind, inside = (tags - 1) // 2, (tags > 0) & (tags % 2 == 0)
    return ~inside, ~inside | (kind[:, None] == kind)


NO, B0, I0, B1, I1 = range(5)

# --- Naive twins ------------------------------------------------------------------------------------------------------


def tag_name(number: int) -> str:
    """The tag as it is written: O, B-0, I-0, B-1 and so on."""
    return "O" if number == 0 else f"{'BI'[(number - 1) % 2]}-{(number - 1) // 2}"


def is_legal(tags: tuple[int, ...]) -> bool:
    """By names: whoever is I- has B- or I- of its type before it."""
    names = ["O", *map(tag_name, tags)]
    return all(b[0] != "I" or (a[0] in "BI" and a[1:] == b[1:]) for a, b in itertools.pairwise(names))


def sequences(words: int, tags: int, constrained: bool) -> Iterator[tuple[int, ...]]:
    """All of them, or all legal ones."""
    every = itertools.product(range(tags), repeat=words)
    return filter(is_legal, every) if constrained else every


def entities_in(tags: tuple[int, ...]) -> set[tuple[int, int, int]]:
    """(start, stop, kind) of each B- and the I- of its type behind it."""
    found = set()
    for start, tag in enumerate(tags):
        if tag % 2:
            stop = start + 1
            while stop < len(tags) and tags[stop] == tag + 1:
                stop += 1
            found.add((start, stop, tag // 2))
    return found


def spans(words: int, types: int) -> list[tuple[int, int, int]]:
    """Every entity that a sentence can hold."""
    return [(a, b, k) for a in range(words) for b in range(a + 1, words + 1) for k in range(types)]


def by_counting(logits: np.ndarray, constrained: bool) -> list[float]:
    """Each span's probability in one sentence: the weight of the sequences that hold it over the weight of all."""
    words, tags = logits.shape
    rows = (logits - logits.max(axis=1, keepdims=True)).tolist()
    totals = {
        tags: math.fsum(row[tag] for row, tag in zip(rows, tags, strict=True))
        for tags in sequences(words, tags, constrained)
    }
    greatest = max(totals.values())
    weights = {tags: math.exp(total - greatest) for tags, total in totals.items()}
    whole, parts = math.fsum(weights.values()), dict.fromkeys(spans(words, tags // 2), 0.0)
    for tags_here, weight in weights.items():
        for span in entities_in(tags_here):
            parts[span] += weight
    return [part / whole for part in parts.values()]


class Asked(NamedTuple):
    """Entities of a split, as `entity_probabilities` takes them."""

    sentence: list[int]
    start: list[int]
    stop: list[int]
    kind: list[int]


def all_spans(lengths: list[int], types: int) -> Asked:
    """Every entity that any sentence can hold."""
    asked, first = Asked([], [], [], []), 0
    for number, length in enumerate(lengths):
        for start, stop, kind in spans(length, types):
            for column, value in zip(asked, (number, first + start, first + stop, kind), strict=True):
                column.append(value)
        first += length
    return asked


def sentences_of(logits: np.ndarray, lengths: list[int]) -> list[np.ndarray]:
    """One array a sentence."""
    return np.split(logits, np.cumsum(lengths)[:-1])


@st.composite
def splits(draw: st.DrawFn) -> tuple[np.ndarray, list[int]]:
    """Some short sentences, one as long as can be counted, few tags, logits of any size, often tied."""
    types = draw(st.sampled_from([1, 2, 1, 2, 0]))
    longest = 4 if types == 2 else 5
    lengths = draw(st.permutations([longest, *draw(st.lists(st.integers(0, longest), max_size=2))]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = draw(st.sampled_from([0.0, 0.5, 3.0, 30.0, 1e4]))
    logits = rng.normal(size=(sum(lengths), 1 + 2 * types)) * scale
    if draw(st.booleans()):
        logits = np.round(rng.normal(size=logits.shape))  # many ties
    return logits + draw(st.sampled_from([0.0, -500.0])), lengths


# --- Sequences --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("types", [0, 1, 3])
def test_transitions_are_those_of_the_names(types: int) -> None:
    """One word and two words at a time."""
    first, follows = transitions(types)
    tags = 1 + 2 * types
    assert first.dtype == follows.dtype == bool
    assert first.tolist() == [is_legal((tag,)) for tag in range(tags)]
    names = [tag_name(tag) for tag in range(tags)]
    assert follows.tolist() == [[b[0] != "I" or a in (b, "B" + b[1:]) for b in names] for a in names]


def test_transitions_are_seqevals() -> None:
    """Its strict IOB2 finds no entity behind a step that is not allowed, and the tagged words behind any other."""
    from seqeval.scheme import IOB2, Entities

    _, follows = transitions(2)
    for a, b in itertools.product([NO, B0, B1], range(1, 5)):
        found = {(e.start, e.end) for e in Entities([["O", tag_name(a), tag_name(b)]], IOB2).entities[0]}
        covered = {word for start, end in found for word in range(start, end)}
        assert follows[a, b] == (2 in covered), (tag_name(a), tag_name(b))


@given(splits())
def test_best_tags_are_the_best_of_all_legal_ones(split: tuple[np.ndarray, list[int]]) -> None:
    """As good as the best by exact fractions (but for a last digit), legal, and argmax where that is legal."""
    logits, lengths = split
    tags = best_tags(logits, np.array(lengths))
    assert tags.dtype == np.int64
    assert tags.shape == (sum(lengths),)
    for rows, found in zip(sentences_of(logits, lengths), sentences_of(tags, lengths), strict=True):
        chosen = tuple(found.tolist())
        assert is_legal(chosen)
        exact = [[Fraction(x) for x in row] for row in rows.tolist()]
        best = max(
            sum((row[tag] for row, tag in zip(exact, tags, strict=True)), Fraction(0))
            for tags in sequences(len(rows), logits.shape[1], constrained=True)
        )
        ours = sum((row[tag] for row, tag in zip(exact, chosen, strict=True)), Fraction(0))
        assert float(best - ours) <= 1e-12 * max(np.abs(rows).max(initial=0.0), 1.0)
        likeliest = tuple(rows.argmax(axis=1).tolist())
        if is_legal(likeliest):
            assert chosen == likeliest


@given(st.lists(st.integers(0, 4), max_size=3), st.integers(1, 2), st.integers(0, 10_000))
def test_ties_go_to_the_lowest_tags_from_the_end(lengths: list[int], types: int, seed: int) -> None:
    """Of logits 0 and 1, whose sums are exact, the lowest of the best when read from the last word to the first."""
    logits = np.random.default_rng(seed).integers(0, 2, (sum(lengths), 1 + 2 * types)).astype(np.float64)
    expected: list[int] = []
    for rows in sentences_of(logits, lengths) if lengths else []:
        every = sequences(len(rows), logits.shape[1], constrained=True)
        expected += min(every, key=lambda tags, rows=rows: (-sum(rows[range(len(rows)), tags]), tags[::-1]))
    assert best_tags(logits, np.array(lengths, dtype=int)).tolist() == expected


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([{I0: 1}], [NO]),  # no I- first, whatever else
        ([{I0: 2, B0: 1}], [B0]),
        ([{NO: 3}, {I0: 2}], [NO, NO]),  # I- for 2 would cost the first word 3
        ([{NO: 1}, {I0: 2}], [B0, I0]),
        ([{B1: 1}, {I0: 3, I1: 1}], [B0, I0]),
        ([{B1: 1}, {I0: 2, I1: 1}], [B0, I0]),  # 2 either way: the lower tag at the last word
        ([{B1: 1}, {I0: 2, I1: 2}], [B1, I1]),
        ([{B0: 1, I0: 5}, {I0: 5}, {I0: 5}], [B0, I0, I0]),
        ([{B0: 9}, {I0: 9}, {I0: 9}, {I1: 8}], [B0, I0, I0, NO]),
        ([{B0: 9}, {NO: 9}, {I0: 8}], [B0, NO, NO]),
        ([{}, {}, {}], [NO, NO, NO]),
    ],
)
def test_sequences_by_hand(scores: list[dict[int, float]], expected: list[int]) -> None:
    """Tags of score 0 but for those given."""
    logits = np.zeros((len(scores), 5))
    for row, given_scores in zip(logits, scores, strict=True):
        row[list(given_scores)] = list(given_scores.values())
    assert best_tags(logits, np.array([len(scores)])).tolist() == expected


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
def test_without_rules_each_word_has_its_likeliest_tag(dtype: type) -> None:
    """Illegal or not, of any kind of number, also one where nothing is illegal."""
    logits = np.random.default_rng(0).integers(-5, 5, (40, 5)).astype(dtype)
    free = best_tags(logits, np.array([40]), constrained=False)
    assert free.tolist() == [row.index(max(row)) for row in logits.tolist()]
    assert not is_legal(tuple(free.tolist()))
    assert is_legal(tuple(best_tags(logits, np.array([40])).tolist()))


@pytest.mark.slow
def test_a_legal_argmax_stays_in_a_sentence_of_any_length() -> None:
    """50,000 words whose likeliest tags are legal, by a hair, at logits of 1e4: sums of them would not see the hair."""
    rng, tags = random.Random(0), [NO]
    followers = [np.flatnonzero(row).tolist() for row in transitions(4)[1]]
    while len(tags) < 50_000:
        tags.append(rng.choice(followers[tags[-1]]))
    logits = np.full((len(tags), 9), 1e4)
    logits[:, 0] = 1e4 - np.arange(len(tags)) % 7  # so that words differ
    logits[np.arange(len(tags)), tags] = np.nextafter(1e4, 2e4)
    assert best_tags(logits, np.array([len(tags)])).tolist() == tags


# --- Entities ---------------------------------------------------------------------------------------------------------


@given(splits(), st.booleans())
@pytest.mark.filterwarnings("error")
def test_probabilities_are_those_of_all_sequences(split: tuple[np.ndarray, list[int]], constrained: bool) -> None:
    """Every span of every sentence, asked for in any order, to 11 digits, however small."""
    logits, lengths = split
    asked = all_spans(lengths, logits.shape[1] // 2)
    order = np.random.default_rng(0).permutation(len(asked.kind))
    columns = [np.array(column, dtype=int)[order] for column in asked]
    found = np.empty(len(order))
    found[order] = entity_probabilities(logits, np.array(lengths), *columns, constrained=constrained)
    expected = [p for rows in sentences_of(logits, lengths) for p in by_counting(rows, constrained)]
    assert found.dtype == np.float64
    assert found.tolist() == pytest.approx(expected, rel=1e-11, abs=1e-290)
    assert (found <= 1).all()


def by_forward_backward(logits: np.ndarray, asked: Asked) -> list[float]:
    """The same for one longer sentence, by the textbook: T × T steps over logs, entities from both messages."""
    from scipy.special import logsumexp

    words, tags = logits.shape
    first, follows = transitions(tags // 2)
    rules = np.where(follows, 0.0, -np.inf)
    forward, backward = np.where(first, logits[0], -np.inf)[None], np.zeros((1, tags))
    for row in logits[1:]:
        forward = np.vstack([forward, logsumexp(forward[-1][:, None] + rules, axis=0) + row])
    for row in logits[:0:-1]:
        backward = np.vstack([logsumexp(rules + row + backward[0], axis=1), backward])
    whole, found = logsumexp(forward[-1]), []
    for _, start, stop, kind in zip(*asked, strict=True):
        behind = 0.0
        if stop < words:
            others = np.arange(tags) != 2 + 2 * kind
            behind = logsumexp((rules[1 + 2 * kind] + logits[stop] + backward[stop])[others])
        weight = forward[start, 1 + 2 * kind] + logits[start + 1 : stop, 2 + 2 * kind].sum() + behind
        found.append(math.exp(weight - whole))
    # what a word is: its B- ends somewhere, its I- begins somewhere, and else it is O
    marginals = np.exp(forward + backward - whole)
    held = np.zeros((words, tags))
    for p, _, start, stop, kind in zip(found, *asked, strict=True):
        held[start, 1 + 2 * kind] += p
        held[start + 1 : stop, 2 + 2 * kind] += p
    held[:, 0] = 1.0 - held.sum(axis=1)
    assert held == pytest.approx(marginals, abs=1e-12)
    return found


@pytest.mark.parametrize(
    ("words", "types", "scale"), [(1, 1, 1.0), (12, 1, 2.0), (9, 4, 1.0), (9, 4, 12.0), (7, 3, 0.0)]
)
def test_probabilities_are_those_of_the_textbook(words: int, types: int, scale: float) -> None:
    """Longer sentences than can be counted, every span; single words' marginals add up to 1 in passing."""
    logits = np.random.default_rng(words).normal(size=(words, 1 + 2 * types)) * scale
    asked = all_spans([words], types)
    found = entity_probabilities(logits, [words], *asked)
    assert found.tolist() == pytest.approx(by_forward_backward(logits, asked), rel=1e-11)


def test_probabilities_by_hand() -> None:
    """Two words with odds O : B : I of 1 : 2 : 3 and 1 : 1 : 4."""
    logits = np.log(np.array([[1.0, 2.0, 3.0], [1.0, 1.0, 4.0]]))
    asked = Asked([0, 0, 0], [0, 0, 1], [1, 2, 2], [0, 0, 0])
    # legal: OO 1, OB 1, BO 2, BB 2, BI 8, together 14
    assert entity_probabilities(logits, [2], *asked).tolist() == pytest.approx([4 / 14, 8 / 14, 3 / 14], rel=1e-14)
    free = entity_probabilities(logits, [2], *asked, constrained=False).tolist()
    assert free == pytest.approx([2 / 6 * 2 / 6, 2 / 6 * 4 / 6, 1 / 6], rel=1e-14)


@pytest.mark.parametrize("constrained", [True, False])
def test_one_word(constrained: bool) -> None:
    """Without I-, where rules hold: softmax over what is left."""
    logits = np.random.default_rng(0).normal(size=(1, 5))
    shares = softmax(logits)[0]
    of = shares[[NO, B0, B1]].sum() if constrained else 1.0
    found = entity_probabilities(logits, [1], [0, 0], [0, 0], [1, 1], [0, 1], constrained=constrained)
    assert found.tolist() == pytest.approx((shares[[B0, B1]] / of).tolist(), rel=1e-14)


def test_digits_are_kept_where_probabilities_are_close_to_1() -> None:
    """A word that is I- but for 1e-30: that an entity ends before it is no plain 0."""
    logits = np.array([[-80.0, 0.0, -80.0], [-80.0, -80.0, 0.0]])
    ends_early = math.exp(-80.0)
    for constrained in (True, False):
        found = entity_probabilities(logits, [2], [0, 0], [0, 0], [1, 2], [0, 0], constrained=constrained)
        assert found.tolist() == pytest.approx([2 * ends_early, 1.0], rel=1e-14)


@pytest.mark.parametrize(("constrained", "surely"), [(True, {1: B1, 2: NO}), (False, {0: B1, 1: I1, 2: NO})])
def test_no_probability_is_more_than_1(constrained: bool, surely: dict[int, int]) -> None:
    """An entity that is as good as certain, 20,000 times: without a bound some are 1.0000000000000002 either way."""
    logits = np.random.default_rng(0).normal(size=(20_000, 3, 5))
    for word, tag in surely.items():
        logits[:, word, tag] += 40
    sentence = np.arange(20_000)
    start, stop, kind = 3 * sentence + min(surely), 3 * sentence + 2, np.ones_like(sentence)
    lengths = np.full(20_000, 3)
    found = entity_probabilities(logits.reshape(-1, 5), lengths, sentence, start, stop, kind, constrained)
    assert found.max() == 1.0
    assert found.min() == pytest.approx(1.0, abs=1e-12)


# --- Splits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cells", [1, 40, 200, 2**20])
@pytest.mark.parametrize("constrained", [True, False])
def test_a_sentence_gives_what_it_gives_alone(monkeypatch: pytest.MonkeyPatch, cells: int, constrained: bool) -> None:
    """Among longer, shorter and empty ones, in batches of one sentence, of some and of all."""
    rng = np.random.default_rng(4)
    lengths = [0, 3, 7, 0, 1, 3, 12, 1, 2, 0, 7, 5, 0]
    logits = rng.normal(size=(sum(lengths), 5)) * 3
    asked = all_spans(lengths, 2)
    alone, tags = [], []
    for rows in sentences_of(logits, lengths):
        own = all_spans([len(rows)], 2)
        alone += entity_probabilities(rows, [len(rows)], *own, constrained=constrained).tolist()
        tags += best_tags(rows, [len(rows)], constrained).tolist()
    monkeypatch.setattr(decoding, "CHUNK_CELLS", cells)
    every = [batch.words.tolist() for batch in decoding._batches(np.array(lengths), np.flatnonzero(lengths), 5)]
    assert sorted(itertools.chain.from_iterable(every)) == list(range(len(logits)))
    assert len(every) == {1: 9, 40: 6, 200: 2, 2**20: 1}[cells]
    assert best_tags(logits, lengths, constrained).tolist() == tags
    order = rng.permutation(len(asked.kind))
    columns = [np.array(column)[order] for column in asked]
    found = entity_probabilities(logits, lengths, *columns, constrained=constrained)
    assert found.tolist() == pytest.approx(np.array(alone)[order].tolist(), rel=1e-13)


def test_only_sentences_that_are_asked_for_matter() -> None:
    """One entity, or one twice, gives what it gives among all."""
    lengths = [4, 0, 6, 5]
    logits = np.random.default_rng(1).normal(size=(15, 5))
    asked = all_spans(lengths, 2)
    every = entity_probabilities(logits, lengths, *asked)
    for picked in ([0], [30], [len(every) - 1, 3, 3]):
        some = [np.array(column)[picked] for column in asked]
        assert entity_probabilities(logits, lengths, *some).tolist() == pytest.approx(every[picked].tolist(), rel=1e-13)


@pytest.mark.parametrize("constrained", [True, False])
@pytest.mark.parametrize("lengths", [[], [0], [0, 0]])
def test_nothing_gives_nothing(lengths: list[int], constrained: bool) -> None:
    """No sentence, no word, no entity."""
    logits = np.zeros((0, 5))
    assert best_tags(logits, lengths, constrained).tolist() == []
    assert entity_probabilities(logits, lengths, [], [], [], [], constrained=constrained).tolist() == []
    assert entity_probabilities(np.zeros((2, 5)), [*lengths, 2], [], [], [], [], constrained).tolist() == []


@pytest.mark.slow
def test_memory_does_not_grow_with_the_split() -> None:
    """400,000 words of 9 tags would be 29 MB an array in float64."""
    lengths = np.full(20_000, 20)
    logits = np.random.default_rng(0).normal(size=(400_000, 9)).astype(np.float32)
    sentence, kind = np.arange(20_000), np.zeros(20_000, dtype=int)
    for constrained in (True, False):
        tracemalloc.start()
        best_tags(logits, lengths, constrained)
        entity_probabilities(logits, lengths, sentence, sentence * 20, sentence * 20 + 2, kind, constrained)
        assert tracemalloc.get_traced_memory()[1] < 80e6
        tracemalloc.stop()


# --- A sentence of 50,000 words ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
def test_a_long_sentence_is_its_parts() -> None:
    """Every fifth word is O for certain, so each part between gives what it gives as a sentence of its own."""
    parts = np.random.default_rng(0).normal(size=(5, 5, 5)) * np.array([0.1, 1, 5, 40, 1e4])[:, None, None]
    parts[:, -1] = np.where(np.arange(5) == NO, 1e6, -1e6)
    logits = np.tile(parts.reshape(25, 5), (2000, 1))
    own, looked_at = all_spans([5], 2), np.array([0, 1, 2, 3, 4, 5003, 9995, 9996, 9997, 9998, 9999])
    first = np.repeat(5 * looked_at, len(own.kind))
    sentence, start, stop, kind = (np.tile(column, len(looked_at)) for column in own)
    found = entity_probabilities(logits, [50_000], sentence, start + first, stop + first, kind)
    for part, row in zip(looked_at, found.reshape(len(looked_at), -1), strict=True):
        assert row.tolist() == pytest.approx(by_counting(parts[part % 5], constrained=True), rel=1e-9, abs=1e-290)
    tags = best_tags(logits, [50_000]).reshape(-1, 25)
    assert (tags == best_tags(parts.reshape(25, 5), [5] * 5)).all()


def test_a_long_sentence_of_equal_logits() -> None:
    """One type and no opinion: shares of the legal sequences, which the matrix [[1, 1], [1, 2]] of O and not O counts.

    Its greatest eigenvalue is φ², its eigenvectors are (1, φ). So far from both ends B- begins an entity of n words,
    with something else than I- behind, in φ² · φ² / (φ^(2 (n + 1)) (1 + φ²)) of all. As a first word, where only O
    stands before, it does in φ² / (φ^(2 n) (1 + φ)).
    """
    golden = (1 + 5**0.5) / 2
    starts, more = np.array([0, 100, 5_000, 9_900]), np.arange(1, 4)
    start, size = np.repeat(starts, 3), np.tile(more, 4)
    zeros = np.zeros(12, dtype=int)
    found = entity_probabilities(np.full((10_000, 3), 1e4), [10_000], zeros, start, start + size, zeros)
    inner = golden**4 / (golden ** (2 * (more + 1)) * (1 + golden**2))
    outer = golden**2 / (golden ** (2 * more) * (1 + golden))
    assert found.reshape(4, 3) == pytest.approx(np.array([outer, inner, inner, inner]), rel=1e-11)


def test_an_entity_as_long_as_a_sentence() -> None:
    """50,000 words, each I- with odds of a million to one: e^(-0.05)."""
    logits = np.zeros((50_000, 3))
    logits[:, 2] = math.log(2e6)
    logits[0] = [0, 1e4, 0]
    found = entity_probabilities(logits, [50_000], [0], [0], [50_000], [0], constrained=False)
    assert found.tolist() == pytest.approx([math.exp(-49_999 * math.log1p(1e-6))], rel=1e-9)


# --- Refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("constrained", [True, False])
@pytest.mark.filterwarnings("error")
def test_logits_are_finite(dtype: type, value: float, constrained: bool) -> None:
    """Wherever they stand, by the number of the word."""
    for word in (0, 3):
        logits = np.zeros((4, 3), dtype=dtype)
        logits[word, 1] = value
        with pytest.raises(ValueError, match=f"word {word}: "):
            best_tags(logits, [2, 2], constrained)
        with pytest.raises(ValueError, match=f"word {word}: "):
            entity_probabilities(logits, [2, 2], [0], [0], [1], [0], constrained)


@pytest.mark.filterwarnings("error")
def test_the_greatest_logits() -> None:
    """Those that still can be added up are, those that cannot are refused."""
    logits = np.array([[-1e300, -1e300, 1e300]] * 1000)
    assert best_tags(logits, [1000]).tolist() == [B0] + [I0] * 999
    assert entity_probabilities(logits, [1000], [0, 0], [0, 0], [1, 1000], [0, 0]).tolist() == [0, 1]
    with pytest.raises(ValueError, match="word 999: "):
        best_tags(np.vstack([logits[:-1], [[0.0, 1.1e300, 0.0]]]), [1000])


@pytest.mark.parametrize(
    ("shape", "lengths"),
    [((4, 2), [4]), ((4, 0), [4]), ((4,), [4]), ((4, 3), [3]), ((4, 3), [5, -1]), ((4, 3), []), ((4, 3), [[4]])],
)
def test_logits_and_lengths_fit(shape: tuple[int, ...], lengths: list[int]) -> None:
    """Tags in pairs behind O, words as many as the lengths say."""
    with pytest.raises(ValueError, match="logits"):
        best_tags(np.zeros(shape), np.array(lengths, dtype=int))


@pytest.mark.parametrize(
    "entity",
    [
        (1, 2, 2, 0),  # empty
        (1, 2, 1, 0),
        (1, 1, 3, 0),  # begins in the sentence before
        (1, 2, 6, 0),  # ends in the one behind
        (2, 5, 6, 0),  # an empty sentence
        (4, 2, 3, 0),
        (-1, 2, 3, 0),
        (1, 2, 3, 2),
        (1, 2, 3, -1),
    ],
)
def test_an_entity_is_inside_its_sentence(entity: tuple[int, int, int, int]) -> None:
    """The first wrong one is named."""
    right = (1, 2, 5, 1)
    asked = Asked(*map(list, zip(right, entity, entity, strict=True)))
    with pytest.raises(ValueError, match=r"^entity 1: "):
        entity_probabilities(np.zeros((7, 5)), [2, 3, 0, 2], *asked)
    with pytest.raises(ValueError, match=r"^entity 0: "):
        entity_probabilities(np.zeros((0, 5)), [], *([number] for number in entity))


def test_an_entity_has_all_its_numbers() -> None:
    """Columns of one length."""
    with pytest.raises(ValueError, match="shapes"):
        entity_probabilities(np.zeros((4, 5)), [4], [0, 0], [1, 2], [2, 3], [0])
