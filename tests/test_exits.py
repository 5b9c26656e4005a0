"""What scripts say: one line for all processes, above the progress bars, and nothing that a terminal would obey."""

import io
import re
from weakref import WeakSet

import pytest
from tqdm import tqdm

from two_stage.command_line.exits import say


def test_what_is_said_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    """A file may be called so as to clear the screen; line breaks are the script's own."""
    say("a\x1b[2Jb\x07c\rd\n…\u202eé")  # the last but one turns the direction of writing
    assert capsys.readouterr().out == "a [2Jb c d\n… é\n"


def test_one_process_speaks(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of all."""
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        say(f"process {rank}")
    assert capsys.readouterr().out == "process 0\n"


def test_a_line_stands_above_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is wiped away before it and drawn again behind it, on one terminal."""
    terminal = io.StringIO()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr(tqdm, "_instances", WeakSet())  # bars of runs that were cut off in other tests
    with tqdm(total=2, ncols=40) as bar:
        bar.update()
        say("saved")
    before, behind = terminal.getvalue().split("saved\n")
    assert re.search(r"\r +\r$", before)
    assert "1/2" in behind
