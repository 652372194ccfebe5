"""The model that a training starts from."""

from pathlib import Path
from typing import Any

from transformers import set_seed

from milco.config import Config
from milco.modeling.model import MilcoModel
from milco.modeling.texts import wordless_pieces


def new_model(config: Config, encoder: Path, teacher: Path, echo: bool) -> MilcoModel:
    """Build the untrained model of a configuration."""
    set_seed(config.training_seed)
    settings = config.model
    model = MilcoModel.from_checkpoints(
        encoder,
        teacher if settings.connector else None,
        trust_encoder=config.trusts("dense"),
        trust_teacher=config.trusts("teacher"),
        encoder_layers=settings.encoder_layers,
        dropout=settings.dropout,
        **(source_view(config) if echo else {"echo": False}),
        query_max_length=settings.query_max_length,
        passage_max_length=settings.passage_max_length,
    )
    freeze(model, config)
    return model


def source_view(config: Config) -> dict[str, Any]:
    """Fields of `MilcoConfig` for LexEcho that replace those of the model that Stage 2 starts from."""
    settings = config.model
    found: dict[str, Any] = {"echo": settings.echo}
    if not config.start or "echo_scale" in settings.model_fields_set:  # else a finished model keeps its own
        found["echo_scale"] = settings.echo_scale
    if settings.echo_scale_trained:
        found["echo_scale_trained"] = True
    if settings.echo_special_tokens:
        found["special_token_ids"] = []
    return found


def echo_wordless_pieces(model: MilcoModel) -> None:
    """Keep pieces without a word in the source view."""
    wordless = wordless_pieces(model.tokenizer)
    model.config.special_token_ids = [piece for piece in model.config.special_token_ids if piece not in wordless]


def freeze(model: MilcoModel, config: Config) -> None:
    """Freeze the parameters that the configuration excludes from training."""
    if config.model.freeze_embeddings:
        for name, parameter in model.encoder.named_parameters():
            if name.endswith("_embeddings.weight"):
                parameter.requires_grad_(False)
        if model.connector is None:  # the decoder is made of them
            model.pivot_head.decoder.weight.requires_grad_(False)
    if config.model.freeze_pivot_head:
        model.pivot_head.requires_grad_(False)
