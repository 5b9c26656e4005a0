"""The three scripts, one behind the other, on tiny data: what they leave, what they do when called again."""

import csv
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertForMaskedLM,
    BertModel,
    TrainerState,
    pipeline,
)

import run_ner
import run_pretraining
import run_sentiment
from tests.conftest import REPOSITORY, SHADES
from two_stage.checkpointing.handoff import file_sha256, open_checkpoint
from two_stage.checkpointing.runs import Run
from two_stage.command_line.exits import Failure, Refusal

MODEL_FILES = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
RUN_FILES = {"README.md", "all_results.json", "lineage.json", "recipe.yaml", "trainer_state.json"}
CHECKPOINT_FILES = MODEL_FILES | {
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "trainer_state.json",
    "manifest.json",
}
PICTURES = {"confusion_matrix.png", "reliability.png", "learning_curves.png"}
QUICK = ["--max_length", "32", "--use_cpu", "--per_device_train_batch_size", "8", "--logging_steps", "2"]


@pytest.fixture(scope="module")
def runs(tiny_folder: Path, data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run of each script; stage two starts from stage one's folder."""
    folder = tmp_path_factory.mktemp("runs")
    made = {name: folder / name for name in ("pretraining", "sentiment", "ner")}
    corpus, texts = str(data_folder / "corpus.txt"), str(data_folder / "texts.csv")
    sentences = str(data_folder / "sentences.jsonl")
    start = ["--checkpoint", str(tiny_folder), "--train_file", corpus, "--output_dir", str(made["pretraining"])]
    run_pretraining.main([*start, *QUICK, "--max_steps", "4", "--save_steps", "2"])
    for name, main, file, more in (
        ("sentiment", run_sentiment.main, texts, ["--labels", *SHADES, "--allow_leakage", "--calibrate"]),
        ("ner", run_ner.main, sentences, ["--allow_leakage", "--calibrate"]),
    ):
        start = ["--checkpoint", str(made["pretraining"]), "--output_dir", str(made[name]), "--train_file", file]
        main([*start, "--validation_file", file, "--test_file", file, *more, *QUICK, "--num_train_epochs", "2"])
    return made


def files_of(folder: Path) -> dict[str, str]:
    """Every file below a folder with its hash."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.mark.parametrize(
    ("name", "results", "checkpoints"),
    [
        ("pretraining", {"corpus_report.json", "before.json"}, (2, 4)),
        ("sentiment", {"predictions.csv", "label_scores.json", *PICTURES}, (12,)),
        ("ner", {"predictions.jsonl", "label_scores.json", *PICTURES}, (12,)),
    ],
)
def test_folder_contents(runs: dict[str, Path], name: str, results: set[str], checkpoints: tuple[int, ...]) -> None:
    """Exactly the promised files: safetensors, and no pickled arguments."""
    expected = MODEL_FILES | RUN_FILES | results
    expected |= {f"checkpoint-{step}/{file}" for step in checkpoints for file in CHECKPOINT_FILES}
    assert set(files_of(runs[name])) == expected


def test_scores_that_other_tools_read(runs: dict[str, Path]) -> None:
    """The keys of all_results.json, all finite numbers."""
    promised = {
        "pretraining": "eval_mlm_loss eval_mlm_accuracy eval_perplexity eval_nsp_loss eval_nsp_accuracy "
        "train_samples_per_second train_tokens_per_second",
        "sentiment": "eval_accuracy eval_macro_f1 eval_quadratic_kappa eval_mean_absolute_error test_accuracy "
        "test_macro_f1 test_quadratic_kappa test_mean_absolute_error train_samples_per_second",
        "ner": "eval_precision eval_recall eval_f1 test_precision test_recall test_f1 train_samples_per_second",
    }
    for name, keys in promised.items():
        scores = json.loads((runs[name] / "all_results.json").read_text())
        for key in keys.split():
            assert isinstance(scores[key], float), (name, key)
            assert scores[key] == scores[key]
        assert isinstance(scores["train_tokens"], int)
        assert scores.get("train_samples", 48) == 48
        assert ("train_samples" in scores) == (name != "pretraining")
    report = json.loads((runs["pretraining"] / "corpus_report.json").read_text())
    assert {"random_next_share", "padding_share"} <= report.keys()
    assert report["seconds_a_step"] > 0
    assert report["hours"] == pytest.approx(report["seconds_a_step"] * report["steps"] / 3600)


def test_training_learns(runs: dict[str, Path]) -> None:
    """The loss of the entity run falls: the tags of the tiny data follow from the words."""
    history = json.loads((runs["ner"] / "trainer_state.json").read_text())["log_history"]
    losses = [entry["eval_loss"] for entry in history if "eval_loss" in entry]
    assert losses[-1] < losses[0]


def test_lineage_is_a_chain(runs: dict[str, Path], tiny_folder: Path, data_folder: Path) -> None:
    """Stage two's lineage names stage one's weights, and inside it stands what stage one came from."""
    made = json.loads((runs["sentiment"] / "lineage.json").read_text())
    assert made["weights_sha256"] == file_sha256(runs["sentiment"] / "model.safetensors")
    assert made["checkpoint"]["weights_sha256"] == file_sha256(runs["pretraining"] / "model.safetensors")
    before = made["checkpoint"]["lineage"]
    assert before["script"] == "run_pretraining.py"
    assert before["checkpoint"]["weights_sha256"] == file_sha256(tiny_folder / "model.safetensors")
    corpus = data_folder / "corpus.txt"
    assert before["data"] == {"train_file": {str(corpus): file_sha256(corpus)}}
    assert before["tokenizer_sha256"] == made["tokenizer_sha256"]


def test_stage_one_keeps_encoder_and_pooler(runs: dict[str, Path]) -> None:
    """BertModel takes the folder and misses nothing."""
    _, info = BertModel.from_pretrained(runs["pretraining"], output_loading_info=True)
    assert not info["missing_keys"]


def test_sentiment_pipeline_gives_the_written_probabilities(runs: dict[str, Path]) -> None:
    """The stock pipeline loads the folder and gives predictions.csv's numbers, in the order of the shades."""
    with open(runs["sentiment"] / "predictions.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["text", "gold", "predicted", *SHADES]
    model = AutoModelForSequenceClassification.from_pretrained(runs["sentiment"])
    assert [model.config.id2label[i] for i in range(3)] == SHADES
    shades = pipeline("text-classification", model=str(runs["sentiment"]), top_k=None, device="cpu")
    for row in rows[:8]:
        given = {entry["label"]: entry["score"] for entry in shades([row["text"]])[0]}
        assert given == pytest.approx({name: float(row[name]) for name in SHADES}, abs=2e-5)
        assert row["predicted"] == max(given, key=lambda name: given[name])


def test_pipelines_give_the_very_logits_of_the_models(runs: dict[str, Path], data_folder: Path) -> None:
    """Of both tasks, saved, loaded by stock classes and by ours: a difference of 0.0."""
    texts = [line.rsplit(",", 1)[0] for line in (data_folder / "texts.csv").read_text().splitlines()[1:]]
    ours = {
        "sentiment": run_sentiment.SentimentModel.from_pretrained(runs["sentiment"]).eval(),
        "ner": run_ner.BertForTokenClassification.from_pretrained(runs["ner"]).eval(),
    }
    for name, task in (("sentiment", "text-classification"), ("ner", "token-classification")):
        stock = pipeline(task, model=str(runs[name]), device="cpu")
        for text in texts:
            encoded = stock.tokenizer(text, return_tensors="pt")
            with torch.no_grad():
                assert torch.equal(stock.model(**encoded).logits, ours[name](**encoded).logits)
    raw = pipeline("text-classification", str(runs["sentiment"]), top_k=None, function_to_apply="none", device="cpu")
    for text in texts:
        given = {entry["label"]: entry["score"] for entry in raw([text])[0]}
        with torch.no_grad():
            logits = ours["sentiment"](**raw.tokenizer(text, return_tensors="pt")).logits[0].tolist()
        assert [given[label] for label in SHADES] == logits


def test_ner_predictions_have_one_tag_a_word(runs: dict[str, Path], data_folder: Path) -> None:
    """Tokens and gold tags stand as in the file, and the stock pipeline loads the folder."""
    rows = [json.loads(line) for line in (runs["ner"] / "predictions.jsonl").read_text().splitlines()]
    given = [json.loads(line) for line in (data_folder / "sentences.jsonl").read_text().splitlines()]
    assert [(row["tokens"], row["gold_tags"]) for row in rows] == [(row["tokens"], row["ner_tags"]) for row in given]
    assert all(len(row["predicted_tags"]) == len(row["tokens"]) for row in rows)
    entities = pipeline("token-classification", model=str(runs["ner"]), aggregation_strategy="first", device="cpu")
    entities("profit rose in Oslo .")


def test_a_finished_run_is_left_as_it_is(runs: dict[str, Path], tiny_folder: Path, data_folder: Path) -> None:
    """The same command changes no file and gives the scores again; another setting is refused, and changes none."""
    before = files_of(runs["pretraining"])
    call = ["--recipe", str(runs["pretraining"] / "recipe.yaml")]
    scores = run_pretraining.main(call)
    assert scores == json.loads((runs["pretraining"] / "all_results.json").read_text())
    with pytest.raises(Refusal, match=r"other settings \(learning_rate 3e-05 → 0\.0001\)"):
        run_pretraining.main([*call, "--learning_rate", "1e-4"])
    assert files_of(runs["pretraining"]) == before


def test_the_written_recipe_runs_the_run_again(runs: dict[str, Path], tmp_path: Path) -> None:
    """recipe.yaml alone gives the same weights, bit for bit."""
    run_sentiment.main(["--recipe", str(runs["sentiment"] / "recipe.yaml"), "--output_dir", str(tmp_path / "again")])
    assert file_sha256(tmp_path / "again" / "model.safetensors") == file_sha256(runs["sentiment"] / "model.safetensors")


@pytest.mark.parametrize(
    ("name", "main", "file"),
    [("sentiment", run_sentiment.main, "texts.csv"), ("ner", run_ner.main, "sentences.jsonl")],
)
def test_a_trained_folder_predicts(
    runs: dict[str, Path], name: str, main: object, file: str, data_folder: Path, tmp_path: Path
) -> None:
    """With only a test file the script predicts, writes no weights, and needs no labels."""
    rows = (data_folder / file).read_text().splitlines()
    if name == "sentiment":
        unlabelled = ["text", *(row.rsplit(",", 1)[0] for row in rows[1:])]
    else:
        unlabelled = [json.dumps({"tokens": json.loads(row)["tokens"]}) for row in rows]
    (tmp_path / file).write_text("\n".join(unlabelled) + "\n", encoding="utf-8")
    call = ["--checkpoint", str(runs[name]), "--use_cpu", "--max_length", "32", "--output_dir", str(tmp_path / "out")]
    scores = main([*call, "--test_file", str(tmp_path / file)])  # type: ignore[operator]
    assert not any("accuracy" in key or "f1" in key for key in scores)
    predictions = "predictions.csv" if name == "sentiment" else "predictions.jsonl"
    assert set(files_of(tmp_path / "out")) == {"recipe.yaml", "lineage.json", "all_results.json", predictions}
    if name == "sentiment":
        with open(tmp_path / "out" / predictions, encoding="utf-8", newline="") as new:
            again = [row["predicted"] for row in csv.DictReader(new)]
        with open(runs[name] / predictions, encoding="utf-8", newline="") as old:
            assert again == [row["predicted"] for row in csv.DictReader(old)]


def test_the_tokenizer_travels(runs: dict[str, Path], tiny_folder: Path) -> None:
    """Every folder cuts text as the first checkpoint did."""
    text = "Profit rose 3% in Oslo; costs fell."
    expected = AutoTokenizer.from_pretrained(tiny_folder)(text)["input_ids"]
    for folder in runs.values():
        assert AutoTokenizer.from_pretrained(folder)(text)["input_ids"] == expected


def test_the_three_commands_of_the_readme(tiny_folder: Path, data_folder: Path, tmp_path: Path) -> None:
    """A CSV of domain text → stage one; its folder → sentiment at two learning rates; the same folder → entities."""
    documents = (data_folder / "corpus.txt").read_text().strip().split("\n\n")
    with open(tmp_path / "news.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["text"], *([" ".join(document.splitlines())] for document in documents)])
    folder = {name: str(tmp_path / name) for name in ("financial", "sentiment", "ner")}
    call = ["--checkpoint", str(tiny_folder), "--train_file", str(tmp_path / "news.csv"), "--max_steps", "2"]
    run_pretraining.main([*call, "--output_dir", folder["financial"], *QUICK])
    call = ["--checkpoint", folder["financial"], "--train_file", str(data_folder / "texts.csv"), "--labels", *SHADES]
    call += ["--learning_rate", "2e-5", "--head_learning_rate", "5e-5", "--output_dir", folder["sentiment"]]
    run_sentiment.main([*call, *QUICK, "--max_steps", "2"])
    call = ["--checkpoint", folder["financial"], "--train_file", str(data_folder / "sentences.jsonl")]
    run_ner.main([*call, "--output_dir", folder["ner"], *QUICK, "--max_steps", "2"])
    report = json.loads((tmp_path / "financial" / "corpus_report.json").read_text())
    assert report["sentences"] > report["documents"]  # the splitter found the sentences of each cell


@pytest.mark.slow
def test_stage_one_takes_a_data_set(tiny_folder: Path, data_folder: Path, tmp_path: Path) -> None:
    """A local folder of parquet files is a `datasets` data set: the run is that of the same texts in a file."""
    documents = (data_folder / "corpus.txt").read_text().strip().split("\n\n")
    (tmp_path / "data_set").mkdir()
    Dataset.from_dict({"report": documents}).to_parquet(tmp_path / "data_set" / "train.parquet")
    call = ["--checkpoint", str(tiny_folder), "--text_column", "report", "--max_steps", "2", *QUICK]
    data_set, file = ["--dataset", str(tmp_path / "data_set")], ["--train_file", f"{tmp_path}/data_set/train.parquet"]
    scores = [
        run_pretraining.main([*call, *source, "--output_dir", str(tmp_path / source[0])]) for source in (data_set, file)
    ]
    assert scores[0]["eval_mlm_loss"] == scores[1]["eval_mlm_loss"]


def test_two_learning_rates_one_schedule(tiny_folder: Path) -> None:
    """Encoder and head, decayed or not: four groups at 2e-5 and 5e-5 that hold every parameter exactly once."""
    from two_stage.training.layers import parameter_groups

    model = run_sentiment.SentimentModel.from_pretrained(tiny_folder)
    arguments = run_sentiment.SentimentArguments(use_cpu=True)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed = {name for name in names.values() if "bias" not in name and "LayerNorm" not in name}
    groups = parameter_groups(model, decayed, arguments)
    held = [names[id(parameter)] for group in groups for parameter in group["params"]]
    assert sorted(held) == sorted(names.values())
    assert len(groups) == 4
    for group in groups:
        inside = [names[id(parameter)] for parameter in group["params"]]
        head = group["name"].startswith("head")
        assert group["lr"] == (5e-5 if head else 2e-5)
        assert all(name.startswith("classifier.") == head for name in inside)
        assert group["weight_decay"] == (0.0 if "no decay" in group["name"] else 0.01)
        assert all((name in decayed) == (group["weight_decay"] > 0) for name in inside)


def test_a_run_cut_off_behind_its_last_step_trains_no_more(
    tiny_folder: Path, data_folder: Path, tmp_path: Path
) -> None:
    """Killed after its last checkpoint and before its results, a run is scored and finished, not trained further."""
    call = ["--checkpoint", str(tiny_folder), "--train_file", str(data_folder / "corpus.txt"), "--max_steps", "2"]
    call += ["--save_steps", "2", "--output_dir", str(tmp_path / "run"), *QUICK]
    expected = run_pretraining.main(call)
    before = file_sha256(tmp_path / "run" / "model.safetensors")
    for name in ("all_results.json", "model.safetensors"):
        (tmp_path / "run" / name).unlink()
    scores = run_pretraining.main(call)
    assert file_sha256(tmp_path / "run" / "model.safetensors") == before
    assert json.loads((tmp_path / "run" / "trainer_state.json").read_text())["global_step"] == 2
    for name in ("eval_mlm_loss", "eval_nsp_accuracy"):
        assert scores[name] == pytest.approx(expected[name], rel=1e-6)


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        (["--metric_for_best_model", "eval_f1"], "f1: is none of loss, mlm_loss, mlm_accuracy, perplexity, nsp_loss"),
        (["--validation_fraction", "0"], "needs a --validation_file"),
        (["--no_next_sentence", "--metric_for_best_model", "nsp_loss"], "nsp_loss: is none of"),
    ],
)
def test_stage_one_has_its_best_model_by_a_score_it_gives(
    flags: list[str], found: str, tiny_folder: Path, data_folder: Path, tmp_path: Path
) -> None:
    """Else it would train an epoch before it finds out."""
    call = [
        "--checkpoint",
        str(tiny_folder),
        "--train_file",
        str(data_folder / "corpus.txt"),
        "--use_cpu",
        "--max_length",
        "32",
    ]
    with pytest.raises(Refusal, match=found):
        run_pretraining.main(
            [
                *call,
                "--load_best_model_at_end",
                "--save_strategy",
                "epoch",
                *flags,
                "--output_dir",
                str(tmp_path / "run"),
            ]
        )
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_no_number_stops_the_run(tiny_folder: Path, data_folder: Path, tmp_path: Path) -> None:
    """No folder with a model in it, and the step and the learning rate in the message."""
    call = ["--checkpoint", str(tiny_folder), "--train_file", str(data_folder / "texts.csv"), "--labels", *SHADES]
    call += ["--learning_rate", "1e30", "--head_learning_rate", "1e30", "--max_grad_norm", "0", "--warmup_steps", "0"]
    with pytest.raises(Failure, match=r"step \d: the loss is (nan|inf) \(\S+ row \d+.*learning_rate than 1e\+30"):
        run_sentiment.main([*call, *QUICK, "--save_strategy", "no", "--output_dir", str(tmp_path / "run")])
    assert set(files_of(tmp_path / "run")) == {"recipe.yaml", "lineage.json"}


def test_a_changed_file_is_not_called_the_same_run(tiny_folder: Path, data_folder: Path, tmp_path: Path) -> None:
    """A row added to the texts: the same command does not pass off the old predictions as theirs."""
    texts = tmp_path / "texts.csv"
    texts.write_text((data_folder / "texts.csv").read_text(), encoding="utf-8")
    call = ["--checkpoint", str(tiny_folder), "--train_file", str(texts), "--labels", *SHADES, "--max_steps", "1"]
    call += ["--output_dir", str(tmp_path / "run"), *QUICK]
    run_sentiment.main(call)
    run_sentiment.main(call)
    texts.write_text(texts.read_text() + "profit rose .,good\n", encoding="utf-8")
    with pytest.raises(Refusal, match=r"texts\.csv changed since this run began"):
        run_sentiment.main(call)


@pytest.mark.slow  # it trains whole runs
def test_the_best_checkpoints_scores_are_told_of_the_best_checkpoint(
    tiny_folder: Path, data_folder: Path, tmp_path: Path
) -> None:
    """With load_best_model_at_end the saved weights' own evaluation is reported, not the last one's."""
    texts = str(data_folder / "texts.csv")
    call = ["--checkpoint", str(tiny_folder), "--train_file", texts, "--validation_file", texts, "--labels", *SHADES]
    call += ["--output_dir", str(tmp_path / "run"), *QUICK, "--learning_rate", "0.05", "--num_train_epochs", "4"]
    call += ["--allow_leakage"]
    scores = run_sentiment.main([*call, "--load_best_model_at_end", "--metric_for_best_model", "eval_loss"])
    history = json.loads((tmp_path / "run" / "trainer_state.json").read_text())["log_history"]
    losses = [entry["eval_loss"] for entry in history if "eval_loss" in entry]
    assert scores["eval_loss"] == pytest.approx(min(losses), rel=1e-6)
    assert min(losses[:4]) < losses[3]


def test_every_epoch_has_its_own_order(tiny_folder: Path, data_folder: Path, tmp_path: Path) -> None:
    """Trainer tells the sampler which epoch begins: the same rows come in another order."""
    steps: list[list[list[int]]] = []

    class Watched(run_sentiment.SentimentTrainer):
        def training_step(self, model: torch.nn.Module, inputs: dict[str, torch.Tensor], *args: object) -> torch.Tensor:
            steps.append([row[row > 0].tolist() for row in inputs["input_ids"]])
            return super().training_step(model, inputs, *args)  # type: ignore[arg-type]

    call = ["--checkpoint", str(tiny_folder), "--train_file", str(data_folder / "texts.csv"), "--labels", *SHADES]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_sentiment, "SentimentTrainer", Watched)
        run_sentiment.main([*call, "--output_dir", str(tmp_path / "run"), "--num_train_epochs", "2", *QUICK])
    first, second = ([row for step in half for row in step] for half in (steps[:6], steps[6:]))
    assert len(first) == len(second) == 48
    assert first != second
    assert sorted(first) == sorted(second)


