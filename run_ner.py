"""Stage two: fine-tune a BERT encoder to find entities.

    python run_ner.py --checkpoint outputs/quickstart/pretraining
    python run_ner.py --checkpoint outputs/news --train_file train.conll --validation_file dev.conll
    python run_ner.py --checkpoint outputs/ner --test_file new_sentences.jsonl --output_dir outputs/predicted

The model is BertForTokenClassification: every word's first word piece carries the word's IOB2 tag. Scores are strict:
an entity counts where its type and both its ends are right. Words that the model cannot read, behind --max_length or
without a word piece, are predicted O and scored as such, never dropped.
"""

import json
import math
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertForTokenClassification, PreTrainedTokenizerBase, set_seed

from two_stage.checkpoints import begin_run, left_as_it_is, open_run
from two_stage.handoff import Checkpoint, load_model, open_checkpoint, trace_lineage
from two_stage.recipe import Refusal, check_range, parse_flags, run_script, say
from two_stage.report import Card, finish_run
from two_stage.scores import EntityScores
from two_stage.tables import PlacedRow, broken_text, column_value, sample_rows
from two_stage.trainer import ExactTrainer, FineTuningArguments, check_freezing, pad_rows

SCRIPT, QUICKSTART = "run_ner.py", "recipes/quickstart/ner.yaml"
CARD = Card(
    "Entities",
    "from transformers import pipeline\n\n"
    'entities = pipeline("token-classification", model="FOLDER", aggregation_strategy="first")\n'
    'entities("Shares of Marlow Shipping rose in Oslo.")',
)
FORMATS = ("jsonl", "parquet", "conll", "bio")
NO_LABEL = -100  # what cross_entropy passes over
NO_TOKEN = -1  # a word that the model cannot read

# --- Settings ---------------------------------------------------------------------------------------------------------


@dataclass
class Settings:
    """What the entity model is made from."""

    checkpoint: str | None = field(
        default=None, metadata={"help": "stage one's folder, any BERT, or to predict a folder that this script made"}
    )
    train_file: list[str] | None = field(default=None, metadata={"help": "tagged sentences: jsonl, parquet, conll"})
    validation_file: list[str] | None = field(default=None, metadata={"help": "tagged sentences scored every epoch"})
    test_file: list[str] | None = field(
        default=None, metadata={"help": "sentences to predict; scored where they have tags"}
    )
    tokens_column: str = field(default="tokens", metadata={"help": "where a row has its words"})
    tags_column: str = field(default="ner_tags", metadata={"help": "where a row has its tags: O, B-TYPE, I-TYPE"})
    max_length: int = field(default=128, metadata={"help": "word pieces a sentence; words behind it are predicted O"})
    max_train_samples: int | None = field(default=None, metadata={"help": "sentences to train on, drawn at random"})
    check_only: bool = field(default=False, metadata={"help": "read and check; train nothing"})

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        check_range(self, 1, math.inf, "max_train_samples")


@dataclass
class NerArguments(FineTuningArguments):
    """2e-5 for the encoder, 5e-5 for the head, 4 epochs of 16 rows a step."""

    output_dir: str = field(default="outputs/ner", metadata={"help": "one run a folder"})


# --- Data: words and their tags → token ids and their labels ----------------------------------------------------------


@dataclass
class Sentences:
    """One split: sentences in the file's order, their tags, and what the model reads of them."""

    words: list[list[str]]
    gold: list[list[str]] | None  # None: the file has no tags
    rows: Dataset  # input_ids, labels, word_tokens


def read_sentences(
    paths: list[str], settings: Settings, tagged: bool, limit: int | None = None
) -> tuple[list[list[str]], list[list[str]] | None, list[str]]:
    """The sentences of a split, their tags, and the place that each came from.

    Args:
        paths: files of sentences.
        settings: names of the columns.
        tagged: whether a file without tags is refused.
        limit: sentences to take; None takes all.

    Raises:
        Refusal: no row, a column is missing, words that are none, as many tags as words in one row but not in another.
    """
    words: list[list[str]] = []
    tags: list[list[str]] = []
    places: list[str] = []
    for row in sample_rows(paths, limit):
        words.append(word_list(row, settings.tokens_column, "tokens_column"))
        places.append(row[0])
        if tagged or settings.tags_column in row[1]:
            tags.append(word_list(row, settings.tags_column, "tags_column"))
            if len(tags[-1]) != len(words[-1]):
                raise Refusal(f"{row[0]}: {len(words[-1])} tokens but {len(tags[-1])} tags; give every token its tag")
    if not words:
        raise Refusal(f"{', '.join(paths)}: no row in it")
    if tags and len(tags) < len(words):
        raise Refusal(f"{', '.join(paths)}: {len(tags)} of {len(words)} rows have tags; tag all or none")
    return words, tags or None, places


