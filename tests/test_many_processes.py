"""Launches of several processes: FSDP2 and DeepSpeed, two machines, splits that do not divide, one cache for all."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertModel

import run_ner
import run_pretraining
import run_sentiment
from tests.conftest import REPOSITORY, SHADES
from tests.test_exact import assert_same_run, flags
from two_stage.checkpointing.checkpoints import UNFINISHED, what_is_wrong
from two_stage.checkpointing.handoff import file_sha256

pytestmark = pytest.mark.slow

MAINS = {"pretraining": run_pretraining.main, "sentiment": run_sentiment.main, "ner": run_ner.main}
CONFIGS = REPOSITORY / "recipes" / "accelerate"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
DRIVER = str(REPOSITORY / "tests" / "two_processes.py")
Calls = dict[str, list[str]]


def start(launcher: list[str], folder: Path, calls: Calls, **more: str) -> subprocess.Popen[str]:
    """Start processes that run the calls of the scripts, with what they leave of themselves in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "calls.json").write_text(json.dumps(calls))
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(path for path in (str(REPOSITORY), os.environ.get("PYTHONPATH")) if path),
        **more,
    }
    return subprocess.Popen(
        [*launcher, DRIVER, str(folder / "calls.json")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=REPOSITORY,
        env=environment,
    )


def end(*started: subprocess.Popen[str]) -> None:
    """Wait for launches that end well, and leave none behind of those that do not."""
    try:
        said = [each.communicate(timeout=300)[0] for each in started]
        assert [each.returncode for each in started] == [0] * len(started), "\n".join(text[-3000:] for text in said)
    finally:
        for each in started:
            each.kill()


def marks(folder: Path, kind: str) -> list[str]:
    """The empty files that the processes left: world_… or read_by_…."""
    return sorted(path.name for path in folder.glob(f"{kind}_*"))


# --- FSDP2 and DeepSpeed, on cores ------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["fsdp2", "deepspeed_zero2", "deepspeed_zero3"])
def sharded(
    request: pytest.FixtureRequest, tiny_folder: Path, data_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with `alone`, a run of one process; `shared`, of two; and `again`, gone on with by two, come what may.

    And of stage one `heads` by two, whose new heads learn first, and `heads-alone`.
    """
    if request.param != "fsdp2" and find_spec("deepspeed") is None:
        pytest.skip(
            "needs `pip install deepspeed`, which no requirements file has: it builds itself by the torch there"
        )
    folder = tmp_path_factory.mktemp("sharded")
    BertModel.from_pretrained(tiny_folder).save_pretrained(folder / "bare")
    AutoTokenizer.from_pretrained(tiny_folder).save_pretrained(folder / "bare")

    def call(name: str, batch: int) -> list[str]:
        given = flags("sentiment", tiny_folder, data_folder, folder / name, batch, 1)
        return [*given, "--max_steps", "4", "--save_strategy", "steps", "--save_steps", "2", "--save_total_limit", "3"]

    def heads(name: str, batch: int) -> list[str]:
        given = flags("pretraining", folder / "bare", data_folder, folder / name, batch, 1)
        return [*given, "--head_warmup_steps", "2", "--validation_fraction", "0"]

    run_sentiment.main(call("alone", 16))
    run_pretraining.main(heads("heads-alone", 16))
    calls = {"sentiment-shared": call("shared", 8), "halve-shared": [str(folder / "shared"), str(folder / "again")]}
    calls |= {"sentiment-again": [*call("again", 8), "--resume_anyway"], "pretraining-heads": heads("heads", 8)}
    end(start([*ACCELERATE, str(CONFIGS / f"{request.param}.yaml")], folder, calls, DS_ACCELERATOR="cpu"))
    assert marks(folder, "world") == ["world_2_rank_0", "world_2_rank_1"]
    return folder


def log(run: Path) -> list[dict[str, float]]:
    """What a finished run logged."""
    return json.loads((run / "trainer_state.json").read_text())["log_history"]


def losses(run: Path) -> list[float]:
    """The loss of each step."""
    return [entry["loss"] for entry in log(run) if "loss" in entry]


def test_shared_weights_learn_the_same(sharded: Path) -> None:
    """Loss, gradient and scores are those of one process that has the whole model."""
    for shared, alone in zip(log(sharded / "shared"), log(sharded / "alone"), strict=True):
        kept = {name for name in alone if name in ("loss", "grad_norm", "learning_rate") or name.startswith("eval_")}
        kept = {name for name in kept if not name.endswith(("runtime", "second"))}
        assert {name: shared[name] for name in kept} == pytest.approx({name: alone[name] for name in kept}, rel=1e-3)
    assert losses(sharded / "shared")[0] == pytest.approx(losses(sharded / "alone")[0], rel=1e-5)


def test_shared_weights_are_saved_whole(sharded: Path) -> None:
    """One file of all weights, which loads with nothing of ours and holds what one process learned."""
    shared, alone = (load_file(sharded / name / "model.safetensors") for name in ("shared", "alone"))
    assert shared.keys() == alone.keys()
    for name, tensor in alone.items():
        assert shared[name].shape == tensor.shape
        torch.testing.assert_close(shared[name], tensor, rtol=1e-3, atol=2e-4)
    model = AutoModelForSequenceClassification.from_pretrained(sharded / "shared")
    assert torch.equal(model.state_dict()["classifier.weight"], shared["classifier.weight"])


def test_new_heads_learn_the_same(sharded: Path) -> None:
    """In their steps before the run, and in those of it; each tensor is saved once."""
    assert losses(sharded / "heads") == pytest.approx(losses(sharded / "heads-alone"), rel=1e-4)
    shared, alone = (load_file(sharded / name / "model.safetensors") for name in ("heads", "heads-alone"))
    assert shared.keys() == alone.keys()


def test_checkpoints_of_shared_weights_are_whole_and_gone_on_with(sharded: Path) -> None:
    """Every process's file is in the manifest; the run that goes on from the first ends in the very same weights."""
    checkpoints = sorted((sharded / "shared").glob("checkpoint-*"))
    assert [path.name for path in checkpoints] == ["checkpoint-2", "checkpoint-4"]
    for checkpoint in checkpoints:
        assert what_is_wrong(checkpoint) is None
        named = json.loads((checkpoint / "manifest.json").read_text())["files"]
        step = checkpoint.name.split("-")[1]
        deepspeed = {f"global_step{step}/mp_rank_00_model_states.pt"}
        zero3 = {f"global_step{step}/zero_pp_rank_{rank}_mp_rank_00_model_states.pt" for rank in (0, 1)}
        parts = ({"optimizer.bin", "pytorch_model_fsdp.bin"}, deepspeed, zero3)
        assert any(part <= named.keys() for part in parts)
        assert {"rng_state_0.pth", "rng_state_1.pth", "scheduler.pt", "trainer_state.json"} <= named.keys()
    assert not (sharded / "shared" / UNFINISHED).exists()
    assert losses(sharded / "again") == losses(sharded / "shared")
    assert file_sha256(sharded / "again" / "model.safetensors") == file_sha256(sharded / "shared" / "model.safetensors")


# --- Splits that do not divide ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def uneven(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Validation splits of 13 rows and test splits of 11, which neither processes nor batches of 3 divide."""
    folder = tmp_path_factory.mktemp("uneven")
    for name in ("texts.csv", "sentences.jsonl"):
        head, *rows = (data_folder / name).read_text().splitlines()
        head, rows = (f"{head}\n", rows) if name.endswith("csv") else ("", [head, *rows])
        for split, part in {"train": rows[:24], "validation": rows[24:37], "test": rows[37:48]}.items():
            (folder / f"{split}_{name}").write_text(head + "\n".join(part) + "\n")
    shutil.copy(data_folder / "corpus.txt", folder)
    return folder


def call_of(script: str, checkpoint: Path, data: Path, output: Path, batch: int) -> list[str]:
    """Eighteen steps of eight rows, a validation split and a test split."""
    name = "texts.csv" if script == "sentiment" else "sentences.jsonl"
    call = ["--checkpoint", str(checkpoint), "--output_dir", str(output), "--allow_leakage", "--use_cpu"]
    for split in ("train", "validation", "test"):
        call += [f"--{split}_file", str(data / f"{split}_{name}")]
    call += ["--per_device_train_batch_size", str(batch), "--per_device_eval_batch_size", "3", "--max_length", "32"]
    call += ["--max_steps", "18", "--learning_rate", "3e-3", "--head_learning_rate", "1e-2", "--save_strategy", "no"]
    call += ["--disable_tqdm", "true", "--logging_steps", "1", "--warmup_steps", "0"]
    return call + (["--labels", *SHADES] if script == "sentiment" else [])


@pytest.fixture(scope="module")
def two_and_one(tiny_folder: Path, uneven: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of both scripts of stage two, by two processes and by one; and of stage one, by two, on an empty cache."""
    folder = tmp_path_factory.mktemp("two_and_one")
    calls = {}
    for script in ("sentiment", "ner"):
        MAINS[script](call_of(script, tiny_folder, uneven, folder / f"{script} alone", 8))
        calls[script] = call_of(script, tiny_folder, uneven, folder / script, 4)
    calls["pretraining"] = flags("pretraining", tiny_folder, uneven, folder / "pretraining", 8, 1)
    end(start(TORCHRUN, folder, calls, HF_HOME=str(folder / "cache")))
    assert marks(folder, "world") == ["world_2_rank_0", "world_2_rank_1"]
    return folder


def scores_of(run: Path) -> dict[str, Any]:
    """What does not depend on the clock."""
    scores = json.loads((run / "all_results.json").read_text())
    return {name: value for name, value in scores.items() if not name.endswith(("runtime", "second"))}


@pytest.mark.parametrize("script", ["sentiment", "ner"])
def test_scores_of_splits_that_do_not_divide(two_and_one: Path, script: str) -> None:
    """Every row counts once: what is counted is equal to the last bit, and what is a sum of floats within 1e-5."""
    two, one = (scores_of(two_and_one / name) for name in (script, f"{script} alone"))
    assert two.keys() == one.keys()
    counted = {name for name in one if name.endswith(("_accuracy", "_f1", "_kappa"))}
    assert len(counted) >= 4
    assert {name: two[name] for name in counted} == {name: one[name] for name in counted}
    assert one["test_macro_f1"] > 0.1, "nothing was learned that could be scored"
    assert two == pytest.approx(one, rel=1e-3, abs=1e-6)


def test_predictions_come_in_the_order_of_the_file(two_and_one: Path, uneven: Path) -> None:
    """One a row, none twice, and the same as of one process."""
    two, one = (
        (two_and_one / name / "predictions.csv").read_text().splitlines() for name in ("sentiment", "sentiment alone")
    )
    gold = [row.rsplit(",", 1) for row in (uneven / "test_texts.csv").read_text().splitlines()[1:]]
    assert [row.split(",")[:2] for row in two[1:]] == gold
    assert len(two) == len(one) == 12
    for a, b in zip(two[1:], one[1:], strict=True):
        words_a, words_b = a.split(","), b.split(",")
        assert words_a[:3] == words_b[:3]
        assert [float(word) for word in words_a[3:]] == pytest.approx([float(word) for word in words_b[3:]], rel=1e-3)


def test_entities_come_in_the_order_of_the_file(two_and_one: Path, uneven: Path) -> None:
    """Sentence for sentence and tag for tag."""
    two, one = (
        [json.loads(line) for line in (two_and_one / name / "predictions.jsonl").read_text().splitlines()]
        for name in ("ner", "ner alone")
    )
    given = [json.loads(line) for line in (uneven / "test_sentences.jsonl").read_text().splitlines()]
    assert [row["tokens"] for row in two] == [row["tokens"] for row in given]
    assert [row["predicted_tags"] for row in two] == [row["predicted_tags"] for row in one]


# --- One cache for all ------------------------------------------------------------------------------------------------


def test_two_processes_read_a_corpus_once(two_and_one: Path) -> None:
    """The first of a machine reads it, and the other finds it read."""
    assert marks(two_and_one, "read_by") == ["read_by_0_0"]


def test_two_runs_at_once_on_an_empty_cache(tiny_folder: Path, uneven: Path, two_and_one: Path, tmp_path: Path) -> None:
    """Runs that know nothing of each other: one reads the corpus while the other waits, and both come out right."""
    started = []
    for name in ("a", "b"):
        calls = {"pretraining": flags("pretraining", tiny_folder, uneven, tmp_path / name / "run", 16, 1)}
        started.append(start([sys.executable], tmp_path / name, calls, HF_HOME=str(tmp_path / "cache")))
    end(*started)
    assert [len(marks(tmp_path / name, "read_by")) for name in ("a", "b")] in ([0, 1], [1, 0])
    for name in ("a", "b"):
        assert_same_run(tmp_path / name / "run", two_and_one / "pretraining")


# --- Two machines -----------------------------------------------------------------------------------------------------

ADDRESSES = ["10.77.77.1", "10.77.77.2"]


def ip(*words: str) -> subprocess.CompletedProcess[str]:
    """Run iproute2's program."""
    return subprocess.run(["ip", *words], capture_output=True, text=True, timeout=20)


@pytest.fixture(scope="module")
def machines() -> Iterator[list[str]]:
    """Two network namespaces with a cable between them: their names."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("two machines are made of network namespaces, which need root and iproute2")
    names = [f"two-stage-{os.getpid()}-{number}" for number in (0, 1)]
    cable = [f"ts{os.getpid() % 10**6}n{number}" for number in (0, 1)]
    made = [ip("netns", "add", name) for name in names]
    try:
        made.append(ip("link", "add", cable[0], "type", "veth", "peer", "name", cable[1]))
        for name, plug, address in zip(names, cable, ADDRESSES, strict=True):
            made.append(ip("link", "set", plug, "netns", name, "name", "wire"))
            made.append(ip("-n", name, "addr", "add", f"{address}/24", "dev", "wire"))
            made += [ip("-n", name, "link", "set", device, "up") for device in ("wire", "lo")]
        if faults := [done.stderr.strip() for done in made if done.returncode]:
            pytest.skip(f"network namespaces cannot be made here: {faults[0]}")
        yield names
    finally:
        for name in names:
            ip("netns", "delete", name)
        ip("link", "delete", cable[0])


def test_two_machines_are_as_two_processes(
    machines: list[str], tiny_folder: Path, uneven: Path, two_and_one: Path, tmp_path: Path
) -> None:
    """One output folder, a cache a machine: each reads the corpus once, and the numbers are those of one machine."""
    calls = {"pretraining": flags("pretraining", tiny_folder, uneven, tmp_path / "pretraining", 8, 1)}
    calls["sentiment"] = call_of("sentiment", tiny_folder, uneven, tmp_path / "sentiment", 4)
    started = []
    for number, machine in enumerate(machines):
        launcher = ["ip", "netns", "exec", machine, *ACCELERATE, str(CONFIGS / "several_machines.yaml")]
        launcher += ["--num_processes", "2", "--machine_rank", str(number), "--main_process_ip", ADDRESSES[0]]
        home = str(tmp_path / f"home-{number}")
        started.append(start(launcher, tmp_path, calls, HF_HOME=home, GLOO_SOCKET_IFNAME="wire"))
    end(*started)
    assert marks(tmp_path, "world") == ["world_2_rank_0", "world_2_rank_1"]
    assert marks(tmp_path, "read_by") == ["read_by_0_0", "read_by_1_0"]
    assert_same_run(tmp_path / "pretraining", two_and_one / "pretraining")
    assert scores_of(tmp_path / "sentiment") == scores_of(two_and_one / "sentiment")
    predictions = [(folder / "sentiment" / "predictions.csv").read_bytes() for folder in (tmp_path, two_and_one)]
    assert predictions[0] == predictions[1]


def test_the_namespaces_are_apart(machines: list[str]) -> None:
    """What listens on one machine's own address is not there on another."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        probe = f"import socket; socket.create_connection(('127.0.0.1', {listening.getsockname()[1]}), 2)"
        done = subprocess.run(["ip", "netns", "exec", machines[1], sys.executable, "-c", probe], capture_output=True)
    assert done.returncode != 0
