"""How much memory this process holds."""

import re
import sys
from pathlib import Path
from resource import RUSAGE_SELF, getrusage

STATUS = Path("/proc/self/status")  # Linux


def memory_gb(field: str = "VmHWM") -> float:
    """Of this process in 10^9 bytes: the peak so far, or with VmRSS what it holds now.

    Where there is no such line (a Mac, some sandboxes) it is getrusage's peak, which a new process inherits from its
    parent.
    """
    status = STATUS.read_text(encoding="utf-8", errors="replace") if STATUS.exists() else ""
    if found := re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE):
        return int(found[1]) * 1024 / 1e9
    return getrusage(RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9
