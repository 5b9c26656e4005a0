"""What an entity run leaves beside its weights: strict scores, predictions, pictures, the card's tables."""

import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from two_stage.data.tables import told
from two_stage.data.tag_schemes import tag_names
from two_stage.data.tagged_sentences import Sentences
from two_stage.results.pictures import draw_confusion_matrix
from two_stage.results.report import Findings, markdown_cell
from two_stage.results.score_tables import Table, draw_training, draw_trust, reliability_table, write_tables
from two_stage.scoring.calibration import Reliability, calibration_scores, reliability
from two_stage.scoring.decoding import best_tags, entity_probabilities
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
from two_stage.scoring.split_scores import check_logits, with_intervals

LEAST_DOCUMENTS = 20  # of fewer, drawn with replacement, no interval can be trusted; sentences are drawn instead
CURVES = ("f1", "precision", "recall")
# Python's splitlines, and editors, end a line at these too, which JSON leaves as they are
LINE_ENDS = str.maketrans({end: f"\\u{ord(end):04x}" for end in "\u0085\u2028\u2029"})
KINDS = {
    "right": "right",
    "type": "of another type",
    "boundary": "with other ends",
    "boundary_and_type": "other ends, other type",
    "missed": "missed",
    "invented": "invented",
}


class EntitySplit:
    """The answers to one split: called with what `row_results` kept, it remembers each word's logits and tag."""

    def __init__(
        self,
        split: Sentences,
        rows: Dataset,
        types: list[str],
        numbers: np.ndarray,
        legal: bool = True,
        is_calibrated: bool = False,
    ) -> None:
        """Begin without answers.

        Args:
            split: sentences, all of which count.
            rows: what the model reads of them.
            types: of entities, sorted.
            numbers: the model's label number of each tag O, B-A, I-A, B-B … : int (tags,).
            legal: whether only legal sequences of tags may come out.
            is_calibrated: whether the folder that predicts was, when it was trained.
        """
        self.split, self.rows, self.types, self.numbers = split, rows, types, numbers
        self.legal, self.is_calibrated, self.temperature = legal, is_calibrated, 1.0
        self.lengths = split.lengths
        self.logits = np.zeros((int(self.lengths.sum()), len(numbers)), dtype=np.float32)
        self.decode()

    @property
    def is_labelled(self) -> bool:
        """Whether there is something to score by."""
        return self.split.gold is not None

    @property
    def logits_and_targets(self) -> tuple[np.ndarray, np.ndarray]:
        """What a temperature is fitted on: (words, tags), and the tag of every word."""
        return self.logits, self.gold_tags

    @property
    def gold_tags(self) -> np.ndarray:
        """The tag number of every word: int (words,)."""
        assert self.split.gold is not None
        return self.split.gold

    def divide(self, temperature: float) -> None:
        """Take the logits for those of the model whose head was divided by a temperature."""
        self.temperature, self.logits = temperature, self.logits / np.float32(temperature)
        self.decode()

    def decode(self) -> None:
        """Choose the tags that the logits speak for, and find the entities in them."""
        self.tags = best_tags(self.logits, self.lengths, self.legal)
        self.found = find_entities(self.tags, self.lengths)
        # worked out when first asked for, and kept, as scores, predictions and pictures all ask
        self._scores: dict[str, float] = {}
        self._probabilities: dict[float, np.ndarray] = {}  # by temperature

    def __call__(self, evaluated: Any) -> dict[str, float]:
        """The mean loss of a word in nats, and strict scores of its entities; of words without tags nothing.

        Args:
            evaluated: `predictions`, the logits of the words that a row answers for: (rows, words, labels);
                `label_ids`, the first of them and how many they are: (rows, 2).

        Raises:
            FloatingPointError: see `check_logits`.
        """
        for row, (first, count) in zip(evaluated.predictions, evaluated.label_ids.tolist(), strict=True):
            self.logits[first : first + count] = row[:count, self.numbers]
        check_logits(self.logits)
        self.decode()
        return self.scores() if self.is_labelled else {}

    def scores(self) -> dict[str, float]:
        """All scores of the split as it is; one that is 0 / 0, where there is no entity, is 0."""
        if not self._scores:
            predicted, gold = self.named(self.tags), self.named(self.gold_tags)
            self._scores = EntityScores(keep_in_memory=True).compute(predictions=predicted, references=gold)
        return {"loss": self.loss()} | self._scores

    def named(self, tags: np.ndarray) -> list[list[str]]:
        """The names of tag numbers, int (words,), a list a sentence."""
        names, stops = tag_names(self.types), np.cumsum(self.lengths).tolist()
        flat = [names[tag] for tag in tags.tolist()]
        return [flat[start:stop] for start, stop in zip([0, *stops], stops, strict=False)]

    def loss(self, temperature: float = 1.0) -> float:
        """The mean negative log-likelihood of the words' tags, in nats; temperature as in `probabilities`."""
        logits = self.logits * np.float32(temperature)
        logits -= logits.max(axis=1, keepdims=True)
        log_sums = np.log(np.exp(logits).sum(axis=1, dtype=np.float64))
        return float((log_sums - logits[np.arange(len(logits)), self.gold_tags]).mean())

    @cached_property
    def gold(self) -> Entities:
        """The entities that are there."""
        return find_entities(self.gold_tags, self.lengths)

    def counts(self) -> np.ndarray:
        """Right, found and gold entities of each sentence and type: int (sentences, types, 3)."""
        return entity_counts(self.gold, self.found, len(self.lengths), len(self.types))

    def probabilities(self, temperature: float = 1.0) -> np.ndarray:
        """How probable the model takes each entity that it found to be, its type and both its ends: (entities,).

        Args:
            temperature: to multiply the logits by; `self.temperature` gives what was before calibration.
        """
        if temperature not in self._probabilities:
            self._probabilities[temperature] = entity_probabilities(
                self.logits * np.float32(temperature), self.lengths, *self.found, constrained=self.legal
            )
        return self._probabilities[temperature]

    def item_counts(self) -> np.ndarray:
        """Counts of each item that the bootstrap draws, a document where enough are marked, else a sentence."""
        return documents_apart(self.counts(), self.split.documents)

    def final_scores(self, prefix: str) -> dict[str, float]:
        """All scores, the ends of their 95 % intervals, conlleval's figures, and how far probabilities are off.

        The loss and the calibration error are those of the model as it is now; …_uncalibrated is what they were before.

        Args:
            prefix: of the names, `eval_` or `test_`. The intervals are over sentences, or over documents where 20 at
                least are marked; the calibration error is that of the entities that were found.
        """
        counts = self.item_counts()
        scores = with_intervals(
            self.scores(), lambda draws: entity_scores(resampled_counts(counts, draws)), len(counts), prefix
        )
        conlleval = conlleval_scores(self.gold_tags, self.tags, self.lengths, len(self.types))
        scores |= {f"{prefix}conlleval_{name}": value for name, value in conlleval.items()}
        temperatures = {"": 1.0} | ({"_uncalibrated": self.temperature} if self.temperature != 1 else {})
        for name, temperature in temperatures.items():
            scores[f"{prefix}loss{name}"] = self.loss(temperature)
            if len(self.found.start):
                error = calibration_scores(*self.sure_and_right(temperature))["calibration_error"]
                scores[f"{prefix}calibration_error{name}"] = float(error)
        return scores

    def sure_and_right(self, temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """Of each entity that was found its probability, and 1 where it is right: float (entities, 1) each."""
        gold_at = np.zeros((2, len(self.tags)), dtype=np.int64)  # where a gold entity begins, its end and its type
        gold_at[:, self.gold.start] = self.gold.stop, self.gold.kind
        is_right = (gold_at[:, self.found.start] == (self.found.stop, self.found.kind)).all(axis=0)
        return self.probabilities(temperature)[:, None], is_right[:, None].astype(np.float64)

    def reliability(self, temperature: float = 1.0) -> Reliability:
        """How often entities are right that are so probable."""
        return reliability(*self.sure_and_right(temperature))


def documents_apart(counts: np.ndarray, documents: np.ndarray | None) -> np.ndarray:
    """Counts of each item that a bootstrap draws: a document where enough are marked, else a sentence.

    Sentences of one document belong together: what is right in one is often right in the others.

    Args:
        counts: of each sentence, int (sentences, types, 3).
        documents: the number of each sentence's document, int (sentences,); None where none are marked.

    Returns:
        int (items, types, 3).
    """
    if documents is None or len(np.unique(documents)) < LEAST_DOCUMENTS:
        return counts
    items, item = np.unique(documents, return_inverse=True)
    sums = np.zeros((len(items), *counts.shape[1:]), dtype=np.int64)
    np.add.at(sums, item, counts)
    return sums


def write_predictions(path: Path, scored: EntitySplit) -> dict[str, int]:
    """Write predictions.jsonl: of each row its words, one predicted tag a word, the text, and entities in it.

    Args:
        path: where it goes.
        scored: the split that was predicted.

    Returns:
        How many entities of each type were found.
    """
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(prediction_lines(scored))
    counts = np.bincount(scored.found.kind, minlength=len(scored.types))
    return dict(zip(scored.types, counts.tolist(), strict=True))


def prediction_lines(scored: EntitySplit) -> Iterator[str]:
    """The line of each row in predictions.jsonl."""
    split, predicted, entities = scored.split, scored.named(scored.tags), spans_found(scored)
    gold = scored.named(scored.gold_tags) if scored.is_labelled else []
    for number, sentence in enumerate(split.sentences):
        row: dict[str, Any] = {"tokens": sentence.words, "predicted_tags": predicted[number]}
        if gold:
            row["gold_tags"] = gold[number]
        row |= {"text": sentence.text, "entities": entities[number]}
        if split.documents is not None:
            row["document"] = int(split.documents[number])
        yield json.dumps(row, ensure_ascii=False).translate(LINE_ENDS) + "\n"


def spans_found(scored: EntitySplit) -> list[list[dict[str, Any]]]:
    """Of each sentence the entities that were found: where they stand in its text, their type, and how probable."""
    rows: list[list[dict[str, Any]]] = [[] for _ in scored.split.sentences]
    found, stops = scored.found, np.cumsum(scored.lengths)
    before = (stops - scored.lengths)[found.sentence]  # words of the sentences before
    columns = (found.sentence, found.start - before, found.stop - 1 - before, found.kind, scored.probabilities())
    for number, first, last, kind, share in zip(*(column.tolist() for column in columns), strict=True):
        sentence = scored.split.sentences[number]
        start, stop = int(sentence.spans[first, 0]), int(sentence.spans[last, 1])
        entity = {"start": start, "end": stop, "label": scored.types[kind], "text": sentence.text[start:stop]}
        rows[number].append(entity | {"score": round(share, 6)})
    return rows


def entity_table(scored: EntitySplit) -> Table:
    """What label_scores.json says of a split: each type's scores, what became of its entities, and the calibration."""
    columns = {name: value.tolist() for name, value in type_scores(scored.counts().sum(axis=0)).items()}
    columns |= type_intervals(scored) | type_conlleval(scored)
    kinds = {name: value.tolist() for name, value in error_kinds(scored.gold, scored.found, len(scored.types)).items()}
    of_type = [
        {name: column[i] for name, column in columns.items()} | {"became": {name: kinds[name][i] for name in KINDS}}
        for i in range(len(scored.types))
    ]
    table: Table = {"labels": dict(zip(scored.types, of_type, strict=True))}
    # rows gold, columns found; the last of both is none
    table["confusion_matrix"] = entity_confusion(scored.gold, scored.found, len(scored.types)).tolist()
    if len(scored.found.start):
        table["reliability"] = reliability_table(scored.reliability())
    return table


def type_intervals(scored: EntitySplit) -> dict[str, list[float]]:
    """The ends of the 95 % interval of each type's scores, as lists over the types: f1_low, f1_high, and so on."""
    counts, names = scored.item_counts(), ("precision", "recall", "f1")

    def statistic(draws: np.ndarray) -> dict[str, np.ndarray]:
        """Each score of each type, of each resample."""
        found = type_scores(resampled_counts(counts, draws))
        return {f"{name} {i}": found[name][:, i] for name in names for i in range(len(scored.types))}

    ends = bootstrap_intervals(statistic, len(counts))
    return {
        f"{name}_{end}": [ends[f"{name} {i}"][side] for i in range(len(scored.types))]
        for name in names
        for side, end in enumerate(("low", "high"))
    }


def type_conlleval(scored: EntitySplit) -> dict[str, list[float]]:
    """Each type's scores as conlleval reads tags, an entity that begins with I- included, as lists over the types."""
    gold, found = (find_entities(tags, scored.lengths, lenient=True) for tags in (scored.gold_tags, scored.tags))
    counts = entity_counts(gold, found, len(scored.lengths), len(scored.types)).sum(axis=0)
    return {f"conlleval_{name}": type_scores(counts)[name].tolist() for name in ("precision", "recall", "f1")}


def write_label_scores(
    folder: Path, scored: dict[str, EntitySplit], log_history: list[dict[str, float]], facts: dict[str, str]
) -> Findings:
    """Write label_scores.json and the pictures.

    Args:
        folder: the run's.
        scored: the splits that were predicted, by name; of those with tags the last is shown.
        log_history: of the trainer's state.
        facts: name → value, for the model card.

    Returns:
        What the model card says of all this.
    """
    tagged = {name: split for name, split in scored.items() if split.is_labelled and split.types}
    sections = write_tables(folder, tagged, entity_table, draw_scores)
    return Findings(facts, (*sections, *draw_training(folder, log_history, CURVES)))


def draw_scores(folder: Path, name: str, scored: EntitySplit, table: Table) -> list[str]:
    """Draw who was taken for whom, and whether probabilities mean what they say; returns the card's sections."""
    counts = np.ma.masked_array(table["confusion_matrix"])
    counts[-1, -1] = np.ma.masked  # what is no entity and was not found is not counted
    title = f"Which type was taken for which, whatever the ends: {len(scored.gold.start):,} {name} entities"
    draw_confusion_matrix(folder / "confusion_matrix.png", counts, [*scored.types, "(none)"], title, "entities")
    sections = [f"## Types\n\n{type_table(name, table)}\n\n![Confusion matrix](confusion_matrix.png)"]
    if found := len(scored.found.start):
        sections.append(draw_trust(folder, scored, f"{found:,} entities found in {name}", "entities"))
    return sections


def type_table(name: str, table: Table) -> str:
    """Each type's scores, and what became of its entities, as Markdown."""
    kinds = list(KINDS.values())
    lines = [f"| type ({name}) | precision | recall | F1 | entities | {' | '.join(kinds)} |"]
    lines.append("|---" * (5 + len(kinds)) + "|")
    for kind, found in table["labels"].items():
        shares = " | ".join(f"{found[key]:.3f}" for key in ("precision", "recall"))
        shares += f" | {found['f1']:.3f} [{found['f1_low']:.3f}, {found['f1_high']:.3f}]"
        became = " | ".join(str(found["became"][key]) for key in KINDS)
        lines.append(f"| {markdown_cell(kind)} | {shares} | {found['support']} | {became} |")
    return "\n".join(lines)


def spoken_counts(found: dict[str, int]) -> str:
    """How many entities of each type, in words."""
    return ", ".join(f"{count:,} {told([kind])}" for kind, count in found.items() if count) or "no entity"
