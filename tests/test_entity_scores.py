"""Entity scores against seqeval, conlleval's own rules, pairs compared one by one, and examples counted by hand."""

import math
import warnings
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics import accuracy_score
from seqeval.metrics.sequence_labeling import precision_recall_fscore_support as lenient_scores
from seqeval.metrics.v1 import precision_recall_fscore_support as strict_scores
from seqeval.scheme import IOB2

from two_stage.scoring.entity_scores import (
    Entities,
    EntityScores,
    conlleval_scores,
    entity_confusion,
    entity_counts,
    entity_scores,
    error_kinds,
    find_entities,
    resampled_counts,
    type_scores,
)
from two_stage.scoring.intervals import bootstrap_intervals

TYPES = ("A", "B", "C")
NAMES = ["O", *(f"{prefix}-{kind}" for kind in TYPES for prefix in "BI")]
SCORES = ("precision", "recall", "f1")
MICRO_AND_MACRO = {*SCORES, *(f"macro_{name}" for name in SCORES)}
Sentences = list[list[str]]
Pairs = tuple[Sentences, Sentences]  # gold and predicted


def words(*sentences: str) -> Sentences:
    """Tags written in one text a sentence: O, A for B-A and a for I-A."""
    return [[tag if tag == "O" else f"{'B' if tag.isupper() else 'I'}-{tag.upper()}" for tag in s] for s in sentences]


# of stretches of words rather than of single ones, so that entities are long enough to overlap in many ways
STRETCHES = ["O", "OO", "A", "Aa", "Aaaa", "B", "Bbb", "Bbbb", "C", "Cc", "Ccc", "a", "bb", "ccc"]
SENTENCE = st.lists(st.sampled_from(STRETCHES), max_size=5).map(lambda parts: words("".join(parts))[0])


@st.composite
def tagged(draw: st.DrawFn) -> Pairs:
    """Gold and predicted tags of up to five sentences, orphans and empty sentences among them."""
    gold, predicted = [], []
    for sentence, other in draw(st.lists(st.tuples(SENTENCE, SENTENCE), max_size=5)):
        gold.append(sentence)
        predicted.append((other + sentence[len(other) :])[: len(sentence)])  # as gold where the other has ended
    return gold, predicted


def numbered(sentences: Sentences) -> tuple[np.ndarray, np.ndarray]:
    """Tag numbers of all words, and the words of each sentence."""
    tags = [NAMES.index(tag) for sentence in sentences for tag in sentence]
    return np.array(tags, dtype=np.int64), np.array([len(sentence) for sentence in sentences], dtype=np.int64)


def found(sentences: Sentences, lenient: bool = False) -> Entities:
    """The entities of sentences."""
    return find_entities(*numbered(sentences), lenient=lenient)


def counted(gold: Sentences, predicted: Sentences) -> np.ndarray:
    """Strict counts of each sentence and type."""
    return entity_counts(found(gold), found(predicted), len(gold), len(TYPES))


def naive_entities(sentences: Sentences, lenient: bool) -> list[tuple[int, int, int, int]]:
    """Sentence, start, stop and type of each entity, word by word: an I- goes on, or begins what may be an entity."""
    entities, place = [], 0
    for number, sentence in enumerate(sentences):
        start = None
        for i, (before, tag) in enumerate(pairwise(["O", *sentence, "O"])):
            if start is not None and not (tag[0] == "I" and tag[2:] == before[2:]):
                entities.append((number, place + start, place + i, TYPES.index(before[2:])))
                start = None
            if tag[0] == "B" or (lenient and tag[0] == "I" and start is None):
                start = i
        place += len(sentence)
    return entities


# --- Finding ----------------------------------------------------------------------------------------------------------


@given(sentences=st.lists(SENTENCE, max_size=6), lenient=st.booleans())
def test_entities_equal_those_read_word_by_word(sentences: Sentences, lenient: bool) -> None:
    """All four columns, in order of place, as int64."""
    entities = found(sentences, lenient)
    assert list(zip(*(column.tolist() for column in entities), strict=True)) == naive_entities(sentences, lenient)
    assert {column.dtype for column in entities} == {np.dtype(np.int64)}


