"""What the runs of a comparison read that nobody gave: copies of the recipes, texts without labels, random weights."""

import json
from pathlib import Path
from typing import Any

from two_stage.checkpointing.checkpoints import write_whole
from two_stage.checkpointing.handoff import open_checkpoint
from two_stage.command_line.exits import Refusal
from two_stage.comparison.plan import TEXTS, Plan
from two_stage.data.tables import PlacedRow, UsualColumns, read_rows, tagged_text, text_value


def write_texts(plan: Plan, folder: Path) -> None:
    """Write the texts of stage two's train and test files, labels left out: to go on pretraining with, to look for.

    Raises:
        Refusal: an arm goes on with the task's own texts, and the recipe of stage two names no train file.
    """
    recipe = plan.stage_two
    goes_on = {"task_adaptive", "both"} & set(plan.settings.arms)
    if goes_on and "train_file" not in recipe:
        raise Refusal(f"{plan.settings.stage_two}: names no train_file, whose texts {min(goes_on)} goes on with")
    for flag, name in TEXTS.items() if plan.pretraining else ():
        rows = (row for path in plan.stage_two_files(flag) for row in read_rows(path))
        texts = (row_text(row, plan.settings.task, recipe) for row in rows)
        lines = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
        write_whole(folder / name, "".join(lines))


def row_text(row: PlacedRow, task: str | None, recipe: dict[str, Any]) -> str:
    """The text of a labelled row, as stage two reads it by the columns that its recipe names."""
    columns = UsualColumns(**{flag: str(recipe[flag]) for flag in vars(UsualColumns()) if flag in recipe})
    return tagged_text(row, columns) if task == "ner" else text_value(row, columns.text_column, "text_column")


def prepare_folder(plan: Plan) -> None:
    """Write what the runs read: the recipes as traced, the task's own texts, and a checkpoint without weights."""
    write_texts(plan, plan.folder)
    for path, content in plan.recipes.items():
        plan.kept_recipe(path).parent.mkdir(exist_ok=True)
        plan.kept_recipe(path).write_bytes(content)
    if "scratch" in plan.settings.arms:
        base = open_checkpoint(plan.settings.checkpoint)
        base.config.save_pretrained(plan.stage_folder("scratch"))
        base.tokenizer.save_pretrained(plan.stage_folder("scratch"))
