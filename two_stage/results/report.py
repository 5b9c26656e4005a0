"""What a run made, told to a person: the summary on the screen and the model card.

As a command, `python -m two_stage.results.report FOLDER …` prints one table of several finished runs.
"""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from two_stage.checkpointing.checkpoints import sync, told_if_unwritten
from two_stage.checkpointing.hub import upload_run
from two_stage.checkpointing.locks import unlock_folder
from two_stage.checkpointing.runs import (
    RESULTS,
    Run,
    finished_scores,
    read_object,
    saved_hashes,
    write_lineage,
    write_results,
)
from two_stage.command_line.exits import Refusal, run_script
from two_stage.command_line.redaction import redacted, redacted_values

if TYPE_CHECKING:
    from transformers import BertConfig

    from two_stage.training.trainer import ExactTrainer

SEEDS = "seeds.json"  # what a script leaves that trained a model a seed

# The scores a reader looks for first, in this order; the others stand in all_results.json.
HEADLINES = {
    "mlm_loss": "masked-word loss (nats)",
    "mlm_accuracy": "masked-word accuracy",
    "perplexity": "masked-word perplexity",
    "nsp_accuracy": "next-sentence accuracy",
    "f1": "entity F1",
    "precision": "entity precision",
    "recall": "entity recall",
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "quadratic_kappa": "quadratic-weighted kappa",
    "mean_absolute_error": "mean absolute error (shades)",
    "off_by_one_share": "at most one shade off",
    "calibration_error": "expected calibration error",
    "mean_squared_error": "mean squared error of scores",
    "pearson": "correlation of scores (Pearson)",
}

# Scores that the Hub knows by another name, or has a name for
HUB_METRICS = {"macro_f1": "f1", "mlm_accuracy": "accuracy", "nsp_accuracy": "accuracy"}


def headline_split(scores: dict[str, Any]) -> tuple[str, str]:
    """Which split's scores a reader wants, and their prefix: the test's where there are any, else the validation's."""
    splits = {"test": "test_", "validation": "eval_"}
    found = (split for split, prefix in splits.items() if any(prefix + name in scores for name in HEADLINES))
    split = next(found, "validation")
    return split, splits[split]


def score_lines(scores: dict[str, float]) -> list[tuple[str, str, str]]:
    """The headline scores as (split, name, value), a value with the ends of its 95 % interval where they are known."""
    split, prefix = headline_split(scores)
    return [
        (split, spoken, f"{scores[prefix + name]:.3f}{_interval(scores, prefix + name)}")
        for name, spoken in HEADLINES.items()
        if prefix + name in scores
    ]


def _interval(scores: dict[str, float], name: str) -> str:
    """The ends of a score's interval, or nothing."""
    if f"{name}_low" not in scores:
        return ""
    return f" [{scores[f'{name}_low']:.3f}, {scores[f'{name}_high']:.3f}]"


def summary_table(folders: list[Path]) -> str:
    """What was made, its scores and where it lies: a text table with one block a finished run."""
    rows = []
    for folder in folders:
        scores = finished_scores(folder / RESULTS)
        minutes = f"{scores.get('total_runtime', 0.0) / 60:.1f} min"
        lines = [f"{name} {value} ({split})" for split, name, value in score_lines(scores)] or ["no split scored"]
        rows.append((folder.name, lines[0], minutes, str(folder)))
        rows += [("", line, "", "") for line in lines[1:]]
    rows.insert(0, ("made", "scores", "took", "lies in"))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([text[0], "  ".join("-" * width for width in widths), *text[1:]])


def seeds_table(summary: dict[str, Any]) -> str:
    """The headline scores over several seeds: mean, standard deviation, and each seed's own, one score a line.

    Args:
        summary: the content of seeds.json.
    """
    seeds = [f"seed {seed}" for seed in summary["seeds"]]
    split, prefix = headline_split(summary["scores"])
    lines = [f"{split:<34}  mean ± sd        {'  '.join(seeds)}"]
    for name, spoken in HEADLINES.items():
        if found := summary["scores"].get(prefix + name):
            each = (f"{value:.3f}".ljust(len(seed)) for value, seed in zip(found["each"], seeds, strict=True))
            lines.append(f"{spoken:<34}  {found['mean']:.3f} ± {found['sd']:.3f}    {'  '.join(each)}".rstrip())
    return "\n".join(lines)


