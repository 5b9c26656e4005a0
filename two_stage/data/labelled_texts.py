"""Labelled files → what run_sentiment.py learns from: ordered shades, target shares, and rows of token ids.

A label is a name, a score that falls between bins, or annotators' shares; whichever it is, a text gets the number of
its shade, to be scored by, and a target, one number an output of the model, to be learned from.
"""

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from two_stage.checkpointing.handoff import Checkpoint, settled_reading
from two_stage.command_line.exits import Refusal, say
from two_stage.data.duplicates import check_leakage, conflicting_rows
from two_stage.data.sources import (
    ALL_ROWS,
    Sample,
    SampleFlags,
    Source,
    SourceFlags,
    sample_rows,
    split_sources,
    training_sample,
)
from two_stage.data.tables import PlacedRow, column_value, number_value, text_value, told
from two_stage.training.batches import longest_first, pad_rows
from two_stage.training.losses import class_weights

SENTIMENT_MODELS = ("BertForSequenceClassification", "SentimentModel")
COLUMNS = frozenset({"text", "text_pair", "gold", "predicted"})  # of predictions.csv, beside the labels


class TextFlags(SourceFlags, SampleFlags, Protocol):
    """The flags that say what is read; the script's settings have them."""

    text_column: str
    text_pair_column: str | None
    label_column: str
    labels: list[str] | None
    score_column: str | None
    bins: list[float] | None
    soft_labels: bool
    max_length: int | None
    long_text: str | None
    stride: int | None
    allow_leakage: bool
    loss: str
    class_weights: list[str] | None


# What a text that is cut has lost; in windows, only a second text is cut
LOST = {
    "head": "end (--long_text head_tail or windows reads more)",
    "head_tail": "middle",
    "windows": "second text's end",
}

# --- Labels and scores → targets --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scale:
    """The shades in their order, and how a score falls into them."""

    labels: list[str]  # none: a score is predicted, and there are no bins to name it
    bins: list[float] | None = None
    is_regression: bool = False

    @property
    def outputs(self) -> int:
        """How many numbers the head gives."""
        return 1 if self.is_regression else len(self.labels)

    def shade(self, score: float | np.ndarray) -> Any:
        """The number of the shade that a score falls into; one on an edge falls into the higher shade."""
        return np.digitize(score, self.bins or [])

    def place(self, score: float) -> float:
        """Where a score lies among the shades: 2.0 in the middle of the third, 2.5 on the edge to the fourth.

        Straight lines lead from edge to edge; beyond the outer edges shades are as wide as their neighbours.
        """
        edges = np.array(self.bins)
        low, high = 2 * edges[0] - edges[1], 2 * edges[-1] - edges[-2]
        place = np.interp(score, [low, *edges, high], np.arange(len(edges) + 2) - 0.5)
        return float(place.clip(0, len(edges)))


def label_scale(settings: TextFlags, checkpoint: Checkpoint) -> Scale:
    """The shades in their order: as typed, or those of a trained folder.

    Raises:
        Refusal: neither, and the message lists the labels found, whose order only the user knows; one label twice;
            labels and bins that do not fit; or others than a trained folder's.
    """
    trained, train = trained_scale(checkpoint), split_sources(settings).get("train")
    labels, is_regression = settings.labels, settings.loss == "regression"
    if labels and (len(set(labels)) < len(labels) or len(labels) == 1 or "" in labels):
        parted = "; part them by spaces" if len(labels) == 1 and "," in labels[0] else ""
        raise Refusal(f"--labels {', '.join(labels)}: two at least are needed, none empty and none twice{parted}")
    if clashing := COLUMNS.intersection(labels or (trained.labels if trained else [])):
        raise Refusal(f"label {min(clashing)}: is a column of predictions.csv; call the label something else")
    if trained:
        asked = Scale(labels or trained.labels, settings.bins or trained.bins, is_regression or trained.is_regression)
        if asked != trained:
            raise Refusal(f"checkpoint {checkpoint.name}: was trained for {spoken_scale(trained)}, in this order")
        if train and trained.is_regression and not is_regression:
            raise Refusal(f"checkpoint {checkpoint.name}: predicts scores; to train it further, add --loss regression")
        if settings.score_column and not trained.is_regression and not trained.bins:
            raise Refusal(f"checkpoint {checkpoint.name}: was trained for labels by name; leave out --score_column")
        check_scores(settings, trained)
        return trained
    if not train:
        raise Refusal(f"checkpoint {checkpoint.name}: is no sentiment model, and there is no --train_file to make one")
    if labels or settings.score_column:
        scale = Scale(labels or [], settings.bins, is_regression)
        check_scores(settings, scale)
        return scale
    if settings.soft_labels:
        raise Refusal("give --labels in their order, worst first: each is the name of a column with its shares")
    found = sorted({label_name(column_value(row, settings.label_column, "label_column")) for row in train.rows()})
    more = f" and {len(found) - 20} more; are they scores (--score_column)?" if len(found) > 20 else ""
    raise Refusal(f"give --labels in their order, worst first; found: {told(found[:20])}{more}")


