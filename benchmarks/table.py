"""docs/performance.md from the rows of benchmarks/results: python benchmarks/table.py"""

import json
from pathlib import Path

from measure import RESULTS

HEAD = """# Performance

Written by `make bench`, which measures both ways side by side in one run: *plain* is the way of the paper's code,
written down in a few lines in `benchmarks/`. Speedup is the median of the ratios of neighbouring pairs of runs, spread
their smallest and largest; memory is what the work adds to the process. Times belong to the machine that ran it;
ratios carry over.
"""


def main() -> None:
    lines = [HEAD]
    for path in sorted(RESULTS.glob("*.json")):
        rows = json.loads(path.read_text(encoding="utf-8"))
        lines += [f"## {path.stem}", "", f"{rows[0]['machine']}; commit {rows[0]['commit']}", ""]
        lines += ["| case | plain, s | milco, s | speedup | spread | plain, MB | milco, MB |", "|---|" + 6 * "---:|"]
        lines += [
            f"| {row['case']} | {row['baseline_s']:.2f} | {row['milco_s']:.2f} | {row['speedup']:.2f} "
            f"| {row['spread'][0]:.2f}–{row['spread'][1]:.2f} | {row['baseline_mb']:,} | {row['milco_mb']:,} |"
            for row in rows
        ]
        lines.append("")
    Path(__file__).parents[1].joinpath("docs", "performance.md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
