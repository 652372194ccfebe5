"""Encode the test collections with every system that uses vectors.

    align, distill   sparse rows of a MILCO model
    teacher          the English retriever reading queries of any language; collections with English documents only,
                     where there are any
    dense            the untrained encoder, all layers, mean pooling, normalised; cross-lingual collections
                     only, where there are any
    NAME             a source of evaluate.baselines: a MILCO model as above, a model of sentence-transformers or mteb,
                     or the sparse weights of BGE-M3

`encoder_of` chooses the encoder class by the format of the source. It has `device`, `limit(side)`,
`encode(side, texts, done, cut)`, `longer(side, texts)` and `save(path, rows, ids)`.

A text that occurs in several collections is encoded once: vectors are named by `text_id`. They are written in parts of
`WINDOW` texts, each sorted by length for the encoder, so that memory does not grow with the collection. `cut.json`
beside them counts, by language, the texts that are longer than the model reads.

Run by rules `encode`, one job for each shard of the texts, and `merge`:
    python -m milco.stages encode --config FILE --system NAME --shard 2-of-8 --model FOLDER --corpora FOLDER
        --output FOLDER
    python -m milco.stages merge --shard FOLDER --shard FOLDER … --output FOLDER
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch
from tqdm import tqdm
from transformers import AutoModel, AutoTokenizer

from milco.checkpoint_config import is_milco, settings_of
from milco.config import Config
from milco.content import sample_of
from milco.data.beir import iter_documents, read_about, read_queries
from milco.data.cuts import CUT, Cuts, length_of
from milco.data.vectors import save_dense, save_vectors
from milco.environment import made_with, refuse_without_bf16
from milco.errors import MilcoError
from milco.evaluation.bge_m3 import BgeM3Sparse
from milco.evaluation.lookup import SIDES, folders_of, text_id
from milco.experiments import Experiment
from milco.files import finished_folder, write_json
from milco.languages import SEVERAL
from milco.modeling.authors_layout import is_theirs
from milco.modeling.checkpoints import load
from milco.modeling.model import MilcoModel
from milco.modeling.rows import in_text_order, padded_batches, refuse_broken
from milco.modeling.teacher import Teacher
from milco.modeling.texts import ids_and_cut

WINDOW = 16_384


def encode(
    config: Config,
    system: str,
    model: Path,
    collections: Path,
    output: Path,
    shard: int = 0,
    shards: int = 1,
    split: str = "test",
) -> None:
    """Encode queries and documents of collections into the folder `output`: all texts, or those of one shard. Finished
    parts of an earlier identical run are reused.

    Args:
        split: whose queries, `test` or `dev`.

    Raises:
        MilcoError: a text has weights that are no numbers.
    """
    encoder = encoder_of(config, system, model)
    folders = folders_of(system, collections)
    counts: dict[str, dict] = {}
    experiment = Experiment(config)
    vectors = experiment.development_vectors if system == "development" else experiment.vectors[system]
    made_by = [vectors.key, shard, shards, encoder.device, made_with()]
    with finished_folder(output, [*made_by, sample_of(model), sample_of(collections)]) as folder:
        for side in SIDES:
            total, cuts = sum(1 for _ in texts_of_shard(folders, side, shard, shards, split)), Cuts()
            mine = texts_of_shard(folders, side, shard, shards, split)
            with tqdm(total=total, desc=side, unit="text", mininterval=2) as bar:
                for number in range(max(1, ceil(total / WINDOW))):
                    part = list(islice(mine, WINDOW))
                    path, cut = folder / f"{side}-{number:05}.safetensors", list[int]()
                    texts = [text for _, text, _ in part]
                    if path.exists():
                        cut = encoder.longer(side, texts)
                        bar.update(len(part))
                    else:
                        rows = encoder.encode(side, texts, bar.update, cut)
                        encoder.save(path, rows, [identifier for identifier, _, _ in part])
                    cuts.count([language for _, _, language in part], cut)
            counts[side] = cuts.as_dict()
            if said := cuts.sentence(side, encoder.limit(side)):
                print(said)
        write_json(folder / CUT, counts)


def encoder_of(config: Config, system: str, model: Path) -> Any:
    """The encoder object of a system.

    Raises:
        MilcoError: its source holds another kind of model than its format says, or the GPU has no bfloat16.
    """
    if config.evaluate.bf16:
        refuse_without_bf16("evaluate.bf16")
    if system == "dense":
        return DenseEncoder(config, system, model)
    if system in config.finished_models():
        kind = config.sources[system].format
        settings = settings_of(model)
        # sentence-transformers reads our layout, but not the authors'
        if (kind == "bge-m3-sparse" and is_milco(settings)) or (kind != "transformers" and is_theirs(settings)):
            raise MilcoError(f"sources.{system}: {model} holds a MILCO model; set format: transformers")
        if kind in ("sentence-transformers", "mteb-model"):
            found = _model_of_others(kind)(config, system, model)
            if system == config.main and not found.sparse:
                raise MilcoError(
                    f"evaluate.model: {system} is a dense model, and index and budgets of pruning are for sparse ones; "
                    "name it in evaluate.baselines, and a sparse one here"
                )
            return found
        if kind == "transformers" and not is_milco(settings):
            raise MilcoError(
                f"sources.{system}: {model} holds a model of kind {settings.get('model_type')}, not a MILCO model; one "
                "that sentence-transformers loads wants format: sentence-transformers"
            )
    return SparseEncoder(config, system, model)


def _model_of_others(kind: str) -> Any:
    """The class for a format of sources; its packages take seconds."""
    if kind == "mteb-model":
        from milco.evaluation.mteb_models import MtebModel

        return MtebModel
    from milco.evaluation.sentence_models import SentenceModel

    return SentenceModel


def texts_of_shard(
    folders: list[Path], side: str, shard: int, shards: int, split: str = "test"
) -> Iterator[tuple[str, str, str]]:
    """(text_id, text, language) of the queries or documents of a shard, read one at a time. Memory keeps only the ids,
    some 70 bytes each."""
    seen: set[int] = set()
    for folder in folders:
        texts = read_queries(folder, split)[0].items() if side == "queries" else iter_documents(folder)
        language = read_about(folder).get("query_language" if side == "queries" else "document_language", SEVERAL)
        for _, text in texts:
            identifier = text_id(text)
            number = int(identifier, 16)
            if number % shards == shard and number not in seen:
                seen.add(number)
                yield identifier, text, language


def _telling(done: Callable[[int], object], batches: Iterable[tuple]) -> Iterator[tuple]:
    """The batches of an encoder; `done` is told how many texts each one has."""
    for places, rows in batches:
        done(len(places))
        yield places, rows


class SparseEncoder:
    """MILCO models, the English teacher, and the sparse weights of BGE-M3."""

    def __init__(self, config: Config, system: str, model: Path):
        self.config = config
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        trust = config.trusts(config.distill.miner if system == "miner" else system)
        if system == "teacher":
            teacher = Teacher(model, self.device, trust)
            self.iter_rows, self.tokenizer = teacher.iter_rows, teacher.tokenizer
            self.width = self.pivot_columns = teacher.head.decoder.out_features
        elif system in config.sources and config.sources[system].format == "bge-m3-sparse":
            bge = BgeM3Sparse(model, self.device, trust)
            self.iter_rows, self.tokenizer, self.width = bge.iter_rows, bge.tokenizer, bge.width
            self.pivot_columns = bge.width
        else:
            milco = MilcoModel.from_pretrained(model, trust_remote_code=trust, encoder=config.encoder_apart)
            milco = milco.to(self.device)
            self.iter_rows, self.tokenizer = milco.iter_rows, milco.tokenizer
            self.width, self.pivot_columns = milco.width, milco.config.pivot_vocab_size

    def limit(self, side: str) -> int:
        """Tokens at which a text is cut."""
        return length_of(self.config, side)

    def encode(
        self, side: str, texts: list[str], done: Callable[[int], object], cut: list[int] | None = None
    ) -> scipy.sparse.csr_array:
        """Texts of a side (`queries` or `documents`) → N×`width` rows in the order of the texts.

        Args:
            done: called with the number of texts in each encoded batch.
            cut: gets the places of texts that are longer than the limit.
        """
        length = length_of(self.config, side)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.config.evaluate.bf16):
            batches = self.iter_rows(texts, length, self.config.evaluate.batch_size, cut)
            rows = in_text_order(_telling(done, batches), self.width)
        refuse_broken(rows, texts)
        return rows

    def longer(self, side: str, texts: list[str]) -> list[int]:
        """Places of the texts that `encode` cuts."""
        return ids_and_cut(self.tokenizer, texts, length_of(self.config, side))[1]

    def save(self, path: Path, rows: scipy.sparse.csr_array, ids: list[str]) -> None:
        save_vectors(path, rows, ids, self.pivot_columns)


class DenseEncoder:
    """The multilingual encoder as its authors use it: mean pooling, normalised, with its prefixes."""

    def __init__(self, config: Config, system: str, model: Path):
        self.config = config
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        trust = config.trusts("dense")
        self.tokenizer = load(AutoTokenizer, model, trust)
        self.model = load(AutoModel, model, trust).eval().to(self.device)

    def limit(self, side: str) -> int:
        """Tokens at which a text is cut."""
        return length_of(self.config, side)

    @torch.no_grad()
    def encode(
        self, side: str, texts: list[str], done: Callable[[int], object], cut: list[int] | None = None
    ) -> np.ndarray:
        """As in `SparseEncoder`, but N×hidden_size normalised float32 vectors."""
        evaluate, length, prefix = self.config.evaluate, length_of(self.config, side), self._prefix(side)
        vectors = np.zeros((len(texts), self.model.config.hidden_size), np.float32)
        batches = padded_batches(self.tokenizer, [prefix + text for text in texts], length, evaluate.batch_size, cut)
        with torch.autocast(self.device, torch.bfloat16, enabled=evaluate.bf16):
            for places, batch in batches:
                batch = {name: values.to(self.device) for name, values in batch.items()}
                states = self.model(**batch).last_hidden_state.float()
                mask = batch["attention_mask"][:, :, None]
                mean = (states * mask).sum(dim=1) / mask.sum(dim=1)
                vectors[places] = torch.nn.functional.normalize(mean, dim=1).cpu().numpy()
                done(len(places))
        return vectors

    def longer(self, side: str, texts: list[str]) -> list[int]:
        """Places of the texts that `encode` cuts."""
        read = [self._prefix(side) + text for text in texts]
        return ids_and_cut(self.tokenizer, read, length_of(self.config, side))[1]

    def _prefix(self, side: str) -> str:
        evaluate = self.config.evaluate
        return evaluate.dense_query_prefix if side == "queries" else evaluate.dense_passage_prefix

    def save(self, path: Path, vectors: np.ndarray, ids: list[str]) -> None:
        save_dense(path, vectors, ids)
