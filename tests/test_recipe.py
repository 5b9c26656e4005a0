"""A recipe is a saved command line: its values get their types, typed flags win, and what is wrong is refused."""

import gc
import re
import shlex
import sys
from dataclasses import fields
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.distributed.run import get_args_parser as torchrun_parser

import demo
import export_onnx
import run_comparison
import run_ner
import run_pretraining
import run_sentiment
from tests.test_documents import DOCUMENTS
from two_stage.checkpointing.runs import changed_settings
from two_stage.command_line.exits import Refusal, run_script
from two_stage.command_line.recipe import help_if_asked, parse_flags, parse_settings, read_recipe, recipe_text
from two_stage.comparison.settings import Settings as ComparisonSettings
from two_stage.results import report

REPOSITORY = Path(__file__).parent.parent
SCRIPTS = {
    "run_pretraining.py": (run_pretraining, run_pretraining.PretrainingArguments),
    "run_sentiment.py": (run_sentiment, run_sentiment.SentimentArguments),
    "run_ner.py": (run_ner, run_ner.NerArguments),
}
COMPARISON, EXPORT = "run_comparison.py", "export_onnx.py"  # have no training of their own
# Put behind any command, it makes one that asks for a GPU's number formats parse on a machine without a GPU.
ANYWHERE = ["--precision", "auto", "--bf16", "false", "--fp16", "false"]

Parsed = tuple[Any, Any, dict[str, Any]]


def parse(script: str, *argv: str) -> Parsed:
    """What a script makes of a command line: its settings, its training arguments, the resolved recipe."""
    if script == COMPARISON:
        settings, resolved = parse_settings(
            list(argv), ComparisonSettings, run_comparison.QUICKSTART, run_comparison.__doc__
        )
        return settings, None, resolved
    if script == EXPORT:
        settings, resolved = parse_settings(list(argv), export_onnx.Settings, "", export_onnx.__doc__ or "")
        return settings, None, resolved
    module, training = SCRIPTS[script]
    return parse_flags(list(argv), module.Settings, training, module.QUICKSTART, module.__doc__)


def anywhere(script: str) -> list[str]:
    """What makes a command line of a script parse on any machine."""
    return [] if script in (COMPARISON, EXPORT) else ANYWHERE


def refusal(script: str, *argv: str) -> str:
    """The one line with which a script refuses a command line."""
    with pytest.raises(Refusal) as refused:
        parse(script, *argv)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.fixture
def recipe(tmp_path: Path) -> Any:
    """A function that writes a recipe and returns the flags that run it."""

    def write(text: str | bytes) -> list[str]:
        path = tmp_path / "given.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return ["--recipe", str(path)]

    return write


each_script = pytest.mark.parametrize("script", SCRIPTS)

# --- Values get their types -------------------------------------------------------------------------------------------


@each_script
@pytest.mark.parametrize("written", ["5e-4", "5.0e-04", "0.0005", '"5e-4"', "5E-4", "+5e-4"])
def test_numbers_are_numbers_however_they_are_written(script: str, recipe: Any, written: str) -> None:
    """YAML 1.1 takes 5e-4 for a word; a recipe's learning rate is a float all the same."""
    training = parse(script, *recipe(f"learning_rate: {written}\nseed: 7\n"))[1]
    assert (type(training.learning_rate), training.learning_rate) == (float, 5e-4)
    assert (type(training.seed), training.seed) == (int, 7)


@each_script
@pytest.mark.parametrize("key", ["save_strategy", "eval_strategy"])
@pytest.mark.parametrize("written", ["no", '"no"', "'no'"])
def test_no_stays_a_word_where_a_word_is_asked_for(script: str, recipe: Any, key: str, written: str) -> None:
    """YAML 1.1 takes no for False; a strategy of that name is the word."""
    assert getattr(parse(script, *recipe(f"{key}: {written}\n"))[1], key).value == "no"