def check_scores(settings: TextFlags, scale: Scale) -> None:
    """Refuse a --score_column whose scores fall into no shade, or into shades of no width."""
    labels, bins = scale.labels, scale.bins or []
    if not settings.score_column or (scale.is_regression and not labels and not bins):
        return
    if len(labels) != len(bins) + 1 or not bins:
        other = "" if bins else ", or leave them out" if scale.is_regression else ", or take --loss regression"
        raise Refusal(
            f"--score_column: {len(labels)} --labels and {len(bins)} --bins; give the labels, worst first, and one "
            f"score fewer, where each ends and the next begins{other}"
        )
    if settings.soft_labels and len(bins) < 2:
        raise Refusal("--soft_labels from a score: needs two --bins at least, which say how wide a shade is")


def trained_scale(checkpoint: Checkpoint) -> Scale | None:
    """The scale that a sentiment model was trained for, by this script or another; None of an encoder."""
    labels, config = checkpoint.trained_labels(*SENTIMENT_MODELS), checkpoint.config
    if not labels:
        return None
    if config.problem_type == "multi_label_classification":
        raise Refusal(f"checkpoint {checkpoint.name}: gives each text several labels; here each text has one")
    bins = getattr(config, "bins", None)
    if config.problem_type == "regression" or len(labels) == 1:
        return Scale(getattr(config, "shades", None) or [], bins, is_regression=True)
    return Scale(labels, bins)


def spoken_scale(scale: Scale) -> str:
    """A scale in words."""
    what = "scores" if scale.is_regression else "the labels"
    return f"{what} {', '.join(scale.labels)}".strip() + (f" with --bins {scale.bins}" if scale.bins else "")


def row_target(row: PlacedRow, settings: TextFlags, scale: Scale) -> tuple[int, list[float]]:
    """The number of a row's shade, and what the model's outputs are held against.

    Returns:
        The shade, and of each output: a score alone for regression, else a share a label, which sum to 1.

    Raises:
        Refusal: a column is missing, a score is no number, a label is none of the scale's, or shares that are none.
    """
    if settings.score_column:
        score = number_value(row, settings.score_column, "score_column")
        shade = int(scale.shade(score))
        if scale.is_regression:
            return shade, [score]
        place = scale.place(score) if settings.soft_labels else shade
        return shade, [max(0.0, 1 - abs(place - i)) for i in range(scale.outputs)]
    if scale.is_regression:
        raise Refusal(f"{row[0]}: the model predicts scores; name the column that has them with --score_column")
    if settings.soft_labels:
        shares = [number_value(row, label, "labels") for label in scale.labels]
        if min(shares) < 0 or not 0 < sum(shares) < math.inf:
            raise Refusal(f"{row[0]}: shares {shares} of the labels; none may be negative, and some must be above 0")
        return int(np.argmax(shares)), [share / sum(shares) for share in shares]
    value = column_value(row, settings.label_column, "label_column")
    if label_name(value) not in scale.labels:
        raise Refusal(f"{row[0]}: {unknown_label(value, scale.labels)}")
    shade = scale.labels.index(label_name(value))
    return shade, [float(i == shade) for i in range(scale.outputs)]


