"""Stage two: fine-tune a BERT encoder and its pooler for ordered shades of sentiment.

    python run_sentiment.py --checkpoint outputs/quickstart/pretraining
    python run_sentiment.py --checkpoint outputs/news --train_file labelled.csv --labels negative neutral positive
    python run_sentiment.py --checkpoint outputs/sentiment --test_file new_texts.csv --output_dir outputs/predicted

The model is BertModel, dropout, and a linear head on BERT's pooled [CLS]. The encoder, which stage one trained, learns
at 2e-5; the head, which starts from nothing, at 5e-5. The folder that this leaves loads with
`pipeline("text-classification")` and AutoModelForSequenceClassification, with nothing of ours.
"""

import csv
import math
import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertConfig, BertModel, BertPreTrainedModel, PreTrainedTokenizerBase, set_seed
from transformers.modeling_outputs import SequenceClassifierOutput

from two_stage.checkpoints import begin_run, left_as_it_is, open_run
from two_stage.handoff import Checkpoint, SavedAsStock, load_model, open_checkpoint, trace_lineage
from two_stage.recipe import Refusal, check_range, parse_flags, run_script, say
from two_stage.report import Card, finish_run
from two_stage.scores import SentimentScores
from two_stage.tables import column_value, read_rows, sample_rows, text_value
from two_stage.trainer import ExactTrainer, FineTuningArguments, pad_rows, row_lengths

SCRIPT, QUICKSTART = "run_sentiment.py", "recipes/quickstart/sentiment.yaml"
CARD = Card(
    "Sentiment in ordered shades",
    "from transformers import pipeline\n\n"
    'shades = pipeline("text-classification", model="FOLDER", top_k=None)\n'
    'shades("Profit may edge up if demand holds.")',
)
FORMATS = ("csv", "tsv", "jsonl", "parquet")

# --- Settings ---------------------------------------------------------------------------------------------------------


@dataclass
class Settings:
    """What the sentiment model is made from."""

    checkpoint: str | None = field(
        default=None, metadata={"help": "stage one's folder, any BERT, or to predict a folder that this script made"}
    )
    train_file: list[str] | None = field(default=None, metadata={"help": "labelled texts: csv, tsv, jsonl, parquet"})
    validation_file: list[str] | None = field(default=None, metadata={"help": "labelled texts scored every epoch"})
    test_file: list[str] | None = field(
        default=None, metadata={"help": "texts to predict; scored where they have labels"}
    )
    text_column: str = field(default="text", metadata={"help": "where a table has its texts"})
    label_column: str = field(default="label", metadata={"help": "where a table has its labels"})
    labels: list[str] | None = field(default=None, metadata={"help": "the shades in their order, worst first"})
    max_length: int = field(default=128, metadata={"help": "word pieces a text; longer ones lose their end"})
    max_train_samples: int | None = field(default=None, metadata={"help": "rows to train on, drawn at random"})
    loss: str = field(default="cross_entropy", metadata={"help": "what to minimise", "choices": ("cross_entropy",)})
    check_only: bool = field(default=False, metadata={"help": "read and check; train nothing"})

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        check_range(self, 1, math.inf, "max_train_samples")


@dataclass
class SentimentArguments(FineTuningArguments):
    """2e-5 for the encoder, 5e-5 for the head, 4 epochs of 16 rows a step."""

    output_dir: str = field(default="outputs/sentiment", metadata={"help": "one run a folder"})


# --- Data: labelled texts → token ids ---------------------------------------------------------------------------------


@dataclass
class Texts:
    """One split: texts in the file's order, their label numbers, and what the model reads of them."""

    texts: list[str]
    gold: list[int] | None  # None: the file has no labels
    rows: Dataset  # input_ids, labels


def read_texts(
    paths: list[str], settings: Settings, labels: list[str], labelled: bool, limit: int | None = None
) -> tuple[list[str], list[int] | None]:
    """The texts of a split and the numbers of their labels.

    Args:
        paths: labelled tables.
        settings: names of the columns.
        labels: the shades in their order.
        labelled: whether a file without a label column is refused.
        limit: rows to take; None takes all.

    Raises:
        Refusal: no row, a column is missing, a text is empty, or a label is none of `labels`.
    """
    texts: list[str] = []
    gold: list[int] = []
    for row in sample_rows(paths, limit):
        texts.append(text_value(row, settings.text_column, "text_column"))
        if labelled or settings.label_column in row[1]:
            label = column_value(row, settings.label_column, "label_column")
            if label is None or str(label) not in labels:
                raise Refusal(f"{row[0]}: label {label!r} is none of {', '.join(labels)} (--labels)")
            gold.append(labels.index(str(label)))
    if not texts:
        raise Refusal(f"{', '.join(paths)}: no row in it")
    if gold and len(gold) < len(texts):
        raise Refusal(f"{', '.join(paths)}: {len(gold)} of {len(texts)} rows have a label; label all or none")
    return texts, gold or None


