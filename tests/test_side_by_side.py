"""Runs side by side: in their order, on their devices, not twice, and none left behind. The scripts here are tiny."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import REPOSITORY
from two_stage.command_line.exits import Failure
from two_stage.comparison import side_by_side
from two_stage.comparison.side_by_side import (
    FAILED,
    FINISHED,
    LEFT_OUT,
    Outcome,
    PlannedRun,
    SideBySide,
    device_slots,
    last_line,
    locked,
    spoken_time,
)

# A run that notes when it begins and ends, with its process and device; flags come in pairs.
WORKER = """
import os, signal, sys, time
flags = dict(zip(sys.argv[1::2], sys.argv[2::2]))
folder, journal = flags["--output_dir"], flags["--journal"]
def note(word):
    file = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(file, f"{word} {os.path.basename(folder)} {os.environ.get('SLOT')} {os.getpid()}\\n".encode())
    os.close(file)
if "--stubborn" in flags:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
was_there = os.path.isdir(folder) and sorted(os.listdir(folder))
note("begin")
print(f"found {was_there}", flush=True)
given_up = time.monotonic() + 20
while open(journal).read().count("begin") < int(flags.get("--meets", 0)):
    time.sleep(0.01)
    if time.monotonic() > given_up:
        sys.exit("nobody came")
time.sleep(float(flags.get("--seconds", 0)))
note("end")
if "--fails" in flags:
    print(flags["--fails"], flush=True)
    sys.exit(3)
if "--leaves_nothing" not in flags:
    os.makedirs(folder, exist_ok=True)
    open(folder + "/all_results.json", "w").write("{}")
"""
# What a caller does, in a process that a test may kill: DRIVER FOLDER SECONDS.
DRIVER = """
import signal
import sys
from pathlib import Path
from two_stage.command_line.exits import STOP_SIGNALS, STOPS
from two_stage.comparison.side_by_side import PlannedRun, SideBySide, locked
for number in STOP_SIGNALS:
    signal.signal(number, STOPS.heed)  # as run_script does
folder, (script, flags) = Path(sys.argv[1]), (sys.argv[2], sys.argv[3:])
journal = ("--journal", str(folder / "journal"))
planned = [
    PlannedRun(name, (script, "--output_dir", str(folder / name), *journal, *flags), folder / name)
    for name in "abc"
]
with locked(folder) as lock:
    print("outcomes", SideBySide(planned, [{}, {}], folder / "logs", lock, lambda run: "done").run_all())
"""

Runs = Callable[..., SideBySide]


class Bench:
    """A folder with the tiny script, and what its runs noted."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.journal, self.told = folder, folder / "journal", list[str]()
        (folder / "work.py").write_text(WORKER, encoding="utf-8")

    def run(self, name: str, *flags: str, needs: tuple[str, ...] = (), **more: Any) -> PlannedRun:
        """A planned run; `-I -S` starts Python in some hundredths of a second."""
        folder = self.folder / "runs" / name
        command = ("-I", "-S", str(self.folder / "work.py"), "--output_dir", str(folder))
        return PlannedRun(name, (*command, "--journal", str(self.journal), *flags), folder, needs, **more)

    def side_by_side(self, planned: list[PlannedRun], slots: int = 1, lock: int | None = None) -> SideBySide:
        """Those runs, on devices a, b, c …; what finishes is kept in `told`."""

        def on_finish(run: PlannedRun) -> str:
            self.told.append(run.name)
            return f"all of {run.name}"

        devices = [{"SLOT": "abcdef"[i]} for i in range(slots)]
        lock = os.open(self.folder, os.O_RDONLY) if lock is None else lock
        return SideBySide(planned, devices, self.folder / "logs", lock, on_finish)

    def notes(self, word: str = "") -> list[list[str]]:
        """The journal's lines as words: begin or end, name, device, process."""
        lines = self.journal.read_text(encoding="utf-8").splitlines() if self.journal.exists() else []
        return [line.split() for line in lines if line.startswith(word)]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """An empty bench, looked at often."""
    monkeypatch.setattr(side_by_side, "PAUSE", 0.01)
    return Bench(tmp_path)


def is_alive(process: int) -> bool:
    """Whether a process is there, a zombie not counted."""
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(holds: Callable[[], object], seconds: float = 60) -> None:
    """Wait until something holds, and fail if it never does."""
    given_up = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < given_up, "waited in vain"
        time.sleep(0.02)


# --- Order, needs, devices --------------------------------------------------------------------------------------------


