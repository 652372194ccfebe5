"""Stage 1, sparse alignment: train the model to map text in any language to the English retriever's vocabulary.

Run by rule `align` through workflow/scripts/launch.sh (torchrun):
    torchrun -m milco.stages align --config FILE --corpora FOLDER --tokens FOLDER --targets FOLDER --encoder FOLDER
        --lsr FOLDER --development FOLDER --output FOLDER
"""

import os
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.dataset
import torch
from torch import Tensor

from milco.config import Config
from milco.data.tokens import TokenCache
from milco.modeling.losses import alignment_loss, contrastive_loss, squared_distances, stored_scores
from milco.modeling.model import MilcoModel, Views
from milco.modeling.teacher import Teacher
from milco.modeling.warmstart import fit_connector
from milco.training.batching import Batch, Steps, collate_texts
from milco.training.development import Development
from milco.training.initial import new_model
from milco.training.teacher import Targets
from milco.training.trainer import Loss, train


class Pairs:
    """Collator of Stage 1: numbers of pairs → model inputs with teacher targets.

    Args:
        cache: token ids of both sides.
        targets: the teacher's targets by english_id.
        pad: the encoder's padding id.
        config: its training seed and the step decide which texts the contrast draws.
        teacher_pad: the teacher's, if it encodes the texts itself (`target: raw`).
    """

    def __init__(self, cache: TokenCache, targets: Targets, pad: int, config: Config, teacher_pad: int | None = None):
        self.cache, self.targets, self.pad, self.settings = cache, targets, pad, config.align
        self.seed, self.teacher_pad = config.training_seed, teacher_pad

    def __call__(self, pairs: np.ndarray, step: int) -> Batch:
        """B pairs with U different English texts → what `collate_texts` makes of B+U texts, the other languages first,
        or of B texts if the English ones have no loss; the teacher's pivot weights of the U texts as cells (row, term,
        weight), or as `teacher` the batch that it reads; english (B: which of the U texts a pair has). With a contrast
        also `documents`, the U texts and those that all processes draw at this step, and `contrast`, their cells."""
        english, place = np.unique(self.cache.english_ids(pairs), return_inverse=True)
        texts = self.cache.pairs.lists("input_ids", pairs)
        if self.settings.english_weight:
            texts = [*texts, *self.cache.english.lists("input_ids", english)]
        budget = self.settings.max_tokens_per_device
        said: Batch
        if self.teacher_pad is None:
            said = self._cells(english)
        else:
            said = {"teacher": collate_texts(self.targets.tokens(english), self.teacher_pad, budget)}
        if self.settings.contrastive_weight:
            random = np.random.default_rng([self.seed, step])
            drawn = random.integers(len(self.cache.english), size=self.settings.contrastive_texts)
            documents = np.concatenate([english, drawn])
            said |= {"contrast": self._cells(documents), "documents": torch.from_numpy(documents)}
        return {**collate_texts(texts, self.pad, budget), **said, "english": torch.from_numpy(place)}

    def _cells(self, texts: np.ndarray) -> Batch:
        cells = zip(("row", "term", "weight"), self.targets.cells(texts), strict=True)
        return {name: torch.from_numpy(values) for name, values in cells}


