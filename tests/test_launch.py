"""Launches: files and scripts say what they should, missing processes are noticed, and none is missed where none is."""

import os
import shutil
import stat
import subprocess
import sys
from argparse import Namespace
from functools import partial
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import launch as accelerate_launch

import run_comparison
from run_ner import NerArguments
from tests.conftest import REPOSITORY
from two_stage.command_line import launch
from two_stage.command_line.exits import Refusal
from two_stage.command_line.launch import asked_processes, check_launch, check_shared_out, what_keeps_the_model
from two_stage.command_line.recipe import parse_settings

FOLDER = REPOSITORY / "recipes" / "accelerate"
CONFIGS = sorted(path.name for path in FOLDER.glob("*.yaml"))
PYTHON = ["/opt/python", "/opt/bin/accelerate", "launch"]

MODULE = ["accelerate.commands.launch"]

# --- The files --------------------------------------------------------------------------------------------------------


def launched(name: str, *flags: str) -> tuple[Namespace, dict[str, str]]:
    """A config file as accelerate's launcher understands it, and what it would hand to the processes."""
    words = ["--config_file", str(FOLDER / name), *flags, "run_sentiment.py"]
    parsed = launch_command_parser().parse_args(words)
    parsed, config, _ = _validate_launch_command(parsed)
    if parsed.use_deepspeed:
        parsed.deepspeed_fields_from_accelerate_config = ",".join(config.deepspeed_config)  # as its own command does
        return parsed, accelerate_launch.prepare_deepspeed_cmd_env(parsed)[1]
    if parsed.multi_gpu or parsed.use_fsdp:
        return parsed, accelerate_launch.prepare_multi_gpu_env(parsed)
    return parsed, accelerate_launch.prepare_simple_launcher_cmd_env(parsed)[1]


MULTI = ["--machine_rank", "1", "--main_process_ip", "10.9.9.1"]


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_is_one_that_accelerate_takes(name: str) -> None:
    """It knows all keys, finds a launcher for it, and what that hands on lets a model be loaded and saved."""
    config = load_config_from_file(str(FOLDER / name))
    asked, environment = launched(name, *(MULTI if config.num_machines > 1 else []))
    assert asked.num_processes == config.num_processes >= 1
    assert what_keeps_the_model(environment) is None
    known = vars(launch_command_parser().parse_args(["x.py"]))
    for section in (config.fsdp_config, config.deepspeed_config):
        assert set(section) <= set(known), "a key that the launcher would never read"


@pytest.mark.parametrize("name", CONFIGS)
def test_batch_and_precision_stand_in_recipes_alone(name: str) -> None:
    """No key in both: a file of processes holds neither, and each says first what it is for."""
    text = (FOLDER / name).read_text(encoding="utf-8")
    assert text.startswith("# ")
    keys = yaml.safe_load(text).keys()
    assert not keys & {"mixed_precision", "fp16", "bf16", "downcast_bf16", "dynamo_config"}
    assert "batch" not in " ".join(keys)


def test_there_is_a_config_for_each_way() -> None:
    """One GPU, several, several machines, FSDP2, both kinds of ZeRO, processes on cores."""
    expected = "one_gpu several_gpus several_machines fsdp2 deepspeed_zero2 deepspeed_zero3 cpu_processes"
    assert {Path(name).stem for name in CONFIGS} == set(expected.split())


def test_several_machines_meet_at_the_first() -> None:
    """Each starts its share of all processes, and looks for the others where the command line says."""
    parsed, _ = launched("several_machines.yaml", *MULTI)
    assert (parsed.nnodes, parsed.nproc_per_node, parsed.node_rank) == ("2", "8", 1)
    assert (parsed.rdzv_backend, parsed.rdzv_endpoint) == ("static", "10.9.9.1:29500")


def test_fsdp_hands_on_what_the_file_says() -> None:
    """The layers that are gathered at a time, and that all is saved in one file."""
    _, environment = launched("fsdp2.yaml")
    assert environment["FSDP_VERSION"] == "2"
    assert environment["FSDP_TRANSFORMER_CLS_TO_WRAP"] == "BertLayer"
    assert environment["FSDP_STATE_DICT_TYPE"] == "FULL_STATE_DICT"


