"""Files made to do harm execute nothing, secrets are written nowhere, texts stay texts, and a run stays in its folder.

Every payload leaves a marker where it runs, and `test_the_payloads_are_live` proves that each would.
"""

import ast
import builtins
import csv
import io
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import BertForTokenClassification
from transformers.models.auto.tokenization_auto import AutoTokenizer

import run_comparison
import run_ner
import run_pretraining
import run_sentiment
from tests.conftest import REPOSITORY
from two_stage.checkpointing.checkpoints import find_checkpoint, seal
from two_stage.checkpointing.handoff import load_model, open_checkpoint
from two_stage.checkpointing.runs import changed_settings
from two_stage.command_line.exits import Refusal
from two_stage.command_line.recipe import RecipeLoader, read_recipe, recipe_text
from two_stage.command_line.redaction import redacted, redacted_values
from two_stage.comparison.plan import named_stages
from two_stage.comparison.settings import Settings
from two_stage.comparison.side_by_side import PlannedRun, SideBySide
from two_stage.data.data_sets import dataset_splits, open_split
from two_stage.results.report import Card, Findings, markdown_cell, write_model_card
from two_stage.results.sentiment_results import safe_cell

MAINS = {
    "run_pretraining.py": run_pretraining.main,
    "run_sentiment.py": run_sentiment.main,
    "run_ner.py": run_ner.main,
    "run_comparison.py": run_comparison.main,
}

# --- Payloads ---------------------------------------------------------------------------------------------------------


class Touch:
    """Unpickled without restraint, makes an empty file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.touch, (self.marker,)


class Shell(Touch):
    """The same by a shell."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:  # type: ignore[override]
        return os.system, (f"touch '{self.marker}'",)


def _write_pickle(payload: Any, path: Path) -> None:
    """A pickle without torch's archive around it."""
    path.write_bytes(pickle.dumps(payload))


PAYLOADS = {"call": Touch, "shell": Shell}
FORMS: dict[str, Callable[[Any, Path], None]] = {
    "zip": lambda payload, path: torch.save({"state": payload}, path),
    "bare": _write_pickle,
}


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """Where a payload leaves its mark; at the test's end it must not be there."""
    path = tmp_path / "executed"
    yield path
    assert not path.exists(), "a payload ran"


@pytest.fixture(autouse=True)
def nobody_at_the_terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A question on the terminal fails the test, whoever catches the error: nobody may be there to answer it."""
    asked: list[str] = []

    def ask(prompt: str = "") -> str:
        asked.append(prompt)
        raise EOFError

    monkeypatch.setattr(builtins, "input", ask)
    yield
    assert asked == []


def refused(call: Callable[[], object]) -> str:
    """The one line with which a call is refused."""
    with pytest.raises(Refusal) as refusal:
        call()
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", PAYLOADS)
def test_the_payloads_are_live(kind: str, form: str, tmp_path: Path) -> None:
    """Read without restraint, each leaves its mark: a test below that finds none has something to tell."""
    FORMS[form](PAYLOADS[kind](tmp_path / "executed"), tmp_path / "file")
    with suppress(RuntimeError):  # a bare pickle runs, and only then is missed that it is none of torch's
        torch.load(tmp_path / "file", weights_only=False)
    assert (tmp_path / "executed").exists()


# --- A run's own checkpoints ------------------------------------------------------------------------------------------

RESUMED = ("optimizer.pt", "scheduler.pt", "rng_state.pth")


def run_call(tiny_folder: Path, data_folder: Path, output_dir: Path) -> list[str]:
    """A run of two steps, a checkpoint behind each."""
    call = ["--checkpoint", str(tiny_folder), "--train_file", str(data_folder / "texts.csv"), "--max_steps", "2"]
    call += ["--labels", "bad", "so-so", "good", "--use_cpu", "--max_length", "16", "--save_strategy", "steps"]
    call += ["--save_steps", "1", "--save_total_limit", "2", "--per_device_train_batch_size", "4"]
    return [*call, "--disable_tqdm", "true", "--output_dir", str(output_dir)]


@pytest.fixture(scope="module")
def made_run(tiny_folder: Path, data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that stopped behind its first step."""
    folder = tmp_path_factory.mktemp("run") / "run"
    run_sentiment.main(run_call(tiny_folder, data_folder, folder))
    shutil.rmtree(folder / "checkpoint-2")
    for name in ("all_results.json", "model.safetensors"):
        (folder / name).unlink()
    return folder


@pytest.fixture
def cut_run(made_run: Path) -> Iterator[Path]:
    """The same to be spoiled; it stays where it is, as its own recipe names the place."""
    kept = made_run.with_name("kept")
    shutil.copytree(made_run, kept)
    yield made_run
    shutil.rmtree(made_run)
    kept.rename(made_run)


