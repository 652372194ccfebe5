"""What the demo left behind, for benchmarks that want a real model and real text."""

import sys
from pathlib import Path

from milco.config import Config, load

ROOT = Path(__file__).resolve().parents[1]


class Experiment:
    """Artifacts of a finished experiment of this folder; `make demo` makes one.

    Attributes:
        config: its settings.
        keys: keys of its artifacts.
    """

    def __init__(self, name: str = "demo"):
        settings = ROOT / "results" / name / "config.yaml"
        if not (settings.parent / "report.html").exists():
            sys.exit(f"{settings.parent} is not there: run `make demo` first, its model and text are measured here")
        self.config: Config = load(settings)
        self.keys = self.config.keys()

    def __getitem__(self, stage: str) -> Path:
        """Where the artifact of a stage lies."""
        return next((ROOT / "artifacts" / stage).glob(f"{self.keys[stage]}*"))

    def checkpoint(self, name: str) -> Path:
        """A checkpoint by the name of its source."""
        key = f"{name}-{self.config.source_key(name)}"
        converted = ROOT / "artifacts" / "checkpoint" / key
        return converted if converted.exists() else ROOT / "resources" / key