@pytest.mark.parametrize(
    ("written", "value"), [("no", False), ("yes", True), ("true", True), ("False", False), ("1", True), ('"0"', False)]
)
def test_booleans_are_booleans_where_one_is_asked_for(recipe: Any, written: str, value: bool) -> None:
    """Any of YAML's and argparse's words for it."""
    settings, training, _ = parse("run_ner.py", *recipe(f"check_only: {written}\nuse_cpu: {written}\n"))
    assert settings.check_only is value
    assert training.use_cpu is value


@pytest.mark.parametrize(
    ("written", "labels"),
    [
        ("labels: [bad, so-so, good]", ["bad", "so-so", "good"]),
        ("labels:\n- bad\n- 'no'\n- good", ["bad", "no", "good"]),
        ("labels: [no, 1, 5e-5, null, true, ~, -1]", ["no", "1", "5e-5", "null", "true", "~", "-1"]),
        ("labels: [strongly bad, 'a: b', \"#c\"]", ["strongly bad", "a: b", "#c"]),
        ("labels: alone", ["alone"]),
        ("labels: [-, +]", ["-", "+"]),
    ],
)
def test_lists_keep_their_items_as_written(recipe: Any, written: str, labels: list[str]) -> None:
    """Items are texts with their spaces, whatever YAML or argparse would take them for."""
    assert parse("run_sentiment.py", *recipe(written))[0].labels == labels


def test_list_items_that_look_like_flags_are_kept_or_refused_by_name(recipe: Any) -> None:
    """Shades written -- to ++ are labels; if argparse cannot take them, the message says which recipe and item."""
    argv = recipe("labels: [--, -, o, +, ++]")
    try:
        assert parse("run_sentiment.py", *argv)[0].labels == ["--", "-", "o", "+", "++"]
    except Refusal as refused:
        if "given.yaml" not in str(refused) or "labels" not in str(refused):
            raise


def test_mappings_become_what_transformers_reads(recipe: Any) -> None:
    """Options of a scheduler are written in YAML's own way."""
    training = parse("run_ner.py", *recipe("lr_scheduler_type: cosine\nlr_scheduler_kwargs: {num_cycles: 2}\n"))[1]
    assert training.lr_scheduler_kwargs == {"num_cycles": 2}


def test_numbers_in_a_mapping_are_numbers(recipe: Any, tmp_path: Path) -> None:
    """No argparse looks into it: what is not in quotes is what JSON takes it for, also in the recipe as resolved."""
    options = "activation_checkpointing_kwargs: {x: 1e-6, a: -1, b: true, c: yes, d: '1e-3'}"
    _, training, resolved = parse("run_ner.py", *recipe(f"{options}\n"))
    asked = {"x": 1e-6, "a": -1, "b": True, "c": "yes", "d": "1e-3"}
    assert training.activation_checkpointing_kwargs == asked
    (tmp_path / "again.yaml").write_text(recipe_text(resolved, "run_ner.py", tmp_path), encoding="utf-8")
    assert parse("run_ner.py", "--recipe", str(tmp_path / "again.yaml"))[1].activation_checkpointing_kwargs == asked


# --- The last word wins -----------------------------------------------------------------------------------------------


@each_script
@pytest.mark.parametrize("spelling", ["--learning_rate 1e-3", "--learning_rate=1e-3", "--learning-rate 1e-3"])
@pytest.mark.parametrize("first", [True, False])
def test_typed_flags_win_wherever_they_stand(script: str, recipe: Any, spelling: str, first: bool) -> None:
    """A flag before or behind --recipe changes that one value and leaves the others."""
    saved = recipe("learning_rate: 5e-5\nseed: 7\n")
    training = parse(script, *([*spelling.split(), *saved] if first else [*saved, *spelling.split()]))[1]
    assert (training.learning_rate, training.seed) == (1e-3, 7)


def test_a_typed_list_takes_the_place_of_the_recipes(recipe: Any) -> None:
    """It is not added to it."""
    settings = parse("run_sentiment.py", *recipe("labels: [a, b, c]\ntrain_file: x.csv\n"), "--labels", "d", "e")[0]
    assert (settings.labels, settings.train_file) == (["d", "e"], ["x.csv"])