@pytest.mark.parametrize("file", RESUMED)
def test_a_checkpoint_that_somebody_changed_is_set_aside_unread(
    file: str, cut_run: Path, marker: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The manifest's hash is not that of the file, so no unpickler sees it."""
    FORMS["zip"](Touch(marker), cut_run / "checkpoint-1" / file)
    assert find_checkpoint(cut_run) is None
    assert (cut_run / "broken-checkpoint-1").is_dir()
    assert f"{file} is not the file that was written" in capsys.readouterr().out


def test_a_run_with_a_changed_checkpoint_begins_anew(
    cut_run: Path, marker: Path, tiny_folder: Path, data_folder: Path
) -> None:
    """The whole script: it sets the checkpoint aside, does its steps, and nothing ran."""
    FORMS["bare"](Shell(marker), cut_run / "checkpoint-1" / "optimizer.pt")
    run_sentiment.main(run_call(tiny_folder, data_folder, cut_run))
    assert (cut_run / "all_results.json").is_file()
    assert (cut_run / "broken-checkpoint-1").is_dir()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("file", RESUMED)
def test_a_checkpoint_that_was_sealed_anew_runs_nothing(
    file: str, form: str, cut_run: Path, marker: Path, tiny_folder: Path, data_folder: Path
) -> None:
    """Whoever can write the folder can write its manifest: torch's restricted unpickler is reached, and refuses."""
    checkpoint = cut_run / "checkpoint-1"
    FORMS[form](Touch(marker), checkpoint / file)
    (checkpoint / "manifest.json").unlink()
    seal(checkpoint)
    loaded = []
    with pytest.MonkeyPatch.context() as patch:
        load = torch.load

        def noted(path: Any, *args: Any, **kwargs: Any) -> Any:
            loaded.append(Path(path).name)
            return load(path, *args, **kwargs)

        patch.setattr(torch, "load", noted)
        with pytest.raises(Refusal, match="a pickle in it holds more than tensors"):
            run_sentiment.main(run_call(tiny_folder, data_folder, cut_run))
    assert loaded[-1] == file  # it came so far, and no further
    assert not (cut_run / "all_results.json").exists()


def test_pickled_weights_are_no_checkpoints(cut_run: Path, marker: Path) -> None:
    """Sealed anew in place of the safetensors, they are set aside unread."""
    checkpoint = cut_run / "checkpoint-1"
    (checkpoint / "model.safetensors").unlink()
    FORMS["zip"](Touch(marker), checkpoint / "pytorch_model.bin")
    (checkpoint / "manifest.json").unlink()
    seal(checkpoint)
    assert find_checkpoint(cut_run) is None
    assert (cut_run / "broken-checkpoint-1").is_dir()


def test_arguments_that_are_a_pickle_are_not_read(
    cut_run: Path, marker: Path, tiny_folder: Path, data_folder: Path
) -> None:
    """training_args.bin, which Trainer would write and this project does not, may lie there: nobody looks at it."""
    FORMS["zip"](Touch(marker), cut_run / "checkpoint-1" / "training_args.bin")
    FORMS["zip"](Touch(marker), cut_run / "training_args.bin")
    (cut_run / "checkpoint-1" / "manifest.json").unlink()
    seal(cut_run / "checkpoint-1")
    run_sentiment.main(run_call(tiny_folder, data_folder, cut_run))
    assert (cut_run / "all_results.json").is_file()


# --- Checkpoints to start from ----------------------------------------------------------------------------------------


@pytest.fixture
def checkpoint_copy(tiny_folder: Path, tmp_path: Path) -> Path:
    """A checkpoint that a test may spoil."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "checkpoint"))


def load(folder: Path) -> BertForTokenClassification:
    """The model that stage two makes of a checkpoint."""
    return load_model(BertForTokenClassification, open_checkpoint(str(folder)), new=("classifier.",))


def change_json(path: Path, **changes: Any) -> None:
    """Write a file of JSON again with some fields replaced."""
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


@pytest.mark.parametrize("form", FORMS)
def test_pickled_weights_are_not_read(form: str, checkpoint_copy: Path, marker: Path) -> None:
    """Beside safetensors nobody looks at them; alone they are refused."""
    expected = load(checkpoint_copy).state_dict()
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt"):
        FORMS[form](Touch(marker), checkpoint_copy / name)
    found = load(checkpoint_copy).state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected if name.startswith("bert."))
    (checkpoint_copy / "model.safetensors").unlink()
    assert "pickle can run code" in refused(lambda: open_checkpoint(str(checkpoint_copy)))


CODE = {"AutoConfig": "evil.Evil", "AutoTokenizer": ["evil.Evil", "evil.Evil"], "AutoModel": "evil.Evil"}


@pytest.mark.parametrize(
    ("config", "tokenizer"),
    [
        ({"auto_map": CODE}, {}),
        ({}, {"auto_map": CODE}),
        ({"auto_map": CODE}, {"auto_map": CODE, "tokenizer_class": "EvilTokenizer"}),
        ({"auto_map": CODE}, {"auto_map": ["evil.Evil", "evil.Evil"], "tokenizer_class": "EvilTokenizer"}),
        # of a type that transformers knows no tokenizer of: here it would ask on the terminal
        ({"auto_map": CODE, "model_type": "bert_sentiment"}, {"auto_map": CODE, "tokenizer_class": "EvilTokenizer"}),
        ({"auto_map": {"AutoConfig": "evil/elsewhere--evil.Evil"}}, {"auto_map": {"AutoTokenizer": ["a--b.C", None]}}),
        ({"attn_implementation": "evil/kernel"}, {}),
        ({"_attn_implementation": "evil/kernel"}, {}),
        ({"custom_pipelines": {"evil": {"impl": "evil.Evil", "pt": ["AutoModel"]}}}, {}),
    ],
)
def test_code_beside_a_checkpoint_is_neither_run_nor_asked_about_nor_passed_on(
    config: dict[str, Any], tokenizer: dict[str, Any], checkpoint_copy: Path, marker: Path, tmp_path: Path
) -> None:
    """It is loaded as the plain BERT that it is, and what is saved of it names no code; or refused in one line."""
    code = f"from pathlib import Path\nPath({str(marker)!r}).touch()\nclass Evil:\n    pass\n"
    for name in ("evil.py", "tokenization_evil.py", "modeling_evil.py", "__init__.py"):
        (checkpoint_copy / name).write_text(code, encoding="utf-8")
    change_json(checkpoint_copy / "config.json", **config)
    change_json(checkpoint_copy / "tokenizer_config.json", **tokenizer)
    if config.get("model_type"):
        assert "needs code that lies beside it" in refused(lambda: open_checkpoint(str(checkpoint_copy)))
        return
    checkpoint = open_checkpoint(str(checkpoint_copy))
    load(checkpoint_copy).save_pretrained(tmp_path / "saved")
    checkpoint.tokenizer.save_pretrained(tmp_path / "saved")
    for path in (tmp_path / "saved").glob("*.json"):
        assert "evil" not in path.read_text(encoding="utf-8").lower().replace("eviltokenizer", ""), path.name


def test_the_question_would_come(checkpoint_copy: Path, marker: Path) -> None:
    """Transformers as it comes does ask about one of the folders above, so that the test above can fail."""
    (checkpoint_copy / "evil.py").write_text("class Evil:\n    pass\n", encoding="utf-8")
    change_json(checkpoint_copy / "config.json", model_type="bert_sentiment")
    change_json(checkpoint_copy / "tokenizer_config.json", auto_map=CODE, tokenizer_class="EvilTokenizer")
    asked: list[str] = []
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ValueError, match="trust_remote_code"):  # noqa: PT012

        def answer(prompt: str) -> str:
            asked.append(prompt)
            return "n"

        patch.setattr(builtins, "input", answer)
        AutoTokenizer.from_pretrained(checkpoint_copy)
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("file", "changes", "told"),
    [
        ("adapter_config.json", {"base_model_name_or_path": "evil/base", "peft_type": "LORA"}, "adapter"),
        ("config.json", {"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantized"),
        ("tokenizer_config.json", {"tokenizer_class": "RagTokenizer"}, "tokenizer"),
        ("lineage.json", {}, "lineage.json is not a lineage"),
    ],
)
def test_what_is_no_plain_checkpoint_is_refused(
    file: str, changes: dict[str, Any], told: str, checkpoint_copy: Path, marker: Path
) -> None:
    """An adapter, whose base would be fetched; quantized weights; a tokenizer that reads pickles; a broken lineage."""
    path = checkpoint_copy / file
    if file == "adapter_config.json":
        path.write_text(json.dumps(changes), encoding="utf-8")
        FORMS["zip"](Touch(marker), checkpoint_copy / "adapter_model.bin")
    elif file == "lineage.json":
        path.write_text("[]", encoding="utf-8")
    else:
        change_json(path, **changes)
        if changes.get("tokenizer_class"):
            change_json(checkpoint_copy / "config.json", **changes)
    assert told in refused(lambda: open_checkpoint(str(checkpoint_copy)))


# --- Recipes and data sets --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "train_file: !!python/object/apply:os.system [\"touch 'MARKER'\"]\n",
        "!!python/object/apply:os.system [\"touch 'MARKER'\"]\n",
        "? !!python/object/apply:os.system [\"touch 'MARKER'\"]\n: 1\n",
        "train_file: !!python/object/new:pathlib.Path [MARKER]\n",
        "seed: !!python/object/apply:builtins.eval [\"open('MARKER', 'w')\"]\n",
    ],
)
def test_a_recipe_builds_no_objects(text: str, marker: Path, tmp_path: Path) -> None:
    """Python's tags in YAML are read as the text behind them, and then something else is wrong."""
    path = tmp_path / "given.yaml"
    path.write_text(text.replace("MARKER", str(marker)), encoding="utf-8")
    refused(lambda: run_ner.main(["--recipe", str(path), "--checkpoint", str(tmp_path), "--check_only"]))


def test_the_recipes_payload_is_live(tmp_path: Path) -> None:
    """A loader that builds objects does run it."""
    yaml.load(f"!!python/object/apply:os.system [\"touch '{tmp_path / 'executed'}'\"]", Loader=yaml.UnsafeLoader)
    assert (tmp_path / "executed").exists()


def packed(files: dict[str, bytes]) -> bytes:
    """A tar of files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def array(payload: Any) -> bytes:
    """A file of numpy that holds a pickle."""
    buffer = io.BytesIO()
    np.save(buffer, np.array([payload], dtype=object), allow_pickle=True)
    return buffer.getvalue()


SCRIPT = "from pathlib import Path\nPath({!r}).touch()\n"
README = "---\nconfigs:\n- config_name: default\n  data_files: train.pkl\n---\n"
APPLY = "---\nconfigs: !!python/object/apply:os.system [\"touch '{}'\"]\n---\n"
DATA_SETS: dict[str, Callable[[Path], dict[str, bytes]]] = {
    "script alone": lambda marker: {"data.py": SCRIPT.format(str(marker)).encode()},
    "script beside texts": lambda marker: {"data.py": SCRIPT.format(str(marker)).encode(), "train.txt": b"a\n"},
    "pickle alone": lambda marker: {"train.pkl": pickle.dumps(Touch(marker))},
    "pickle that a README names": lambda marker: {
        "train.pkl": pickle.dumps(Touch(marker)),
        "README.md": README.encode(),
    },
    "pickle beside a table": lambda marker: {"train.pkl": pickle.dumps(Touch(marker)), "train.csv": b"text\na\n"},
    "pickle in a tar": lambda marker: {
        "train.tar": packed({f"0.{end}": pickle.dumps(Touch(marker)) for end in ("pth", "pkl", "pyd", "pickle")})
    },
    "array in a tar": lambda marker: {"train.tar": packed({"0.npy": array(Touch(marker))})},
    "object in a README": lambda marker: {"README.md": APPLY.format(marker).encode(), "train.csv": b"text\na\n"},
}


@pytest.mark.parametrize("name", DATA_SETS)
def test_a_data_set_runs_nothing(name: str, marker: Path, tmp_path: Path) -> None:
    """Scripts and pickles are refused in one line, or lie there unread beside a table."""
    folder = tmp_path / "data"
    folder.mkdir()
    for file, content in DATA_SETS[name](marker).items():
        (folder / file).write_bytes(content)
    if name == "pickle beside a table":
        assert list(open_split(str(folder), None, None, "train")) == [{"text": "a"}]
        return
    assert str(folder) in refused(lambda: dataset_splits(str(folder), None, None))
    told = refused(lambda: open_split(str(folder), None, None, "train"))
    assert told.startswith(f"data set {folder}: ")
    assert "weights_only" not in told


def test_a_script_runs_no_data_sets_script(
    marker: Path, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way from the flag, with a script called as the folder, which older versions ran."""
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    Path("data", "data.py").write_text(SCRIPT.format(str(marker)), encoding="utf-8")
    call = ["--checkpoint", str(tiny_folder), "--dataset", "data", "--output_dir", "run"]
    assert "scripts are no longer supported" in refused(lambda: run_sentiment.main(call))
    assert not Path("run").exists()


# --- What the code may not say ----------------------------------------------------------------------------------------

PICKLES = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
CALLS = {
    *("torch.load", "yaml.load_all", "yaml.unsafe_load", "yaml.unsafe_load_all", "yaml.full_load"),
    *("yaml.full_load_all", "eval", "exec", "compile", "__import__", "os.system", "os.popen", "subprocess.getoutput"),
    *("subprocess.getstatusoutput", "markupsafe.Markup", "importlib.import_module", "runpy.run_path"),
}
SAFE_LOADERS = {"RecipeLoader", "yaml.BaseLoader", "yaml.SafeLoader", "yaml.CSafeLoader", "yaml.CBaseLoader"}
NEVER: set[tuple[str, bool | None]] = {
    ("shell", True),
    ("trust_remote_code", True),
    ("weights_only", False),
    ("allow_pickle", True),
}
NEVER |= {("trust_remote_code", None), ("autoescape", False)}
AUTO = "transformers.AutoTokenizer.from_pretrained without trust_remote_code=False"
# file, what stands there → why it may
ALLOWED = {
    ("two_stage/comparison/report.py", "markupsafe.Markup"): "ElementTree made the pictures and escaped their texts",
    ("two_stage/data/corpus.py", "pickle"): "for the next line",
    (
        "two_stage/data/corpus.py",
        "pickle.loads of what was just pickled",
    ): "a copy of a data set in memory, from no file",
}


def dangers(source: str) -> list[str]:
    """What in a module could run what somebody else wrote, each by its full name."""
    tree = ast.parse(source)
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in PICKLES]
        elif isinstance(node, ast.ImportFrom):
            found += [str(node.module)] if str(node.module).split(".")[0] in PICKLES else []
        elif isinstance(node, ast.Call):
            found += _dangers_of_call(node, names)
    return found


