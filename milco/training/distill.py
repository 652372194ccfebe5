"""Stage 2, distillation: the aligned model learns to rank as the teacher does, sparsely, with LexEcho beside it.

Run by rule `distill` through workflow/scripts/launch.sh (torchrun):
    torchrun -m milco.stages distill --config FILE --corpora FOLDER --triples FILE --start FOLDER --lsr FOLDER
        --output FOLDER
"""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor
from transformers import set_seed

from milco.config import Config
from milco.data.shards import ROWS
from milco.modeling.losses import contrastive_loss, distillation_loss, own_scores, source_scores, sparse_regularizer
from milco.modeling.model import MilcoModel, Views
from milco.training.batching import Batch, Steps, collate_texts
from milco.training.development import Development
from milco.training.gather import from_all_processes
from milco.training.initial import freeze, new_model, source_view
from milco.training.trainer import Loss, train

SIDES = ("pos", "neg")


class Groups:
    """Triples, tokenised, as groups of one query, one positive and N−1 negatives. Of the texts only their tokens stay
    in memory, each text once. A query with fewer negatives has some of them several times.

    Args:
        triples: a table in the hub's layout.
        seed: with the step and the example's number it decides which documents a query is shown with.
    """

    def __init__(self, triples: pa.Table, model: MilcoModel, config: Config):
        self.settings, self.seed = config.distill, config.seed
        self.pad = model.tokenizer.pad_token_id
        flat = [pc.list_flatten(triples[side]).cast(pa.large_string()) for side in SIDES]
        texts = pa.chunked_array([part for side in flat for part in side.chunks]).dictionary_encode().combine_chunks()
        rows = np.split(texts.indices.to_numpy(), [len(flat[0])])
        scores = [pc.list_flatten(triples[f"{side}_scores"]).to_numpy() for side in SIDES]
        starts = [_starts(pc.list_value_length(triples[side]).to_numpy()) for side in SIDES]
        self._say_which_are_short(np.diff(starts[1]))
        self.sides = list(zip(starts, rows, scores, strict=True))
        self.documents = Tokens(model, texts.dictionary, model.config.passage_max_length)
        self.queries = Tokens(model, triples["query"], model.config.query_max_length)
        self.lengths = np.maximum.reduceat(self.documents.lengths[rows[1]], starts[1][:-1])

    def _say_which_are_short(self, negatives: np.ndarray) -> None:
        wanted = self.settings.train_group_size - 1
        short = int((negatives < wanted).sum())
        if short and int(os.environ.get("RANK", 0)) == 0:
            print(f"{short:,} of {len(negatives):,} queries have fewer than {wanted} negatives: drawn with replacement")

    def __call__(self, examples: np.ndarray, step: int) -> Batch:
        """B examples → what `collate_texts` makes of B+B·N texts, the queries, then N documents for each; documents
        (B·N numbers of the documents) and scores (B×N)."""
        drawn = [self._draw(int(example), step) for example in examples]
        rows, scores = (np.stack(values) for values in zip(*drawn, strict=True))
        texts = [self.queries[example] for example in examples] + [self.documents[row] for row in rows.ravel()]
        return {
            **collate_texts(texts, self.pad, self.settings.max_tokens_per_device),
            "documents": torch.from_numpy(rows.ravel()),
            "scores": torch.from_numpy(scores),
        }

    def _draw(self, example: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        """The N documents of a query at one step, the positive first, and their teacher scores."""
        random = np.random.default_rng([self.seed, step, example])
        (first, positives), (second, negatives) = ((s[example], s[example + 1] - s[example]) for s, _, _ in self.sides)
        positive = first + random.integers(positives, size=1)
        wanted = self.settings.train_group_size - 1
        others = second + random.choice(negatives, wanted, replace=bool(negatives < wanted))
        chosen = list(zip(self.sides, (positive, others), strict=True))
        rows = np.concatenate([rows[places] for (_, rows, _), places in chosen])
        scores = np.concatenate([scores[places] for (_, _, scores), places in chosen])
        return rows.astype(np.int64), scores.astype(np.float32)


class Tokens:
    """Token ids of texts, one behind the other.

    Attributes:
        lengths: tokens of each text.
    """

    def __init__(self, model: MilcoModel, texts: pa.Array | pa.ChunkedArray, max_length: int):
        ids, lengths = [np.zeros(0, np.uint32)], [np.zeros(0, np.int64)]
        for start in range(0, len(texts), ROWS):
            some = texts[start : start + ROWS].to_pylist()
            found = model.tokenizer(some, truncation=True, max_length=max_length)["input_ids"]
            lengths.append(np.array([len(text) for text in found]))
            ids.append(np.concatenate(found).astype(np.uint32))
        self.ids, self.lengths = np.concatenate(ids), np.concatenate(lengths)
        self.starts = _starts(self.lengths)

    def __getitem__(self, row: int) -> np.ndarray:
        return self.ids[self.starts[row] : self.starts[row + 1]]


def _starts(lengths: np.ndarray) -> np.ndarray:
    """Where each of some lists begins in all of them together, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(lengths)])


def loss(config: Config) -> Loss:
    """The stage's loss: KL to the teacher's ranking of each group, InfoNCE, or both; plus the price of active pivot
    terms."""
    settings = config.distill

    def terms(views: Views, batch: Batch) -> dict[str, Tensor]:
        ids, queries = batch["input_ids"], len(batch["scores"])
        query, document = views.pivot.tensor_split([queries])
        documents = [document] if views.source is None else [document, ids[queries:], views.source[queries:]]
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
        trust = config.trusts("distill")
        model = MilcoModel.from_pretrained(
            start, trust_remote_code=trust, document_budgets={}, query_budgets={}, **source_view(config)
        )
        freeze(model, config)
    groups = Groups(pq.read_table(triples), model, config)
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
