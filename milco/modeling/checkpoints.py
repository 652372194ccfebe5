"""Load third-party checkpoints. Their Python code runs only if the configuration trusts it."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from .errors import MilcoError


def load(kind: Any, checkpoint: str | Path, trust: bool, **how: Any) -> Any:
    """`kind.from_pretrained(checkpoint, **how)` of one of transformers' Auto classes. Weights of a model are float32,
    however they were saved.

    Args:
        trust: whether Python files that lie in the checkpoint may be run (`sources.NAME.trust_remote_code`). Where
            transformers knows the type of the model itself, it does without them.

    Raises:
        MilcoError: the checkpoint needs code that is not trusted; or it lacks weights, which transformers would
            initialise at random; or it lacks tokenizer files, for which transformers would create an empty tokenizer.
    """
    if hasattr(kind, "from_config"):  # a model, not a configuration or tokenizer
        how = {"dtype": torch.float32, **how, "output_loading_info": True}
    try:
        found = kind.from_pretrained(checkpoint, trust_remote_code=trust, **how)
    except ValueError as error:
        if "backend tokenizer" in str(error):
            raise _without_tokenizer(checkpoint, how) from None
        if trust or "trust_remote_code" not in str(error):
            raise
        raise refusal(checkpoint, "set trust_remote_code of its source to true, or choose another model") from None
    if isinstance(found, PreTrainedTokenizerBase) and len(found) <= len(found.all_special_tokens):
        raise _without_tokenizer(checkpoint, how)
    if not isinstance(found, tuple):
        return found
    model, info = found
    _refuse_missing(checkpoint, model, info, pooler=kind is AutoModelForSequenceClassification)
    return model


def check_weights(model: PreTrainedModel, folder: Path) -> None:
    """Whether all weights of a model that another package has loaded were in a folder. Only their names are read.

    Raises:
        MilcoError: some were missing and were initialised at random.
    """
    found: Any = type(model).from_pretrained(folder, device_map="meta", output_loading_info=True)
    _refuse_missing(folder, model, found[1])


def _refuse_missing(checkpoint: str | Path, model: Any, info: dict[str, Any], pooler: bool = False) -> None:
    """`pooler`: whether the model reads what the pooler gives, as classifiers do."""
    missing = sorted(name for name in info["missing_keys"] if pooler or "pooler." not in name)
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise MilcoError(
            f"{checkpoint}: no weights for {missing[0]}{more}, as {type(model).__name__} wants them; name a checkpoint "
            "that was saved from such a model"
        )


def _without_tokenizer(checkpoint: str | Path, how: dict[str, Any]) -> MilcoError:
    where = "/".join(filter(None, [str(checkpoint), how.get("subfolder")]))
    return MilcoError(f"{where}: no files of a tokenizer; copy them there (tokenizer.json, tokenizer_config.json)")


def refusal(checkpoint: str | Path, remedy: str) -> MilcoError:
    """Error for a checkpoint that needs untrusted code."""
    return MilcoError(f"{checkpoint} cannot be loaded without running Python code in it; read that, then {remedy}")
