"""Models of mteb's registry as systems that are measured, as mteb measures them.

mteb's own wrapper loads the model and adds its default prompts or instructions for retrieval. Prompts of single tasks
are not used, because a text that occurs in several collections is encoded only once. The precision is that which mteb
names. If the wrapper compares vectors by their cosine, they are normalised.

A text is cut at the length of our models if the wrapper holds a model of sentence-transformers with a higher limit.
With other wrappers the model's own limit applies, and cut texts are not counted.
"""

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import scipy.sparse
import torch
from datasets import Dataset
from huggingface_hub import constants
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.types import PromptType
from sentence_transformers import SentenceTransformer, SparseEncoder
from torch.utils.data import DataLoader

from milco.config import Config
from milco.data.cuts import length_of
from milco.data.hub import COMMIT
from milco.data.mteb_registry import find
from milco.data.vectors import save_dense, save_vectors
from milco.errors import MilcoError
from milco.evaluation.sentence_models import TASKS, Reading, of_length_one, sparse_rows
from milco.modeling.checkpoints import refusal
from milco.modeling.rows import refuse_broken

# Like those of mteb's own tasks, the instruction is for queries; it is the one for a task that names none.
RETRIEVAL = TaskMetadata(
    name="Retrieval",
    description="Collections of any origin.",
    dataset={"path": "none", "revision": "none"},
    type="Retrieval",
    category="t2t",
    modalities=["text"],
    eval_splits=["test"],
    eval_langs=["eng-Latn"],
    main_score="ndcg_at_10",
    prompt={"query": AbsTaskRetrieval.abstask_prompt},
    **dict.fromkeys(["reference", "date", "domains", "task_subtypes", "license", "annotations_creators"]),
    **dict.fromkeys(["dialect", "sample_creation", "bibtex_citation"]),
)


class MtebModel:
    """A model that mteb loads by its name.

    Raises:
        MilcoError: mteb now names another revision than the one that was fetched, cannot load the model, or compares
            its vectors by something else than an inner product or the cosine.
    """

    def __init__(self, config: Config, system: str, model: Path):
        self.config = config
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.name = config.sources[system].uri.removeprefix("mteb:")
        self.model = _load(config, system, model, self.device)
        self.normalized = self._compares_by_cosine(system)
        inner = getattr(self.model, "model", None)
        self.reading = Reading(config, inner) if isinstance(inner, SentenceTransformer | SparseEncoder) else None
        self._empty, self._prompts = {}, {}
        for side in TASKS:
            with _noting(inner if self.reading else None) as said:
                self._empty[side] = self._rows(side, ["-"])[:0]
            self._prompts[side] = said.get("prompt") or ""
        self.sparse = not isinstance(self._empty["documents"], np.ndarray)

    def limit(self, side: str) -> int:
        """Tokens at which a text is cut, as far as it is known."""
        return self.reading.limit(side) if self.reading else length_of(self.config, side)

    def encode(
        self, side: str, texts: list[str], done: Callable[[int], object], cut: list[int] | None = None
    ) -> scipy.sparse.csr_array | np.ndarray:
        """Rows of texts: N×V, sparse, or N×d."""
        if cut is not None:
            cut += self.longer(side, texts)
        if self.reading:
            self.reading.set_limit(side)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.config.evaluate.bf16):
            rows = self._rows(side, texts) if texts else self._empty[side]
        if self.normalized:
            rows = of_length_one(rows)
        done(len(texts))
        refuse_broken(rows if self.sparse else scipy.sparse.csr_array(rows), texts)
        return rows

    def longer(self, side: str, texts: list[str]) -> list[int]:
        """Places of the texts that `encode` cuts, as far as it is known."""
        return self.reading.longer(side, texts, self._prompts[side]) if self.reading else []

    def save(self, path: Path, rows: Any, ids: list[str]) -> None:
        """Write rows that `encode` gave."""
        (save_vectors if self.sparse else save_dense)(path, rows, ids)

    def _rows(self, side: str, texts: list[str]) -> Any:
        """What mteb's wrapper gives for texts, in the form in which mteb hands them over."""
        again = "query" if side == "queries" else "body"
        table = Dataset.from_dict({"id": [str(n) for n in range(len(texts))], "text": texts, again: texts})
        size = self.config.evaluate.batch_size
        found = self.model.encode(
            DataLoader(table, batch_size=size),
            task_metadata=RETRIEVAL,
            hf_split="test",
            hf_subset="default",
            prompt_type=PromptType(TASKS[side]),
            batch_size=size,
            show_progress_bar=False,
        )
        if isinstance(found, torch.Tensor) and found.is_sparse:
            return sparse_rows(found)
        return found.float().cpu().numpy() if isinstance(found, torch.Tensor) else np.asarray(found, np.float32)

    def _compares_by_cosine(self, system: str) -> bool:
        """Whether the wrapper's similarity is the cosine. Wrappers define it differently, so it is tested on two
        vectors."""
        score = float(self.model.similarity(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 2.0]])))
        for by_cosine, wanted in ((False, 8.0), (True, 0.8)):
            if abs(score - wanted) < 1e-3:
                return by_cosine
        raise MilcoError(
            f"sources.{system}: {self.name} ranks by {self.model.mteb_model_meta.similarity_fn_name}, and search here "
            "is by inner product"
        )