def tokenize_texts(
    texts: list[str], gold: list[int] | None, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> Texts:
    """Texts → rows of token ids as long as the text; padding comes with the batch."""
    ids = tokenizer(texts, truncation=True, max_length=max_length, return_attention_mask=False)["input_ids"]
    return Texts(texts, gold, Dataset.from_dict({"input_ids": ids, "labels": gold or [0] * len(texts)}))


def ordered_labels(settings: Settings, checkpoint: Checkpoint) -> list[str]:
    """The shades in their order: as typed, or those of a trained folder.

    Raises:
        Refusal: neither, and the message lists the labels found, whose order only the user knows; one label twice; or
            others than a trained folder's.
    """
    labels, trained = settings.labels, checkpoint.trained_labels("BertForSequenceClassification")
    if labels and len(set(labels)) < len(labels):
        raise Refusal(f"--labels names one twice: {', '.join(labels)}")
    if trained and labels not in (None, trained):
        raise Refusal(f"checkpoint {checkpoint.name}: was trained for the labels {', '.join(trained)}, in this order")
    if not trained and not settings.train_file:
        raise Refusal(f"checkpoint {checkpoint.name}: is no sentiment model, and there is no --train_file to make one")
    if labels or trained:
        return labels or trained or []
    paths = settings.train_file or []
    rows = (row for path in paths for row in read_rows(path))
    found = sorted({str(column_value(row, settings.label_column, "label_column")) for row in rows})
    raise Refusal(f"give --labels in their order, worst first; found: {', '.join(found)}")


def collate(examples: list[dict[str, Any]], pad_token_id: int) -> dict[str, Tensor]:
    """Rows → a batch as long as its longest text."""
    return pad_rows(examples, {"input_ids": pad_token_id}, fixed=("labels",))


# --- Model and loss ---------------------------------------------------------------------------------------------------


class SentimentModel(SavedAsStock, BertPreTrainedModel):
    """BertModel → dropout → linear head on the pooled [CLS].

    The state dict is that of BertForSequenceClassification, and the saved folder names that class.
    """

    stock_class = "BertForSequenceClassification"

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.bert = BertModel(config)
        rate = config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout
        self.dropout = nn.Dropout(rate)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None
    ) -> SequenceClassifierOutput:
        """Logits (rows, shades) of texts (rows, length); the loss is SentimentTrainer's."""
        pooled = self.bert(input_ids, attention_mask, return_dict=True).pooler_output
        return SequenceClassifierOutput(logits=self.classifier(self.dropout(pooled)))


def cross_entropy(logits: Tensor, gold: Tensor) -> Tensor:
    """Loss of each text in nats: logits (rows, shades), gold (rows,) → (rows,)."""
    return F.cross_entropy(logits.float(), gold, reduction="none")


LOSSES = {"cross_entropy": cross_entropy}


