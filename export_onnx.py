"""Export a sentiment or entity model to ONNX, and to int8, and prove that it answers as the model does.

    python export_onnx.py --checkpoint outputs/quickstart/sentiment
    python export_onnx.py --checkpoint outputs/quickstart/ner --int8 --test_file recipes/quickstart/data/ner_test.jsonl
    python export_onnx.py --checkpoint outputs/sentiment --int8 --output_dir outputs/sentiment-onnx

It writes CHECKPOINT/onnx: model.onnx (any number of texts of any length; temperature and head are in it), with --int8
model_int8.onnx, the config and the tokenizer, and export.json with the figures. A model.onnx whose logits are further
than 1e-5 of the greatest from the model's is not left there, nor an int8 one that answers too often otherwise.
"""

from dataclasses import dataclass, field

from two_stage.command_line.exits import Failure, Refusal, run_script, say
from two_stage.command_line.recipe import check_range, help_if_asked, parse_settings

# --- Settings ---------------------------------------------------------------------------------------------------------


@dataclass
class Settings:
    """What is exported, and on what it is compared."""

    checkpoint: str | None = field(default=None, metadata={"help": "a folder that stage two left, or a Hub id of one"})
    output_dir: str | None = field(default=None, metadata={"help": "a folder that is not there (CHECKPOINT/onnx)"})
    int8: bool = field(default=False, metadata={"help": "also with weights of 8 bits: a quarter of the size"})
    test_file: list[str] | None = field(
        default=None, metadata={"help": "texts to compare on (the run's predictions, else a few made-up ones)"}
    )
    text_column: str = field(default="text", metadata={"help": "where a table has its texts"})
    text_pair_column: str = field(default="text_pair", metadata={"help": "and its second texts, of a model of pairs"})
    tokens_column: str = field(default="tokens", metadata={"help": "where a row of words has them"})
    least_agreement: float = field(
        default=0.99, metadata={"help": "share of labels, or of scores, that int8 must give as the model does"}
    )

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        check_range(self, 0, 1, "least_agreement")


if __name__ == "__main__":
    help_if_asked(__doc__, Settings)  # before the imports below, which take seconds

import json
import logging
import math
import os
import shutil
import time
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import BertForTokenClassification, PreTrainedModel, PreTrainedTokenizerBase

from run_sentiment import SentimentModel  # the one import between scripts: its heads are classes that no library has
from two_stage.checkpointing.checkpoints import put_in_place, spoken_bytes, told_if_unwritten, write_whole
from two_stage.checkpointing.handoff import Checkpoint, load_model, open_checkpoint, settled_reading
from two_stage.data.files import check_files
from two_stage.data.labelled_texts import SENTIMENT_MODELS
from two_stage.data.tables import UsualColumns, read_rows, tagged_text, text_value
from two_stage.data.tagged_sentences import ENTITY_MODELS

MODELS: dict[str, type[PreTrainedModel]] = dict.fromkeys(SENTIMENT_MODELS, SentimentModel)
MODELS |= dict.fromkeys(ENTITY_MODELS, BertForTokenClassification)
PACKAGES = ("onnx", "onnxruntime", "onnxscript")
FORMATS = ("csv", "tsv", "jsonl", "parquet", "conll", "bio", "txt")
PREDICTIONS = ("predictions.csv", "predictions.jsonl")  # of the run itself: texts to compare on
INT8 = "model_int8.onnx"  # left only where it answers as the model does
MOST_TEXTS, BATCH = 2000, 16  # compared on, and at once
MOST_DIFFERENCE = 1e-5  # between logits, as a share of the greatest where that is over 1: floats have 7 digits
SAME_SCORE = 0.01  # by how much a score may differ and still be the same answer, as a share of it where it is over 1
FEW_ANSWERS = 100  # of which one that differs is a per cent
MADE_UP = (
    "Profit rose .",
    "Orders at Marlow Shipping may edge up if demand holds in Oslo , its chief said on Monday .",
    "The company cut its outlook for the second time this year , and the shares fell 12 % .",
    "Nothing changed .",
    "Analysts expect weaker margins , although cash flow improved and debt is lower than a year ago .",
)