def test_the_recipe_may_be_given_with_an_equals_sign(recipe: Any) -> None:
    """As any other flag."""
    assert parse("run_ner.py", "=".join(recipe("seed: 7")))[1].seed == 7


def test_the_last_of_two_recipes_wins(tmp_path: Path) -> None:
    """As with any other flag that is given twice; it is not the first that is read in silence."""
    for seed in (1, 2):
        (tmp_path / f"{seed}.yaml").write_text(f"seed: {seed}\n", encoding="utf-8")
    argv = ["--recipe", str(tmp_path / "1.yaml"), "--recipe", str(tmp_path / "2.yaml")]
    assert parse("run_ner.py", *argv)[1].seed == 2


# --- Refusals ---------------------------------------------------------------------------------------------------------


@each_script
@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [("learning_rat", "learning_rate"), ("train_files", "train_file"), ("maxlength", "max_length"), ("qqq", None)],
)
def test_unknown_names_are_refused_with_the_nearest(script: str, recipe: Any, wrong: str, nearest: str | None) -> None:
    """A key of a recipe and a typed flag alike."""
    for message in (
        refusal(script, *recipe(f"seed: 1\n{wrong}: 1\n")),
        refusal(script, *recipe("seed: 1\n"), f"--{wrong}", "1"),
        refusal(script, *recipe("seed: 1\n"), f"--{wrong}=1"),
    ):
        assert wrong in message
        assert (f"did you mean {nearest}?" in message) if nearest else ("did you mean" not in message)
    assert "given.yaml" in refusal(script, *recipe(f"{wrong}: 1\n"))


@pytest.mark.parametrize("key", ["recipe", "help", "help_all"])
def test_keys_that_make_no_sense_in_a_recipe_are_refused(recipe: Any, key: str) -> None:
    """The message does not ask whether the very same key was meant."""
    message = refusal("run_ner.py", *recipe(f"{key}: x\n"))
    assert f"key {key}" in message
    assert f"did you mean {key}?" not in message


@each_script
@pytest.mark.parametrize("flag", ["--learning", "--train", "--output", "--max_len", "--check", "--see"])
def test_abbreviations_are_refused(script: str, recipe: Any, flag: str) -> None:
    """Half a flag is none: a flag that is added later must not change what a saved command means."""
    assert flag in refusal(script, *recipe("seed: 1\n"), flag, "1")


@pytest.mark.parametrize("written", ["seed:", "seed: ''", "seed: []", "train_file: []", "labels:\n"])
def test_keys_without_value_are_refused(recipe: Any, written: str) -> None:
    """The message names the key and says to leave it out."""
    message = refusal("run_sentiment.py", *recipe(written))
    assert f"key {written.split(':')[0]} has no value" in message
    assert "leave the line out" in message


@pytest.mark.parametrize("typed", [True, False], ids=["typed", "recipe"])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", "many"),
        ("seed", "1.5"),
        ("learning_rate", "fast"),
        ("max_length", "12.5"),
        ("check_only", "maybe"),
        ("precision", "fp8"),
        ("eval_strategy", "never"),
        ("loss", "hinge"),
        ("lr_scheduler_type", "straight"),
    ],
)
def test_values_of_a_wrong_type_are_refused(recipe: Any, key: str, value: str, typed: bool) -> None:
    """The message names the value, and the flag but where transformers' own check speaks."""
    argv = [*recipe("seed: 1"), f"--{key}", value] if typed else recipe(f"{key}: {value}\n")
    message = refusal("run_sentiment.py", *argv)
    assert value in message
    assert key in message or key == "eval_strategy"