@pytest.mark.parametrize(
    ("sentences", "strict", "lenient"),
    [
        (["OO"], [], []),
        (["AaO"], [(0, 2)], [(0, 2)]),
        (["AA"], [(0, 1), (1, 2)], [(0, 1), (1, 2)]),
        (["aa"], [], [(0, 2)]),
        (["Abb"], [(0, 1)], [(0, 1), (1, 3)]),
        (["AOa"], [(0, 1)], [(0, 1), (2, 3)]),
        (["aAa"], [(1, 3)], [(0, 1), (1, 3)]),
        (["Aba"], [(0, 1)], [(0, 1), (1, 2), (2, 3)]),
        (["OA", "a"], [(1, 2)], [(1, 2), (2, 3)]),
        (["A", "", "a", ""], [(0, 1)], [(0, 1), (1, 2)]),
        (["", "Aa"], [(0, 2)], [(0, 2)]),
        ([], [], []),
    ],
)
def test_entities_of_worked_examples(
    sentences: list[str], strict: list[tuple[int, int]], lenient: list[tuple[int, int]]
) -> None:
    """First word and the word behind the last; a sentence's end ends an entity, an empty sentence changes nothing."""
    for expected, is_lenient in ((strict, False), (lenient, True)):
        entities = found(words(*sentences), is_lenient)
        assert list(zip(entities.start.tolist(), entities.stop.tolist(), strict=True)) == expected


@pytest.mark.parametrize(
    ("tags", "lengths"), [([0, 1], [1]), ([0], [1, 1]), ([0], []), ([0, -1], [2]), ([1, 2], [3, -1])]
)
def test_tags_that_fit_no_sentences_are_refused(tags: list[int], lengths: list[int]) -> None:
    """Words too many or too few, tags and lengths below 0."""
    with pytest.raises(ValueError, match=r"sentences of|begin at 0"):
        find_entities(np.array(tags), np.array(lengths))


# --- Scores -----------------------------------------------------------------------------------------------------------


@given(pairs=tagged())
def test_scores_equal_seqeval(pairs: Pairs) -> None:
    """Micro, macro and each type's as seqeval's strict mode has them; without an entity ours are nan."""
    gold, predicted = pairs
    counts = counted(gold, predicted)
    scores, of_type = entity_scores(counts.sum(axis=0)), type_scores(counts.sum(axis=0))
    assert set(scores) == MICRO_AND_MACRO
    present = of_type["support"] + of_type["predicted"] > 0
    if not present.any():
        assert all(math.isnan(score) for score in scores.values())
        assert all((of_type[name] == 0).all() for name in SCORES)
        return
    for average, prefix in (("micro", ""), ("macro", "macro_")):
        theirs = strict_scores(gold, predicted, average=average, scheme=IOB2, zero_division=0)[:3]
        assert [scores[prefix + name] for name in SCORES] == pytest.approx(list(theirs), abs=1e-12, rel=0)
    *theirs_of_type, support = strict_scores(gold, predicted, average=None, scheme=IOB2, zero_division=0)
    for name, theirs in zip(SCORES, theirs_of_type, strict=True):
        assert of_type[name][present] == pytest.approx(theirs, abs=1e-12, rel=0)
        assert (of_type[name][~present] == 0).all()
    assert of_type["support"][present].tolist() == list(support)


@given(pairs=tagged())
def test_counts_equal_sets(pairs: Pairs) -> None:
    """Of every sentence and type: what stands in both sets, in the predicted and in the gold one."""
    gold, predicted = (set(naive_entities(side, lenient=False)) for side in pairs)
    counts = counted(*pairs)
    assert counts.shape == (len(pairs[0]), len(TYPES), 3)
    assert counts.dtype == np.int64
    for (sentence, kind, what), count in np.ndenumerate(counts):
        entities = (gold & predicted, predicted, gold)[what]
        assert count == sum(entity[0] == sentence and entity[3] == kind for entity in entities)


def test_scores_of_a_worked_example() -> None:
    """Three gold entities, four predicted, two right; of type C there are none, and it counts in no mean."""
    gold, predicted = words("AaOB", "AO"), words("AOOB", "AB")
    counts = counted(gold, predicted).sum(axis=0)
    assert counts.tolist() == [[1, 2, 2], [1, 2, 1], [0, 0, 0]]
    assert entity_scores(counts) == pytest.approx(
        {
            "precision": 2 / 4,
            "recall": 2 / 3,
            "f1": 4 / 7,
            "macro_precision": (1 / 2 + 1 / 2) / 2,
            "macro_recall": (1 / 2 + 1) / 2,
            "macro_f1": (1 / 2 + 2 / 3) / 2,
        }
    )


def test_scores_where_one_side_is_empty() -> None:
    """Nothing predicted, or nothing there to find, is 0; nothing on either side is nan, also among other resamples."""
    scores = entity_scores(np.array([[[0, 0, 4]], [[0, 4, 0]], [[0, 0, 0]], [[1, 1, 1]]]))
    for name in MICRO_AND_MACRO:
        assert scores[name].tolist() == pytest.approx([0, 0, math.nan, 1], nan_ok=True)
    assert all(math.isnan(score) for score in entity_scores(np.zeros((0, 3))).values())


