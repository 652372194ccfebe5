"""Stage 2, distillation: train the aligned model to rank as the teacher does, with sparse vectors and LexEcho.

Run by rule `distill` through workflow/scripts/launch.sh (torchrun):
    torchrun -m milco.stages distill --config FILE --corpora FOLDER --triples FOLDER --start FOLDER --lsr FOLDER
        --development FOLDER --output FOLDER
"""

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PretrainedConfig, set_seed

from milco.config import Config
from milco.data.triples import SIDES, Triples
from milco.modeling.authors_layout import is_theirs
from milco.modeling.losses import contrastive_loss, distillation_loss, own_scores, source_scores, sparse_regularizer
from milco.modeling.model import MilcoModel, Views
from milco.modeling.texts import special_and_wordless
from milco.training.batching import Batch, Steps, collate_texts
from milco.training.development import Development
from milco.training.gather import from_all_processes
from milco.training.initial import echo_wordless_pieces, freeze, new_model, source_view
from milco.training.trainer import Loss, train


class Groups:
    """Triples as groups of one query, one positive and N−1 negatives. A query with fewer than N−1 negatives repeats
    some of them.

    Args:
        pad: the encoder's padding id.
        config: its training seed, the step and the example's number determine the documents drawn for a query.
    """

    def __init__(self, triples: Triples, pad: int, config: Config):
        self.triples, self.pad, self.settings, self.seed = triples, pad, config.distill, config.training_seed
        wanted = self.settings.train_group_size - 1
        short = sum(queries for negatives, queries in triples.negatives if negatives < wanted)
        if short and int(os.environ.get("RANK", 0)) == 0:
            print(f"{short:,} of {len(triples):,} queries have fewer than {wanted} negatives: drawn with replacement")

    def __call__(self, examples: np.ndarray, step: int) -> Batch:
        """B examples → what `collate_texts` makes of B+B·N texts, the queries, then N documents for each; documents
        (B·N numbers of the documents) and scores (B×N)."""
        queries = self.triples.queries
        lists = [queries.lists(name, examples) for side in SIDES for name in (side, f"{side}_scores")]
        drawn = [self._draw(int(example), step, *found) for example, *found in zip(examples, *lists, strict=True)]
        rows, scores = (np.stack(values) for values in zip(*drawn, strict=True))
        numbers = rows.astype(np.int64).ravel()
        texts = [*queries.lists("input_ids", examples), *self.triples.documents.lists("input_ids", numbers)]
        return {
            **collate_texts(texts, self.pad, self.settings.max_tokens_per_device),
            "documents": torch.from_numpy(numbers),
            "scores": torch.from_numpy(scores.astype(np.float32)),
        }

    def _draw(
        self,
        example: int,
        step: int,
        positives: np.ndarray,
        positive_scores: np.ndarray,
        negatives: np.ndarray,
        negative_scores: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The N documents of a query at one step, the positive first, and their teacher scores."""
        random = np.random.default_rng([self.seed, step, example])
        one = random.integers(len(positives), size=1)
        wanted = self.settings.train_group_size - 1
        others = random.choice(len(negatives), wanted, replace=len(negatives) < wanted)
        rows = np.concatenate([positives[one], negatives[others]])
        return rows, np.concatenate([positive_scores[one], negative_scores[others]])


def loss(config: Config) -> Loss:
    """The stage's loss: KL to the teacher's ranking of each group, InfoNCE, or both; plus the sparsity regularizer of
    the pivot views (rows: the queries, then the documents of all groups). Its terms are scalars."""
    settings = config.distill

    def terms(views: Views, batch: Batch) -> dict[str, Tensor]:
        ids, queries = batch["input_ids"], len(batch["scores"])
        query, document = views.pivot.tensor_split([queries])
        documents = [document] if views.source is None else [document, ids[queries:], views.source[queries:]]
        with torch.autocast(ids.device.type, enabled=False):  # bfloat16 rounds scores from 16 on to eighths
            if settings.contrastive_weight:
                # Negatives are the documents of all processes: how many share a batch changes nothing.
                pivot, *source = map(from_all_processes, documents)
                scores = query @ pivot.T
            else:
                pivot, *source = (rows.unflatten(0, (queries, -1)) for rows in documents)
                scores = (pivot @ query[:, :, None]).squeeze(2)
        if views.source is not None:
            scores = scores + source_scores(ids[:queries], views.source[:queries], *source)
        own = scores
        if settings.contrastive_weight:
            mine = torch.arange(len(document), device=ids.device)
            mine += int(os.environ.get("RANK", 0)) * len(document)
            own = own_scores(scores[:, mine])
        losses = {}
        if settings.distillation_weight:
            divergence = distillation_loss(own, batch["scores"], settings.teacher_temperature).mean()
            losses["loss_distillation"] = settings.distillation_weight * divergence
        if settings.contrastive_weight:
            positives = mine.view(queries, -1)[:, 0]
            contrast = contrastive_loss(scores, positives, from_all_processes(batch["documents"])).mean()
            losses["loss_contrast"] = settings.contrastive_weight * contrast
        active_query, active_document = ((view.detach() > 0).sum(dim=1) for view in (query, document))
        return {
            **losses,
            "loss_query_sparsity": settings.lambda_q * sparsity(query),
            "loss_document_sparsity": settings.lambda_d * sparsity(document),
            "active_query": active_query.float().mean(),
            "active_document": active_document.float().mean(),
            "empty_query": (active_query == 0).float().mean(),
            "empty_document": (active_document == 0).float().mean(),
            "agreement": (own.detach().argmax(dim=1) == batch["scores"].argmax(dim=1)).float().mean(),
        }

    def sparsity(pivot: Tensor) -> Tensor:
        # FLOPS squares the mean over the batch, so it must see the whole global batch.
        rows = from_all_processes(pivot) if settings.sparse_reg == "flops" else pivot
        return sparse_regularizer(rows, settings.sparse_reg)

    return terms


def run(config: Config, corpora: Path, triples: Path, start: Path, lsr: Path, development: Path, output: Path) -> None:
    """Train Stage 2 from the model or checkpoint `start` and write the model to `output`.

    Args:
        triples: what rule `pack` wrote.
        start: the model of Stage 1, ours or the authors'; the encoder's checkpoint if
            `pretrained_alignment_checkpoint` is `none`.
        lsr: the English retriever's checkpoint. Its head is used if there is a connector but no Stage 1; a start in the
            authors' layout may need its tokenizer.
    """
    settings = config.distill
    if settings.pretrained_alignment_checkpoint == "none":
        model = new_model(config, start, lsr, echo=config.model.echo)
    else:
        set_seed(config.training_seed)  # LexEcho is new here and initialised at random
        trust = config.trusts("distill")
        lengths = config.model.model_dump(include={"query_max_length", "passage_max_length"})
        stored = PretrainedConfig.get_config_dict(start)[0]
        theirs = is_theirs(stored)
        model = MilcoModel.from_pretrained(
            start,
            trust_remote_code=trust,
            encoder=config.encoder_apart,
            teacher=lsr if lsr != start else None,
            document_budgets={},
            query_budgets={},
            **lengths,
            **source_view(config),
        )
        # The authors' Stage 1 has no source view.
        if theirs and model.echo and not stored.get("echo", False) and not config.model.echo_special_tokens:
            model.config.special_token_ids = special_and_wordless(model.tokenizer)
        freeze(model, config)
    _ = model.pivot_tokenizer  # it is saved with the weights; if it is missing, that is said before the training
    if config.model.echo_wordless_pieces:
        echo_wordless_pieces(model)
    packed = Triples(triples)
    groups = Groups(packed, model.tokenizer.pad_token_id, config)
    steps = Steps(
        packed.longest, [(1, len(packed))], settings.global_batch_size, settings.num_train_epochs, config.training_seed
    )
    look = Development(config, development, model).look
    inputs = [corpora, triples, start, lsr, *([development] if settings.looks_decide else [])]
    train(config, settings, "distill", model, steps, groups, loss(config), look, inputs, output)
