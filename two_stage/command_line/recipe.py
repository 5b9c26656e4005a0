"""A recipe is a saved command line: flat YAML whose keys are a script's flags. Typed flags win.

The keys become the flags that they stand for, put before the typed ones, so that argparse checks both alike:
`learning_rate: 5e-5` is a number, an unknown key is refused with the nearest real one, and the last word wins.
"""

import dataclasses
import difflib
import gc
import json
import math
import re
import sys
from argparse import SUPPRESS, Action, HelpFormatter
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml
from transformers import HfArgumentParser, TrainingArguments

from two_stage.command_line.exits import Refusal, say
from two_stage.command_line.launch import check_launch
from two_stage.command_line.redaction import SECRET, redacted, redacted_values

SettingsT = TypeVar("SettingsT")
TrainingT = TypeVar("TrainingT", bound=TrainingArguments)

# A script that is given none of these is given no data, and runs the quickstart recipe.
DATA_FLAGS = ("train_file", "validation_file", "test_file", "predict_file", "dataset", "stage_two")

# The fields of TrainingArguments that --help shows; --help_all shows all hundred.
COMMON_TRAINING_FLAGS = frozenset(
    "output_dir num_train_epochs max_steps learning_rate head_learning_rate layer_decay freeze_layers unfreeze_epochs "
    "min_steps freeze_encoder label_smoothing_factor weight_decay "
    "warmup_steps lr_scheduler_type per_device_train_batch_size gradient_accumulation_steps per_device_eval_batch_size "
    "eval_strategy save_strategy save_steps logging_steps seed use_cpu precision dataloader_num_workers "
    "activation_checkpointing torch_compile report_to push_to_hub resume_anyway".split()
)


NEGATIVE_NUMBER = re.compile(r"-(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")  # argparse takes -1e-3 for a flag
HELP = frozenset(("-h", "--help", "--help_all"))
NOT_IN_RECIPES = {"recipe", "help", "help_all", "hub_token"}  # `hf auth login` keeps a token


class FlagFormatter(HelpFormatter):
    """Help of one line a flag where it fits: the flag, what it is for, its default."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34, width=120)

    def _format_action_invocation(self, action: Action) -> str:
        return next(option for option in action.option_strings if option.startswith("--"))

    def _get_help_string(self, action: Action) -> str:
        shown = (action.help or "").replace("%%", "%").replace("%", "%%")  # some of the stock texts are escaped already
        if action.choices is not None and len(list(action.choices)) < 7:
            shown += f" [{', '.join(map(str, action.choices))}]"
        if action.default in (None, SUPPRESS, []):
            return shown
        words = action.default if isinstance(action.default, list) else [action.default]
        as_typed = (f"{word:g}" if isinstance(word, float) else str(word) for word in words)
        return f"{shown} ({' '.join(as_typed)})"


class FlagParser(HfArgumentParser):
    """Transformers' dataclass parser, whose errors are one line that names the nearest real flag."""

    def __init__(self, program: str, description: str, *settings: type) -> None:
        super().__init__(
            settings,
            prog=program,
            description=description,
            usage=f"{program} [--recipe YAML] [--flag value ...]",
            formatter_class=FlagFormatter,
            allow_abbrev=False,
            add_help=False,
        )
        self._negative_number_matcher = NEGATIVE_NUMBER
        self.add_argument("-h", "--help", action="help", default=SUPPRESS, help="this help")
        self.add_argument("--help_all", action="help", default=SUPPRESS, help="with every TrainingArguments field")
        self.add_argument("--recipe", default=None, metavar="YAML", help="a saved command line; typed flags win")

    def error(self, message: str) -> NoReturn:
        """Refuse without argparse's usage text, which is two screens here."""
        raise Refusal(f"{redacted(message)} (--help lists the flags)")

    def flag(self, name: str) -> Action | None:
        """The argparse action of flag `name`, given without its dashes; None where there is no such flag."""
        return self._option_string_actions.get(f"--{name}")

    def nearest(self, name: str) -> str:
        """A hint that names the flag nearest to `name`, or nothing."""
        names = {option.removeprefix("--") for option in self._option_string_actions if "-" not in option[2:]}
        names -= NOT_IN_RECIPES
        close = difflib.get_close_matches(name, names, n=1)
        return f"; did you mean {close[0]}?" if close else ""

    def hide_rare_flags(self) -> None:
        """Leave out of --help what most users never set."""
        settings, *training = self.dataclass_types
        shown = COMMON_TRAINING_FLAGS - {name for each in training for name in getattr(each, "takes_no_effect", ())}
        shown = shown.union(own_flags(settings), ("help", "recipe"))
        for action in self._actions:
            if action.dest not in shown:
                action.help = SUPPRESS


def own_flags(settings: type) -> set[str]:
    """The names of a settings class's fields."""
    return {field.name for field in dataclasses.fields(settings)}


