"""Encode texts into vectors and prune vectors, in constant memory (text_files.py, vector_files.py).

A killed run resumes. Its finished windows are in `.NAME.part`, each with a digest of model and texts. A window with
another digest is encoded again, so nothing of an earlier input or model remains.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from milco.data.cuts import Cuts, letters_of
from milco.errors import MilcoError
from milco.modeling.model import MilcoModel
from milco.modeling.pruning import budget_of, prune_mass, prune_top_k
from milco.modeling.pruning import prune as prune_to
from milco.modeling.rows import in_text_order, refuse_broken
from milco.modeling.texts import ids_and_cut
from milco.tools.text_files import windows
from milco.tools.vector_files import Draft, come_as_lines, read_vectors, vocabulary_of


def encode(
    model: MilcoModel,
    texts: Iterable[tuple[str, str]],
    output: Path,
    query: bool = False,
    language: str | None = None,
    batch_size: int = 64,
    bf16: bool = False,
    done: Callable[[int], object] = lambda count: None,
) -> Cuts:
    """Encode texts (id, text) into the vectors `output`, or resume an earlier identical run that was cut off. Returns
    how many were longer than the model reads, by `language`, or by their letters where that is not said.

    Args:
        query: whether the model cuts and prunes the texts as queries; if not, as documents.
        language: of the texts; a model may prune each language to a budget of its own.
        bf16: whether the model computes in bfloat16.
        done: told how many texts were finished since.

    Raises:
        MilcoError: a text has weights that are no numbers.
    """
    about = model.config
    length = about.query_max_length if query else about.passage_max_length
    budget = budget_of(about.query_budgets if query else about.document_budgets, language)
    made_by = [length, budget, str(model.device), bf16, _state_of(model.folder)]
    cuts = Cuts()
    draft = Draft(output, vocabulary_of(model), model.config.pivot_vocab_size)
    for part in windows(texts):
        digest = hashlib.sha256(json.dumps([made_by, part]).encode()).hexdigest()
        ids, strings = (list(column) for column in zip(*part, strict=True))
        cut: list[int] = []
        if draft.has(digest):
            cut = ids_and_cut(model.tokenizer, strings, length)[1]
        else:
            with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
                rows = in_text_order(model.iter_rows(strings, length, batch_size, cut), model.width)
            refuse_broken(rows, strings)
            draft.add(prune_to(rows, budget), ids, digest)
        cuts.count([language or letters_of(text) for text in strings], cut)
        done(len(part))
    draft.finish()
    return cuts


def _state_of(folder: Path) -> list:
    """State of a model folder: name, size and time of each file."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]


def prune(vectors: Path, output: Path, top_k: int | None = None, mass: float | None = None) -> tuple[float, float]:
    """Write vectors with the `top_k` heaviest tokens of each, or with the fewest that hold the share `mass` of its
    weight. Returns the mean active dimensions before and after."""
    if output.exists() and vectors.exists() and output.samefile(vectors):
        raise MilcoError(f"{output}: the vectors that are pruned; give another name")
    columns: dict[str, int] = {}
    before = after = number = 0
    draft = None
    try:
        for ids, rows, pivot in read_vectors(vectors, columns):
            if pivot is None and not come_as_lines(output):
                raise MilcoError(f"{output}: vectors that come as JSONL are pruned to JSONL; end its name with .jsonl")
            kept = rows if top_k is None else prune_top_k(rows, top_k)
            kept = kept if mass is None else prune_mass(kept, mass)
            draft = draft or Draft(output, columns, pivot, fresh=True)
            draft.add(kept, ids)
            before, after, number = before + rows.nnz, after + kept.nnz, number + len(ids)
    except BaseException:
        if draft:  # pruning is quick: it begins again
            shutil.rmtree(draft.folder)
        raise
    assert draft  # vectors have at least one part
    draft.finish()
    return before / number, after / number
