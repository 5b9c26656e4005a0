"""What a comparison refuses: before its first run what would fail hours later, then runs that are not alike."""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

from two_stage.checkpointing.runs import LINEAGE
from two_stage.command_line.exits import Refusal, say
from two_stage.comparison.inputs import write_texts
from two_stage.comparison.outcome import Cell, read_json
from two_stage.comparison.plan import TEXTS, Plan
from two_stage.comparison.settings import BASE
from two_stage.comparison.side_by_side import FINISHED
from two_stage.data.sources import SPLITS, Source, split_sources

OF_NUMBERS = ("mean_squared_error", "pearson")  # scores that need no shades
LABEL_COLUMNS = {  # flag → its default
    "sentiment": {"label_column": "label"},
    "ner": {"tags_column": "ner_tags", "entities_column": "entities"},
}


def check_stage_two(plan: Plan) -> None:
    """Refuse a recipe of stage two that sets what the comparison sets, or that has no test split.

    Raises:
        Refusal: naming the recipe and the key.
    """
    path, recipe = str(plan.settings.stage_two), plan.stage_two
    for key in ("max_train_samples", "train_fraction", "sample_seed", "freeze_encoder", "push_to_hub"):
        if str(recipe.get(key, "false")).lower() != "false":  # as a run's own recipe.yaml has it
            raise Refusal(f"{path}: {key} is set by the comparison itself; leave it out of the recipe of stage two")
    is_of_numbers, is_regression = plan.settings.score in OF_NUMBERS, recipe.get("loss") == "regression"
    if is_of_numbers and not is_regression:
        raise Refusal(f"--score {plan.settings.score}: is of predicted numbers; {path} says no `loss: regression`")
    if is_regression and not is_of_numbers and not recipe.get("labels"):
        raise Refusal(f"--score {plan.settings.score}: is of shades, and {path} has no labels; take --score pearson")
    if not plan.stage_two_files("test_file") and "dataset" not in recipe:
        raise Refusal(f"{path}: names no test_file, and a comparison is made on test texts")


def scored_sources(plan: Plan) -> list[Source]:
    """Where the test texts come from: each test file, or else the data set's test split.

    Raises:
        Refusal: the data set cannot be opened, or has no test split.
    """
    recipe = plan.stage_two
    if files := plan.stage_two_files("test_file"):
        return [Source((path,)) for path in files]
    given = {name: recipe.get(name) for name in ("dataset", "dataset_config", "dataset_revision")}
    given |= {f"{split}_file": None for split in SPLITS} | {"dataset_splits": plan.stage_two_files("dataset_splits")}
    if "test" not in (found := split_sources(SimpleNamespace(**given))):
        raise Refusal(
            f"{plan.settings.stage_two}: data set {recipe['dataset']} has no test split, or dataset_splits leaves it "
            "out, and a comparison is made on test texts; name a test_file beside it"
        )
    return [found["test"]]


def check_test_labels(plan: Plan) -> None:
    """Refuse test texts without labels, which no score can be of, before stage one is trained for them.

    Raises:
        Refusal: there is no test split, or its first row has no label; stage two itself tells of any other row.
    """
    recipe = plan.stage_two
    columns = [str(recipe.get(key, usual)) for key, usual in LABEL_COLUMNS[str(plan.settings.task)].items()]
    names = recipe.get("labels", [])
    hidden: tuple[Any, ...] = (None, "", -1) if names and "-1" not in names else (None, "")  # -1: as on the Hub
    if "score_column" in recipe:
        columns, hidden = [str(recipe["score_column"])], (None, "")
    elif str(recipe.get("soft_labels", "false")).lower() == "true":
        columns, hidden = [str(name) for name in names], (None, "")
    for source in scored_sources(plan):
        place, row = next(source.rows(), (source.name, {}))
        if all(is_hidden(row.get(column), hidden) for column in columns):
            raise Refusal(f"{place}: no label in column {' or '.join(columns)}; a comparison needs labelled test texts")


