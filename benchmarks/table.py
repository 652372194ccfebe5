"""The tables of docs/performance.md and docs/scale.md from the rows of benchmarks/results; the prose stays as it is.

python benchmarks/table.py
"""

import json
import re
from pathlib import Path

from measure import RESULTS

PAGES = ("performance.md", "scale.md")
GPU = """# On a GPU

Written by `make gpu` (`benchmarks/gpu.py`): random weights and synthetic text of the paper's sizes on one device. In
the rows of `correct` and `processes` the value found must not exceed the value allowed; `note` says what was not
measured.
"""
COMMON = {
    "case": "case", "baseline_s": "plain, s", "milco_s": "milco, s", "speedup": "speedup", "spread": "spread",
    "baseline_mb": "plain, MB", "milco_mb": "milco, MB",
}  # fmt: skip
SPEEDS = ("align_pairs_per_second", "distill_queries_per_second", "teacher_texts_per_second",
          "encode_documents_per_second")  # fmt: skip
NEVER = ("benchmark", "machine", "commit")


def main() -> None:
    files = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))}
    tables = {name: as_table(rows) for name, rows in files.items()}
    tables["gpu"] = gpu_section({name: rows for name, rows in files.items() if name.startswith("gpu-")})
    for name in PAGES:
        page = Path(__file__).parents[1] / "docs" / name
        page.write_text(with_tables(page.read_text(encoding="utf-8"), tables), encoding="utf-8")


def with_tables(page: str, tables: dict[str, str]) -> str:
    """The page with each table between `<!-- its name -->` and `<!-- end -->`; what has no rows stays as it is."""

    def table(found: re.Match) -> str:
        return f"<!-- {found[1]} -->\n{tables.get(found[1], found[2])}<!-- end -->\n"

    return re.sub(r"<!-- (\w+) -->\n(.*?)<!-- end -->\n", table, page, flags=re.DOTALL)


def gpu_section(files: dict[str, list[dict]]) -> str:
    """What was measured on a GPU, and its speeds as section `machine` of an experiment takes them."""
    if not files:
        return ""
    found = speeds(RESULTS)
    said = f"For `milco plan`, of one device:\n\n```yaml\nmachine: {json.dumps(found)}\n```\n" if found else ""
    return "\n".join([GPU, said, *(f"## {name}\n\n{as_table(rows)}" for name, rows in files.items())])


def speeds(results: Path) -> dict[str, float]:
    """What section `machine` takes, as far as gpu.py has measured it."""
    files = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("gpu-*.json"))]
    return {name: row[name] for rows in files for row in rows for name in SPEEDS if name in row}


def as_table(rows: list[dict]) -> str:
    """Where the rows were measured, and all that they say."""
    commits = list(dict.fromkeys(row["commit"] for row in rows))
    never = NEVER if len(commits) == 1 else NEVER[:-1]
    columns = list(dict.fromkeys(name for row in rows for name in row if name not in never))
    columns.sort(key=lambda name: list(COMMON).index(name) if name in COMMON else len(COMMON))
    machines = " or ".join(dict.fromkeys(row["machine"] for row in rows))
    lines = [f"{machines}; commit {commits[0]}" if len(commits) == 1 else machines, ""]
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
