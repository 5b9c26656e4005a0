"""Stage two: fine-tune a BERT encoder to find entities.

    python run_ner.py --checkpoint outputs/quickstart/pretraining
    python run_ner.py --checkpoint outputs/news --train_file train.conll --validation_file dev.conll
    python run_ner.py --checkpoint outputs/ner --test_file new_articles.txt --output_dir outputs/predicted
    python run_ner.py --checkpoint outputs/ner --predict_file archive.jsonl.gz --output_dir outputs/answers

The model is BertForTokenClassification: a word's pieces learn its tag (IOB2), and the first of them answers for it. No
word is lost: a sentence longer than --max_length is read in windows that overlap, and each word is learned from and
answered for in the one window that shows most around it. Only legal sequences of tags come out, and scores are strict:
an entity counts where its type and both its ends are right.
"""

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from two_stage.command_line.exits import Refusal, run_script, say
from two_stage.command_line.recipe import check_range, check_seed_range, help_if_asked, parse_flags
from two_stage.data.sources import SAMPLE_FLAGS, check_sample, check_sources
from two_stage.results.seeds import run_seeds
from two_stage.training.losses import Loss, check_focal, chosen_loss, class_weights
from two_stage.training.training_arguments import FineTuningArguments

SCRIPT, QUICKSTART = "run_ner.py", "recipes/quickstart/ner.yaml"
FORMATS = ("jsonl", "parquet", "conll", "bio", "csv", "tsv", "txt")
NO_LABEL = -100  # a word piece that no loss is taken of
NO_TOKEN = -1  # fills up rows of fewer words

# --- Settings ---------------------------------------------------------------------------------------------------------


@dataclass
class Settings:
    """What the entity model is made from."""

    checkpoint: str | None = field(
        default=None, metadata={"help": "stage one's folder, any BERT, or to predict a folder that this script made"}
    )
    train_file: list[str] | None = field(default=None, metadata={"help": "tagged sentences: conll, jsonl, parquet"})
    validation_file: list[str] | None = field(default=None, metadata={"help": "tagged sentences scored every epoch"})
    test_file: list[str] | None = field(
        default=None, metadata={"help": "sentences to predict, also txt and csv; scored where they have tags"}
    )
    predict_file: list[str] | None = field(
        default=None,
        metadata={"help": "sentences to predict whatever their number: read, answered and written part by part"},
    )
    skip_bad_rows: bool = field(default=False, metadata={"help": "of --predict_file leave out rows without words"})
    dataset: str | None = field(default=None, metadata={"help": "splits of a data set: Hub id or local folder"})
    dataset_config: str | None = field(default=None, metadata={"help": "which of its configurations"})
    dataset_revision: str | None = field(default=None, metadata={"help": "which of its commits"})
    dataset_splits: list[str] | None = field(
        default=None, metadata={"help": "which of its splits (all of train, validation, test that it has)"}
    )
    tokens_column: str = field(
        default="tokens", metadata={"help": "where a row has its words; in conll a column's number (the first)"}
    )
    tags_column: str = field(
        default="ner_tags", metadata={"help": "where a row has its tags; in conll a column's number (the last)"}
    )
    labels: list[str] | None = field(default=None, metadata={"help": "names of numbered tags, in their order"})
    text_column: str = field(default="text", metadata={"help": "where a row without words has its text"})
    entities_column: str = field(
        default="entities", metadata={"help": "where a text has its entities: start, end, label"}
    )
    document_column: str = field(default="document", metadata={"help": "says which rows are of one document"})
    max_length: int | None = field(
        default=None, metadata={"help": "word pieces the model reads at once (128, or as a folder was trained)"}
    )
    stride: int | None = field(
        default=None, metadata={"help": "word pieces that windows of a long sentence share, half of one at most (32)"}
    )
    context: int | None = field(
        default=None, metadata={"help": "word pieces of the document to read on each side of a sentence (0)"}
    )
    max_train_samples: int | None = field(default=None, metadata={"help": "sentences to train on, drawn at random"})
    train_fraction: float | None = field(
        default=None, metadata={"help": "share of the sentences to train on, drawn at random"}
    )
    sample_seed: int | None = field(
        default=None, metadata={"help": "of that draw; of one seed a smaller sample is part of a larger one (0)"}
    )
    allow_leakage: bool = field(default=False, metadata={"help": "go on although a sentence stands in two splits"})
    label_pieces: str | None = field(
        default=None,
        metadata={
            "help": "which pieces of a word learn its tag: all, B- first and then I-, or the first alone (all)",
            "choices": ("first", "all"),
        },
    )
    decoding: str | None = field(
        default=None,
        metadata={
            "help": "the likeliest legal tags of a sentence, or each word's own (legal)",
            "choices": ("legal", "argmax"),
        },
    )
    loss: str = field(
        default="cross_entropy", metadata={"help": "what to minimise", "choices": ("cross_entropy", "focal")}
    )
    class_weights: list[str] | None = field(
        default=None, metadata={"help": "`balanced`, each tag the same in all, or a number a tag: O, B-A, I-A, B-B ..."}
    )
    focal_gamma: float | None = field(
        default=None, metadata={"help": "how little --loss focal counts what is known (2)"}
    )
    calibrate: bool = field(
        default=False, metadata={"help": "set the head's temperature on the validation words (Guo et al. 2017)"}
    )
    seeds: list[int] | None = field(default=None, metadata={"help": "train a model for each; mean and spread of all"})
    check_only: bool = field(default=False, metadata={"help": "read and check; train nothing"})

    def __post_init__(self) -> None:
        """Refuse what is out of range, and flags that do not go together."""
        check_range(self, 0, math.inf, "stride", "context")
        check_range(self, 0, 100, "focal_gamma")  # more would leave no loss to any word
        check_seed_range(self.seeds)
        check_sources(self)
        check_bulk(self)
        check_sample(self)
        check_focal(self.loss, self.focal_gamma)