@given(pairs=tagged().filter(lambda pairs: len(pairs[0]) > 0), seed=st.integers(0, 99))
def test_resampled_counts_equal_repeated_sentences(pairs: Pairs, seed: int) -> None:
    """Each sentence written out as often as it was drawn, also in a draw of nothing."""
    draws = np.random.default_rng(seed).integers(0, 3, size=(4, len(pairs[0])))
    draws[0] = 0
    scores = entity_scores(resampled_counts(counted(*pairs), draws))
    assert set(scores) == MICRO_AND_MACRO
    for i, draw in enumerate(draws):
        repeated = [[sentence for sentence, n in zip(side, draw, strict=True) for _ in range(n)] for side in pairs]
        expected = entity_scores(counted(*repeated).sum(axis=0))
        for name, values in scores.items():
            assert values.shape == (len(draws),)
            assert values[i] == pytest.approx(float(expected[name]), abs=1e-12, rel=0, nan_ok=True)


def test_bootstrap_takes_the_scores() -> None:
    """An interval holds the score where there are entities, and there is none where nothing could be scored."""
    gold, predicted = words(*["AaOB", "OOO", "CbA"] * 20), words(*["AOOB", "OOO", "CbA"] * 20)
    counts = counted(gold, predicted)
    intervals = bootstrap_intervals(
        lambda draws: entity_scores(resampled_counts(counts, draws)), len(gold), resamples=200
    )
    assert set(intervals) == MICRO_AND_MACRO
    for name, score in entity_scores(counts.sum(axis=0)).items():
        low, high = intervals[name]
        assert 0 < low < score < high < 1
    nothing = np.zeros_like(counts)
    assert (
        bootstrap_intervals(lambda draws: entity_scores(resampled_counts(nothing, draws)), len(gold), resamples=20)
        == {}
    )


def test_numbers_out_of_range_are_refused() -> None:
    """A type or sentence that is none would be counted as another one's."""
    one, none = found(words("O", "C")), found(words("O", "O"))
    for sides in ((one, none), (none, one)):
        with pytest.raises(ValueError, match="type number 2, but there are 2"):
            entity_counts(*sides, sentences=2, types=2)
        with pytest.raises(ValueError, match="sentence number 1, but there are 1 "):
            entity_counts(*sides, sentences=1, types=3)
        for count in (error_kinds, entity_confusion):
            with pytest.raises(ValueError, match="type number 2, but there are 2"):
                count(*sides, types=2)


# --- What became of them ----------------------------------------------------------------------------------------------

Span = tuple[int, int, int, int]


def shared_words(a: Span, b: Span) -> int:
    """Words that stand in both."""
    return len({*range(a[1], a[2])} & {*range(b[1], b[2])})


def naive_fate(entity: Span, predicted: list[Span]) -> str:
    """What became of a gold entity, held against every predicted one."""
    over = [other for other in predicted if shared_words(entity, other)]
    if entity in over:
        return "right"
    if any(entity[:3] == other[:3] for other in over):
        return "type"
    if any(entity[3] == other[3] for other in over):
        return "boundary"
    return "boundary_and_type" if over else "missed"


def naive_confusion(gold: list[Span], predicted: list[Span]) -> list[list[int]]:
    """Each gold entity at its best match, the earliest of the best by words shared, then by type."""
    confusion = [[0] * (len(TYPES) + 1) for _ in range(len(TYPES) + 1)]
    for entity in gold:
        best, kind = (0, False), len(TYPES)
        for other in predicted:
            match = (shared_words(entity, other), other[3] == entity[3])
            if match[0] and match > best:
                best, kind = match, other[3]
        confusion[entity[3]][kind] += 1
    for other in predicted:
        if not any(shared_words(other, entity) for entity in gold):
            confusion[-1][other[3]] += 1
    return confusion


