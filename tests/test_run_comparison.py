"""The comparison as a script: what it refuses, plans and leaves, and that it goes on where it was cut off."""

import csv
import json
import math
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import pytest
from datasets import ClassLabel, Dataset, Features, Value

import run_comparison
import run_pretraining
from tests.conftest import REPOSITORY, SHADES
from two_stage.checkpointing.handoff import open_checkpoint
from two_stage.checkpointing.runs import Run, begin_run
from two_stage.command_line.exits import Failure, Refusal, run_script
from two_stage.command_line.recipe import parse_settings, read_recipe
from two_stage.comparison import plan as comparison_plan
from two_stage.comparison import side_by_side
from two_stage.comparison.checks import (
    check_commands,
    check_one_data,
    check_one_start,
    check_scripts,
    check_test_labels,
)
from two_stage.comparison.inputs import prepare_folder, row_text
from two_stage.comparison.outcome import Cell
from two_stage.comparison.plan import Plan
from two_stage.comparison.report import write_report
from two_stage.comparison.settings import Settings

DATA = {"sentiment": ("texts.csv", "csv"), "ner": ("sentences.jsonl", "jsonl")}
ARMS = ["base", "stage_one", "task_adaptive", "both", "heads_as_is", "scratch"]
REPORT = {"report.html", "report.md", "comparison.json", "all_results.json", "recipe.yaml", "lineage.json"}


class ScriptsWanted(BaseException):
    """A call came as far as the scripts' own checks: everything before was found good."""


@dataclass
class Call:
    """A call of two arms that is good until a test edits it."""

    folder: Path  # the test's own
    task: str = "sentiment"
    flags: dict[str, list[str]] = field(default_factory=dict)

    @property
    def output(self) -> Path:
        """The output folder."""
        return self.folder / "out"

    @property
    def checkpoint(self) -> Path:
        """A copy that the test may spoil."""
        return self.folder / "checkpoint"

    def argv(self) -> list[str]:
        """The typed flags."""
        return [word for name, values in self.flags.items() for word in (f"--{name}", *values)]

    def main(self) -> dict[str, float]:
        """Run the comparison."""
        return run_comparison.main(self.argv())

    def exit_code(self, monkeypatch: pytest.MonkeyPatch) -> object:
        """How the process would end."""
        monkeypatch.setattr(sys, "argv", ["run_comparison.py", *self.argv()])
        with pytest.raises(SystemExit) as ended:
            run_script(run_comparison.main)
        return ended.value.code

    def plan(self) -> Plan:
        """What it would run."""
        return Plan(parse_settings(self.argv(), Settings, run_comparison.QUICKSTART, "")[0])

    def recipe(self, name: str, **changed: object) -> None:
        """Change a recipe; None takes a key out."""
        path = self.folder / f"{name}.yaml"
        content = (json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}) | changed
        content = {key: value for key, value in content.items() if value is not None}
        path.write_text(json.dumps(content), encoding="utf-8")  # which is YAML, too


def lines_of(path: Path) -> list[str]:
    """A file's lines."""
    return path.read_text(encoding="utf-8").splitlines()


def good_call(folder: Path, tiny_folder: Path, data_folder: Path, task: str = "sentiment") -> Call:
    """Two arms, both shares of the labels, two seeds, of tiny data: 32 rows to learn from, 16 to test on."""
    call = Call(folder, task)
    shutil.copytree(tiny_folder, call.checkpoint)
    name, ending = DATA[task]
    header, rows = (1, lines_of(data_folder / name)) if ending == "csv" else (0, lines_of(data_folder / name))
    for split, chosen in (("train", rows[header : header + 32]), ("test", rows[header + 32 :])):
        (folder / f"{split}.{ending}").write_text("\n".join([*rows[:header], *chosen]) + "\n", encoding="utf-8")
    quick: dict[str, Any] = {"max_length": 32, "max_steps": 2, "per_device_train_batch_size": 8, "use_cpu": True}
    quick |= {"save_strategy": "no"}
    files: dict[str, Any] = {f"{split}_file": str(folder / f"{split}.{ending}") for split in ("train", "test")}
    call.recipe("two", **files, **quick, **({"labels": SHADES} if task == "sentiment" else {}))
    call.recipe("one", train_file=str(data_folder / "corpus.txt"), **quick)
    call.recipe("own", **quick)
    call.flags = {"task": [task], "checkpoint": [str(call.checkpoint)], "stage_two": [str(folder / "two.yaml")]}
    call.flags |= {"stage_one": [str(folder / "one.yaml")], "fractions": ["50", "100"], "seeds": ["0", "1"]}
    call.flags |= {"output_dir": [str(call.output)]}
    return call


@pytest.fixture
def call(tmp_path: Path, tiny_folder: Path, data_folder: Path) -> Call:
    """A good call for sentiment."""
    return good_call(tmp_path, tiny_folder, data_folder)


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every path under a folder (or the path itself) with its bytes; empty where there is none."""
    paths = [folder, *folder.rglob("*")] if folder.exists() else []
    return {str(path): path.read_bytes() if path.is_file() else None for path in paths}


def flags_of(command: tuple[str, ...]) -> dict[str, list[str]]:
    """The flags of a command and their values; no flag is there twice, and the script's name stands under ""."""
    found: dict[str, list[str]] = {"": []}
    name = ""
    for word in command:
        if word.startswith("--"):
            name = word.removeprefix("--")
            assert name not in found
            found[name] = []
        else:
            found[name].append(word)
    return found


# --- What is refused --------------------------------------------------------------------------------------------------


def as_recipe(call: Call, *missing: str) -> None:
    """Say all in a recipe, without some keys; a call that names no data at all would run the quickstart."""
    given = {name: values[0] if len(values) == 1 else values for name, values in call.flags.items()}
    call.recipe("whole", **{name: value for name, value in given.items() if name not in missing})
    call.flags = {"recipe": [str(call.folder / "whole.yaml")]}


def stage_one_folder(call: Call, **lineage: Any) -> Path:
    """A finished stage one, as far as a comparison looks at it."""
    folder = call.folder / "one"
    shutil.copytree(call.checkpoint, folder)
    (folder / "lineage.json").write_text(json.dumps(lineage), encoding="utf-8")
    call.flags["stage_one"] = [str(folder)]
    return folder


def trained_for_stage_one(call: Call) -> None:
    """A folder that stage two left, whose head knows the labels already."""
    folder = stage_one_folder(call)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["architectures"] = ["BertForSequenceClassification"]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def unlabelled_test(call: Call) -> None:
    """Texts to predict, which cannot be scored."""
    (call.folder / "new.csv").write_text("text\ncash rose .\n", encoding="utf-8")
    call.recipe("two", test_file=str(call.folder / "new.csv"))


def no_weights(call: Call) -> None:
    """A base that is a config and a tokenizer alone."""
    (call.checkpoint / "model.safetensors").unlink()
    call.flags["arms"] = ["base", "stage_one", "scratch"]


def foreign_files(call: Call) -> None:
    """Somebody's folder."""
    (call.output / "photos").mkdir(parents=True)


def begun(call: Call, **changed: list[str]) -> None:
    """The beginning of this comparison, of which nothing is finished yet, and then other flags."""
    settings, recipe = parse_settings(call.argv(), Settings, run_comparison.QUICKSTART, "")
    begin_run(Run(call.output), recipe, run_comparison.trace_comparison(Plan(settings)))
    call.flags |= changed


def begun_then(spoil: Callable[[Call], object]) -> Callable[[Call], object]:
    """Spoil what a begun comparison was made from."""

    def spoiled(call: Call) -> None:
        begun(call)
        spoil(call)

    return spoiled


