"""Parallel text of any size in the order in which it is trained on, at constant memory: DuckDB sorts it on disk.

A pair is (English, other language, language). Two pairs of a corpus are the same if their comparable forms are; of two
corpora, if they are equal to the letter. The first one stays.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from milco.data.shards import ROWS
from milco.data.text import comparable
from milco.errors import MilcoError

Pair = tuple[str, str, str]
MEMORY = "4GB"  # of DuckDB; what does not fit goes to disk
THREADS = min(8, os.cpu_count() or 1)  # each of them wants memory of its own
STAGED_ROWS = 5 * ROWS
GROUP_ROWS = 20_480  # of a file that is written: each thread holds a group
STAGED = pa.schema(
    {"row": pa.int64(), "english": pa.string(), "non_english": pa.string(), "language": pa.string(),
     "form": pa.binary(16)}
)  # fmt: skip


def write_pairs(
    corpora: Mapping[str, Iterable[Pair]],
    caps: Mapping[str, int | None],
    texts: Iterable[str],
    seed: int,
    output: Path,
) -> dict:
    """Write english.parquet and parallel.parquet (see milco/data/corpora.py) into the folder `output`.

    The result is the same for the same arguments, on any number of threads. Until it is there, the folder also holds
    a few copies of the text.

    Args:
        corpora: clean pairs by the name of their corpus; each is read once, in order.
        caps: pairs taken of a corpus at most, by its name; drawn at random with the seed.
        texts: English texts that are listed besides those of the pairs.

    Returns:
        pairs (by language), datasets (by name: how many were kept, duplicates, over the cap or in an earlier corpus,
        too) and families
        ((size, how many) of the pairs that share an English text).

    Raises:
        MilcoError: memory or disk does not suffice.
    """
    with TemporaryDirectory(dir=output, prefix=".pairs-") as name:
        folder = Path(name)
        settings: dict = {"memory_limit": MEMORY, "threads": THREADS, "temp_directory": name}
        settings["preserve_insertion_order"] = False  # it costs memory, and every query says its own
        try:
            with duckdb.connect(folder / "pairs.duckdb", config=settings) as database:
                database.execute("SET enable_progress_bar = false")  # it goes to stdout
                database.from_arrow(pa.table({"english": pa.array(texts, pa.string())})).create("texts")
                datasets = _collect(database, corpora, caps, seed, folder)
                return {"pairs": _order(database, output), "datasets": datasets, "families": _families(database)}
        except (duckdb.OutOfMemoryException, duckdb.IOException) as error:
            reason = str(error).splitlines()[0]
            raise MilcoError(f"{output.parent}: too little memory or disk to sort the pairs ({reason})") from error


def _collect(
    database: duckdb.DuckDBPyConnection,
    corpora: Mapping[str, Iterable[Pair]],
    caps: Mapping[str, int | None],
    seed: int,
    folder: Path,
) -> dict[str, Counter]:
    """Fill the table `pairs`: english, non_english, language, row."""
    datasets: dict[str, Counter] = {}
    staged, first = 0, {}
    database.execute("CREATE TABLE kept (row BIGINT)")
    for number, (name, pairs) in enumerate(corpora.items()):
        path = folder / f"{number}.parquet"
        read = _stage(pairs, staged, seed, path)
        database.read_parquet(str(path)).create_view("staged", replace=True)
        found = _count(
            database, "CREATE OR REPLACE TABLE found AS SELECT form, min(row) AS row FROM staged GROUP BY form"
        )
        draw = f"ORDER BY form LIMIT {caps[name]}" if caps.get(name) else ""
        kept = _count(database, f"INSERT INTO kept SELECT row FROM found {draw}")
        datasets[name] = Counter({"kept": kept, "duplicate": read - found, "over the cap": found - kept})
        first[name] = staged
        staged += read
    database.read_parquet(str(folder / "*.parquet")).create_view("staged", replace=True)
    database.execute("""
        CREATE TABLE pairs AS SELECT english, non_english, language, row FROM staged SEMI JOIN (
            SELECT min(row) AS row FROM staged SEMI JOIN kept USING (row)
            GROUP BY md5_number(concat_ws(chr(9), english, non_english, language))
        ) USING (row)""")
    for name, row in first.items():
        read = datasets[name].total()
        left = _count(database, f"SELECT count(*) FROM pairs WHERE row >= {row} AND row < {row + read}")
        datasets[name] += Counter({"in an earlier corpus": datasets[name]["kept"] - left})
        datasets[name]["kept"] = left
    return datasets


def _stage(pairs: Iterable[Pair], first: int, seed: int, path: Path) -> int:
    """Write pairs with their numbers and forms, and count them.

    A form is a digest with the seed for its key: the lowest of them are a random sample, whatever the order of the
    pairs.
    """
    pairs, key, written = iter(pairs), str(seed).encode(), 0
    with pq.ParquetWriter(path, STAGED, write_statistics=False) as writer:
        while part := list(islice(pairs, STAGED_ROWS)):
            rows = range(first + written, first + written + len(part))
            forms = ["\t".join(map(comparable, pair)).encode() for pair in part]
            digests = [hashlib.blake2b(form, digest_size=16, key=key).digest() for form in forms]
            writer.write_table(pa.table([rows, *zip(*part, strict=True), digests], STAGED))
            written += len(part)
    return written


def _order(database: duckdb.DuckDBPyConnection, output: Path) -> dict[str, int]:
    """Write both files, and count the pairs of each language."""
    english = output / "english.parquet"
    listed = database.sql("SELECT english FROM pairs UNION SELECT english FROM texts ORDER BY english")
    listed.write_parquet(str(english), row_group_size=GROUP_ROWS)
    database.read_parquet(str(english), file_row_number=True).create_view("english")
    database.execute("""
        CREATE TABLE numbered AS SELECT file_row_number::UINTEGER AS english_id, non_english, language, row
        FROM pairs JOIN english USING (english)""")
    database.execute("DROP TABLE pairs")
    database.execute("CREATE TABLE families AS SELECT english_id, count(*) AS size FROM numbered GROUP BY english_id")
    ordered = database.sql("""
        SELECT english_id, non_english, language FROM numbered JOIN families USING (english_id)
        ORDER BY size, english_id, language, row""")
    ordered.write_parquet(str(output / "parallel.parquet"), row_group_size=GROUP_ROWS)
    counts = "SELECT language, count(*) FROM numbered GROUP BY language ORDER BY count(*) DESC, language"
    return dict(database.execute(counts).fetchall())


def _families(database: duckdb.DuckDBPyConnection) -> list[tuple[int, int]]:
    return database.execute("SELECT size, count(*) FROM families GROUP BY size ORDER BY size").fetchall()


def _count(database: duckdb.DuckDBPyConnection, statement: str) -> int:
    """Run a statement that makes rows → how many it made."""
    return database.execute(statement).fetchall()[0][0]