@given(pairs=tagged(), lenient=st.booleans())
def test_errors_equal_those_of_all_pairs(pairs: Pairs, lenient: bool) -> None:
    """Kinds of error and the confusion matrix, held against every pair; sums give what is gold, right and predicted."""
    spans = [naive_entities(side, lenient) for side in pairs]
    gold, predicted = (found(side, lenient) for side in pairs)
    kinds = error_kinds(gold, predicted, len(TYPES))
    confusion = entity_confusion(gold, predicted, len(TYPES))
    expected = {name: [0] * len(TYPES) for name in kinds}
    for entity in spans[0]:
        expected[naive_fate(entity, spans[1])][entity[3]] += 1
    for entity in spans[1]:
        expected["invented"][entity[3]] += not any(shared_words(entity, other) for other in spans[0])
    assert {name: counts.tolist() for name, counts in kinds.items()} == expected
    assert confusion.tolist() == naive_confusion(*spans)
    assert {counts.dtype for counts in [*kinds.values(), confusion]} == {np.dtype(np.int64)}

    counts = entity_counts(gold, predicted, len(pairs[0]), len(TYPES)).sum(axis=0)
    invented = kinds.pop("invented")
    assert np.sum(list(kinds.values()), axis=0).tolist() == counts[:, 2].tolist() == confusion[:-1].sum(axis=1).tolist()
    assert kinds["right"].tolist() == counts[:, 0].tolist()
    assert (kinds["right"] <= np.diagonal(confusion)[:-1]).all()
    assert kinds["missed"].tolist() == confusion[:-1, -1].tolist()
    assert invented.tolist() == confusion[-1, :-1].tolist()
    assert confusion[-1, -1] == 0


# gold       A a a O B b O C O A a O | A a a a | O A O
# predicted  A a a O A a O C c O O B | A b B b | A O C    b behind A is an orphan, so the second A is one word long
GOLD, GUESS = words("AaaOBbOCOAaO", "Aaaa", "OAO"), words("AaaOAaOCcOOB", "AbBb", "AOC")


def test_error_kinds_of_a_worked_example() -> None:
    """Counted by hand: of A one is right, two are missed, one has a wrong end; B has a wrong type, C a wrong end."""
    kinds = error_kinds(found(GOLD), found(GUESS), len(TYPES))
    assert {name: counts.tolist() for name, counts in kinds.items()} == {
        "right": [1, 0, 0],
        "type": [0, 1, 0],
        "boundary": [1, 0, 1],
        "boundary_and_type": [0, 0, 0],
        "missed": [2, 0, 0],
        "invented": [1, 1, 1],
    }
    # with no A in front, all that overlaps the four words is of another type
    kinds = error_kinds(found(words("Aaaa")), found(words("ObBb")), len(TYPES))
    assert {name: counts.sum() for name, counts in kinds.items() if counts.any()} == {"boundary_and_type": 1}


def test_confusion_of_a_worked_example() -> None:
    """The four words of the second sentence are taken for B, which shares two of them, not for A, which shares one."""
    assert entity_confusion(found(GOLD), found(GUESS), len(TYPES)).tolist() == [
        [1, 1, 0, 2],
        [1, 0, 0, 0],
        [0, 0, 1, 0],
        [1, 1, 1, 0],
    ]


@pytest.mark.parametrize(
    ("gold", "predicted", "taken_for"),
    [
        ("Aaa", "BAa", "A"),
        ("Aaa", "BbA", "B"),
        ("Aaa", "BCA", "A"),
        ("Aaa", "OCB", "C"),
        ("Aaa", "OBC", "B"),
        ("Aaaa", "BbAa", "A"),
        ("Aaaa", "CcBb", "C"),
    ],
)
def test_best_match(gold: str, predicted: str, taken_for: str) -> None:
    """Most words shared; then the same type; then the first."""
    confusion = entity_confusion(found(words(gold)), found(words(predicted)), len(TYPES))
    assert confusion.sum() == confusion[0, TYPES.index(taken_for)] == 1


# --- As others score --------------------------------------------------------------------------------------------------


def begins_chunk(before: str, tag: str) -> bool:
    """Whether conlleval sees a chunk begin at a tag: at B, at I behind O, and wherever the type changes."""
    return tag != "O" and (tag[0] == "B" or before == "O" or before[2:] != tag[2:])


def ends_chunk(before: str, tag: str) -> bool:
    """Whether conlleval sees a chunk end in front of a tag: before B, before O, and wherever the type changes."""
    return before != "O" and (tag[0] in "BO" or before[2:] != tag[2:])


