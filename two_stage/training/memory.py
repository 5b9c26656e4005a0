"""How much memory this process holds."""

import re
from pathlib import Path
from resource import RUSAGE_SELF, getrusage

STATUS = Path("/proc/self/status")  # Linux


def memory_gb(field: str = "VmHWM") -> float:
    """Of this process in 10^9 bytes: the peak so far, or with VmRSS what it holds now.

    Not getrusage's where there is another way: a new process inherits its parent's peak there. A Mac, which has no
    other, tells it in bytes, and the peak alone.
    """
    if not STATUS.exists():
        return getrusage(RUSAGE_SELF).ru_maxrss / 1e9
    return int(re.search(rf"{field}:\s+(\d+)", STATUS.read_text(encoding="ascii"))[1]) * 1024 / 1e9  # type: ignore[index]