@pytest.mark.slow  # it starts processes
def test_data_workers_change_no_score(tiny_folder: Path, data_folder: Path, tmp_path: Path) -> None:
    """Scored before, after each epoch and at the end, on two data sets, by 0 workers or by 2."""
    scores = {}
    for workers in ("0", "2"):
        call = ["--checkpoint", str(tiny_folder), "--train_file", str(data_folder / "corpus.txt"), "--use_cpu"]
        call += ["--forgetting_file", str(data_folder / "general.txt"), "--num_train_epochs", "2", "--max_length", "32"]
        call += ["--validation_fraction", "0.3", "--dataloader_num_workers", workers, "--save_strategy", "no"]
        call += ["--output_dir", str(tmp_path / workers)]
        (data_folder / "general.txt").write_text("\n\n".join(f"ship {i} fell .\ncash . rose\nmine" for i in range(9)))
        found = run_pretraining.main(call)
        scores[workers] = {name: value for name, value in found.items() if name.endswith(("_loss", "_accuracy"))}
    assert scores["0"] == scores["2"]
    assert scores["0"]["general_mlm_loss"] != scores["0"]["eval_mlm_loss"]


def test_an_untrained_pooler_is_not_handed_on(tiny_folder: Path, data_folder: Path, tmp_path: Path) -> None:
    """Masked words alone, from a checkpoint without a pooler, make a checkpoint without one: stage two says so."""
    BertForMaskedLM.from_pretrained(tiny_folder).save_pretrained(tmp_path / "mlm")
    AutoTokenizer.from_pretrained(tiny_folder).save_pretrained(tmp_path / "mlm")
    call = ["--checkpoint", str(tmp_path / "mlm"), "--train_file", str(data_folder / "corpus.txt"), *QUICK]
    run_pretraining.main([*call, "--no_next_sentence", "--max_steps", "2", "--output_dir", str(tmp_path / "one")])
    call = ["--checkpoint", str(tmp_path / "one"), "--train_file", str(data_folder / "texts.csv"), *QUICK]
    with pytest.raises(Refusal, match="pooler"):
        run_sentiment.main([*call, "--labels", *SHADES, "--output_dir", str(tmp_path / "two")])


