"""Processes that are killed: a launcher starts them again and the run ends in the same numbers, or it ends soon."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.conftest import REPOSITORY
from tests.test_resume import Call, call, dropout_folder, history, scores_of  # noqa: F401
from two_stage.checkpointing.checkpoints import UNFINISHED, what_is_wrong
from two_stage.checkpointing.handoff import file_sha256

pytestmark = pytest.mark.slow

FLAGS = ["--num_train_epochs", "2", "--logging_steps", "4", "--disable_tqdm", "true", "--eval_strategy", "epoch"]
FLAGS += ["--save_strategy", "steps", "--save_steps", "3"]  # of twelve
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
# with --cpu accelerate starts a single process, and none again
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
ACCELERATE += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--rdzv_backend", "c10d"]


class Launch:
    """Two processes of run_sentiment.py, in a folder of their own."""

    def __init__(self, folder: Path, checkpoint: Path, data: Path, *deaths: str) -> None:
        self.folder, self.deaths = folder, folder / "deaths"
        self.deaths.mkdir(parents=True)
        for death in deaths:
            (self.deaths / death).touch()
        made = Call("sentiment", folder, checkpoint, data, *FLAGS, "--per_device_train_batch_size", "4")
        self.flags = [*made.flags, "--output_dir", str(folder / "run")]
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
        self.environment["TEST_OF_DEATHS"] = str(folder)
        # else a restart now and then meets the addresses that the processes before it left in the launcher's store
        self.environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"

    def __call__(self, launcher: list[str], *more: str) -> subprocess.CompletedProcess[str]:
        """Start them, and wait for their end."""
        driver = [str(REPOSITORY / "tests" / "dying_processes.py"), str(self.deaths)]
        return subprocess.run(
            [*launcher, *driver, *self.flags, *more],
            capture_output=True,
            text=True,
            cwd=REPOSITORY,
            env=self.environment,
            timeout=150,
        )

    @property
    def died(self) -> dict[str, float]:
        """Who died where, and when."""
        done = [path.name.split() for path in self.deaths.glob("done *")]
        return {death: float(when) for _, when, death in done}

    def orphans(self) -> list[str]:
        """What is left of the processes that were started, a moment after their launcher's end."""
        for _ in range(20):
            left = [process for process in psutil.process_iter() if self.is_ours(process)]
            if not left:
                return []
            time.sleep(0.1)
        return [" ".join(process.cmdline()) for process in left]

    def is_ours(self, process: psutil.Process) -> bool:
        """Whether a process, or one that it comes from, was started by this launch."""
        try:
            return (
                process.status() != psutil.STATUS_ZOMBIE
                and process.environ().get("TEST_OF_DEATHS") == self.environment["TEST_OF_DEATHS"]
            )
        except psutil.Error:
            return False


