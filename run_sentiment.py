"""Stage two: fine-tune a BERT encoder and its pooler for ordered shades of sentiment.

    python run_sentiment.py --checkpoint outputs/quickstart/pretraining
    python run_sentiment.py --checkpoint outputs/news --train_file labelled.csv --labels negative neutral positive
    python run_sentiment.py --checkpoint outputs/sentiment --test_file new_texts.csv --output_dir outputs/predicted
    python run_sentiment.py --checkpoint outputs/sentiment --predict_file millions.txt.gz --output_dir outputs/answers

The model is BertModel, dropout, and a linear head on BERT's pooled [CLS]. The encoder, which stage one trained, learns
at 2e-5; the head, which starts from nothing, at 5e-5. The folder that this leaves loads with
`pipeline("text-classification")` and AutoModelForSequenceClassification, with nothing of ours; with another head
(--pooling, --head_hidden_size) it loads with SentimentModel below.
"""

import math
from dataclasses import dataclass, field

from two_stage.command_line.exits import Refusal, run_script
from two_stage.command_line.recipe import check_range, check_seed_range, help_if_asked, parse_flags
from two_stage.data.sources import SAMPLE_FLAGS, check_sample, check_sources
from two_stage.results.seeds import run_seeds
from two_stage.training.losses import LOSSES, Loss, check_focal, chosen_loss
from two_stage.training.training_arguments import FineTuningArguments

SCRIPT, QUICKSTART = "run_sentiment.py", "recipes/quickstart/sentiment.yaml"
FORMATS = ("csv", "tsv", "jsonl", "parquet")
POOLINGS = ("pooler", "cls", "mean")

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
    predict_file: list[str] | None = field(
        default=None,
        metadata={"help": "texts to predict whatever their number: read, answered and written part by part"},
    )
    skip_bad_rows: bool = field(default=False, metadata={"help": "of --predict_file leave out rows without a text"})
    dataset: str | None = field(default=None, metadata={"help": "splits of a data set: Hub id or local folder"})
    dataset_config: str | None = field(default=None, metadata={"help": "which of its configurations"})
    dataset_revision: str | None = field(default=None, metadata={"help": "which of its commits"})
    dataset_splits: list[str] | None = field(
        default=None, metadata={"help": "which of its splits (all of train, validation, test that it has)"}
    )
    text_column: str = field(default="text", metadata={"help": "where a table has its texts"})
    text_pair_column: str | None = field(
        default=None, metadata={"help": "a second text a row, such as the company that the sentiment is toward"}
    )
    label_column: str = field(default="label", metadata={"help": "where a table has its labels"})
    labels: list[str] | None = field(default=None, metadata={"help": "the shades in their order, worst first"})
    score_column: str | None = field(default=None, metadata={"help": "a number a row, instead of a label"})
    bins: list[float] | None = field(
        default=None, metadata={"help": "where one shade ends and the next begins: one score fewer than labels"}
    )
    soft_labels: bool = field(
        default=False, metadata={"help": "learn shares: a column a label, or what --score_column says between shades"}
    )
    max_length: int | None = field(
        default=None, metadata={"help": "word pieces the model reads at once (128, or as a folder was trained)"}
    )
    long_text: str | None = field(
        default=None,
        metadata={
            "help": "of a longer text read its head, a quarter of that and the tail, or all in windows (head)",
            "choices": ("head", "head_tail", "windows"),
        },
    )
    stride: int | None = field(
        default=None, metadata={"help": "word pieces that neighbouring windows share, half a window at most (32)"}
    )
    max_train_samples: int | None = field(default=None, metadata={"help": "rows to train on, drawn at random"})
    train_fraction: float | None = field(
        default=None, metadata={"help": "share of the rows to train on, drawn at random"}
    )
    sample_seed: int | None = field(
        default=None, metadata={"help": "of that draw; of one seed a smaller sample is part of a larger one (0)"}
    )
    allow_leakage: bool = field(default=False, metadata={"help": "go on although a text stands in two splits"})
    pooling: str | None = field(
        default=None, metadata={"help": "what the head reads (default: pooler)", "choices": POOLINGS}
    )
    head_hidden_size: int | None = field(default=None, metadata={"help": "width of a hidden layer (default: none)"})
    head_dropout: float | None = field(default=None, metadata={"help": "before the head (default: the encoder's)"})
    loss: str = field(default="cross_entropy", metadata={"help": "what to minimise", "choices": tuple(LOSSES)})
    class_weights: list[str] | None = field(
        default=None, metadata={"help": "`balanced`, each shade the same in all, or a number a label"}
    )
    focal_gamma: float | None = field(
        default=None, metadata={"help": "how little --loss focal counts what is known (2)"}
    )
    calibrate: bool = field(
        default=False, metadata={"help": "set the head's temperature on the validation texts (Guo et al. 2017)"}
    )
    seeds: list[int] | None = field(default=None, metadata={"help": "train a model for each; mean and spread of all"})
    check_only: bool = field(default=False, metadata={"help": "read and check; train nothing"})

    def __post_init__(self) -> None:
        """Refuse what is out of range, and flags that do not go together."""
        check_range(self, 1, math.inf, "head_hidden_size")
        check_range(self, 0, math.inf, "stride")
        check_range(self, 0, 100, "focal_gamma")  # more would leave no loss to any text
        check_range(self, 0, 0.9, "head_dropout")
        if self.bins is not None and (sorted(set(self.bins)) != self.bins or not all(map(math.isfinite, self.bins))):
            raise Refusal(f"--bins {self.bins}: must be numbers that ascend, lowest score first")
        if self.bins is not None and self.score_column is None:
            raise Refusal("--bins: needs the column with the scores, --score_column")
        if self.loss == "regression" and self.score_column is None:
            raise Refusal("--loss regression: needs the column with the scores, --score_column")
        for name in ("soft_labels", "class_weights", "calibrate"):
            if self.loss == "regression" and getattr(self, name):
                raise Refusal(f"--{name}: means nothing to --loss regression, which predicts no probabilities")
        check_seed_range(self.seeds)
        check_focal(self.loss, self.focal_gamma)
        check_sources(self)
        check_bulk(self)
        check_sample(self)


