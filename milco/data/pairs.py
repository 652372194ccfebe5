"""Sort parallel text of any size into training order in constant memory; DuckDB sorts on disk.

A pair is (English, other text, its language). Within a corpus, pairs with equal comparable forms are duplicates; across
corpora, only identical pairs are. The first one is kept.
"""

import hashlib
import json
import os
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from milco.data.shards import ROWS
from milco.data.text import comparable
from milco.errors import MilcoError
from milco.files import finished_file

Pair = tuple[str, str, str]
Prepare = Callable[[str, Iterable[Pair], Counter], Iterable[Pair]]
MEMORY = "4GB"  # of DuckDB; what does not fit goes to disk
THREADS = min(8, os.cpu_count() or 1)  # each of them wants memory of its own
STAGED_ROWS = 5 * ROWS
PART = 100 * ROWS  # candidates that are prepared together; a kill loses no more
GROUP_ROWS = 20_480  # rows of a group in a written file; each thread holds a group
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
    prepare: Prepare = lambda name, candidates, counts: candidates,
    staged: Path | None = None,
) -> dict:
    """Write english.parquet and parallel.parquet (see milco/data/corpora.py) into the folder `output`.

    The result is the same for the same arguments, on any number of threads. Until it is finished, the folder also holds
    a few copies of the text.

    Args:
        corpora: candidates by the name of their corpus; each is read once, in order.
        caps: by the name of a corpus, the most pairs to take from it, drawn at random with the seed.
        texts: English texts that are listed besides those of the pairs.
        prepare: (name, some candidates, counts of that corpus) → clean pairs; it adds to the counts.
        staged: folder for the clean pairs of each corpus, in parts. Parts that lie there are reused, and all parts
            stay; without a folder none stays.

    Returns:
        pairs (by language), datasets (by name: how many were kept, were duplicates, over the cap, or also in an earlier
        corpus), families ((size, how many) of the groups of pairs that share an English text), and counts (by name:
        what `prepare` counted).

    Raises:
        MilcoError: memory or disk does not suffice.
    """
    for left in output.glob(".pairs-*"):
        shutil.rmtree(left)  # of a run that was killed
    with TemporaryDirectory(dir=output, prefix=".pairs-") as name:
        folder = Path(name)
        settings: dict = {"memory_limit": MEMORY, "threads": THREADS, "temp_directory": name}
        settings["preserve_insertion_order"] = False  # it costs memory, and queries say where they need an order
        try:
            with duckdb.connect(folder / "pairs.duckdb", config=settings) as database:
                database.execute("SET enable_progress_bar = false")  # it goes to stdout
                database.from_arrow(pa.table({"english": pa.array(texts, pa.string())})).create("texts")
                counts: dict[str, Counter] = {name: Counter() for name in corpora}
                datasets = _collect(database, corpora, caps, seed, staged or folder / "staged", prepare, counts)
                pairs = _order(database, output)
                return {"pairs": pairs, "datasets": datasets, "families": _families(database), "counts": counts}
        except (duckdb.OutOfMemoryException, duckdb.IOException) as error:
            reason = str(error).splitlines()[0]
            raise MilcoError(f"{output.parent}: too little memory or disk to sort the pairs ({reason})") from error


def _collect(
    database: duckdb.DuckDBPyConnection,
    corpora: Mapping[str, Iterable[Pair]],
    caps: Mapping[str, int | None],
    seed: int,
    folder: Path,
    prepare: Prepare,
    counts: Mapping[str, Counter],
) -> dict[str, Counter]:
    """Fill the table `pairs`: english, non_english, language, row."""
    datasets: dict[str, Counter] = {}
    staged, first = 0, {}
    database.execute("CREATE TABLE kept (row BIGINT)")
    database.from_arrow(STAGED.empty_table()).create("nothing")
    for number, (name, candidates) in enumerate(corpora.items()):
        part = folder / str(number)
        read = _stage(candidates, partial(prepare, name), counts[name], staged, seed, part)
        database.read_parquet(str(part / "*.parquet")).create_view("staged", replace=True)
        found = _count(
            database, "CREATE OR REPLACE TABLE found AS SELECT form, min(row) AS row FROM staged GROUP BY form"
        )
        draw = f"ORDER BY form LIMIT {caps[name]}" if caps.get(name) else ""
        kept = _count(database, f"INSERT INTO kept SELECT row FROM found {draw}")
        datasets[name] = Counter({"kept": kept, "duplicate": read - found, "over the cap": found - kept})
        first[name] = staged
        staged += read
    every = database.read_parquet(str(folder / "*" / "*.parquet")) if corpora else database.table("nothing")
    every.create_view("staged", replace=True)
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


def _stage(
    candidates: Iterable[Pair],
    prepare: Callable[[Iterable[Pair], Counter], Iterable[Pair]],
    counts: Counter,
    first: int,
    seed: int,
    folder: Path,
) -> int:
    """Write the pairs of a corpus into a folder, in parts of `PART` candidates, and count them. If a part is there
    already, its candidates are skipped; its metadata holds the counts up to its end."""
    candidates, rows, number = iter(candidates), 0, 0
    while (some := list(islice(candidates, 1))) or number == 0:
        part, path = chain(some, islice(candidates, PART - 1)), folder / f"{number:05}.parquet"
        if path.exists():
            deque(part, maxlen=0)
            counted = json.loads(pq.read_metadata(path).metadata[b"counts"])
            counts.clear()
            counts.update({tuple(of): number for of, number in counted})
        else:
            with finished_file(path) as draft:
                _write_part(prepare(part, counts), counts, first + rows, seed, draft)
        rows += pq.read_metadata(path).num_rows
        number += 1
    return rows


def _write_part(pairs: Iterable[Pair], counts: Counter, first: int, seed: int, path: Path) -> None:
    """Write pairs with their numbers and forms.

    A form is a digest keyed by the seed. The pairs with the smallest forms are therefore a random sample that does not
    depend on their order.
    """
    pairs, key, written = iter(pairs), str(seed).encode(), 0
    with pq.ParquetWriter(path, STAGED, write_statistics=False) as writer:
        while part := list(islice(pairs, STAGED_ROWS)):
            rows = range(first + written, first + written + len(part))
            forms = ["\t".join(map(comparable, pair)).encode() for pair in part]
            digests = [hashlib.blake2b(form, digest_size=16, key=key).digest() for form in forms]
            writer.write_table(pa.table([rows, *zip(*part, strict=True), digests], STAGED))
            written += len(part)
        writer.add_key_value_metadata({"counts": json.dumps(list(counts.items()), ensure_ascii=False)})


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
    """Run a statement that inserts rows; return their number."""
    return database.execute(statement).fetchall()[0][0]