def _dangers_of_call(node: ast.Call, names: dict[str, str]) -> list[str]:
    """What is wrong with one call."""

    def full_name(value: ast.expr) -> str:
        first, _, rest = ast.unparse(value).partition(".")
        return ".".join(filter(None, [names.get(first) or first, rest]))

    called = full_name(node.func)
    found = [called] if called in CALLS else []
    if called.split(".")[0] in PICKLES and called.split(".")[-1] in ("load", "loads", "Unpickler"):
        is_own = (
            len(node.args) == 1
            and isinstance(node.args[0], ast.Call)
            and full_name(node.args[0].func).endswith("dumps")
        )
        found.append(f"{called} of what was just pickled" if is_own else called)
    given: dict[str | None, ast.expr] = {keyword.arg: keyword.value for keyword in node.keywords}
    if called == "yaml.load":
        loader = node.args[1] if len(node.args) > 1 else given.get("Loader")
        found += [] if loader is not None and full_name(loader) in SAFE_LOADERS else ["yaml.load"]
    for name, value in given.items():
        is_never = isinstance(value, ast.Constant) and (name, value.value) in NEVER
        is_unknown = name == "trust_remote_code" and not isinstance(value, ast.Constant)
        found += [f"{name}={ast.unparse(value)}"] if is_never or is_unknown else []
    if re.fullmatch(r"(.*\.)?Auto\w+\.from_pretrained", called) and "trust_remote_code" not in given:
        found.append(f"{called} without trust_remote_code=False")
    if called.endswith("jinja2.Environment") and "autoescape" not in given:
        found.append("jinja2.Environment without autoescape")
    return found