def check_packages() -> None:
    """Refuse to begin without the packages that export and run a graph.

    Raises:
        Refusal: naming the command that installs them.
    """
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise Refusal(f"{', '.join(missing)}: not installed; pip install -r requirements-optional.txt")


# --- Data -------------------------------------------------------------------------------------------------------------


def comparison_texts(settings: Settings, checkpoint: Checkpoint) -> tuple[list[list[str]], str]:
    """Texts to compare on, each with its second text if the model reads pairs, and where they came from.

    Raises:
        Refusal: a file that cannot be read, or a row without a text.
    """
    paired = bool(checkpoint.reads_pairs)
    there = [str(Path(checkpoint.name, name)) for name in PREDICTIONS if Path(checkpoint.name, name).is_file()]
    files = settings.test_file or there[:1]
    if not files:
        return [[text, "Marlow Shipping"] if paired else [text] for text in MADE_UP], "made-up texts"
    texts = []
    columns = UsualColumns(text_column=settings.text_column, tokens_column=settings.tokens_column)
    for row in islice((row for path in files for row in read_rows(path)), MOST_TEXTS):
        pair = [text_value(row, settings.text_pair_column, "text_pair_column")] if paired else []
        # of sentiment a list of tokens beside the text is nothing to read
        is_read = checkpoint.task_model in SENTIMENT_MODELS and row[1].get(settings.text_column) is not None
        text = text_value(row, settings.text_column, "text_column") if is_read else tagged_text(row, columns)
        texts.append([text, *pair])
    if not texts:
        raise Refusal(f"{', '.join(files)}: no row in it; name another --test_file")
    return texts, ", ".join(Path(path).name for path in files)


class RowLength(NamedTuple):
    """Of how a trained folder reads, what a graph can keep."""

    max_length: int


def trained_length(checkpoint: Checkpoint) -> int:
    """Word pieces a row, as the folder was trained; else all that the model has positions for."""
    default = RowLength(checkpoint.config.max_position_embeddings)
    return settled_reading(default, {"max_length": None}, checkpoint).max_length


def batches(texts: list[list[str]], tokenizer: PreTrainedTokenizerBase, max_length: int) -> Iterator[dict[str, Tensor]]:
    """Batches of several lengths, the first of a single text: what the graph gets as (rows, length) each."""
    columns = [list(column) for column in zip(*texts, strict=True)]
    starts = [0, *range(1, len(texts), BATCH)]
    for start, stop in zip(starts, [*starts[1:], len(texts)], strict=True):
        part = [column[start:stop] for column in columns]
        yield dict(tokenizer(*part, padding=True, truncation=True, max_length=max_length, return_tensors="pt"))


# --- Model → graph ----------------------------------------------------------------------------------------------------


class Logits(nn.Module):
    """A model whose output is its logits alone."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Logits: (rows, labels) of texts, or (rows, length, labels) of word pieces."""
        return self.model(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids).logits


def export(model: PreTrainedModel, example: dict[str, Tensor], path: Path) -> None:
    """Write the graph of a model that takes any number of rows of any length.

    Args:
        model: in evaluation mode.
        example: a batch of two rows or more.
        path: of model.onnx, which holds the weights too.
    """
    rows, length = torch.export.Dim("rows"), torch.export.Dim("length", max=model.config.max_position_embeddings)
    names = ("input_ids", "attention_mask", "token_type_ids")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # of torchvision's operators, which no BERT has
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(LeafSpec|axis name)")  # torch's words to itself
        torch.onnx.export(
            Logits(model).eval(),
            tuple(example[name] for name in names),
            str(path),
            input_names=list(names),
            output_names=["logits"],
            dynamic_shapes={name: {0: rows, 1: length} for name in names},
            dynamo=True,
            external_data=False,  # one file; a BERT is far from protobuf's 2 GB
            verbose=False,
        )


