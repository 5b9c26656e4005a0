"""Did stage one pay off? The same stage two from the checkpoint with and without it, over seeds and shares of labels.

    python run_comparison.py
    python run_comparison.py --task sentiment --checkpoint bert-base-uncased --stage_one outputs/news \\
        --stage_two recipes/quickstart/sentiment.yaml
    python run_comparison.py --recipe recipes/quickstart/comparison.yaml --output_dir outputs/mine

Every arm (a checkpoint to start from) × share of the labels × seed is one run of run_sentiment.py or run_ner.py in a
folder of its own; stage one is run first where it is given as a recipe. Runs go on side by side, and a run that is
finished is not done again. Then arms are held against the base, seed by seed and text by text, and report.html says
whether stage one paid off, how sure that is, what it cost, and with how few labels it matters.
"""

from two_stage.command_line.exits import Failure, Refusal, run_script, say
from two_stage.command_line.recipe import help_if_asked, parse_settings, read_recipe
from two_stage.comparison.settings import Settings

SCRIPT, QUICKSTART = "run_comparison.py", "recipes/quickstart/comparison.yaml"

if __name__ == "__main__":
    help_if_asked(__doc__, Settings)  # before the imports below, which take seconds

import hashlib
import json
import os
import shlex
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from two_stage.checkpointing.checkpoints import write_whole
from two_stage.checkpointing.handoff import Checkpoint, open_checkpoint
from two_stage.checkpointing.lineage import trace_lineage
from two_stage.checkpointing.runs import LINEAGE, RECIPE, RESULTS, begin_run, left_as_it_is, open_run, write_results
from two_stage.command_line.redaction import redacted, redacted_values
from two_stage.comparison.checks import (
    check_one_data,
    check_one_start,
    check_scripts,
    check_stage_two,
    check_test_labels,
)
from two_stage.comparison.inputs import prepare_folder
from two_stage.comparison.outcome import compare, comparison_table, read_json
from two_stage.comparison.plan import Plan, cell_name
from two_stage.comparison.report import write_report
from two_stage.comparison.side_by_side import FINISHED, PlannedRun, SideBySide, device_slots, locked
from two_stage.data.sources import SPLITS
from two_stage.data.tables import LABELLED_FORMATS
from two_stage.results.report import HEADLINES

# --- What it is made from ---------------------------------------------------------------------------------------------


def trace_stages(plan: Plan, base: Checkpoint) -> dict[str, str]:
    """The weights' hashes of all stages one that are there already, each opened and found fit.

    Raises:
        Refusal: one that cannot be used, or lacks a dose; `scratch` beside a base that has no weights.
    """
    if base.weights_sha256 is None and "scratch" in plan.settings.arms:
        raise Refusal(f"--arms scratch: checkpoint {base.name} has no weights, so base starts from scratch already")
    hashes = {}
    for arm in plan.ready_arms:
        found = open_checkpoint(arm.checkpoint)
        is_trained = found.task_model is not None
        if arm.name != "heads_as_is" and (is_trained or found.weights is None):
            what = "is a trained model of stage two, head and all" if is_trained else "has no weights"
            raise Refusal(f"--stage_one {arm.checkpoint}: {what}; name the folder that run_pretraining.py left")
        hashes[arm.checkpoint] = str(found.weights_sha256)
        for folder in arm.stages:  # what the report reads of them
            for name in (RESULTS, "trainer_state.json", "corpus_report.json"):
                read_json(folder / name)
    return hashes


def trace_comparison(plan: Plan) -> dict[str, Any]:
    """What the comparison is made from: recipes, labelled files, and checkpoints, all with their hashes."""
    data: dict[str, list[str] | None] = {f"{split}_file": plan.stage_two_files(f"{split}_file") for split in SPLITS}
    base, recipe = open_checkpoint(str(plan.settings.checkpoint)), plan.stage_two
    lineage = trace_lineage(SCRIPT, base, data, LABELLED_FORMATS, rows_a_step=0)
    hashes = {redacted(path): hashlib.sha256(content).hexdigest() for path, content in plan.recipes.items()}
    lineage["data"]["recipes"] = hashes
    lineage["data"]["stage_one"] = trace_stages(plan, base)
    if "dataset" in recipe:
        lineage["data"]["dataset"] = {str(recipe["dataset"]): str(recipe.get("dataset_revision"))}
    return lineage