class Card(NamedTuple):
    """What a script's model card says of every model that the script makes."""

    title: str
    usage: str  # Python lines that load the folder
    limits: tuple[str, ...] = ()  # what the model is not good for
    task: str = ""  # the Hub's name of it, such as text-classification


def model_limits(own: list[str], config: "BertConfig", items: str) -> tuple[str, ...]:
    """What a model of stage two is not good for: its script's own sentences, between those of every model.

    Args:
        own: of the script.
        config: the model's; one of regression gives no probabilities.
        items: what gets them, words or texts.
    """
    limits = ["It was trained on texts of one kind: of others, expect less than these scores.", *own]
    if config.problem_type != "regression":
        temperature = getattr(config, "head_temperature", None)
        found = f"calibrated on the validation {items}, temperature"
        how = f"{found} {temperature:.3f}" if temperature else "not calibrated"
        limits.append(f"Its probabilities were {how}; on texts of another kind they mean less.")
    return tuple(limits)


class Findings(NamedTuple):
    """What a script's model card says of this run, beside its scores."""

    facts: dict[str, str]  # name → value, such as what a split holds
    sections: tuple[str, ...] = ()  # Markdown, each with its heading


def card_metadata(folder: Path, card: Card, scores: dict[str, float], lineage: dict[str, Any]) -> dict[str, Any]:
    """What the Hub reads of a card: task, tags, what it came from, data and scores, as ModelCardData has them.

    A licence is not among them: that of a checkpoint need not be the model's, and whoever publishes it has to say.

    Args:
        folder: the run's; the model is called as it is.
        card: of the script.
        scores: the run's results.
        lineage: the run's; of its chain the first checkpoint is named if it is one of the Hub.
    """
    from huggingface_hub import EvalResult, ModelCardData

    data = lineage.get("data", {})
    split, prefix = headline_split(scores)
    files = [Path(name).name for name in data.get(f"{split}_file", data.get("train_file", {}))]
    of_data = ", ".join(files) or "held-out rows of the training data"
    results = [
        EvalResult(
            task_type=card.task,
            dataset_type="local",
            dataset_name=of_data,
            dataset_split=split,
            metric_type=HUB_METRICS.get(name, name),
            metric_name=spoken,
            metric_value=round(scores[prefix + name], 6),
        )
        for name, spoken in HEADLINES.items()
        if card.task and prefix + name in scores
    ]
    made = ModelCardData(
        library_name="transformers",
        pipeline_tag=card.task or None,
        tags=["bert", "two-stage"] if card.task else None,
        base_model=hub_ancestor(lineage),
        metrics=list(dict.fromkeys(result.metric_type for result in results)) or None,
        eval_results=results or None,
        model_name=folder.resolve().name if results else None,
    )
    return redacted_values(made.to_dict())


def hub_ancestor(lineage: dict[str, Any] | None) -> str | None:
    """The Hub id of the checkpoint that a chain of runs began with; None of a folder."""
    found = None
    while made_from := (lineage or {}).get("checkpoint"):
        found = made_from.get("name") if made_from.get("from_hub") else None
        lineage = made_from.get("lineage")
    return found


