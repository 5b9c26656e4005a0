"""Entities in flat arrays of tag numbers: found, counted, scored, and what became of those that were not right.

Tags are numbered alike everywhere: 0 is O, 1 + 2k is B- and 2 + 2k is I- of type number k. A split is `tags`, int
(words,), all its sentences one behind the other, and `lengths`, int (sentences,), the words of each, which may be 0.
"""

from typing import Any, NamedTuple

import datasets
import evaluate
import numpy as np

from two_stage.scoring.scores import Scores, metric_info, ratio

RIGHT, PREDICTED, GOLD = range(3)  # what stands in the last axis of counts
FATES = ("right", "type", "boundary", "boundary_and_type", "missed")  # of a gold entity


# --- Finding and matching ---------------------------------------------------------------------------------------------


class Entities(NamedTuple):
    """Entities in order of place, none over another: int64 arrays (entities,)."""

    sentence: np.ndarray  # its number
    start: np.ndarray  # number of the first word, counted through all sentences
    stop: np.ndarray  # of the word behind the last
    kind: np.ndarray  # type number


def find_entities(tags: np.ndarray, lengths: np.ndarray, lenient: bool = False) -> Entities:
    """Find the entities that IOB2 tags spell.

    A run begins at every word that is not an I- directly behind a B- or I- of its type in its sentence. Strictly, a run
    is an entity if it begins with B-, as Nakayama 2018 (seqeval, mode strict) reads IOB2.

    Args:
        tags: tag numbers, int (words,).
        lengths: words of each sentence, int (sentences,).
        lenient: a run that begins with I- is an entity too, as conlleval has it (Tjong Kim Sang and De Meulder 2003).

    Returns:
        The entities in order of place.

    Raises:
        ValueError: a tag below 0, or lengths that do not add up to the words.
    """
    tags, lengths = np.asarray(tags, dtype=np.int64), np.asarray(lengths, dtype=np.int64)
    ends = np.cumsum(lengths)
    words = int(lengths.sum())
    if tags.shape != (words,) or np.min(lengths, initial=0) < 0:
        raise ValueError(f"tags of shape {tags.shape}, but sentences of {words} words")
    if np.min(tags, initial=0) < 0:
        raise ValueError(f"tag number {tags.min()}; they begin at 0, which is O")
    kinds = (tags - 1) >> 1  # halved and rounded down: -1 for O
    begins = (tags == 0) | (tags & 1 == 1)
    begins[1:] |= kinds[1:] != kinds[:-1]
    begins[(ends - lengths)[lengths > 0]] = True  # each sentence's first word
    starts = np.flatnonzero(begins)
    stops = np.append(starts[1:], words)
    first_tags = tags[starts]
    is_entity = first_tags > 0 if lenient else first_tags % 2 == 1
    start, stop = starts[is_entity], stops[is_entity]
    return Entities(np.searchsorted(ends, start, side="right"), start, stop, kinds[start])


class _Overlaps(NamedTuple):
    """Pairs of a gold and a predicted entity that share a word, by gold, then predicted number: arrays (pairs,)."""

    gold: np.ndarray  # number of the gold entity
    predicted: np.ndarray  # number of the predicted one
    words: np.ndarray  # that they share, at least 1
    same_ends: np.ndarray  # bool, as is the next
    same_kind: np.ndarray


def _overlaps(gold: Entities, predicted: Entities) -> _Overlaps:
    """All pairs that share a word: fewer than there are entities, as those of one side are in order and apart."""
    first = np.searchsorted(predicted.stop, gold.start, side="right")
    pairs = np.searchsorted(predicted.start, gold.stop, side="left") - first  # of each gold entity
    g = np.repeat(np.arange(len(pairs)), pairs)
    p = np.arange(len(g)) + np.repeat(first - (np.cumsum(pairs) - pairs), pairs)
    starts, stops = (gold.start[g], predicted.start[p]), (gold.stop[g], predicted.stop[p])
    return _Overlaps(
        g,
        p,
        np.minimum(*stops) - np.maximum(*starts),
        np.equal(*starts) & np.equal(*stops),
        gold.kind[g] == predicted.kind[p],
    )