@dataclass
class NerArguments(FineTuningArguments):
    """2e-5 for the encoder, 5e-5 for the head, 4 epochs of 16 rows a step."""

    output_dir: str = field(default="outputs/ner", metadata={"help": "one run a folder"})


class Reading(NamedTuple):
    """How sentences are read and tags chosen; a trained folder keeps it."""

    max_length: int = 128  # word pieces a row
    stride: int = 32  # word pieces that neighbouring windows share
    context: int = 0  # word pieces of the document on each side
    decoding: str = "legal"
    label_pieces: str = "all"  # so that pipelines that look at every piece do well


if __name__ == "__main__":
    help_if_asked(__doc__, Settings, NerArguments)  # before the imports below, which take seconds

import time
from functools import partial

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import BertForTokenClassification, PreTrainedTokenizerBase, set_seed

from two_stage.checkpointing.checkpoints import told_if_unwritten
from two_stage.checkpointing.handoff import load_model, open_checkpoint, settled_reading
from two_stage.checkpointing.runs import begin_run, left_as_it_is, open_run
from two_stage.data.tables import PlacedRow
from two_stage.data.tag_schemes import tag_names
from two_stage.data.tagged_sentences import (
    ENTITY_MODELS,
    RowsToAnswer,
    Sentences,
    load_splits,
    trained_types,
)
from two_stage.data.windows import Windows, plan_windows
from two_stage.results.bulk import check_bulk, look_through, predict_rows
from two_stage.results.entity_results import (
    EntitySplit,
    prediction_lines,
    spoken_counts,
    write_label_scores,
    write_predictions,
)
from two_stage.results.report import Card, Findings, finish_run, model_limits
from two_stage.scoring.split_scores import score_splits
from two_stage.training.batches import longest_first, pad_rows, repeated_rows
from two_stage.training.layers import check_freezing, check_unfreezing
from two_stage.training.task import Task, check_task, trace_task
from two_stage.training.trainer import ExactTrainer

# --- Data: words → word pieces → rows ---------------------------------------------------------------------------------


