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

import math
from dataclasses import dataclass, field
from pathlib import Path

from two_stage.command_line.exits import Failure, Refusal, run_script, say
from two_stage.command_line.recipe import check_range, help_if_asked, parse_settings, read_recipe

SCRIPT, QUICKSTART = "run_comparison.py", "recipes/quickstart/comparison.yaml"
HOME = Path(__file__).parent
STAGE_TWO = {"sentiment": "run_sentiment.py", "ner": "run_ner.py"}
BASE = "base"  # the arm that all others are held against
ARMS = (BASE, "stage_one", "task_adaptive", "both", "heads_as_is", "scratch")
OF_NUMBERS = ("mean_squared_error", "pearson")  # scores that need no shades
LABEL_COLUMNS = {  # flag → its default
    "sentiment": {"label_column": "label"},
    "ner": {"tags_column": "ner_tags", "entities_column": "entities"},
}
# files that stage one reads, written from stage two's
TEXTS = {"train_file": "task_texts.jsonl", "test_file": "test_texts.jsonl"}
PROBE_RATE = 1e-3  # a head that learns alone moves little at 5e-5 and would lose by its rate, not by its features

# --- Settings ---------------------------------------------------------------------------------------------------------


@dataclass
class Settings:
    """What is compared."""

    task: str | None = field(default=None, metadata={"help": "what stage two does", "choices": tuple(STAGE_TWO)})
    checkpoint: str | None = field(default=None, metadata={"help": "the base: a BERT as it is, before stage one"})
    stage_one: list[str] | None = field(
        default=None,
        metadata={"help": "a recipe of run_pretraining.py to run, or the folder that it left; several as NAME=RECIPE"},
    )
    stage_two: str | None = field(
        default=None, metadata={"help": "the recipe of stage two, the same for all arms; it names a test split"}
    )
    task_adaptive: str | None = field(
        default=None, metadata={"help": "a recipe of run_pretraining.py for the task's own training texts"}
    )
    arms: list[str] = field(
        default_factory=lambda: [BASE, "stage_one"],
        metadata={
            "help": "what is held against base; the verdict is about stage_one, or else the first",
            "choices": ARMS,
        },
    )
    doses: list[float] | None = field(
        default=None, metadata={"help": "also after so many per cent of the first stage one's steps, such as 10 30"}
    )
    fractions: list[float] = field(
        default_factory=lambda: [1.0, 5.0, 10.0, 25.0, 100.0],
        metadata={"help": "per cent of the labelled rows to learn from, a curve of them"},
    )
    seeds: list[int] = field(
        default_factory=lambda: [0, 1, 2, 3, 4], metadata={"help": "of stage two; five tell more than three"}
    )
    score: str | None = field(default=None, metadata={"help": "what is compared (macro_f1; ner: f1)"})
    workers: int | None = field(default=None, metadata={"help": "runs at once (one a GPU; else the cores, 4 at most)"})
    keep_models: bool = field(default=False, metadata={"help": "keep the weights of every run of stage two"})
    output_dir: str = field(default="outputs/comparison", metadata={"help": "one comparison a folder"})
    check_only: bool = field(default=False, metadata={"help": "check everything and say what would run"})

    def __post_init__(self) -> None:
        """Refuse what is missing, out of range, or does not go together."""
        for name in ("task", "checkpoint", "stage_two"):
            if getattr(self, name) is None:
                raise Refusal(f"--{name}: is missing; it is {FLAG_HINTS[name]}")
        for name in ("fractions", "doses"):
            shares = getattr(self, name)
            top = "at most 100" if name == "fractions" else "below 100"
            fits = all(0 < share <= 100 and (share < 100 or name == "fractions") for share in shares or ())
            spoken = [f"{share:g}" for share in shares or ()]  # as folders are called by them
            if not fits or sorted(set(shares or ())) != (shares or []) or len(set(spoken)) < len(spoken):
                raise Refusal(f"--{name} {' '.join(spoken)}: per cent, above 0, {top}, ascending")
        check_range(self, 1, math.inf, "workers")
        check_seed_range(self.seeds)
        if len(set(self.arms)) < len(self.arms):
            raise Refusal("--arms: name each once")
        scores = SCORES[str(self.task)]
        self.score = self.score or scores[0]
        if self.score not in scores:
            raise Refusal(f"--score {self.score}: of task {self.task} can be compared: {', '.join(scores)}")
        self.check_arms()

    def check_arms(self) -> None:
        """Refuse arms without what they are made from."""
        first = [arm for arm in (BASE, "stage_one") if arm == BASE or arm in self.arms]
        self.arms = [*first, *(arm for arm in self.arms if arm not in first)]
        needs = {"stage_one": ("stage_one", "both"), "task_adaptive": ("task_adaptive", "both")}
        for flag, arms in needs.items():
            if not getattr(self, flag) and (wanting := [arm for arm in arms if arm in self.arms]):
                raise Refusal(f"--arms {wanting[0]}: needs --{flag}, {FLAG_HINTS[flag]}")
            users = {*arms, "heads_as_is"} if flag == "stage_one" else set(arms)
            if getattr(self, flag) and not users & set(self.arms):
                raise Refusal(f"--{flag}: no arm uses it; add {flag} to --arms")
        if self.doses and "stage_one" not in self.arms:
            raise Refusal("--doses: are of stage one; add stage_one to --arms")
        if len(self.arms) == 1:
            raise Refusal("--arms: nothing to hold against base; add stage_one, or another")