def _check_kinds(types: int, *sides: Entities) -> None:
    """Refuse a type number that is none, which would be counted as another sentence's or type's."""
    for entities in sides:
        if len(entities.kind) and entities.kind.max() >= types:
            raise ValueError(f"type number {entities.kind.max()}, but there are {types} types")


# --- Right or wrong ---------------------------------------------------------------------------------------------------


def entity_counts(gold: Entities, predicted: Entities, sentences: int, types: int) -> np.ndarray:
    """Count the entities of each sentence and type.

    Args:
        gold: of a split, as `find_entities` makes them.
        predicted: of the same sentences.
        sentences: how many there are.
        types: likewise.

    Returns:
        int64 (sentences, types, 3): entities that are right, their type and both ends; predicted ones; gold ones.

    Raises:
        ValueError: a type or sentence number out of range.
    """
    _check_kinds(types, gold, predicted)
    pairs = _overlaps(gold, predicted)
    right = pairs.gold[pairs.same_ends & pairs.same_kind]
    cells = [
        (gold.sentence[right] * types + gold.kind[right]) * 3 + RIGHT,
        (predicted.sentence * types + predicted.kind) * 3 + PREDICTED,
        (gold.sentence * types + gold.kind) * 3 + GOLD,
    ]
    counts = np.bincount(np.concatenate(cells), minlength=sentences * types * 3)
    if len(counts) > sentences * types * 3:
        last = (len(counts) - 1) // (types * 3)
        raise ValueError(f"an entity of sentence number {last}, but there are {sentences} sentences")
    return counts.reshape(sentences, types, 3)