PRODUCT = sorted(
    str(path.relative_to(REPOSITORY))
    for pattern in ("run_*.py", "two_stage/**/*.py", "recipes/**/*.py", "benchmarks/**/*.py")
    for path in REPOSITORY.glob(pattern)
)


def test_a_loader_of_our_own_builds_texts_alone() -> None:
    """It only refuses more than BaseLoader does."""
    assert issubclass(RecipeLoader, yaml.BaseLoader)
    assert RecipeLoader.yaml_constructors == yaml.BaseLoader.yaml_constructors == {}
    assert RecipeLoader.yaml_multi_constructors == {}


def test_the_code_runs_nothing_that_others_wrote() -> None:
    """No pickle, no eval, no shell, no remote code in any module, but for what is listed with its reason."""
    assert {"run_ner.py", "two_stage/checkpointing/handoff.py", "recipes/quickstart/prepare_data.py"} <= set(PRODUCT)
    found = {(path, what) for path in PRODUCT for what in dangers((REPOSITORY / path).read_text(encoding="utf-8"))}
    assert found == ALLOWED.keys()


@pytest.mark.parametrize(
    "source",
    [
        *("import pickle", "from pickle import loads", "import dill as d", "eval('1')", "exec('1')"),
        *("import torch\ntorch.load('x')", "from torch import load\nload('x')", "import torch as t\nt.load('x')"),
        *("import yaml\nyaml.load(x)", "import yaml\nyaml.load(x, yaml.Loader)", "import os\nos.system('x')"),
        *("import yaml\nyaml.load(x, Loader=yaml.FullLoader)", "from yaml import unsafe_load as u\nu(x)"),
        *("import subprocess\nsubprocess.run('x', shell=True)", "f(x, trust_remote_code=True)"),
        *("f(x, trust_remote_code=flag)", "AutoTokenizer.from_pretrained(x)", "np.load(x, allow_pickle=True)"),
        *("AutoConfig.from_pretrained(x, trust_remote_code=None)", "from markupsafe import Markup\nMarkup(x)"),
        *("from jinja2 import Environment\nEnvironment()", "from jinja2 import Environment as E\nE(autoescape=False)"),
    ],
)
def test_the_look_at_the_code_sees(source: str) -> None:
    """Each of these is found, also behind another name."""
    assert dangers(source)