def _load(config: Config, system: str, model: Path, device: str) -> Any:
    """Have mteb load a model from the folder that was fetched."""
    about, trust = find(system, config.sources[system]), config.trusts(system)
    fetched = json.loads((model / "revision.json").read_text(encoding="utf-8"))["revision"]
    if COMMIT.fullmatch(about.revision or "") and fetched != about.revision:
        raise MilcoError(
            f"sources.{system}: {model} has {about.name} at {fetched}, but mteb now names {about.revision}; delete "
            "that folder, and it is fetched anew"
        )
    said = {"trust_remote_code": trust} if "trust_remote_code" in about.loader_kwargs else {}
    try:
        with _cache_of(model, about.name, about.revision or "main", fetched):
            found = about.load_model(device=device, **said)
    except (ImportError, OSError, ValueError) as error:  # a package or file is missing
        cause = " ".join(str(error).split()) or type(error).__name__
        # Without trust, no Python files of the repository are fetched.
        if not trust and not isinstance(error, ImportError) and re.search(r"trust_remote_code|\.py\b", cause):
            raise refusal(
                about.name, f"set sources.{system}.trust_remote_code to true, or choose another model"
            ) from None
        raise MilcoError(f"sources.{system}: mteb cannot load {about.name}: {cause}") from error
    if not isinstance(found, mteb.EncoderProtocol):
        raise MilcoError(f"sources.{system}: {about.name} gives no vectors in mteb; it can only search")
    return found


@contextmanager
def _cache_of(model: Path, name: str, revision: str, commit: str) -> Iterator[None]:
    """Present a fetched folder to the Hub's clients as the cached repository of that name."""
    before, another = constants.HF_HUB_CACHE, os.environ.pop("SENTENCE_TRANSFORMERS_HOME", None)
    with tempfile.TemporaryDirectory() as cache:
        repository = Path(cache) / f"models--{name.replace('/', '--')}"
        for folder in ("snapshots", "refs"):
            (repository / folder).mkdir(parents=True)
        (repository / "snapshots" / commit).symlink_to(model.resolve(), target_is_directory=True)
        (repository / "refs" / revision).write_text(commit, encoding="utf-8")
        constants.HF_HUB_CACHE = cache
        try:
            yield
        finally:
            constants.HF_HUB_CACHE = before
            if another is not None:
                os.environ["SENTENCE_TRANSFORMERS_HOME"] = another


@contextmanager
def _noting(model: Any) -> Iterator[dict[str, Any]]:
    """Note with which prompt a model of sentence-transformers is asked: mteb's wrappers choose it, each in its way."""
    said: dict[str, Any] = {}
    if model is None:
        yield said
        return
    ask = model.encode

    def noted(*texts: Any, **how: Any) -> Any:
        named = model.prompts.get(how.get("prompt_name") or model.default_prompt_name)
        said["prompt"] = named if how.get("prompt") is None else how["prompt"]
        return ask(*texts, **how)

    model.encode = noted
    try:
        yield said
    finally:
        del model.encode
