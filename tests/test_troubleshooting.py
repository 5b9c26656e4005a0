"""docs/troubleshooting.md quotes messages word for word: each is brought about here, and none other stands there."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import DistributedType
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, BertForSequenceClassification

import run_ner
import run_sentiment
from run_sentiment import SentimentModel
from tests.conftest import REPOSITORY, SHADES
from two_stage.checkpointing import runs
from two_stage.checkpointing.handoff import load_model, open_checkpoint
from two_stage.command_line.exits import Failure, Refusal, told_failure
from two_stage.data import duplicates
from two_stage.data.files import check_files
from two_stage.data.labelled_texts import label_scale, load_splits, text_reading
from two_stage.training.trainer import ExactTrainer
from two_stage.training.training_arguments import FineTuningArguments

PAGE = (REPOSITORY / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
QUOTED = re.findall(r"^```text\n(.*?)\n```$", PAGE, flags=re.MULTILINE | re.DOTALL)


def saved(folder: str, tiny_folder: Path, model_class: type | None) -> None:
    """A checkpoint folder in the current folder; without a class it has no weights."""
    config = BertConfig.from_pretrained(tiny_folder)
    if model_class is None:
        config.save_pretrained(folder)
    else:
        model_class(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_folder).save_pretrained(folder)


def pickled(tiny: Path) -> None:
    """Weights that only pickle reads."""
    saved("models/old", tiny, None)
    Path("models/old/pytorch_model.bin").write_bytes(b"")
    open_checkpoint("models/old")


def poolerless(tiny: Path) -> None:
    """What masked words alone leave."""
    saved("outputs/masked", tiny, BertForMaskedLM)
    load_model(SentimentModel, open_checkpoint("outputs/masked"), new=("classifier.",))


def unfinished(tiny: Path) -> None:
    """A run that has begun and left no scores."""
    Path("outputs/financial").mkdir(parents=True)
    for name in (runs.RECIPE, runs.LINEAGE):
        Path("outputs/financial", name).write_text("{}", encoding="utf-8")
    open_checkpoint("outputs/financial")


def other_config(tiny: Path) -> None:
    """A made folder whose config.json was edited."""
    saved("outputs/financial", tiny, BertForMaskedLM)
    lineage = runs.saved_hashes(Path("outputs/financial"))
    Path("outputs/financial", runs.LINEAGE).write_text(json.dumps(lineage), encoding="utf-8")
    config = Path("outputs/financial/config.json")
    config.write_text(config.read_text(encoding="utf-8").replace('"gelu"', '"relu"'), encoding="utf-8")
    open_checkpoint("outputs/financial")


def other_task(tiny: Path) -> None:
    """A sentiment folder for entities."""
    saved("outputs/sentiment", tiny, BertForSequenceClassification)
    open_checkpoint("outputs/sentiment").trained_labels(*run_ner.ENTITY_MODELS)


def not_there(tiny: Path) -> None:
    """A Hub id that is in no cache, without a network."""
    open_checkpoint("bert-base-cased")


def no_labels(tiny: Path) -> None:
    """Shades whose order nobody said."""
    rows = [{"text": "profit rose", "label": shade} for shade in SHADES]
    Path("texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    label_scale(run_sentiment.Settings(train_file=["texts.jsonl"]), open_checkpoint(str(tiny)))


def unknown_label(tiny: Path) -> None:
    """A capital where --labels has none."""
    Path("texts.csv").write_text("text,label\nprofit rose,bad\nloss fell,Good\n", encoding="utf-8")
    settings, checkpoint = run_sentiment.Settings(train_file=["texts.csv"], labels=SHADES), open_checkpoint(str(tiny))
    scale, reading = label_scale(settings, checkpoint), text_reading(settings, checkpoint)
    load_splits(settings, scale, reading, checkpoint.tokenizer)


def leakage(tiny: Path) -> None:
    """A test text that was trained on."""
    texts = {"train": ["loss fell in lima", "profit rose in oslo"], "test": ["profit rose in oslo"]}
    places = {name: [f"{name}.csv row {i + 1}" for i in range(len(some))] for name, some in texts.items()}
    duplicates.check_leakage(texts, places, allow=False)


def other_encoding(tiny: Path) -> None:
    """What a spreadsheet calls Unicode."""
    Path("news.csv").write_text("text\nprofit rose\n", encoding="utf-16")
    check_files(["news.csv"], ("csv",))


def other_settings(tiny: Path) -> None:
    """A finished run, called with another rate."""
    folder = Path("outputs/financial")
    folder.mkdir(parents=True)
    (folder / runs.RECIPE).write_text("learning_rate: 5e-5\n", encoding="utf-8")
    lineage = {
        "data": {},
        "checkpoint": {"weights_sha256": None, "name": "x"},
        "rows_a_step": 16,
        "tokenizer_sha256": "",
    }
    (folder / runs.LINEAGE).write_text(json.dumps(lineage), encoding="utf-8")
    (folder / runs.RESULTS).write_text("{}", encoding="utf-8")
    runs.open_run(str(folder), {"learning_rate": 2e-5}, lineage, check_only=False)


def half_precision(tiny: Path) -> None:
    """Of a GPU's numbers, on a machine that has none."""
    FineTuningArguments(output_dir="x", precision="bf16")


