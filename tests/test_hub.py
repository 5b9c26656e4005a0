"""A finished run goes up to the Hub once: our card, what loads the model, and no text, pickle, checkpoint or secret."""

import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results

import run_ner
import run_sentiment
from tests.conftest import REPOSITORY, SHADES
from tests.fake_hub import FakeHub
from two_stage.checkpointing.hub import files_to_upload
from two_stage.command_line.exits import Refusal
from two_stage.results.report import Card, Findings, card_metadata, hub_ancestor, write_model_card
from two_stage.training.task import check_task
from two_stage.training.training_arguments import FineTuningArguments

TOKEN = "hf_" + "Sekret" * 5 + "Abcd"
LINEAGE = {
    "script": "run_sentiment.py",
    "checkpoint": {
        "name": "outputs/stage-one",
        "from_hub": False,
        "weights_sha256": "1",
        "lineage": {
            "script": "run_pretraining.py",
            "checkpoint": {"name": "bert-base-uncased", "from_hub": True, "weights_sha256": "2", "lineage": None},
            "data": {"train_file": {"news.csv": "5"}},
        },
    },
    "data": {"train_file": {"a/train.csv": "3"}, "test_file": {"/home/someone/test.csv": "4"}},
}


def test_what_goes_up(tmp_path: Path) -> None:
    """What loads the model and tells of it; whatever else lies there stays."""
    up = ["README.md", "all_results.json", "config.json", "confusion_matrix.png", "lineage.json", "model.safetensors"]
    up += ["onnx/model.onnx", "onnx/model_int8.onnx", "recipe.yaml", "tokenizer.json", "tokenizer_config.json"]
    stay = [
        "corpus_report.json",
        "predictions.csv",
        "predictions.jsonl",
        "training_args.bin",
        "optimizer.pt",
        ".env",
        "notes.pkl",
        "a.log",
    ]
    stay += ["checkpoint-3/model.safetensors", "checkpoint-3/a.png", "tensorboard/events.out.tfevents.1", "onnx/a.pt"]
    stay += ["trackio/x.db", "kept/10-percent/config.json", "README.md.png/README.md", ".README.md"]
    for name in [*up, *stay]:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("x", encoding="utf-8")
    assert files_to_upload(tmp_path) == sorted(up)


def test_the_metadata_are_what_the_hub_reads(tmp_path: Path) -> None:
    """The card's front matter comes back through huggingface_hub's own classes, scores and base model among it."""
    scores = {"test_macro_f1": 0.5, "test_accuracy": 0.625, "eval_accuracy": 0.9}
    card = Card("A model", 'load("FOLDER")', task="text-classification")
    write_model_card(tmp_path, card, scores, Findings({}), LINEAGE)
    read = ModelCard((tmp_path / "README.md").read_text(encoding="utf-8"))
    assert read.data.base_model == "bert-base-uncased"
    assert (read.data.pipeline_tag, read.data.library_name) == ("text-classification", "transformers")
    assert read.data.tags == ["bert", "two-stage"]
    assert read.data.metrics == ["accuracy", "f1"]
    found = {(result.metric_name, result.metric_type, result.metric_value) for result in read.data.eval_results}
    assert found == {("accuracy", "accuracy", 0.625), ("macro-F1", "f1", 0.5)}
    assert {(result.dataset_name, result.dataset_split) for result in read.data.eval_results} == {("test.csv", "test")}
    made = yaml.safe_load((tmp_path / "README.md").read_text(encoding="utf-8").split("---")[1])
    name, results = model_index_to_eval_results(made["model-index"])
    assert (name, len(results)) == (tmp_path.name, 2)
    assert "someone" not in (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "license" not in made


def test_a_folder_is_no_base_model() -> None:
    """Only an id of the Hub is: not of a chain that began with a folder, nor of one that says nothing."""
    assert hub_ancestor(LINEAGE) == "bert-base-uncased"
    assert hub_ancestor({"checkpoint": {"name": "a/b", "from_hub": False, "lineage": None}}) is None
    assert hub_ancestor({"checkpoint": {"name": "a/b", "lineage": None}}) is None
    assert hub_ancestor({"checkpoint": {"name": "a/b"}}) is None
    assert hub_ancestor({"checkpoint": {"from_hub": True}}) is None
    assert hub_ancestor(None) is None


@pytest.mark.parametrize("script", [run_sentiment, run_ner])
def test_an_upload_of_nothing_is_refused_before_a_file_is_read(script: Any) -> None:
    """Where nothing is trained."""
    settings = script.Settings(test_file=["gone.csv"])
    with pytest.raises(Refusal, match="--push_to_hub: uploads a model that was trained"):
        check_task(settings, Namespace(push_to_hub=True), ())  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["a: b\n---\n# x", "'\"<script>", f"of {TOKEN}", "--- #"])
def test_names_do_not_break_the_metadata(name: str, tmp_path: Path) -> None:
    """A file's or folder's name stays one value, and a secret in it is none any more."""
    lineage: dict[str, Any] = {"data": {"test_file": {name: "1"}}}
    card = Card("A model", "", task="text-classification")
    write_model_card(tmp_path, card, {"test_f1": 0.5}, Findings({}), lineage)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    metadata = card_metadata(tmp_path, card, {"test_f1": 0.5}, lineage)
    assert ModelCard(text).data.to_dict() == metadata
    assert TOKEN not in text


