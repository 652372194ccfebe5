"""Read a checkpoint's config.json without torch or transformers, before any job runs."""

import json
from pathlib import Path
from typing import Any

from milco.errors import MilcoError

# Types of transformers with a table of learned positions; in the second kind it begins behind the padding id.
FROM_THE_START = {"albert", "bert", "convbert", "distilbert", "electra", "ernie", "mobilebert", "rembert"}
BEHIND_THE_PAD = {"camembert", "data2vec-text", "esm", "longformer", "luke", "mpnet", "roberta", "xlm-roberta"}
BEHIND_THE_PAD |= {"xlm-roberta-xl", "xmod"}
MODELS = ("milco-lsr", "milco")  # ours and the authors'; the encoder's configuration lies in theirs, or beside it


def is_milco(settings: dict[str, Any]) -> bool:
    """Whether a config.json is that of a MILCO model, in our layout or in the authors'."""
    return settings.get("model_type") in MODELS


def positions(checkpoint: Path) -> int | None:
    """Number of positions of a checkpoint; None if the checkpoint is missing or its type has no table of positions."""
    said = settings_of(checkpoint)
    if is_milco(said):
        said = said.get("encoder") or settings_of(checkpoint / "encoder")
    kind, rows = said.get("model_type"), said.get("max_position_embeddings")
    if rows is None or kind not in FROM_THE_START | BEHIND_THE_PAD:
        return None
    pad = said.get("pad_token_id")
    return rows - (1 if pad is None else pad) - 1 if kind in BEHIND_THE_PAD else rows


def read_config(path: Path) -> dict[str, Any]:
    """A config.json.

    Raises:
        MilcoError: it is no JSON object.
    """
    try:
        settings = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise MilcoError(f"{path}: broken ({error})") from None
    if not isinstance(settings, dict):
        raise MilcoError(f"{path}: broken (not an object)")
    return settings


def settings_of(checkpoint: Path) -> dict[str, Any]:
    """What the config.json of a checkpoint says; nothing, if it has none."""
    path = checkpoint / "config.json"
    return read_config(path) if path.is_file() else {}