def full_memory(tiny: Path) -> None:
    """Of a GPU: torch raises this, and the script tells it in a line."""
    raise Failure(told_failure(torch.OutOfMemoryError("CUDA out of memory.")))


def diverged(tiny: Path) -> None:
    """A loss that is no number, before the step that it would have broken."""
    trainer = SimpleNamespace(
        state=SimpleNamespace(global_step=119),
        args=SimpleNamespace(world_size=1, learning_rate=0.01),
        accelerator=SimpleNamespace(distributed_type=DistributedType.NO),
        last_checkpoint=lambda: "outputs/financial/checkpoint-100",
        spoken_rows=lambda bad: "labelled.csv row 17, beginning with “profit rose”",
    )
    ExactTrainer.refuse_step(trainer, torch.tensor([torch.nan]))  # type: ignore[arg-type]


CAUSES: list[Callable[[Path], None]] = [
    pickled,
    poolerless,
    unfinished,
    other_config,
    other_task,
    not_there,
    no_labels,
    unknown_label,
    leakage,
    other_encoding,
    other_settings,
    half_precision,
    full_memory,
    diverged,
]


@pytest.mark.parametrize(
    ("cause", "quoted"), zip(CAUSES, QUOTED, strict=True), ids=lambda value: getattr(value, "__name__", "")
)
def test_each_message_is_the_codes_own(
    cause: Callable[[Path], None], quoted: str, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the page's order; a message that the page has and no cause, or the other way round, fails all."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises((Refusal, Failure)) as told:
        cause(tiny_folder)
    assert str(told.value) == quoted


def test_what_the_page_advises_is_there() -> None:
    """Every flag that it names is one of a script's, and every file of the repository that it names is there."""
    sources = "".join(path.read_text(encoding="utf-8") for path in REPOSITORY.glob("run_*.py"))
    sources += "".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "two_stage").rglob("*.py"))
    launchers = {"cpu", "num_processes", "nproc_per_node", "multi_gpu", "per_device_train_batch_size", "debug"}
    stock = {"gradient_accumulation_steps", "learning_rate", "use_cpu"}
    for flag in set(re.findall(r"--(\w+)", PAGE)) - launchers - stock:
        assert re.search(rf"\b{flag}\b", sources), flag
    for name in re.findall(r"`((?:tests/)?\w+\.py)`", PAGE):
        assert (REPOSITORY / name).is_file(), name
    assert "class SentimentScores" in (REPOSITORY / "two_stage" / "scoring" / "scores.py").read_text(encoding="utf-8")