@pytest.mark.parametrize(
    "source",
    [
        *("model.eval()", "import yaml\nyaml.safe_load(x)", "import yaml as y\ny.load(x, Loader=y.BaseLoader)"),
        *("import json\njson.load(x)", "re.compile('x')", "subprocess.run(['x'])", "evaluate.load"),
        *("AutoTokenizer.from_pretrained(x, trust_remote_code=False)", "BertModel.from_pretrained(x)"),
    ],
)
def test_the_look_at_the_code_lets_pass(source: str) -> None:
    """These are not found."""
    assert not dangers(source)


def test_no_template_switches_escaping_off() -> None:
    """No filter or block of Jinja's that lets a text through as it is."""
    templates = sorted((REPOSITORY / "two_stage").rglob("*.jinja"))
    assert templates
    for path in templates:
        text = path.read_text(encoding="utf-8")
        if path.name == "demo.html.jinja":  # its one script is its own, known to the browser by its hash
            assert len(re.findall("<script", text)) == 1
            text = text.replace("<script", "")
        assert not re.search(r"\|\s*safe\b|autoescape\s+false|<script|\bon\w+=", text)


# --- Secrets ----------------------------------------------------------------------------------------------------------

TOKEN = "hf_AbCdEfGhIjKlMnOpQrStUvWxYzAbCdEfGh"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        (TOKEN, "***"),
        (f"a {TOKEN}, b", "a ***, b"),
        ("https://me:s3cret@host/x.csv", "https://me:***@host/x.csv"),
        ("https://me:a@b:c@host/x", "https://me:***@host/x"),
        ("s3://key:secret@bucket/x", "s3://key:***@bucket/x"),
        (f"https://{TOKEN}@host/x", "https://***@host/x"),
        ("https://ghp_abc@host/x", "https://***@host/x"),
        ("https://host/x?token=abc&a=1", "https://host/x?token=***&a=1"),
        ("https://host/x?a=1&X-Amz-Signature=abc", "https://host/x?a=1&X-Amz-Signature=***"),
        ("https://host/x?access_token=abc#top", "https://host/x?access_token=***#top"),
        ("password=abc rest", "password=*** rest"),
        ("API_KEY=abc", "API_KEY=***"),
        ("outputs/hf_datasets/train.csv", "outputs/hf_datasets/train.csv"),
        ("hf_internal-testing/tiny", "hf_internal-testing/tiny"),
        ("https://host:8080/a@b?x=1", "https://host:8080/a@b?x=1"),
        ("news=recipes/news.yaml", "news=recipes/news.yaml"),
        ("tokens_column=words", "tokens_column=words"),
        ("me@host.org", "me@host.org"),
        ("token_classification", "token_classification"),
    ],
)
def test_redacted(text: str, written: str) -> None:
    """Secrets go, and what only looks a little like one stays."""
    assert redacted(text) == written


