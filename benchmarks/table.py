"""docs/performance.md and docs/scale.md from the rows of benchmarks/results: python benchmarks/table.py"""

import json
import textwrap
from pathlib import Path

from measure import RESULTS

HEAD = """# Performance

Written by `make bench`, which measures both ways side by side in one run. *Plain* is the way of the paper's code,
reimplemented in a few lines in `benchmarks/`. Speedup is the median of the ratios of neighbouring pairs of runs, spread
the smallest and largest ratio; memory is what the work adds to the process. Times depend on the machine that ran it;
ratios carry over.
"""
SCALE = """# Scale

This page says what grows with the corpus and what does not. `corpora` moves to disk what does not fit into its memory,
and streams the documents of a test collection. Several workers write the token cache, 10,000 texts at a time; each
process of the teacher takes 100,000 texts at a time and writes one file for them. Training maps the files into memory
and finds any step of any epoch directly (`milco/training/batching.py`), so start and resume take the same time for a
thousand pairs as for the 594 million of the paper's Stage 1.

An interrupted job of these rules resumes at its next file. It loses at most 100,000 texts of the token cache or the
teacher targets, 16,384 vectors, a million candidate pairs, or the sorting of the pairs. It first reads its inputs once,
to check that they are the same.

## What a job gets

`profiles/slurm` requests memory and time for the paper's experiment, 594 million pairs and 161 million test texts:

- `corpora`, 32 GB and 24 h. One core takes 7.4 h for the pairs and 1 h for held-out texts (below). The process needs
  1 GB, DuckDB 4 GB, each document of the largest collection 16 bytes, each held-out string 16, and 20 more while they
  are read. With `corpora.decontaminate: all` the held-out strings take 6 GB, and 3 GB in rule `mine`.
- `tokenize`, 16 processors, 32 GB and 12 h. It takes 25 worker hours for texts of 20 tokens (below); the paper's are
  longer. A worker needs .8 GB.
- `teacher`, 8 GPUs, 64 GB and 12 h. If a GPU reads 3,000 to 5,000 texts a second in float32, one GPU takes 8 to 14 h
  for 150 million. A process needs .8 GB, and some more for CUDA.
- `overlap`, 8 processors, 16 GB and 4 h. It reads the training text only if the queries of some test collection are not
  removed from it: 750 million strings, 2.4 hours of a core at 87,000 a second (5 to 30 words, of two scripts); the
  paper's are longer. A worker needs .4 GB.
- `pack`, 16 processors, 64 GB and 4 h, for 14 million texts. Its memory is that of the workers, .6 GB each.
- `encode`, a GPU, 64 GB and 8 h. Each of 32 shards has 5 million texts: 7 h at 200 a second, and 100 bytes of memory
  for each text.
- `evaluate`, `index`, `prune`, one core, 32 GB and 24 h, and the same for each of the 16 jobs that share the documents
  of one rule (`evaluate.search_shards`). All queries of all test collections with all their documents are some 700
  billion pairs; 450 billion of these are MKQA's, asked in 25 languages. At .04 µs per pair (below) a system takes 8 h
  of one core, or half an hour in each of 16 jobs. The pruning study searches MIRACL's 75 billion pairs 22 times (18 h,
  or 1 h 10 min in each job), and builds as many indexes. One block of documents is in memory at a time. Matching a
  collection with its vectors sorts some 32 bytes for each text of either in the folder for temporary files. `index`
  builds parts of a million documents, 3.3 GB each.

## Measured

Written by `python benchmarks/scale.py` and `python benchmarks/table.py`: synthetic texts of 5 to 30 English words, 13
pairs for each English text, at most 64 tokens, the demo's tokenizer and teacher. Memory is the sum over all processes,
without mapped files. The last two columns extrapolate the row to 594 million pairs or 161 million test texts of this
kind; the paper's texts are longer, its teacher is larger, and a GPU is quicker.

Seconds include the start of the workers, which weighs more in small cases. DuckDB was allowed 500 MB instead of 4 GB in
`corpora`; the rest of the peak is the process itself. Each case ran in a process of its own, on a machine with nothing
else to do; `collections` and *held out* used one of its cores, and the pairs were measured again at commit a2b5635.
From 1 to 4 million texts memory grows by 0 to 8 %, with two exceptions: *held out* grows by the 36 bytes of a string,
`collections` by the 16 bytes of a document and what the allocator keeps. With 4 million texts, a text takes up to 13 %
longer, and up to 18 % in the teacher, whose work per text is the same: the machine is shared.
"""
START = """## Start of Stage 2

The time of a process from the packed triples to its first batch, without loading the model: it maps the files and reads
the lengths of a pool of 50 global batches. Rule `pack` runs once for all starts (one worker here). The texts are
random, 10 to 30 words long; a query has 8 documents, 7 of which belong to other queries. Written by
`python benchmarks/start.py`.
"""
EXACT = """## Exact search

Synthetic documents like those of milco (280,000 columns, the n-th most frequent n times rarer than the first), queries
of 30 terms, the 100 best, on one thread, each measurement in a process of its own. *Blocks* is search as in rules
`evaluate`, `index` and `prune`, which read vectors from disk, 65,536 documents at a time. *Whole* is the earlier way, a
product of all queries with all documents, which are already in memory. Rankings are the same to the last bit. Times,
speedup and spread are per query, in processor time. The times of *blocks* include a share of the reading, which is
larger when fewer queries are asked. Anserini's times are wall-clock times as it prints them, on one core of a machine
whose other core was busy.

The matching of vectors to documents is sorted on disk. Memory holds the block being searched and the next one being
read (100,000 documents are one and a half blocks). Further growth is what the allocator keeps of freed blocks: with
MALLOC_MMAP_THRESHOLD_=4000000 a million documents take 307 MB and 4 million 309 MB, but a query takes half as long
again. Measured by `python benchmarks/exact.py`, with the options that its docstring names.
"""
GPU = """# On a GPU

Written by `make gpu` (`benchmarks/gpu.py`): random weights and synthetic text of the paper's sizes on one device. In
the rows of `correct` and `processes` the value found must not exceed the value allowed; `note` says what was not
measured.
"""
# What each part should gain, written down before it was built.
EXPECTED = {
    "encoding": "Expected: at least 2.5 times the documents per second, from batches of similar length, no B×L×V "
    "logits, and rows made sparse on the device; in the row that says so, also from bfloat16.",
    "export": "Nothing was expected. *Plain* is this project's own model in torch, *milco* its ONNX graph in "
    "onnxruntime.",
    "head": "Expected: at least 3 times as fast, forward and backward, with 1 % of the cells active, in a quarter of "
    "the memory, and 1.2 times forward alone: logits are computed in tiles that fit the cache, and only the winning "
    "cells get a gradient. Where every cell has a gradient, at most 10 % slower.",
    "padding": "Expected: under 6 % of pads; random batches of the same pairs were expected to waste about half.",
    "search": "Exact search reads all documents that share a term, Seismic only the blocks that may hold a result. The "
    "rows vary its settings and the share of the mass kept by pruning; the last row is BM25.",
    "stages": "Expected: Stage 1 at least 4 times, Stage 2 at least 3 times the examples per second with the same "
    "loss, because half of the slots were pads, most of the time went into the head, and Stage 1 computed the teacher "
    "again for every pair. In Stage 1 each recipe makes its own steps from the same 3,200 pairs; randomly drawn steps "
    "are measured. Rows of commit 59e5419 are older than the draws: their steps are spread evenly over their sizes, "
    "the most favourable choice, and their spread is that of one run (another run gave Stage 1 10.5 in bfloat16 and "
    "11.3 in float32, Stage 2 4.1 and 4.6, commit d968374). With randomly drawn steps Stage 1 gave (in "
    "the same order) 4.4 and 5.0 (0325d0e), 6.8 and 6.1 (c8f3cfc); Stage 2 gave 5.0 and 5.2, 6.5 and 6.2.",
}
COMMON = {
    "case": "case", "baseline_s": "plain, s", "milco_s": "milco, s", "speedup": "speedup", "spread": "spread",
    "baseline_mb": "plain, MB", "milco_mb": "milco, MB",
}  # fmt: skip
SPEEDS = ("align_pairs_per_second", "distill_queries_per_second", "teacher_texts_per_second",
          "encode_documents_per_second")  # fmt: skip