def quantize(path: Path, quantized: Path) -> None:
    """Write the graph with weights of 8 bits, those of products a scale for 32 of them; all sums stay in fp32.

    Activations of 8 bits as well (dynamic quantization) gave other labels to one real text in a hundred or more, as a
    few of BERT's are far greater than the rest; benchmarks/README.md has the figures.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    half = quantized.with_suffix(".half")
    logging.disable(logging.WARNING)  # what it does with each of some hundred tensors
    try:
        products = MatMulNBitsQuantizer(onnx.load(str(path)), bits=8, block_size=32, is_symmetric=True)
        products.process()
        products.model.save_model_to_file(str(half))
        quantize_dynamic(str(half), str(quantized), weight_type=QuantType.QInt8, op_types_to_quantize=["Gather"])
    finally:
        logging.disable(logging.NOTSET)
        half.unlink(missing_ok=True)


# --- Proof ------------------------------------------------------------------------------------------------------------


class Comparison(NamedTuple):
    """How a graph's answers compare with the model's."""

    difference: float  # the greatest between two logits
    largest: float  # the model's logit that is furthest from 0
    answers: int  # texts, or word pieces
    same: int  # of them with the same likeliest label, or score
    seconds: float  # the graph took
    model_seconds: float

    @property
    def agreement(self) -> float:
        """The share of answers that are the same."""
        return self.same / self.answers

    @property
    def most_difference(self) -> float:
        """What rounding may come to."""
        return MOST_DIFFERENCE * max(1.0, self.largest)


def same_answers(expected: np.ndarray, found: np.ndarray, bins: list[float] | None) -> int:
    """How many answers are the same: likeliest labels, or of a model of scores, their shades, or else the scores.

    Args:
        expected: the model's logits, (answers, labels), or (answers, 1) of scores.
        found: the graph's.
        bins: where one shade of a score ends and the next begins.
    """
    if expected.shape[1] > 1:
        is_same = expected.argmax(axis=1) == found.argmax(axis=1)
    elif bins:
        is_same = np.digitize(expected[:, 0], bins) == np.digitize(found[:, 0], bins)
    else:
        is_same = np.abs(expected - found) <= SAME_SCORE * np.maximum(np.abs(expected), 1)
    return int(is_same.sum())


def compare(model: PreTrainedModel, path: Path, given: list[dict[str, Tensor]]) -> Comparison:
    """Hold a graph's logits against the model's, where there is no padding.

    Args:
        model: in evaluation mode, on the CPU.
        path: of the graph.
        given: batches.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    difference, largest, answers, same, seconds, model_seconds = 0.0, 0.0, 0, 0, 0.0, 0.0
    for batch in given:
        began = time.perf_counter()
        with torch.no_grad():
            expected = model(**batch).logits.numpy()
        between = time.perf_counter()
        (found,) = session.run(["logits"], {name: tensor.numpy() for name, tensor in batch.items()})
        seconds, model_seconds = seconds + time.perf_counter() - between, model_seconds + between - began
        if expected.ndim == 3:  # word pieces
            is_real = batch["attention_mask"].numpy().astype(bool)
            expected, found = expected[is_real], found[is_real]
        worst = float(np.abs(expected - found).max())
        difference = max(difference, worst if math.isfinite(worst) else math.inf)
        largest = max(largest, float(np.abs(expected).max()))
        answers += len(expected)
        same += same_answers(expected, found, getattr(model.config, "bins", None))
    return Comparison(difference, largest, answers, same, seconds, model_seconds)


# --- Main -------------------------------------------------------------------------------------------------------------


def open_model(checkpoint: Checkpoint) -> PreTrainedModel:
    """The model of a folder of stage two, whatever its head.

    Raises:
        Refusal: a folder without a head that was trained, or what `load_model` refuses.
    """
    if checkpoint.task_model is None:
        raise Refusal(f"checkpoint {checkpoint.name}: is no model of stage two; name a folder that it left")
    return load_model(MODELS[checkpoint.task_model], checkpoint, new=()).eval()


