"""Shared by all benchmarks: run two implementations side by side, and write a row for each case.

Times are taken in turns, so that a busy neighbour slows both; the speedup is the median of the ratios of neighbouring
pairs, the spread their smallest and largest. Memory is the additional peak of a separate process.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
MIB = 2**20


def seconds(work: Callable[[], object]) -> float:
    """Time of one call, on a GPU by events of its stream."""
    import torch

    if not torch.cuda.is_available():
        started = time.perf_counter()
        work()
        return time.perf_counter() - started
    started, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    started.record()
    work()
    ended.record()
    torch.cuda.synchronize()
    return started.elapsed_time(ended) / 1000


def compare(
    baseline: Callable[[], object],
    milco: Callable[[], object],
    repeats: int = 5,
    share: float = 1.0,
    warm_up: Callable[[], object] | None = None,
) -> dict:
    """Median times of both, the median ratio of neighbouring pairs and the spread of the ratios.

    Args:
        share: share of the work of `milco` that `baseline` does; the times of `baseline` are scaled up.
        warm_up: runs first, to compile, allocate and read; by default both ways once.
    """
    (warm_up or (lambda: (baseline(), milco())))()
    pairs = [(seconds(baseline) / share, seconds(milco)) for _ in range(repeats)]
    ratios = [one / other for one, other in pairs]
    return {
        "baseline_s": round(statistics.median(one for one, _ in pairs), 4),
        "milco_s": round(statistics.median(other for _, other in pairs), 4),
        "speedup": round(statistics.median(ratios), 2),
        "spread": [round(min(ratios), 2), round(max(ratios), 2)],
    }


def over_draws(rows: list[dict]) -> dict:
    """What `compare` found for several draws of the work, as one row: medians, and the spread of the draws' ratios."""
    ratios = [row["speedup"] for row in rows]
    found = {name: round(statistics.median(row[name] for row in rows), 4) for name in ("baseline_s", "milco_s")}
    return {**found, "speedup": round(statistics.median(ratios), 2), "spread": [min(ratios), max(ratios)]}


def additional_memory(work: Callable[[], object]) -> float:
    """MiB that one call adds to the peak of this process, which should have done nothing of the kind before."""
    import torch

    if torch.cuda.is_available():
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        return (torch.cuda.max_memory_allocated() - before) / MIB
    before = _peak()
    work()
    return _peak() - before


def _peak() -> float:
    """Largest resident memory of this process so far, in MiB; ru_maxrss would count the parent's."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def in_own_process(script: str, *arguments: str) -> float:
    """The number that a benchmark prints when it is called with these arguments."""
    done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def save(name: str, rows: list[dict]) -> None:
    """Write the rows of a benchmark to results/NAME.json, and print them."""
    for row in write(name, rows):
        print(json.dumps(row))


def write(name: str, rows: list[dict]) -> list[dict]:
    """Write the rows to results/NAME.json, with machine and commit where they have none, and return them as written."""
    from milco.environment import environment
    from milco.files import finished_file

    made = environment()
    where = f"{made['processor']}, {made['cores']} cores, {', '.join(made['devices'])}"
    told = {"machine": f"{where}, torch {made['packages']['torch']}", "commit": made["commit"]}
    rows = [{**row, **told, **row} for row in rows]
    RESULTS.mkdir(parents=True, exist_ok=True)
    with finished_file(RESULTS / f"{name}.json") as draft:  # it may be cut off at any point
        draft.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return rows