@pytest.mark.parametrize(
    ("content", "needle"),
    [
        (None, "YAML file"),
        ("train_file: [a\nseed: 1\n", "not YAML"),
        ("seed: 1\n\tlearning_rate: 1\n", "not YAML"),
        ("seed: 1\nmax_steps: 2\nseed: 2\n", "line 3, column 1: key seed stands there twice"),
        (b"train_file: caf\xe9.csv\n", "not YAML"),
        ("- seed\n- 1\n", "list"),
        ("seed\n", "flag: value"),
        ("", "flag: value"),
        ("? [a]\n: b\n", "not YAML"),
        ("labels: [{a: b}]\n", "labels"),
        ("train_file: [[a.csv, b.csv]]\n", "train_file"),
    ],
)
def test_recipes_that_are_none_are_refused(tmp_path: Path, recipe: Any, content: Any, needle: str) -> None:
    """Missing, not YAML, not UTF-8, a list, a word, empty, lists within lists: the message names the file."""
    argv = ["--recipe", str(tmp_path / "given.yaml")] if content is None else recipe(content)
    message = refusal("run_sentiment.py", *argv)
    assert "given.yaml" in message
    assert needle in message


@pytest.mark.parametrize("name", ["mask_probability", "short_pair_probability", "random_next_probability"])
@pytest.mark.parametrize("value", ["-0.1", "1.5", "nan"])
def test_shares_outside_0_and_1_are_refused(recipe: Any, name: str, value: str) -> None:
    """The message names flag and value."""
    message = refusal("run_pretraining.py", *recipe(f"{name}: {value}\n"))
    assert name in message
    assert value in message


# --- The resolved recipe ----------------------------------------------------------------------------------------------

ODD = (
    r"""a no yes null ~ true 1 5e-5 0x1 1:30 a:&b #c [f] {g ' " &h *i !j %k @l `m | > p: = , très 2001-01-01""".split()
)
WORDS = st.sampled_from([*ODD, "a: b", "d #e", "? n", ": o", "- s", "\u2028", "q\nr"])
TRAINING_FLAGS = {
    "output_dir": st.sampled_from(["out", "a b", "no"]),
    "learning_rate": st.sampled_from(["5e-5", "2e-5", "1e-3"]) | st.floats(1e-9, 1).map(repr),
    "weight_decay": st.sampled_from(["0", "0.01", "1e-4"]),
    "warmup_steps": st.sampled_from(["0", "0.1", "100"]),
    "num_train_epochs": st.sampled_from(["3", "4.0", "0.5"]),
    "max_steps": st.sampled_from(["-1", "10"]),
    "per_device_train_batch_size": st.sampled_from(["8", "16", "32"]),
    "eval_strategy": st.sampled_from(["no", "epoch", "steps"]),
    "save_strategy": st.sampled_from(["no", "epoch", "steps"]),
    "save_total_limit": st.sampled_from(["1", "2", "5"]),
    "logging_steps": st.sampled_from(["500", "10", "0.25"]),
    "lr_scheduler_type": st.sampled_from(["linear", "cosine"]),
    "lr_scheduler_kwargs": st.sampled_from(['{"last_epoch": -1}', "{}"]),
    "adam_epsilon": st.sampled_from(["1e-8", "1e-6"]),
    "seed": st.sampled_from(["42", "0", "7"]),
    "use_cpu": st.sampled_from(["true", "false"]),
    "precision": st.sampled_from(["auto", "fp32"]),
    "head_learning_rate": st.sampled_from(["5e-5", "1e-3"]),
    "logging_nan_inf_filter": st.sampled_from(["true", "false"]),
    "skip_memory_metrics": st.sampled_from(["true", "false"]),
    "run_name": WORDS,
}
COMMON_FLAGS = {
    "checkpoint": WORDS,
    "train_file": st.lists(WORDS, min_size=1, max_size=3),
    "validation_file": st.lists(WORDS, min_size=1, max_size=2),
    "max_length": st.sampled_from(["128", "64"]),
    "max_train_samples": st.sampled_from(["10"]),
}
STAGE_TWO_FLAGS = {
    "freeze_encoder": st.sampled_from(["true", "false"]),
}
OWN_FLAGS = {
    "run_pretraining.py": {
        "mask_probability": st.sampled_from(["0.15", "0", "1", "0.3"]),
        "text_column": WORDS,
        "keep_at": st.sampled_from([["10"], ["2.5", "30", "99"]]),
    },
    "run_sentiment.py": {"labels": st.lists(WORDS, min_size=1, max_size=5), "label_column": WORDS} | STAGE_TWO_FLAGS,
    "run_ner.py": {"tokens_column": WORDS, "tags_column": WORDS} | STAGE_TWO_FLAGS,
}


