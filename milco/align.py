"""Stage 1, sparse alignment: text in any language learns to speak the English retriever's vocabulary.

Run by rule `align` through workflow/scripts/launch.sh (torchrun):
    torchrun -m milco align --config FILE --corpora FOLDER --tokens FOLDER --targets FILE --encoder FOLDER --lsr FOLDER
        --output FOLDER
"""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from milco.batching import plan_steps
from milco.config import Config
from milco.development import Development
from milco.losses import alignment_loss
from milco.model import MilcoModel
from milco.tokens import TokenCache
from milco.training import Loss, encode_by_length, new_model, pad_texts, train
from milco.vectors import load_vectors
from milco.warmstart import fit_connector

LENGTH_GROUPS = 2  # the steps are made of pairs of like length already


class Pairs:
    """Parallel pairs with their teacher targets, ready for the model.

    Args:
        cache: token ids of both sides.
        targets: positive pivot weights log1p(t) of the teacher, one row per english_id.
        pad: the encoder's padding id.
    """

    def __init__(self, cache: TokenCache, targets, pad: int):
        self.cache, self.targets, self.pad = cache, targets, pad
        self.lengths = np.maximum(cache.pair_lengths, cache.english.lengths[cache.pair_english])

    def __call__(self, pairs: np.ndarray, step: int) -> dict[str, Tensor]:
        """B pairs with U different English texts → input_ids and attention_mask ((B+U)×L, the other languages
        first), target (U×V_e raw positive logits of the teacher) and english (B: which of the U a pair has)."""
        english, place = np.unique(self.cache.pair_english[pairs], return_inverse=True)
        texts = [self.cache.other(pair) for pair in pairs] + [self.cache.english.ids(row) for row in english]
        ids, mask = pad_texts(texts, self.pad)
        target = torch.from_numpy(self.targets[english].toarray()).expm1()
        return {"input_ids": ids, "attention_mask": mask, "target": target, "english": torch.from_numpy(place)}


def loss(config: Config) -> Loss:
    """The stage's loss: both views of a text against the teacher's target of its English side."""

    def terms(model: MilcoModel, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        views = encode_by_length(model, batch["input_ids"], batch["attention_mask"], LENGTH_GROUPS)
        place, target = batch["english"], batch["target"]
        other, english = views.pooled[: len(place)], views.pooled[len(place) :]
        kind = config.align.alignment_loss
        active = (other.detach() > 0).sum(dim=1)
        return {
            "loss_other": alignment_loss(other, target[place], kind).mean(),
            "loss_english": alignment_loss(english, target, kind)[place].mean(),
            "active_other": active.float().mean(),
            "active_english": (english.detach() > 0).sum(dim=1).float().mean(),
            "without_terms": ((active == 0) & (target[place].sum(dim=1) == 0)).float().sum(),
        }

    return terms


def run(config: Config, corpora: Path, tokens: Path, targets: Path, encoder: Path, lsr: Path, output: Path) -> None:
    """Train Stage 1 from the checkpoints `encoder` and `lsr` and write the model to `output`."""
    settings = config.align
    model = new_model(config, encoder, lsr, echo=False)
    if settings.warm_start_texts:
        texts = pd.read_parquet(corpora / "english.parquet").english
        texts = texts.sample(min(settings.warm_start_texts, len(texts)), random_state=config.seed).tolist()
        explained = fit_connector(model, lsr, texts, settings.max_length)
        print(f"connector: closed form from {len(texts)} texts, {explained:.0%} of the variance explained")
    rows, _ = load_vectors(targets)
    pairs = Pairs(TokenCache(tokens), rows, model.tokenizer.pad_token_id)
    steps = plan_steps(
        pairs.lengths,
        settings.global_batch_size,
        settings.num_train_epochs,
        config.seed,
        families=pairs.cache.pair_english,
        together=settings.pairs_per_text,
    )
    look = Development(config, corpora, model).look
    inputs = [corpora, tokens, targets, encoder, lsr]
    train(config, settings, "align", model, steps, pairs, loss(config), look, inputs, output)