@cache
def stock_values(settings: type) -> dict[str, Any]:
    """What the flags would be with none typed and transformers' own TrainingArguments."""
    return vars(FlagParser("", "", settings, TrainingArguments).parse_args([]))


def help_if_asked(description: str, *settings: type) -> None:
    """Answer --help and end the process; a script calls it before the imports that take seconds.

    Else no garbage is collected until `run_script`: what is imported stays, and looking it through again and again
    takes a tenth of the time.

    Args:
        description: the script's docstring.
        settings: the dataclasses whose fields are the flags.
    """
    typed = sys.argv[1:]
    if HELP.intersection(typed):
        parser = FlagParser(Path(sys.argv[0]).name, description.split("\n\n")[0], *settings)
        if "--help_all" not in typed:
            parser.hide_rare_flags()
        with suppress(Refusal):  # of a flag before it: the script's main tells it
            parser.parse_known_args(typed)
    gc.disable()


def parse_flags(
    argv: list[str] | None, settings: type[SettingsT], training: type[TrainingT], quickstart: str, description: str
) -> tuple[SettingsT, TrainingT, dict[str, Any]]:
    """Parse a script's command line.

    Args:
        argv: the typed flags; None takes them from `sys.argv`.
        settings, training: the dataclasses whose fields are the flags.
        quickstart: the recipe that runs when neither a recipe nor data is given.
        description: the script's docstring, shown by `--help`.

    Returns:
        The two filled dataclasses, and the resolved recipe: the script's own flags, the common ones of training, and
        all others that are not at their default.

    Raises:
        Refusal: an unknown flag or key, a value of the wrong type, a recipe that cannot be read.
    """
    parser = FlagParser(Path(sys.argv[0]).name, description.split("\n\n")[0], settings, training)
    filled, values = fill_settings(argv, parser, quickstart)
    stock = stock_values(settings)  # type: ignore[arg-type]
    # written even at their default, which may change
    spoken = (COMMON_TRAINING_FLAGS - set(getattr(training, "takes_no_effect", ()))) | own_flags(settings)
    ours = vars(parser.parse_args([]))
    resolved = {
        name: value
        for name, value in values.items()
        if name not in NOT_IN_RECIPES | {"check_only", "resume_anyway"}
        and value is not None
        and (name in spoken or not value == stock.get(name) == ours[name])
    }
    return filled[0], filled[1], resolved


def parse_settings(
    argv: list[str] | None, settings: type[SettingsT], quickstart: str, description: str
) -> tuple[SettingsT, dict[str, Any]]:
    """Parse the command line of a script that trains nothing itself: `parse_flags` without training's flags.

    Returns:
        The filled dataclass, and the resolved recipe: all its flags that have a value.

    Raises:
        Refusal: see `parse_flags`.
    """
    parser = FlagParser(Path(sys.argv[0]).name, description.split("\n\n")[0], settings)
    filled, values = fill_settings(argv, parser, quickstart, trains=False)
    kept = {name: value for name, value in values.items() if name != "check_only" and value is not None}
    return filled[0], kept


def fill_settings(
    argv: list[str] | None, parser: FlagParser, quickstart: str, trains: bool = True
) -> tuple[Any, dict[str, Any]]:
    """The parser's dataclasses, filled from recipe and typed flags, and all values by the names of their flags.

    Args:
        argv: the typed flags; None takes them from `sys.argv`.
        parser: of the script.
        quickstart: the recipe that runs when neither a recipe nor data is given; "" where there is none.
        trains: whether several processes may share the script's work.

    Raises:
        Refusal: see `parse_flags` and `check_launch`.
    """
    typed = list(sys.argv[1:] if argv is None else argv)
    if "--help_all" not in typed:
        parser.hide_rare_flags()
    alone, unknown = parser.parse_known_args(typed)
    if unknown:
        parser.error(f"unknown flag {unknown[0]}{parser.nearest(unknown[0].split('=')[0].removeprefix('--'))}")
    check_launch(parser.prog, trains)
    no_data = bool(quickstart) and alone.recipe is None and not any(getattr(alone, flag, None) for flag in DATA_FLAGS)
    recipe = quickstart if no_data else alone.recipe
    namespace = parser.parse_args((recipe_flags(recipe, parser) if recipe else []) + typed)
    if no_data:
        say(f"No data given: running the quickstart recipe {recipe}")
    values = {name: value for name, value in vars(namespace).items() if name not in ("recipe", "help_all")}
    try:
        return parser.parse_dict(values), values
    except (ValueError, TypeError, OSError) as error:  # the last two of a file or a mapping that a flag names
        raise Refusal(redacted(" ".join(str(error).split()))) from error