def flag(**changed: str) -> Callable[[Call], object]:
    """Spoil flags; their values stand apart by spaces."""
    return lambda call: call.flags.update({name: values.split() for name, values in changed.items()})


def recipe(name: str, **changed: object) -> Callable[[Call], object]:
    """Spoil a recipe."""
    return lambda call: call.recipe(name, **changed)


class BadCall(NamedTuple):
    """How a good call is spoiled, and what the message must say."""

    spoil: Callable[[Call], object]
    needles: list[str]


def data_set(**splits: list[int] | None) -> Callable[[Call], object]:
    """Stage two by a folder of a data set, whose splits have these labels; None is a split without that column."""

    def spoiled(call: Call) -> None:
        folder, of_labels = call.folder / "set", ClassLabel(names=SHADES)
        folder.mkdir()
        for split, labels in splits.items():
            rows: dict[str, Any] = {"text": [f"cash rose {i} ." for i in range(len(labels or [0]))]}
            rows |= {} if labels is None else {"label": labels}
            features = Features({name: of_labels if name == "label" else Value("string") for name in rows})
            Dataset.from_dict(rows, features).to_parquet(folder / f"{split}.parquet")
        call.recipe("two", train_file=None, test_file=None, dataset=str(folder))

    return spoiled


BAD_CALLS = {
    "no task": BadCall(lambda call: as_recipe(call, "task"), ["--task", "missing", "sentiment or ner"]),
    "no checkpoint": BadCall(lambda call: as_recipe(call, "checkpoint"), ["--checkpoint", "missing"]),
    "no stage two": BadCall(lambda call: as_recipe(call, "stage_two"), ["--stage_two", "missing", "run_sentiment.py"]),
    "another task": BadCall(flag(task="translation"), ["--task", "translation"]),
    "an unknown flag": BadCall(flag(fraction="5"), ["--fraction", "fractions"]),
    "a flag of training": BadCall(flag(learning_rate="1e-4"), ["--learning_rate"]),
    "no labels at all": BadCall(flag(fractions="0 50"), ["--fractions 0 50", "above 0"]),
    "more labels than there are": BadCall(flag(fractions="50 101"), ["--fractions 50 101", "at most 100"]),
    "shares that fall": BadCall(flag(fractions="100 50"), ["--fractions 100 50", "ascending"]),
    "a share twice": BadCall(flag(fractions="50 50"), ["--fractions 50 50"]),
    "a share that is no number": BadCall(flag(fractions="nan"), ["--fractions nan"]),
    "a share in words": BadCall(flag(fractions="half"), ["--fractions", "half"]),
    "all of stage one as a dose": BadCall(flag(doses="10 100"), ["--doses 10 100", "below 100"]),
    "none of stage one as a dose": BadCall(flag(doses="0"), ["--doses 0", "above 0"]),
    "doses that fall": BadCall(flag(doses="30 10"), ["--doses 30 10", "ascending"]),
    "doses of another arm": BadCall(
        flag(doses="10", arms="base both", task_adaptive="own.yaml"), ["--doses", "add stage_one to --arms"]
    ),
    "no worker": BadCall(flag(workers="0"), ["--workers 0", "at least 1"]),
    "a seed below 0": BadCall(flag(seeds="0 -1"), ["--seeds -1"]),
    "a seed too large": BadCall(flag(seeds=str(2**32)), [f"--seeds {2**32}"]),
    "a seed twice": BadCall(flag(seeds="0 1 0"), ["--seeds", "once"]),
    "an arm twice": BadCall(flag(arms="base stage_one stage_one"), ["--arms", "once"]),
    "an unknown arm": BadCall(flag(arms="base stage_two"), ["--arms", "stage_two"]),
    "an unknown score": BadCall(flag(score="bleu"), ["--score bleu", "sentiment", "macro_f1", "pearson"]),
    "another task's score": BadCall(flag(score="f1"), ["--score f1", "macro_f1"]),
    "no stage one": BadCall(
        lambda call: call.flags.pop("stage_one"), ["--arms stage_one", "--stage_one", "run_pretraining.py"]
    ),
    "no task-adaptive stage one": BadCall(flag(arms="base both"), ["--arms both", "--task_adaptive"]),
    "a stage one that no arm uses": BadCall(flag(arms="base scratch"), ["--stage_one", "no arm uses it"]),
    "a task-adaptive one that no arm uses": BadCall(flag(task_adaptive="own.yaml"), ["--task_adaptive", "no arm"]),
    "nothing but base": BadCall(
        lambda call: (call.flags.pop("stage_one"), call.flags.update(arms=["base"])), ["--arms", "nothing", "base"]
    ),
    "a stage one that is called like an arm": BadCall(flag(stage_one="both=a.yaml"), ["both=a.yaml", "NAME=RECIPE"]),
    "a stage one called base": BadCall(flag(stage_one="base=a.yaml"), ["base=a.yaml", "name of its own"]),
    "two stages one without names": BadCall(flag(stage_one="a.yaml b.yaml"), ["--stage_one b.yaml", "name of its own"]),
    "two stages one of a name": BadCall(flag(stage_one="a=a.yaml a=b.yaml"), ["--stage_one a=b.yaml"]),
    "a name that is no folder's": BadCall(flag(stage_one="a/b=a.yaml"), ["a/b=a.yaml", "letters and digits"]),
    "a name and nothing": BadCall(flag(stage_one="news="), ["--stage_one news="]),
    "a missing recipe of stage two": BadCall(flag(stage_two="gone.yaml"), ["gone.yaml", "no such file"]),
    "a recipe of stage two that is no YAML": BadCall(
        lambda call: call.flags.update(stage_two=[str(call.folder / "test.csv")]), ["test.csv", "called .yaml or .yml"]
    ),
    "a missing recipe of stage one": BadCall(flag(stage_one="gone.yaml"), ["gone.yaml", "no such file"]),
    "a missing task-adaptive recipe": BadCall(
        flag(arms="base task_adaptive stage_one", task_adaptive="gone.yaml"), ["gone.yaml", "no such file"]
    ),
    "a stage two without test texts": BadCall(recipe("two", test_file=None), ["two.yaml", "no test_file"]),
    "a test file without a name": BadCall(recipe("two", test_file=""), ["two.yaml", "no test_file"]),
    "a missing test file": BadCall(recipe("two", test_file="gone.csv"), ["gone.csv", "no such file"]),
    "a missing training file": BadCall(recipe("two", train_file="gone.csv"), ["gone.csv", "no such file"]),
    "a sample of stage two's own": BadCall(recipe("two", train_fraction=0.5), ["two.yaml", "train_fraction", "leave"]),
    "another such sample": BadCall(recipe("two", max_train_samples=9), ["two.yaml", "max_train_samples"]),
    "a seed of such a sample": BadCall(recipe("two", sample_seed=9), ["two.yaml", "sample_seed"]),
    "a frozen encoder in all arms": BadCall(recipe("two", freeze_encoder=True), ["two.yaml", "freeze_encoder"]),
    "a missing checkpoint": BadCall(flag(checkpoint="./gone"), ["checkpoint ./gone", "no such folder"]),
    "a missing folder of stage one": BadCall(flag(stage_one="./gone"), ["checkpoint ./gone", "no such folder"]),
    "a stage one without weights": BadCall(
        lambda call: (stage_one_folder(call) / "model.safetensors").unlink(), ["one: has no weights", "run_pretraining"]
    ),
    "a stage one with a broken report": BadCall(
        lambda call: (stage_one_folder(call) / "corpus_report.json").write_text("{", encoding="utf-8"),
        ["corpus_report.json: broken", "remove it"],
    ),
    "a trained model for a stage one": BadCall(trained_for_stage_one, ["is a trained model of stage two"]),
    "test texts without labels": BadCall(unlabelled_test, ["row 1: no label in column label"]),
    "a data set without a test split": BadCall(
        data_set(train=[0, 1], validation=[2]), ["two.yaml", "set has no test split", "test_file"]
    ),
    "a data set whose test split is not taken": BadCall(
        lambda call: (data_set(train=[0, 1], test=[2])(call), call.recipe("two", dataset_splits=["train"])),
        ["two.yaml", "no test split"],
    ),
    "a data set whose test split has no labels": BadCall(
        data_set(train=[0, 1], test=None), ["set test row 1: no label in column label"]
    ),
    "a data set whose test labels are kept back": BadCall(
        data_set(train=[0, 1], test=[-1, -1]), ["set test row 1: no label in column label"]
    ),
    "a data set that is not there": BadCall(
        recipe("two", train_file=None, test_file=None, dataset="./gone"), ["data set ./gone"]
    ),
    "shades of numbers alone": BadCall(
        recipe("two", loss="regression", score_column="score", labels=None), ["--score macro_f1: is of shades"]
    ),
    "a dose that stage one did not keep": BadCall(
        lambda call: (stage_one_folder(call), call.flags.update(doses=["10"])), ["10-percent", "no such folder"]
    ),
    "a base from scratch and scratch": BadCall(no_weights, ["--arms scratch", "no weights"]),
    "an output that is a file": BadCall(
        lambda call: call.output.write_text("notes", encoding="utf-8"), ["out", "is a file", "--output_dir"]
    ),
    "an output with foreign files": BadCall(foreign_files, ["out", "holds no run", "--output_dir"]),
    "other shares than it began with": BadCall(
        lambda call: begun(call, fractions=["25", "100"]), ["out", "fractions [50, 100] → [25, 100]"]
    ),
    "other seeds than it began with": BadCall(lambda call: begun(call, seeds=["0"]), ["out", "seeds [0, 1] → [0]"]),
    "another score than it began with": BadCall(lambda call: begun(call, score=["accuracy"]), ["out", "accuracy"]),
    "a recipe that changed": BadCall(begun_then(recipe("two", max_steps=3)), ["two.yaml changed", "--output_dir"]),
    "a stage one's recipe that changed": BadCall(begun_then(recipe("one", max_steps=3)), ["one.yaml changed"]),
    "test texts that changed": BadCall(
        begun_then(lambda call: (call.folder / "test.csv").write_text("text,label\nprofit rose,good\n")),
        ["test.csv changed"],
    ),
    "a base that changed": BadCall(
        begun_then(lambda call: shutil.copy(REPOSITORY / "README.md", call.checkpoint / "model.safetensors")),
        ["checkpoint", "model.safetensors"],
    ),
}  # fmt: skip