def unknown_label(value: Any, labels: list[str]) -> str:
    """What is said of a label that is none of the scale's, and what may have been meant."""
    name = label_name(value)
    line = f"label {value!r:.60} is none of {', '.join(labels)} (--labels)"
    if not name.strip():
        return f"{line}; label the row, or take it out"
    meant = [label for label in labels if label.casefold() == name.strip().casefold()]
    return f"{line}; spaces and capitals count: is it {meant[0]!r}?" if meant else f"{line}; mend it, or name it there"


def label_name(value: Any) -> str:
    """A label as --labels has it; tables hold 2 as 2.0 where a row has none, and JSON writes true."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else str(value)


def label_columns(settings: TextFlags, scale: Scale) -> list[str]:
    """The columns that say a row's label."""
    if settings.score_column or scale.is_regression:
        return [settings.score_column] if settings.score_column else []
    return scale.labels if settings.soft_labels else [settings.label_column]


# --- Texts → token ids ------------------------------------------------------------------------------------------------


class Reading(NamedTuple):
    """How much of a text the model reads, and how; a trained folder keeps it."""

    max_length: int = 128  # word pieces a row
    long_text: str = "head"
    stride: int = 32  # word pieces that neighbouring windows share

    def flags(self) -> dict[str, Any]:
        """The flags that say so."""
        return {
            name: value for name, value in self._asdict().items() if name != "stride" or self.long_text == "windows"
        }


def text_reading(settings: TextFlags, checkpoint: Checkpoint) -> Reading:
    """How texts are read: as the flags say, else as a trained folder was trained, else by default.

    Raises:
        Refusal: rows longer than the model's positions.
    """
    kept = settled_reading(Reading(), vars(settings), checkpoint)
    if settings.stride is not None and kept.long_text != "windows":
        raise Refusal(f"--stride {settings.stride}: only --long_text windows has one")
    return kept


@dataclass
class Texts:
    """One split: texts in the file's order, what they are held against, and what the model reads of them."""

    texts: list[str]
    pairs: list[str] | None
    places: list[str]  # where each text came from
    gold: np.ndarray | None  # the shade of each text: int (texts,); None: the file has no labels
    targets: np.ndarray  # float (texts, outputs)
    # input_ids, token_type_ids of pairs, text (its number), targets, weights
    rows: Dataset = field(default_factory=lambda: Dataset.from_dict({}))
    cut: int = 0  # texts that lost a part
    bare: list[int] = field(default_factory=list)  # texts that the tokenizer finds nothing in

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def row_places(self) -> list[str]:
        """Where the text of each row came from; of one text, its windows, it is the same."""
        return [self.places[text] for text in self.rows["text"][:]]

    @property
    def whole(self) -> list[str]:
        """All that is read of each row, as one text."""
        return [" | ".join(both) for both in zip(self.texts, self.pairs, strict=True)] if self.pairs else self.texts


def read_texts(source: Source, settings: TextFlags, scale: Scale, labelled: bool, sample: Sample = ALL_ROWS) -> Texts:
    """The texts of a split and their labels.

    Args:
        source: labelled rows.
        settings: names of the columns.
        scale: the shades.
        labelled: whether a file without labels is refused.
        sample: which rows to take; by default all.

    Raises:
        Refusal: no row, a column is missing, a text is empty, or a label is none of the scale's.
    """
    rows = sample_rows(source, sample)
    if not rows:
        raise Refusal(f"{source.name}: no row in it; write some, or leave the file out")
    texts = [text_value(row, settings.text_column, "text_column") for row in rows]
    pairs = second_texts(rows, settings)
    columns = label_columns(settings, scale)
    is_name = not (settings.score_column or settings.soft_labels or "-1" in scale.labels)
    hidden = (None, "", -1) if is_name else (None, "")  # -1: of a data set's test split
    said = [row for row in rows if labelled or any(row[1].get(column) not in hidden for column in columns)]
    found = [row_target(row, settings, scale) for row in said]
    if found and len(found) < len(rows):
        raise Refusal(f"{source.name}: {len(found)} of {len(rows)} rows have a label; label all or none")
    gold = np.array([shade for shade, _ in found]) if found else None
    targets = np.array([target for _, target in found]) if found else np.zeros((len(rows), scale.outputs))
    return Texts(texts, pairs, [place for place, _ in rows], gold, targets)


