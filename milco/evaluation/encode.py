"""Texts of the test collections to vectors, for every system that has some.

    align, distill   sparse rows of a MILCO model
    teacher          the English retriever reading queries of any language; collections with English documents only,
                     where there are any
    dense            the untrained encoder, all layers, mean pooling, normalised; cross-lingual collections
                     only, where there are any

A text that stands in several collections is encoded once: vectors hang on `text_id`. They are written in parts of
`WINDOW` texts, each sorted by length for the encoder, so that memory does not grow with the collection.

Run by rules `encode`, one job for each shard of the texts, and `merge`:
    python -m milco.stages encode --config FILE --system NAME --shard 2-of-8 --model FOLDER --corpora FOLDER
        --output FOLDER
    python -m milco.stages merge --shard FOLDER --shard FOLDER … --output FOLDER
"""

import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from math import ceil
from pathlib import Path

import numpy as np
import scipy.sparse
import torch
from tqdm import tqdm
from transformers import AutoModel, AutoTokenizer

from milco.config import Config
from milco.data.beir import Collection, iter_documents, read_about, read_collection, read_queries
from milco.data.vectors import load_vectors, pivot_columns, save_dense, save_vectors
from milco.errors import MilcoError
from milco.files import finished_folder
from milco.modeling.checkpoints import load
from milco.modeling.model import MilcoModel
from milco.modeling.rows import in_text_order, padded_batches
from milco.modeling.teacher import Teacher

SIDES = ("queries", "documents")
WINDOW = 16_384