@cache
def command_lines(script: str) -> st.SearchStrategy[dict[str, Any]]:
    """Any choice of flags with values, stock defaults among them."""
    return st.fixed_dictionaries({}, optional=TRAINING_FLAGS | COMMON_FLAGS | OWN_FLAGS[script])


def check_round_trip(script: str, flags: dict[str, Any], folder: Path) -> None:
    """A run's recipe.yaml gives the very settings of the command that it was resolved from."""
    argv = []
    for name, value in flags.items():
        argv += [f"--{name}", *value] if isinstance(value, list) else [f"--{name}={value}"]
    before, training_before, resolved = parse(script, "--train_file", "x", *argv)
    (folder / "recipe.yaml").write_text(recipe_text(resolved, script, folder), encoding="utf-8")
    after, training_after, resolved_again = parse(script, "--recipe", str(folder / "recipe.yaml"))
    assert after == before
    changed = {
        field.name: (getattr(training_before, field.name), getattr(training_after, field.name))
        for field in fields(training_before)
        if getattr(training_before, field.name) != getattr(training_after, field.name)
    }
    assert changed == {}
    assert changed_settings(read_recipe(str(folder / "recipe.yaml")), resolved_again) == ""


@each_script
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_resolved_recipe_gives_the_same_settings(tmp_path: Path, script: str, data: st.DataObject) -> None:
    """Whatever was typed, running the written recipe is running the same thing."""
    check_round_trip(script, data.draw(command_lines(script)), tmp_path)


@each_script
@pytest.mark.parametrize(
    ("name", "stock"),
    [
        ("learning_rate", "5e-5"),
        ("weight_decay", "0.0"),
        ("warmup_steps", "0"),
        ("num_train_epochs", "3"),
        ("per_device_train_batch_size", "8"),
        ("per_device_eval_batch_size", "8"),
        ("eval_strategy", "no"),
        ("save_strategy", "steps"),
        ("logging_steps", "500"),
        ("adam_epsilon", "1e-8"),
        ("logging_nan_inf_filter", "true"),
    ],
)
def test_a_typed_stock_default_stays_in_the_resolved_recipe(tmp_path: Path, script: str, name: str, stock: str) -> None:
    """A value that is transformers' default but not the script's is no default here, and is written down."""
    check_round_trip(script, {name: stock}, tmp_path)


@pytest.mark.parametrize("script", ["run_sentiment.py", "run_ner.py"])
def test_a_sample_stays_in_the_resolved_recipe(tmp_path: Path, script: str) -> None:
    """Share, seed and least steps are part of what a run is."""
    check_round_trip(script, {"train_fraction": "0.1", "sample_seed": "0", "min_steps": "200"}, tmp_path)
    text = (tmp_path / "recipe.yaml").read_text(encoding="utf-8")
    assert all(f"\n{line}\n" in text for line in ("train_fraction: 0.1", "sample_seed: 0", "min_steps: 200"))


def test_the_resolved_recipe_says_how_to_run_it_again(tmp_path: Path) -> None:
    """Its first line is the command, its values are those typed."""
    text = recipe_text(parse("run_ner.py", "--test_file", "x", "--seed", "7")[2], "run_ner.py", tmp_path)
    assert f"python run_ner.py --recipe {tmp_path / 'recipe.yaml'}" in text.splitlines()[0]
    assert yaml.safe_load(text)["seed"] == 7


# --- The quickstart, and every recipe that is shipped -----------------------------------------------------------------