@pytest.mark.parametrize("stage", ["2", "3"])
def test_deepspeed_hands_on_what_the_file_says(stage: str) -> None:
    """The recipe's accumulation and clipping, and a whole model at the end."""
    _, environment = launched(f"deepspeed_zero{stage}.yaml")
    assert environment["ACCELERATE_USE_DEEPSPEED"] == "true"
    assert environment["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == stage
    assert environment["ACCELERATE_GRADIENT_ACCUMULATION_STEPS"] == "auto"
    assert environment["ACCELERATE_GRADIENT_CLIPPING"] == "auto"


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}, "fsdp_version"),
        (
            {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_CPU_RAM_EFFICIENT_LOADING": "true"},
            "fsdp_cpu_ram_efficient_loading",
        ),
        (
            {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT"},
            "fsdp_state_dict_type",
        ),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}, "fsdp_state_dict_type"),
        (
            {
                "ACCELERATE_USE_DEEPSPEED": "true",
                "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3",
                "ACCELERATE_DEEPSPEED_ZERO3_INIT": "true",
            },
            "zero3_init_flag",
        ),
        ({"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}, "zero3_save_16bit_model"),
        ({"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"}, None),
        ({"FSDP_VERSION": "1"}, None),
    ],
)
def test_configs_that_leave_no_model_are_told(
    config: dict[str, str], key: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the key to change; before a model is loaded."""
    wrong = what_keeps_the_model(config)
    assert wrong is None if key is None else (wrong is not None and wrong.startswith(f"{key}: ")) or key in str(wrong)
    if key:
        for name, value in config.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(Refusal, match=key):
            check_launch("run_ner.py")


def test_fsdp_without_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accelerate would train on without it, and say nothing; nobody who did not ask hears of it."""
    check_shared_out(False)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    check_shared_out(True)
    with pytest.raises(Refusal, match="over GPUs alone"):
        NerArguments(output_dir="out", use_cpu=True)


# --- Processes that are missing ---------------------------------------------------------------------------------------


def command(*words: str, config: str = "") -> list[str]:
    """The command of an `accelerate launch`."""
    return [*PYTHON, *(["--config_file", config] if config else []), *words, "run_ner.py", "--num_processes", "9"]


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (command("--cpu", "--num_processes", "2"), 2),
        (command("--num_processes=3"), 3),
        (command("--num-processes", "3"), 3),
        (command("--num_processes", "1"), 1),
        (command(), None),
        (command("--tpu", "--num_processes", "8"), None),
        (["python", "-m", *MODULE, "--num_processes", "4", "x.py"], 4),
        (["python", "/site/accelerate/commands/launch.py", "--num_processes", "4", "x.py"], 4),
        (["/bin/accelerate-launch", "--num_processes", "4", "x.py"], 4),
        (["python", "-X", "dev", "-W", "ignore", "-u", "-m", *MODULE, "--num_processes", "4", "x.py"], 4),
        (["python", "run_ner.py", "--labels", *MODULE, "--num_processes", "4"], None),
        (["torchrun", "--nproc_per_node", "4", "x.py"], None),
        (["python", "run_comparison.py", "--workers", "2"], None),
        (["bash", "-c", "accelerate launch --num_processes 4 x.py"], None),
        (["make", "accelerate", "launch"], None),
        ([], None),
    ],
)
def test_how_many_were_asked_for(words: list[str], count: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of accelerate's launcher alone, and never by the script's own flags."""
    assert asked_processes(words) == count


def test_a_config_file_asks_too(tmp_path: Path) -> None:
    """A flag wins over it; one that cannot be read asks nothing."""
    config = tmp_path / "multi_cpu.yaml"
    config.write_text("distributed_type: MULTI_CPU\nuse_cpu: true\nnum_machines: 1\nnum_processes: 3\n")
    assert asked_processes(command(config=str(config))) == 3
    assert asked_processes(command("--num_processes", "2", config=str(config))) == 2
    assert asked_processes(command(config=str(tmp_path / "none.yaml"))) is None


@pytest.mark.parametrize(
    ("asked", "environment", "is_refused"),
    [
        (2, {}, True),
        (2, {"WORLD_SIZE": "2"}, False),
        (5, {"WORLD_SIZE": "4"}, True),  # over two machines, which get the same share
        (2, {"OMPI_COMM_WORLD_SIZE": "2"}, False),
        (2, {"PMI_SIZE": "2"}, False),
        (2, {"MASTER_ADDR": "node1", "SLURM_NTASKS": "2"}, True),
        (1, {"MASTER_ADDR": "node1", "SLURM_NTASKS": "2"}, False),
        (1, {}, False),
        (0, {}, False),
        (None, {}, False),
        (None, {"WORLD_SIZE": "4"}, False),
    ],
)
def test_missing_processes_are_noticed(
    asked: int | None, environment: dict[str, str], is_refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And where nobody asked, or all are there, nothing is said."""
    for name in (*launch.WORLD_SIZES, "MASTER_ADDR", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(
        launch, "_parent_command", lambda: command(*(["--num_processes", str(asked)] if asked is not None else []))
    )
    if not is_refused:
        check_launch("run_ner.py")
        return
    with pytest.raises(Refusal, match=f"asked for {asked} processes and started") as refusal:
        check_launch("run_ner.py")
    assert f"torchrun --nproc_per_node {asked} run_ner.py" in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("world", "asked"), [("2", None), ("2", 2), (None, 2)])
def test_what_trains_nothing_is_no_work_for_several(
    world: str | None, asked: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would compare, or export, into one folder; and the scripts that a comparison calls would have its rank."""
    for name in launch.WORLD_SIZES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(launch, "_parent_command", lambda: command("--num_processes", str(asked)) if asked else [])
    parse = partial(parse_settings, ["--stage_two", "x.yaml"], run_comparison.Settings, "", "")
    monkeypatch.setattr(sys, "argv", ["run_comparison.py"])
    if world:
        monkeypatch.setenv("WORLD_SIZE", world)
    with pytest.raises(
        Refusal, match=r"works as one process, and 2 were asked for; start it by `python run_comparison"
    ):
        parse()
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setattr(launch, "_parent_command", list)
    with pytest.raises(Refusal, match="--task: is missing"):
        parse()


MISSING = {
    "--cpu": ["--cpu", "--num_processes", "2"],
    "MULTI_CPU": ["--config_file", "CONFIG"],
}


@pytest.mark.slow
@pytest.mark.parametrize("words", MISSING.values(), ids=MISSING)
def test_accelerate_that_starts_one_of_two_is_refused(words: list[str], tmp_path: Path, data_folder: Path) -> None:
    """By a real launcher: exit code 2 and one line, and nothing written."""
    config = tmp_path / "config.yaml"
    config.write_text("distributed_type: MULTI_CPU\nuse_cpu: true\nnum_machines: 1\nnum_processes: 2\n")
    call = [sys.executable, "-m", "accelerate.commands.launch", *(str(config) if w == "CONFIG" else w for w in words)]
    call += ["run_ner.py", "--train_file", str(data_folder / "sentences.jsonl"), "--output_dir", str(tmp_path / "out")]
    done = subprocess.run(call, capture_output=True, text=True, cwd=REPOSITORY, timeout=120)
    assert done.returncode != 0
    assert "returned non-zero exit status 2" in done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("run_ner.py: ")]
    assert len(said) == 1
    assert "asked for 2 processes and started 1" in said[0]
    assert not (tmp_path / "out").exists()


# --- Slurm ------------------------------------------------------------------------------------------------------------

# What stands in for Slurm's programs: each leaves its words, and srun does on every machine what it was told
SRUN = """#!/usr/bin/env bash
printf '%s\\n' "$@" > "$LOG/said-srun"
while [[ $1 == -* ]]; do shift; done
for ((SLURM_NODEID = 0; SLURM_NODEID < SLURM_JOB_NUM_NODES; SLURM_NODEID++)); do
  export SLURM_NODEID
  "$@"
done
"""
SCONTROL = """#!/usr/bin/env bash
[ "$*" = "show hostnames node[7-8]" ] || exit 1
printf 'node7\\nnode8\\n'
"""
TORCHRUN = """#!/usr/bin/env bash
printf '%s\\n' "$@" "OMP_NUM_THREADS=$OMP_NUM_THREADS" > "$LOG/said-torchrun-$SLURM_NODEID"
"""


def submit(tmp_path: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the batch script as Slurm would on the first of two machines."""
    for name, text in {"srun": SRUN, "scontrol": SCONTROL, "torchrun": TORCHRUN}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(stat.S_IRWXU)
    slurm = {"SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "node[7-8]", "SLURM_JOB_ID": "123456"}
    slurm |= {"SLURM_CPUS_PER_TASK": "8", "LOG": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    return subprocess.run(
        [shutil.which("bash") or "bash", str(FOLDER / "slurm.sh"), *words],
        capture_output=True,
        text=True,
        env=environment | slurm | more,
    )


def test_slurm_starts_a_launcher_a_machine(tmp_path: Path) -> None:
    """Each knows its number, all meet at the first, and the script's words arrive whole."""
    words = ["run_sentiment.py", "--labels", "very bad", "good", "--train_file", "a b.csv"]
    done = submit(tmp_path, *words, SLURM_GPUS_ON_NODE="4")
    assert done.returncode == 0, done.stderr
    for machine in ("0", "1"):
        said = (tmp_path / f"said-torchrun-{machine}").read_text().splitlines()
        expected = ["--nnodes", "2", "--nproc_per_node", "4", "--node_rank", machine]
        expected += ["--master_addr", "node7", "--master_port", "23456", "--shutdown_timeout", "110"]
        assert said == [*expected, *words, "OMP_NUM_THREADS=2"]
    flags = (tmp_path / "said-srun").read_text().split()[:2]
    assert flags == ["--kill-on-bad-exit=1", "--cpus-per-task=8"]  # which srun does not take over from sbatch


def test_slurm_without_gpus(tmp_path: Path) -> None:
    """As many processes as are asked for, or one."""
    assert submit(tmp_path, "run_ner.py", PROCESSES_PER_NODE="2").returncode == 0
    assert (tmp_path / "said-torchrun-1").read_text().splitlines()[3] == "2"
    assert submit(tmp_path, "run_ner.py").returncode == 0
    assert (tmp_path / "said-torchrun-1").read_text().splitlines()[3] == "1"


def test_slurm_without_a_script(tmp_path: Path) -> None:
    """It says how it is called."""
    done = submit(tmp_path)
    assert (done.returncode, done.stderr.split()[0]) == (2, "usage:")
    assert not (tmp_path / "said-srun").exists()


def test_bash_reads_the_batch_script() -> None:
    """Slurm's own settings stand before the first command, one word each where they must."""
    text = (FOLDER / "slurm.sh").read_text(encoding="utf-8")
    assert subprocess.run(["bash", "-n", str(FOLDER / "slurm.sh")]).returncode == 0
    head = text[: text.index("set -euo")]
    assert head.count("#SBATCH") == text.count("#SBATCH") == 8