# --- Running ----------------------------------------------------------------------------------------------------------


def finish_cell(run: PlannedRun, settings: Settings) -> str:
    """Say how well a finished run did; of stage two drop the weights, which nobody needs any more.

    Raises:
        Refusal: the test split was not scored, or not by this score.
    """
    results = read_json(run.folder / RESULTS)
    if run.resumes:
        return f"masked-word loss {results['eval_mlm_loss']:.3f}" if "eval_mlm_loss" in results else "done"
    name = f"test_{settings.score}"
    if name not in results:
        found = sorted(score.removeprefix("test_") for score in results if score.startswith("test_"))
        scores = ", ".join(score for score in found if score in HEADLINES) or "none: has the test split labels?"
        raise Refusal(f"{run.folder}: no {settings.score} of the test split; there are {scores}")
    if not settings.keep_models:
        (run.folder / "model.safetensors").unlink(missing_ok=True)
        for checkpoint in run.folder.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
    return f"{HEADLINES[str(settings.score)]} {results[name]:.3f}"


def described(plan: Plan, lineage: dict[str, Any], recipe: dict[str, Any], started: float) -> dict[str, Any]:
    """What comparison.json says besides the findings: settings, lineage, how to run it again."""
    kept = {path: read_recipe(str(plan.kept_recipe(path))) for path in plan.recipes}
    settings = {f"stage one, {name}": kept.get(value, {"checkpoint": value}) for name, value in plan.stages.items()}
    if plan.settings.task_adaptive:
        settings["task-adaptive stage one"] = kept[plan.settings.task_adaptive]
    settings |= {"stage two": plan.stage_two, "comparison": recipe}
    machine = f"{os.cpu_count()} CPU cores, {len(device_slots(plan.settings.workers))} runs at once"
    traced = {"commit": lineage["commit"], "versions": lineage["versions"], "machine": machine}
    return {
        "settings": redacted_values(settings),
        "lineage": traced | {"test_file": lineage["data"].get("test_file", {})},
        "command": shlex.join(["python", SCRIPT, "--recipe", str(plan.folder / RECIPE), "--output_dir", "ANOTHER"]),
        "started": f"{datetime.fromtimestamp(started, UTC):%Y-%m-%d %H:%M} UTC",
        "hours": (time.time() - started) / 3600,  # of this call
    }


def start_notes(plan: Plan, lineage: dict[str, Any]) -> list[str]:
    """What a reader must know of stages one that were there already and do not come from the base.

    Args:
        plan: of the comparison.
        lineage: of the comparison, from `trace_comparison`.
    """
    base, notes = lineage["checkpoint"], []
    for arm in plan.ready_arms:
        if arm.stages and arm.dose is None:
            ancestors = set(ancestor_weights(read_json(Path(arm.checkpoint, LINEAGE))))
            if ancestors and base["weights_sha256"] not in ancestors:
                told = f"{arm.checkpoint} went on from other weights than {base['name']}: what differs is not it alone"
                notes.append(told)
    return list(dict.fromkeys(notes))


def ancestor_weights(lineage: dict[str, Any] | None) -> Iterator[str | None]:
    """The weights' hashes of all that a run came from, as far as is known: None of a checkpoint without weights."""
    while lineage and "weights_sha256" in (start := lineage.get("checkpoint", {})):
        yield start["weights_sha256"]
        lineage = start.get("lineage")


def leakage_notes(plan: Plan) -> list[str]:
    """What a reader must know of test texts that were seen before."""
    notes = []
    for arm in plan.arms[1:]:
        if arm.name in ("heads_as_is", "scratch") or arm.dose is not None:  # nothing of their own
            continue
        found = [read_json(folder / "corpus_report.json") for folder in arm.stages]
        if not all(plan.was_looked_for(folder) for folder in arm.stages):
            found = []
        leaked = sum(report.get("held_out_texts_leaked") or 0 for report in found)
        if leaked:
            notes.append(f"{leaked:,} test texts stand word for word in what {arm.name} was pretrained on")
        elif not found or not all("held_out_texts_leaked" in report for report in found):
            notes.append(f"nobody looked whether test texts stand in what {arm.name} was pretrained on")
    if str(plan.stage_two.get("allow_leakage")).lower() == "true":
        notes.append("the recipe of stage two allows texts that stand in two splits (allow_leakage)")
    return notes