def test_runs_begin_in_their_order_when_their_needs_are_finished(bench: Bench) -> None:
    """One at a time: c waits for a, and b, which is planned behind it, goes first."""
    planned = [bench.run("c", needs=("a",)), bench.run("b"), bench.run("a")]
    outcomes = bench.side_by_side(planned).run_all()
    assert [f"{word} {name}" for word, name, *_ in bench.notes()] == [
        "begin b", "end b", "begin a", "end a", "begin c", "end c"
    ]  # fmt: skip
    assert outcomes == dict.fromkeys("abc", Outcome(FINISHED))
    assert bench.told == ["b", "a", "c"]


def test_as_many_at_once_as_there_are_devices(bench: Bench) -> None:
    """The first two wait for each other; never are there more, and no two on one device."""
    planned = [bench.run(str(i), *(("--meets", "2") if i < 2 else ("--seconds", "0.05"))) for i in range(6)]
    outcomes = bench.side_by_side(planned, slots=2).run_all()
    assert set(outcomes.values()) == {Outcome(FINISHED)}
    going: dict[str, str] = {}  # device → run
    for word, name, device, _ in bench.notes():
        if word == "begin":
            assert device not in going
            going[device] = name
        else:
            assert going.pop(device) == name
    assert {device for _, _, device, _ in bench.notes()} == {"a", "b"}


