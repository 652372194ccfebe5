"""Access to the finished demo, for benchmarks that need a real model and real text."""

import sys
from pathlib import Path

from milco import experiments
from milco.config import load

ROOT = Path(__file__).resolve().parents[1]


class Experiment(experiments.Experiment):
    """A finished experiment of this folder; `make demo` makes one."""

    def __init__(self, name: str = "demo"):
        settings = ROOT / "results" / name / "config.yaml"
        if not (settings.parent / "report.html").exists():
            sys.exit(f"{settings.parent} is not there: run `make demo` first, its model and text are measured here")
        super().__init__(load(settings))

    def at(self, path: str) -> Path:
        """Where something of it lies, from wherever the benchmark is run."""
        return ROOT / path