def type_scores(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Precision, recall and F1 of each type.

    Args:
        counts: entities right, predicted and gold, (types, 3), or (..., types, 3) of some resamples.

    Returns:
        `precision`, `recall`, `f1`, float64, 0 where they are 0 / 0; `support`, the gold entities; and `predicted`.
        Each (types,), or (..., types).
    """
    counts = np.asarray(counts)
    right, predicted, gold = counts[..., RIGHT], counts[..., PREDICTED], counts[..., GOLD]
    return {
        "precision": ratio(right, predicted, otherwise=0.0),
        "recall": ratio(right, gold, otherwise=0.0),
        "f1": ratio(2 * right, gold + predicted, otherwise=0.0),
        "support": gold,
        "predicted": predicted,
    }


def entity_scores(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Precision, recall and F1 of all entities (Tjong Kim Sang and De Meulder 2003, CoNLL-2003), and means over types.

    Args:
        counts: entities right, predicted and gold, summed over sentences: (..., types, 3).

    Returns:
        `precision`, `recall`, `f1`, of all entities alike; `macro_precision`, `macro_recall`, `macro_f1`, the means of
        those types that are gold or predicted somewhere. Arrays (...). What is 0 / 0 is 0, as seqeval has it with
        zero_division=0; but all six are nan where no entity is gold or predicted, as nothing was put to the test there,
        and a bootstrap leaves such a resample out.
    """
    counts = np.asarray(counts)
    together, apart = type_scores(counts.sum(axis=-2)[..., None, :]), type_scores(counts)
    found = (apart["support"] + apart["predicted"] > 0).sum(axis=-1)  # types
    scores = {name: np.where(found > 0, together[name][..., 0], np.nan) for name in ("precision", "recall", "f1")}
    return scores | {f"macro_{name}": ratio(apart[name].sum(axis=-1), found, otherwise=np.nan) for name in scores}


def resampled_counts(counts: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Count the entities of resamples of the sentences, as `bootstrap_intervals` asks for them.

    Args:
        counts: entities right, predicted and gold of each sentence, (sentences, types, 3).
        draws: how often each sentence was drawn in each resample, int (draws, sentences).

    Returns:
        Entities right, predicted and gold of each resample, float64 (draws, types, 3), for `entity_scores` and
        `type_scores`.
    """
    sentences, types, _ = np.shape(counts)
    # Sums of float64 are exact below 2^53, and BLAS knows no integers: 10 draws of 100,000 sentences with 4 types
    # take 3 ms, as integers 14, by a sparse matrix 12, as that must be made anew each time; with 18: 13, 244 and 36.
    flat = np.asarray(counts, dtype=np.float64).reshape(sentences, types * 3)
    return (np.asarray(draws, dtype=np.float64) @ flat).reshape(len(draws), types, 3)


# --- What became of them ----------------------------------------------------------------------------------------------


def error_kinds(gold: Entities, predicted: Entities, types: int) -> dict[str, np.ndarray]:
    """Tell what became of each gold entity, and which predicted ones are made up.

    It is MUC-5's correct, incorrect, missing and spurious (Chinchor and Sundheim 1993), with what is incorrect parted
    by what is wrong with it.

    Args:
        gold: as `find_entities` makes them.
        predicted: of the same sentences.
        types: how many there are.

    Returns:
        int64 (types,) each, by the gold entity's type; these five add up to the gold entities:

        - `right`: its type and both its ends are predicted.
        - `type`: its ends are, with another type.
        - `boundary`: it overlaps a predicted entity of its type.
        - `boundary_and_type`: it overlaps predicted entities, all of other types.
        - `missed`: it overlaps none.

        And `invented`, by the predicted entity's type: predicted entities that overlap no gold one.

    Raises:
        ValueError: a type number out of range.
    """
    _check_kinds(types, gold, predicted)
    pairs = _overlaps(gold, predicted)
    conditions = (pairs.same_ends & pairs.same_kind, pairs.same_ends, pairs.same_kind, np.ones_like(pairs.same_kind))
    holds = [np.bincount(pairs.gold[such], minlength=len(gold.kind)) > 0 for such in conditions]
    fates = np.select(holds, list(range(4)), default=4)  # the first that holds, of FATES
    counts = np.bincount(fates * types + gold.kind, minlength=len(FATES) * types).reshape(len(FATES), types)
    return dict(zip(FATES, counts, strict=True)) | {"invented": _invented(predicted, pairs, types)}


def entity_confusion(gold: Entities, predicted: Entities, types: int) -> np.ndarray:
    """Count which type was taken for which, whatever the ends.

    Args:
        gold: as `find_entities` makes them.
        predicted: of the same sentences.
        types: how many there are.

    Returns:
        int64 (types + 1, types + 1), rows gold and columns predicted, where the last of each is "none". A gold entity
        counts once: at the type of the predicted entity with which it shares most words, of several its own type's,
        of several the first; or in the last column where it shares none. A predicted entity counts on its own, in the
        last row, where it shares no word with a gold one; one that does, but is nobody's best match, counts nowhere.

    Raises:
        ValueError: a type number out of range.
    """
    _check_kinds(types, gold, predicted)
    pairs = _overlaps(gold, predicted)
    best_first = np.lexsort((~pairs.same_kind, -pairs.words, pairs.gold))  # stable, so the first comes before the next
    matched, where = np.unique(pairs.gold[best_first], return_index=True)
    taken_for = np.full(len(gold.kind), types)
    taken_for[matched] = predicted.kind[pairs.predicted[best_first[where]]]
    confusion = np.bincount(gold.kind * (types + 1) + taken_for, minlength=(types + 1) ** 2)
    confusion = confusion.reshape(types + 1, types + 1)
    confusion[types, :types] = _invented(predicted, pairs, types)
    return confusion


def _invented(predicted: Entities, pairs: _Overlaps, types: int) -> np.ndarray:
    """Predicted entities of each type that overlap no gold one: int64 (types,)."""
    touches = np.bincount(pairs.predicted, minlength=len(predicted.kind)) > 0
    return np.bincount(predicted.kind[~touches], minlength=types)


# --- As others score --------------------------------------------------------------------------------------------------


def conlleval_scores(
    gold_tags: np.ndarray, predicted_tags: np.ndarray, lengths: np.ndarray, types: int
) -> dict[str, float]:
    """Score as conlleval does, the script of CoNLL-2000 to 2003: an entity may begin with I-, on both sides.

    Args:
        gold_tags: tag numbers, int (words,).
        predicted_tags: likewise.
        lengths: words of each sentence, int (sentences,).
        types: how many there are.

    Returns:
        `accuracy`, the share of words whose tag is right; `precision`, `recall` and `f1` of all entities. Shares, where
        conlleval prints percent; 0 where they are 0 / 0.

    Raises:
        ValueError: a tag or type number out of range, or sides of different length.
    """
    gold, predicted = (find_entities(tags, lengths, lenient=True) for tags in (gold_tags, predicted_tags))
    scores = entity_scores(entity_counts(gold, predicted, len(lengths), types).sum(axis=0))
    return {"accuracy": _share_equal(gold_tags, predicted_tags)} | {
        name: float(np.nan_to_num(scores[name])) for name in ("precision", "recall", "f1")
    }


def _share_equal(gold_tags: np.ndarray, predicted_tags: np.ndarray) -> float:
    """The share of words whose tag is right; 0 where there is no word."""
    return float(np.equal(gold_tags, predicted_tags).mean()) if len(gold_tags) else 0.0


class EntityScores(evaluate.Metric):
    """Strict entity scores: an entity counts where its type and both its ends are right.

    `compute(predictions=…, references=…)` takes one list of IOB2 tags a sentence. The types are all that occur in
    either. All scores of entities are 0 where there is no entity, gold or predicted.
    """

    def _info(self) -> evaluate.MetricInfo:
        tags = datasets.Sequence(datasets.Value("string"))
        return metric_info(
            "Precision, recall and F1 of entities, and their means over types",
            "Tjong Kim Sang and De Meulder 2003, CoNLL-2003; Nakayama 2018, seqeval, for the strict rule",
            {"predictions": tags, "references": tags},
        )

    def _compute(self, predictions: Any, references: Any) -> Scores:
        gold, predicted = ([list(sentence) for sentence in side] for side in (references, predictions))
        lengths = [len(sentence) for sentence in gold]
        for i, sentence in enumerate(predicted):
            if len(sentence) != lengths[i]:
                raise ValueError(f"sentence {i + 1}: {lengths[i]} gold tags but {len(sentence)} predicted ones")
        number, types = _tag_numbers({tag for side in (gold, predicted) for sentence in side for tag in sentence})
        tags = [np.array([number[tag] for sentence in side for tag in sentence], int) for side in (gold, predicted)]
        found_gold, found_predicted = (find_entities(side, np.array(lengths, int)) for side in tags)
        counts = entity_counts(found_gold, found_predicted, len(lengths), types)
        scores = {name: float(np.nan_to_num(score)) for name, score in entity_scores(counts.sum(axis=0)).items()}
        return scores | {"word_accuracy": _share_equal(*tags)}


def _tag_numbers(names: set[str]) -> tuple[dict[str, int], int]:
    """The number of each tag of the types that occur, and how many types these are."""
    kinds = sorted({name[2:] for name in names} - {""})
    numbered = ["O"] + [f"{prefix}-{kind}" for kind in kinds for prefix in "BI"]
    if unknown := sorted(names - set(numbered)):
        raise ValueError(f"tag {unknown[0]!r} is not IOB2; write O, B-TYPE or I-TYPE")
    return {name: i for i, name in enumerate(numbered)}, len(kinds)
