"""Compare an experiment, its simpler systems, and its variants on the same queries.

Run by rule `ablations`:
    python -m milco.stages ablations --experiment FILE --experiment FILE … --published FILE --page FILE --table FILE
        --summary FILE
where each `--experiment FILE` holds settings, the first those of the experiment that the others vary.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from milco.config import Config
from milco.evaluation.comparison import ASKED, Comparison
from milco.evaluation.drawings import draw_training
from milco.evaluation.provenance import Provenance
from milco.evaluation.report import beside_published, made_how, markdown_table, template
from milco.evaluation.seeds import measures_of
from milco.evaluation.significance import LEVEL, adjusted, chance, interval, paired_difference
from milco.experiments import Experiment, compared
from milco.files import finished_file

STAGES = {
    "corpora": "corpora",
    "tokenize": "token cache",
    "teacher": "teacher",
    "mine": "triples",
    "pack": "token cache of Stage 2",
    "align": "Stage 1",
    "distill": "Stage 2",
}

COSTS = ("active_query", "active_document", "minutes")


@dataclass
class Row:
    """One line of the comparison.

    Attributes:
        changes: keys with other values than in the base, and their values.
        made: stages that are its own, not shared with the base.
        measures: one row per training seed, collection, query and measure.
        active: mean terms per query and document over the collections.
        minutes: minutes of its trainings, including shared ones; NaN without trainings or recorded speeds.
    """

    name: str
    changes: dict[str, Any]
    made: list[str]
    measures: pd.DataFrame
    active: pd.Series
    minutes: float = float("nan")

    @classmethod
    def read(cls, name: str, base: Experiment, experiment: Experiment, system: str) -> "Row":
        """Read what rule `evaluate` wrote for a system of an experiment."""
        runs = experiment.runs_of(system)
        said = [Path(node.path, "statistics.json").read_text(encoding="utf-8") for node in runs.values()]
        statistics = pd.concat([pd.DataFrame(json.loads(text)) for text in said])
        shared = set(base.nodes)
        made = [STAGES[node.rule] for node in experiment.nodes if node.rule in STAGES and node not in shared]
        return cls(
            name,
            differences(base.config, experiment.config),
            made,
            measures_of(runs),
            statistics.mean(numeric_only=True),
            _minutes(experiment, system),
        )


def _minutes(experiment: Experiment, system: str) -> float:
    """Training minutes of a system: examples divided by the last logged rate, so that resumed trainings count in full.
    NaN, if there are none."""
    minutes = []
    for stage, node in experiment.trainings_of(system).items():
        path = Path(node.path).with_name("metrics.jsonl")
        if path.exists():
            rows = pd.read_json(path, lines=True).reindex(columns=["step", "examples_per_second"]).dropna()
            size = getattr(experiment.config, stage).global_batch_size
            seconds = rows.step * size / rows.examples_per_second
            minutes.append(seconds.iloc[-1] / 60 if len(rows) else float("nan"))  # fewer steps than `logging_steps`
    return sum(minutes) if minutes else float("nan")


def differences(base: Config, other: Config) -> dict[str, Any]:
    """Keys in which two configurations differ, with the second's values; the name does not count."""

    def flat(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in section.items():
            found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
        return found

    one, two = flat(base.model_dump(exclude={"experiment"})), flat(other.model_dump(exclude={"experiment"}))
    return {key: two.get(key) for key in {**one, **two} if one.get(key) != two.get(key)}


def compare(rows: list[Row], comparison: Comparison) -> pd.DataFrame:
    """One line per row: its measure, and its difference from the first row over their common queries.

    A query's value is its mean over the seeds of a row. Columns queries (asked, in all collections), different (how
    many different ids they have), collections (those of these queries), the measure, seeds and deviation (of the
    measure between them; both only where some row has several), difference, low, high (95 % bootstrap interval), p
    (paired randomisation test), q (p adjusted for so many comparisons, Benjamini and Hochberg 1995), significant,
    active_query, active_document, minutes (of training). Where there is no common query, there are no figures.
    """
    base = _values(rows[0], comparison)
    found = {}
    for row in rows:
        both = pd.concat([_values(row, comparison), base], axis=1, join="inner")
        counts = {
            "queries": len(both),
            "different": both.index.get_level_values("query").nunique(),
            "collections": both.index.get_level_values("collection").nunique(),
        }
        means = {comparison.measure: both.iloc[:, 0].mean(), **_between_seeds(row, both.index, comparison)}
        found[row.name] = {**counts, **means, **paired_difference(both.iloc[:, 0], both.iloc[:, 1])}
    table = pd.DataFrame.from_dict(found, orient="index")
    if not (table.seeds > 1).any():
        table = table.drop(columns=["seeds", "deviation"])
    table["q"] = adjusted(table.p.iloc[1:])
    table["significant"] = table.q < LEVEL
    for side in ("active_query", "active_document"):
        table[side] = [row.active.get(side, float("nan")) for row in rows]
    table["minutes"] = [row.minutes for row in rows]
    return table


def by_collection(rows: list[Row], comparison: Comparison) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The measure by collection and row, and the sign of each significant difference from the first row, else 0."""
    base = _values(rows[0], comparison)
    values = {row.name: _values(row, comparison).groupby(level="collection").mean() for row in rows}
    table = pd.DataFrame(values)
    chances, signs = {}, {}
    for row in rows[1:]:
        both = pd.concat([_values(row, comparison), base], axis=1, join="inner")
        for name, part in both.groupby(level="collection"):
            test = paired_difference(part.iloc[:, 0], part.iloc[:, 1])
            chances[name, row.name], signs[name, row.name] = test["p"], 1 if test["difference"] > 0 else -1
    marks = pd.DataFrame(0, index=table.index, columns=table.columns)
    for (collection, name), q in adjusted(pd.Series(chances, dtype=float)).items():
        if q < LEVEL:
            marks.at[collection, name] = signs[collection, name]
    return table, marks


def _values(row: Row, comparison: Comparison) -> pd.Series:
    """The measure by collection and query, mean over the seeds."""
    return comparison.rows(row.measures).groupby(ASKED, sort=False).value.mean()


def _between_seeds(row: Row, asked: pd.Index, comparison: Comparison) -> dict[str, float]:
    """Number of seeds of a row, and the sample standard deviation over seeds of its mean."""
    rows = comparison.rows(row.measures).set_index(ASKED)
    means = rows[rows.index.isin(asked)].groupby("seed").value.mean()
    return {"seeds": row.measures.seed.nunique(), "deviation": means.std()}


def write(experiments: list[Experiment], published: Path, page: Path, table: Path, summary: Path) -> None:
    """Write the comparison as a page, as ablations.csv and as Markdown."""
    base = experiments[0]
    comparison = Comparison.of(base.config, Path(base.collections.path) / "collections" / "test")
    rows = [Row.read(name, base, *line) for name, line in compared(experiments).items()]
    collections, marks = by_collection(rows, comparison)
    provenance = Provenance.of([other for experiment in experiments for other in experiment.seeds.values()])
    means = pd.concat([row.measures.assign(system=row.name) for row in rows])
    means = means.groupby(["system", "collection", "measure"], sort=False).value.mean().reset_index()
    told = compare(rows, comparison).assign(
        changes=["; ".join(f"{key}: {_short(value)}" for key, value in row.changes.items()) for row in rows],
        made=[", ".join(row.made) for row in rows],
    )
    with finished_file(table) as draft:
        told.to_csv(draft, index_label="experiment")
    with finished_file(summary) as draft:
        draft.write_text(f"{_summary(told, collections, marks, comparison)}\n{made_how(provenance)}", encoding="utf-8")
    with finished_file(page) as draft:
        text = template("ablations.html.jinja").render(
            base=base.name,
            comparison=comparison,
            told=told,
            collections=collections,
            marks=marks,
            published=beside_published(published, means),
            level=LEVEL,
            provenance=provenance,
            training=draw_training(told, comparison.measure),
        )
        draft.write_text(text, encoding="utf-8")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) < 60 else f"{text[:57]}…"


def _summary(told: pd.DataFrame, collections: pd.DataFrame, marks: pd.DataFrame, comparison: Comparison) -> str:
    if collections.empty:
        return f"Nothing is compared: {comparison}.\n"
    head = [
        "experiment",
        "changes",
        "made anew",
        comparison.measure,
        *(["seeds", "deviation"] if "seeds" in told else []),
        "difference",
        "95 % interval",
        "q",
        "queries",
        "different",
        "collections",
        "terms per query",
        "document",
        "minutes of training",
    ]
    lines = [head]
    for name, row in told.iterrows():
        alone = name == told.index[0] or not row.queries
        lines.append(
            [
                str(name),
                row.changes or "–",
                row.made or "–",
                f"{row[comparison.measure]:.3f}" if row.queries else "–",
                *(
                    [str(row.seeds), "–" if pd.isna(row.deviation) else f"{row.deviation:.4f}"]
                    if "seeds" in told
                    else []
                ),
                "–" if alone else f"{row.difference:+.3f}{'*' if row.significant else ''}",
                "–" if alone else interval(row.low, row.high),
                "–" if alone else chance(row.q),
                str(row.queries),
                str(row.different),
                str(row.collections),
                *("–" if pd.isna(row[name]) else f"{row[name]:.0f}" for name in COSTS),
            ]
        )
    signs = {1: " ↑", -1: " ↓", 0: ""}
    languages = [["collection", *map(str, collections)]]
    for name, values in collections.iterrows():
        cells = ["–" if pd.isna(value) else f"{value:.3f}{signs[marks.at[name, row]]}" for row, value in values.items()]
        languages.append([str(name), *cells])
    about = f"{comparison.measure}, {comparison}; differences are over the queries that both were asked. "
    about += "Intervals and q resample queries by their id: translations of a query are one draw, not several."
    if "seeds" in told:
        about += (
            " Where a line has several training seeds, a query's value is its mean over them, and the deviation is "
        )
        about += "that of the line's mean between them."
    return f"{about}\n\n{markdown_table(lines)}\n{markdown_table(languages)}"