@dataclass
class SentimentArguments(FineTuningArguments):
    """2e-5 for the encoder, 5e-5 for the head, 4 epochs of 16 rows a step."""

    output_dir: str = field(default="outputs/sentiment", metadata={"help": "one run a folder"})


if __name__ == "__main__":
    help_if_asked(__doc__, Settings, SentimentArguments)  # before the imports below, which take seconds

import time
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    BertModel,
    BertPreTrainedModel,
    set_seed,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from two_stage.checkpointing.checkpoints import told_if_unwritten
from two_stage.checkpointing.handoff import SavedAsStock, load_model, open_checkpoint
from two_stage.checkpointing.runs import begin_run, left_as_it_is, open_run
from two_stage.data.labelled_texts import (
    Reading,
    Scale,
    check_text,
    collate,
    label_scale,
    load_splits,
    text_reading,
    texts_to_answer,
    trained_scale,
)
from two_stage.data.tables import PlacedRow
from two_stage.results.bulk import check_bulk, look_through, predict_rows
from two_stage.results.report import Card, Findings, finish_run, model_limits
from two_stage.results.sentiment_results import (
    SplitScores,
    csv_text,
    prediction_header,
    prediction_rows,
    write_label_scores,
    write_predictions,
)
from two_stage.scoring.split_scores import score_splits
from two_stage.training.batches import repeated_rows
from two_stage.training.last_layer import can_read_few, let_last_layer_read_few
from two_stage.training.layers import check_freezing, check_unfreezing
from two_stage.training.task import Task, check_task, trace_task
from two_stage.training.trainer import ExactTrainer

# --- Model and loss ---------------------------------------------------------------------------------------------------


