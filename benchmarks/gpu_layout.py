"""What gpu.py measures on: models with random weights and synthetic text of the paper's sizes, made on the spot.

The text is written to tables like those that the trainings read, in a folder of its own.
"""

import json
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from milco import config as configuration
from milco.config import Config
from milco.data.shards import write_shards
from milco.data.tokens import IDS
from milco.modeling.milco_config import MilcoConfig
from milco.modeling.model import MilcoModel

ROOT = Path(__file__).resolve().parents[1]
PAD, SPECIALS = 1, [0, 1, 2, 3]  # of XLM-R
ACTIVE = 0.01  # share of the terms that a text has


class Sizes(NamedTuple):
    """Everything that is large on a GPU and small in a test."""

    repeats: int = 50  # pairs of runs after the warm-up
    patience: float = 2.0  # seconds that the runs of a case may take beyond three pairs
    terms: tuple[int, ...] = (30522, 250002)
    widths: tuple[int, ...] = (768, 1024, 384)
    batch: int = 32
    length: int = 256
    most_batch: int = 8192  # where the search for the largest batch ends,
    most_tokens: int = 2**20  # and that for the most tokens
    layers: int = 24
    width: int = 1024
    heads: int = 16
    inner: int = 4096
    source_terms: int = 250002
    teacher_layers: int = 12
    teacher_width: int = 768
    pairs: int = 64  # of a step on one device, as in the paper
    queries: int = 8
    align_length: int = 256
    passage_length: int = 512
    examples: int = 4096  # of the synthetic tables
    documents: int = 512  # that are encoded
    before_interruption: float = 15.0  # seconds of a training until it is cut off
    training: float = 105.0  # and seconds that it may take after it


FULL = Sizes()
TINY = Sizes(
    repeats=2, patience=0.0, terms=(50, 300), widths=(16,), batch=3, length=9, most_batch=4, most_tokens=300, layers=2,
    width=16, heads=2, inner=32, source_terms=300, teacher_layers=1, teacher_width=16, pairs=4, queries=2,
    align_length=8, passage_length=16, examples=240, documents=5, before_interruption=0.0, training=900.0,
)  # fmt: skip


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def paper(sizes: Sizes, **align) -> Config:
    """The settings of the paper's experiment for one device."""
    config = configuration.load(ROOT / "config" / "milco.yaml")
    settings = {"model": {"query_max_length": sizes.passage_length, "passage_max_length": sizes.passage_length}}
    settings["align"] = {"max_length": sizes.align_length, "global_batch_size": sizes.pairs} | align
    settings["distill"] = {"global_batch_size": sizes.queries} | align
    parts = {name: getattr(config, name).model_copy(update=changes) for name, changes in settings.items()}
    return config.model_copy(update=parts)


def model_of(sizes: Sizes, terms: int, echo: bool, where: torch.device | None = None) -> MilcoModel:
    """A MILCO model with random weights, in which a text has `ACTIVE` of the pivot terms; without a connector, if the
    vocabulary is the encoder's own."""
    torch.manual_seed(0)
    connector = terms != sizes.source_terms
    encoder = {
        "model_type": "xlm-roberta", "vocab_size": sizes.source_terms, "hidden_size": sizes.width,
        "num_hidden_layers": sizes.layers, "num_attention_heads": sizes.heads, "intermediate_size": sizes.inner,
        "max_position_embeddings": sizes.passage_length + 2, "pad_token_id": PAD, "type_vocab_size": 1,
    }  # fmt: skip
    width = sizes.teacher_width if connector else sizes.width
    config = MilcoConfig(
        encoder, terms, width, connector=connector, echo=echo and connector, special_token_ids=SPECIALS
    )
    with where or device():
        model = MilcoModel(config)
        ids = torch.randint(4, sizes.source_terms, (8, sizes.align_length))
        with torch.no_grad():
            pooled = model.eval()(ids, torch.ones_like(ids)).pooled
            model.pivot_head.decoder.bias.sub_(pooled.flatten()[: 2**20].quantile(1 - ACTIVE))
    return model


