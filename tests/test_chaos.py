"""A small chaos: a few faults at random over each script, in processes of their own; `make chaos` has more."""

import subprocess
import sys

import pytest

from tests.chaos import SAVE_STEPS
from tests.conftest import REPOSITORY


@pytest.mark.slow
@pytest.mark.parametrize("script", ["pretraining", "sentiment", "ner"])
def test_a_little_chaos(script: str) -> None:
    """All faults come, and after each the same command goes on by itself to the same weights, bit for bit."""
    flags = ["--script", script, "--kills", "3", "--stops", "1", "--steps", "60", "--documents", "80"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", *flags], capture_output=True, text=True, cwd=REPOSITORY, timeout=400
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = {line[:31].strip(): line[31:].split() for line in done.stdout.splitlines()[1:]}
    assert told["went on with no hand"] == ["4", "of", "4"]
    assert int(told["steps taken again, at most"][0]) <= SAVE_STEPS
    ended = told["runs that ended, equal weights"]
    assert ended[0] == ended[2] != "0"