@each_script
@pytest.mark.parametrize("argv", [[], ["--seed", "7"]], ids=["bare", "other flag"])
def test_without_data_the_quickstart_recipe_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], script: str, argv: list[str]
) -> None:
    """It is the script's own, typed flags still win, and the script says so."""
    monkeypatch.chdir(REPOSITORY)
    quickstart = SCRIPTS[script][0].QUICKSTART
    settings, training, _ = parse(script, *argv)
    assert settings.train_file == [read_recipe(quickstart)["train_file"]]
    assert training.seed == int(argv[1] if argv else read_recipe(quickstart)["seed"])
    assert quickstart in capsys.readouterr().out


@each_script
@pytest.mark.parametrize("flag", ["--train_file x.csv", "--validation_file=x.csv", "--train-file x.csv"])
def test_with_data_no_quickstart_recipe_runs(capsys: pytest.CaptureFixture[str], script: str, flag: str) -> None:
    """Nothing of the quickstart is mixed with the user's own data."""
    settings, _, _ = parse(script, *flag.split())
    assert settings.checkpoint is None
    assert "quickstart" not in capsys.readouterr().out


RECIPES = sorted(
    str(path.relative_to(REPOSITORY))
    for path in (REPOSITORY / "recipes").rglob("*.yaml")
    if REPOSITORY / "recipes" / "accelerate" not in path.parents
)


def paths_in(value: Any) -> list[str]:
    """The paths under recipes/ that a recipe's value names."""
    if isinstance(value, list | dict):
        return [path for item in (value.values() if isinstance(value, dict) else value) for path in paths_in(item)]
    return [value] if str(value).startswith("recipes/") else []