def naive_conlleval(gold: Sentences, predicted: Sentences) -> dict[str, float]:
    """The script's walk, word by word: a chunk is correct if it began on both sides at once, and so ends."""
    lines = [pair for pairs in zip(gold, predicted, strict=True) for pair in [*zip(*pairs, strict=True), None]]
    right = gold_chunks = predicted_chunks = same = total = 0
    is_correct_so_far = False
    before = ("O", "O")
    for line in lines:
        now = line or ("O", "O")
        ends = [ends_chunk(*tags) for tags in zip(before, now, strict=True)]
        begins = [begins_chunk(*tags) for tags in zip(before, now, strict=True)]
        if is_correct_so_far and any(ends):
            right += all(ends) and before[0][2:] == before[1][2:]
            is_correct_so_far = False
        if all(begins) and now[0][2:] == now[1][2:]:
            is_correct_so_far = True
        gold_chunks, predicted_chunks = gold_chunks + begins[0], predicted_chunks + begins[1]
        same, total = same + (line is not None and now[0] == now[1]), total + (line is not None)
        before = now
    precision, recall = right / max(predicted_chunks, 1), right / max(gold_chunks, 1)
    return {
        "accuracy": same / max(total, 1),
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if right else 0.0,
    }


@given(pairs=tagged())
def test_conlleval_scores_equal_its_walk_and_seqeval(pairs: Pairs) -> None:
    """Also with orphans on both sides, empty sentences, and no word at all."""
    gold, predicted = pairs
    (gold_tags, lengths), (predicted_tags, _) = numbered(gold), numbered(predicted)
    scores = conlleval_scores(gold_tags, predicted_tags, lengths, len(TYPES))
    assert scores == pytest.approx(naive_conlleval(gold, predicted), abs=1e-12, rel=0)
    assert {type(score) for score in scores.values()} == {float}
    if gold:
        theirs = lenient_scores(gold, predicted, average="micro", zero_division=0)[:3]
        assert [scores[name] for name in SCORES] == pytest.approx(list(theirs), abs=1e-12, rel=0)


def computed(predicted: Sentences, gold: Sentences) -> dict[str, Any]:
    """Scores of tags, by the metric."""
    return EntityScores(keep_in_memory=True).compute(predictions=predicted, references=gold)


@settings(max_examples=20)
@given(pairs=tagged().filter(lambda pairs: any(pairs[0])))
def test_metric_equals_seqeval(pairs: Pairs) -> None:
    """Six scores and the words' accuracy, as floats; all scores of entities are 0 where there is none."""
    gold, predicted = pairs
    scores = computed(predicted, gold)
    assert {type(score) for score in scores.values()} == {float}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # seqeval's mean over no type
        for average, prefix in (("micro", ""), ("macro", "macro_")):
            theirs = strict_scores(gold, predicted, average=average, scheme=IOB2, zero_division=0)[:3]
            expected = [0.0 if math.isnan(score) else float(score) for score in theirs]
            assert [scores.pop(prefix + name) for name in SCORES] == pytest.approx(expected, abs=1e-12, rel=0)
    assert scores == {"word_accuracy": pytest.approx(accuracy_score(gold, predicted), abs=1e-12, rel=0)}


def test_metric_of_a_worked_example() -> None:
    """Types may have any name, with a hyphen too; added batch by batch they score the same."""
    gold = [["B-x-y", "I-x-y", "O", "B-x"], ["B-x-y", "O"]]
    predicted = [["B-x-y", "O", "O", "B-x"], ["O", "I-z"]]
    expected = {"precision": 1 / 2, "recall": 1 / 3, "f1": 0.4, "word_accuracy": 3 / 6}
    expected |= {"macro_precision": 1 / 2, "macro_recall": 1 / 2, "macro_f1": 1 / 2}  # x-y: 0, x: 1; z is no entity
    assert computed(predicted, gold) == pytest.approx(expected)
    metric = EntityScores(keep_in_memory=True)
    for i in range(2):
        metric.add_batch(predictions=predicted[i : i + 1], references=gold[i : i + 1])
    assert metric.compute() == pytest.approx(expected)
    assert set(computed([["O", "I-x"], []], [["O", "I-x"], []]).values()) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("predicted", "gold", "said"),
    [
        ([["O"], ["O"]], [["O"], ["O", "O"]], "sentence 2: 2 gold tags but 1 predicted"),
        ([["O", "O"], ["O"]], [["O"], ["O", "O"]], "sentence 1: 1 gold tags but 2 predicted"),
        ([["O"]], [["O"], ["O"]], "Mismatch"),
        ([["X-A"]], [["B-A"]], "'X-A' is not IOB2"),
        ([["O"]], [["B-"]], "'B-' is not IOB2"),
        ([["B"]], [["O"]], "'B' is not IOB2"),
    ],
)
def test_metric_refuses(predicted: Sentences, gold: Sentences, said: str) -> None:
    """Sentences of different length, also where all words are as many; as many sentences; tags that are none."""
    with pytest.raises(ValueError, match=said):
        computed(predicted, gold)