class RecipeLoader(yaml.BaseLoader):
    """BaseLoader that takes no key twice, where YAML would let the last one win without a word.

    A flag's value stays text, for argparse to give it its type. What stands in a mapping, as `lr_scheduler_kwargs` has
    one, no argparse looks into: a number or a truth value there, unless in quotes, is one.
    """

    depth = 0  # of mappings around what is read

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping whose keys differ."""
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen if isinstance(key, yaml.ScalarNode) else False:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key.value} stands there twice", key.start_mark
                )
            seen.add(str(key.value))
        self.depth += 1
        try:
            return super().construct_mapping(node, deep=deep)
        finally:
            self.depth -= 1

    def construct_scalar(self, node: yaml.ScalarNode) -> Any:
        """A text; in a mapping of a mapping, what JSON takes it for."""
        text = super().construct_scalar(node)
        if self.depth < 2 or node.style is not None:
            return text
        try:
            return json.loads(text)
        except ValueError:
            return text


def read_recipe(path: str) -> dict[str, Any]:
    """The keys and values of a recipe, every flag's value as the text that stands in the file.

    BaseLoader leaves scalars as text, so that argparse gives them their type: YAML 1.1 would read `5e-5` as a
    word and `no` as False. It builds nothing but text, lists and dicts, and within a mapping what JSON has besides.

    Raises:
        Refusal: no such file, not YAML, a key twice, or not a flat mapping.
    """
    try:
        recipe = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=RecipeLoader)
    except OSError as error:
        raise Refusal(f"{path}: {error.strerror}; give --recipe a YAML file, such as one under recipes/") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(f"{path}: not YAML: {_spoken_fault(error)}") from error
    if not isinstance(recipe, dict):
        raise Refusal(f"{path}: a recipe is lines of `flag: value`, this is a {type(recipe).__name__}")
    return recipe


def _spoken_fault(error: Exception) -> str:
    """What is wrong with a YAML file and where, without its lines, in which a secret may stand."""
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}, column {mark.column + 1}: {getattr(error, 'problem', '')}" if mark else str(error)
    return redacted(" ".join(where.split()))


def recipe_flags(path: str, parser: FlagParser) -> list[str]:
    """The command line that the recipe `path` stands for.

    Raises:
        Refusal: the recipe cannot be read, or holds a key that is no flag of the script, or a key without value.
    """
    flags: list[str] = []
    for key, value in read_recipe(path).items():
        if parser.flag(key) and key in NOT_IN_RECIPES:
            raise Refusal(f"{path}: key {key} does not belong in a recipe; type it as a flag")
        if parser.flag(key) is None:
            raise Refusal(f"{path}: unknown key {key}{parser.nearest(key)}")
        if value in ("", []):
            raise Refusal(f"{path}: key {key} has no value; leave the line out to take the default")
        if isinstance(value, list):
            for item in value:
                if not isinstance(item, str) or like_a_flag(item):
                    held = repr(item[:60]) if isinstance(item, str) else f"a {type(item).__name__}"
                    raise Refusal(f"{path}: key {key} holds {held}; its items must be words, and none like a flag")
            flags += [f"--{key}", *value]
        else:
            flags.append(f"--{key}={json.dumps(value) if isinstance(value, dict) else value}")
        if any("\0" in flag for flag in flags):
            raise Refusal(f"{path}: key {key} holds a NUL, which no file's name may; take it out")
    return flags


def like_a_flag(word: str) -> bool:
    """Whether argparse would take an item of a list for a flag."""
    return re.match(r"-\S+$", word) is not None and not NEGATIVE_NUMBER.match(word)


def comment(text: str) -> str:
    """A text for behind a #: a comment ends with its line, and names and labels may hold a line's end."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def recipe_text(recipe: dict[str, Any], script: str, folder: Path) -> str:
    """The text of `folder`/recipe.yaml, which runs the run again."""
    kept = redacted_values(recipe)
    text = yaml.safe_dump(kept, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)
    again = f"python {script} --recipe {folder / 'recipe.yaml'} --output_dir ANOTHER"
    told = f"# {SECRET} stands for a secret, which is written nowhere: give that flag anew.\n" if kept != recipe else ""
    return f"# As resolved. To run it again: {comment(again)}\n{told}{text}"


def check_range(settings: object, low: float, high: float, *names: str) -> None:
    """Refuse a setting outside its range; None is a setting that was not given.

    Raises:
        Refusal: naming the flag, its value and its range.
    """
    for name in names:
        value = getattr(settings, name)
        if value is not None and not low <= value <= high:
            bounds = f"at least {low}" if high == math.inf else f"between {low} and {high}"
            raise Refusal(f"--{name} {value}: must be {bounds}")


def check_seed_range(seeds: list[int] | None) -> None:
    """Refuse a seed that numpy does not take, or one that is there twice."""
    for seed in seeds or ():
        if not 0 <= seed < 2**32:
            raise Refusal(f"--seeds {seed}: must be between 0 and {2**32 - 1}")
    if len(set(seeds or ())) < len(seeds or ()):
        raise Refusal(f"--seeds {' '.join(map(str, seeds or ()))}: each must be there once")
