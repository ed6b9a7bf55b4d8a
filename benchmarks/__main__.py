"""`python -m benchmarks [NAME …] [--threads 2]`: one JSON object a line, each with the machine it was measured on."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
from pathlib import Path

NAMES = sorted(file.stem for file in Path(__file__).parent.glob("*.py") if not file.stem.startswith("_"))


def main() -> int:
    """Run the named benchmarks, all where none is named."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of torch (default 2)")
    args = parser.parse_args()
    unknown = [name for name in args.names if name not in NAMES]
    if unknown:
        print(f"error: benchmark {unknown[0]!r} is unknown; known: {', '.join(NAMES)}", file=sys.stderr)
        return 2
    os.environ["OMP_NUM_THREADS"] = str(args.threads)  # before torch is loaded
    import torch

    torch.set_num_threads(args.threads)
    machine = {"cores": os.cpu_count(), "processor": platform.machine(), "torch": str(torch.__version__)}
    for name in args.names or NAMES:
        measured = importlib.import_module(f"benchmarks.{name}").measure(args.threads)
        print(json.dumps({"benchmark": name, "threads": args.threads, **measured, "machine": machine}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
