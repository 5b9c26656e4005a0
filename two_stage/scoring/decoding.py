"""From each word's tag scores to legal tag sequences, and how probable an entity is.

Tags are numbered 0 for O, 1 + 2k for B- and 2 + 2k for I- of type k. They are legal as IOB2 has them: I- of a type
stands only behind B- or I- of that type, and a sentence begins as if an O stood before it.

Words are worked on in batches of sentences, the longest first: the first words of all of them, then the second ones,
and so on. Sentences that end are the last rows of those that are left, so each place is a slice of the batch, nothing
is padded, and a sentence gives what it gives alone.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from two_stage.scoring.calibration import softmax

# Words times tags in a batch, 8 MB an array: tags then take some 50 MB beside the logits, entities 90 MB. Any number
# from 2^16 to 2^22 is about as fast. A sentence is never cut, so one that is longer takes what it takes.
CHUNK_CELLS = 2**20
GREATEST_LOGIT = 1e300  # sums over some million words stay finite


def best_tags(logits: np.ndarray, lengths: np.ndarray, constrained: bool = True) -> np.ndarray:
    """Choose each sentence's tags: the likeliest legal sequence (Viterbi 1967), or each word's likeliest tag.

    Words are independent but for the rules. Where each word's likeliest tag gives a legal sentence, that is the answer,
    to the bit: scores are counted from each word's greatest, so that such a sentence loses exactly 0 and all others
    lose something.

    Args:
        logits: float (words, T), all sentences one behind the other.
        lengths: words a sentence, int (sentences,); 0 is allowed.
        constrained: whether to choose among legal sequences only.

    Returns:
        Tag numbers, int64 (words,). Of equally good sequences the one with the lowest tag at the last word, then at the
        last but one, and so on.

    Raises:
        ValueError: a logit that is not finite (or beyond ±1e300, where sums are not), an even number of tags, or
            lengths that are not those of the words.
    """
    logits, lengths = _checked(logits, lengths)
    if not constrained:
        return logits.argmax(axis=1)
    tags = np.empty(len(logits), dtype=np.int64)
    for batch in _batches(lengths, np.flatnonzero(lengths), logits.shape[1]):
        tags[batch.words] = _likeliest_legal(_losses(logits[batch.words]), batch.rows)
    return tags


def entity_probabilities(
    logits: np.ndarray,
    lengths: np.ndarray,
    sentence: np.ndarray,
    start: np.ndarray,
    stop: np.ndarray,
    kind: np.ndarray,
    constrained: bool = True,
) -> np.ndarray:
    """Tell how probable it is that exactly this entity is there.

    That is: word `start` is B- of the type, the others are I- of it, and the word behind, if the sentence has one, is
    not. With p(tags) ∝ Π softmax(logits)[word, tag] over legal sequences alone, this is what constrained
    forward-backward gives (Culotta and McCallum 2004, Confidence Estimation for Information Extraction, section 3).

    Args:
        logits: float (words, T), all sentences one behind the other.
        lengths: words a sentence, int (sentences,); 0 is allowed.
        sentence: the number of each entity's sentence, int (entities,).
        start: its first word, counted over all sentences, int (entities,).
        stop: the word behind its last one, likewise.
        kind: its type's number, int (entities,).
        constrained: whether illegal sequences are ruled out; else all words are independent, which is a plain product.

    Returns:
        Probabilities, float64 (entities,), 0 to 1.

    Raises:
        ValueError: as `best_tags`; an entity that is empty, not inside its sentence or of no type.
    """
    logits, lengths = _checked(logits, lengths)
    entities = [np.asarray(numbers, dtype=np.int64) for numbers in (sentence, start, stop, kind)]
    firsts = np.cumsum(lengths) - lengths
    _check_entities(entities, firsts, lengths, types=logits.shape[1] // 2)
    sentence, start, stop, kind = entities
    entities_of = np.bincount(sentence, minlength=len(lengths))
    order = np.lexsort((sentence, -lengths[sentence]))  # the batches' own order
    probabilities, done = np.empty(len(order)), 0
    for batch in _batches(lengths, np.flatnonzero(entities_of), logits.shape[1]):
        asked = entities_of[batch.sentences]
        chosen, row = order[done : done + asked.sum()], np.repeat(np.arange(len(asked)), asked)
        done += len(chosen)
        losses = _losses(logits[batch.words])
        chances = _legal_chances(losses, batch.rows) if constrained else _free_chances(losses, batch.rows)
        first = firsts[sentence[chosen]]
        probabilities[chosen] = _products(
            chances, batch.rows, row, start[chosen] - first, stop[chosen] - first, kind[chosen]
        )
    return probabilities


# --- Batches ----------------------------------------------------------------------------------------------------------


class _Batch(NamedTuple):
    """Some sentences, the longest first, their words in the order of their place in the sentence."""

    sentences: np.ndarray  # their numbers, (rows[0],)
    words: np.ndarray  # the words' numbers over all sentences: rows[0] first words, rows[1] second words, …
    rows: np.ndarray  # how many sentences have a word at each place, (longest,)


def _batches(lengths: np.ndarray, sentences: np.ndarray, tags: int) -> Iterator[_Batch]:
    """Sentences that have words, the longest first and else in their order, some of them at a time."""
    if not len(sentences):
        return
    firsts = np.cumsum(lengths) - lengths
    order = sentences[np.argsort(-lengths[sentences], kind="stable")]
    chunk = (np.cumsum(lengths[order]) - lengths[order]) * tags // CHUNK_CELLS
    for part in np.split(order, np.flatnonzero(np.diff(chunk)) + 1):
        longest = lengths[part[0]]
        rows = len(part) - np.searchsorted(lengths[part][::-1], np.arange(longest), side="right")
        row = np.arange(rows.sum()) - np.repeat(np.cumsum(rows) - rows, rows)
        yield _Batch(part, firsts[part][row] + np.repeat(np.arange(longest), rows), rows)


def _places(rows: np.ndarray) -> list[slice]:
    """Where in a batch the words of each place are."""
    ends = np.cumsum(rows).tolist()
    return [slice(begin, end) for begin, end in zip([0, *ends], ends, strict=False)]


def _losses(logits: np.ndarray) -> np.ndarray:
    """Logits less each word's greatest, at most 0, float64 (words, T): 0 only for tags that tie for the greatest."""
    return logits.astype(np.float64) - logits.max(axis=1, keepdims=True)


