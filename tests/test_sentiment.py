"""Stage two for sentiment: heads that come back as saved, temperature, seeds, scores as labels, unfreezing."""

import csv
import json
import math
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from sklearn.metrics import f1_score
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertModel, pipeline

import run_pretraining
import run_sentiment
from run_sentiment import SentimentArguments, SentimentConfig, SentimentModel, SentimentTrainer
from tests.conftest import SHADES, made_up_sentence
from two_stage.checkpointing.handoff import file_sha256
from two_stage.command_line.exits import STOPS, Refusal, Stopped
from two_stage.results import report, score_tables, sentiment_results
from two_stage.scoring.calibration import fit_temperature, softmax
from two_stage.training.layers import UnfreezingCallback, parameter_groups

QUICK = ["--use_cpu", "--max_length", "32", "--per_device_train_batch_size", "8", "--num_train_epochs", "2"]
QUICK += ["--learning_rate", "1e-3", "--head_learning_rate", "1e-2", "--save_strategy", "no"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Three splits of their own texts, with a company, a label, a score, and the shares of the labels."""
    folder, rng, paths = tmp_path_factory.mktemp("splits"), random.Random(1), {}
    for split, count in (("train", 40), ("validation", 24), ("test", 24)):
        paths[split] = str(folder / f"{split}.csv")
        with open(paths[split], "w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["text", "company", "label", "score", *SHADES])
            for _ in range(count):
                text = made_up_sentence(rng)
                score = (text.count("rose") + text.count("grew") - text.count("fell") - text.count("sank")) / 2
                shade = SHADES[int(np.digitize(score, [-0.25, 0.25]))]
                shares = [0.8 if shade == name else 0.1 for name in SHADES]
                rows.writerow([text, rng.choice(["mine", "bank"]), shade, score, *shares])
    return paths


@pytest.fixture(scope="module")
def call(tiny_folder: Path, files: dict[str, str]) -> list[str]:
    """A call that trains, validates and tests."""
    given = [word for split, path in files.items() for word in (f"--{split}_file", path)]
    return ["--checkpoint", str(tiny_folder), *given, *QUICK]


@pytest.fixture(autouse=True, scope="module")
def no_pictures() -> Iterator[None]:
    """Draw nothing: tests/test_pictures.py and tests/test_scripts.py look at pictures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sentiment_results, "draw_confusion_matrix", lambda *_: None)
        patch.setattr(score_tables, "draw_reliability", lambda *_: None)
        patch.setattr(score_tables, "draw_learning_curves", lambda *_: False)
        yield