@pytest.fixture
def no_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop a call that begins to check recipes by their scripts."""

    def wanted(*_: object) -> NoReturn:
        raise ScriptsWanted

    monkeypatch.setattr(run_comparison, "check_scripts", wanted)


@pytest.mark.slow
def test_a_stop_ends_the_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """None goes on in a folder that is gone."""
    started: list[subprocess.Popen[bytes]] = []

    class Stopped(subprocess.Popen[bytes]):
        def communicate(self, *_: Any, **__: Any) -> NoReturn:
            raise KeyboardInterrupt

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Stopped)
    with pytest.raises(KeyboardInterrupt):
        check_commands([("-c", "import time; time.sleep(100)")] * 2)
    assert [process.poll() for process in started] == [-signal.SIGKILL] * 2


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_calls_are_refused_before_any_script_runs(
    call: Call, no_scripts: None, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """One line names the thing, no process is started, and the output folder is as it was."""
    monkeypatch.chdir(call.folder)
    BAD_CALLS[name].spoil(call)
    before = contents(call.output)
    with pytest.raises(Refusal) as refusal:
        call.main()
    message = str(refusal.value)
    assert "\n" not in message
    assert [needle for needle in BAD_CALLS[name].needles if needle not in message] == [], message
    assert contents(call.output) == before


GOOD_CHANGES = {
    "a run's own recipe.yaml": recipe("two", freeze_encoder=False, push_to_hub=False),
    "as it is": flag(),
    "begun before": begun,
    "begun with other workers": lambda call: begun(call, workers=["3"], keep_models=["true"]),
    "a stage one's folder": stage_one_folder,
    "two stages one": flag(stage_one="news=one.yaml wide_2=one.yaml"),
    "all arms": flag(arms=" ".join(ARMS), task_adaptive="own.yaml"),
    "a frozen encoder without stage one": lambda call: (
        call.flags.pop("stage_one"),
        call.flags.update(arms=["heads_as_is", "base"]),
    ),
    "a data set": data_set(train=[0, 1], test=[2, 0]),
    "a test file beside a data set without one": lambda call: (
        data_set(train=[0, 1], validation=[2])(call),
        call.recipe("two", test_file=str(call.folder / "test.csv")),
    ),
    "an error as score": flag(score="mean_absolute_error"),
}


@pytest.mark.parametrize("name", GOOD_CHANGES)
def test_good_calls_come_as_far_as_the_scripts(
    call: Call, no_scripts: None, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """What the bad calls are made from is good, so that each is refused for its own fault alone."""
    monkeypatch.chdir(call.folder)
    GOOD_CHANGES[name](call)
    before = contents(call.output)
    with pytest.raises(ScriptsWanted):
        call.main()
    assert contents(call.output) == before


@pytest.mark.parametrize("name", ["no labels at all", "a missing checkpoint", "an output with foreign files"])
def test_a_refusal_is_one_line_and_exit_code_2(
    call: Call, no_scripts: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """As of every script here."""
    BAD_CALLS[name].spoil(call)
    assert call.exit_code(monkeypatch) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_another_base_than_stage_ones_is_told(call: Call, no_scripts: None, capsys: pytest.CaptureFixture[str]) -> None:
    """What differs is not stage one alone then; with its own base, behind a first phase too, or unknown, none is."""
    stage_one_folder(call, checkpoint={"weights_sha256": "another"})
    with pytest.raises(ScriptsWanted):
        call.main()
    told = capsys.readouterr().out
    assert "went on from other weights" in told
    base = {"weights_sha256": open_checkpoint(str(call.checkpoint)).weights_sha256}
    first_phase = {"weights_sha256": "another", "lineage": {"checkpoint": base}}
    for lineage in ({}, {"checkpoint": base}, {"checkpoint": first_phase}):
        (call.folder / "one" / "lineage.json").write_text(json.dumps(lineage), encoding="utf-8")
        with pytest.raises(ScriptsWanted):
            call.main()
        assert "other weights" not in capsys.readouterr().out


def test_without_data_the_quickstart_recipe_runs(
    no_scripts: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """And with a stage two it does not."""
    monkeypatch.chdir(REPOSITORY)
    parsed = parse_settings(["--output_dir", str(tmp_path)], Settings, run_comparison.QUICKSTART, "")
    settings, resolved = parsed
    assert "quickstart" in capsys.readouterr().out
    assert read_recipe(run_comparison.QUICKSTART)["stage_two"] == settings.stage_two == resolved["stage_two"]
    assert (settings.output_dir, settings.seeds) == (str(tmp_path), [0, 1, 2])
    assert Path(str(settings.stage_two)).is_file()
    with pytest.raises(Refusal, match="--task"):
        parse_settings(["--stage_two", "x.yaml"], Settings, run_comparison.QUICKSTART, "")
    assert "quickstart" not in capsys.readouterr().out


def test_the_resolved_recipe_gives_the_same_settings(call: Call) -> None:
    """The recipe.yaml that a comparison leaves is the comparison; what only checks is no part of it."""
    call.flags |= {"stage_one": ["news=one.yaml", "wide=two.yaml"], "doses": ["2.5", "30"], "check_only": []}
    settings, resolved = parse_settings(call.argv(), Settings, run_comparison.QUICKSTART, "")
    begin_run(Run(call.output), resolved, {"script": "run_comparison.py"})
    again = ["--recipe", str(call.output / "recipe.yaml"), "--check_only"]
    assert parse_settings(again, Settings, run_comparison.QUICKSTART, "") == (settings, resolved)
    assert "check_only" not in resolved
    assert resolved["fractions"] == [50.0, 100.0]
    assert "--output_dir ANOTHER" in (call.output / "recipe.yaml").read_text(encoding="utf-8")


# --- What is planned --------------------------------------------------------------------------------------------------


def test_every_arm_share_and_seed_is_a_cell(call: Call) -> None:
    """Each in a folder of its own, seed after seed, so that what is done first can be compared first."""
    plan = call.plan()
    assert [arm.name for arm in plan.arms] == ["base", "stage_one"]
    found = [(cell.seed, cell.fraction, cell.arm) for cell in plan.cells]
    assert found == [(seed, share, arm) for seed in (0, 1) for share in (50.0, 100.0) for arm in ("base", "stage_one")]
    assert plan.cells[0].folder == call.output / "cells" / "base" / "50-percent" / "seed-0"
    assert len({cell.folder for cell in plan.cells}) == len(plan.runs) - 1 == 8
    assert [run.name for run in plan.runs][:2] == ["stage_one", "base, 50 % of the labels, seed 0"]
    assert len({run.name for run in plan.runs}) == 9


def test_the_command_of_a_cell(call: Call) -> None:
    """The recipe of stage two, the same for all, with checkpoint, folder and seed; a sample where it is one."""
    plan = call.plan()
    by_name = {run.name: run for run in plan.runs}
    run = by_name["stage_one, 50 % of the labels, seed 1"]
    assert flags_of(run.command) == {
        "": [str(REPOSITORY / "run_sentiment.py")],
        "recipe": [str(call.output / "recipes" / "1-two.yaml")],
        "checkpoint": [str(call.output / "pretraining" / "stage_one")],
        "output_dir": [str(call.output / "cells" / "stage_one" / "50-percent" / "seed-1")],
        "seeds": ["1"],
        "disable_tqdm": ["true"],
        "save_strategy": ["no"],
        "train_fraction": ["0.5"],
        "sample_seed": ["1"],
    }
    assert (run.folder, run.needs, run.resumes, run.kind) == (
        call.output / "cells" / "stage_one" / "50-percent" / "seed-1", ("stage_one",), False, "50"
    )  # fmt: skip
    whole = by_name["base, 100 % of the labels, seed 0"]
    assert flags_of(whole.command)["checkpoint"] == [str(call.checkpoint)]
    assert not {"train_fraction", "sample_seed", "freeze_encoder"} & flags_of(whole.command).keys()
    assert whole.needs == ()
    call.flags["task"], call.flags["fractions"] = ["ner"], ["0.5", "12.5"]
    runs = call.plan().runs
    assert flags_of(runs[1].command)[""] == [str(REPOSITORY / "run_ner.py")]
    assert [flags_of(runs[i].command)["train_fraction"] for i in (1, 3)] == [["0.005"], ["0.125"]]
    assert runs[1].folder.parent.name == "0.5-percent"


def test_the_command_of_stage_one(call: Call) -> None:
    """Its recipe from the base, gone on with where it was cut off; it looks for the test texts in its corpus."""
    (run,) = call.plan().pretraining
    assert flags_of(run.command) == {
        "": [str(REPOSITORY / "run_pretraining.py")],
        "recipe": [str(call.output / "recipes" / "2-one.yaml")],
        "checkpoint": [str(call.checkpoint)],
        "output_dir": [str(call.output / "pretraining" / "stage_one")],
        "disable_tqdm": ["true"],
        "held_out_file": [str(call.output / "test_texts.jsonl")],
    }
    assert (run.needs, run.resumes, run.folder) == ((), True, call.output / "pretraining" / "stage_one")
    call.recipe("one", held_out_file="elsewhere.csv")
    again = call.plan().pretraining[0].command  # whatever its recipe looks for: these texts are judged on
    assert flags_of(again)["held_out_file"] == [str(call.output / "test_texts.jsonl")]
    call.recipe("one", held_out_file=None)
    call.recipe("two", test_file=None, dataset="some/set")
    assert "held_out_file" not in flags_of(call.plan().pretraining[0].command)


def test_a_stage_one_that_is_there_is_not_run(call: Call) -> None:
    """Its folder is the arm's checkpoint, and its cells wait for nothing."""
    folder = stage_one_folder(call)
    plan = call.plan()
    assert plan.pretraining == []
    assert (plan.arms[1].checkpoint, plan.arms[1].stages) == (str(folder), (folder,))
    assert all(run.needs == () for run in plan.runs)
    call.flags["stage_one"] = ["someone/finbert"]
    arm = call.plan().arms[1]
    assert (arm.checkpoint, arm.stages) == ("someone/finbert", ())