def write_model_card(
    folder: Path, card: Card, scores: dict[str, float], findings: Findings, lineage: dict[str, Any] | None = None
) -> None:
    """Write README.md, the model card.

    Args:
        folder: the run's folder.
        card: title, usage and limits.
        scores: the run's results; the headline ones are shown.
        findings: the facts, such as the checkpoint that it came from and the files it was trained on; the sections.
        lineage: of which the Hub is told what the model came from.
    """
    metadata = yaml.safe_dump(card_metadata(folder, card, scores, lineage or {}), sort_keys=False, allow_unicode=True)
    usage = card.usage.replace('"FOLDER"', json.dumps(str(folder), ensure_ascii=False))  # whatever its name holds
    lines = ["---", *metadata.splitlines(), "---", f"# {card.title}", "", "```python", usage, "```", ""]
    lines += ["| what | value |", "|---|---|"]
    lines += [f"| {name} | {markdown_cell(redacted(value))} |" for name, value in findings.facts.items()] + [""]
    if found := score_lines(scores):
        lines += ["| score | split | value [95 % interval] |", "|---|---|---|"]
        lines += [f"| {name} | {split} | {value} |" for split, name, value in found]
        lines += ["", "One run, one seed: an interval tells of other texts of this kind, not of other seeds; compare"]
        lines += ["models over several seeds."]
    else:
        lines += ["No held-out split was given, so nothing is known of how well it does."]
    for section in findings.sections:
        lines += ["", section]
    if card.limits:
        lines += ["", "## Limits", "", *(f"- {limit}" for limit in card.limits)]
    lines += ["", "`recipe.yaml` runs it again; `lineage.json` names the checkpoint, data and versions it came from."]
    (folder / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def finish_run(
    trainer: "ExactTrainer",
    run: Run,
    lineage: dict[str, Any],
    scores: dict[str, float],
    card: Card,
    findings: Findings | None = None,
) -> None:
    """Write all that a run leaves in its folder, all_results.json last, tell what was made, and upload it if asked.

    Args:
        trainer: has trained, or has only predicted, and then no weights are written.
        run: where it goes.
        lineage: as traced at the start.
        scores: what goes into all_results.json.
        card: see `write_model_card`.
        findings: what the card says besides.
    """
    findings = findings or Findings({})
    for name in [name for name in scores if name.endswith("model_preparation_time")]:
        del scores[name]  # Trainer tells it where nothing was trained
    trained = trainer.train_dataset is not None
    with told_if_unwritten(run.folder, trainer.what_is_intact):
        if trained:
            trainer.save_model(str(run.folder))
        if trainer.is_world_process_zero():
            write_folder(trainer, run, lineage, scores, card, findings)
            trainer.leave_the_best_alone()
    trainer.accelerator.wait_for_everyone()
    unlock_folder(run.folder)
    if trainer.is_world_process_zero():
        print(f"\n{summary_table([run.folder])}\n")
        if trained and trainer.args.push_to_hub:
            upload_run(run.folder, trainer.args)


def write_folder(
    trainer: "ExactTrainer", run: Run, lineage: dict[str, Any], scores: dict[str, float], card: Card, findings: Findings
) -> None:
    """Write what lies beside the weights; see `finish_run`."""
    if trainer.train_dataset is not None:
        trainer.state.save_to_json(str(run.folder / "trainer_state.json"))
        lineage |= saved_hashes(run.folder)
        facts = {"started from": lineage["checkpoint"]["name"]} | findings.facts
        for flag, files in lineage["data"].items():
            # a data set that stage one reads is known by other words than a hash
            facts[flag] = ", ".join(
                f"{file} (SHA-256 {digest[:16]}…)" if re.fullmatch("[0-9a-f]{64}", digest) else file
                for file, digest in files.items()
            )
        facts["optimizer steps"] = f"{trainer.state.global_step:,}"
        write_model_card(run.folder, card, scores, findings._replace(facts=facts), lineage)
        sync(run.folder / "model.safetensors")
    write_lineage(run.folder, lineage)
    write_results(run.folder, scores)


def markdown_cell(text: str) -> str:
    """Text that cannot break out of a Markdown table's cell, and is no tag, link or picture that a page would load."""
    # backslashes first: behind one of its own, a text's | would end the cell
    text = " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")
    return text.replace("<", "&lt;").replace("](", "]\\(").replace("`", "\\`")


def main(folders: list[str]) -> None:
    """Print the table of the finished runs among `folders`, and one of each folder of several seeds.

    Raises:
        Refusal: no folder, or one without a finished run; the others are printed before.
    """
    seeds = [Path(folder, SEEDS) for folder in folders if Path(folder, SEEDS).is_file()]
    finished = [Path(folder) for folder in folders if Path(folder, RESULTS).is_file()]
    others = [folder for folder in folders if not {Path(folder), Path(folder, SEEDS)} & {*finished, *seeds}]
    if finished:
        print(f"\n{summary_table(finished)}\n")
    for path in seeds:
        summary = read_object(path, "run its command again, and it is written anew")
        print(f"\n{path.parent}\n{seeds_table(summary)}\n")
    if others or not folders:
        raise Refusal(
            f"{', '.join(others) or 'no folder'}: no finished run ({RESULTS} or {SEEDS}); name those that are"
        )


if __name__ == "__main__":
    run_script(main)