def flat_results(comparison: dict[str, Any]) -> dict[str, float]:
    """The differences as all_results.json has them: ARM_PERCENT_difference, and its interval and p-value."""
    names = {"difference": "mean", "difference_low": "low", "difference_high": "high", "p_value": "p_value"}
    return {
        f"{row['arm']}_{row['fraction']:g}_{name}": row[key]
        for row in comparison["differences"]
        for name, key in names.items()
        if row[key] is not None
    }


# --- Main -------------------------------------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Run the comparison; returns the differences that stand in all_results.json."""
    started = time.time()
    settings, recipe = parse_settings(argv, Settings, QUICKSTART, __doc__)
    plan = Plan(settings)
    check_stage_two(plan)
    lineage = trace_comparison(plan)
    for told in start_notes(plan, lineage):
        say(f"! {told}")
    run = open_run(settings.output_dir, recipe, lineage, settings.check_only, is_begun(plan))
    if run.scores is not None:
        return left_as_it_is(run)
    check_test_labels(plan)
    check_scripts(plan)
    slots = device_slots(settings.workers)
    say(
        f"{len(plan.pretraining)} runs of stage one and {len(plan.cells)} of stage two: {len(plan.arms)} arms × "
        f"{len(settings.fractions)} shares of the labels × {len(settings.seeds)} seeds, {len(slots)} at once"
    )
    if settings.check_only:
        return {}
    with locked(plan.folder) as lock:
        run = open_run(settings.output_dir, recipe, lineage, has_parts=is_begun(plan))  # again
        if run.scores is not None:
            return left_as_it_is(run)
        if not is_begun(plan):
            begin_run(run, recipe, lineage)
        return run_and_report(plan, lineage, recipe, slots, lock, started)


def is_begun(plan: Plan) -> bool:
    """Whether the folder holds a comparison, finished or not."""
    return Path(plan.folder, RECIPE).is_file()


def run_and_report(
    plan: Plan,
    lineage: dict[str, Any],
    recipe: dict[str, Any],
    slots: list[dict[str, str]],
    lock: int,
    started: float,
) -> dict[str, float]:
    """Run what is not finished, hold the arms against the base, and write the report.

    Raises:
        Failure: some runs failed; the report says so, too.
    """
    prepare_folder(plan)
    runs = SideBySide(plan.runs, slots, plan.folder / "logs", lock, lambda done: finish_cell(done, plan.settings))
    outcomes = runs.run_all()
    cells = [cell._replace(**outcomes[cell_name(cell)]._asdict()) for cell in plan.cells]
    check_one_start(cells)
    check_one_data(cells, lineage["data"])
    comparison = compare(str(plan.settings.task), str(plan.settings.score), plan.arms, cells)
    comparison |= described(plan, lineage, recipe, started)
    failed = {name: outcome for name, outcome in outcomes.items() if outcome.status != FINISHED}
    comparison["notes"] = [f"{name}: {outcome.status}: {outcome.reason}" for name, outcome in failed.items()]
    comparison["notes"] += [*start_notes(plan, lineage), *leakage_notes(plan)]
    write_whole(plan.folder / "comparison.json", json.dumps(comparison, indent=1, ensure_ascii=False) + "\n")
    made = write_report(plan.folder, comparison)
    say(f"\n{comparison_table(comparison)}\n\n{plan.folder}: {', '.join(made)}, comparison.json")
    if failed:
        name, outcome = next(iter(failed.items()))
        raise Failure(
            f"{len(failed)} of {len(outcomes)} runs did not finish, such as {name}: {outcome.reason}; "
            "the same command tries them again"
        )
    scores = flat_results(comparison)
    write_results(plan.folder, scores)
    return scores


if __name__ == "__main__":
    run_script(main)