PARTS = st.sampled_from(
    ["https://", "s3://", "a", "b:", "c@", "/", "?", "&", "token=", "key=", "password=", "***", TOKEN, " ", "=", '"']
)


@given(st.lists(PARTS, max_size=12).map("".join))
def test_redacting_again_changes_nothing(text: str) -> None:
    """So that a redacted recipe, read again, is the redacted form of what was typed; no token of the Hub is left."""
    once = redacted(text)
    assert redacted(once) == once
    assert not re.search(r"(?<![A-Za-z0-9])hf_\w{20}", once)


def test_redacted_values() -> None:
    """In lists and mappings, in keys as well, and whole where the key says that it is a secret; numbers stay."""
    given = {"a": ["https://u:p@h", 1, None], "hub_token": "short", "https://u:p@h": {"api_key": "k", "tokens": "x"}}
    kept = {"a": ["https://u:***@h", 1, None], "hub_token": "***", "https://u:***@h": {"api_key": "***", "tokens": "x"}}
    assert redacted_values(given) == kept
    assert redacted_values(kept) == kept


BAD_CALLS: dict[str, tuple[list[str], str]] = {
    "an unknown flag": (["--hub_token", TOKEN, "--bad_flag"], ""),
    "a secret in an unknown flag": ([f"--bad_flag={TOKEN}"], ""),
    "a secret without a flag": ([TOKEN], ""),
    "a secret for a number": (["--seeds", TOKEN], ""),
    "a recipe with a token": ([], f"hub_token: {TOKEN}\n"),
    "a recipe with an unknown key": ([], f"bad_key: {TOKEN}\n"),
    "a recipe that is no YAML": ([], f"hub_token: {TOKEN}: [{TOKEN}\n  : {TOKEN}\n"),
    "a recipe with a secret for a number": ([], f"seeds: [{TOKEN}]\n"),
}


@pytest.mark.parametrize("script", ["run_sentiment.py", "run_ner.py", "run_comparison.py"])
@pytest.mark.parametrize("name", BAD_CALLS)
def test_a_refusal_does_not_say_the_secret(name: str, script: str, tmp_path: Path) -> None:
    """Not even that of a recipe whose line is at fault."""
    flags, text = BAD_CALLS[name]
    if text:
        (tmp_path / "given.yaml").write_text(text, encoding="utf-8")
        flags = ["--recipe", str(tmp_path / "given.yaml"), *flags]
    assert TOKEN[:12] not in refused(lambda: MAINS[script](flags))


def test_a_recipe_that_is_no_yaml_is_not_quoted(tmp_path: Path) -> None:
    """Nor a secret of a form that nobody knows; the line's number tells enough."""
    (tmp_path / "given.yaml").write_text("seed: 1\nhub_token: sh0rt: [sh0rt\n", encoding="utf-8")
    told = refused(lambda: read_recipe(str(tmp_path / "given.yaml")))
    assert "line 2" in told
    assert "sh0rt" not in told


NASTY_LABELS = ["../../evil", "/evil", "=cmd|' /C calc'!A0", '<script>alert("1")</script> | [a](http://evil)']


@pytest.fixture(scope="module")
def nasty_run(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, list[str]]:
    """A run with secrets in its environment and flags, and labels made to break out: what it wrote, printed, was told.

    Its output folder is a link.
    """
    folder = tmp_path_factory.mktemp("nasty")
    (folder / "real").mkdir()
    (folder / "out").symlink_to("real", target_is_directory=True)
    with open(folder / "texts.csv", "w", encoding="utf-8", newline="") as file:
        rows = [[f"=profit {i}", NASTY_LABELS[i % len(NASTY_LABELS)]] for i in range(16)]
        csv.writer(file).writerows([["text", "label"], *rows])
    texts = str(folder / "texts.csv")
    call = ["--checkpoint", str(tiny_folder), "--train_file", texts, "--validation_file", texts, "--test_file", texts]
    call += ["--labels", *NASTY_LABELS, "--allow_leakage", "--use_cpu", "--max_length", "16", "--max_steps", "2"]
    call += ["--hub_token", TOKEN, "--run_name", "https://me:s3cret@host/x?token=t0ken", "--disable_tqdm", "true"]
    call += ["--output_dir", str(folder / "out"), "--save_strategy", "steps", "--save_steps", "1"]
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HF_TOKEN", "WANDB_API_KEY"):
            patch.setenv(name, f"{name}-s3cret")
        patch.setattr(sys, "stdout", printed)
        patch.setattr(sys, "stderr", printed)
        run_sentiment.main(call)
    return folder, printed.getvalue(), call


