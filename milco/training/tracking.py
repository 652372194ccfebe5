"""Log a running training to TensorBoard, Weights & Biases or trackio (`tracking`).

They get the rows of metrics.jsonl and write into the folder `tracking` beside it:

    tensorboard --logdir artifacts
    wandb sync artifacts/distill/KEY/tracking/wandb/offline-run-*
    TRACKIO_DIR=artifacts/distill/KEY/tracking trackio show

Compute nodes have no network: Weights & Biases works offline unless WANDB_MODE says otherwise. Whatever else these
packages read from the environment (WANDB_PROJECT, TRACKIO_DIR, …) counts too.
"""

import importlib.util
import os
from pathlib import Path

from transformers import TrainerCallback
from transformers.integrations import get_reporting_integration_callbacks

from milco.errors import MilcoError

PROJECT = "milco"


def trackers(name: str, folder: Path) -> list[TrainerCallback]:
    """The callbacks that show a training; none for `none`.

    Args:
        folder: where they write.

    Raises:
        MilcoError: the package is not installed.
    """
    if name == "none":
        return []
    if importlib.util.find_spec(name) is None:
        raise MilcoError(f"tracking: {name} is not installed; `pip install {name}`, or set tracking: none")
    defaults = {
        "TENSORBOARD_LOGGING_DIR": str(folder),
        "TRACKIO_DIR": str(folder),
        "WANDB_DIR": str(folder),
        "WANDB_MODE": "offline",
        "WANDB_PROJECT": PROJECT,
    }
    for variable, value in defaults.items():
        os.environ.setdefault(variable, value)
    folder.mkdir(parents=True, exist_ok=True)  # else Weights & Biases uses another one
    return [callback() for callback in get_reporting_integration_callbacks([name])]