def test_a_failed_run_leaves_out_those_that_need_it(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """Its last line is the reason; what needs what needs it is left out too, and others go on."""
    planned = [
        bench.run("bad", "--fails", "run.py: a.csv row 3: the text is empty"),
        bench.run("next", needs=("bad",)),
        bench.run("last", needs=("good", "next")),
        bench.run("good"),
        bench.run("better", needs=("good",)),
    ]
    outcomes = bench.side_by_side(planned).run_all()
    assert outcomes["bad"] == (FAILED, "run.py: a.csv row 3: the text is empty")
    assert outcomes["next"] == (LEFT_OUT, "needs bad, which failed")
    assert outcomes["last"].status == LEFT_OUT
    assert "needs next" in outcomes["last"].reason
    assert [outcomes[name].status for name in ("good", "better")] == [FINISHED, FINISHED]
    assert sorted(name for _, name, *_ in bench.notes("begin")) == ["bad", "better", "good"]
    told = capsys.readouterr().out
    assert "! bad: failed after" in told
    assert "the text is empty" in told
    assert "good: all of good, " in told
    assert bench.told == ["good", "better"]


@pytest.mark.parametrize(
    ("flags", "reason"),
    [(("--leaves_nothing", ""), "found False"), (("--fails", ""), "found False"), (("--fails", "bar\r99 %"), "99 %")],
)
def test_a_run_without_results_has_failed(bench: Bench, flags: tuple[str, ...], reason: str) -> None:
    """Whatever its exit code; the reason is the last line that says anything."""
    assert bench.side_by_side([bench.run("a", *flags)]).run_all() == {"a": Outcome(FAILED, reason)}


@pytest.mark.parametrize("code", [0, 5])
def test_a_run_that_said_nothing_has_its_exit_code_for_a_reason(bench: Bench, code: int) -> None:
    """There is nothing better to say."""
    run = PlannedRun("a", ("-I", "-S", "-c", f"raise SystemExit({code})"), bench.folder / "runs" / "a")
    assert bench.side_by_side([run]).run_all() == {"a": Outcome(FAILED, f"exit code {code}")}


@pytest.mark.parametrize(
    ("number", "said", "reason"),
    [
        (signal.SIGKILL, "", "killed by signal 9 (Killed), as happens when memory is full"),
        (
            signal.SIGKILL,
            "epoch 2",
            "killed by signal 9 (Killed), as happens when memory is full; before that it said: epoch 2",
        ),
        (signal.SIGSEGV, "epoch 2", "killed by signal 11 (Segmentation fault); before that it said: epoch 2"),
    ],
)
def test_a_run_that_was_killed_says_so(bench: Bench, number: int, said: str, reason: str) -> None:
    """Its last line is from before, and knows nothing of it."""
    end = f"import os; print({said!r}, flush=True); os.kill(os.getpid(), {int(number)})"
    run = PlannedRun("a", ("-I", "-S", "-c", end), bench.folder / "runs" / "a")
    assert bench.side_by_side([run]).run_all() == {"a": Outcome(FAILED, reason)}


# --- Once and no more -------------------------------------------------------------------------------------------------


def test_finished_runs_are_not_begun_again(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """Their files stay as they are, and what needs them goes on; a failed one is tried again."""
    planned = [bench.run("a"), bench.run("b", needs=("a",)), bench.run("c", "--fails", "no")]
    bench.side_by_side(planned).run_all()
    kept = [(bench.folder / "runs" / name / "all_results.json").stat().st_mtime_ns for name in "ab"]
    bench.journal.unlink()
    bench.told.clear()
    capsys.readouterr()
    planned = [*planned[:2], bench.run("c"), bench.run("d", needs=("a", "b", "c"))]
    outcomes = bench.side_by_side(planned).run_all()
    assert outcomes == dict.fromkeys("abcd", Outcome(FINISHED))
    assert [name for _, name, *_ in bench.notes("begin")] == ["c", "d"]
    assert bench.told == ["a", "b", "c", "d"]  # what was finished is looked at, too
    assert kept == [(bench.folder / "runs" / name / "all_results.json").stat().st_mtime_ns for name in "ab"]
    assert "2 of 4 runs are finished already" in capsys.readouterr().out


@pytest.mark.parametrize(("resumes", "found"), [(False, "found False"), (True, "found ['checkpoint-5']")])
def test_half_a_run_is_done_anew_or_gone_on_with(bench: Bench, resumes: bool, found: str) -> None:
    """A script that goes on finds what it left; any other finds no folder."""
    run = bench.run("a", resumes=resumes)
    (run.folder / "checkpoint-5").mkdir(parents=True)
    (run.folder / "checkpoint-5" / "model.safetensors").write_bytes(b"half of a fi")
    runs = bench.side_by_side([run])
    assert runs.run_all() == {"a": Outcome(FINISHED)}
    assert last_line(runs.log_of(run)) == found
    assert (run.folder / "checkpoint-5").exists() is resumes


def test_the_other_runs_folders_are_left_alone(bench: Bench) -> None:
    """What is removed is the run's own folder, and nothing beside or above it."""
    beside = bench.folder / "runs" / "neighbour" / "file"
    beside.parent.mkdir(parents=True)
    beside.write_text("mine", encoding="utf-8")
    run = bench.run("a")
    run.folder.mkdir()
    bench.side_by_side([run]).run_all()
    assert beside.read_text(encoding="utf-8") == "mine"


def test_every_run_has_a_log_of_its_own(bench: Bench) -> None:
    """Names such as those of cells make names of files, one each; a second try begins the log anew."""
    names = ["base, 5 % of the labels, seed 0", "base, 5 % of the labels, seed 1", "base, 50 % of the labels, seed 0"]
    planned = [bench.run("x", "--fails", "first")._replace(name=name, folder=bench.folder / name) for name in names]
    bench.side_by_side(planned).run_all()
    logs = sorted(path.name for path in (bench.folder / "logs").iterdir())
    assert logs == sorted(f"base_{p}_percent_of_the_labels_seed_{s}.txt" for p, s in ((5, 0), (5, 1), (50, 0)))
    again = [bench.run("x", "--fails", "second")._replace(name=names[0], folder=bench.folder / "y")]
    bench.side_by_side(again).run_all()
    assert "first" not in (bench.folder / "logs" / "base_5_percent_of_the_labels_seed_0.txt").read_text()


class MadeUpProcess:
    """In place of a process: it ends at the third look, as its command's first word says."""

    def __init__(self, command: list[str], **_: Any) -> None:
        self.folder, self.returncode, self.looks = Path(command[2]), int(command[1]), 0
        MadeUpProcess.going += 1
        MadeUpProcess.most = max(MadeUpProcess.most, MadeUpProcess.going)
        MadeUpProcess.begun.append(self.folder.name)

    going, most = 0, 0
    begun: list[str] = []  # noqa: RUF012

    def poll(self) -> int | None:
        """None while it goes on."""
        self.looks += 1
        if self.looks < 3:
            return None
        if self.looks == 3:
            MadeUpProcess.going -= 1
            if self.returncode == 0:
                self.folder.mkdir(parents=True)
                (self.folder / "all_results.json").write_text("{}", encoding="utf-8")
        return self.returncode


@st.composite
def designs(draw: st.DrawFn) -> tuple[list[tuple[int, ...]], set[int], set[int], int]:
    """Of each run the earlier ones that it needs; those that fail; those that are finished already; devices."""
    count = draw(st.integers(1, 8))
    needs = [tuple(draw(st.sets(st.integers(0, i - 1), max_size=3))) if i else () for i in range(count)]
    some = st.sets(st.integers(0, count - 1), max_size=3)
    return needs, draw(some), draw(some), draw(st.integers(1, 4))


@settings(max_examples=40)
@given(design=designs(), backwards=st.booleans())
def test_any_plan_comes_to_its_end(
    tmp_path_factory: pytest.TempPathFactory,
    design: tuple[list[tuple[int, ...]], set[int], set[int], int],
    backwards: bool,
) -> None:
    """Finished is what was, and what does not fail and needs only such; each begins once, behind all that it needs."""
    needs, failing, finished, slots = design
    folder = tmp_path_factory.mktemp("plan")
    folders = [folder / str(i) for i in range(len(needs))]
    named = [tuple(f"run {j}" for j in js) for js in needs]
    planned = [
        PlannedRun(f"run {i}", (str(int(i in failing)), str(folders[i])), folders[i], named[i])
        for i in range(len(needs))
    ]
    for i in finished:
        (folder / str(i)).mkdir()
        (folder / str(i) / "all_results.json").write_text("{}", encoding="utf-8")
    expected: dict[str, str] = {}
    for i, js in enumerate(needs):
        ready = all(expected[f"run {j}"] == FINISHED for j in js)
        word = FINISHED if i in finished else LEFT_OUT if not ready else FAILED if i in failing else FINISHED
        expected[f"run {i}"] = word
    MadeUpProcess.going, MadeUpProcess.most, MadeUpProcess.begun = 0, 0, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(side_by_side.subprocess, "Popen", MadeUpProcess)
        patch.setattr(side_by_side, "PAUSE", 0)
        plan = planned[::-1] if backwards else planned
        runs = SideBySide(plan, [{} for _ in range(slots)], folder / "logs", 0, lambda run: "")
        outcomes = runs.run_all()
    assert {name: outcome.status for name, outcome in outcomes.items()} == expected
    begun = {i for i in range(len(needs)) if i not in finished and expected[f"run {i}"] != LEFT_OUT}
    assert sorted(MadeUpProcess.begun) == sorted(map(str, begun))
    place = {int(name): i for i, name in enumerate(MadeUpProcess.begun)}
    assert all(place[j] < place[i] for i in begun for j in needs[i] if j in place)
    assert MadeUpProcess.most <= slots
    independent = [i for i in begun if not needs[i]]
    assert MadeUpProcess.most >= min(slots, len(independent))


# --- Stopping ---------------------------------------------------------------------------------------------------------


def test_ctrl_c_stops_what_goes_on(bench: Bench) -> None:
    """Nothing is left running, and nothing more begins."""
    runs = bench.side_by_side([bench.run("a", "--meets", "2"), bench.run("b", "--seconds", "50"), bench.run("c")], 2)

    def interrupt(run: PlannedRun) -> NoReturn:
        raise KeyboardInterrupt

    runs.on_finish = interrupt
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        runs.run_all()
    assert time.monotonic() - started < 20
    processes = {name: int(process) for _, name, _, process in bench.notes("begin")}
    assert set(processes) == {"a", "b"}
    assert not any(is_alive(process) for process in processes.values())
    assert [name for _, name, *_ in bench.notes("end")] == ["a"]


@pytest.mark.slow  # it waits five seconds
def test_a_run_that_does_not_listen_is_killed(bench: Bench) -> None:
    """SIGINT first, and five seconds later what cannot be ignored."""
    stubborn = bench.run("b", "--seconds", "60", "--stubborn", "yes")
    runs = bench.side_by_side([bench.run("a", "--meets", "2"), stubborn], 2)

    def interrupt(run: PlannedRun) -> NoReturn:
        raise KeyboardInterrupt

    runs.on_finish = interrupt
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        runs.run_all()
    assert 4.5 < time.monotonic() - started < 20
    assert not any(is_alive(int(process)) for *_, process in bench.notes("begin"))


def driver(bench: Bench, *flags: str) -> subprocess.Popen[str]:
    """A process that runs a, b and c, two at a time; returns once two are at work."""
    call = [sys.executable, "-c", DRIVER, str(bench.folder), str(bench.folder / "work.py"), *flags]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    wait_for(lambda: len(bench.notes("begin")) == 2 or process.poll() is not None)
    return process


@pytest.mark.slow  # it imports torch in a process
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_killed_caller_takes_its_runs_along(bench: Bench, number: int) -> None:
    """Both that go on end before it does, and the third never begins."""
    process = driver(bench, "--seconds", "100")
    process.send_signal(number)
    told = process.communicate(timeout=30)[0]
    assert process.returncode != 0
    assert f"Stopped: ({int(number)}, '')" in told or f"Stopped: {int(number)}" in told, told
    assert [word for word, *_ in bench.notes()] == ["begin", "begin"]
    assert not any(is_alive(int(started)) for *_, started in bench.notes())


@pytest.mark.slow  # it imports torch in a process
def test_the_next_call_waits_for_orphans(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """Killed so that it can stop nothing, a caller leaves runs behind: the folder is free when the last is done."""
    process = driver(bench, "--seconds", "3")
    process.kill()
    process.communicate()
    assert any(is_alive(int(started)) for *_, started in bench.notes())
    with locked(bench.folder) as lock:
        assert sorted(word for word, *_ in bench.notes()) == ["begin", "begin", "end", "end"]
        found = [bench.run(name)._replace(folder=bench.folder / name) for name in "abc"]
        assert bench.side_by_side(found, lock=lock).outcomes == dict.fromkeys("ab", Outcome(FINISHED))
    assert "waiting until they end" in capsys.readouterr().out


def is_free(folder: Path) -> bool:
    """Whether nobody holds the folder's lock, asked through a file of its own."""
    file = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(file)
    return True


def test_a_run_holds_the_lock_when_its_caller_is_gone(bench: Bench) -> None:
    """The lock goes with the process: it is free again only when the run has ended."""
    runs = bench.side_by_side([bench.run("a", "--seconds", "60")], lock=-1)
    with locked(bench.folder) as lock:
        assert not is_free(bench.folder)
        runs.lock, (run,) = lock, runs.planned
        runs.logs.mkdir()
        runs.begin(run, {})
    try:
        assert not is_free(bench.folder)  # the caller's file is closed
    finally:
        runs.stop()
    assert is_free(bench.folder)


def test_the_lock_is_waited_for(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever comes second says that it waits, and gets it behind the first."""
    hold = "import fcntl, os, sys, time; file = os.open(sys.argv[1], 0); fcntl.flock(file, fcntl.LOCK_EX); "
    hold += "print('held', flush=True); time.sleep(0.4)"
    call = [sys.executable, "-I", "-S", "-c", hold, str(bench.folder)]
    with subprocess.Popen(call, stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        first.stdout.readline()
        held = time.monotonic()
        with locked(bench.folder):
            assert time.monotonic() - held > 0.3
    assert "waiting" in capsys.readouterr().out
    with locked(bench.folder):
        pass
    assert capsys.readouterr().out == ""
    assert is_free(bench.folder)


def test_the_lock_is_given_back_after_an_error(bench: Bench) -> None:
    """Or the same command could not be tried again in one process."""
    with pytest.raises(ZeroDivisionError), locked(bench.folder):
        1 / 0  # noqa: B018
    assert is_free(bench.folder)


def test_a_full_disk_is_told_in_a_line(bench: Bench) -> None:
    """Whatever of a comparison could not be written, its recipes, logs or report; and the folder is free again."""
    with pytest.raises(Failure, match=f"^{bench.folder}: could not be written: No space left.*is finished is kept$"):  # noqa: SIM117
        with locked(bench.folder):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert is_free(bench.folder)


# --- Devices ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("visible", "count", "workers", "expected"),
    [
        (None, 3, None, ["0", "1", "2"]),
        (None, 2, 5, ["0", "1", "0", "1", "0"]),
        (None, 4, 2, ["0", "1"]),
        ("2,5", 2, None, ["2", "5"]),
        ("2,5", 2, 3, ["2", "5", "2"]),
        ("GPU-aa,GPU-bb", 2, 1, ["GPU-aa"]),
    ],
)
def test_every_run_has_a_gpu(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, count: int, workers: int | None, expected: list[str]
) -> None:
    """One of those that the caller may see, by the name that the caller knows it by; in turn where they are few."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert device_slots(workers) == [{"CUDA_VISIBLE_DEVICES": name} for name in expected]


@pytest.mark.parametrize(
    ("cores", "workers", "runs", "threads"),
    [(1, None, 1, 1), (2, None, 2, 1), (4, None, 4, 1), (16, None, 4, 4), (6, 4, 4, 1), (8, 3, 3, 2), (2, 5, 5, 1)],
)
def test_every_run_has_a_share_of_the_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, workers: int | None, runs: int, threads: int
) -> None:
    """Four at most if nobody asks for more, and a thread at least; whoever set their number knows better."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert device_slots(workers) == [{"OMP_NUM_THREADS": str(threads)}] * runs
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert device_slots(workers) == [{"OMP_NUM_THREADS": "7"}] * runs


def test_a_machine_that_knows_no_affinity_counts_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """As macOS does not."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert device_slots(None) == [{"OMP_NUM_THREADS": "1"}] * 4
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert device_slots(None) == [{"OMP_NUM_THREADS": "1"}]


# --- What is said -----------------------------------------------------------------------------------------------------


def test_the_time_left_by_hand(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run takes what those of its kind took, an unknown kind what all did; two at once take half as long."""
    planned = [bench.run(f"small {i}", kind="5") for i in range(4)] + [bench.run("large", kind="100")]
    runs = bench.side_by_side(planned, slots=2)
    assert runs.time_left() == ""
    monkeypatch.setattr(side_by_side.time, "monotonic", lambda: 1000.0)
    runs.seconds = {"5": [20.0, 40.0]}
    assert runs.time_left() == "about 75 s left"  # (4 × 30 + 30) / 2
    runs.seconds["100"] = [300.0]
    assert runs.time_left() == "about 3.5 min left"  # (4 × 30 + 300) / 2 = 210 s
    process: Any = None
    runs.going = {"large": (planned[4], process, {}, 900.0), "small 0": (planned[0], process, {}, 950.0)}
    runs.waiting = planned[1:4]
    # 3 × 30 wait, 200 are left of the large one, none of the small one, which is late: 290 / 2 = 145, but 200 > 145
    assert runs.time_left() == "about 3.3 min left"
    runs.waiting = planned[1:4] * 4
    assert runs.time_left() == "about 4.7 min left"  # (360 + 200) / 2 = 280 s
    runs.seconds = {"5": [20.0, 40.0]}
    assert runs.time_left() == "about 3.0 min left"  # the large one is taken for 30 s and is over that: 360 / 2
    stage_one = bench.run("stage one", resumes=True, kind="stage one")
    runs.waiting = [stage_one]  # nobody knows
    assert runs.time_left() == ""
    runs.waiting, runs.going = planned[1:4], {"stage one": (stage_one, process, {}, 900.0)}
    assert runs.time_left() == ""
    runs.waiting, runs.going = [], {}
    assert runs.time_left() == "about 0 s left"


def test_only_finished_runs_say_how_long_the_rest_will_take(bench: Bench) -> None:
    """One that failed at once says nothing about the others; each is noted under its kind."""
    planned = [bench.run("a", kind="5"), bench.run("b", "--fails", "no", kind="5"), bench.run("c", kind="100")]
    runs = bench.side_by_side(planned)
    runs.run_all()
    assert {kind: len(seconds) for kind, seconds in runs.seconds.items()} == {"5": 1, "100": 1}
    assert all(0 < seconds[0] < 30 for seconds in runs.seconds.values())


@pytest.mark.parametrize(
    ("seconds", "spoken"),
    [
        (0, "0 s"),
        (89.4, "89 s"),
        (90, "1.5 min"),
        (600, "10.0 min"),
        (5399, "90.0 min"),
        (5400, "1.5 h"),
        (9e4, "25.0 h"),
    ],
)
def test_spoken_time(seconds: float, spoken: str) -> None:
    """In the unit that suits it."""
    assert spoken_time(seconds) == spoken


@pytest.mark.parametrize(
    ("written", "line"),
    [
        (b"", ""),
        (b"\n \n\t\n", ""),
        (b"one\ntwo\n", "two"),
        (b"one\n  two  \n\n", "two"),
        (b"one\r\ntwo", "two"),
        (b"start\n 10 %|#   |\r 50 %|##  |\r100 %|####|", "100 %|####|"),
        (b"start\n 50 %|##  |\rrun.py: a.csv: is empty\n\r\n", "run.py: a.csv: is empty"),
        (b"half of a character \xe2\x82\n", "half of a character �"),
        (b"x" * 600 + b"end", "x" * 497 + "end"),
    ],
)
def test_the_last_line_of_a_log(tmp_path: Path, written: bytes, line: str) -> None:
    """As a screen shows it, where a progress bar writes over itself; a long one from its end."""
    (tmp_path / "log").write_bytes(written)
    assert last_line(tmp_path / "log") == line