def test_no_secret_is_written_or_printed(nasty_run: tuple[Path, str, list[str]]) -> None:
    """No file of a run holds one, whatever its name; the recipe says that something was left out."""
    folder, printed, _ = nasty_run
    files = [path for path in (folder / "real").rglob("*") if path.is_file()]
    assert {"recipe.yaml", "lineage.json", "README.md", "all_results.json"} <= {path.name for path in files}
    assert {"trainer_state.json", "manifest.json", "predictions.csv"} <= {path.name for path in files}
    for secret in (TOKEN, "s3cret", "t0ken"):
        assert [path.name for path in files if secret.encode() in path.read_bytes()] == []
        assert secret not in printed
    recipe = (folder / "real" / "recipe.yaml").read_text(encoding="utf-8")
    assert "run_name: https://me:***@host/x?token=***" in recipe
    assert "# *** stands for a secret" in recipe
    assert "hub_token" not in recipe


def test_recipes_that_differ_in_secrets_alone_are_the_same(tmp_path: Path) -> None:
    """What was typed and the redacted recipe that was written of it, once both are redacted."""
    typed = {"run_name": "https://me:s3cret@host/x?token=t0ken", "seed": 7, "labels": ["a", "b"]}
    (tmp_path / "recipe.yaml").write_text(recipe_text(typed, "run_ner.py", tmp_path), encoding="utf-8")
    written = read_recipe(str(tmp_path / "recipe.yaml"))
    assert changed_settings(written, redacted_values(typed)) == ""
    assert changed_settings(written, redacted_values(typed | {"run_name": "https://me:other@host/x?token=u"})) == ""
    assert "run_name" in changed_settings(written, redacted_values(typed | {"run_name": "https://me:x@elsewhere"}))


def test_a_run_with_a_secret_is_found_again(nasty_run: tuple[Path, str, list[str]]) -> None:
    """The same command leaves the finished run as it is; so does one with a new password."""
    call = nasty_run[2]
    place = call.index("--run_name") + 1
    assert run_sentiment.main(call)
    assert run_sentiment.main([*call[:place], "https://me:another@host/x?token=new", *call[place + 1 :]])