def report(name: str, path: Path, result: Comparison, texts: int, source: str) -> dict[str, Any]:
    """Tell how a graph compares; returns what export.json says of it."""
    size = path.stat().st_size
    say(
        f"{name}: {spoken_bytes(size)}; {texts:,} texts ({source}): logits differ by {result.difference:.1e} at most, "
        f"{result.same:,} of {result.answers:,} answers are the same ({result.agreement:.2%}); "
        f"{result.seconds / texts * 1000:.1f} ms a text, the model itself {result.model_seconds / texts * 1000:.1f}"
    )
    return {
        "bytes": size,
        "texts": texts,
        "compared_on": source,
        "max_logit_difference": result.difference,
        "labels": result.answers,
        "same_labels": result.same,
    }


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Export, compare, and keep what holds; returns what export.json says."""
    settings, _ = parse_settings(argv, Settings, "", __doc__)
    check_packages()
    checkpoint = open_checkpoint(settings.checkpoint)
    if settings.output_dir is None and not Path(checkpoint.name).is_dir():
        raise Refusal(f"checkpoint {checkpoint.name}: is on the Hub; say with --output_dir where the export goes")
    folder = Path(settings.output_dir or Path(checkpoint.name, "onnx"))
    if folder.exists():
        raise Refusal(f"{folder}: is there already, and nothing is written over; remove it, or give --output_dir")
    check_files(settings.test_file or [], FORMATS)
    limit = trained_length(checkpoint)
    texts, source = comparison_texts(settings, checkpoint)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refusal(f"{folder}: {error.strerror}; give another --output_dir") from error
    model = open_model(checkpoint)
    given = list(batches(texts, checkpoint.tokenizer, limit))
    partial = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(partial, ignore_errors=True)
    with told_if_unwritten(folder, "the model is as it was"):
        partial.mkdir(parents=True)
        try:
            figures = export_checked(model, checkpoint, given, partial, settings, (len(texts), source))
            put_in_place(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    say(f"Written: {folder}")
    if settings.int8 and not (folder / INT8).exists():
        raise Failure(
            f"{folder}: the int8 model gives other answers too often, {1 - settings.least_agreement:.2%} being allowed "
            "(--least_agreement), and was not kept; model.onnx is there"
        )
    return figures


def export_checked(
    model: PreTrainedModel,
    checkpoint: Checkpoint,
    given: list[dict[str, Tensor]],
    folder: Path,
    settings: Settings,
    compared_on: tuple[int, str],
) -> dict[str, Any]:
    """Fill a folder with what holds.

    Args:
        model: in evaluation mode.
        checkpoint: that it came from.
        given: batches to compare on.
        folder: that is empty.
        settings: whether int8 too, and how often it must agree.
        compared_on: how many texts, and from where.

    Returns:
        What export.json says; `int8` is None where it was not asked for.

    Raises:
        Failure: the graph's logits are not the model's.
    """
    path, quantized = folder / "model.onnx", folder / INT8
    parts = ["Profit rose .", "Oslo"] if checkpoint.reads_pairs else ["Profit rose ."]
    example = checkpoint.tokenizer(*[[text] * 2 for text in parts])
    export(model, {name: torch.tensor(rows) for name, rows in example.items()}, path)
    result = compare(model, path, given)
    figures: dict[str, Any] = {"weights_sha256": checkpoint.weights_sha256}
    figures["versions"] = {name: version(name) for name in ("torch", "transformers", *PACKAGES)}
    figures["fp32"] = report("model.onnx", path, result, *compared_on)
    if not (math.isfinite(result.difference) and result.difference <= result.most_difference):
        limit = f"{result.most_difference:.1e}"
        raise Failure(f"model.onnx: its logits differ by {result.difference:.1e}, more than {limit}: not kept")
    figures["int8"] = None
    if settings.int8:
        quantize(path, quantized)
        result = compare(model, quantized, given)
        if result.answers < FEW_ANSWERS:
            say(f"! {result.answers} answers tell little of int8; compare on texts of your own, by --test_file")
        figures["int8"] = report(INT8, quantized, result, *compared_on)
        if result.agreement < settings.least_agreement:
            quantized.unlink()
    model.config.architectures = [getattr(model, "stock_class", type(model).__name__)]  # the head is in the graph
    model.config.save_pretrained(folder)
    checkpoint.tokenizer.save_pretrained(folder)
    write_whole(folder / "export.json", json.dumps(figures, indent=1) + "\n")
    return figures


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    run_script(main)
