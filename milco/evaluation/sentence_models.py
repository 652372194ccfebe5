"""Measure models of sentence-transformers, dense or sparse, with their own settings.

Pooling, prompts, and what a query and a document go through (a router with queries that need no inference) are the
model's own. If the similarity of a model is the cosine, its vectors are normalised: the inner product equals it.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch
from sentence_transformers import SentenceTransformer, SparseEncoder
from sentence_transformers.base.modules import Router
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding
from transformers import PreTrainedModel

from milco.config import Config
from milco.data.cuts import length_of
from milco.data.vectors import save_dense, save_vectors
from milco.errors import MilcoError
from milco.modeling.checkpoints import check_weights, refusal
from milco.modeling.rows import as_rows, refuse_broken

TASKS = {"queries": "query", "documents": "document"}
PROMPTS = {"queries": ("query",), "documents": ("document", "passage", "corpus")}  # the first that a model has counts


def is_sparse(model: Path) -> bool:
    """Whether a folder holds a sparse model: it says so, or it is a masked language model and nothing more (SPLADE as
    it was published before sentence-transformers knew it)."""
    said, bare = model / "config_sentence_transformers.json", model / "config.json"
    if said.exists():
        return json.loads(said.read_text(encoding="utf-8")).get("model_type") == "SparseEncoder"
    if (model / "modules.json").exists() or not bare.exists():
        return False
    named = json.loads(bare.read_text(encoding="utf-8")).get("architectures") or [""]
    return named[0].endswith("ForMaskedLM")


class SentenceModel:
    """A model of sentence-transformers.

    Raises:
        MilcoError: it needs Python code that is not trusted, or uses a similarity other than inner product or cosine.
    """

    def __init__(self, config: Config, system: str, model: Path):
        self.config, self.sparse = config, is_sparse(model)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        kind: Any = SparseEncoder if self.sparse else SentenceTransformer
        trust = config.trusts(system)
        try:
            found = kind(str(model), device=self.device, trust_remote_code=trust, local_files_only=True)
        except ValueError as error:
            if trust or "trust_remote_code" not in str(error):
                raise
            raise refusal(model, f"set sources.{system}.trust_remote_code to true, or choose another model") from None
        for part in found.modules():  # of models within models, only the outermost says where it is from
            if place := _weights_of(part):
                check_weights(part, place)
        self.model = found.float().eval()  # however it was saved; `evaluate.bf16` says how it computes
        similarity = self.model.similarity_fn_name
        if similarity not in ("dot", "cosine"):
            raise MilcoError(f"sources.{system}: {model} ranks by {similarity}, and search here is by inner product")
        self.normalized, self.reading = similarity == "cosine", Reading(config, self.model)

    def limit(self, side: str) -> int:
        """Tokens at which a text is cut."""
        return self.reading.limit(side)

    def encode(
        self, side: str, texts: list[str], done: Callable[[int], object], cut: list[int] | None = None
    ) -> scipy.sparse.csr_array | np.ndarray:
        """Rows of texts: N×V, sparse, or N×d."""
        if cut is not None:
            cut += self.longer(side, texts)
        self.reading.set_limit(side)
        ask: Any = self.model.encode_query if side == "queries" else self.model.encode_document
        how = {"batch_size": self.config.evaluate.batch_size, "show_progress_bar": False}
        with torch.autocast(self.device, torch.bfloat16, enabled=self.config.evaluate.bf16):
            rows: Any = self._sparse(ask, texts, how) if self.sparse else self._dense(ask, texts, how)
        done(len(texts))
        refuse_broken(rows if self.sparse else scipy.sparse.csr_array(rows), texts)
        return rows

    def longer(self, side: str, texts: list[str]) -> list[int]:
        """Places of the texts that `encode` cuts."""
        return self.reading.longer(side, texts, self._prompt(side))

    def save(self, path: Path, rows: Any, ids: list[str]) -> None:
        """Write rows that `encode` gave."""
        (save_vectors if self.sparse else save_dense)(path, rows, ids)

    def _sparse(self, ask: Any, texts: list[str], how: dict[str, Any]) -> scipy.sparse.csr_array:
        if not texts:
            return scipy.sparse.csr_array((0, self.model.get_embedding_dimension()), dtype=np.float32)
        cells = sparse_rows(ask(texts, save_to_cpu=True, **how))
        return of_length_one(cells) if self.normalized else cells

    def _dense(self, ask: Any, texts: list[str], how: dict[str, Any]) -> np.ndarray:
        if not texts:
            return np.zeros((0, self.model.get_embedding_dimension()), np.float32)
        return ask(texts, normalize_embeddings=self.normalized, **how).astype(np.float32)

    def _prompt(self, side: str) -> str:
        """What sentence-transformers puts before a text of that side."""
        prompts = self.model.prompts
        named = [name for name in PROMPTS[side] if name in prompts] or [self.model.default_prompt_name]
        return prompts.get(named[0]) or ""


def _weights_of(part: Any) -> Path | None:
    """The folder with the weights of a part of a model that transformers has loaded: the folder that the part names, or
    its sub-folder if a router stores them there."""
    theirs = isinstance(part, PreTrainedModel) and type(part).__module__.startswith("transformers.models.")
    if not theirs or not part.name_or_path:
        return None
    folder, kind = Path(part.name_or_path), type(part).__name__
    inner = [file.parent for file in folder.glob("*/config.json") if kind in file.read_text(encoding="utf-8")]
    found = [place for place in [folder, *inner] if any(place.glob("*.safetensors")) or any(place.glob("*.bin"))]
    return found[0] if found[:1] == [folder] or len(found) == 1 else None


class Reading:
    """Length limit of a sentence-transformers model: our limit, or the model's if that is lower. Static word vectors
    have no limit."""

    def __init__(self, config: Config, model: Any):
        self.config, self.model = config, model
        self._own_limits: dict[str, int] = {}
        for side in TASKS:
            reader = self._reader(side)
            limit = getattr(getattr(reader, "tokenizer", None), "model_max_length", None)
            if limit is not None:
                said = vars(reader).get("max_seq_length")  # of a module with code of its own
                self._own_limits[side] = min(limit, said or limit)

    def limit(self, side: str) -> int:
        """Tokens at which a text is cut."""
        ours = length_of(self.config, side)
        return min(ours, self._own_limits.get(side, ours))

    def set_limit(self, side: str) -> None:
        """Set the model's length limit for texts of that side."""
        if side in self._own_limits:
            reader = self._reader(side)
            reader.tokenizer.model_max_length = self.limit(side)
            if "max_seq_length" in vars(reader):
                reader.max_seq_length = self.limit(side)

    def longer(self, side: str, texts: list[str], prompt: str) -> list[int]:
        """Places of the texts that are cut with the prompt before them."""
        if side not in self._own_limits or not texts:
            return []
        reader = self._reader(side)
        special = not isinstance(reader, SparseStaticEmbedding)
        read, limit = [prompt + text for text in texts], self.limit(side)
        if not getattr(reader.tokenizer, "is_fast", True):  # one in Python does not say what it cut
            ids = reader.tokenizer(read, add_special_tokens=special)["input_ids"]
            return [place for place, found in enumerate(ids) if len(found) > limit]
        cut = reader.tokenizer(read, truncation=True, max_length=limit, add_special_tokens=special).encodings
        return [place for place, found in enumerate(cut) if found.overflowing]

    def _reader(self, side: str) -> Any:
        """The module that reads the texts of that side."""
        first = self.model[0]
        if not isinstance(first, Router):
            return first
        task, routes = TASKS[side], first.sub_modules
        return routes[task if task in routes else first.default_route][0]


def sparse_rows(found: torch.Tensor) -> scipy.sparse.csr_array:
    """A sparse tensor of N×V, as rows."""
    cells = found.coalesce()
    rows, columns = cells.indices()
    kept = as_rows(rows, columns, cells.values(), (cells.shape[0], cells.shape[1]))
    kept.eliminate_zeros()
    return kept


def of_length_one(rows: Any) -> Any:
    """Rows, sparse or dense, so that their inner product is the cosine."""
    if isinstance(rows, np.ndarray):
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    rows.data /= np.repeat(np.sqrt(rows.power(2).sum(axis=1)), np.diff(rows.indptr))
    return rows