def teacher_of(sizes: Sizes, folder: Path) -> Path:
    """A checkpoint of an English retriever with random weights, whose words are w0, w1, …"""
    torch.manual_seed(1)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words += [f"w{number}" for number in range(sizes.terms[0] - len(words))]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    shape = BertConfig(
        vocab_size=len(words), hidden_size=sizes.teacher_width, num_hidden_layers=sizes.teacher_layers,
        num_attention_heads=sizes.teacher_width // (64 if sizes.teacher_width >= 64 else 8),
        intermediate_size=4 * sizes.teacher_width, max_position_embeddings=sizes.passage_length,
    )  # fmt: skip
    model = BertForMaskedLM(shape)
    with torch.no_grad():
        model.cls.predictions.bias.sub_(4 * model.get_output_embeddings().weight.norm(dim=1).mean())
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=sizes.passage_length
    ).save_pretrained(folder)
    return folder


class Text:
    """Random texts, as lists of ids.

    Args:
        terms: ids of the vocabulary.
    """

    def __init__(self, seed: int, terms: int):
        self.random, self.terms = np.random.default_rng(seed), terms

    def lengths(self, count: int, most: int, mean: float | None = None) -> np.ndarray:
        """Lengths of texts: all of them full, or with a mean and a long tail as in parallel text."""
        if mean is None:
            return np.full(count, most)
        return np.clip(4 + self.random.exponential(mean - 4, count), 4, most).astype(int)

    def lists(self, lengths: np.ndarray, specials: bool = True) -> list[np.ndarray]:
        """Ids of texts, between <s> and </s>."""
        texts = [self.random.integers(4, self.terms, length).astype(np.uint32) for length in lengths]
        for text in texts if specials else []:
            text[0], text[-1] = 0, 2
        return texts


def write_pairs(sizes: Sizes, folder: Path, mean: float | None = None, terms: int | None = None) -> Path:
    """Token cache and teacher targets of Stage 1, both in `folder`: pairs of the full length or of a mean one."""
    text, count = Text(0, sizes.source_terms), sizes.examples
    lengths = text.lengths(count, sizes.align_length, mean)
    english = {"input_ids": pa.array(text.lists(lengths), IDS)}
    pairs = {"input_ids": pa.array(text.lists(lengths), IDS), "english_id": pa.array(range(count), pa.uint32())}
    terms = terms or sizes.terms[0]
    wanted = [np.sort(text.random.choice(terms, max(1, int(ACTIVE * terms)), replace=False)) for _ in range(count)]
    weights = [text.random.uniform(0.1, 2.0, len(found)).astype(np.float16) for found in wanted]
    targets = {"terms": pa.array(wanted), "weights": pa.array(weights, pa.list_(pa.float16()))}
    _write(folder, {"english": english, "pairs": pairs, "targets": targets})
    (folder / "families.json").write_text(json.dumps([[1, count]]))
    (folder / "columns.json").write_text(json.dumps(terms))
    return folder


def write_triples(sizes: Sizes, folder: Path, mean: tuple[float, float] | None = None) -> Path:
    """Packed triples of Stage 2 in `folder`: of the full length, or of mean ones of query and document."""
    text, count = Text(1, sizes.source_terms), sizes.examples // 8
    asked, given = mean or (None, None)
    lengths = text.lengths(8 * count, sizes.passage_length, given)
    numbers = np.arange(8 * count, dtype=np.uint32).reshape(count, 8)
    queries = {
        "input_ids": pa.array(text.lists(text.lengths(count, sizes.passage_length, asked)), IDS),
        "pos": pa.array(list(numbers[:, :1]), IDS),
        "neg": pa.array(list(numbers[:, 1:]), IDS),
        "pos_scores": pa.array([[9.0]] * count),
        "neg_scores": pa.array(text.random.normal(3, 2, (count, 7)).tolist()),
        "longest": pa.array(lengths.reshape(count, 8)[:, 1:].max(axis=1), pa.uint32()),
    }
    _write(folder, {"documents": {"input_ids": pa.array(text.lists(lengths), IDS)}, "queries": queries})
    (folder / "negatives.json").write_text(json.dumps([[7, count]]))
    return folder


def _write(folder: Path, tables: dict[str, dict[str, pa.Array]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, columns in tables.items():
        source = folder / f"{name}.parquet"
        pq.write_table(pa.table(columns), source)
        write_shards({name: source}, folder, partial(_as_it_is), 1)
        source.unlink()


def _as_it_is(worker: int, workers: int):
    return lambda batch: batch
