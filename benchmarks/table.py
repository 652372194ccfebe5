"""docs/performance.md and docs/scale.md from the rows of benchmarks/results: python benchmarks/table.py"""

import json
import textwrap
from pathlib import Path

from measure import RESULTS

HEAD = """# Performance

Written by `make bench`, which measures both ways side by side in one run: *plain* is the way of the paper's code,
written down in a few lines in `benchmarks/`. Speedup is the median of the ratios of neighbouring pairs of runs, spread
their smallest and largest; memory is what the work adds to the process. Times belong to the machine that ran it;
ratios carry over.
"""
SCALE = """# Scale

What grows with the corpus, and what does not. `corpora` puts on disk what does not fit into its memory, and goes
through the documents of a test collection without holding them. The token cache is written by several workers, to whom
10,000 texts are dealt out at a time; the teacher's processes have 100,000 texts at a time, a file each. Training maps
the files into memory and finds any step of any epoch directly (`milco/training/batching.py`), so that start and resume
cost the same for a thousand pairs and for 594 million, those of the paper's Stage 1.

A job of these rules that was cut off goes on with its next file: it has lost 100,000 texts of a cache or of targets,
16,384 vectors, a million candidates of a pair, or the sorting of the pairs. First it reads its inputs once, to see that
they are the same.

## What a job gets

`profiles/slurm` gives memory and time for the paper's experiment, 594 million pairs and 161 million test texts:

- `corpora`, 32 GB and 24 h. One core takes 7.4 h for the pairs and 1 h for held-out texts (below);
  the process needs 1 GB, DuckDB 4 GB, each document of the largest collection 16 bytes, each held-out string 16,
  and 20 more while they are read. With `corpora.decontaminate: all` these are 6 GB, and 3 GB in rule `mine`.
- `tokenize`, 16 processors, 32 GB and 12 h. 25 worker hours for texts of 20 tokens (below); the paper's are longer.
  A worker has .8 GB.
- `teacher`, 8 GPUs, 64 GB and 12 h. If a GPU reads 3,000 to 5,000 texts a second in float32, one of them takes 8 to 14
  h for 150 million. A process has .8 GB, and some for CUDA.
- `overlap`, 8 processors, 16 GB and 4 h. It reads the training text only if queries of a test collection are not taken
  out of it: 750 million strings, 2.4 hours of a core at 87,000 a second (5 to 30 words, of two scripts); the paper's
  are longer. A worker has .4 GB.
- `pack`, 16 processors, 64 GB and 4 h. 14 million texts; memory is that of the workers, .6 GB each.
- `encode`, a GPU, 64 GB and 8 h. 5 million texts in each of 32 shards, 7 h at 200 a second; 100 bytes for each of them.
- `evaluate`, `index`, `prune`, one core, 32 GB and 24 h, and the same for each of the 16 jobs that share the documents
  of one (`evaluate.search_shards`). All queries of all test collections with all their documents are some 700 billion
  pairs, of which MKQA, asked in 25 languages, has 450: at .04 µs (below) 8 h of a core for a system, and half an hour
  in each of 16 jobs. The pruning study asks MIRACL's 75 billion 22 times, 18 h and 1 h 10 min, and builds as many
  indexes. A block of documents at a time is in memory; what a collection and its vectors have in common is sorted in
  the folder for temporary files, some 32 bytes for each text of either. `index` builds parts of a million documents,
  3.3 GB each.

## Measured

Written by `python benchmarks/scale.py` and `python benchmarks/table.py`: synthetic texts of 5 to 30 English words, 13
pairs for each English text, at most 64 tokens, the demo's tokenizer and teacher. Memory is that of all processes
together, without mapped files. The last two columns extrapolate the row to 594 million pairs or 161 million test texts
of such texts; the paper's are longer, its teacher is larger, and a GPU is quicker.

Seconds include the start of the workers, which weighs more where there is less to do. For `corpora` DuckDB was allowed
500 MB instead of 4 GB; the rest of its peak is the process itself. Each case is a process of its own, on a machine
with nothing else to do; `collections` and *held out* had one of its cores, and the pairs were measured again at commit
a2b5635. From 1 to 4 million texts memory grows by 0 to 8 %, but for two cases: *held out* by the 36 bytes of a string,
`collections` by the 16 bytes of a document and what the allocator keeps. A text takes up to 13 % longer among 4
million, one of the teacher's 18 %, whose work is the same: the machine is shared.
"""
START = """## Start of Stage 2

What a process takes from the packed triples to its first batch, beside loading the model: it maps the files, and reads
the lengths of a pool of 50 global batches. Rule `pack` is asked once for all starts (one worker here). Random texts of
10 to 30 words, 8 documents a query, of which 7 are those of others. Written by `python benchmarks/start.py`.
"""
EXACT = """## Exact search

Synthetic documents as milco makes them (columns of 280,000, the n-th most frequent n times rarer than the first),
queries of 30 terms, the 100 best, on one thread, each measurement in a process of its own. *Blocks* is search as rules
`evaluate`, `index` and `prune` do it, vectors read from disk, 65,536 documents at a time; *whole* is a product of all
queries with all documents, which are in memory before, as it was done before. Rankings are the same to the last bit.
Times, speedup and spread are those of a query, in seconds of the processor; those of blocks hold a share of the
reading, which is the larger the fewer queries are asked. Anserini's are by the clock, as it prints them, on one core
of a machine whose other core was at work.

Which vector belongs to which document is sorted on disk, and memory has one block being searched and the next one
being read (100,000 documents are one and a half). What grows from there is what the allocator keeps of freed blocks:
with MALLOC_MMAP_THRESHOLD_=4000000 a million documents take 307 MB and 4 million 309 MB, and a query half as long
again. Measured by `python benchmarks/exact.py`, with the options that its head names.
"""
GPU = """# On a GPU

Written by `make gpu` (`benchmarks/gpu.py`): random weights and synthetic text of the paper's sizes on one device. What
a row of `correct` and `processes` has found must be no more than it allows; `note` says what was not measured.
"""
# What each part should gain, written down before it was built.
EXPECTED = {
    "encoding": "At least 2.5 times the documents per second: batches of like length, no B×L×V logits, sparse rows "
    "taken where they are made; and bfloat16, in the row that says so.",
    "export": "Nothing was expected. *Plain* is this project's own model in torch, *milco* its ONNX graph in "
    "onnxruntime.",
    "head": "At least 3 times as fast, forward and backward, with 1 % of the cells active, in a quarter of the "
    "memory, and 1.2 times forward alone: logits live in tiles that fit the cache, the gradient goes to "
    "the winning cells. Where every cell has a gradient, at most 10 % slower.",
    "padding": "Under 6 % of pads; random batches of the same pairs were expected to waste about half.",
    "search": "Exact search reads all documents that share a term, Seismic the blocks that may hold a result: the "
    "curve of its settings, of pruning by mass, and BM25 beside them.",
    "stages": "Expected: Stage 1 at least 4 times, Stage 2 at least 3 times the examples per second with the same "
    "loss: half of the slots were pads, most of the time went into the head, and Stage 1 asked the teacher again for "
    "every pair. In Stage 1 each makes steps of the same 3,200 pairs in its own way, of which some are measured, drawn "
    "at random. Rows of commit 59e5419 are older than the draws: their steps are evenly spread over their sizes, the "
    "kindest choice, and their spread is that of one run (another gave Stage 1 10.5 in bfloat16 and 11.3 in float32, "
    "Stage 2 4.1 and 4.6, commit d968374). With steps drawn by chance Stage 1 gave 4.4 and 5.0 (0325d0e), 6.8 and 6.1 "
    "(c8f3cfc); Stage 2 gave 5.0 and 5.2, 6.5 and 6.2.",
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
