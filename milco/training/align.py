"""Stage 1, sparse alignment: text in any language learns to speak the English retriever's vocabulary.

Run by rule `align` through workflow/scripts/launch.sh (torchrun):
    torchrun -m milco.stages align --config FILE --corpora FOLDER --tokens FOLDER --targets FOLDER --encoder FOLDER
        --lsr FOLDER --output FOLDER
"""

from pathlib import Path

import numpy as np
import pyarrow.dataset
import torch
from torch import Tensor

from milco.config import Align, Config
from milco.data.tokens import TokenCache
from milco.modeling.losses import alignment_loss
from milco.modeling.model import Views
from milco.modeling.warmstart import fit_connector
from milco.training.batching import Batch, Steps, collate_texts
from milco.training.development import Development
from milco.training.start import new_model
from milco.training.teacher import Targets
from milco.training.trainer import Loss, train


class Pairs:
    """Parallel pairs with their teacher targets, ready for the model.

    Args:
        cache: token ids of both sides.
        targets: what the teacher says of each english_id.
        pad: the encoder's padding id.
    """

    def __init__(self, cache: TokenCache, targets: Targets, pad: int, settings: Align):
        self.cache, self.targets, self.pad, self.settings = cache, targets, pad, settings

    def __call__(self, pairs: np.ndarray, step: int) -> Batch:
        """B pairs with U different English texts → what `collate_texts` makes of B+U texts, the other languages first;
        the teacher's pivot weights of the U texts as cells (row, term, weight); english (B: which of the U a pair
        has)."""
        english, place = np.unique(self.cache.english_ids(pairs), return_inverse=True)
        texts = [*self.cache.pairs.lists("input_ids", pairs), *self.cache.english.lists("input_ids", english)]
        cells = self.targets.cells(english)
        return {
            **collate_texts(texts, self.pad, self.settings.max_tokens_per_device),
            **{name: torch.from_numpy(values) for name, values in zip(("row", "term", "weight"), cells, strict=True)},
            "english": torch.from_numpy(place),
        }


def loss(config: Config) -> Loss:
    """The stage's loss: both views of a text against the teacher's target of its English side."""

    def terms(views: Views, part: Batch) -> dict[str, Tensor]:
        place = part["english"]
        other, english = views.pooled.tensor_split([len(place)])
        target = torch.zeros_like(english, dtype=torch.float32)
        target[part["row"], part["term"]] = part["weight"].expm1()
        kind = config.align.alignment_loss
        active = (other.detach() > 0).sum(dim=1)
        return {
            "loss_other": alignment_loss(other, target[place], kind).mean(),
            "loss_english": alignment_loss(english, target, kind)[place].mean(),
            "active_other": active.float().mean(),
            "active_english": (english.detach() > 0).sum(dim=1)[place].float().mean(),
            "empty_other": (active == 0).float().mean(),
            "without_terms": ((active == 0) & (target[place].sum(dim=1) == 0)).float().mean(),
        }

    return terms


def run(config: Config, corpora: Path, tokens: Path, targets: Path, encoder: Path, lsr: Path, output: Path) -> None:
    """Train Stage 1 from the checkpoints `encoder` and `lsr` and write the model to `output`."""
    settings = config.align
    model = new_model(config, encoder, lsr, echo=False)
    if settings.warm_start_texts:
        english = pyarrow.dataset.dataset(corpora / "english.parquet")
        count = english.count_rows()
        chosen = np.random.RandomState(config.seed).choice(count, min(settings.warm_start_texts, count), replace=False)
        texts = english.take(chosen, columns=["english"])["english"].to_pylist()
        explained = fit_connector(model, lsr, texts, settings.max_length, config.trusts("teacher"))
        print(f"connector: closed form from {len(texts)} texts, {explained:.0%} of the variance explained")
    cache = TokenCache(tokens)
    pairs = Pairs(cache, Targets(targets), model.tokenizer.pad_token_id, settings)
    steps = Steps(
        cache.lengths,
        cache.families,
        settings.global_batch_size,
        settings.num_train_epochs,
        config.seed,
        together=settings.pairs_per_text,
    )
    look = Development(config, corpora, model).look
    inputs = [corpora, tokens, targets, encoder, lsr]
    train(config, settings, "align", model, steps, pairs, loss(config), look, inputs, output)