NEVER = ("benchmark", "machine", "commit")


def main() -> None:
    files = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))}
    docs = Path(__file__).parents[1] / "docs"
    scale, start, exact = (files.pop(name, None) for name in ("scale", "start", "exact"))
    on_gpu = {name: files.pop(name) for name in list(files) if name.startswith("gpu-")}
    parts = [
        HEAD,
        *(
            f"## {name}\n\n{textwrap.fill(EXPECTED.get(name, ''), 120)}\n\n{as_table(rows)}"
            for name, rows in files.items()
        ),
    ]
    parts += gpu_section(on_gpu)
    (docs / "performance.md").write_text("\n".join(parts), encoding="utf-8")
    if scale:
        text = f"{SCALE}\n{as_table(scale)}"
        text += f"\n{START}\n{as_table(start)}" if start else ""
        text += f"\n{EXACT}\n{as_table(exact)}" if exact else ""
        (docs / "scale.md").write_text(text, encoding="utf-8")


def gpu_section(files: dict[str, list[dict]]) -> list[str]:
    """What was measured on a GPU, and its speeds as section `machine` of an experiment takes them."""
    if not files:
        return []
    found = speeds(RESULTS)
    said = f"For `milco plan`, of one device:\n\n```yaml\nmachine: {json.dumps(found)}\n```\n" if found else ""
    return [GPU, said, *(f"## {name}\n\n{as_table(rows)}" for name, rows in files.items())]


def speeds(results: Path) -> dict[str, float]:
    """What section `machine` takes, as far as gpu.py has measured it."""
    files = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("gpu-*.json"))]
    return {name: row[name] for rows in files for row in rows for name in SPEEDS if name in row}


def as_table(rows: list[dict]) -> str:
    """Where the rows were measured, and all that they say."""
    columns = list(dict.fromkeys(name for row in rows for name in row if name not in NEVER))
    columns.sort(key=lambda name: list(COMMON).index(name) if name in COMMON else len(COMMON))
    lines = [f"{rows[0]['machine']}; commit {rows[0]['commit']}", ""]
    lines += [f"| {' | '.join(COMMON.get(name, name.replace('_', ' ')) for name in columns)} |"]
    lines += ["|---|" + (len(columns) - 1) * "---:|"]
    lines += [f"| {' | '.join(as_text(row.get(name), name) for name in columns)} |" for row in rows]
    return "\n".join(lines) + "\n"


def as_text(value, column: str) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "NO"
        case [low, high]:
            return f"{low:.2f}–{high:.2f}"
        case float() if column in ("baseline_s", "milco_s", "speedup"):
            return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"
    return str(value)


if __name__ == "__main__":
    main()