FLAG_HINTS = {
    "task": "sentiment or ner",
    "checkpoint": "the BERT as it is before stage one: a folder, or a Hub id",
    "stage_two": "a recipe of run_sentiment.py or run_ner.py",
    "stage_one": "a recipe of run_pretraining.py, or the folder that it left",
    "task_adaptive": "a recipe of run_pretraining.py",
}


if __name__ == "__main__":
    help_if_asked(__doc__, Settings)  # before the imports below, which take seconds

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

from two_stage.checkpointing.checkpoints import write_whole
from two_stage.checkpointing.handoff import Checkpoint, open_checkpoint
from two_stage.checkpointing.lineage import trace_lineage
from two_stage.checkpointing.runs import LINEAGE, RECIPE, RESULTS, begin_run, left_as_it_is, open_run, write_results
from two_stage.command_line.redaction import redacted, redacted_values
from two_stage.comparison.outcome import SCORES, Arm, Cell, compare, comparison_table, read_json
from two_stage.comparison.report import write_report
from two_stage.comparison.side_by_side import FINISHED, PlannedRun, SideBySide, device_slots, locked
from two_stage.data.files import check_files
from two_stage.data.sources import SPLITS, Source, split_sources
from two_stage.data.tables import LABELLED_FORMATS, PlacedRow, UsualColumns, read_rows, tagged_text, text_value
from two_stage.results.report import HEADLINES
from two_stage.results.seeds import check_seed_range

# --- Arms and their stage one -----------------------------------------------------------------------------------------


def is_recipe(value: str) -> bool:
    """Whether a value of --stage_one is a recipe to run, rather than a checkpoint."""
    return value.endswith((".yaml", ".yml"))


def named_stages(settings: Settings) -> dict[str, str]:
    """Each stage one by the name of its arm: NAME=VALUE, or the value alone, whose arm is `stage_one`.

    Raises:
        Refusal: a name twice, or one that is taken or cannot be a folder's.
    """
    stages: dict[str, str] = {}
    for value in settings.stage_one or ():
        name, separator, rest = value.partition("=")
        name, rest = (name, rest) if separator else ("stage_one", value)
        if name in stages or (name in ARMS and name != "stage_one") or not name.replace("_", "").isalnum() or not rest:
            raise Refusal(f"--stage_one {value}: give each a name of its own, of letters and digits, as NAME=RECIPE")
        stages[name] = rest
    return stages