@pytest.fixture(scope="module")
def undisturbed(
    dropout_folder: Path,  # noqa: F811
    data_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The folder of a run of two processes that nothing happened to."""
    made = Launch(tmp_path_factory.mktemp("undisturbed"), dropout_folder, data_folder)
    done = made(TORCHRUN)
    assert done.returncode == 0, done.stderr[-3000:]
    return made.folder / "run"


@pytest.fixture
def launch(tmp_path: Path, dropout_folder: Path, data_folder: Path) -> Callable[..., Launch]:  # noqa: F811
    """A function that makes a launch with its deaths."""
    return lambda *deaths: Launch(tmp_path, dropout_folder, data_folder, *deaths)


def same_end(run: Path, expected: Path) -> None:
    """A run ended as another one did, and left nothing half done."""
    assert history(run) == history(expected)
    assert scores_of(run) == scores_of(expected)
    assert file_sha256(run / "model.safetensors") == file_sha256(expected / "model.safetensors")
    assert not (run / UNFINISHED).exists()
    assert {path.name for path in run.iterdir()} == {path.name for path in expected.iterdir()}
    assert all(what_is_wrong(checkpoint) is None for checkpoint in run.glob("checkpoint-*"))


@pytest.mark.parametrize(
    ("launcher", "restarts", "deaths"),
    [
        pytest.param(TORCHRUN, "--max-restarts", ["0-step-5", "1-save-9"], id="torchrun"),
        pytest.param(ACCELERATE, "--max_restarts", ["1-step-5", "0-save-9"], id="accelerate"),
    ],
)
def test_a_launcher_starts_them_again(
    launch: Callable[..., Launch], undisturbed: Path, launcher: list[str], restarts: str, deaths: list[str]
) -> None:
    """Whichever process is killed, in the middle of a step and then of a save, all end in the same numbers."""
    made = launch(*deaths)
    done = made([*launcher, restarts, "3"])
    assert done.returncode == 0, done.stderr[-3000:]
    assert sorted(made.died, key=made.died.__getitem__) == deaths
    gone_on = [line for line in done.stdout.splitlines() if line.startswith("Going on from ")]
    steps = [(int(death.split("-")[2]) - 1) // 3 * 3 for death in deaths]
    assert gone_on == [f"Going on from {made.folder}/run/checkpoint-{step}" for step in steps]
    same_end(made.folder / "run", undisturbed)
    assert made.orphans() == []


@pytest.mark.parametrize("death", ["0-step-8", "1-save-6"])
def test_without_restarts_all_end_soon(launch: Callable[..., Launch], undisturbed: Path, death: str) -> None:
    """No process waits for the dead one, and none is left; the same command then ends in the same numbers."""
    made = launch(death)
    done = made(TORCHRUN, "--dataloader_num_workers", "1")
    ended = time.time()
    assert done.returncode != 0
    assert list(made.died) == [death]
    assert ended - made.died[death] < 30
    assert made.orphans() == []
    run = made.folder / "run"
    assert not (run / "all_results.json").exists()
    assert all(what_is_wrong(checkpoint) is None for checkpoint in run.glob("checkpoint-*"))
    if death.startswith("0"):
        assert made(TORCHRUN).returncode == 0
        same_end(run, undisturbed)


@pytest.mark.parametrize(("stop", "saved"), [("1-stop-4", 5), ("0-stop-12", 12)])
def test_a_stop_of_one_process_stops_all(
    launch: Callable[..., Launch], undisturbed: Path, stop: str, saved: int
) -> None:
    """Behind the same step, which is saved, though one alone was told; also in the last. Then it ends as it should."""
    made = launch(stop)
    done = made(TORCHRUN)
    run = made.folder / "run"
    assert done.returncode != 0
    assert list(made.died) == [stop]
    assert f"saved {run}/checkpoint-{saved}" in done.stderr
    assert what_is_wrong(run / f"checkpoint-{saved}") is None
    assert not (run / "all_results.json").exists()
    assert made(TORCHRUN).returncode == 0
    same_end(run, undisturbed)


@pytest.mark.parametrize("step", [2, 7])
def test_a_killed_data_worker(call: Callable[..., Call], step: int, tmp_path: Path) -> None:  # noqa: F811
    """Exit code 1 and one line that tells how to mend it; the same command ends in the same numbers."""
    made = call("sentiment", *FLAGS, "--per_device_train_batch_size", "8", "--dataloader_num_workers", "2")
    made("whole")
    (tmp_path / "deaths").mkdir()
    (tmp_path / "deaths" / f"0-worker-{step}").touch()
    driver = [str(REPOSITORY / "tests" / "dying_processes.py"), str(tmp_path / "deaths")]
    done = subprocess.run(
        [sys.executable, *driver, *made.flags, "--output_dir", str(made.folder / "run")],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
        timeout=150,
    )
    assert done.returncode == 1, done.stderr[-3000:]
    assert list((tmp_path / "deaths").glob("done *"))
    # beside it may stand what torch's own thread says of the dead worker's connection
    told = [line for line in done.stderr.splitlines() if line.startswith("run_sentiment.py: ")]
    assert len(told) == 1, done.stderr[-3000:]
    assert told[0].startswith("run_sentiment.py: a process that makes batches was killed")
    assert "the same command again" in told[0]
    made("run")
    made.same_end("run")
