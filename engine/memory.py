"""How much memory this process has held at most."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")


def peak_mb() -> float:
    """MB (2²⁰ bytes) resident at the peak, of this program alone.

    Linux's getrusage also counts what the process held before it became this program: a child of a large process would be
    charged with its parent's memory. /proc starts anew with each program. Elsewhere getrusage has to do (macOS: in bytes).
    """
    try:
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    except (OSError, StopIteration, ValueError):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most / (1 << 20) if sys.platform == "darwin" else most / 1024