def text_id(text: str) -> str:
    """Name of a text in a vector file: the start of its SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def folders_of(system: str, collections: Path) -> list[Path]:
    """The test collections that a system is measured on, by name."""
    folders = sorted(collections.iterdir())
    if system == "teacher":
        return [folder for folder in folders if read_about(folder)["document_language"] == "en"] or folders
    return cross_lingual(folders) if system == "dense" else folders


def collections_of(system: str, collections: Path) -> Iterator[Collection]:
    """The same, one in memory at a time."""
    return map(read_collection, folders_of(system, collections))


def cross_lingual(folders: list[Path]) -> list[Path]:
    """The collections whose queries are in another language than their documents; all, if none is so."""
    said = {folder: read_about(folder) for folder in folders}
    return [f for f in folders if said[f]["query_language"] != said[f]["document_language"]] or folders


def encode(
    config: Config, system: str, model: Path, collections: Path, output: Path, shard: int = 0, shards: int = 1
) -> None:
    """Encode queries and documents of the test collections into the folder `output`: every text, or those of one of
    so many shards, to which their ids assign them.

    Raises:
        MilcoError: a text has weights that are no numbers.
    """
    encoder = (DenseEncoder if system == "dense" else SparseEncoder)(config, system, model)
    folders = folders_of(system, collections)
    with finished_folder(output) as folder:
        for side in SIDES:
            total = sum(1 for _ in texts_of_shard(folders, side, shard, shards))
            mine = texts_of_shard(folders, side, shard, shards)
            with tqdm(total=total, desc=side, unit="text", mininterval=2) as bar:
                for number in range(max(1, ceil(total / WINDOW))):
                    part = dict(islice(mine, WINDOW))
                    path = folder / f"{side}-{number:05}.safetensors"
                    encoder.save(path, encoder.encode(side, list(part.values()), bar.update), list(part))


def texts_of_shard(folders: list[Path], side: str, shard: int, shards: int) -> Iterator[tuple[str, str]]:
    """(text_id, text) of the queries or documents that a shard has, read one at a time. Of the texts nothing is kept
    but the 8 bytes of their ids."""
    seen: set[int] = set()
    for folder in folders:
        texts = read_queries(folder)[0].items() if side == "queries" else iter_documents(folder)
        for _, text in texts:
            identifier = text_id(text)
            number = int(identifier, 16)
            if number % shards == shard and number not in seen:
                seen.add(number)
                yield identifier, text


def merge(shards: list[Path], output: Path) -> None:
    """Write the vectors of all shards into one folder of the same form."""
    with finished_folder(output) as folder:
        for side in SIDES:
            parts = [path for shard in shards for path in sorted(shard.glob(f"{side}-*.safetensors"))]
            for number, path in enumerate(parts):
                for suffix in (".safetensors", ".ids.txt"):
                    shutil.copyfile(path.with_suffix(suffix), folder / f"{side}-{number:05}{suffix}")


def _telling(done: Callable[[int], object], batches: Iterable[tuple]) -> Iterator[tuple]:
    """The batches of an encoder, and how many texts each had to whom it may concern."""
    for places, rows in batches:
        done(len(places))
        yield places, rows


def refuse_broken(rows: scipy.sparse.csr_array, texts: Sequence[str]) -> None:
    """Raise MilcoError if the row of a text has weights that are no numbers."""
    if not np.isfinite(rows.data).all():
        row = int(np.searchsorted(rows.indptr, np.flatnonzero(~np.isfinite(rows.data))[0], side="right")) - 1
        raise MilcoError(f"the weights of {texts[row]!r} are no numbers; the model has diverged")


class SparseEncoder:
    """MILCO models and the English teacher."""

    def __init__(self, config: Config, system: str, model: Path):
        self.config = config
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        trust = config.trusts(config.distill.miner if system == "miner" else system)
        if system == "teacher":
            teacher = Teacher(model, self.device, trust)
            self.iter_rows = teacher.iter_rows
            self.width = self.pivot_columns = teacher.head.decoder.out_features
        else:
            milco = MilcoModel.from_pretrained(model, trust_remote_code=trust).to(self.device)
            self.iter_rows = milco.iter_rows
            self.width, self.pivot_columns = milco.width, milco.config.pivot_vocab_size

    def encode(self, side: str, texts: list[str], done: Callable[[int], object]) -> scipy.sparse.csr_array:
        settings = self.config.model
        length = settings.query_max_length if side == "queries" else settings.passage_max_length
        with torch.autocast(self.device, torch.bfloat16, enabled=self.config.evaluate.bf16):
            batches = self.iter_rows(texts, length, self.config.evaluate.batch_size)
            rows = in_text_order(_telling(done, batches), self.width)
        refuse_broken(rows, texts)
        return rows

    def save(self, path: Path, rows: scipy.sparse.csr_array, ids: list[str]) -> None:
        save_vectors(path, rows, ids, self.pivot_columns)


class DenseEncoder:
    """The multilingual encoder as its authors meant it: mean pooling, normalised, with its own prefixes."""

    def __init__(self, config: Config, system: str, model: Path):
        self.config = config
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        trust = config.trusts("dense")
        self.tokenizer = load(AutoTokenizer, model, trust)
        self.model = load(AutoModel, model, trust, dtype=torch.float32).eval().to(self.device)

    @torch.no_grad()
    def encode(self, side: str, texts: list[str], done: Callable[[int], object]) -> np.ndarray:
        settings, evaluate = self.config.model, self.config.evaluate
        length = settings.query_max_length if side == "queries" else settings.passage_max_length
        prefix = evaluate.dense_query_prefix if side == "queries" else evaluate.dense_passage_prefix
        vectors = np.zeros((len(texts), self.model.config.hidden_size), np.float32)
        batches = padded_batches(self.tokenizer, [prefix + text for text in texts], length, evaluate.batch_size)
        with torch.autocast(self.device, torch.bfloat16, enabled=evaluate.bf16):
            for places, batch in batches:
                batch = {name: values.to(self.device) for name, values in batch.items()}
                states = self.model(**batch).last_hidden_state.float()
                mask = batch["attention_mask"][:, :, None]
                mean = (states * mask).sum(dim=1) / mask.sum(dim=1)
                vectors[places] = torch.nn.functional.normalize(mean, dim=1).cpu().numpy()
                done(len(places))
        return vectors

    def save(self, path: Path, vectors: np.ndarray, ids: list[str]) -> None:
        save_dense(path, vectors, ids)


class Vectors:
    """What `encode` wrote, looked up by text."""

    def __init__(self, folder: Path):
        self.rows: dict = {}
        self.place: dict[str, dict[str, int]] = {}
        self.pivot_columns: int | None = None
        for side in SIDES:
            paths = sorted(folder.glob(f"{side}-*.safetensors"))
            parts = [load_vectors(path) for path in paths]
            self.pivot_columns = pivot_columns(paths[0])
            stack = np.concatenate if self.pivot_columns is None else scipy.sparse.vstack
            self.rows[side] = stack([rows for rows, _ in parts])
            ids = (identifier for _, part in parts for identifier in part)
            self.place[side] = {identifier: row for row, identifier in enumerate(ids)}

    def of(self, side: str, texts: Iterable[str]):
        """Rows of some texts, in their order."""
        return self.rows[side][[self.place[side][text_id(text)] for text in texts]]