@pytest.mark.parametrize(
    ("flags", "offline", "token", "needle"),
    [
        ({}, True, TOKEN, "HF_HUB_OFFLINE"),
        ({}, False, None, "hf auth login"),
        ({"hub_strategy": "checkpoint"}, False, TOKEN, "pickles"),
        ({"hub_strategy": "all_checkpoints"}, False, TOKEN, "pickles"),
    ],
)
def test_what_cannot_go_up_is_refused_at_once(
    flags: dict[str, Any],
    offline: bool,
    token: str | None,
    needle: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """With the flags, long before a model is loaded."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: token)
    with pytest.raises(Refusal, match=needle):
        FineTuningArguments(output_dir=str(tmp_path), push_to_hub=True, use_cpu=True, **flags)


# --- Whole runs, and a Hub on this machine ----------------------------------------------------------------------------


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    """A Hub that takes everything."""
    server = FakeHub()
    yield server
    server.shutdown()


def call_with_hub(hub: FakeHub, call: list[str], tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """A script in a process of its own, which knows no Hub but this one."""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_OFFLINE")}
    environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    environment |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    return subprocess.run([sys.executable, *call], cwd=REPOSITORY, env=environment, capture_output=True, text=True)


@pytest.mark.slow  # it starts processes
def test_a_run_goes_up_once(hub: FakeHub, tiny_folder: Path, data_folder: Path, tmp_path: Path) -> None:
    """One commit, at the end, of our card and what loads the model; the token is nowhere but in the requests' heads.

    Where that fails the run is finished all the same, and the same command uploads it.
    """
    texts, run = str(data_folder / "texts.csv"), tmp_path / "shades"
    call = ["run_sentiment.py", "--checkpoint", str(tiny_folder), "--train_file", texts, "--validation_file", texts]
    call += ["--test_file", texts, "--labels", *SHADES, "--allow_leakage", "--max_length", "16", "--use_cpu"]
    call += ["--save_strategy", "steps", "--save_steps", "2", "--max_steps", "4", "--disable_tqdm", "true"]
    call += ["--hub_token", TOKEN, "--push_to_hub", "--hub_private_repo", "true", "--report_to", "tensorboard"]
    call += ["--output_dir", str(run)]
    hub.refuses = "/commit/"
    failed = call_with_hub(hub, call, tmp_path)
    assert failed.returncode == 1, failed.stderr[-2000:]
    assert "is finished, but was not uploaded" in failed.stderr.splitlines()[-1]
    assert (run / "all_results.json").exists()
    assert len([path for path, _, _ in hub.requests if "/commit/" in path]) == 1  # none while it learned
    hub.refuses = ""
    done = call_with_hub(hub, call, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (hub.commits, "left as it is" in done.stdout, "Uploaded" in done.stdout) == (1, True, True)
    created = [body.decode() for path, _, body in hub.requests if path.endswith("/create")]
    assert all('"shades"' in body and "private" in body for body in created)
    expected = {"README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    expected |= {"recipe.yaml", "lineage.json", "all_results.json", "trainer_state.json", "label_scores.json"}
    expected |= {"confusion_matrix.png", "reliability.png", "learning_curves.png"}
    assert hub.files.keys() == expected
    card = (run / "README.md").read_text().replace(f'"{run}"', '"me/shades"')
    assert hub.files == {name: (run / name).read_bytes() for name in expected} | {"README.md": card.encode()}
    assert 'pipeline("text-classification", model="me/shades"' in card
    assert ModelCard(hub.files["README.md"].decode()).data.eval_results
    assert (run / "checkpoint-4" / "optimizer.pt").is_file()  # there was one to leave out
    assert list((run / "tensorboard").iterdir())
    assert not (run / "training_args.bin").exists()
    assert all(TOKEN.encode() not in body for _, _, body in hub.requests)
    assert any(TOKEN in str(headers) for _, headers, _ in hub.requests)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in files if TOKEN.encode() in path.read_bytes()] == []
    assert TOKEN not in failed.stdout + failed.stderr + done.stdout + done.stderr


@pytest.mark.slow  # it starts a process
def test_a_hub_that_refuses(hub: FakeHub, tiny_folder: Path, data_folder: Path, tmp_path: Path) -> None:
    """Before anything is trained, in one line that says what the Hub said."""
    hub.refuses = "/repos/create"
    call = ["run_ner.py", "--checkpoint", str(tiny_folder), "--train_file", str(data_folder / "sentences.jsonl")]
    call += ["--max_length", "16", "--use_cpu", "--max_steps", "1", "--disable_tqdm", "true", "--hub_token", TOKEN]
    call += ["--push_to_hub", "--output_dir", str(tmp_path / "run")]
    done = call_with_hub(hub, call, tmp_path)
    assert done.returncode == 2, done.stderr[-2000:]
    assert "--push_to_hub run: the Hub says" in done.stderr.splitlines()[-1]
    assert TOKEN not in done.stdout + done.stderr
    assert not list((tmp_path / "run").glob("checkpoint-*"))
