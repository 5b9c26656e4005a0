"""Export to ONNX: the graph answers as the model does, whatever the head; what does not hold is not left."""

import csv
import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoTokenizer, pipeline

import export_onnx
import run_ner
import run_sentiment
from tests.conftest import SHADES
from two_stage.checkpointing.handoff import file_sha256, open_checkpoint
from two_stage.command_line.exits import Failure, Refusal

TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
QUICK = ["--max_length", "24", "--use_cpu", "--disable_tqdm", "true", "--save_strategy", "no", "--max_steps", "2"]
QUICK += ["--head_learning_rate", "0.1"]
HEADS = {
    "pooler": ["--calibrate"],
    "mean, hidden": ["--pooling", "mean", "--head_hidden_size", "8"],
    "cls of pairs": ["--pooling", "cls", "--text_pair_column", "label"],
}


@pytest.fixture(scope="module")
def sentiment(tiny_folder: Path, data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibrated sentiment model."""
    return trained_sentiment(HEADS["pooler"], tiny_folder, data_folder, tmp_path_factory.mktemp("made") / "run")


def trained_sentiment(flags: list[str], tiny_folder: Path, data_folder: Path, folder: Path) -> Path:
    """A sentiment model with such a head, and its predictions."""
    texts = str(data_folder / "texts.csv")
    call = ["--checkpoint", str(tiny_folder), "--train_file", texts, "--validation_file", texts, "--test_file", texts]
    call += ["--labels", *SHADES, "--allow_leakage", *QUICK, *flags, "--eval_strategy", "no"]
    run_sentiment.main([*call, "--output_dir", str(folder)])
    return folder


@pytest.fixture(scope="module")
def exported(sentiment: Path) -> dict[str, Any]:
    """What export.json says of it, once exported."""
    return export_onnx.main(["--checkpoint", str(sentiment), "--int8", "--least_agreement", "0"])


def answers(folder: Path, texts: list[list[str]], name: str = "model.onnx") -> np.ndarray:
    """What a user of onnxruntime gets: the logits of each text, one at a time and without padding."""
    import onnxruntime

    tokenizer = AutoTokenizer.from_pretrained(folder)
    session = onnxruntime.InferenceSession(str(folder / name), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, dict(tokenizer(*text, return_tensors="np")))[0] for text in texts])


@pytest.mark.slow  # it exports
def test_a_sentiment_model_and_its_written_probabilities(sentiment: Path, exported: dict[str, Any]) -> None:
    """The graph, with the temperature in it, gives predictions.csv's numbers; config and tokenizer lie beside it."""
    figures, folder = exported, sentiment / "onnx"
    made = {path.name for path in folder.iterdir()}
    assert made == {"model.onnx", "model_int8.onnx", "config.json", "export.json", *TOKENIZER}
    assert json.loads((folder / "export.json").read_text()) == figures
    assert figures["weights_sha256"] == file_sha256(sentiment / "model.safetensors")
    assert figures["fp32"]["max_logit_difference"] <= 1e-5
    assert (figures["fp32"]["same_labels"], figures["fp32"]["compared_on"]) == (48, "predictions.csv")
    assert figures["int8"]["bytes"] < figures["fp32"]["bytes"]
    with open(sentiment / "predictions.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    shares = torch.tensor(answers(folder, [[row["text"]] for row in rows])).softmax(-1).numpy()
    assert shares == pytest.approx(np.array([[float(row[label]) for label in SHADES] for row in rows]), abs=2e-6)
    assert AutoConfig.from_pretrained(folder).id2label == dict(enumerate(SHADES))
    assert AutoConfig.from_pretrained(sentiment).head_temperature > 0
    open_checkpoint(str(sentiment))  # is the checkpoint that it was
    with pytest.raises(Refusal, match="nothing is written over"):
        export_onnx.main(["--checkpoint", str(sentiment)])


@pytest.mark.slow  # it trains and exports
@pytest.mark.parametrize("head", [name for name in HEADS if name != "pooler"])
def test_every_head(head: str, tiny_folder: Path, data_folder: Path, tmp_path: Path) -> None:
    """Also those that no stock class has; the config names a stock class, as the head is in the graph."""
    folder = trained_sentiment(HEADS[head], tiny_folder, data_folder, tmp_path / "run")
    figures = export_onnx.main(["--checkpoint", str(folder), "--output_dir", str(tmp_path / "out")])
    assert figures["fp32"]["max_logit_difference"] <= 1e-5
    with open(folder / "predictions.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    texts = [[row["text"], row["text_pair"]] if head == "cls of pairs" else [row["text"]] for row in rows]
    shares = torch.tensor(answers(tmp_path / "out", texts)).softmax(-1).numpy()
    assert shares == pytest.approx(np.array([[float(row[label]) for label in SHADES] for row in rows]), abs=2e-6)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["model_type"], config["architectures"]) == ("bert", ["BertForSequenceClassification"])


@pytest.mark.slow  # it trains and exports
def test_an_entity_model(tiny_folder: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Word pieces of any number, compared on a file that is given, on what the run left, or on made-up texts."""
    sentences, folder = str(data_folder / "sentences.jsonl"), tmp_path / "run"
    call = ["--checkpoint", str(tiny_folder), "--train_file", sentences, "--test_file", sentences, "--allow_leakage"]
    run_ner.main([*call, *QUICK, "--output_dir", str(folder)])
    figures = export_onnx.main(["--checkpoint", str(folder), "--output_dir", str(tmp_path / "left")])
    assert (figures["fp32"]["texts"], figures["fp32"]["compared_on"]) == (48, "predictions.jsonl")
    there = tmp_path / "left" / "model.onnx"  # of the same weights the next graph would be the same
    monkeypatch.setattr(export_onnx, "export", lambda _, __, path: shutil.copy(there, path))
    call = ["--checkpoint", str(folder), "--test_file", sentences, "--output_dir", str(tmp_path / "given")]
    assert export_onnx.main(call)["fp32"]["labels"] == figures["fp32"]["labels"] > 48
    (folder / "predictions.jsonl").unlink()
    figures = export_onnx.main(["--checkpoint", str(folder)])
    assert figures["fp32"]["compared_on"] == "made-up texts"
    assert figures["fp32"]["max_logit_difference"] <= 1e-5
    text = "profit rose in Oslo ."
    expected = pipeline("token-classification", model=str(folder), device="cpu")(text)
    found = answers(folder / "onnx", [[text]])[0, 1:-1].argmax(-1)
    labels = AutoConfig.from_pretrained(folder / "onnx").id2label
    named = [labels[i] for i in found]
    assert [label for label in named if label != "O"] == [entity["entity"] for entity in expected]


@pytest.mark.slow  # it exports
@pytest.mark.parametrize("graph", ["wrong", "not a number", "infinite", "int8 alone"])
def test_what_does_not_hold_is_not_left(
    graph: str, sentiment: Path, exported: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph whose logits are others; of int8, one that gives other labels, while model.onnx stays."""
    compare = export_onnx.compare

    def broken(model: Any, path: Path, given: Any) -> export_onnx.Comparison:
        found = compare(model, path, given)
        if graph == "int8 alone":
            return found._replace(same=found.same - 2) if "int8" in path.name else found
        if graph == "infinite":  # the model's own logit, so that any difference would be small beside it
            return found._replace(difference=float("inf"), largest=float("inf"))
        return found._replace(difference=2e-5 if graph == "wrong" else float("inf"))

    there = sentiment / "onnx" / "model.onnx"
    monkeypatch.setattr(export_onnx, "export", lambda _, __, path: shutil.copy(there, path))
    monkeypatch.setattr(export_onnx, "compare", broken)
    call = ["--checkpoint", str(sentiment), "--output_dir", str(tmp_path / "out"), "--int8"]
    with pytest.raises(Failure, match="not kept"):
        export_onnx.main([*call, "--least_agreement", "0.99"])
    left = {path.name for path in (tmp_path / "out").iterdir()} if (tmp_path / "out").exists() else set()
    assert ("model.onnx" in left) == (graph == "int8 alone")
    assert "model_int8.onnx" not in left
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(("largest", "limit"), [(0.3, 1e-5), (1.0, 1e-5), (20.0, 2e-4)])
def test_rounding_grows_with_the_logits(largest: float, limit: float) -> None:
    """An entity model is sure of itself: at 20, the last digit of a float is 2e-6 already."""
    assert export_onnx.Comparison(0.0, largest, 1, 1, 0.0, 0.0).most_difference == pytest.approx(limit)


@pytest.mark.slow  # it exports
def test_a_graph_of_other_weights_is_noticed(sentiment: Path, exported: dict[str, Any]) -> None:
    """The comparison is a real one: with a model whose head was changed a little, it does not hold."""
    checkpoint, graph = open_checkpoint(str(sentiment)), sentiment / "onnx" / "model.onnx"
    model = export_onnx.open_model(checkpoint)
    texts = [["profit rose ."], ["cash fell"], ["a b c"]]
    given = list(export_onnx.batches(texts, checkpoint.tokenizer, 24))
    assert [len(batch["input_ids"]) for batch in given] == [1, 2]
    assert export_onnx.compare(model, graph, given).difference <= 1e-5
    with torch.no_grad():
        model.classifier.bias += torch.tensor([2e-5, 0.0, 0.0])
    assert export_onnx.compare(model, graph, given).difference > 1e-5
    with torch.no_grad():
        model.classifier.bias += torch.tensor([float("nan"), 0.0, 0.0])
    assert export_onnx.compare(model, graph, given).difference == float("inf")


@pytest.mark.parametrize(
    ("flags", "needle"),
    [
        ([], "no --checkpoint given"),
        (["--checkpoint", "TINY"], "is no model of stage two"),
        (["--checkpoint", "RUN", "--test_file", "none.csv"], "no such file"),
        (
            ["--checkpoint", "RUN", "--test_file", "TEXTS", "--text_column", "words"],
            "row 1: no column words; found text, label",
        ),
        (["--checkpoint", "RUN", "--test_file", "HALF"], "row 1: column text holds half of a character"),
        (["--checkpoint", "RUN", "--least_agreement", "2"], "between 0 and 1"),
        (["--checkpoint", "RUN", "--int9"], "did you mean int8"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    flags: list[str], needle: str, sentiment: Path, tiny_folder: Path, data_folder: Path, tmp_path: Path
) -> None:
    """In one line."""
    places = {"TINY": str(tiny_folder), "RUN": str(sentiment), "TEXTS": str(data_folder / "texts.csv")}
    places["HALF"] = str(tmp_path / "half.jsonl")
    (tmp_path / "half.jsonl").write_text(r'{"text": "a\ud800"}' + "\n", encoding="utf-8")
    with pytest.raises(Refusal, match=needle):
        export_onnx.main([*(places.get(flag, flag) for flag in flags), "--output_dir", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("same", [6, 7])
def test_what_just_agrees_enough_is_kept_and_nothing_is_said(
    same: int, sentiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """7 of 100 is not less than 0.07, though 0.07 x 100 of floats is more than 7."""
    for name in ("export", "quantize"):
        monkeypatch.setattr(export_onnx, name, lambda *given: given[-1].write_bytes(b"graph"))
    monkeypatch.setattr(export_onnx, "compare", lambda *_: export_onnx.Comparison(0.0, 1.0, 100, same, 1.0, 1.0))
    call = [
        "--checkpoint",
        str(sentiment),
        "--int8",
        "--least_agreement",
        "0.07",
        "--output_dir",
        str(tmp_path / "out"),
    ]
    with pytest.raises(Failure, match="was not kept") if same == 6 else nullcontext():
        export_onnx.main(call)
    assert (tmp_path / "out" / "model_int8.onnx").exists() == (same == 7)


@pytest.mark.parametrize(
    ("expected", "found", "bins", "same"),
    [
        ([[1, 2], [3, 1]], [[0, 9], [1, 2]], None, 1),
        ([[0.2], [-3]], [[-0.2], [-9]], [-1.0, 0.0], 1),
        ([[0.2], [0.2], [50], [-50]], [[0.209], [0.211], [50.4], [-50.6]], None, 2),
        ([[0.2], [0.2]], [[np.nan], [np.inf]], None, 0),
    ],
    ids=["labels", "shades of scores", "scores", "no numbers"],
)
def test_answers_that_are_the_same(expected: Any, found: Any, bins: list[float] | None, same: int) -> None:
    """A model of scores has one logit, which is always its likeliest."""
    assert export_onnx.same_answers(np.array(expected, float), np.array(found, float), bins) == same


@pytest.mark.slow  # it trains and exports
def test_int8_of_a_model_of_scores_must_give_its_scores(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One whose scores are a tenth too high is not left."""
    (tmp_path / "scores.csv").write_text("text,score\nprofit rose,1\nbank fell,-1\n", encoding="utf-8")
    call = ["--checkpoint", str(tiny_folder), "--train_file", str(tmp_path / "scores.csv"), "--loss", "regression"]
    folder = tmp_path / "run"
    run_sentiment.main([*call, "--score_column", "score", *QUICK, "--output_dir", str(folder)])

    def too_high(_: Path, quantized: Path) -> None:
        model = run_sentiment.SentimentModel.from_pretrained(folder).eval()
        with torch.no_grad():
            model.classifier.bias += 0.1
        rows = AutoTokenizer.from_pretrained(folder)(["profit rose", "bank fell"], return_tensors="pt")
        export_onnx.export(model, dict(rows), quantized)

    monkeypatch.setattr(export_onnx, "quantize", too_high)
    with pytest.raises(Failure, match="gives other answers too often"):
        export_onnx.main(["--checkpoint", str(folder), "--int8"])
    assert (folder / "onnx" / "model.onnx").exists()
    assert not (folder / "onnx" / "model_int8.onnx").exists()


@pytest.mark.parametrize("reading", [[128], {"max_length": "128"}])
def test_a_reading_that_is_none_is_refused(reading: Any, sentiment: Path, tmp_path: Path) -> None:
    """As the scripts refuse it."""
    folder = tmp_path / "run"
    shutil.copytree(sentiment, folder, ignore=shutil.ignore_patterns("onnx"))
    (folder / "lineage.json").unlink()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8")) | {"reading": reading}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(Refusal, match=r"config\.json says it reads"):
        export_onnx.main(["--checkpoint", str(folder)])


def test_texts_of_several_files_end_at_the_most(
    sentiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No row behind the last that is compared is read; and of a text with tokens beside it the text."""
    monkeypatch.setattr(export_onnx, "MOST_TEXTS", 3)
    (tmp_path / "a.jsonl").write_text('{"text": "One.", "tokens": [7]}\n{"text": "two"}\n', encoding="utf-8")
    (tmp_path / "b.jsonl").write_text('{"text": null, "tokens": ["three", "."]}\n{"text": ""}\n', encoding="utf-8")
    files = [str(tmp_path / name) for name in ("a.jsonl", "b.jsonl", "gone.csv")]
    texts, _ = export_onnx.comparison_texts(export_onnx.Settings(test_file=files), open_checkpoint(str(sentiment)))
    assert texts == [["One."], ["two"], ["three ."]]


def test_a_place_that_cannot_be_written_to_is_refused(sentiment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the model is loaded."""
    monkeypatch.setattr(export_onnx, "load_model", lambda *_, **__: pytest.fail("a model is loaded"))
    with pytest.raises(Refusal, match=r"out: (Not a directory|File exists); give another --output_dir"):
        export_onnx.main(["--checkpoint", str(sentiment), "--output_dir", str(sentiment / "config.json" / "out")])


def test_a_package_that_is_missing_is_named(sentiment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it, before anything is opened."""
    monkeypatch.setattr(export_onnx, "find_spec", lambda name: None if name == "onnxscript" else object())
    monkeypatch.setattr(export_onnx, "open_checkpoint", lambda _: pytest.fail("a checkpoint is opened"))
    with pytest.raises(Refusal, match=r"^onnxscript: not installed; pip install -r requirements-optional\.txt$"):
        export_onnx.main(["--checkpoint", str(sentiment)])