def loss(config: Config, teacher: Teacher | None = None) -> Loss:
    """The stage's loss: both sides of a pair against the teacher's target of the English side. Rows of the views are
    the other sides, then the English ones if they are encoded; its terms are scalars.

    Args:
        teacher: for `target: raw`, on the device of the training.
    """
    settings = config.align

    def terms(views: Views, batch: Batch) -> dict[str, Tensor]:
        place = batch["english"]
        other, english = views.pooled.tensor_split([len(place)])
        target = (
            _stored(batch, int(place.max()) + 1, other.shape[1])
            if teacher is None
            else _said(teacher, batch["teacher"])
        )
        active = (other.detach() > 0).sum(dim=1)
        more = {}
        if settings.english_weight:
            more["loss_english"] = settings.english_weight * distance(english, target, place)
            more["active_english"] = (english.detach() > 0).sum(dim=1)[place].float().mean()
        if settings.contrastive_weight:
            more["loss_contrast"] = settings.contrastive_weight * preferred(views, batch)
        return {
            "loss_other": distance(other, target[place], slice(None)),
            **more,
            "active_other": active.float().mean(),
            "empty_other": (active == 0).float().mean(),
            "without_terms": ((active == 0) & ~(target[place] > 0).any(dim=1)).float().mean(),
        }

    def preferred(views: Views, batch: Batch) -> Tensor:
        """InfoNCE of the pairs against the sampled texts. Texts of other pairs are not used as negatives: which of them
        a process has depends on the number of processes."""
        place, documents = batch["english"], batch["documents"]
        with torch.autocast(documents.device.type, enabled=False):
            scores = stored_scores(views.pivot[: len(place)], **batch["contrast"], count=len(documents))
        column = torch.arange(len(documents), device=place.device)
        others = (column < len(documents) - settings.contrastive_texts) & (column != place[:, None])
        return contrastive_loss(scores.masked_fill(others, -torch.inf), place, documents).mean()

    def distance(pooled: Tensor, target: Tensor, place: Tensor | slice) -> Tensor:
        """Mean loss over the pairs; `place` says which text each pair has."""
        if settings.pairs_per_mean == 1:
            return alignment_loss(pooled, target, settings.alignment_loss)[place].mean()
        squares, terms = (
            of_texts[place].view(-1, settings.pairs_per_mean).sum(dim=1)
            for of_texts in squared_distances(pooled, target)
        )
        return (squares / terms.clamp(min=1)).mean()

    return terms


def _stored(batch: Batch, texts: int, columns: int) -> Tensor:
    """Targets from their cells, U×V_e: 0 where the teacher has no term."""
    target = torch.zeros(texts, columns, device=batch["weight"].device)
    target[batch["row"], batch["term"]] = batch["weight"].expm1()
    return target


def _said(teacher: Teacher, texts: Batch) -> Tensor:
    """Targets computed by the teacher now: U×V_e raw logits."""
    ids, mask, passes = texts["input_ids"], texts["attention_mask"], texts["passes"]
    parts = [teacher.pooled(ids[rows, :length], mask[rows, :length]) for rows, length in passes]
    return torch.cat(parts)[torch.cat([rows for rows, _ in passes]).argsort()].float()


def warm_start(model: MilcoModel, config: Config, corpora: Path, lsr: Path) -> None:
    """Initialise the connector from a sample of English texts, if `align.warm_start_texts` is set."""
    wanted = config.align.warm_start_texts
    if not wanted:
        return
    english = pyarrow.dataset.dataset(corpora / "english.parquet")
    count = english.count_rows()
    chosen = np.random.RandomState(config.training_seed).choice(count, min(wanted, count), replace=False)
    texts = english.take(chosen, columns=["english"])["english"].to_pylist()
    explained = fit_connector(model, lsr, texts, config.align.max_length, config.trusts("teacher"))
    print(f"connector: closed form from {len(texts)} texts, {explained:.0%} of the variance explained")


def run(
    config: Config,
    corpora: Path,
    tokens: Path,
    targets: Path,
    encoder: Path,
    lsr: Path,
    development: Path,
    output: Path,
) -> None:
    """Train Stage 1 from the checkpoints `encoder` and `lsr` and write the model to `output`."""
    settings = config.align
    model = new_model(config, encoder, lsr, echo=False)

    teacher = None
    if settings.target == "raw":
        device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
        teacher = Teacher(lsr, device, config.trusts("teacher"))
    cache = TokenCache(tokens)
    pads = model.tokenizer.pad_token_id, teacher.tokenizer.pad_token_id if teacher else None
    pairs = Pairs(cache, Targets(targets), pads[0], config, pads[1])
    steps = Steps(
        cache.lengths if settings.english_weight else partial(cache.pairs.lengths, "input_ids"),
        cache.families,
        settings.global_batch_size,
        settings.num_train_epochs,
        config.training_seed,
        together=settings.pairs_per_text,
    )
    look = Development(config, development, model).look
    inputs = [corpora, tokens, targets, encoder, lsr, *([development] if settings.looks_decide else [])]
    begin = partial(warm_start, model, config, corpora, lsr)
    train(config, settings, "align", model, steps, pairs, loss(config, teacher), look, inputs, output, begin)