def is_hidden(label: Any, marks: tuple[Any, ...]) -> bool:
    """Whether a label is one of the marks that stand for none; tags are none where each is such a mark."""
    if isinstance(label, list):
        return bool(label) and all(tag in (None, -1) for tag in label)  # no entity at all is a label, too
    return label in marks


def check_scripts(plan: Plan) -> None:
    """Have every script check its recipe and data, all at once, before the first run.

    Raises:
        Refusal: in the script's own words.
    """
    ends = {min(plan.settings.fractions), max(plan.settings.fractions)}  # what stands in two splits is looked for
    probes = [arm for arm in plan.arms if arm.name in (BASE, "heads_as_is")]  # the others' flags are base's
    cells = {(cell.arm, cell.fraction): cell for cell in reversed(plan.cells)}
    commands = [plan.cell_command(arm, cells[arm.name, share]) for arm in probes for share in sorted(ends)]
    if max(ends) < 100:  # of a share every seed draws its own rows, so all rows are looked at
        commands.append(plan.cell_command(plan.arms[0], cells[BASE, max(ends)]._replace(fraction=100.0)))
    commands += [run.command for run in plan.pretraining if not run.folder.exists()]
    with TemporaryDirectory() as folder:  # into the comparison's own folder nothing goes before all is well
        write_texts(plan, Path(folder))
        elsewhere = {str(plan.folder / name): str(Path(folder, name)) for name in TEXTS.values()}
        elsewhere |= {str(plan.kept_recipe(path)): path for path in plan.recipes}
        commands = [tuple(elsewhere.get(word, word) for word in command) for command in commands]
        check_commands([from_base(command, plan) for command in commands])


def from_base(command: tuple[str, ...], plan: Plan) -> tuple[str, ...]:
    """A command with the base for a checkpoint, as its own may not be there yet."""
    place = command.index("--checkpoint") + 1
    return (*command[:place], str(plan.settings.checkpoint), *command[place + 1 :])


def check_commands(commands: list[tuple[str, ...]]) -> None:
    """Call scripts with --check_only, all at once, that of stage two first.

    Raises:
        Refusal: in the script's own words.
    """
    say(f"Checking {len(commands)} recipe{'s' if len(commands) > 1 else ''} and the data")
    checks = [
        subprocess.Popen([sys.executable, *command, "--check_only"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for command in commands
    ]
    try:
        for check in checks:
            output = check.communicate()[0].decode(errors="replace").strip()
            if check.returncode:
                raise Refusal(output.splitlines()[-1] if output else f"a check ended with exit code {check.returncode}")
    finally:  # also when this process is stopped: their folder is about to go
        for check in checks:
            check.kill()
            check.wait()


def check_one_start(cells: list[Cell]) -> None:
    """Refuse an arm whose cells started from different weights: stage one was made anew in between.

    Raises:
        Refusal: naming the arm's folder.
    """
    first: dict[str, tuple[Cell, Any]] = {}
    for cell in cells:
        if cell.status == FINISHED:
            started = read_json(cell.folder / LINEAGE).get("checkpoint", {}).get("weights_sha256")
            before, other = first.setdefault(cell.arm, (cell, started))
            if other != started:
                raise Refusal(
                    f"{cell.folder} and {before.folder} started from different weights; remove "
                    f"{cell.folder.parents[1]}, and the same command does this arm anew"
                )


def check_one_data(cells: list[Cell], traced: dict[str, dict[str, str]]) -> None:
    """Refuse a cell that read other data than the rest: a file, or a data set, changed while the comparison ran.

    Args:
        cells: finished or not.
        traced: flag → file → hash, as the comparison began; of a data set the first cell says what it was.

    Raises:
        Refusal: naming the cell's folder and what changed.
    """
    known = {(flag, name): digest for flag, files in traced.items() for name, digest in files.items()}
    for cell in cells:
        if cell.status == FINISHED:
            for flag, files in read_json(cell.folder / LINEAGE).get("data", {}).items():
                for name, digest in files.items():
                    if known.setdefault((flag, name), digest) != digest:
                        raise Refusal(
                            f"{cell.folder}: read another {name} than the comparison began with; put that back, "
                            "remove the folder, and the same command does it anew; or give another --output_dir"
                        )