class Pieces(NamedTuple):
    """The word pieces of all words of a split, one behind the other."""

    ids: np.ndarray  # int (pieces,)
    starts: np.ndarray  # word w has ids[starts[w] : starts[w + 1]], one at least: int (words + 1,)
    shortened: int = 0  # words of more pieces than a row has room for
    unknown: int = 0  # words of no piece, such as a zero-width space: they are read as [UNK], and keep their tag


def word_pieces(words: list[str], tokenizer: PreTrainedTokenizerBase, room: int) -> Pieces:
    """Cut every word into pieces; each different word is cut once.

    Args:
        words: of all sentences, one behind the other.
        tokenizer: a fast one.
        room: most pieces of a word; the rest of it is not read.
    """
    numbers: dict[str, int] = {}
    which = np.array([numbers.setdefault(word, len(numbers)) for word in words])
    encoded = tokenizer(
        [[word] for word in numbers],
        is_split_into_words=True,
        add_special_tokens=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )["input_ids"]
    pieces = [np.array(ids[:room] or [tokenizer.unk_token_id]) for ids in encoded]
    counts = np.array([len(ids) for ids in encoded])[which]
    starts = np.concatenate([[0], np.cumsum(counts.clip(1, room))])
    return Pieces(
        np.concatenate([pieces[i] for i in which]), starts, int((counts > room).sum()), int((counts == 0).sum())
    )


def align_labels(
    pieces: Pieces, windows: Windows, tags: np.ndarray | None, inside: np.ndarray, tokenizer: PreTrainedTokenizerBase
) -> Dataset:
    """Windows → rows of token ids, with each word's label on its pieces, in the one window that answers for it.

    Args:
        pieces: of all words.
        windows: over them.
        tags: the label number of every word: int (words,); None labels nothing.
        inside: of each label number the one that a word's further pieces get: int (labels,); NO_LABEL labels the
            first piece alone.
        tokenizer: has [CLS] and [SEP].

    Returns:
        `input_ids`, `labels`, `word_tokens` (where the first piece of each word that is answered for stands), and
        `first_word` (the number of the first such word).
    """
    counts = np.diff(pieces.starts)
    labels = np.full(len(pieces.ids), NO_LABEL)
    if tags is not None:
        labels = np.repeat(inside[tags], counts)
        labels[pieces.starts[:-1]] = tags
    columns: dict[str, list[Any]] = {name: [] for name in ("input_ids", "labels", "word_tokens", "first_word")}
    for start, stop, first, last in zip(*(column.tolist() for column in windows), strict=True):
        a, b, c, d = pieces.starts[[start, stop, first, last]]
        columns["input_ids"].append([tokenizer.cls_token_id, *pieces.ids[a:b].tolist(), tokenizer.sep_token_id])
        columns["labels"].append([NO_LABEL] * (1 + c - a) + labels[c:d].tolist() + [NO_LABEL] * (1 + b - d))
        columns["word_tokens"].append((pieces.starts[first:last] - a + 1).tolist())
        columns["first_word"].append(first)
    return Dataset.from_dict(columns)


def build_rows(
    name: str, split: Sentences, reading: Reading, numbers: np.ndarray, tokenizer: PreTrainedTokenizerBase
) -> Dataset:
    """The rows of a split, and a word on what was odd on the way.

    Args:
        name: train, validation or test.
        split: as read.
        reading: how much is read at once.
        numbers: the model's label number of each tag O, B-A, I-A, B-B … : int (tags,).
        tokenizer: the checkpoint's.
    """
    rows, pieces = cut_rows(split, reading, numbers, tokenizer)
    if extra := len(rows) - len(split):
        say(f"  {name}: {extra:,} rows more than sentences: what is longer than --max_length is read in windows")
    if reading.context and split.documents is None:
        say(f"! {name}: no documents are marked, so --context reads whatever stands before and behind a sentence")
    for count, what in (
        (pieces.shortened, "are longer than a window: their end is not read"),
        (pieces.unknown, "have no word piece: read as [UNK]"),
    ):
        if count:
            say(f"! {name}: {count:,} words {what}")
    if name != "train":  # rows of like length share a batch; first_word says whose they are
        rows = longest_first(rows)
    return rows