class SentimentConfig(BertConfig):
    """A BERT's config with a head that no stock class has: of a type that stock AutoModel and pipeline refuse."""

    model_type = "bert_sentiment"


class SentimentModel(SavedAsStock, BertPreTrainedModel):
    """BertModel → pooling → dropout → (hidden layer →) linear head.

    With BERT's pooler and no hidden layer, the default, the state dict is that of BertForSequenceClassification, and
    the saved folder names that class. Any other head loads by `SentimentModel.from_pretrained`, and by `pipeline` once
    this module is imported.
    """

    config_class = SentimentConfig
    stock_class = "BertForSequenceClassification"

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.pooling = getattr(config, "pooling", "pooler")
        hidden_size = getattr(config, "head_hidden_size", 0)
        self.bert = BertModel(config, add_pooling_layer=self.pooling == "pooler")
        rate = config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout
        self.dropout = nn.Dropout(rate)
        self.hidden = nn.Linear(config.hidden_size, hidden_size) if hidden_size else None
        self.classifier = nn.Linear(hidden_size or config.hidden_size, config.num_labels)
        self.post_init()
        let_last_layer_read_few(self.bert)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        **_: Any,
    ) -> SequenceClassifierOutput:
        """Logits (rows, labels) of texts (rows, length); the loss is SentimentTrainer's."""
        # in training [CLS] alone; else all, for logits that are the stock class's to the last bit
        reads_one = self.training and self.pooling != "mean" and can_read_few(self.bert)
        read = {"read_positions": torch.zeros_like(input_ids[:, :1])} if reads_one else {}
        outputs = self.bert(input_ids, attention_mask, token_type_ids, return_dict=True, **read)
        head = self.dropout(self.pool(outputs, attention_mask))
        if self.hidden is not None:
            head = self.dropout(nn.functional.gelu(self.hidden(head)))
        return SequenceClassifierOutput(logits=self.classifier(head))

    def pool(self, outputs: Any, attention_mask: Tensor | None) -> Tensor:
        """One vector a row: (rows, length, width) → (rows, width)."""
        if self.pooling == "pooler":
            return outputs.pooler_output
        states = outputs.last_hidden_state
        if self.pooling == "cls":
            return states[:, 0]
        mask = torch.ones(states.shape[:2], device=states.device) if attention_mask is None else attention_mask
        shares = mask.to(states.dtype) / mask.sum(dim=1, keepdim=True)
        return torch.einsum("rlw,rl->rw", states, shares)

    @property
    def is_stock(self) -> bool:
        """Whether the stock class gives the same logits."""
        return self.pooling == "pooler" and self.hidden is None

    def config_to_save(self) -> BertConfig:
        """A stock config where the stock class gives the same logits; else one of our own type."""
        if self.is_stock:
            return super().config_to_save()
        config = SentimentConfig.from_dict(self.config.to_dict())
        config.architectures = [type(self).__name__]
        return config


SentimentTask = Task[Settings, SentimentArguments, Reading]

AutoConfig.register(SentimentConfig.model_type, SentimentConfig, exist_ok=True)
AutoModelForSequenceClassification.register(SentimentConfig, SentimentModel, exist_ok=True)


def head_settings(task: SentimentTask, scale: Scale) -> dict[str, Any]:
    """What the model's config says beyond the encoder's: the head, as asked for or as a trained folder has it.

    Raises:
        Refusal: a flag that contradicts a trained folder.
    """
    settings, checkpoint = task.settings, task.checkpoint
    config, pairs = checkpoint.config, settings.text_pair_column is not None
    if trained_scale(checkpoint):
        for name, stock in (("pooling", "pooler"), ("head_hidden_size", 0)):
            typed, trained = getattr(settings, name), getattr(config, name, stock)
            if typed not in (None, trained):
                raise Refusal(f"--{name} {typed}: checkpoint {checkpoint.name} was trained with {trained}")
        if checkpoint.reads_pairs not in (None, pairs):
            asks = "one text a row" if pairs else "two texts a row: name the second with --text_pair_column"
            raise Refusal(f"checkpoint {checkpoint.name}: was trained on {asks}")
    head: dict[str, Any] = {"pooling": settings.pooling, "head_hidden_size": settings.head_hidden_size}
    head |= {"classifier_dropout": settings.head_dropout, "bins": scale.bins}
    head = {name: value for name, value in head.items() if value is not None}
    head |= {"reading": task.reading._asdict(), "reads_pairs": pairs}
    if task.trains:
        head["head_temperature"] = None  # of a folder that is trained on, it holds no more
    if scale.is_regression:
        names, head["shades"], head["problem_type"] = ["score"], scale.labels, "regression"
    else:
        names, head["problem_type"] = scale.labels, "single_label_classification"
    return head | {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}


