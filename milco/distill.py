"""Stage 2, distillation: the aligned model learns to rank as the teacher does, sparsely, with LexEcho beside it.

Run by rule `distill` through workflow/scripts/launch.sh (torchrun):
    torchrun -m milco distill --config FILE --corpora FOLDER --triples FILE --start FOLDER --lsr FOLDER
        --output FOLDER
"""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import set_seed

from milco.batching import Steps, parts_within
from milco.config import Config
from milco.development import Development
from milco.losses import contrastive_loss, distillation_loss, own_scores, source_scores, sparse_regularizer
from milco.model import MilcoModel, Views
from milco.training import Loss, Part, collate_texts, freeze, from_all_processes, new_model, train


class Groups:
    """Triples, tokenised, as groups of one query, one positive and N−1 negatives.

    Args:
        table: triples in the hub's layout.
        seed: with the step and the example's number it decides which documents a query is shown with.
    """

    def __init__(self, table: pd.DataFrame, model: MilcoModel, config: Config):
        self.table, self.settings, self.seed = table, config.distill, config.seed
        self.at_once = config.compares_all_queries()
        self.pad = model.tokenizer.pad_token_id
        texts = list(dict.fromkeys(text for column in (table.pos, table.neg) for row in column for text in row))
        self.row = {text: row for row, text in enumerate(texts)}
        self.documents = _tokenise(model, texts, model.config.passage_max_length)
        self.queries = _tokenise(model, table["query"].tolist(), model.config.query_max_length)
        self.lengths = np.array([max(len(self.documents[self.row[text]]) for text in row) for row in table.neg])

    def __call__(self, examples: np.ndarray, step: int) -> list[Part]:
        groups = [self._draw(int(example), step) for example in examples]
        documents = [[self.row[text] for text in texts] for texts, _ in groups]
        tokens = np.array(
            [
                len(self.queries[example]) + sum(len(self.documents[row]) for row in rows)
                for example, rows in zip(examples, documents, strict=True)
            ]
        )
        whole = [slice(0, len(examples))]
        parts = whole if self.at_once else parts_within(tokens, self.settings.max_tokens_per_device)
        return [self._part(examples[part], documents[part], groups[part], len(examples)) for part in parts]

    def _part(self, examples: np.ndarray, documents: list[list[int]], groups: list, of: int) -> Part:
        """B of so many examples → what `collate_texts` makes of B+B·N texts, the queries, then N documents for each;
        documents (B·N numbers of the documents) and scores (B×N)."""
        rows = [row for group in documents for row in group]
        texts = [self.queries[example] for example in examples] + [self.documents[row] for row in rows]
        return {
            **collate_texts(texts, self.pad, self.settings, len(examples) / of),
            "documents": torch.tensor(rows),
            "scores": torch.tensor([scores for _, scores in groups]),
        }

    def _draw(self, example: int, step: int) -> tuple[list[str], list[float]]:
        """The documents of a query at one step, the positive first, and their teacher scores."""
        triple = self.table.iloc[example]
        random = np.random.default_rng([self.seed, step, example])
        positive = random.integers(len(triple.pos))
        negatives = random.choice(len(triple.neg), self.settings.train_group_size - 1, replace=False)
        texts = [triple.pos[positive], *triple.neg[negatives]]
        return texts, [float(triple.pos_scores[positive]), *map(float, triple.neg_scores[negatives])]


def _tokenise(model: MilcoModel, texts: list[str], max_length: int) -> list[np.ndarray]:
    return [np.array(ids) for ids in model.tokenizer(texts, truncation=True, max_length=max_length)["input_ids"]]


def loss(config: Config) -> Loss:
    """The stage's loss: KL to the teacher's ranking of each group, InfoNCE, or both; plus the price of active pivot
    terms."""
    settings = config.distill

    def terms(views: Views, part: Part) -> dict[str, Tensor]:
        ids, queries = part["input_ids"], len(part["scores"])
        query, document = views.pivot[:queries], views.pivot[queries:]
        # Negatives are the documents of all processes: how many share a batch changes nothing.
        together = from_all_processes if settings.contrastive_weight else lambda rows: rows
        mine = torch.arange(len(document), device=ids.device)
        mine += int(os.environ.get("RANK", 0)) * len(document) if settings.contrastive_weight else 0
        scores = query @ together(document).T
        if views.source is not None:
            source = together(ids[queries:]), together(views.source[queries:])
            scores = scores + source_scores(ids[:queries], views.source[:queries], *source)
        own = own_scores(scores[:, mine])
        losses = {}
        if settings.distillation_weight:
            divergence = distillation_loss(own, part["scores"], settings.teacher_temperature).mean()
            losses["loss_distillation"] = settings.distillation_weight * divergence
        if settings.contrastive_weight:
            positives = mine.view(queries, -1)[:, 0]
            contrast = contrastive_loss(scores, positives, together(part["documents"])).mean()
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
            "agreement": (own.detach().argmax(dim=1) == part["scores"].argmax(dim=1)).float().mean(),
        }

    def sparsity(pivot: Tensor) -> Tensor:
        # FLOPS squares the mean over the batch, so that it must see all of it.
        rows = from_all_processes(pivot) if settings.sparse_reg == "flops" else pivot
        return sparse_regularizer(rows, settings.sparse_reg)

    return terms


def run(config: Config, corpora: Path, triples: Path, start: Path, lsr: Path, output: Path) -> None:
    """Train Stage 2 from the model or checkpoint `start` and write the model to `output`.

    Args:
        start: the model of Stage 1; the encoder's checkpoint if `pretrained_alignment_checkpoint` is `none`.
        lsr: the English retriever's checkpoint, whose head is taken where there is no Stage 1 but a connector.
    """
    settings = config.distill
    if settings.pretrained_alignment_checkpoint == "none":
        model = new_model(config, start, lsr, echo=config.model.echo)
    else:
        set_seed(config.seed)  # LexEcho is new here and drawn at random
        echo = {"echo": config.model.echo, "echo_scale": config.model.echo_scale}
        trust = config.trusts("distill")
        model = MilcoModel.from_pretrained(
            start, trust_remote_code=trust, document_budgets={}, query_budgets={}, **echo
        )
        freeze(model, config)
    groups = Groups(pd.read_parquet(triples), model, config)
    steps = Steps(
        groups.lengths.__getitem__,
        [(1, len(groups.lengths))],
        settings.global_batch_size,
        settings.num_train_epochs,
        config.seed,
    )
    look = Development(config, corpora, model).look
    inputs = [corpora, triples, start, lsr]
    train(config, settings, "distill", model, steps, groups, loss(config), look, inputs, output)