class SentimentTrainer(ExactTrainer):
    """The mean over texts of the loss that was chosen."""

    def __init__(self, loss: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.loss = LOSSES[loss]

    def count_items(self, batch: dict[str, Tensor]) -> Tensor:
        """Texts of a batch: (1,)."""
        return torch.tensor([len(batch["labels"])])

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Any:
        """The chosen loss, over the texts of the whole step."""
        outputs = model(**inputs)
        loss = self.step_mean(self.loss(outputs.logits, inputs["labels"]).sum()[None], num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def row_results(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Of each text: its loss, then its logits: (rows, 1 + shades)."""
        logits = model(**inputs).logits.float()
        return torch.cat([self.loss(logits, inputs["labels"])[:, None], logits], dim=1), inputs["labels"]


# --- Scores -----------------------------------------------------------------------------------------------------------


def sentiment_scores(evaluated: Any, labels: int) -> dict[str, float]:
    """Loss and scores of the ordered shades, from what `row_results` kept."""
    losses, logits = evaluated.predictions[:, 0], evaluated.predictions[:, 1:]
    scores = SentimentScores(keep_in_memory=True).compute(
        predictions=logits.argmax(-1), references=evaluated.label_ids, labels=labels
    )
    return {"loss": float(losses.astype(np.float64).mean()), **scores}


def write_predictions(path: Any, split: Texts, logits: np.ndarray, labels: list[str]) -> None:
    """Write predictions.csv: text, gold, predicted, and a probability a label.

    A cell that begins with = + - @ or a tab gets a ' in front, or a spreadsheet would run it as a formula.
    """
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = exponents / exponents.sum(axis=1, keepdims=True)
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(safe_cell(name) for name in ["text", "gold", "predicted", *labels])
        for i, text in enumerate(split.texts):
            gold = "" if split.gold is None else labels[split.gold[i]]
            predicted = labels[int(logits[i].argmax())]
            cells = [safe_cell(cell) for cell in (text, gold, predicted)]
            writer.writerow(cells + [f"{share:.6f}" for share in probabilities[i]])


def safe_cell(text: str) -> str:
    """Text that a spreadsheet takes for text."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


# --- Main -------------------------------------------------------------------------------------------------------------


def load_splits(settings: Settings, tokenizer: PreTrainedTokenizerBase, labels: list[str]) -> dict[str, Texts]:
    """The splits that were given, read, checked and tokenized."""
    splits = {}
    for name in ("train", "validation", "test"):
        if paths := getattr(settings, f"{name}_file"):
            limit = settings.max_train_samples if name == "train" else None
            read = read_texts(paths, settings, labels, labelled=name != "test", limit=limit)
            splits[name] = tokenize_texts(*read, tokenizer, settings.max_length)
            counts = np.bincount(splits[name].gold or [], minlength=len(labels))
            counted = ", ".join(f"{count} {label}" for label, count in zip(labels, counts, strict=True))
            full = sum(length == settings.max_length for length in row_lengths(splits[name].rows))
            cut = f"; {full} fill --max_length, and may have lost their end" if full else ""
            say(f"{name}: {len(read[0])} texts: {counted if read[1] else 'no labels'}{cut}")
    return splits


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Run stage two for sentiment; returns the scores that stand in all_results.json."""
    started = time.time()
    settings, training, recipe = parse_flags(argv, Settings, SentimentArguments, QUICKSTART, __doc__)
    checkpoint = open_checkpoint(settings.checkpoint)
    checkpoint.check_length(settings.max_length)
    data = {f"{name}_file": getattr(settings, f"{name}_file") for name in ("train", "validation", "test")}
    lineage = trace_lineage(SCRIPT, checkpoint, data, FORMATS, training.rows_a_step)
    run = open_run(training.output_dir, recipe, lineage, settings.check_only)
    if run.scores is not None:
        return left_as_it_is(run)
    labels = ordered_labels(settings, checkpoint)
    splits = load_splits(settings, checkpoint.tokenizer, labels)
    if settings.check_only:
        return {}

    set_seed(training.seed)
    model = load_model(
        SentimentModel,
        checkpoint,
        new=("classifier.",) if "train" in splits else (),
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
        problem_type="single_label_classification",
    )
    begin_run(run, recipe, lineage)
    trainer = SentimentTrainer(
        loss=settings.loss,
        model=model,
        args=training,
        train_dataset=splits["train"].rows if "train" in splits else None,
        eval_dataset=splits["validation"].rows if "validation" in splits else None,
        processing_class=checkpoint.tokenizer,
        data_collator=partial(collate, pad_token_id=checkpoint.tokenizer.pad_token_id),
        compute_metrics=partial(sentiment_scores, labels=len(labels)),
    )
    scores = trainer.train_and_evaluate(run.checkpoint)
    if test := splits.get("test"):
        trainer.compute_metrics = trainer.compute_metrics if test.gold else None
        predicted = trainer.predict(test.rows)
        if trainer.is_world_process_zero():
            write_predictions(run.folder / "predictions.csv", test, predicted.predictions[:, 1:], labels)
        scores |= predicted.metrics
    scores["total_runtime"] = time.time() - started
    finish_run(trainer, run, lineage, scores, CARD)
    return scores


if __name__ == "__main__":
    run_script(main)
