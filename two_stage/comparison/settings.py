"""What a comparison is asked: its flags, and which of them go together."""

import math
from dataclasses import dataclass, field

from two_stage.command_line.exits import Refusal
from two_stage.command_line.recipe import check_range, check_seed_range

STAGE_TWO = {"sentiment": "run_sentiment.py", "ner": "run_ner.py"}
BASE = "base"  # the arm that all others are held against
ARMS = (BASE, "stage_one", "task_adaptive", "both", "heads_as_is", "scratch")
# The scores that can be compared, of each task the first by default
SCORES = {
    "sentiment": ("macro_f1", "accuracy", "quadratic_kappa", "mean_absolute_error", "mean_squared_error", "pearson"),
    "ner": ("f1", "precision", "recall"),
}


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