class Plan:
    """What runs: the arms, stage one of each, and every cell."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.folder = settings, Path(settings.output_dir)
        self.stages = named_stages(settings)
        self.recipes = self.read_recipes()
        self.stage_two = read_recipe(str(settings.stage_two))
        self.pretraining: list[PlannedRun] = []
        self.needs: dict[str, tuple[str, ...]] = {}  # of an arm: the runs of stage one
        self.arms = [Arm(BASE, "the checkpoint as it is", "the base", str(settings.checkpoint))]
        for name in settings.arms[1:]:
            getattr(self, f"add_{name}")()
        self.cells = [
            Cell(arm.name, fraction, seed, self.folder / "cells" / arm.name / f"{fraction:g}-percent" / f"seed-{seed}")
            for seed in settings.seeds
            for fraction in settings.fractions
            for arm in self.arms
        ]

    def read_recipes(self) -> dict[str, bytes]:
        """Every recipe as it is now, that of stage two first.

        Raises:
            Refusal: one that is missing, empty, or called otherwise than recipes are.
        """
        given = (str(self.settings.stage_two), *filter(is_recipe, self.stages.values()), self.settings.task_adaptive)
        paths = list(dict.fromkeys(path for path in given if path))
        for path in paths:
            if Path(path).suffix not in (".yaml", ".yml"):
                raise Refusal(f"{path}: a recipe is YAML, and called .yaml or .yml")
            check_files([path], ("yaml", "yml"))
        return {path: Path(path).read_bytes() for path in paths}

    def kept_recipe(self, path: str) -> Path:
        """Where a recipe's copy lies that the runs read: hours may go by until the last begins, and edits with them."""
        return self.folder / "recipes" / f"{list(self.recipes).index(path) + 1}-{Path(path).name}"

    def stage_folder(self, name: str) -> Path:
        """Where a stage one that is run here goes."""
        return self.folder / "pretraining" / name

    def run_stage(self, name: str, recipe: str, start: str, needs: tuple[str, ...], *flags: str) -> None:
        """Plan one run of stage one, once."""
        if name not in [run.name for run in self.pretraining]:
            folder = self.stage_folder(name)
            kept = str(self.kept_recipe(recipe))
            command = [str(HOME / "run_pretraining.py"), "--recipe", kept, "--checkpoint", start]
            command += ["--output_dir", str(folder), "--disable_tqdm", "true", *flags, *self.leakage_flags()]
            self.pretraining.append(PlannedRun(name, tuple(command), folder, needs, resumes=True, kind=name))

    def leakage_flags(self) -> list[str]:
        """Have stage one look for these test texts in its corpus, and not for others that its recipe may name."""
        return ["--held_out_file", str(self.folder / TEXTS["test_file"])] if self.stage_two_files("test_file") else []

    def was_looked_for(self, stage: Path) -> bool:
        """Whether a stage one looks for these test texts: one that is run here does, a ready one by its recipe."""
        if stage in [run.folder for run in self.pretraining] or not (stage / RECIPE).is_file():
            return True
        looked = read_recipe(str(stage / RECIPE)).get("held_out_file", [])
        there = {os.path.realpath(path) for path in ([looked] if isinstance(looked, str) else looked)}
        return {os.path.realpath(path) for path in self.stage_two_files("test_file")} <= there

    def stage_two_files(self, flag: str) -> list[str]:
        """The files that the recipe of stage two names."""
        value = self.stage_two.get(flag, [])
        return [file for file in ([value] if isinstance(value, str) else value) if file]

    def use_stage(self, name: str) -> tuple[str, tuple[Path, ...], tuple[str, ...]]:
        """A stage one's checkpoint, its folders, and the runs that it needs; planned if it is a recipe."""
        value = self.stages[name]
        if not is_recipe(value):
            return value, (Path(value),) if Path(value).is_dir() else (), ()
        doses = self.settings.doses if name == next(iter(self.stages)) else None
        keep = ["--keep_at", *(f"{dose:g}" for dose in doses)] if doses else []
        self.run_stage(name, value, str(self.settings.checkpoint), (), *keep)
        return str(self.stage_folder(name)), (self.stage_folder(name),), (name,)

    def add(self, arm: Arm, needs: tuple[str, ...]) -> None:
        """Add an arm that needs runs of stage one."""
        self.arms.append(arm)
        self.needs[arm.name] = needs

    def add_stage_one(self) -> None:
        """An arm a stage one, and one a dose of the first."""
        for name, value in self.stages.items():
            checkpoint, stages, needs = self.use_stage(name)
            spoken = "stage one" if name == "stage_one" else f"stage one ({name})"
            self.add(Arm(name, f"after stage one: {value}", spoken, checkpoint, stages), needs)
        first = next(iter(self.stages))
        checkpoint, stages, needs = self.use_stage(first)
        for dose in self.settings.doses or ():
            spoken = f"{dose:g} % of stage one"
            kept = str(Path(checkpoint, "kept", f"{dose:g}-percent"))
            title = f"after {dose:g} % of the steps of {first}"
            self.add(Arm(f"{first}@{dose:g}", title, spoken, kept, stages, dose, first), needs)

    def add_task_adaptive(self) -> None:
        """Stage one on the task's own training texts."""
        self.run_stage(
            "task_adaptive", str(self.settings.task_adaptive), str(self.settings.checkpoint), (), *self.own()
        )
        folder = self.stage_folder("task_adaptive")
        title = "after stage one on the task's own training texts, labels left out"
        self.add(
            Arm("task_adaptive", title, "task-adaptive stage one", str(folder), (folder,)),
            ("task_adaptive",),
        )

    def add_both(self) -> None:
        """Stage one on the domain's text, then on the task's own."""
        checkpoint, stages, needs = self.use_stage(next(iter(self.stages)))
        self.run_stage("both", str(self.settings.task_adaptive), checkpoint, needs, *self.own())
        folder = self.stage_folder("both")
        title = "after stage one on the domain's text, then on the task's own"
        self.add(Arm("both", title, "both kinds of stage one in turn", str(folder), (*stages, folder)), ("both",))

    def add_heads_as_is(self) -> None:
        """A head on stage one's pooled output, which stays as pretraining left it."""
        checkpoint, stages, needs = str(self.settings.checkpoint), (), ()
        if self.stages:
            checkpoint, stages, needs = self.use_stage(next(iter(self.stages)))  # type: ignore[assignment]
        title = f"the encoder as pretraining left it, frozen; the head alone learns, at {PROBE_RATE:g}"
        self.add(Arm("heads_as_is", title, "a frozen encoder", checkpoint, stages), needs)

    def add_scratch(self) -> None:
        """The same architecture without anything learnt."""
        self.add(
            Arm(
                "scratch",
                "the same architecture from random weights",
                "starting from random weights",
                str(self.stage_folder("scratch")),
            ),
            (),
        )

    def own(self) -> list[str]:
        """The flags that give stage one the task's own texts."""
        return ["--train_file", str(self.folder / TEXTS["train_file"]), "--text_column", "text"]

    def cell_command(self, arm: Arm, cell: Cell) -> tuple[str, ...]:
        """The command line of a cell."""
        kept = str(self.kept_recipe(str(self.settings.stage_two)))
        command = [str(HOME / STAGE_TWO[str(self.settings.task)]), "--recipe", kept]
        command += ["--checkpoint", arm.checkpoint, "--output_dir", str(cell.folder), "--seeds", str(cell.seed)]
        command += ["--disable_tqdm", "true"]
        if "load_best_model_at_end" not in self.stage_two:
            command += ["--save_strategy", "no"]  # half a cell is done anew
        if cell.fraction < 100:  # a sample of its own under each seed: what few labels were drawn is chance, too
            command += ["--train_fraction", f"{cell.fraction / 100:g}", "--sample_seed", str(cell.seed)]
        if arm.name == "heads_as_is":
            command += ["--freeze_encoder", "--head_learning_rate", str(PROBE_RATE)]
            command += ["--freeze_layers", "0", "--unfreeze_epochs", "0"]  # whatever the recipe thaws
            command += ["--pooling", "pooler"] if self.settings.task == "sentiment" else []
        return tuple(command)

    @property
    def ready_arms(self) -> list[Arm]:
        """Those that start from a checkpoint that is there before anything runs; the base is not among them."""
        return [arm for arm in self.arms[1:] if not self.needs[arm.name] and arm.name != "scratch"]

    @property
    def runs(self) -> list[PlannedRun]:
        """All runs in the order in which they begin: all of stage one, then seed after seed."""
        arms = {arm.name: arm for arm in self.arms}
        return self.pretraining + [
            PlannedRun(
                cell_name(cell),
                self.cell_command(arms[cell.arm], cell),
                cell.folder,
                self.needs.get(cell.arm, ()),
                kind=f"{cell.fraction:g}",
            )
            for cell in self.cells
        ]


def cell_name(cell: Cell) -> str:
    """What is said of a cell."""
    return f"{cell.arm}, {cell.fraction:g} % of the labels, seed {cell.seed}"


# --- Before anything runs ---------------------------------------------------------------------------------------------


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
    """What a reader must know of stages one that were there already and went on from another checkpoint than the base.

    Args:
        plan: of the comparison.
        lineage: of the comparison, from `trace_comparison`.
    """
    base, notes = lineage["checkpoint"], []
    for arm in plan.ready_arms:
        if arm.stages and arm.dose is None:
            start = read_json(Path(arm.checkpoint, LINEAGE)).get("checkpoint", {})
            if start.get("weights_sha256", base["weights_sha256"]) != base["weights_sha256"]:
                told = f"{arm.checkpoint} went on from other weights than {base['name']}: what differs is not it alone"
                notes.append(told)
    return list(dict.fromkeys(notes))


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