@pytest.fixture(scope="module")
def run_of(call: list[str], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function that gives the folder of a finished run with some more flags; of the same flags, the same run."""

    @cache
    def made(*more: str) -> Path:
        folder = tmp_path_factory.mktemp("run") / "out"
        run_sentiment.main([*call, *more, "--output_dir", str(folder)])
        return folder

    return made


LABELLED = ["--labels", *SHADES]
SCORED = ["--loss", "regression", "--score_column", "score", "--bins", "-0.25", "0.25", *LABELLED]
HEADS = {
    "default": [],
    "dropout": ["--head_dropout", "0.3"],
    "cls": ["--pooling", "cls"],
    "mean": ["--pooling", "mean"],
    "hidden": ["--head_hidden_size", "8"],
    "mean and hidden": ["--pooling", "mean", "--head_hidden_size", "8"],
}
STOCK = ("default", "dropout")
QUICK_HEADS = {"default", "mean and hidden"}


def predictions(folder: Path) -> list[dict[str, str]]:
    """The rows of predictions.csv."""
    with open(folder / "predictions.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def probabilities(model: torch.nn.Module, folder: Path, texts: list[str]) -> np.ndarray:
    """What a loaded model says of texts: (texts, labels)."""
    batch = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        return softmax(model.eval()(**batch).logits.numpy())


def written(folder: Path) -> np.ndarray:
    """The probabilities of predictions.csv: (texts, labels)."""
    return np.array([[float(row[label]) for label in SHADES] for row in predictions(folder)])


# --- Heads ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", [pytest.param(h, marks=() if h in QUICK_HEADS else pytest.mark.slow) for h in HEADS])
def test_every_head_comes_back(head: str, run_of: Callable[..., Path], call: list[str], tmp_path: Path) -> None:
    """from_pretrained gives the probabilities that the run wrote; so does a run that only predicts."""
    run = run_of(*LABELLED, *HEADS[head])
    texts = [row["text"] for row in predictions(run)]
    model = SentimentModel.from_pretrained(run)
    assert probabilities(model, run, texts) == pytest.approx(written(run), abs=2e-6)
    again = ["--checkpoint", str(run), "--test_file", call[call.index("--test_file") + 1], "--use_cpu"]
    run_sentiment.main([*again, "--output_dir", str(tmp_path / "again")])
    assert predictions(tmp_path / "again") == predictions(run)


@pytest.mark.parametrize("head", HEADS)
def test_a_stock_class_takes_a_stock_head_alone(head: str, run_of: Callable[..., Path]) -> None:
    """Loaded by stock classes the default gives the same logits; any other head is refused rather than misread."""
    run = run_of(*LABELLED, *HEADS[head])
    config = json.loads((run / "config.json").read_text())
    is_stock = head in STOCK
    assert config["model_type"] == ("bert" if is_stock else "bert_sentiment")
    assert config["architectures"] == ["BertForSequenceClassification" if is_stock else "SentimentModel"]
    model = AutoModelForSequenceClassification.from_pretrained(run)  # this module imports ours
    assert type(model).__name__ == config["architectures"][0]
    texts = [row["text"] for row in predictions(run)]
    assert probabilities(model, run, texts) == pytest.approx(written(run), abs=2e-6)
    shades = pipeline("text-classification", model=str(run), top_k=None, device="cpu")
    found = {entry["label"]: entry["score"] for entry in shades([texts[0]])[0]}
    assert found == pytest.approx(dict(zip(SHADES, written(run)[0], strict=True)), abs=2e-6)


@pytest.mark.slow
def test_stock_transformers_refuses_our_own_heads(run_of: Callable[..., Path]) -> None:
    """Without this project's import the folder is no model that transformers knows: an error, not wrong numbers."""
    run = run_of(*LABELLED, "--pooling", "mean")
    folder = str(run)
    code = f"from transformers import AutoModelForSequenceClassification as A; A.from_pretrained({folder!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "bert_sentiment" in done.stderr


def test_pooling_by_hand(tiny_folder: Path) -> None:
    """Cls is the first state, mean the mean over the real tokens, whatever padding stands behind."""
    encoder = BertModel.from_pretrained(tiny_folder).eval()
    batch = AutoTokenizer.from_pretrained(tiny_folder)(["profit rose .", "mine fell fell fell"], padding=True)
    batch = {name: torch.tensor(batch[name]) for name in ("input_ids", "attention_mask")}
    states = encoder(**batch).last_hidden_state
    lengths = batch["attention_mask"].sum(dim=1).tolist()
    means = torch.stack([state[:length].mean(dim=0) for state, length in zip(states, lengths, strict=True)])
    for pooling, expected in (("cls", states[:, 0]), ("mean", means), ("pooler", encoder(**batch).pooler_output)):
        config = encoder.config.__class__.from_dict({**encoder.config.to_dict(), "pooling": pooling})
        model = SentimentModel.from_pretrained(tiny_folder, config=config).eval()
        outputs = model.bert(**batch)
        assert torch.allclose(model.pool(outputs, batch["attention_mask"]), expected, atol=1e-6), pooling


def test_a_head_without_the_pooler_needs_none(tiny_folder: Path, call: list[str], tmp_path: Path) -> None:
    """A checkpoint of masked words alone has no pooler: --pooling mean takes it, and trains no pooler."""
    bare = Path(shutil.copytree(tiny_folder, tmp_path / "bare"))
    BertModel.from_pretrained(tiny_folder, add_pooling_layer=False).save_pretrained(bare)
    given = ["--checkpoint", str(bare), *call[2:], *LABELLED]
    with pytest.raises(Refusal, match="--pooling mean"):
        run_sentiment.main([*given, "--output_dir", str(tmp_path / "refused")])
    run_sentiment.main([*given, "--pooling", "mean", "--output_dir", str(tmp_path / "run")])
    model = SentimentModel.from_pretrained(tmp_path / "run")
    assert model.bert.pooler is None


def test_a_trained_folder_keeps_its_head(run_of: Callable[..., Path], call: list[str], tmp_path: Path) -> None:
    """A flag that contradicts the folder is refused; so is a second text where it was trained on one."""
    run = run_of(*LABELLED, "--pooling", "mean")
    again = ["--checkpoint", str(run), "--test_file", call[call.index("--test_file") + 1], "--use_cpu"]
    again += ["--output_dir", str(tmp_path / "again")]
    with pytest.raises(Refusal, match=r"--pooling cls: .* was trained with mean"):
        run_sentiment.main([*again, "--pooling", "cls"])
    with pytest.raises(Refusal, match=r"--head_hidden_size 8: .* was trained with 0"):
        run_sentiment.main([*again, "--head_hidden_size", "8"])
    with pytest.raises(Refusal, match="trained on one text a row"):
        run_sentiment.main([*again, "--text_pair_column", "company"])
    assert not (tmp_path / "again").exists()


def test_a_second_text_is_read(run_of: Callable[..., Path], call: list[str], tmp_path: Path) -> None:
    """Sentiment toward a company: the stock pipeline gives the written numbers for text and company together."""
    run = run_of(*LABELLED, "--text_pair_column", "company")
    rows = predictions(run)
    assert list(rows[0])[:4] == ["text", "text_pair", "gold", "predicted"]
    shades = pipeline("text-classification", model=str(run), top_k=None, device="cpu")
    for row in rows[:4]:
        found = {e["label"]: e["score"] for e in shades({"text": row["text"], "text_pair": row["text_pair"]})}
        assert found == pytest.approx({label: float(row[label]) for label in SHADES}, abs=2e-6)
    again = ["--checkpoint", str(run), "--test_file", call[call.index("--test_file") + 1], "--use_cpu"]
    with pytest.raises(Refusal, match="two texts a row"):
        run_sentiment.main([*again, "--output_dir", str(tmp_path / "again")])


@pytest.mark.parametrize(
    "more",
    [LABELLED, [*LABELLED, "--text_pair_column", "company"], [*LABELLED, "--pooling", "mean"], SCORED],
    ids=["default", "pairs", "mean", "regression"],
)
def test_the_cards_own_lines_run(more: list[str], run_of: Callable[..., Path]) -> None:
    """What the model card says to paste loads the folder and gives what it says, of a long text too."""
    text = (run_of(*more) / "README.md").read_text(encoding="utf-8")
    usage = text.split("```python\n")[1].split("```")[0].replace("demand holds.", "demand holds. " * 100)
    *lines, last = usage.strip().splitlines()
    found: dict[str, Any] = {}
    exec("\n".join([*lines, f"answer = {last}"]), found)  # our own README
    answer = found["answer"][0] if isinstance(found["answer"][0], list) else found["answer"]
    labels = {entry["label"] for entry in answer}
    assert labels == ({"score"} if more == SCORED else set(SHADES))
    assert ("probabilities were" in text) == (more != SCORED)


def test_a_folder_does_not_know_by_which_loss_it_learned(
    run_of: Callable[..., Path], call: list[str], tmp_path: Path
) -> None:
    """Scored again on its validation texts, it has the scores that it had, and no loss that was another."""
    run = run_of(*LABELLED, "--loss", "ordinal")
    again = ["--checkpoint", str(run), "--validation_file", call[call.index("--validation_file") + 1], "--use_cpu"]
    scores = run_sentiment.main([*again, "--output_dir", str(tmp_path / "again")])
    before = json.loads((run / "all_results.json").read_text())
    assert scores["eval_negative_log_likelihood"] == pytest.approx(before["eval_negative_log_likelihood"])
    assert "eval_loss" in before
    assert "eval_loss" not in scores


def test_an_own_head_opens_without_a_warning(
    run_of: Callable[..., Path], call: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its model type is no news to the script."""
    again = ["--checkpoint", str(run_of(*LABELLED, "--pooling", "mean")), "--use_cpu"]
    again += ["--test_file", call[call.index("--test_file") + 1], "--output_dir", str(tmp_path / "again")]
    run_sentiment.main(again)
    assert "bert_sentiment" not in capfd.readouterr().err


def test_a_file_that_was_trained_on_is_no_test(run_of: Callable[..., Path], call: list[str], tmp_path: Path) -> None:
    """Nor is it after one more stage; --allow_leakage goes on."""
    train = call[call.index("--train_file") + 1]
    again = ["--checkpoint", str(run_of(*LABELLED)), "--use_cpu", "--output_dir", str(tmp_path / "again")]
    with pytest.raises(Refusal, match=r"train\.csv: run_sentiment\.py trained .* on this very file"):
        run_sentiment.main([*again, "--test_file", train])
    run_sentiment.main([*again, "--test_file", train, "--allow_leakage"])


def test_blank_labels_of_a_test_file_are_none(run_of: Callable[..., Path], call: list[str], tmp_path: Path) -> None:
    """A label column that nobody filled in yet is no mistake, half of one is."""
    with open(call[call.index("--test_file") + 1], encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    for name, label in (("blank", ""), ("half", SHADES[0])):
        with open(tmp_path / f"{name}.csv", "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([["text", "label"], [texts[0], label], *([text, ""] for text in texts[1:])])
    again = ["--checkpoint", str(run_of(*LABELLED)), "--use_cpu", "--output_dir", str(tmp_path / "again")]
    with pytest.raises(Refusal, match="1 of 24 rows have a label; label all or none"):
        run_sentiment.main([*again, "--test_file", str(tmp_path / "half.csv")])
    scores = run_sentiment.main([*again, "--test_file", str(tmp_path / "blank.csv")])
    assert not any(name.startswith("test_acc") for name in scores)
    assert len(predictions(tmp_path / "again")) == 24


@pytest.mark.parametrize("flag", ["--test_file", "--predict_file"])
def test_a_model_of_broken_weights_says_so(
    flag: str, run_of: Callable[..., Path], files: dict[str, str], tmp_path: Path
) -> None:
    """Its logits are no numbers, so there is no likeliest shade, and no predictions are written."""
    trained = run_of(*LABELLED)
    model = AutoModelForSequenceClassification.from_pretrained(trained)
    model.classifier.weight.data[1, 0] = math.nan
    model.save_pretrained(tmp_path / "broken")
    AutoTokenizer.from_pretrained(trained).save_pretrained(tmp_path / "broken")
    call = ["--checkpoint", str(tmp_path / "broken"), flag, files["test"], "--use_cpu"]
    with pytest.raises(FloatingPointError, match="its weights are broken"):
        run_sentiment.main([*call, "--output_dir", str(tmp_path / "made")])
    assert not (tmp_path / "made" / "predictions.csv").exists()


# --- Calibration ------------------------------------------------------------------------------------------------------


def test_calibration_divides_the_head(call: list[str], tmp_path: Path) -> None:
    """The folder's own logits are those without calibration over the temperature, and fit validation at 1."""
    for name, more in (("plain", []), ("calibrated", ["--calibrate"])):
        run_sentiment.main([*call, *LABELLED, *more, "--output_dir", str(tmp_path / name)])
    scores = {name: json.loads((tmp_path / name / "all_results.json").read_text()) for name in ("plain", "calibrated")}
    temperature = scores["calibrated"]["temperature"]
    assert abs(temperature - 1) > 0.01
    plain, calibrated = written(tmp_path / "plain"), written(tmp_path / "calibrated")
    assert calibrated == pytest.approx(softmax(np.log(plain) / temperature), abs=2e-4)
    assert (plain.argmax(axis=1) == calibrated.argmax(axis=1)).all()
    for split in ("eval", "test"):
        for name in ("calibration_error", "negative_log_likelihood"):
            before = scores["calibrated"][f"{split}_{name}_uncalibrated"]
            assert before == pytest.approx(scores["plain"][f"{split}_{name}"], abs=1e-6)
    after = scores["calibrated"]
    assert after["eval_negative_log_likelihood"] < after["eval_negative_log_likelihood_uncalibrated"]
    with open(call[call.index("--validation_file") + 1], encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "calibrated")
    shares = probabilities(model, tmp_path / "calibrated", [row["text"] for row in rows])
    assert fit_temperature(np.log(shares), np.array([SHADES.index(row["label"]) for row in rows])) == pytest.approx(
        1, abs=1e-3
    )


@pytest.mark.slow  # it trains whole runs
@pytest.mark.parametrize("more", [["--calibrate"], ["--load_best_model_at_end", "--learning_rate", "0.05"]])
def test_a_run_cut_off_behind_its_last_step_ends_alike(more: list[str], call: list[str], tmp_path: Path) -> None:
    """Called again it scores, calibrates and saves the model that it would have: the last, or the best."""
    flags = [*call, *LABELLED, "--save_strategy", "epoch", "--eval_strategy", "epoch", "--save_total_limit", "9", *more]
    scores = run_sentiment.main([*flags, "--num_train_epochs", "4", "--output_dir", str(tmp_path / "whole")])
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):  # noqa: PT012
        patch.setattr(run_sentiment, "score_splits", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        run_sentiment.main([*flags, "--num_train_epochs", "4", "--output_dir", str(tmp_path / "cut")])
    again = run_sentiment.main([*flags, "--num_train_epochs", "4", "--output_dir", str(tmp_path / "cut")])
    state = json.loads((tmp_path / "whole" / "trainer_state.json").read_text())
    assert ("load_best" in str(more)) == (state["best_global_step"] not in (None, state["global_step"]))
    assert file_sha256(tmp_path / "cut" / "model.safetensors") == file_sha256(tmp_path / "whole" / "model.safetensors")
    for name in ("eval_macro_f1", "test_negative_log_likelihood", "test_macro_f1_low"):
        assert again[name] == scores[name]


@pytest.mark.parametrize(
    ("name", "is_more"),
    [("macro_f1", True), ("eval_quadratic_kappa", True), ("mean_absolute_error", False), ("loss", False)]
    + [(name, False) for name in ("calibration_error", "eval_negative_log_likelihood", "brier")]
    + [(name, False) for name in ("mean_absolute_error_score", "mean_squared_error")],
)
def test_which_score_is_best(name: str, is_more: bool, tmp_path: Path) -> None:
    """The best model by an error is the one with the least."""
    arguments = SentimentArguments(
        use_cpu=True, output_dir=str(tmp_path), load_best_model_at_end=True, metric_for_best_model=name
    )
    assert arguments.greater_is_better is is_more
    arguments = SentimentArguments(
        use_cpu=True, output_dir=str(tmp_path), lr_scheduler_type="reduce_lr_on_plateau", metric_for_best_model=name
    )
    assert arguments.lr_scheduler_kwargs == {"mode": "max" if is_more else "min"}


def test_a_typed_mode_of_a_waiting_schedule_wins(tmp_path: Path) -> None:
    """And its other options stay; a schedule that goes by steps gets none."""
    options = {"mode": "max", "patience": 3}
    arguments = SentimentArguments(
        use_cpu=True, output_dir=str(tmp_path), lr_scheduler_type="greedy", lr_scheduler_kwargs=dict(options)
    )
    assert arguments.lr_scheduler_kwargs == options
    assert not SentimentArguments(use_cpu=True, output_dir=str(tmp_path)).lr_scheduler_kwargs


def test_the_best_model_is_the_best_of_all_that_were_scored(call: list[str], tmp_path: Path) -> None:
    """Scored at every step and saved at every fourth: what is best between two saves is saved all the same."""
    flags = [*call, *LABELLED, "--eval_strategy", "steps", "--eval_steps", "1", "--learning_rate", "0.02"]
    flags += ["--save_strategy", "steps", "--save_steps", "4", "--load_best_model_at_end", "--save_total_limit", "9"]
    scores = run_sentiment.main([*flags, "--output_dir", str(tmp_path / "run")])
    state = json.loads((tmp_path / "run" / "trainer_state.json").read_text())
    best = min((entry["eval_loss"], entry["step"]) for entry in state["log_history"] if "eval_loss" in entry)
    assert best[1] % 4  # or this would tell nothing
    assert scores["eval_loss"] == pytest.approx(best[0], rel=1e-6)
    assert Path(state["best_model_checkpoint"]).name == f"checkpoint-{best[1]}"


def test_only_the_best_is_saved(call: list[str], tmp_path: Path) -> None:
    """By the loss, where no score is named, as for the other ways to keep the best."""
    flags = [*call, *LABELLED, "--save_strategy", "best", "--num_train_epochs", "3", "--learning_rate", "0.02"]
    run_sentiment.main([*flags, "--save_total_limit", "9", "--output_dir", str(tmp_path / "run")])
    state = json.loads((tmp_path / "run" / "trainer_state.json").read_text())
    losses = [(entry["eval_loss"], entry["step"]) for entry in state["log_history"] if "eval_loss" in entry]
    fallen = {f"checkpoint-{step}" for i, (loss, step) in enumerate(losses) if loss < min([9.0, *dict(losses[:i])])}
    assert {path.name for path in (tmp_path / "run").glob("checkpoint-*")} == fallen


def test_a_stop_saves_what_is_not_the_best_too(
    call: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for while the last step is scored: what was learned since the best is not lost."""
    scored = SentimentTrainer.evaluate

    def evaluate(self: SentimentTrainer, *args: Any, **kwargs: Any) -> dict[str, float]:
        if self.state.global_step == self.state.max_steps:
            STOPS.asked = 15
        return scored(self, *args, **kwargs) | {"eval_loss": float(self.state.global_step)}

    monkeypatch.setattr(SentimentTrainer, "evaluate", evaluate)
    flags = [*call, *LABELLED, "--save_strategy", "best", "--metric_for_best_model", "loss"]
    with pytest.raises(Stopped) as stopped:
        run_sentiment.main([*flags, "--output_dir", str(tmp_path / "run")])
    assert stopped.value.saved == str(tmp_path / "run" / "checkpoint-10")


def test_stage_one_forgets_a_head(
    run_of: Callable[..., Path], call: list[str], data_folder: Path, tmp_path: Path
) -> None:
    """Begun with a sentiment model, it leaves an encoder, on which stage two makes the head that it is asked for."""
    head = ["--pooling", "mean", "--head_hidden_size", "8", "--head_dropout", "0.3", "--long_text", "windows"]
    flags = ["--checkpoint", str(run_of(*LABELLED, *head)), "--train_file", str(data_folder / "corpus.txt")]
    flags += ["--use_cpu", "--max_steps", "1", "--max_length", "32", "--save_strategy", "no"]
    run_pretraining.main([*flags, "--output_dir", str(tmp_path / "one")])
    again = [*call, *LABELLED, "--max_steps", "1", "--output_dir", str(tmp_path / "two")]
    again[1] = str(tmp_path / "one")
    run_sentiment.main(again)
    config = json.loads((tmp_path / "two" / "config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert config["classifier_dropout"] is None
    assert config["reading"]["long_text"] == "head"
    assert "SentimentModel" in (run_of(*LABELLED, *head) / "config.json").read_text()
    left = json.loads((tmp_path / "one" / "config.json").read_text())
    assert not {"pooling", "head_hidden_size", "reading", "id2label", "problem_type"}.intersection(left)


# --- Seeds ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow  # it trains whole runs
def test_seeds_are_runs_of_their_own(call: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each seed's folder equals that of a single run, bit for bit; the mean and spread are those of the three."""
    scores = run_sentiment.main([*call, *LABELLED, "--seeds", "3", "1", "2", "--output_dir", str(tmp_path / "seeds")])
    run_sentiment.main([*call, *LABELLED, "--seed", "1", "--output_dir", str(tmp_path / "alone")])
    assert file_sha256(tmp_path / "seeds" / "seed-1" / "model.safetensors") == file_sha256(
        tmp_path / "alone" / "model.safetensors"
    )
    each = [
        json.loads((tmp_path / "seeds" / f"seed-{i}" / "all_results.json").read_text())["test_loss"] for i in (3, 1, 2)
    ]
    assert len(set(each)) == 3
    assert scores["test_loss"] == pytest.approx(np.mean(each))
    summary = json.loads((tmp_path / "seeds" / "seeds.json").read_text())
    assert summary["seeds"] == [3, 1, 2]
    assert summary["scores"]["test_loss"]["each"] == each
    assert summary["scores"]["test_loss"]["sd"] == pytest.approx(np.std(each, ddof=1))
    assert {name: spread["mean"] for name, spread in summary["scores"].items()} == scores
    told = capsys.readouterr().out
    assert "macro-F1" in told
    report.main([str(tmp_path / "seeds")])
    assert capsys.readouterr().out.splitlines()[2] in told  # the table again
    before = file_sha256(tmp_path / "seeds" / "seed-2" / "recipe.yaml")
    again = run_sentiment.main([*call, *LABELLED, "--seeds", "3", "1", "2", "--output_dir", str(tmp_path / "seeds")])
    assert again == scores
    assert file_sha256(tmp_path / "seeds" / "seed-2" / "recipe.yaml") == before
    with pytest.raises(Refusal, match="holds seed-1 too"):
        run_sentiment.main([*call, *LABELLED, "--seeds", "3", "2", "--output_dir", str(tmp_path / "seeds")])
    (tmp_path / "seeds" / "mine.txt").touch()
    with pytest.raises(Refusal, match=r"holds mine\.txt, which is no seed's folder"):
        run_sentiment.main([*call, *LABELLED, "--seeds", "3", "1", "2", "--output_dir", str(tmp_path / "seeds")])


def test_one_seed_is_a_plain_run(call: list[str], tmp_path: Path) -> None:
    """--seeds 7 is --seed 7, in the recipe too, where a typed --seed then wins."""
    run_sentiment.main([*call, *LABELLED, "--seeds", "7", "--max_steps", "1", "--output_dir", str(tmp_path / "run")])
    recipe = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    assert recipe["seed"] == 7
    assert "seeds" not in recipe


@pytest.mark.parametrize("seeds", [["1", "1"], ["-1", "2"], ["-1"], ["99999999999"]])
def test_seeds_that_are_none(seeds: list[str], call: list[str], tmp_path: Path) -> None:
    """The same twice, or out of range; a check of the files tells it as well."""
    for check in ([], ["--check_only"]):
        with pytest.raises(Refusal, match=r"each must be there once|must be between 0"):
            run_sentiment.main([*call, *LABELLED, *check, "--seeds", *seeds, "--output_dir", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()


# --- Scores and shares as labels --------------------------------------------------------------------------------------


def test_regression_comes_back_and_falls_into_shades(call: list[str], tmp_path: Path) -> None:
    """The stock class gives the written scores, and the shades are those of the bins."""
    more = ["--loss", "regression", "--score_column", "score", "--bins", "-0.25", "0.25", *LABELLED]
    scores = run_sentiment.main([*call, *more, "--output_dir", str(tmp_path / "run")])
    rows = predictions(tmp_path / "run")
    predicted = np.array([float(row["predicted_score"]) for row in rows])
    gold = np.array([float(row["gold_score"]) for row in rows])
    assert [row["predicted"] for row in rows] == [SHADES[i] for i in np.digitize(predicted, [-0.25, 0.25])]
    assert [row["gold"] for row in rows] == [SHADES[i] for i in np.digitize(gold, [-0.25, 0.25])]
    assert scores["test_mean_squared_error"] == pytest.approx(((gold - predicted) ** 2).mean(), rel=1e-4)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run")
    batch = AutoTokenizer.from_pretrained(tmp_path / "run")([rows[0]["text"]], return_tensors="pt")
    assert model(**batch).logits.item() == pytest.approx(predicted[0], abs=2e-6)
    test = call[call.index("--test_file") + 1]
    again = ["--checkpoint", str(tmp_path / "run"), "--test_file", test, "--use_cpu", "--score_column", "score"]
    run_sentiment.main([*again, "--output_dir", str(tmp_path / "again")])
    assert predictions(tmp_path / "again") == rows


def test_regression_without_bins(call: list[str], tmp_path: Path) -> None:
    """A score alone: no shades, no confusion matrix, no probabilities."""
    more = ["--loss", "regression", "--score_column", "score", "--output_dir", str(tmp_path / "run")]
    scores = run_sentiment.main([*call, *more])
    assert {"test_mean_squared_error", "test_pearson", "test_pearson_low"} <= scores.keys()
    assert not any("f1" in name or "calibration" in name for name in scores)
    assert not list((tmp_path / "run").glob("*matrix.png"))
    assert list(predictions(tmp_path / "run")[0]) == ["text", "gold", "predicted", "gold_score", "predicted_score"]


def test_a_score_in_bins_is_a_label(call: list[str], tmp_path: Path) -> None:
    """Labels by name and the same labels by score train the same weights, bit for bit."""
    run_sentiment.main([*call, *LABELLED, "--output_dir", str(tmp_path / "name")])
    more = ["--score_column", "score", "--bins", "-0.25", "0.25", *LABELLED]
    run_sentiment.main([*call, *more, "--output_dir", str(tmp_path / "score")])
    weights = [file_sha256(tmp_path / name / "model.safetensors") for name in ("name", "score")]
    assert weights[0] == weights[1]


def test_annotators_shares_are_learned(call: list[str], tmp_path: Path) -> None:
    """A loss against shares of 0.8, 0.1 and 0.1: label smoothing of 0.3 by another name, so the same weights."""
    run_sentiment.main([*call, *LABELLED, "--soft_labels", "--output_dir", str(tmp_path / "shares")])
    more = ["--label_smoothing_factor", "0.3"]
    run_sentiment.main([*call, *LABELLED, *more, "--output_dir", str(tmp_path / "smoothed")])
    assert written(tmp_path / "shares") == pytest.approx(written(tmp_path / "smoothed"), abs=1e-4)
    assert [row["gold"] for row in predictions(tmp_path / "shares")] == [
        row["gold"] for row in predictions(tmp_path / "smoothed")
    ]


def test_windows_give_one_prediction_a_text(call: list[str], tmp_path: Path) -> None:
    """Texts of several windows are predicted once each, by the mean of their windows' logits."""
    more = ["--max_length", "8", "--long_text", "windows", "--stride", "2", *LABELLED]
    scores = run_sentiment.main([*call, *more, "--output_dir", str(tmp_path / "run")])
    rows = predictions(tmp_path / "run")
    with open(call[call.index("--test_file") + 1], encoding="utf-8", newline="") as file:
        assert [row["text"] for row in rows] == [row["text"] for row in csv.DictReader(file)]
    gold, predicted = [row["gold"] for row in rows], [row["predicted"] for row in rows]
    assert scores["test_macro_f1"] == pytest.approx(f1_score(gold, predicted, average="macro", zero_division=0))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run")
    model = SentimentModel.from_pretrained(tmp_path / "run").eval()
    longest = max(range(len(rows)), key=lambda i: len(rows[i]["text"]))
    pieces = tokenizer(rows[longest]["text"], add_special_tokens=False)["input_ids"]
    windows = [pieces[start : start + 6] for start in range(0, len(pieces) - 2, 4)]
    assert len(windows) > 1
    logits = [
        model(torch.tensor([[tokenizer.cls_token_id, *window, tokenizer.sep_token_id]])).logits for window in windows
    ]
    expected = softmax(torch.cat(logits).mean(dim=0).detach().numpy())
    assert written(tmp_path / "run")[longest] == pytest.approx(expected, abs=2e-6)


# --- Learning rates and weights ---------------------------------------------------------------------------------------


def trainer_of(tiny_folder: Path, **arguments: Any) -> SentimentTrainer:
    """A trainer that has not trained."""
    args = SentimentArguments(use_cpu=True, **arguments)
    return SentimentTrainer(loss=run_sentiment.LOSSES["cross_entropy"], model=model_of(tiny_folder), args=args)


def model_of(tiny_folder: Path) -> SentimentModel:
    """A model of three labels."""
    return SentimentModel.from_pretrained(tiny_folder, num_labels=3)


def test_parts_join_from_the_top(tiny_folder: Path) -> None:
    """Over three epochs: the head, then the top layer and the pooler, then the lower layer, then the embeddings."""
    trainer = trainer_of(tiny_folder, unfreeze_epochs=3.0)
    callback = next(c for c in trainer.callback_handler.callbacks if isinstance(c, UnfreezingCallback))
    names = dict(trainer.model.named_parameters())
    expected = [
        (0.0, {"classifier"}),
        (0.99, {"classifier"}),
        (1.0, {"classifier", "pooler", "layer.1"}),
        (2.0, {"classifier", "pooler", "layer.1", "layer.0"}),
        (3.0, {"classifier", "pooler", "layer.1", "layer.0", "embeddings"}),
    ]
    for epoch, learning in expected:
        trainer.state.epoch = epoch
        callback.on_step_begin(trainer.args, trainer.state, trainer.control)
        for name, parameter in names.items():
            assert parameter.requires_grad == any(part in name for part in learning), (epoch, name)


def test_frozen_layers_never_join(tiny_folder: Path) -> None:
    """--freeze_layers wins over --unfreeze_epochs."""
    trainer = trainer_of(tiny_folder, unfreeze_epochs=1.0, freeze_layers=1)
    callback = next(c for c in trainer.callback_handler.callbacks if isinstance(c, UnfreezingCallback))
    trainer.state.epoch = 5.0
    callback.on_step_begin(trainer.args, trainer.state, trainer.control)
    for name, parameter in trainer.model.named_parameters():
        assert parameter.requires_grad != ("embeddings" in name or "layer.0" in name), name
    callback.on_train_end(trainer.args, trainer.state, trainer.control)
    assert not trainer.model.bert.embeddings.word_embeddings.weight.requires_grad


def test_what_has_not_joined_does_not_move(
    tiny_folder: Path, call: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where parts join over five epochs of which two are trained, the lower layers keep the checkpoint's bits."""
    more = [
        "--unfreeze_epochs",
        "5",
        "--max_steps",
        "10",
        "--layer_decay",
        "0.9",
        "--output_dir",
        str(tmp_path / "run"),
    ]
    monkeypatch.setattr(run_sentiment, "check_unfreezing", lambda *_: None)  # it would refuse to end so early
    run_sentiment.main([*call, *LABELLED, *more])
    before, after = BertModel.from_pretrained(tiny_folder), BertModel.from_pretrained(tmp_path / "run")
    for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True):
        joined = "layer.1" in name or "pooler" in name  # at epoch 5 / 3 of 2
        assert torch.equal(old, new) != joined, name


@pytest.mark.parametrize("head", ["default", "mean and hidden"])
def test_a_frozen_encoder_keeps_its_bits(
    head: str, tiny_folder: Path, call: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The head alone learns, the optimizer holds the head alone, and no backward pass goes through the encoder."""
    learning: list[set[str]] = []

    class Watched(SentimentTrainer):
        def training_step(self, model: torch.nn.Module, *args: Any, **kwargs: Any) -> torch.Tensor:
            hook = model.bert.register_forward_hook(  # type: ignore[union-attr]
                lambda _module, _given, made: learning.append({"encoder"} if made[0].requires_grad else set())
            )
            loss = super().training_step(model, *args, **kwargs)
            hook.remove()
            learning[-1] |= {name for name, parameter in model.named_parameters() if parameter.grad is not None}
            held = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
            learning[-1] |= {name for name, parameter in model.named_parameters() if id(parameter) in held}
            return loss

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_sentiment, "SentimentTrainer", Watched)
        more = [*LABELLED, *HEADS[head], "--freeze_encoder", "--weight_decay", "0.1"]
        run_sentiment.main([*call, *more, "--output_dir", str(tmp_path / "run")])
    parts = {"classifier"} if head == "default" else {"classifier", "hidden"}
    assert len(learning) == 10
    assert all(names == {f"{part}.{kind}" for part in parts for kind in ("weight", "bias")} for names in learning)
    before, after = load_file(tiny_folder / "model.safetensors"), load_file(tmp_path / "run" / "model.safetensors")
    encoder = {name for name in after if name.startswith("bert.")}
    assert len(encoder) == (39 if head == "default" else 37)  # 5 embeddings, 2 × 16 of layers, 2 of the pooler
    assert [name for name in encoder if not torch.equal(before[name], after[name])] == []
    assert after["classifier.bias"].abs().min() > 0  # it began as zeros
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("Learning rates: "))
    assert line.startswith("Learning rates: head ")


def test_few_texts_are_gone_over_more_often(call: list[str], tmp_path: Path) -> None:
    """A tenth of 40 texts, 4 epochs' worth of steps: as many evaluations as epochs, and every text in each epoch."""
    steps: list[list[int]] = []

    class Watched(SentimentTrainer):
        def training_step(self, model: torch.nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
            steps.append(inputs["text"].tolist())
            return super().training_step(model, inputs, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_sentiment, "SentimentTrainer", Watched)
        more = ["--train_fraction", "0.1", "--sample_seed", "5", "--min_steps", "7"]
        scores = run_sentiment.main([*call, *LABELLED, *more, "--output_dir", str(tmp_path / "run")])
    assert scores["train_samples"] == 4
    assert len(steps) == 8  # 2 epochs of 4 steps of 8, which is each of the 4 texts 7 times, and 4 to fill up the last
    for epoch in (steps[:4], steps[4:]):
        counts = np.bincount([text for step in epoch for text in step])
        assert counts.sum() == 32
        assert counts.min() >= 7
    history = json.loads((tmp_path / "run" / "trainer_state.json").read_text())["log_history"]
    assert [entry["epoch"] for entry in history if "eval_loss" in entry] == [1.0, 2.0]


def test_steps_enough_change_nothing(run_of: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    """--min_steps of what is done anyway, and a sample of all: the same weights, bit for bit."""
    plain = run_of(*LABELLED)
    capsys.readouterr()
    same = run_of(*LABELLED, "--min_steps", "10", "--train_fraction", "1", "--sample_seed", "3")
    assert file_sha256(same / "model.safetensors") == file_sha256(plain / "model.safetensors")
    assert "an epoch goes over the rows" not in capsys.readouterr().out
    for run in (plain, same):
        scores = json.loads((run / "all_results.json").read_text())
        assert (scores["train_samples"], type(scores["train_tokens"])) == (40, int)


def test_groups_are_told_once(run_of: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    """One line names each part, its rate and how much learns at it: all parameters together."""
    run = run_of(*LABELLED, "--layer_decay", "0.5")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Learning rates: ")]
    assert len(lines) == 1
    for part in ("embeddings 0.00025", "layer 0 0.0005", "layer 1 0.001", "pooler 0.001", "head 0.01"):
        assert part in lines[0]
    counted = sum(int(part.split("(")[1].rstrip(")").replace(",", "")) for part in lines[0].split("), "))
    assert counted == sum(p.numel() for p in SentimentModel.from_pretrained(run).parameters())


@pytest.mark.parametrize("head", [{}, {"head_hidden_size": 8, "pooling": "mean"}])
def test_every_parameter_is_in_one_group(head: dict[str, Any], tiny_folder: Path) -> None:
    """For any head, with and without rates by layer."""
    config = SentimentConfig.from_pretrained(tiny_folder, **head)
    model = SentimentModel.from_pretrained(tiny_folder, config=config)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for layer_decay in (1.0, 0.8):
        groups = parameter_groups(model, set(), SentimentArguments(use_cpu=True, layer_decay=layer_decay))
        held = [names[id(parameter)] for group in groups for parameter in group["params"]]
        assert sorted(held) == sorted(names.values())
        heads = [names[id(p)] for group in groups if group["name"].startswith("head") for p in group["params"]]
        assert sorted(heads) == sorted(name for name in names.values() if not name.startswith("bert."))


@pytest.mark.slow  # it trains whole runs
@pytest.mark.parametrize("more", [[], ["--long_text", "windows", "--max_length", "8"]], ids=["head", "windows"])
def test_an_epochs_mean_is_torchs_weighted_mean(
    more: list[str], tiny_folder: Path, files: dict[str, str], tmp_path: Path
) -> None:
    """Over an epoch, here of steps of one row, the losses have the mean that torch's weighted loss has over all texts.

    So no row counts more because its step holds light ones; a text in windows counts as its label's weight says.
    """
    weights = torch.tensor([2.0, 1.0, 0.25])
    steps: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []

    class Watched(SentimentTrainer):
        def training_step(self, model: torch.nn.Module, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
            given = {name: value.clone() for name, value in inputs.items()}
            with torch.no_grad():
                _, losses, _, text = self.row_losses(model, dict(given))
                steps.append((self.compute_loss(model, given, num_items_in_batch=num_items_in_batch), losses, text))
            return super().training_step(model, inputs, num_items_in_batch)

    flags = ["--checkpoint", str(tiny_folder), "--train_file", files["train"], *LABELLED, *QUICK, *more]
    flags += ["--class_weights", "2", "1", "0.25", "--num_train_epochs", "1", "--per_device_train_batch_size", "1"]
    flags += ["--learning_rate", "0", "--head_learning_rate", "0", "--max_train_samples", "40"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_sentiment, "SentimentTrainer", Watched)
        run_sentiment.main([*flags, "--output_dir", str(tmp_path / "run")])
    with open(files["train"], encoding="utf-8", newline="") as file:
        gold = torch.tensor([SHADES.index(row["label"]) for row in csv.DictReader(file)])
    losses, texts = torch.cat([loss for _, loss, _ in steps]), torch.cat([text for _, _, text in steps])
    assert (len(texts) > 40) == bool(more)
    each = torch.zeros(40).scatter_reduce(0, texts, losses, "mean", include_self=False)  # windows of a text: their mean
    expected = (each * weights[gold]).sum() / weights[gold].sum()
    assert torch.stack([loss for loss, _, _ in steps]).mean().item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--loss", "regression"], "needs the column with the scores"),
        (["--bins", "0"], "needs the column with the scores"),
        (["--score_column", "score", "--bins", "1", "0"], "must be numbers that ascend"),
        (["--score_column", "score", "--bins", "0", "inf"], "must be numbers that ascend"),
        (["--score_column", "score", "--bins", "-1e-3", "nan"], r"-0\.001, nan\]: must be numbers that ascend"),
        (["--focal_gamma", "3"], "only --loss focal has it"),
        (["--loss", "focal", "--focal_gamma", "200"], "--focal_gamma 200.0: must be between 0 and 100"),
        (["--stride", "3"], "only --long_text windows has one"),
        (["--unfreeze_epochs", "2"], "the embeddings would never learn in --num_train_epochs 2"),
        (["--unfreeze_epochs", "1", "--max_steps", "3"], "--max_steps 3 ends after 0.6 epochs, and the embeddings"),
        (["--enable_jit_checkpoint", "true"], "does not go with these scripts"),
        (["--accelerator_config", '{"split_batches": true}'], "split_batches would cut the step"),
        (["--metric_for_best_model", "f1_macro"], "f1_macro: is none of loss, accuracy, macro_f1"),
        (["--optim", "galore_adamw"], "--optim galore_adamw: You need to install"),
        (["--adam_epsilon", "-1"], "--optim adamw_torch_fused: Invalid epsilon value: -1.0"),
        (["--lr_scheduler_type", "warmup_stable_decay"], "'num_decay_steps'; see --lr_scheduler_kwargs"),
        (["--lr_scheduler_kwargs", '{"foo": 1}'], "--lr_scheduler_type linear: .*unexpected keyword argument 'foo'"),
        (["--save_strategy", "best", "--eval_strategy", "no"], "--save_strategy best: needs an --eval_strategy"),
        (["--num_train_epochs", "-1"], "--num_train_epochs -1.0: must be between 0"),
        (["--num_train_epochs", "inf"], "--num_train_epochs inf: must be between 0"),
        (["--dataloader_num_workers", "-1"], "--dataloader_num_workers -1: must be at least 0"),
        (["--seed", "-1"], "--seed -1: must be between 0"),
        (["--freeze_layers", "3"], "the encoder has 2 layers"),
        (["--loss", "regression", "--score_column", "score", "--calibrate"], "--calibrate: means nothing"),
        (["--loss", "focal", "--label_smoothing_factor", "0.1"], "only --loss cross_entropy has it"),
        (["--class_weights", "1", "2"], "3 numbers above 0"),
        (["--score_column", "score", "--bins", "0"], "3 --labels and 1 --bins"),
        (["--unfreeze_epochs", "-1"], "--unfreeze_epochs -1.0: must be at least 0"),
    ],
)
def test_flags_that_do_not_go_together(more: list[str], message: str, call: list[str], tmp_path: Path) -> None:
    """Each is refused in one line before a model is loaded."""
    with pytest.raises(Refusal, match=message) as refused:
        run_sentiment.main([*call, *LABELLED, *more, "--output_dir", str(tmp_path / "run")])
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "more", [["--load_best_model_at_end"], ["--save_strategy", "best"], ["--lr_scheduler_type", "reduce_lr_on_plateau"]]
)
def test_what_goes_by_scores_needs_some(
    more: list[str], tiny_folder: Path, files: dict[str, str], tmp_path: Path
) -> None:
    """Without a validation file there is no best, and a schedule would wait for ever."""
    flags = ["--checkpoint", str(tiny_folder), "--train_file", files["train"], *LABELLED, "--use_cpu"]
    with pytest.raises(Refusal, match=f"{' '.join(more)}: needs a --validation_file"):
        run_sentiment.main([*flags, *more, "--output_dir", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()