# --- Sequences --------------------------------------------------------------------------------------------------------


def _likeliest_legal(losses: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The legal tags that lose least, int64 (words,), in the batch's order of words.

    O and B- may follow anything and I- only its own two tags, so a step costs T and not T².
    """
    places, begins = _places(rows), np.arange(1, losses.shape[1], 2)
    came_from = np.empty(losses.shape, dtype=np.int64)
    scores = np.full((rows[0], losses.shape[1]), -np.inf)
    scores[:, 0] = 0.0  # as if an O stood before the sentence
    for count, place in zip(rows.tolist(), places, strict=True):
        before, step = scores[:count], losses[place]
        goes_on = before[:, 2::2] > before[:, 1::2]
        came_from[place] = before.argmax(axis=1)[:, None]
        came_from[place, 2::2] = begins + goes_on
        inside = np.maximum(before[:, 1::2], before[:, 2::2]) + step[:, 2::2]
        scores[:count] = before.max(axis=1, keepdims=True) + step
        scores[:count, 2::2] = inside
    tags, current, every = np.empty(len(losses), dtype=np.int64), scores.argmax(axis=1), np.arange(rows[0])
    for count, place in zip(rows[::-1].tolist(), places[::-1], strict=True):
        tags[place] = current[:count]
        current[:count] = came_from[place][every[:count], current[:count]]
    return tags


# --- Entities ---------------------------------------------------------------------------------------------------------


class _Chances(NamedTuple):
    """What an entity's probability is a product of, float64 (words, types) each, in the batch's order of words."""

    begins: np.ndarray  # of the word being B-
    goes_on: np.ndarray  # of the word being I-, where the word before is B- or I- of the type
    ends: np.ndarray  # of the word behind not being I-, where this one is B- or I- of the type; 1 for the last word


def _legal_chances(losses: np.ndarray, rows: np.ndarray) -> _Chances:
    """Those under the rules, where tags are a Markov chain.

    The way back finds the chain. Of all that can follow a word only one thing depends on its tag: whether I- of some
    type may. So the message is one number a type, `gain`, the log of how many times more weight follows the type's tags
    than follows O; it is 0 behind the last word and does not grow with the sentence, unlike sums of logits, whose
    differences would lose their digits. An entity ends with probability exp(-gain). The way forth adds and multiplies
    probabilities, and never takes one from another.
    """
    places, types = _places(rows), losses.shape[1] // 2
    gains, odds = np.empty((len(losses), types)), np.empty((len(losses), types))
    fresh = np.empty((len(losses), 1 + types))  # log p(O) and log p(B-), where the word is not I-
    gain = np.zeros((rows[0], types))
    for count, place in zip(rows[::-1].tolist(), places[::-1], strict=True):
        step, gains[place] = losses[place], gain[:count]
        weights = np.concatenate([step[:, :1], step[:, 1::2] + gain[:count]], axis=1)
        total = np.logaddexp.reduce(weights, axis=1, keepdims=True)
        fresh[place] = weights - total
        odds[place] = step[:, 2::2] + gain[:count] - total  # log of p(I-) : p(not I-), where I- may stand
        gain[:count] = np.logaddexp(0.0, odds[place])
    fresh, goes_on, leaves = np.exp(fresh), np.exp(-np.logaddexp(0.0, -odds)), np.exp(-np.logaddexp(0.0, odds))
    begins, outside, inside = np.empty_like(gains), np.ones(rows[0]), np.zeros((rows[0], types))
    for count, place in zip(rows.tolist(), places, strict=True):
        not_inside = outside[:count] + (inside[:count] * leaves[place]).sum(axis=1)
        begins[place] = not_inside[:, None] * fresh[place, 1:]
        outside[:count] = not_inside * fresh[place, 0]
        inside[:count] = begins[place] + inside[:count] * goes_on[place]
    return _Chances(begins, goes_on, np.exp(-gains))


def _free_chances(losses: np.ndarray, rows: np.ndarray) -> _Chances:
    """Those of words that know nothing of each other."""
    shares = softmax(losses)
    not_inside = shares @ (1.0 - np.eye(losses.shape[1]))[:, 2::2]  # a sum keeps the digits that 1 - share loses
    ends = np.ones_like(not_inside)
    later = np.arange(rows[0], len(losses))  # words that are not a sentence's first
    ends[later - np.repeat(rows[:-1], rows[1:])] = not_inside[later]
    return _Chances(shares[:, 1::2], shares[:, 2::2], ends)


def _products(
    chances: _Chances, rows: np.ndarray, row: np.ndarray, start: np.ndarray, stop: np.ndarray, kind: np.ndarray
) -> np.ndarray:
    """Probabilities of entities, float64 (entities,), in rows of a batch, with words counted within the sentence."""
    above = np.cumsum(rows) - rows  # the batch's words at earlier places
    products = chances.begins[above[start] + row, kind] * chances.ends[above[stop - 1] + row, kind]
    more = stop - start - 1
    entity = np.repeat(np.arange(len(row)), more)
    word = np.arange(len(entity)) - np.repeat(np.cumsum(more) - more, more) + start[entity] + 1
    np.multiply.at(products, entity, chances.goes_on[above[word] + row[entity], kind[entity]])
    return np.minimum(products, 1.0)  # rounding can give 1.0000000000000002


# --- Checks -----------------------------------------------------------------------------------------------------------


def _checked(logits: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays, if they fit each other and every logit is finite."""
    logits, lengths = np.asarray(logits), np.asarray(lengths, dtype=np.int64)
    if logits.ndim != 2 or logits.shape[1] % 2 == 0:
        raise ValueError(f"logits of shape {logits.shape}, not (words, 1 + 2 · types)")
    if lengths.ndim != 1 or (lengths < 0).any() or lengths.sum() != len(logits):
        raise ValueError(f"lengths of {lengths.sum()} words in {lengths.size} sentences, but logits of {len(logits)}")
    # Comparing with nan is False. Least and greatest need no second array as large as the first, and are made Python's
    # own floats, as 1e300 becomes infinite next to a float32.
    least, greatest = float(logits.min(initial=0.0)), float(logits.max(initial=0.0))
    if not -GREATEST_LOGIT <= least <= greatest <= GREATEST_LOGIT:
        finite = (np.abs(logits.astype(np.float64)) <= GREATEST_LOGIT).all(axis=1)
        raise ValueError(f"word {np.argmin(finite)}: not all of its logits are finite numbers")
    return logits, lengths


def _check_entities(entities: list[np.ndarray], firsts: np.ndarray, lengths: np.ndarray, types: int) -> None:
    """Refuse an entity that no sentence could hold."""
    if any(numbers.ndim != 1 or len(numbers) != len(entities[0]) for numbers in entities):
        raise ValueError(f"entities of shapes {[numbers.shape for numbers in entities]}")
    sentence, start, stop, kind = entities
    known = (sentence >= 0) & (sentence < len(lengths)) & (kind >= 0) & (kind < types)
    of = np.where(known, sentence, 0)
    if len(lengths):
        known &= (firsts[of] <= start) & (start < stop) & (stop <= firsts[of] + lengths[of])
    if not known.all():
        wrong = int(np.argmin(known))
        raise ValueError(
            f"entity {wrong}: words {start[wrong]} to {stop[wrong]} of type {kind[wrong]} are not in sentence "
            f"{sentence[wrong]} of {len(lengths)}, with {types} types"
        )