def cut_rows(
    split: Sentences, reading: Reading, numbers: np.ndarray, tokenizer: PreTrainedTokenizerBase
) -> tuple[Dataset, Pieces]:
    """The rows of a split in their order, and the word pieces of all its words; the arguments are `build_rows`'s."""
    pieces = word_pieces(
        [word for sentence in split.sentences for word in sentence.words], tokenizer, reading.max_length - 2
    )
    windows = plan_windows(pieces.starts, split, reading.max_length - 2, reading.stride, reading.context)
    inside = np.full(len(numbers), NO_LABEL)
    if reading.label_pieces == "all":  # B-X goes on as I-X, O and I-X as they are
        tags = np.arange(len(numbers))
        inside[numbers] = numbers[tags + tags % 2]
    gold = None if split.gold is None else numbers[split.gold]
    return align_labels(pieces, windows, gold, inside, tokenizer), pieces


def row_places(split: Sentences, rows: Dataset) -> list[str]:
    """Where the sentence that each row answers for came from."""
    numbers = np.searchsorted(split.lengths.cumsum(), rows["first_word"][:], side="right")
    return [split.places[number] for number in numbers]


def tag_weights(asked: list[str] | None, rows: Dataset, numbers: np.ndarray) -> np.ndarray:
    """How much a word piece of each label counts: float (labels,), of mean 1 over the pieces that have one.

    Args:
        asked: --class_weights, of the tags in the order O, B-A, I-A, B-B …
        rows: that are trained on.
        numbers: the model's label number of each tag in that order: int (tags,).

    Raises:
        Refusal: see `class_weights`.
    """
    labels = rows.select_columns("labels").with_format("arrow")[:]["labels"].combine_chunks().flatten().to_numpy()
    weights = np.empty(len(numbers))
    weights[numbers] = class_weights(asked, len(numbers), np.argsort(numbers)[labels[labels != NO_LABEL]])
    return weights


def collate(examples: list[dict[str, Any]], pad_token_id: int) -> dict[str, Tensor]:
    """Rows → a batch as long as its longest window."""
    padding = {"input_ids": pad_token_id, "labels": NO_LABEL, "word_tokens": NO_TOKEN}
    return pad_rows(examples, padding, fixed=("first_word",))


# --- Model and loss ---------------------------------------------------------------------------------------------------