def word_list(row: PlacedRow, column: str, flag: str) -> list[str]:
    """A column's list of texts, at least one."""
    values = column_value(row, column, flag)
    if not isinstance(values, list) or not values or not all(isinstance(value, str) for value in values):
        raise Refusal(f'{row[0]}: column {column} must hold a list of texts such as ["O", "B-ORG"], at least one')
    if any(map(broken_text, values)):
        raise Refusal(f"{row[0]}: column {column} holds half of a character (a lone surrogate); mend the text")
    return values


def check_iob2(tags: list[str], place: str) -> None:
    """Refuse an I- that no B- or I- of its type stands before: IOB1 files begin entities so, and would score 0."""
    for before, tag in pairwise(["O", *tags]):
        if tag.startswith("I-") and before[2:] != tag[2:]:
            raise Refusal(f"{place}: tag {tag} follows {before}; in IOB2 an entity begins with B-{tag[2:]}")


def tag_names(tags: list[list[str]], places: list[str]) -> list[str]:
    """The label list of the training tags: O first, then B- and I- of each type in alphabetical order.

    Raises:
        Refusal: a tag that is not IOB2.
    """
    types = set()
    for sentence, place in zip(tags, places, strict=True):
        for tag in sentence:
            if tag != "O" and not (tag[:2] in ("B-", "I-") and tag[2:]):
                raise Refusal(f"{place}: tag {tag!r} is not IOB2; write O, B-TYPE or I-TYPE")
            types.add(tag[2:])
    return ["O"] + [f"{prefix}-{kind}" for kind in sorted(types - {""}) for prefix in "BI"]