def test_a_pretraining_run_writes_no_secret(
    tiny_folder: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """corpus_report.json and what else stage one leaves."""
    for name in ("HF_TOKEN", "WANDB_API_KEY"):
        monkeypatch.setenv(name, f"{name}-s3cret")
    call = ["--checkpoint", str(tiny_folder), "--train_file", str(data_folder / "corpus.txt"), "--use_cpu"]
    call += ["--max_length", "16", "--max_steps", "1", "--hub_token", TOKEN, "--run_name", f"of {TOKEN}"]
    run_pretraining.main([*call, "--output_dir", str(tmp_path / "run"), "--disable_tqdm", "true"])
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert "corpus_report.json" in {path.name for path in files}
    assert [path.name for path in files if TOKEN.encode() in path.read_bytes() or b"s3cret" in path.read_bytes()] == []


# --- Texts stay texts -------------------------------------------------------------------------------------------------


def test_a_runs_card_and_table_hold_nasty_labels_as_texts(nasty_run: tuple[Path, str, list[str]]) -> None:
    """Labels with a tag, a link and a bar stay in their cells; no cell of the predictions is a formula."""
    folder = nasty_run[0] / "real"
    card = (folder / "README.md").read_text(encoding="utf-8")
    table = card[card.index("## Labels") : card.index("![Confusion")].strip().splitlines()[2:]
    assert len(table) == 2 + len(NASTY_LABELS)
    assert {len(cells_of(line)) for line in table} == {5}
    assert "<script" not in card
    with open(folder / "predictions.csv", encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert [cell for row in [header, *rows] for cell in row if cell.startswith(("=", "@", "\t", "\r"))] == []
    assert header[3:] == [safe_cell(label) for label in NASTY_LABELS]
    assert all(row[0].startswith("'=profit") for row in rows)


def cells_of(line: str) -> list[str]:
    """The cells of a Markdown table's row, cut at each bar that no backslash stands before, as GitHub reads it."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]


@example("[a](http://evil)")
@example("![a](http://evil)")
@given(st.text(alphabet="\\|<>[]()!`\"' ab\n\r", max_size=24))
def test_a_markdown_cell_shows_its_text_and_nothing_else(text: str) -> None:
    """As an independent reader of Markdown makes it: one cell, that very text, no tag, link, picture or code."""
    markdown_it = pytest.importorskip("markdown_it")
    row = f"| x{markdown_cell(text)}x | last |"
    assert len(cells_of(row)) == 2
    tokens = markdown_it.MarkdownIt("commonmark").enable("table").parse(f"| a | b |\n|---|---|\n{row}\n")
    cells = [token for token in tokens if token.type == "inline"][2:]
    shown = ["".join(child.content for child in cell.children) for cell in cells]
    assert {child.type for cell in cells for child in cell.children} <= {"text", "text_special"}
    assert shown == [f"x{' '.join(text.split())}x", "last"]


@pytest.mark.parametrize("name", ['a"b', "a\n```\n# heading", "a\\b", "a'); import os; os.system('x"])
def test_a_cards_code_is_the_same_code_whatever_the_folder_is_called(name: str, tmp_path: Path) -> None:
    """What a reader pastes loads the folder and does nothing else."""
    folder = tmp_path / name
    folder.mkdir()
    write_model_card(folder, Card("A model", 'model = load("FOLDER")'), {}, Findings({}))
    text = (folder / "README.md").read_text(encoding="utf-8")
    code = re.search(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert code
    (statement,) = ast.parse(code[1]).body
    assert ast.literal_eval(statement.value.args[0]) == str(folder)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["a\nseed: 8", "a\rseed: 8", "a\x85seed: 8", "a\u2028seed: 8", "a\x1b[2Jb", "\udcff"])
def test_a_recipe_is_the_same_whatever_the_folder_is_called(name: str, tmp_path: Path) -> None:
    """The folder's name stands in a comment, and the comment ends where its line ends."""
    text = recipe_text({"seed": 7}, "run_ner.py", Path(name))
    (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
    assert read_recipe(str(tmp_path / "recipe.yaml")) == {"seed": "7"}


# --- Paths ------------------------------------------------------------------------------------------------------------

OUTSIDE = ["../evil", "..", ".", "/evil", "a/b", "a\\b", "a\0b", "", "a b", "~"]


def test_a_run_writes_into_its_folder_alone(nasty_run: tuple[Path, str, list[str]]) -> None:
    """Labels that are paths become no path, and a folder that is a link is as good as any."""
    folder = nasty_run[0]
    assert sorted(path.name for path in folder.iterdir()) == ["out", "real", "texts.csv"]
    assert (folder / "out").is_symlink()
    assert sorted(path.name for path in (folder / "real").iterdir() if path.is_dir()) in (
        ["checkpoint-1", "checkpoint-2"],
        ["checkpoint-2"],
    )
    assert not Path("/evil").exists()


@pytest.mark.parametrize("name", OUTSIDE)
def test_an_arm_is_no_path(name: str) -> None:
    """Arms are folders' names: letters, digits and _ alone."""
    settings = Settings(
        task="ner", checkpoint="base", stage_one=[f"{name}=folder"], stage_two="recipe.yaml", output_dir="out"
    )
    assert "letters and digits" in refused(lambda: named_stages(settings))


@pytest.mark.parametrize("value", ["../evil", "/evil", "1/../..", "nan", "inf", "-1"])
@pytest.mark.parametrize("flag", ["keep_at", "fractions", "doses", "seeds"])
def test_numbers_that_name_folders_are_numbers(flag: str, value: str, tmp_path: Path) -> None:
    """Per cent and seeds become names of folders."""
    script = "run_pretraining.py" if flag == "keep_at" else "run_comparison.py"
    call = [f"--{flag}={value}", "--output_dir", str(tmp_path / "out"), "--task", "ner", "--stage_two", "x.yaml"]
    call = [*call, "--checkpoint", "x"] if flag != "keep_at" else [*call[:3], "--train_file", "x", "--checkpoint", "x"]
    told = refused(lambda: MAINS[script](call))
    assert f"--{flag}" in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["../../evil", "/evil", "..", "base, 5 % of the labels, seed 0", "a\\b/c"])
def test_logs_lie_in_their_folder(name: str, tmp_path: Path) -> None:
    """A run's log is called as the run, in one folder."""
    side_by_side = SideBySide([], [{}], tmp_path / "logs", 0, lambda run: "")
    log = side_by_side.log_of(PlannedRun(name, ("x",), tmp_path / "x"))
    assert log.resolve().parent == (tmp_path / "logs").resolve()


@pytest.mark.parametrize("key", ["output_dir", "train_file", "labels"])
def test_a_recipe_holds_no_nul(key: str, tmp_path: Path) -> None:
    """No file's name has one, and the system's own error would be a traceback."""
    value = '["a\\0b", c]' if key == "labels" else '"a\\0b"'
    (tmp_path / "given.yaml").write_text(f"checkpoint: x\n{key}: {value}\n", encoding="utf-8")
    told = refused(lambda: run_sentiment.main(["--recipe", str(tmp_path / "given.yaml")]))
    assert told.endswith(f"key {key} holds a NUL, which no file's name may; take it out")


# --- Network ----------------------------------------------------------------------------------------------------------

WATCHED = """
import json, runpy, socket, sys
tried = []
def refuse(*arguments, **_):
    tried.append(repr(arguments[-1] if len(arguments) > 1 else arguments))
    raise OSError("no network in this test")
socket.socket.connect = socket.socket.connect_ex = refuse
socket.getaddrinfo = refuse
found = {}
for sys.argv in json.loads(sys.argv[1]):
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as ended:
        found[sys.argv[0]] = [ended.code, *tried]
    tried.clear()
print(json.dumps(found))
"""


@pytest.mark.slow
def test_no_network_without_a_hub_id(tiny_folder: Path, data_folder: Path, tmp_path: Path) -> None:
    """A run from a local folder and local files tries no connection, though nobody told it to stay offline.

    The scripts run one behind the other, as all that they import is then imported once.
    """
    files = {"run_pretraining.py": "corpus.txt", "run_sentiment.py": "texts.csv", "run_ner.py": "sentences.jsonl"}
    calls = []
    for script, file in files.items():
        call = [script, "--checkpoint", str(tiny_folder), "--train_file", str(data_folder / file), "--use_cpu"]
        call += ["--output_dir", str(tmp_path / script), "--max_length", "16", "--disable_tqdm", "true"]
        call += ["--max_steps", "1", *(["--labels", "bad", "so-so", "good"] if script == "run_sentiment.py" else [])]
        calls.append(call)
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_OFFLINE")}
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, json.dumps(calls)],
        cwd=REPOSITORY,
        env=environment | {"HF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == {script: [0] for script in files}, done.stderr[-2000:]