class NerTrainer(ExactTrainer):
    """The mean over labelled word pieces of weight × the loss that was chosen; over all the weights have mean 1."""

    def __init__(self, loss: Loss, tag_weights: Tensor, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.loss, self.tag_weights = loss, tag_weights

    def count_items(self, batch: dict[str, Tensor]) -> Tensor:
        """Word pieces of a batch that carry a label: (1,)."""
        return batch["labels"].ne(NO_LABEL).sum()[None]

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Any:
        """The chosen loss, weighted, over the labelled word pieces of the whole step."""
        labels = inputs.pop("labels")  # with labels the model would work out a mean of its own
        outputs = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        is_labelled = labels != NO_LABEL
        logits, tags = outputs.logits[is_labelled], labels[is_labelled]
        losses = self.loss(logits, nn.functional.one_hot(tags, logits.shape[-1]).float())
        losses = losses * self.tag_weights.to(tags.device)[tags]
        loss = self.step_mean(losses.sum()[None], num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def row_results(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The logits of the words that a row answers for: (rows, words, labels); the first, how many: (rows, 2)."""
        outputs = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        tokens = inputs["word_tokens"]
        logits = torch.take_along_dim(outputs.logits.float(), tokens.clamp(min=0)[..., None], dim=1)
        return logits, torch.stack([inputs["first_word"], tokens.ne(NO_TOKEN).sum(dim=1)], dim=1)


# --- Main -------------------------------------------------------------------------------------------------------------

NerTask = Task[Settings, NerArguments, Reading]


def model_card(model: BertForTokenClassification, reading: Reading) -> Card:
    """How to load the folder, and what it is not good for."""
    strategy = "simple" if reading.label_pieces == "all" else "first"
    usage = (
        "from transformers import pipeline\n\n"
        f'entities = pipeline("token-classification", model="FOLDER", aggregation_strategy="{strategy}")\n'
        'entities("Shares of Marlow Shipping rose in Oslo.")'
    )
    legal = ", and gives legal tags" if reading.decoding == "legal" else ""
    limits = [
        "A pipeline takes each word's likeliest tag and cuts what is too long; run_ner.py reads all of a text, in "
        f"windows{legal}.",
    ]
    if reading.label_pieces == "first":
        limits.append('Only the first piece of a word learned its tag: take aggregation_strategy="first".')
    return Card("Entities", usage, model_limits(limits, model.config, "words"), "token-classification")


def answer(
    rows: list[PlacedRow],
    trainer: NerTrainer,
    reader: RowsToAnswer,
    reading: Reading,
    types: list[str],
    numbers: np.ndarray,
) -> str:
    """Rows to predict → their lines in predictions.jsonl."""
    split = reader.sentences(rows)
    cut, _ = cut_rows(split, reading, numbers, trainer.processing_class)
    scored = EntitySplit(split, longest_first(cut), types, numbers, reading.decoding == "legal")
    scored(trainer.predict(scored.rows))
    return "".join(prediction_lines(scored))


def predict(task: NerTask) -> dict[str, float]:
    """Answer --predict_file, part by part; returns what stands in all_results.json.

    Raises:
        Refusal: the folder finds no entities, or reads around a sentence, whose document may be as long as the file.
    """
    settings, training, checkpoint, reading = task.settings, task.training, task.checkpoint, task.reading
    types, labels = trained_types(checkpoint), checkpoint.trained_labels(*ENTITY_MODELS)
    if types is None or labels is None:
        raise Refusal(f"checkpoint {checkpoint.name}: is no entity model; name a folder that run_ner.py left")
    if reading.context:
        raise Refusal(f"--predict_file: --context {reading.context} reads whole documents; give it as --test_file")
    numbers = np.array([labels.index(tag) for tag in tag_names(types)])
    reader = RowsToAnswer(settings, several=len(settings.predict_file or ()) > 1)
    rows = look_through(settings, reader.check, reader.number)
    if settings.check_only:
        return {}
    model = load_model(BertForTokenClassification, checkpoint, new=(), reading=reading._asdict())
    begin_run(task.run, task.recipe, task.lineage)
    has_bar, training.disable_tqdm = not training.disable_tqdm, True  # one bar of all rows
    trainer = NerTrainer(
        loss=chosen_loss("cross_entropy", 0.0, None),
        tag_weights=torch.ones(len(labels)),
        model=model,
        args=training,
        processing_class=checkpoint.tokenizer,
        data_collator=partial(collate, pad_token_id=checkpoint.tokenizer.pad_token_id),
    )
    answered = partial(answer, trainer=trainer, reader=reader, reading=reading, types=types, numbers=numbers)
    scores = predict_rows(rows, answered, task.run, "predictions.jsonl", trainer.is_world_process_zero(), has_bar)
    finish_run(trainer, task.run, task.lineage, scores, model_card(model, reading))
    return scores


def head_settings(task: NerTask, labels: list[str]) -> dict[str, Any]:
    """What the model's config says beyond the encoder's: the tags in the model's order, and how rows are read."""
    head: dict[str, Any] = {"reading": task.reading._asdict(), "id2label": dict(enumerate(labels))}
    head["label2id"] = {label: i for i, label in enumerate(labels)}
    if task.trains:
        head["head_temperature"] = None  # of a folder that is trained on, it holds no more
    return head


def fine_tune(task: NerTask) -> dict[str, float]:
    """Train, where there is a train split, and score the others; returns what stands in all_results.json."""
    settings, training, checkpoint, reading = task.settings, task.training, task.checkpoint, task.reading
    loss = chosen_loss(settings.loss, training.label_smoothing_factor, settings.focal_gamma)
    splits, types, facts = load_splits(settings, checkpoint)
    labels = checkpoint.trained_labels(*ENTITY_MODELS) or tag_names(types)
    # a model from elsewhere has an order of its own
    numbers = np.array([labels.index(tag) for tag in tag_names(types)])
    rows = {name: build_rows(name, split, reading, numbers, checkpoint.tokenizer) for name, split in splits.items()}
    weights = tag_weights(settings.class_weights, rows["train"], numbers) if task.trains else np.ones(len(labels))
    scored = {
        name: EntitySplit(split, rows[name], types, numbers, reading.decoding == "legal", task.is_calibrated)
        for name, split in splits.items()
        if name != "train"
    }
    check_unfreezing(len(rows["train"]) if task.trains else 0, training)
    training.check_best_model(scored["validation"].scores() if "validation" in scored else None)
    if settings.check_only:
        return {}

    set_seed(training.seed)
    new = ("classifier.",) if task.trains else ()
    model = load_model(BertForTokenClassification, checkpoint, new, **head_settings(task, labels))
    begin_run(task.run, task.recipe, task.lineage)
    trainer = NerTrainer(
        loss=loss,
        tag_weights=torch.tensor(weights, dtype=torch.float32),
        model=model,
        args=training,
        train_dataset=repeated_rows(rows["train"], training) if task.trains else None,
        eval_dataset=rows.get("validation"),
        processing_class=checkpoint.tokenizer,
        data_collator=partial(collate, pad_token_id=checkpoint.tokenizer.pad_token_id),
        compute_metrics=scored.get("validation"),
        places=row_places(splits["train"], rows["train"]) if task.trains else (),
    )
    scores = trainer.train_and_evaluate(task.run.checkpoint)
    if task.trains:
        scores["train_samples"] = len(splits["train"])
    scores |= score_splits(trainer, scored, settings.calibrate)
    scores["total_runtime"] = time.time() - task.started
    findings = Findings(facts)
    if trainer.is_world_process_zero():
        with told_if_unwritten(task.run.folder, trainer.what_is_intact):
            findings = write_label_scores(task.run.folder, scored, trainer.state.log_history, facts)
            if "test" in scored:
                found = write_predictions(task.run.folder / "predictions.jsonl", scored["test"])
                say(f"Found in test: {spoken_counts(found)}")
    finish_run(trainer, task.run, task.lineage, scores, model_card(model, reading), findings)
    return scores


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Run stage two for entities; returns the scores that stand in all_results.json."""
    started = time.time()
    settings, training, recipe = parse_flags(argv, Settings, NerArguments, QUICKSTART, __doc__)
    check_task(settings, training, ("calibrate", "class_weights", "seeds", *SAMPLE_FLAGS))
    if settings.seeds and len(settings.seeds) > 1 and not settings.check_only:
        return run_seeds(main, argv, settings.seeds, training)
    for seed in recipe.pop("seeds", []):  # a single one is --seed
        training.seed = recipe["seed"] = seed
    checkpoint = open_checkpoint(settings.checkpoint)
    check_freezing(training.freeze_layers, checkpoint.config.num_hidden_layers)
    reading = settled_reading(Reading(), vars(settings), checkpoint)
    recipe |= reading._asdict()
    lineage = trace_task(SCRIPT, settings, checkpoint, training, FORMATS)
    run = open_run(training.output_dir, recipe, lineage, settings.check_only, resume_anyway=training.resume_anyway)
    if run.scores is not None:
        return left_as_it_is(run, training)
    task = Task(settings, training, recipe, checkpoint, reading, lineage, run, started)
    return predict(task) if settings.predict_file else fine_tune(task)


if __name__ == "__main__":
    run_script(main)
