"""A Parquet file of any size is read a part at a time, wherever texts come in."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from milco.config import Source
from milco.data.shards import write_shards
from milco.data.tables import PAIR_COLUMNS, read_batches
from milco.tools.text_files import read_texts

ROWS, MB = 60_000, 2**20


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """About 50 MB that no compression makes smaller."""
    path = tmp_path_factory.mktemp("large") / "texts.parquet"
    letters = np.random.default_rng(0).choice(list(b"abcdefghijklmnopqrstuvwxyz012345"), (ROWS, 300)).astype(np.uint8)
    texts = [row.tobytes().decode() for row in letters]
    columns = {"id": [str(row) for row in range(ROWS)], "text": texts, "english": texts, "non_english": texts}
    pq.write_table(pa.table(columns), path, row_group_size=2000, use_dictionary=False)
    return path


def by_batches(path, seen):
    for batch in read_batches(path, Source(uri=f"file:{path}", format="pairs", language="de"), "large", PAIR_COLUMNS):
        seen(len(batch))


def by_texts(path, seen):
    for _ in read_texts(path, "parquet"):
        seen(1)


def by_shards(path, seen):
    write_shards({"ids": path}, path.parent, lambda *worker: lambda batch: seen(len(batch)) or batch.select(["id"]), 1)


@pytest.mark.parametrize("read", [by_batches, by_texts, by_shards])
def test_no_more_of_a_file_is_held_at_its_end_than_at_its_beginning(table, read):
    sizes, held = [], []

    def seen(size: int) -> None:
        sizes.append(size)
        held.append(pa.total_allocated_bytes() / MB)

    read(table, seen)
    assert sum(sizes) == ROWS and max(held) - min(held) < 25
