"""Every recipe that has a sample/ runs two steps on it, with no network; the samples fit the recipes."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import run_comparison
import run_ner
import run_pretraining
import run_sentiment
from tests.conftest import REPOSITORY
from two_stage.results import pictures

MODULES = {"pretraining": run_pretraining, "sentiment": run_sentiment, "ner": run_ner, "comparison": run_comparison}
FOLDERS = sorted(path.parent for path in (REPOSITORY / "recipes").glob("*/sample"))
RECIPES = [path for folder in FOLDERS for path in sorted(folder.glob("*.yaml"))]
SHORT = ["--max_steps", "2", "--per_device_train_batch_size", "4", "--gradient_accumulation_steps", "1"]


def name_of(path: Path) -> str:
    """How a recipe is told in a test's name."""
    return f"{path.parent.name}/{path.stem}"


def script_of(path: Path) -> str:
    """The script that a recipe belongs to, by its name."""
    return next(script for script in MODULES if script in path.stem)


def on_the_sample(recipe: dict[str, Any]) -> list[str]:
    """Flags that put the sample's files in the place of those that prepare_data.py writes."""
    flags = []
    for key, value in recipe.items():
        paths = [str(path) for path in (value if isinstance(value, list) else [value])]
        if any("/data/" in path for path in paths):
            flags += [f"--{key}", *(path.replace("/data/", "/sample/") for path in paths)]
    return flags


def test_four_domains_have_samples() -> None:
    """The search above finds what is shipped, each with a README, a prepare_data.py and a comparison."""
    assert {"finance", "biomedical", "legal", "reviews"} <= {folder.name for folder in FOLDERS}
    for folder in FOLDERS:
        assert {"README.md", "prepare_data.py", "pretraining.yaml", "comparison.yaml"} <= {
            p.name for p in folder.iterdir()
        }


@pytest.mark.parametrize("path", RECIPES, ids=name_of)
def test_no_value_stands_without_a_file_of_the_sample(path: Path) -> None:
    """Every file that a recipe reads has its twin in sample/, so that the tests below are about all of it."""
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    twins = [flag for flag in on_the_sample(recipe) if not flag.startswith("--")]
    assert [twin for twin in twins if not (REPOSITORY / twin).is_file()] == []
    assert twins or script_of(path) == "comparison"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_stage_one_looks_for_the_test_texts_of_all_that_starts_from_it(folder: Path) -> None:
    """A test text in the corpus flatters whichever task it is of."""
    recipes = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in RECIPES if path.parent == folder]
    stage_one = yaml.safe_load((folder / "pretraining.yaml").read_text(encoding="utf-8"))
    looked_for = stage_one["held_out_file"]
    tested = {recipe["test_file"] for recipe in recipes if recipe.get("checkpoint") == stage_one["output_dir"]}
    assert tested == set(looked_for if isinstance(looked_for, list) else [looked_for])


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_readmes_say_what_it_costs_and_what_was_not_tried(folder: Path) -> None:
    """A GPU's hours, and a network, are what was not at hand."""
    text = " ".join((folder / "README.md").read_text(encoding="utf-8").split())
    assert "not tried here, for want of a network; the readers were" in text
    assert "## Cost Time not measured here" in text or "not measured here, nor its cost" in text


@pytest.mark.slow
@pytest.mark.parametrize("path", [p for p in RECIPES if script_of(p) != "comparison"], ids=name_of)
def test_each_recipe_runs_two_steps_on_its_sample(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_folder: Path, path: Path
) -> None:
    """Trained, tested and scored as the recipe says, but for the files, the checkpoint, and how long."""
    monkeypatch.chdir(REPOSITORY)
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    if len(recipe.get("labels", ())) > 20:  # a picture of 100 × 100 cells takes longer than all the rest
        monkeypatch.setattr(pictures, "confusion_figure", lambda *_: "blank")
        monkeypatch.setattr(pictures, "write_png", lambda path, _: path.write_bytes(b"blank"))
    length = str(min(64, recipe["max_length"]))  # the tiny BERT's
    more = ["--min_steps", "0"] if "min_steps" in recipe else []
    more += ["--stride", "16"] if "stride" in recipe else []
    module = MODULES[script_of(path)]
    flags = ["--recipe", str(path), "--checkpoint", str(tiny_folder), "--max_length", length, *on_the_sample(recipe)]
    module.main([*flags, "--output_dir", str(tmp_path / "run"), "--use_cpu", *SHORT, *more])
    results = json.loads((tmp_path / "run" / "all_results.json").read_text(encoding="utf-8"))
    assert any(key.startswith("eval_" if script_of(path) == "pretraining" else "test_") for key in results)


@pytest.mark.parametrize("path", [p for p in RECIPES if script_of(p) == "comparison"], ids=name_of)
def test_comparisons_name_the_recipes_beside_them(path: Path) -> None:
    """Stage one and stage two are of the same folder, from the same checkpoint, and the task is stage two's."""
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    named = [REPOSITORY / recipe[key] for key in ("stage_one", "stage_two")]
    assert [script_of(stage) for stage in named] == ["pretraining", recipe["task"]]
    assert {stage.parent for stage in named} == {path.parent}
    stage_one, stage_two = (yaml.safe_load(stage.read_text(encoding="utf-8")) for stage in named)
    assert stage_one["checkpoint"] == recipe["checkpoint"]
    assert stage_two["checkpoint"] == stage_one["output_dir"]