class SentimentTrainer(ExactTrainer):
    """The mean over rows of weight × the loss that was chosen; over all rows the weights have mean 1."""

    def __init__(self, loss: Loss, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.loss = loss

    def count_items(self, batch: dict[str, Tensor]) -> Tensor:
        """Rows of a batch: (1,)."""
        return torch.tensor([len(batch["weights"])])

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Any:
        """The chosen loss, weighted, over the rows of the whole step."""
        outputs, losses, weights, _ = self.row_losses(model, inputs)
        loss = self.step_mean((losses * weights).sum()[None], num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def row_results(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Of each row: its loss, then its logits: (rows, 1 + outputs); and the number of its text: (rows,)."""
        outputs, losses, _, text = self.row_losses(model, inputs)
        return torch.cat([losses[:, None], outputs.logits.float()], dim=1), text

    def row_losses(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Any, Tensor, Tensor, Tensor]:
        """The model's outputs, and of each row its loss, weight and text: (rows,) each."""
        targets, weights, text = (inputs.pop(name) for name in ("targets", "weights", "text"))
        outputs = model(**inputs)
        return outputs, self.loss(outputs.logits, targets), weights, text


# --- Main -------------------------------------------------------------------------------------------------------------


def model_card(model: SentimentModel, scale: Scale, reading: Reading) -> Card:
    """How to load the folder, and what it is not good for."""
    text = '"Profit may edge up if demand holds."'
    text = f'{{"text": {text}, "text_pair": "Marlow Shipping"}}' if model.config.reads_pairs else text
    imported = "" if model.is_stock else "import run_sentiment  # of this project: no stock class has this head\n"
    raw = ', function_to_apply="none"' if scale.is_regression else ""
    usage = (
        f"{imported}from transformers import pipeline\n\n"
        f'shades = pipeline("text-classification", model="FOLDER", top_k=None{raw})\n'
        f"shades({text}, truncation=True, max_length={reading.max_length})"
    )
    limits = ["It learned what its annotators thought, and on neighbouring shades annotators differ."]
    if reading.long_text != "head":
        limits.append(
            f"Of a long text a pipeline reads the head; run_sentiment.py reads it as trained: {reading.long_text}."
        )
    title = "Scores of sentiment" if scale.is_regression else "Sentiment in ordered shades"
    return Card(title, usage, model_limits(limits, model.config, "texts"), "text-classification")


def answer(rows: list[PlacedRow], trainer: SentimentTrainer, settings: Settings, scale: Scale, reading: Reading) -> str:
    """Rows to predict → their lines in predictions.csv."""
    scored = SplitScores(texts_to_answer(rows, settings, scale, reading, trainer.processing_class), scale)
    scored(trainer.predict(scored.rows))
    return csv_text(prediction_rows(scored))


def predict(task: SentimentTask) -> dict[str, float]:
    """Answer --predict_file, part by part; returns what stands in all_results.json."""
    settings, training, checkpoint, reading = task.settings, task.training, task.checkpoint, task.reading
    scale = label_scale(settings, checkpoint)
    head = head_settings(task, scale)
    rows = look_through(settings, partial(check_text, settings=settings))
    if settings.check_only:
        return {}
    model = load_model(SentimentModel, checkpoint, new=(), **head)
    begin_run(task.run, task.recipe, task.lineage)
    has_bar, training.disable_tqdm = not training.disable_tqdm, True  # one bar of all rows
    trainer = SentimentTrainer(
        loss=chosen_loss("regression" if scale.is_regression else settings.loss, 0.0, None),
        model=model,
        args=training,
        processing_class=checkpoint.tokenizer,
        data_collator=partial(collate, pad_token_id=checkpoint.tokenizer.pad_token_id),
    )
    header = csv_text([prediction_header(scale, settings.text_pair_column is not None)])
    answered = partial(answer, trainer=trainer, settings=settings, scale=scale, reading=reading)
    scores = predict_rows(rows, answered, task.run, "predictions.csv", trainer.is_world_process_zero(), has_bar, header)
    finish_run(trainer, task.run, task.lineage, scores, model_card(model, scale, reading))
    return scores


def fine_tune(task: SentimentTask) -> dict[str, float]:
    """Train, where there is a train split, and score the others; returns what stands in all_results.json."""
    settings, training, checkpoint, reading = task.settings, task.training, task.checkpoint, task.reading
    scale = label_scale(settings, checkpoint)
    name = "regression" if scale.is_regression else settings.loss
    loss = chosen_loss(name, training.label_smoothing_factor, settings.focal_gamma)
    head = head_settings(task, scale)
    splits, facts = load_splits(settings, scale, reading, checkpoint.tokenizer)
    scored = {name: SplitScores(split, scale, task.is_calibrated) for name, split in splits.items() if name != "train"}
    check_unfreezing(len(splits["train"].rows) if task.trains else 0, training)
    training.check_best_model(scored["validation"].scores() if "validation" in scored else None)
    if settings.check_only:
        return {}

    set_seed(training.seed)
    model = load_model(SentimentModel, checkpoint, new=("classifier.", "hidden.") if task.trains else (), **head)
    begin_run(task.run, task.recipe, task.lineage)
    trainer = SentimentTrainer(
        loss=loss,
        model=model,
        args=training,
        train_dataset=repeated_rows(splits["train"].rows, training) if task.trains else None,
        eval_dataset=splits["validation"].rows if "validation" in splits else None,
        processing_class=checkpoint.tokenizer,
        data_collator=partial(collate, pad_token_id=checkpoint.tokenizer.pad_token_id),
        compute_metrics=scored.get("validation"),
        places=splits["train"].row_places if task.trains else (),
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
                write_predictions(task.run.folder / "predictions.csv", scored["test"])
    finish_run(trainer, task.run, task.lineage, scores, model_card(model, scale, reading), findings)
    return scores


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Run stage two for sentiment; returns the scores that stand in all_results.json."""
    started = time.time()
    settings, training, recipe = parse_flags(argv, Settings, SentimentArguments, QUICKSTART, __doc__)
    check_task(settings, training, ("calibrate", "class_weights", "head_dropout", "seeds", *SAMPLE_FLAGS))
    if settings.seeds and len(settings.seeds) > 1 and not settings.check_only:
        return run_seeds(main, argv, settings.seeds, training)
    for seed in recipe.pop("seeds", []):  # a single one is --seed
        training.seed = recipe["seed"] = seed
    checkpoint = open_checkpoint(settings.checkpoint)
    check_freezing(training.freeze_layers, checkpoint.config.num_hidden_layers)
    reading = text_reading(settings, checkpoint)
    recipe |= reading.flags()
    formats = (*FORMATS, "txt") if settings.predict_file else FORMATS
    lineage = trace_task(SCRIPT, settings, checkpoint, training, formats)
    run = open_run(training.output_dir, recipe, lineage, settings.check_only, resume_anyway=training.resume_anyway)
    if run.scores is not None:
        return left_as_it_is(run, training)
    task = Task(settings, training, recipe, checkpoint, reading, lineage, run, started)
    return predict(task) if settings.predict_file else fine_tune(task)


if __name__ == "__main__":
    run_script(main)
