"""What a comparison runs: its arms, stage one of each, and stage two for every share of the labels and seed."""

import os
from pathlib import Path

from two_stage.checkpointing.runs import RECIPE
from two_stage.command_line.exits import Refusal
from two_stage.command_line.recipe import read_recipe
from two_stage.comparison.outcome import Arm, Cell
from two_stage.comparison.settings import ARMS, BASE, STAGE_TWO, Settings
from two_stage.comparison.side_by_side import PlannedRun
from two_stage.data.files import check_files

HOME = Path(__file__).parents[2]
# files that stage one reads, written from stage two's
TEXTS = {"train_file": "task_texts.jsonl", "test_file": "test_texts.jsonl"}
PROBE_RATE = 1e-3  # a head that learns alone moves little at 5e-5 and would lose by its rate, not by its features


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