def test_doses_are_kept_on_the_way(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first stage one keeps them, and each is an arm that waits for it."""
    call.flags |= {"stage_one": ["news=one.yaml", "wide=two.yaml"], "doses": ["2.5", "30"]}
    call.recipe("two", train_file="train.csv")
    monkeypatch.chdir(call.folder)
    plan = call.plan()
    assert [arm.name for arm in plan.arms] == ["base", "news", "wide", "news@2.5", "news@30"]
    first, second = (flags_of(run.command) for run in plan.pretraining)
    assert first["keep_at"] == ["2.5", "30"]
    assert "keep_at" not in second
    dose = plan.arms[3]
    assert dose.checkpoint == str(call.output / "pretraining" / "news" / "kept" / "2.5-percent")
    assert (dose.dose, dose.dose_of, dose.stages) == (2.5, "news", (call.output / "pretraining" / "news",))
    needs = {run.name.split(",")[0]: run.needs for run in plan.runs[2:]}
    assert needs == {"base": (), "news": ("news",), "wide": ("wide",), "news@2.5": ("news",), "news@30": ("news",)}
    folder = stage_one_folder(call)
    plan = call.plan()
    assert [arm.checkpoint for arm in plan.arms[2:]] == [str(folder / "kept" / f"{p}-percent") for p in ("2.5", "30")]


def test_the_other_arms(call: Call) -> None:
    """Each from what it is made from, in the order in which they were named."""
    call.flags |= {"arms": ["heads_as_is", *ARMS[:4], "scratch"], "task_adaptive": [str(call.folder / "own.yaml")]}
    plan = call.plan()
    arms = {arm.name: arm for arm in plan.arms}
    assert list(arms) == ["base", "stage_one", "heads_as_is", "task_adaptive", "both", "scratch"]
    made = call.output / "pretraining"
    checkpoints = {name: arm.checkpoint for name, arm in arms.items()}
    assert checkpoints == {"base": str(call.checkpoint), "heads_as_is": str(made / "stage_one")} | {
        name: str(made / name) for name in ("stage_one", "task_adaptive", "both", "scratch")
    }
    assert arms["both"].stages == (made / "stage_one", made / "both")
    assert arms["task_adaptive"].stages == (made / "task_adaptive",)
    runs = {run.name: run for run in plan.pretraining}
    assert list(runs) == ["stage_one", "task_adaptive", "both"]
    for name, start, needs in (("task_adaptive", call.checkpoint, ()), ("both", made / "stage_one", ("stage_one",))):
        flags = flags_of(runs[name].command)
        assert flags["recipe"] == [str(call.output / "recipes" / "3-own.yaml")]
        assert flags["checkpoint"] == [str(start)]
        assert flags["train_file"] == [str(call.output / "task_texts.jsonl")]
        assert flags["text_column"] == ["text"]
        assert flags["held_out_file"] == [str(call.output / "test_texts.jsonl")]
        assert runs[name].needs == needs
    cells = {run.name: run for run in plan.runs[3:]}
    for arm in arms:
        flags = flags_of(cells[f"{arm}, 50 % of the labels, seed 1"].command)
        assert ("freeze_encoder" in flags) is ("head_learning_rate" in flags) is (arm == "heads_as_is")
        assert flags.get("pooling") == (["pooler"] if arm == "heads_as_is" else None)
    waits = {arm: cells[f"{arm}, 100 % of the labels, seed 0"].needs for arm in arms}
    assert waits == {"base": (), "heads_as_is": ("stage_one",), "stage_one": ("stage_one",), "scratch": ()} | {
        name: (name,) for name in ("task_adaptive", "both")
    }


@pytest.mark.parametrize("task", ["sentiment", "ner"])
def test_task_adaptive_goes_on_with_the_training_texts_alone(
    tmp_path: Path, tiny_folder: Path, data_folder: Path, task: str
) -> None:
    """Every training text, no label, and no test text."""
    call = good_call(tmp_path, tiny_folder, data_folder, task)
    call.flags |= {"arms": ["base", "task_adaptive"], "task_adaptive": [str(tmp_path / "own.yaml")]}
    call.flags.pop("stage_one")
    (call.output).mkdir()
    prepare_folder(call.plan())
    rows = [json.loads(line) for line in lines_of(call.output / "task_texts.jsonl")]
    assert all(row.keys() == {"text"} for row in rows)
    if task == "sentiment":
        with open(tmp_path / "train.csv", encoding="utf-8", newline="") as file:
            expected = [row["text"] for row in csv.DictReader(file)]
    else:
        expected = [" ".join(json.loads(line)["tokens"]) for line in lines_of(tmp_path / "train.jsonl")]
    assert [row["text"] for row in rows] == expected
    assert len(expected) == 32
    tests = (tmp_path / f"test.{DATA[task][1]}").read_text(encoding="utf-8")
    assert not any(row["text"] in tests for row in rows)


@pytest.mark.parametrize(
    ("task", "columns", "row", "text"),
    [
        (  # Prodigy: what it calls tokens are places, no words
            "ner",
            {"entities_column": "spans"},
            {"text": "Oslo Bank rose", "tokens": [{"text": "Oslo", "start": 0, "end": 4, "id": 0}], "spans": []},
            "Oslo Bank rose",
        ),
        ("ner", {"tokens_column": "words"}, {"text": "Oslo rose.", "words": ["Oslo", "rose", "."]}, "Oslo rose ."),
        ("sentiment", {"text_column": "said"}, {"said": "It fell.", "tokens": ["It", "fell", "."]}, "It fell."),
    ],
)
def test_the_text_of_a_labelled_row_is_what_stage_two_reads(
    task: str, columns: dict[str, str], row: dict[str, Any], text: str
) -> None:
    """Be it of words or of a text; the sentiment of a row is that of its text."""
    assert row_text(("a.jsonl row 1", row), task, columns) == text


def test_scratch_starts_from_a_checkpoint_without_weights(call: Call) -> None:
    """The base's architecture and tokenizer, and nothing learnt."""
    call.flags["arms"] = ["base", "stage_one", "scratch"]
    call.output.mkdir()
    plan = call.plan()
    prepare_folder(plan)
    found = open_checkpoint(plan.arms[2].checkpoint)
    assert found.weights is None
    assert found.config.hidden_size == 32
    assert len(found.tokenizer) == len(open_checkpoint(str(call.checkpoint)).tokenizer)


# --- With scripts that only pretend -----------------------------------------------------------------------------------

# Flags, a journal, and the three ways to go wrong: refused when checked, failed when run, slow.
PRETENDED = """
import json, os, random, sys
flags, name = {}, None
for word in sys.argv[1:]:
    if word.startswith("--"):
        name = word[2:]
        flags[name] = []
    else:
        flags[name].append(word)
folder = flags["output_dir"][0]
def is_named(variable):
    return any(word and word in folder for word in os.environ.get(variable, "").split())
for path in flags.get("train_file", []) + flags["checkpoint"]:
    if not os.path.exists(path) and "check_only" in flags:
        print(f"script: {path}: no such file")
        sys.exit(2)
with open(os.environ["JOURNAL"], "a") as journal:
    journal.write(("check " if "check_only" in flags else "run ") + folder + "\\n")
if "check_only" in flags:
    print("looking\\nscript: row 3: the text is empty" if is_named("REFUSES") else "good")
    sys.exit(2 if is_named("REFUSES") else 0)
if is_named("FAILS"):
    print("Traceback\\nRuntimeError: out of memory")
    sys.exit(1)
def write(path, text):
    path = os.path.join(folder, path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    open(path, "w").write(text)
write("model.safetensors", "weights")
write("recipe.yaml", open(flags["recipe"][0]).read())
"""
PRETENDED_ONE = """
for share in flags.get("keep_at", []):
    write(f"kept/{share}-percent/model.safetensors", "weights")
write("trainer_state.json", '{"global_step": 30}')
write("all_results.json", '{"eval_mlm_loss": 2.5, "train_tokens": 1000, "total_runtime": 60.0}')
"""
PRETENDED_TWO = """
labels, texts = ["bad", "so-so", "good"], 40
skill = 0.8 if "pretraining" in flags["checkpoint"][0] else 0.4
rng, hidden = random.Random(0), random.Random(folder.split("cells")[1])
gold = [rng.choice(labels) for _ in range(texts)]
predicted = [label if hidden.random() < skill else hidden.choice(labels) for label in gold]
lines = ["text,gold,predicted," + ",".join(labels)]
lines += [f"text {i},{gold[i]},{predicted[i]},0.3,0.3,0.4" for i in range(texts)]
write("predictions.csv", "\\n".join(lines) + "\\n")
table = {label: {"support": gold.count(label)} for label in labels}
write("label_scores.json", json.dumps({"test": {"labels": table}}))
scores = {} if is_named("SCORES_NOTHING") else {"test_macro_f1": 0.5, "test_accuracy": 0.5}
rows = round(32 * float(flags.get("train_fraction", ["1"])[0]))
write("all_results.json", json.dumps(scores | {"total_runtime": 30.0, "train_samples": rows}))
"""


class Pretence:
    """A call whose scripts pretend, and their journal."""

    def __init__(self, call: Call, patch: pytest.MonkeyPatch) -> None:
        self.call, self.patch, self.journal = call, patch, call.folder / "journal"
        scripts = call.folder / "scripts"
        scripts.mkdir()
        for name, content in (("run_pretraining.py", PRETENDED_ONE), ("run_sentiment.py", PRETENDED_TWO)):
            (scripts / name).write_text(PRETENDED + content, encoding="utf-8")
        patch.setattr(comparison_plan, "HOME", scripts)
        patch.setattr(side_by_side, "PAUSE", 0.01)
        patch.setenv("JOURNAL", str(self.journal))
        patch.setattr(run_comparison, "write_report", lambda folder, comparison: ["report.html"])

    def noted(self) -> list[str]:
        """What ran since this was last asked: `run` or `check`, and the folder under the output's."""
        lines = lines_of(self.journal) if self.journal.exists() else []
        self.journal.unlink(missing_ok=True)
        return sorted(line.replace(f"{self.call.output}/", "") for line in lines)

    def found(self) -> dict[str, Any]:
        """comparison.json, which must be JSON as others read it."""

        def refuse(constant: str) -> NoReturn:
            raise AssertionError(f"comparison.json holds {constant}")

        text = (self.call.output / "comparison.json").read_text(encoding="utf-8")
        return json.loads(text, parse_constant=refuse)


@pytest.fixture
def pretence(call: Call, monkeypatch: pytest.MonkeyPatch) -> Pretence:
    """Two arms, one share, two seeds: four cells."""
    call.flags["fractions"] = ["100"]
    return Pretence(call, monkeypatch)


CELLS = [f"run cells/{arm}/100-percent/seed-{seed}" for arm in ("base", "stage_one") for seed in (0, 1)]


def times_of(folder: Path) -> dict[str, int]:
    """When each file below a folder was written."""
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_whole_comparison(pretence: Pretence, capsys: pytest.CaptureFixture[str]) -> None:
    """Everything is checked, then run once; the same command then leaves all as it is, byte for byte."""
    call = pretence.call
    pretence.patch.setattr(run_comparison, "write_report", write_report)
    scores = call.main()
    told = capsys.readouterr().out
    checks = ["check cells/base/100-percent/seed-0", "check pretraining/stage_one"]
    assert pretence.noted() == [*checks, *CELLS, "run pretraining/stage_one"]
    assert {path.name for path in call.output.iterdir() if path.is_file()} >= REPORT
    assert {path.name for path in call.output.iterdir() if path.is_dir()} == {"cells", "logs", "pretraining", "recipes"}
    assert len(list((call.output / "logs").iterdir())) == 5
    found = pretence.found()
    assert found["headline"] == {"arm": "stage_one", "fraction": 100}
    (row,) = found["differences"]
    assert scores == json.loads((call.output / "all_results.json").read_text())
    assert scores == {
        "stage_one_100_difference": row["mean"],
        "stage_one_100_difference_low": row["low"],
        "stage_one_100_difference_high": row["high"],
        "stage_one_100_p_value": row["p_value"],
    }
    assert row["mean"] > 0.1
    assert found["verdict"]["sentence"] in told
    assert found["notes"] == ["nobody looked whether test texts stand in what stage_one was pretrained on"]
    assert found["train_rows"] == {"100": 32}
    assert found["arms"][1]["cost"] == {"tokens": 1000, "steps": 30, "minutes": 1.0}
    assert found["arms"][1]["pretraining"] == {"mlm_loss": 2.5}
    assert found["settings"]["stage two"]["max_steps"] == "2"
    assert found["lineage"]["test_file"].keys() == {str(call.folder / "test.csv")}
    assert found["verdict"]["sentence"] in (call.output / "report.md").read_text(encoding="utf-8")
    before, times = contents(call.output), times_of(call.output)
    assert call.main() == scores
    assert "left as it is" in capsys.readouterr().out
    assert (contents(call.output), times_of(call.output)) == (before, times)
    assert pretence.noted() == []


def test_a_recipe_that_is_edited_meanwhile_reaches_no_run(pretence: Pretence) -> None:
    """All runs read the recipes as they were when their hashes were taken, and the report tells of those."""
    call = pretence.call

    def check_and_edit(plan: Plan) -> None:
        check_scripts(plan)
        call.recipe("one", max_steps=9)
        call.recipe("two", max_steps=9)

    pretence.patch.setattr(run_comparison, "check_scripts", check_and_edit)
    call.main()
    read = {str(path.parent): read_recipe(str(path))["max_steps"] for path in call.output.rglob("*/recipe.yaml")}
    assert len(read) == 5
    assert set(read.values()) == {"2"}
    told = pretence.found()["settings"]
    assert (told["stage two"]["max_steps"], told["stage one, stage_one"]["max_steps"]) == ("2", "2")
    with pytest.raises(Refusal, match=r"two\.yaml changed"):
        call.main()


def test_recipes_of_one_name_are_kept_apart(pretence: Pretence) -> None:
    """Each run reads its own copy."""
    call = pretence.call
    for name, steps in (("news", 3), ("wide", 4)):
        (call.folder / name).mkdir()
        call.recipe(f"{name}/two", max_steps=steps)
    call.flags |= {"stage_one": [f"{name}={call.folder}/{name}/two.yaml" for name in ("news", "wide")]}
    call.flags |= {"seeds": ["0"]}
    call.main()
    read = {path.parent.name: read_recipe(str(path))["max_steps"] for path in call.output.rglob("*/recipe.yaml")}
    assert read == {"news": "3", "wide": "4", "seed-0": "2"}


def test_another_base_than_stage_ones_stands_in_the_report(pretence: Pretence) -> None:
    """Once, although two arms start from it."""
    pretence.call.flags |= {"arms": ["base", "stage_one", "heads_as_is"], "seeds": ["0"]}
    folder = stage_one_folder(pretence.call, checkpoint={"weights_sha256": "another"})
    pretence.call.main()
    told = f"{folder} went on from other weights than {pretence.call.checkpoint}: what differs is not it alone"
    assert pretence.found()["notes"].count(told) == 1


def test_a_finished_comparison_needs_its_data_set_no_more(
    pretence: Pretence, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is left as it is where the Hub cannot be reached."""
    data_set(train=[0, 1], test=[2, 0])(pretence.call)
    pretence.call.flags |= {"seeds": ["0"]}
    scores = pretence.call.main()
    shutil.rmtree(pretence.call.folder / "set")
    assert pretence.call.main() == scores
    assert "left as it is" in capsys.readouterr().out


@pytest.mark.parametrize(("tags", "is_told"), [([-1, -1], True), ([0, 1], False), ([], False), (None, False)])
def test_hidden_tags_are_no_labels(
    tmp_path: Path, tiny_folder: Path, data_folder: Path, tags: list[int] | None, is_told: bool
) -> None:
    """As test splits of the Hub have them; what has no word, or no entity, is another thing."""
    call = good_call(tmp_path, tiny_folder, data_folder, "ner")
    row: dict[str, Any] = {"tokens": ["cash", "rose"][: len(tags or [])], "ner_tags": tags}
    if tags is None:
        row = {"text": "cash rose", "entities": [{"start": 0, "end": 4, "label": "LOC"}]}
    (tmp_path / "test.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    if is_told:
        with pytest.raises(Refusal, match="row 1: no label in column ner_tags or entities"):
            check_test_labels(call.plan())
    else:
        check_test_labels(call.plan())


def test_one_seed_is_reported(pretence: Pretence) -> None:
    """There is no interval then, and comparison.json does without."""
    pretence.call.flags["seeds"] = ["3"]
    assert set(pretence.call.main()) == {"stage_one_100_difference", "stage_one_100_p_value"}
    assert pretence.found()["verdict"]["word"] == "cannot tell"


def test_a_failed_cell_is_told_and_tried_again(
    pretence: Pretence, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1 and what is there; the next call runs that cell alone, and no other is touched."""
    call = pretence.call
    monkeypatch.setenv("FAILS", "stage_one/100-percent/seed-1")
    assert call.exit_code(monkeypatch) == 1
    told = capsys.readouterr()
    (line,) = [line for line in told.err.splitlines() if line.startswith("run_comparison.py: ")]
    assert "1 of 5 runs did not finish" in line
    assert "stage_one, 100 % of the labels, seed 1: RuntimeError: out of memory" in line
    assert "! stage_one, 100 % of the labels, seed 1: failed" in told.out
    found = pretence.found()
    assert found["notes"][:-1] == ["stage_one, 100 % of the labels, seed 1: failed: RuntimeError: out of memory"]
    assert found["differences"][0]["seeds"] == [0]
    assert not (call.output / "all_results.json").exists()
    pretence.noted()
    before = {
        path: at for path, at in times_of(call.output / "cells").items() if "stage_one/100-percent/seed-1" not in path
    }
    assert len(before) == 12
    monkeypatch.delenv("FAILS")
    call.main()
    assert pretence.noted() == ["check cells/base/100-percent/seed-0", CELLS[3]]
    after = times_of(call.output / "cells")
    assert {path: after[path] for path in before} == before
    assert pretence.found()["differences"][0]["seeds"] == [0, 1]
    assert (call.output / "all_results.json").is_file()


@pytest.mark.slow
def test_a_failed_stage_one_leaves_out_its_cells(pretence: Pretence, monkeypatch: pytest.MonkeyPatch) -> None:
    """The base is finished all the same; a later call runs what was left out."""
    monkeypatch.setenv("FAILS", "pretraining/stage_one")
    with pytest.raises(Failure, match="3 of 5 runs did not finish, such as stage_one: RuntimeError"):
        pretence.call.main()
    found = pretence.found()
    states = {(cell["arm"], cell["seed"]): cell["status"] for cell in found["cells"]}
    assert states == {("base", 0): "finished", ("base", 1): "finished"} | {
        ("stage_one", seed): "left out" for seed in (0, 1)
    }
    assert (found["verdict"], found["differences"]) == (None, [])
    pretence.noted()
    monkeypatch.delenv("FAILS")
    pretence.call.main()
    assert pretence.noted()[-3:] == [*CELLS[2:], "run pretraining/stage_one"]


def test_nothing_but_failures_is_reported(pretence: Pretence, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cell has an answer: the report says so, and the call fails in one line."""
    pretence.patch.setattr(run_comparison, "write_report", write_report)
    monkeypatch.setenv("FAILS", "cells")
    with pytest.raises(Failure, match="4 of 5 runs did not finish"):
        pretence.call.main()
    assert pretence.found()["verdict"] is None
    assert (pretence.call.output / "report.html").is_file()


@pytest.mark.parametrize("keeps", [False, True])
def test_weights_of_cells_are_kept_where_asked(pretence: Pretence, keeps: bool) -> None:
    """Nobody needs them; those of stage one stay."""
    pretence.call.flags |= {"keep_models": [str(keeps)], "seeds": ["0"]}
    pretence.call.main()
    kept = sorted(str(path.relative_to(pretence.call.output)) for path in pretence.call.output.rglob("*.safetensors"))
    cells = [f"cells/{arm}/100-percent/seed-0/model.safetensors" for arm in ("base", "stage_one")]
    assert kept == [*(cells if keeps else []), "pretraining/stage_one/model.safetensors"]


@pytest.mark.slow
def test_weights_of_a_cell_that_outlived_its_caller_go_too(pretence: Pretence, monkeypatch: pytest.MonkeyPatch) -> None:
    """It finished when nobody was left to drop them."""
    monkeypatch.setenv("FAILS", "seed-1")
    with pytest.raises(Failure):
        pretence.call.main()
    weights = pretence.call.output / "cells" / "base" / "100-percent" / "seed-0" / "model.safetensors"
    weights.write_bytes(b"weights")
    monkeypatch.delenv("FAILS")
    pretence.call.main()
    assert not weights.exists()


def test_doses_are_compared(pretence: Pretence) -> None:
    """From stage one's folder, at their share of its cost."""
    pretence.call.flags |= {"doses": ["50"], "seeds": ["0"]}
    pretence.call.main()
    found = pretence.found()
    assert [row["arm"] for row in found["differences"]] == ["stage_one", "stage_one@50"]
    assert found["headline"]["arm"] == "stage_one"
    assert found["arms"][2]["cost"] == {"tokens": 500, "steps": 15, "minutes": 0.5}


def test_check_only_runs_and_writes_nothing(pretence: Pretence, capsys: pytest.CaptureFixture[str]) -> None:
    """But the scripts' own checks, and it says how much would run."""
    pretence.call.flags["check_only"] = []
    assert pretence.call.main() == {}
    assert {line.split()[0] for line in pretence.noted()} == {"check"}
    assert not pretence.call.output.exists()
    assert "1 runs of stage one and 4 of stage two: 2 arms × 1 shares" in capsys.readouterr().out


@pytest.mark.parametrize("which", ["cells", "pretraining"])
def test_what_a_script_refuses_is_refused(pretence: Pretence, monkeypatch: pytest.MonkeyPatch, which: str) -> None:
    """In its own words, before anything is written."""
    monkeypatch.setenv("REFUSES", which)
    with pytest.raises(Refusal, match=r"^script: row 3: the text is empty$"):
        pretence.call.main()
    assert not pretence.call.output.exists()


def test_the_smallest_share_is_checked(pretence: Pretence) -> None:
    """Labels that are too few are too few there."""
    pretence.call.flags |= {"fractions": ["5", "100"], "check_only": []}
    pretence.call.main()
    assert "check cells/base/5-percent/seed-0" in pretence.noted()


def test_task_adaptive_runs(pretence: Pretence) -> None:
    """Its texts are not there yet when its recipe is checked."""
    arms = {"arms": ["base", "task_adaptive"], "task_adaptive": [str(pretence.call.folder / "own.yaml")]}
    pretence.call.flags |= arms | {"seeds": ["0"]}
    pretence.call.flags.pop("stage_one")
    pretence.call.main()
    assert "run pretraining/task_adaptive" in pretence.noted()
    assert pretence.found()["headline"]["arm"] == "task_adaptive"


def test_a_test_split_that_is_not_scored_is_refused_each_time(
    pretence: Pretence, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no labels, or not this score; however often the command is given."""
    monkeypatch.setenv("SCORES_NOTHING", "cells")
    pretence.call.flags |= {"seeds": ["0"], "workers": ["1"]}
    for _ in range(4):
        with pytest.raises(Refusal, match="no macro_f1 of the test split; there are none"):
            pretence.call.main()


@pytest.mark.slow
def test_settings_cannot_change_while_some_is_done(pretence: Pretence, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a comparison is not gone on with as another; more workers may join."""
    call = pretence.call
    monkeypatch.setenv("FAILS", "seed-1")
    with pytest.raises(Failure):
        call.main()
    before = contents(call.output)
    with pytest.raises(Refusal, match=r"seeds \[0, 1\] → \[0\]"):
        Call(call.folder, flags=call.flags | {"seeds": ["0"]}).main()
    assert contents(call.output) == before
    monkeypatch.delenv("FAILS")
    call.flags["workers"] = ["3"]
    call.main()
    call.recipe("two", max_steps=9)
    with pytest.raises(Refusal, match=r"two\.yaml changed"):
        call.main()


# --- With the real scripts --------------------------------------------------------------------------------------------


def started(call: Call) -> subprocess.Popen[str]:
    """The comparison as a user starts it."""
    return subprocess.Popen(
        [sys.executable, str(REPOSITORY / "run_comparison.py"), *call.argv()],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=call.folder,
    )


@pytest.mark.slow  # a dozen processes
def test_a_comparison_that_was_killed_goes_on(
    call: Call, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of stage one, two arms and two seeds nothing is done twice, and the end is whole."""
    call.flags["fractions"] = ["50"]
    process, given_up = started(call), time.monotonic() + 300
    cells = call.output / "cells"
    while process.poll() is None and not list(cells.rglob("all_results.json")):
        assert time.monotonic() < given_up
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    told = process.communicate()[0]
    assert process.returncode == -signal.SIGKILL, told
    done = {path.parent: times_of(path.parent) for path in cells.rglob("all_results.json")}
    scores = call.main()
    capsys.readouterr()
    weights = [str(folder / "model.safetensors") for folder in done]
    assert not any(Path(path).exists() for path in weights)  # the call that was killed had no time to drop them
    done = {folder: {path: at for path, at in times.items() if path not in weights} for folder, times in done.items()}
    kept = [folder for folder, times in done.items() if times.items() <= times_of(folder).items()]
    assert len(kept) == len(done) >= 1
    folders = {str(path.parent.relative_to(cells)) for path in cells.rglob("all_results.json")}
    assert folders == {f"{arm}/50-percent/seed-{seed}" for arm in ("base", "stage_one") for seed in (0, 1)}
    assert {path.name for path in call.output.iterdir() if path.is_file()} >= REPORT
    found = json.loads((call.output / "comparison.json").read_text(encoding="utf-8"))
    assert found["train_rows"] == {"50": 16}
    assert [row["seeds"] for row in found["differences"]] == [[0, 1]]
    for row in found["curves"]:  # what was worked out from predictions is what each run said of itself
        for seed, score in zip(row["seeds"], row["each"], strict=True):
            folder = cells / row["arm"] / f"{row['fraction']:g}-percent" / f"seed-{seed}"
            assert score == pytest.approx(json.loads((folder / "all_results.json").read_text())["test_macro_f1"])
    lineage = json.loads((cells / "stage_one" / "50-percent" / "seed-1" / "lineage.json").read_text())
    assert lineage["checkpoint"]["lineage"]["script"] == "run_pretraining.py"
    before = contents(call.output)
    assert call.main() == scores
    assert contents(call.output) == before
    call.flags["seeds"] = ["0", "2"]
    assert call.exit_code(monkeypatch) == 2
    call.flags["seeds"] = ["0", "1"]
    call.recipe("two", max_steps=3)
    assert call.exit_code(monkeypatch) == 2
    assert contents(call.output) == before
    assert "two.yaml changed" in capsys.readouterr().err


@pytest.mark.slow  # half a dozen processes
def test_an_entity_comparison_with_a_broken_checkpoint(
    tmp_path: Path,
    tiny_folder: Path,
    data_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Stage one's weights break after all was checked: its cell fails in the script's words, the base's does not."""
    call = good_call(tmp_path, tiny_folder, data_folder, "ner")
    one = ["--recipe", str(tmp_path / "one.yaml"), "--checkpoint", str(call.checkpoint)]
    run_pretraining.main([*one, "--output_dir", str(tmp_path / "stage_one")])
    weights = tmp_path / "stage_one" / "model.safetensors"
    whole = weights.read_bytes()
    call.flags |= {"stage_one": [str(tmp_path / "stage_one")], "fractions": ["100"], "seeds": ["0"]}
    with monkeypatch.context() as patch:
        patch.setattr(
            run_comparison, "prepare_folder", lambda plan: (prepare_folder(plan), weights.write_bytes(whole[:-9]))
        )
        assert call.exit_code(monkeypatch) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "1 of 2 runs did not finish" in error
    assert "model.safetensors is broken" in error
    base = call.output / "cells" / "base" / "100-percent" / "seed-0"
    times = times_of(base)
    assert base / "all_results.json" in {Path(path) for path in times}
    weights.write_bytes(whole)
    scores = call.main()
    assert times_of(base) == times
    assert math.isfinite(scores["stage_one_100_difference"])
    found = json.loads((call.output / "comparison.json").read_text(encoding="utf-8"))
    assert (found["score"], found["item_name"], found["items"]) == ("f1", "sentences", 16)
    each = {row["arm"]: row["each"] for row in found["curves"]}
    for arm in ("base", "stage_one"):
        results = json.loads((call.output / "cells" / arm / "100-percent" / "seed-0" / "all_results.json").read_text())
        assert each[arm] == pytest.approx([results["test_f1"]])


@pytest.mark.slow  # it starts a process
def test_an_unknown_key_of_stage_two_is_refused(
    call: Call, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the script itself, with the nearest real one, before anything is written."""
    call.recipe("two", learning_rat=1)
    assert call.exit_code(monkeypatch) == 2
    assert "learning_rat; did you mean learning_rate?" in capsys.readouterr().err.splitlines()[-1]
    assert not call.output.exists()


def test_an_arm_has_one_start(tmp_path: Path) -> None:
    """Cells of two different stages one, made before and after its corpus changed, are never averaged."""
    cells = [Cell("one", 100.0, seed, tmp_path / "one" / "100-percent" / f"seed-{seed}", "finished") for seed in (0, 1)]
    for cell, weights in zip(cells, ("a", "b"), strict=True):
        cell.folder.mkdir(parents=True)
        lineage = {"checkpoint": {"weights_sha256": weights}}
        (cell.folder / "lineage.json").write_text(json.dumps(lineage), encoding="utf-8")
    check_one_start(cells[:1])
    with pytest.raises(Refusal, match=f"started from different weights; remove {tmp_path}/one,"):
        check_one_start(cells)


def test_all_cells_read_the_same_data(tmp_path: Path) -> None:
    """A file, or a data set, that was edited while a comparison ran is told in one line that says what to do."""
    cells = [Cell("one", 100.0, seed, tmp_path / f"seed-{seed}", "finished") for seed in (0, 1)]
    cells += [Cell("one", 100.0, 2, tmp_path / "seed-2", "failed")]
    for cell, of_file, of_set in zip(cells, "aa", "ab", strict=False):
        cell.folder.mkdir()
        data = {"train_file": {"train.csv": of_file}, "test_file": {"some/set test": of_set}}
        (cell.folder / "lineage.json").write_text(json.dumps({"data": data}), encoding="utf-8")
    check_one_data(cells[::2], {"train_file": {"train.csv": "a"}, "recipes": {"two.yaml": "r"}})
    with pytest.raises(Refusal, match=r"seed-1: read another some/set test than .*; put that back, remove the folder"):
        check_one_data(cells, {})
    with pytest.raises(Refusal, match=r"seed-0: read another train\.csv than"):
        check_one_data(cells, {"train_file": {"train.csv": "b"}})


def test_a_cell_that_read_other_data_is_not_compared(pretence: Pretence, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its training file was edited and put back while the comparison ran."""
    monkeypatch.setenv("FAILS", "seed-1")
    with pytest.raises(Failure):
        pretence.call.main()
    monkeypatch.delenv("FAILS")
    cell = pretence.call.output / "cells" / "base" / "100-percent" / "seed-0"
    edited = {"data": {"train_file": {str(pretence.call.folder / "train.csv"): "another"}}}
    (cell / "lineage.json").write_text(json.dumps(edited), encoding="utf-8")
    with pytest.raises(Refusal, match=f"^{cell}: read another .*train.csv"):
        pretence.call.main()
    shutil.rmtree(cell)
    pretence.call.main()


def test_a_ready_stage_one_looked_for_these_texts_if_its_recipe_says_so(call: Call) -> None:
    """Else "0 found" is of other texts."""
    folder = stage_one_folder(call)
    tests = call.plan().stage_two_files("test_file")
    for looked, found in ((tests, True), ("other.csv", False), ([*tests, "other.csv"], True)):
        (folder / "recipe.yaml").write_text(json.dumps({"held_out_file": looked}), encoding="utf-8")
        assert call.plan().was_looked_for(folder) is found
