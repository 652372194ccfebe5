"""The one place for settings: names, types, defaults, bounds and help of every key of a configuration.

A YAML file holds values only. The workflow validates it when it is parsed, so a wrong key stops the run before any job
starts. Every program reads the same resolved file.

    source.py       where text and weights come from
    sections.py     the settings of each stage
    experiment.py   all sections together, and the checks between them
    reading.py      from YAML to settings, and the message for every mistake
    documentation.py  writes config/README.md and config/schema.json
"""

from milco.config.experiment import Config
from milco.config.reading import load, parse, parse_all, read_yaml
from milco.config.sections import (
    Align,
    Corpora,
    Distill,
    Evaluate,
    Export,
    Machine,
    Model,
    Publish,
    Training,
)
from milco.config.source import Source

__all__ = [
    "Align",
    "Config",
    "Corpora",
    "Distill",
    "Evaluate",
    "Export",
    "Machine",
    "Model",
    "Publish",
    "Source",
    "Training",
    "load",
    "parse",
    "parse_all",
    "read_yaml",
]
