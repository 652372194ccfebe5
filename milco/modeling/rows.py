"""Convert texts to padded batches, and model outputs to CSR matrices."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import scipy.sparse
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from .errors import MilcoError
from .texts import ids_and_cut


def pivot_cells(pooled: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """B×V_e raw pooled logits → row, column and weight of each non-zero cell of the pivot view, sorted by text."""
    rows, columns = (~(pooled <= 0)).nonzero(as_tuple=True)  # written so that NaN stays, and somebody sees it
    return rows, columns, torch.log1p(pooled[rows, columns].float())


def as_rows(rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> scipy.sparse.csr_array:
    """Cells of a matrix (row, column and value of each, all of length n) as sparse float32 rows; cells in the same
    place are summed."""
    coordinates = (rows.cpu().numpy(), columns.cpu().numpy())
    return scipy.sparse.coo_array((values.float().cpu().numpy(), coordinates), shape=shape).tocsr()


def as_tensor(rows: scipy.sparse.csr_array) -> Tensor:
    """Sparse rows N×V as a coalesced COO tensor of torch, N×V."""
    cells = rows.tocoo()
    places = torch.from_numpy(np.stack([cells.row, cells.col]).astype(np.int64))
    return torch.sparse_coo_tensor(places, torch.from_numpy(cells.data), rows.shape, check_invariants=False).coalesce()


def padded_batches(
    tokenizer: PreTrainedTokenizerBase,
    texts: list[str],
    max_length: int,
    batch_size: int,
    cut: list[int] | None = None,
) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
    """Tokenise texts and give them from short to long: (their places in `texts`, padded ids and mask).

    Args:
        cut: gets the places of the texts that are longer than `max_length` tokens.
    """
    ids, longer = ids_and_cut(tokenizer, texts, max_length)
    if cut is not None:
        cut += longer
    order = sorted(range(len(texts)), key=lambda place: len(ids[place]))
    for start in range(0, len(order), batch_size):
        places = order[start : start + batch_size]
        yield places, padded(tokenizer, [ids[place] for place in places])


def padded(tokenizer: PreTrainedTokenizerBase, ids: list[list[int]]) -> dict[str, Tensor]:
    """Token ids of texts as a batch, always padded on the right: padding on the left would shift the positions and
    change the vectors."""
    batch = tokenizer.pad({"input_ids": ids}, padding_side="right", return_tensors="pt")
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


def refuse_broken(rows: scipy.sparse.csr_array, texts: Sequence[str]) -> None:
    """Raise MilcoError if a row contains NaN or infinity."""
    if not np.isfinite(rows.data).all():
        row = int(np.searchsorted(rows.indptr, np.flatnonzero(~np.isfinite(rows.data))[0], side="right")) - 1
        raise MilcoError(f"the weights of {texts[row]!r} are no numbers; the model has diverged")


def in_text_order(parts: Iterable[tuple[list[int], scipy.sparse.csr_array]], width: int) -> scipy.sparse.csr_array:
    """Join the batches of `iter_rows` into one matrix whose rows are in the order of the texts."""
    parts = list(parts)
    if not parts:
        return scipy.sparse.csr_array((0, width), dtype="float32")
    order = np.argsort([place for places, _ in parts for place in places])
    return scipy.sparse.csr_array(scipy.sparse.vstack([rows for _, rows in parts], format="csr")[order])