@pytest.mark.slow  # it trains whole runs
def test_another_data_set_of_the_same_name_is_another_run(tiny_folder: Path, data_folder: Path, tmp_path: Path) -> None:
    """What was trained on is in the lineage, and a changed data set is not taken for it."""
    documents = (data_folder / "corpus.txt").read_text().strip().split("\n\n")
    (tmp_path / "data_set").mkdir()
    call = ["--checkpoint", str(tiny_folder), "--dataset", str(tmp_path / "data_set"), "--max_steps", "2", *QUICK]
    call += ["--output_dir", str(tmp_path / "run")]
    Dataset.from_dict({"text": documents}).to_parquet(tmp_path / "data_set" / "train.parquet")
    run_pretraining.main(call)
    Dataset.from_dict({"text": documents[::-1]}).to_parquet(tmp_path / "data_set" / "train.parquet")
    with pytest.raises(Refusal, match="data_set changed"):
        run_pretraining.main(call)


# --- Models kept on the way -------------------------------------------------------------------------------------------


@given(
    steps=st.integers(1, 400),
    tenths=st.lists(st.integers(1, 999), min_size=1, max_size=5, unique=True).map(sorted),
    start=st.integers(0, 400),
)
@example(steps=375, tenths=[88], start=0)  # 375 * 8.8 / 100 is 33.00000000000001
def test_models_are_kept_when_due(steps: int, tenths: list[int], start: int) -> None:
    """Each once, after so many tenths of a per cent of the steps, rounded up in whole numbers; no step is the 0th."""
    written = []

    class Noted(run_pretraining.KeepModels):
        def write(self, folder: Path, steps: int) -> None:
            written.append((folder, steps))

    keep = Noted(None, Run(Path("run")), [tenth / 10 for tenth in tenths], {})  # type: ignore[arg-type]
    for step in range(min(start, steps) + 1, steps + 1):  # as a run that resumes behind `start`
        keep.on_step_end(None, TrainerState(global_step=step, max_steps=steps), None)  # type: ignore[arg-type]
    due = [(Path(f"run/kept/{tenth / 10:g}-percent"), -(-steps * tenth // 1000)) for tenth in tenths]
    assert written == [(folder, step) for folder, step in due if step > start]


@pytest.mark.slow  # it trains whole runs
def test_models_are_kept_on_the_way(tiny_folder: Path, data_folder: Path, tmp_path: Path) -> None:
    """Each is the model of a checkpoint of its step, a folder of its own with its lineage; the run ends the same."""
    call = ["--checkpoint", str(tiny_folder), "--train_file", str(data_folder / "corpus.txt"), *QUICK]
    call += ["--max_steps", "7", "--save_steps", "1", "--save_total_limit", "9", "--validation_fraction", "0"]
    run_pretraining.main([*call, "--output_dir", str(tmp_path / "plain")])
    run_pretraining.main([*call, "--keep_at", "2.5", "10", "50", "99.5", "--output_dir", str(tmp_path / "run")])
    steps = {"2.5": 1, "10": 1, "50": 4, "99.5": 7}  # of seven, rounded up
    kept = tmp_path / "run" / "kept"
    assert set(files_of(kept)) == {f"{p}-percent/{file}" for p in steps for file in {*MODEL_FILES, "lineage.json"}}
    assert not (tmp_path / "plain" / "kept").exists()
    for percent, step in steps.items():
        folder = kept / f"{percent}-percent"
        weights = file_sha256(folder / "model.safetensors")
        assert weights == file_sha256(tmp_path / "plain" / f"checkpoint-{step}" / "model.safetensors")
        made = json.loads((folder / "lineage.json").read_text())
        whole = json.loads((tmp_path / "run" / "lineage.json").read_text())
        assert (made.pop("steps"), made["weights_sha256"]) == (step, weights)
        assert made == whole | {"weights_sha256": weights}  # the config is the same
    weights = [file_sha256(tmp_path / run / "model.safetensors") for run in ("run", "plain")]
    assert weights[0] == weights[1]
    assert open_checkpoint(str(kept / "50-percent")).config.architectures == ["BertForPreTraining"]


@pytest.mark.slow  # it trains whole runs
def test_stage_two_takes_a_kept_model(tiny_folder: Path, data_folder: Path, tmp_path: Path) -> None:
    """Its lineage names stage one's data; a kept folder of other weights is refused."""
    corpus = data_folder / "corpus.txt"
    call = ["--checkpoint", str(tiny_folder), "--train_file", str(corpus), *QUICK, "--max_steps", "2"]
    run_pretraining.main([*call, "--keep_at", "50", "--save_strategy", "no", "--output_dir", str(tmp_path / "one")])
    kept = tmp_path / "one" / "kept" / "50-percent"
    call = ["--checkpoint", str(kept), "--train_file", str(data_folder / "texts.csv"), "--labels", *SHADES, *QUICK]
    run_sentiment.main([*call, "--max_steps", "1", "--output_dir", str(tmp_path / "two")])
    made = json.loads((tmp_path / "two" / "lineage.json").read_text())["checkpoint"]
    assert made["weights_sha256"] == file_sha256(kept / "model.safetensors")
    assert made["lineage"]["data"] == {"train_file": {str(corpus): file_sha256(corpus)}}
    assert made["lineage"]["steps"] == 1
    (kept / "model.safetensors").write_bytes((tmp_path / "one" / "model.safetensors").read_bytes())
    with pytest.raises(Refusal, match="not the file that its"):
        run_sentiment.main([*call, "--output_dir", str(tmp_path / "three")])


@pytest.mark.slow  # it trains whole runs
@pytest.mark.parametrize("saved", [True, False], ids=["resumed", "begun anew"])
def test_a_run_that_was_cut_off_keeps_the_same_models(
    saved: bool, tiny_folder: Path, data_folder: Path, tmp_path: Path
) -> None:
    """Cut off behind two of three, it ends with those of a run that was not, and as many tokens seen."""
    call = ["--checkpoint", str(tiny_folder), "--train_file", str(data_folder / "corpus.txt"), *QUICK]
    call += ["--max_steps", "8", "--save_strategy", "steps" if saved else "no", "--save_steps", "3"]
    call += ["--validation_fraction", "0", "--keep_at", "25", "50", "75"]
    whole = run_pretraining.main([*call, "--output_dir", str(tmp_path / "whole")])

    class CutOff(Exception):
        pass

    class Cut(run_pretraining.PretrainingTrainer):
        def training_step(self, *args: object, **kwargs: object) -> torch.Tensor:
            if self.state.global_step == 5:
                raise CutOff
            return super().training_step(*args, **kwargs)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch, pytest.raises(CutOff):  # noqa: PT012
        patch.setattr(run_pretraining, "PretrainingTrainer", Cut)
        run_pretraining.main([*call, "--output_dir", str(tmp_path / "cut")])
    kept = tmp_path / "cut" / "kept"
    assert {path.name for path in kept.iterdir()} == {"25-percent", "50-percent"}
    (kept / "50-percent" / "model.safetensors").write_bytes(b"half of a fi")
    (kept / ".75-percent").mkdir()  # as a run that was killed while it wrote leaves it
    if not saved:
        (kept / "33-percent").mkdir()  # of other settings, before anything bound the folder to them
    scores = run_pretraining.main([*call, "--output_dir", str(tmp_path / "cut")])
    found, expected = files_of(kept), files_of(tmp_path / "whole" / "kept")
    assert {path.name for path in kept.iterdir()} == {"25-percent", "50-percent", "75-percent"}
    assert found == expected
    assert scores["train_tokens"] == whole["train_tokens"]


def test_tokens_are_counted_by_hand(tiny_folder: Path, data_folder: Path, tmp_path: Path) -> None:
    """`train_tokens` of an epoch of one text a step: all their word pieces, [CLS] and [SEP], and no padding."""
    texts = data_folder / "texts.csv"
    with open(texts, encoding="utf-8", newline="") as file:
        tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
        tokens = sum(len(tokenizer(row["text"])["input_ids"]) for row in csv.DictReader(file))
    call = ["--checkpoint", str(tiny_folder), "--train_file", str(texts), "--labels", *SHADES, "--save_strategy", "no"]
    call += [*QUICK, "--num_train_epochs", "1", "--gradient_accumulation_steps", "2"]
    scores = run_sentiment.main([*call, "--output_dir", str(tmp_path / "run")])
    assert scores["train_tokens"] == tokens  # 48 texts in steps of 16
    assert json.loads((tmp_path / "run" / "all_results.json").read_text())["train_tokens"] == tokens


@pytest.mark.slow  # it starts processes
def test_two_processes_keep_the_same_models(tiny_folder: Path, data_folder: Path, tmp_path: Path) -> None:
    """As many tokens are counted, the same folders written, each by one process."""
    flags = ["--checkpoint", str(tiny_folder), "--train_file", str(data_folder / "corpus.txt"), "--use_cpu"]
    flags += ["--max_length", "32", "--max_steps", "4", "--keep_at", "25", "50", "--validation_fraction", "0"]
    calls = {f"pretraining-{n}": [*flags, "--output_dir", str(tmp_path / str(n))] for n in (1, 2)}
    run_pretraining.main([*calls["pretraining-1"], "--per_device_train_batch_size", "16"])
    two = {"pretraining-2": [*calls["pretraining-2"], "--per_device_train_batch_size", "8"]}
    (tmp_path / "calls.json").write_text(json.dumps(two))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    worker = [str(REPOSITORY / "tests" / "two_processes.py"), str(tmp_path / "calls.json")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([*launch, *worker], capture_output=True, text=True, cwd=REPOSITORY, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    tokens = [json.loads((tmp_path / n / "all_results.json").read_text())["train_tokens"] for n in ("1", "2")]
    assert tokens[0] == tokens[1] > 0
    assert set(files_of(tmp_path / "2" / "kept")) == set(files_of(tmp_path / "1" / "kept"))
    for percent in ("25", "50"):
        one, other = (load_file(tmp_path / n / "kept" / f"{percent}-percent" / "model.safetensors") for n in ("1", "2"))
        assert one.keys() == other.keys()
        assert all(torch.allclose(one[name], other[name], atol=1e-5) for name in one)
        open_checkpoint(str(tmp_path / "2" / "kept" / f"{percent}-percent"))
