"""--new_words from end to end: stage one's folder holds them, a resumed run too, and stage two needs no flag."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, BertForPreTraining

import run_pretraining
import run_sentiment
from tests.conftest import SHADES
from two_stage.checkpointing.handoff import open_checkpoint

WORDS = ["ebitda", "debenture", "bundesbank"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty documents full of three words that the tiny vocabulary has letter by letter."""
    file = tmp_path_factory.mktemp("words") / "corpus.txt"
    documents = [f"{WORDS[i % 3]} rose {'. ' * (i % 5)}\n{WORDS[i % 2]} fell .\nprofit {i}" for i in range(30)]
    file.write_text("\n\n".join(documents))
    return file


def flags(checkpoint: Path, corpus: Path, output: Path) -> list[str]:
    """Four steps, saved after two."""
    call = ["--checkpoint", str(checkpoint), "--train_file", str(corpus), "--output_dir", str(output), "--use_cpu"]
    call += ["--max_steps", "4", "--save_strategy", "steps", "--save_steps", "2", "--save_total_limit", "5"]
    return [*call, "--new_words", "3", "--max_length", "48", "--per_device_train_batch_size", "8"]


@pytest.fixture(scope="module")
def stage_one(tiny_folder: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished stage one with three new words."""
    output = tmp_path_factory.mktemp("new_words") / "pretraining"
    run_pretraining.main(flags(tiny_folder, corpus, output))
    return output


def test_the_folder_holds_the_words(stage_one: Path, tiny_folder: Path) -> None:
    """The tokenizer reads them whole, the model has a row for each, and the lineage names this tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(stage_one)
    before = AutoTokenizer.from_pretrained(tiny_folder)
    for word in WORDS:
        assert tokenizer.tokenize(word) == [word]
        assert len(before.tokenize(word)) > 1
    model = BertForPreTraining.from_pretrained(stage_one)
    assert model.config.vocab_size == len(tokenizer) == len(before) + 3
    assert model.cls.predictions.bias.shape == (len(tokenizer),)
    assert open_checkpoint(str(stage_one)).lineage is not None  # which compares the tokenizer's hash
    assert json.loads((stage_one / "corpus_report.json").read_text())["new_words"] == 3


def test_a_run_with_new_words_resumes_bit_for_bit(
    stage_one: Path, tiny_folder: Path, corpus: Path, tmp_path: Path
) -> None:
    """The vocabulary grows again to the same before the checkpoint is loaded."""
    cut = tmp_path / "pretraining"
    for name in ("checkpoint-2", "recipe.yaml", "lineage.json", "before.json"):
        source = stage_one / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, (cut.mkdir(exist_ok=True), cut / name)[1])
    run_pretraining.main(flags(tiny_folder, corpus, cut))
    weights, expected = load_file(cut / "model.safetensors"), load_file(stage_one / "model.safetensors")
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_stage_two_takes_them_with_no_flag(stage_one: Path, data_folder: Path, tmp_path: Path) -> None:
    """Sentiment starts from the folder; its own folder has the words too."""
    call = ["--checkpoint", str(stage_one), "--train_file", str(data_folder / "texts.csv"), "--labels", *SHADES]
    call += ["--max_length", "32"]
    run_sentiment.main([*call, "--max_steps", "1", "--use_cpu", "--output_dir", str(tmp_path / "sentiment")])
    assert AutoTokenizer.from_pretrained(tmp_path / "sentiment").tokenize("EBITDA rose") == ["ebitda", "rose"]


def test_stage_one_goes_on_from_them(stage_one: Path, corpus: Path, tmp_path: Path) -> None:
    """A second stage one from the folder finds the words there, and no other worth an entry."""
    call = flags(stage_one, corpus, tmp_path / "again")
    run_pretraining.main(call)
    assert len(AutoTokenizer.from_pretrained(tmp_path / "again")) == len(AutoTokenizer.from_pretrained(stage_one))