def second_texts(rows: list[PlacedRow], settings: TextFlags) -> list[str] | None:
    """The second text of each row, where rows have two."""
    column = settings.text_pair_column
    return [text_value(row, column, "text_pair_column") for row in rows] if column else None


def check_text(row: PlacedRow, settings: TextFlags) -> None:
    """Refuse a row that has not the text, or the two, that the model reads."""
    text_value(row, settings.text_column, "text_column")
    second_texts([row], settings)


def texts_to_answer(
    rows: list[PlacedRow], settings: TextFlags, scale: Scale, reading: Reading, tokenizer: PreTrainedTokenizerBase
) -> Texts:
    """Rows, whatever their labels, as the model reads them; the arguments are those of `load_splits`."""
    texts = [text_value(row, settings.text_column, "text_column") for row in rows]
    targets = np.zeros((len(rows), scale.outputs))
    split = Texts(texts, second_texts(rows, settings), [place for place, _ in rows], None, targets)
    tokenize_texts(split, reading, tokenizer, np.ones(len(rows)))
    split.rows = longest_first(split.rows)
    return split


def keep(pieces: list[int], room: int, reading: Reading) -> list[list[int]]:
    """What the model reads of a text of so many word pieces: one row, or several windows over all of it.

    Args:
        pieces: a text's token ids.
        room: word pieces that fit a row.
        reading: its long_text and stride. A quarter from the head and the rest from the tail beat the head alone in
            Sun et al. 2019, section 5.3.1.

    Returns:
        One list of ids a row, each `room` at most.
    """
    if len(pieces) <= room or reading.long_text == "head":
        return [pieces[:room]]
    if reading.long_text == "head_tail":
        return [pieces[: room // 4] + pieces[room // 4 - room :]]
    shared = min(reading.stride, room // 2)
    return [pieces[start : start + room] for start in range(0, len(pieces) - shared, room - shared)]


def tokenize_texts(split: Texts, reading: Reading, tokenizer: PreTrainedTokenizerBase, weights: np.ndarray) -> None:
    """Give a split its rows: [CLS] text [SEP], or [CLS] text [SEP] second text [SEP], as long as the text.

    Rows of one text, its windows, share its weight; over all rows the mean weight is 1. A second text is read whole
    where the row has room for both, else half of that room at least, and of two long heads as `truncation=True` does.

    Args:
        split: as read; gets `rows`, `cut` and `bare`.
        reading: how much of a text.
        tokenizer: the checkpoint's.
        weights: how much each text counts in the loss: float (texts,).
    """
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    pieces = word_pieces(split.texts, tokenizer)
    seconds = word_pieces(split.pairs, tokenizer) if split.pairs else [[] for _ in pieces]
    columns: dict[str, list[Any]] = {name: [] for name in ("input_ids", "token_type_ids", "text", "targets", "weights")}
    split.bare = [
        number for number, (first, second) in enumerate(zip(pieces, seconds, strict=True)) if not first + second
    ]
    for number, (first, second) in enumerate(zip(pieces, seconds, strict=True)):
        both = reading.max_length - 3
        odd = reading.long_text != "head" or len(second) >= len(first)  # as a pipeline shares out the odd piece
        most = max((both + odd) // 2, both - len(first))
        tail = [*second[:most], sep] if split.pairs else []
        room = reading.max_length - 2 - len(tail)
        parts = keep(first, room, reading)
        split.cut += (len(first) > room and reading.long_text != "windows") or len(second) > most
        for part in parts:
            columns["input_ids"].append([cls, *part, sep, *tail])
            columns["token_type_ids"].append([0] * (len(part) + 2) + [1] * len(tail))
            columns["text"].append(number)
            columns["targets"].append(split.targets[number].tolist())
            columns["weights"].append(float(weights[number]) / len(parts))
    if not split.pairs:
        del columns["token_type_ids"]
    # Of mean 1, so that a step is divided by its rows: divided by its weights, a step of light rows would count as much
    # as one of heavy ones, and rows of one length, which are often of one text, stand in one step.
    columns["weights"] = (np.array(columns["weights"]) / np.mean(columns["weights"])).tolist()
    split.rows = Dataset.from_dict(columns)


def word_pieces(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Token ids of each text, whole, without special tokens."""
    return tokenizer(
        texts, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
    )["input_ids"]


def load_splits(
    settings: TextFlags, scale: Scale, reading: Reading, tokenizer: PreTrainedTokenizerBase
) -> tuple[dict[str, Texts], dict[str, str]]:
    """The splits that were given: read, checked, also against each other, and tokenized.

    Returns:
        name → split, in the order train, validation, test; and facts on them for the model card.

    Raises:
        Refusal: see `read_texts`; or a text stands in two splits.
    """
    splits: dict[str, Texts] = {}
    for name, source in split_sources(settings).items():
        sample = training_sample(settings) if name == "train" else ALL_ROWS
        splits[name] = read_texts(source, settings, scale, labelled=name != "test", sample=sample)
    texts = {name: split.whole for name, split in splits.items()}
    copies = check_leakage(texts, {name: split.places for name, split in splits.items()}, settings.allow_leakage)
    facts = {}
    for name, split in splits.items():
        weights = np.ones(len(split))
        if name == "train" and split.gold is not None:
            weights = class_weights(settings.class_weights, len(scale.labels), split.gold)[split.gold]
        tokenize_texts(split, reading, tokenizer, weights)
        if name != "train":  # rows of like length share a batch; `text` says whose they are
            split.rows = longest_first(split.rows)
        facts[name] = split_line(split, scale, label_columns(settings, scale))
        say(f"{name}: {facts[name]}{split_warnings(name, split, scale, reading)}")
    if copies:
        facts["texts in two splits"] = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in copies.items())
    return splits, facts


def split_line(split: Texts, scale: Scale, columns: list[str]) -> str:
    """How many texts a split holds, and how many of each label; `columns` are those that would have had them."""
    if split.gold is None:
        counted = f"no labels (column {', '.join(columns)})" if columns else "no --score_column"
    elif scale.labels:
        counts = np.bincount(split.gold, minlength=len(scale.labels))
        counted = ", ".join(f"{count} {label}" for label, count in zip(scale.labels, counts, strict=True))
    else:
        counted = f"scores from {split.targets.min():g} to {split.targets.max():g}"
    return f"{len(split):,} texts: {counted}"


def split_warnings(name: str, split: Texts, scale: Scale, reading: Reading) -> str:
    """How many texts of a split are not read whole, and what in it is odd; often nothing."""
    warnings = ""
    if split.cut:
        warnings += f"; {split.cut:,} are longer than --max_length {reading.max_length} and lost their "
        warnings += LOST[reading.long_text]
    if split.bare:
        count, first = len(split.bare), split.places[split.bare[0]]
        warnings += f"\n! {count:,} texts have no word piece, but control characters alone, first {first}"
    if name == "train" and split.gold is not None and scale.labels:
        counts = np.bincount(split.gold, minlength=len(scale.labels))
        if missing := [label for label, count in zip(scale.labels, counts, strict=True) if not count]:
            warnings += f"\n! no training text is labelled {', '.join(missing)}: it will hardly ever be predicted"
        if odd := conflicting_rows(split.whole, split.gold.tolist()):
            places = " and ".join(split.places[i] for i in odd[0])
            warnings += f"\n! {len(odd)} training texts stand there twice with different labels, first {places}"
    return warnings


def collate(examples: list[dict[str, Any]], pad_token_id: int) -> dict[str, Tensor]:
    """Rows → a batch as long as its longest text."""
    padding = {
        name: value for name, value in (("input_ids", pad_token_id), ("token_type_ids", 0)) if name in examples[0]
    }
    return pad_rows(examples, padding, fixed=("text", "targets", "weights"))