@pytest.mark.parametrize("path", RECIPES)
def test_every_shipped_recipe_parses_and_its_files_are_there(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """By its name it belongs to one script, which takes all of its keys."""
    monkeypatch.chdir(REPOSITORY)
    scripts = [script for script in (*SCRIPTS, COMPARISON) if script[4:-3] in Path(path).stem]
    assert len(scripts) == 1, f"{path}: name it after its script"
    settings, _, resolved = parse(scripts[0], "--recipe", path, *anywhere(scripts[0]))
    assert any(getattr(settings, flag, None) for flag in ("train_file", "test_file", "stage_two"))
    # what prepare_data.py writes is not there in a fresh clone, but sample/ has a file of that name, in that form
    found = [named for named in paths_in(resolved) if Path(named).exists()]
    found += [named for named in paths_in(resolved) if Path(named.replace("/data/", "/sample/")).exists()]
    assert set(paths_in(resolved)) - set(found) == set()


def test_the_quickstart_recipes_are_among_them() -> None:
    """The search above found at least those that the scripts name."""
    assert {module.QUICKSTART for module, _ in SCRIPTS.values()} <= set(RECIPES)


# --- Every command that the documents show ----------------------------------------------------------------------------

CONTROL = {"&&", "||", ";", "|", "&", ">", "2>", ">>", "do", "done", "then", "fi"}


def fenced_lines(text: str) -> list[str]:
    """The lines of a Markdown text's sh and bash blocks."""
    blocks = re.findall(r"^ *```(?:sh|bash|shell|console)\n(.*?)^ *```", text, flags=re.DOTALL | re.MULTILINE)
    return "".join(blocks).splitlines()


def commands(lines: list[str]) -> list[list[str]]:
    """Shell lines → the words of each simple command in them; comments and $ prompts are left out."""
    found = []
    for line in re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines():
        line = re.sub(r"\$\{?\w+\}?", "1", line.strip().removeprefix("$ "))
        lexer = shlex.shlex(line, posix=True, punctuation_chars="();<>|&")
        lexer.commenters, lexer.whitespace_split = "#", True
        command: list[str] = []
        for word in [*lexer, ";"]:
            if word in CONTROL:
                found += [command] if command else []
                command = []
            elif command or not re.fullmatch(r"\w+=.*", word):  # SEED=1 before a command is no part of it
                command.append(word)
    return found


def docstring_commands(docstring: str) -> list[list[str]]:
    """The commands among a docstring's indented lines."""
    return commands([line for line in docstring.splitlines() if line.startswith("    ")])


def check_command(words: list[str]) -> bool:
    """Fail if a command is wrong; returns whether it is one that can be checked."""
    program = Path(words[0]).name
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
        named = [word for word in words[1:] if "=" not in word and not word.startswith("-")]
        assert set(named) <= set(targets), f"no such target: {' '.join(words)}"
        return True
    if program == "accelerate" and words[1:2] == ["launch"]:
        launched = launch_command_parser().parse_args(words[2:])
        if launched.config_file and launched.config_file.startswith("recipes/"):
            assert Path(launched.config_file).is_file(), f"no such file: {' '.join(words)}"
            load_config_from_file(launched.config_file)
        words = ["python", launched.training_script, *launched.training_script_args]
    elif program == "torchrun":
        launched = torchrun_parser().parse_args(words[1:])
        words = ["python", launched.training_script, *launched.training_script_args]
    elif program == "sbatch":
        start = next(i for i, word in enumerate(words) if word.endswith(".sh"))
        assert (REPOSITORY / words[start]).is_file(), f"no such file: {' '.join(words)}"
        words = ["python", *words[start + 1 :]]
    elif not re.fullmatch(r"python3?", program):
        return False
    if words[1] == "-m" and words[2].startswith("two_stage."):
        assert find_spec(words[2]), f"no such module: {' '.join(words)}"
        assert words[3:], "a report is of folders"
        return True
    if len(words) < 2 or not words[1].endswith(".py"):
        return False
    assert (REPOSITORY / words[1]).is_file(), f"no such script: {' '.join(words)}"
    if words[1] == "demo.py":
        demo.parse_demo(words[2:])
        return True
    if words[1] not in (*SCRIPTS, COMPARISON, EXPORT):
        return False
    argv = words[2:]
    for i, word in enumerate(argv):
        if word == "--recipe" and argv[i + 1].startswith("outputs/"):  # written by a run
            argv[i : i + 2] = ["--train_file", "x"]
        elif word == "--recipe":  # `make recipe NAME=mydomain` writes recipes of these names
            argv[i + 1] = argv[i + 1].replace("recipes/mydomain/", "recipes/finance/")
    try:
        offline = ["--push_to_hub", "false"] if words[1] in SCRIPTS else []  # behind the command, in which it may stand
        parse(words[1], *[word for word in argv if word != "--debug"], *anywhere(words[1]), *offline)
    except SystemExit as done:  # --help ends so
        return not done.code
    return True


@pytest.mark.parametrize("script", [*SCRIPTS, COMPARISON, EXPORT])
def test_commands_of_the_docstrings_parse(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Every command in a script's docstring is one that the script takes, and there are some."""
    monkeypatch.chdir(REPOSITORY)
    others = {COMPARISON: run_comparison, EXPORT: export_onnx}
    module = others[script] if script in others else SCRIPTS[script][0]
    found = docstring_commands(module.__doc__ or "")
    assert sum(check_command(words) for words in found) >= 3
    assert all(check_command(words) for words in found)


def test_commands_of_the_demos_docstring_parse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them, and there are some."""
    monkeypatch.chdir(REPOSITORY)
    assert [check_command(words) for words in docstring_commands(demo.__doc__ or "")] == [True] * 3


def test_command_of_the_reports_docstring_parses() -> None:
    """It is told within a sentence, in backticks."""
    found = re.findall(r"`(python [^`]*)`", report.__doc__ or "")
    assert [check_command(words) for words in commands(found)] == [True]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_of_the_documents_parse(monkeypatch: pytest.MonkeyPatch, document: str) -> None:
    """Every command in a fenced block names scripts, flags, recipes and make targets that there are."""
    monkeypatch.chdir(REPOSITORY)
    lines = fenced_lines((REPOSITORY / document).read_text(encoding="utf-8"))
    for words in commands(lines):
        try:
            check_command(words)
        except (Refusal, SystemExit) as error:
            pytest.fail(f"{document}: {' '.join(words)}: {error}")


def test_commands_are_found_as_a_shell_reads_them() -> None:
    """Continued lines, comments, prompts, variables and several commands a line."""
    text = (
        "Words\n\n```sh\n# make nothing\n$ A=1 python run_ner.py \\\n    --seed $S  # why\nmake a; make b && c\n```\n"
    )
    found = commands(fenced_lines(text + "\n```python\nmake = 1\n```\n"))
    assert found == [["python", "run_ner.py", "--seed", "1"], ["make", "a"], ["make", "b"], ["c"]]


@pytest.mark.parametrize(
    "command",
    [
        "make nothing",
        "python run_ner.py --train_file x --learning_rat 1",
        "python run_ner.py --train_file x --seed many",
        "python run_sentiment.py --recipe recipes/none.yaml",
        "python none.py",
        "accelerate launch run_ner.py --train_file x --bins 1",
        "accelerate launch --config_file recipes/none.yaml run_ner.py --train_file x",
        "accelerate launch --machine_rnk 1 run_ner.py --train_file x",
        "torchrun --nproc 2 run_ner.py --train_file x --bins 1",
        "torchrun --processes 2 run_ner.py --train_file x",
        "sbatch recipes/none.sh run_ner.py --train_file x",
        "sbatch --nodes 2 recipes/accelerate/slurm.sh run_ner.py --train_file x --bins 1",
        "python -m two_stage.results.report",
        "python demo.py outputs/quickstart/ner --prot 8001",
        "python export_onnx.py --checkpoint x --int9",
    ],
)
def test_wrong_commands_are_noticed(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """What the tests of the documents look for is found where it stands."""
    monkeypatch.chdir(REPOSITORY)
    with pytest.raises((AssertionError, Refusal, SystemExit)):
        check_command(shlex.split(command))


@pytest.mark.parametrize("bins", [["-1e-05", "0", "1.5E+3"], ["-.5", "-0.25"], ["-3.", "2"]])
def test_negative_numbers_are_no_flags(bins: list[str], tmp_path: Path) -> None:
    """Typed, or in a recipe as the script itself writes small numbers."""
    dataclasses = run_sentiment.Settings, run_sentiment.SentimentArguments
    flags = ["--train_file", "x.csv", "--score_column", "score", "--bins", *bins]
    settings, _, recipe = parse_flags(flags, *dataclasses, "", "")
    assert settings.bins == [float(edge) for edge in bins]
    (tmp_path / "again.yaml").write_text(recipe_text(recipe, "run_sentiment.py", tmp_path), encoding="utf-8")
    assert parse_flags(["--recipe", str(tmp_path / "again.yaml")], *dataclasses, "", "")[0] == settings


def test_help_shows_defaults_as_they_are_typed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lists without Python's brackets, and what may be chosen."""
    monkeypatch.setattr(sys, "argv", [COMPARISON, "--help"])
    with pytest.raises(SystemExit):
        help_if_asked("Did it?", ComparisonSettings)
    told = " ".join(capsys.readouterr().out.split())
    assert "a curve of them (1 5 10 25 100)" in told
    assert "[base, stage_one, task_adaptive, both, heads_as_is, scratch] (base stage_one)" in told


def test_imports_are_not_looked_through_for_garbage(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the flags to the script's main nothing is collected; in main it is, and what was there before is left."""
    seen = []
    monkeypatch.setattr(sys, "argv", ["run_sentiment.py"])
    try:
        help_if_asked("Stage two.", run_sentiment.Settings)
        seen.append(gc.isenabled())
        with pytest.raises(SystemExit):
            run_script(lambda _: seen.append(gc.isenabled() and gc.get_freeze_count() > 100_000))
    finally:
        gc.enable()
    assert seen == [False, True]