def align_labels(
    words: list[list[str]], tag_ids: list[list[int]], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> Dataset:
    """Sentences of words → rows of token ids, with each word's label on the word's first piece.

    Args:
        words: sentences.
        tag_ids: a label number a word.
        tokenizer: a fast one.
        max_length: pieces a row; what is longer is cut.

    Returns:
        `input_ids`, `labels` (NO_LABEL on all but first pieces), and `word_tokens`: for each word where its first
        piece stands, or NO_TOKEN.
    """
    encoded = tokenizer(
        words, is_split_into_words=True, truncation=True, max_length=max_length, return_attention_mask=False
    )
    labels, word_tokens = [], []
    for i, sentence in enumerate(words):
        first = [NO_TOKEN] * len(sentence)
        row = [NO_LABEL] * len(encoded["input_ids"][i])
        for token, word in enumerate(encoded.word_ids(i)):
            if word is not None and first[word] == NO_TOKEN:
                first[word], row[token] = token, tag_ids[i][word]
        labels.append(row)
        word_tokens.append(first)
    return Dataset.from_dict({"input_ids": encoded["input_ids"], "labels": labels, "word_tokens": word_tokens})


def load_splits(settings: Settings, checkpoint: Checkpoint) -> tuple[dict[str, Sentences], list[str]]:
    """The splits that were given, read, checked and aligned; and the label list.

    Raises:
        Refusal: among others, a tag that training does not have.
    """
    splits: dict[str, Sentences] = {}
    trained = checkpoint.trained_labels("BertForTokenClassification")
    if not trained and not settings.train_file:
        raise Refusal(f"checkpoint {checkpoint.name}: is no entity model, and there is no --train_file to make one")
    labels = trained or []
    for name in ("train", "validation", "test"):
        if paths := getattr(settings, f"{name}_file"):
            limit = settings.max_train_samples if name == "train" else None
            words, tags, places = read_sentences(paths, settings, tagged=name != "test", limit=limit)
            if name == "train":
                labels = tag_names(tags or [], places)
                if trained and labels != trained:
                    raise Refusal(f"checkpoint {checkpoint.name}: was trained for other tags: {', '.join(trained)}")
            number = {label: i for i, label in enumerate(labels)}
            for sentence, place in zip(tags or [], places, strict=False):
                check_iob2(sentence, place)
                if unknown := [tag for tag in sentence if tag not in number]:
                    raise Refusal(f"{place}: tag {unknown[0]!r} is none of the model's: {', '.join(labels)}")
            ids = [[number[tag] for tag in sentence] for sentence in tags] if tags else [[0] * len(w) for w in words]
            splits[name] = Sentences(words, tags, align_labels(words, ids, checkpoint.tokenizer, settings.max_length))
            say(split_line(name, splits[name]))
    return splits, labels


def split_line(name: str, split: Sentences) -> str:
    """What a split holds, and how many of its words the model cannot read."""
    entities = Counter(tag[2:] for sentence in split.gold or [] for tag in sentence if tag.startswith("B-"))
    counted = ", ".join(f"{count} {kind}" for kind, count in sorted(entities.items())) or "no entities"
    unread = sum(token == NO_TOKEN for tokens in split.rows["word_tokens"] for token in tokens)
    lost = f"; {unread} words lie behind --max_length or have no word piece: predicted O" if unread else ""
    return f"{name}: {len(split.words)} sentences: {counted if split.gold else 'no tags'}{lost}"


def collate(examples: list[dict[str, Any]], pad_token_id: int) -> dict[str, Tensor]:
    """Rows → a batch as long as its longest sentence."""
    return pad_rows(examples, {"input_ids": pad_token_id, "labels": NO_LABEL})


# --- Model and loss ---------------------------------------------------------------------------------------------------


class NerTrainer(ExactTrainer):
    """The mean of cross-entropy over words."""

    def count_items(self, batch: dict[str, Tensor]) -> Tensor:
        """Words of a batch that carry a label: (1,)."""
        return batch["labels"].ne(NO_LABEL).sum()[None]

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Any:
        """Cross-entropy in nats, over the words of the whole step."""
        labels = inputs.pop("labels")  # with labels the model would work out a mean of its own
        outputs = model(**inputs)
        loss = self.step_mean(self.sentence_losses(outputs.logits, labels).sum()[None], num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def row_results(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Of each sentence: its summed loss, then each piece's label: (rows, 1 + length)."""
        labels = inputs.pop("labels")
        logits = model(**inputs).logits
        return torch.cat([self.sentence_losses(logits, labels)[:, None], logits.argmax(-1).float()], dim=1), labels

    def sentence_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Summed cross-entropy of each sentence's words: logits (rows, length, tags) → (rows,)."""
        smoothing = self.args.label_smoothing_factor
        words = F.cross_entropy(logits.float().transpose(1, 2), labels, reduction="none", label_smoothing=smoothing)
        return words.sum(dim=1)


# --- Scores -----------------------------------------------------------------------------------------------------------


def word_tags(predictions: np.ndarray, rows: Dataset, labels: list[str]) -> list[list[str]]:
    """One predicted tag a word, from what `row_results` kept: O for a word without a token."""
    predicted = predictions[:, 1:].astype(np.int64)
    return [
        [labels[predicted[i, token]] if token != NO_TOKEN else "O" for token in tokens]
        for i, tokens in enumerate(rows["word_tokens"])
    ]


def entity_scores(evaluated: Any, split: Sentences, labels: list[str]) -> dict[str, float]:
    """Loss a word, and strict entity scores over all words of the split."""
    words = max(int((evaluated.label_ids != NO_LABEL).sum()), 1)
    loss = float(evaluated.predictions[:, 0].astype(np.float64).sum() / words)
    predicted = word_tags(evaluated.predictions, split.rows, labels)
    return {"loss": loss, **EntityScores(keep_in_memory=True).compute(predictions=predicted, references=split.gold)}


def write_predictions(path: Any, split: Sentences, predicted: list[list[str]]) -> None:
    """Write predictions.jsonl: tokens, predicted_tags and, where the file had tags, gold_tags; one tag a token."""
    with open(path, "w", encoding="utf-8") as file:
        for i, words in enumerate(split.words):
            row = {"tokens": words, "predicted_tags": predicted[i]}
            if split.gold:
                row["gold_tags"] = split.gold[i]
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


# --- Main -------------------------------------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Run stage two for entities; returns the scores that stand in all_results.json."""
    started = time.time()
    settings, training, recipe = parse_flags(argv, Settings, NerArguments, QUICKSTART, __doc__)
    checkpoint = open_checkpoint(settings.checkpoint)
    check_freezing(training.freeze_layers, checkpoint.config.num_hidden_layers)
    checkpoint.check_length(settings.max_length)
    data = {f"{name}_file": getattr(settings, f"{name}_file") for name in ("train", "validation", "test")}
    lineage = trace_lineage(SCRIPT, checkpoint, data, FORMATS, training.rows_a_step)
    run = open_run(training.output_dir, recipe, lineage, settings.check_only)
    if run.scores is not None:
        return left_as_it_is(run)
    splits, labels = load_splits(settings, checkpoint)
    if settings.check_only:
        return {}

    set_seed(training.seed)
    model = load_model(
        BertForTokenClassification,
        checkpoint,
        new=("classifier.",) if "train" in splits else (),
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
    )
    begin_run(run, recipe, lineage)
    validation = splits.get("validation")
    trainer = NerTrainer(
        model=model,
        args=training,
        train_dataset=splits["train"].rows if "train" in splits else None,
        eval_dataset=validation.rows if validation else None,
        processing_class=checkpoint.tokenizer,
        data_collator=partial(collate, pad_token_id=checkpoint.tokenizer.pad_token_id),
        compute_metrics=partial(entity_scores, split=validation, labels=labels) if validation else None,
    )
    scores = trainer.train_and_evaluate(run.checkpoint)
    if test := splits.get("test"):
        trainer.compute_metrics = partial(entity_scores, split=test, labels=labels) if test.gold else None
        predicted = trainer.predict(test.rows)
        if trainer.is_world_process_zero():
            tags = word_tags(predicted.predictions, test.rows, labels)
            write_predictions(run.folder / "predictions.jsonl", test, tags)
        scores |= predicted.metrics
    scores["total_runtime"] = time.time() - started
    finish_run(trainer, run, lineage, scores, CARD)
    return scores


if __name__ == "__main__":
    run_script(main)
