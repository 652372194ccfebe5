"""Write the HTML report and the tidy table of all results of an experiment.

Run by rule `report`; see `python -m milco.stages report --help`.
"""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import pyarrow.parquet as pq
import yaml

from milco.config import Config
from milco.data.cuts import CUT
from milco.evaluation import budgets
from milco.evaluation.comparison import ASKED, Comparison
from milco.evaluation.drawings import draw_curves, draw_pruning
from milco.evaluation.forgetting import forgotten, in_words
from milco.evaluation.index import PASSES, TIMED
from milco.evaluation.provenance import Provenance
from milco.evaluation.seeds import measures_of, table_of
from milco.evaluation.significance import chance, interval, paired_difference
from milco.experiments import SYSTEM_NAMES, Experiment, Node, system_names
from milco.files import finished_file

POINT = 0.01
CEILING = "en-en"  # collection of the English queries, which measures the ceiling


@dataclass
class Results:
    """What the stages of an experiment left behind.

    Attributes:
        measures: one row per system, collection, query and measure.
        statistics: active dimensions, one row per system and collection.
        curves: stage → rows of its metrics.jsonl.
        nodes: time and memory of each node of the DAG.
        corpora, triples: kept and dropped examples of each dataset.
        overlap: what `overlap` counted of each test collection.
        cuts: texts, and those that were longer than a system reads: system, side, language, texts, cut.
        tuned: as `pruning`, of the development collections, where budgets are chosen.
        seeds: as `measures`, with a row per seed, of the systems that are trained with several.
        systems: those that stand in the tables, in the reader's order.
        main: the one with which the others are compared.
    """

    measures: pd.DataFrame
    statistics: pd.DataFrame
    curves: dict[str, pd.DataFrame]
    index: pd.DataFrame
    pruning: pd.DataFrame
    nodes: pd.DataFrame
    corpora: dict[str, Any]
    overlap: dict[str, Any]
    triples: dict[str, Any]
    cuts: pd.DataFrame = field(default_factory=pd.DataFrame)
    tuned: pd.DataFrame = field(default_factory=pd.DataFrame)
    seeds: pd.DataFrame = field(default_factory=pd.DataFrame)
    systems: list[str] = field(default_factory=lambda: [*SYSTEM_NAMES])
    main: str = "distill"

    @classmethod
    def read(
        cls,
        corpora: Path | None,
        tests: Path,
        overlap: Path | None,
        runs: dict[str, Path],
        stages: dict[str, Path],
        nodes: dict[str, Path],
        index: Path,
        prune: Path,
        triples: Path | None,
        tuned: Path | None = None,
        seeds: dict[str, dict[int, Node]] | None = None,
    ) -> "Results":
        """Read the results from where the stages wrote them; without a training there is no training text.

        Args:
            seeds: system → training seed → its runs, of the systems that are trained with several.
        """
        measures = [pd.read_parquet(path / "measures.parquet").assign(system=name) for name, path in runs.items()]
        statistics = [pd.DataFrame(_json(path / "statistics.json")).assign(system=name) for name, path in runs.items()]
        timed = [
            pd.read_csv(path, sep="\t", na_values="-").assign(node=name)
            for name, pattern in nodes.items()
            for path in sorted(pattern.parent.glob(pattern.name))
            if path.exists()
        ]
        repeated = [measures_of(found).assign(system=name) for name, found in (seeds or {}).items()]
        text = _json(corpora / "statistics.json") if corpora else {"warnings": []}
        text["warnings"] += _json(tests / "warnings.json")
        return cls(
            pd.concat(measures, ignore_index=True),
            pd.concat(statistics, ignore_index=True),
            {name: pd.read_json(path / "metrics.jsonl", lines=True) for name, path in stages.items()},
            pd.read_parquet(index / "seismic.parquet"),
            pd.read_parquet(prune),
            pd.concat(timed).groupby("node", as_index=False).agg({"s": "sum", "max_rss": "max"}),
            text,
            _json(overlap) if overlap else {},
            json.loads(pq.read_metadata(triples).metadata[b"statistics"]) if triples else {"warnings": []},
            pd.DataFrame([row for name, path in runs.items() for row in _cuts(name, path / CUT)]),
            pd.read_parquet(tuned) if tuned else pd.DataFrame(),
            pd.concat(repeated, ignore_index=True) if repeated else pd.DataFrame(),
        )

    def means(self) -> pd.DataFrame:
        """Mean over queries: one row per system, collection and measure."""
        names = ["system", "collection", "query_language", "document_language", "measure"]
        return self.measures.groupby(names, sort=False).value.mean().reset_index()

    def against(self, system: str, comparison: Comparison) -> pd.DataFrame:
        """Difference of `system` from each other system, over their common queries."""
        rows = comparison.rows(self.measures)
        values = rows.pivot(index=ASKED, columns="system", values="value")
        found = {}
        for other in [name for name in self.systems if name in values and name != system]:
            both = values[[system, other]].dropna()
            if len(both):
                counts = {"queries": len(both), "different": both.index.get_level_values("query").nunique()}
                found[other] = {**counts, **paired_difference(both[system], both[other])}
        return pd.DataFrame.from_dict(found, orient="index")

    def ceiling(self, measure: str) -> pd.Series:
        """Collection → the English teacher's measure with the English form of the same queries."""
        english = self.measures[(self.measures.collection == CEILING) & (self.measures.measure == measure)]
        english = english[english.system == "teacher"].set_index("query").value
        asked = self.measures[(self.measures.measure == measure) & (self.measures.document_language == "en")]
        asked = asked[asked["query"].isin(english.index)].drop_duplicates(["collection", "query"])
        return asked.groupby("collection")["query"].agg(lambda queries: english[queries].mean())


def beside_published(published: Path, means: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Title → published figures of collections that were measured here too, and ours: systems × collections.

    The mean is there if all collections of the publication were measured. Other judgements, depths or subsets make
    figures differ as well: compare with care.
    """
    tables = {}
    for entry in yaml.safe_load(published.read_text(encoding="utf-8")):
        wanted = entry["collections"]
        mine = means[(means.measure == entry["measure"]) & means.collection.isin(wanted)]
        if mine.empty:
            continue
        ours = mine.pivot(index="system", columns="collection", values="value").rename(index=SYSTEM_NAMES)
        theirs = {
            name: dict(zip(wanted, values, strict=True)) if isinstance(values, list) else {"mean": values}
            for name, values in entry["systems"].items()
        }
        table = pd.concat([ours, pd.DataFrame.from_dict(theirs, orient="index")]).reindex(columns=[*wanted, "mean"])
        table["mean"] = table["mean"].fillna(table[wanted].mean(axis=1, skipna=False))
        table.insert(0, "from", ["here"] * len(ours) + ["published"] * len(theirs))
        tables[f"{entry['source']}, {entry['measure']}"] = table.dropna(axis=1, how="all")
    return tables


def _cuts(system: str, path: Path) -> list[dict[str, Any]]:
    """A row for each side and language that a system reads."""
    counts = _json(path) if path.exists() else {}
    return [
        {"system": system, "side": side, "language": language, "texts": texts, "cut": count["cut"].get(language, 0)}
        for side, count in counts.items()
        for language, texts in count["texts"].items()
    ]


def cut_table(cuts: pd.DataFrame) -> pd.DataFrame:
    """How many texts each system cut, of how many: a column per system, a row per side and language with any."""
    if not cuts.empty:
        cuts = cuts[cuts.groupby(["side", "language"]).cut.transform("max") > 0]
    if cuts.empty:
        return cuts
    words = [f"{row.cut} of {row.texts}" for row in cuts.itertuples()]
    table = cuts.assign(words=words).pivot(index=["side", "language"], columns="system", values="words")
    return table[cuts.system.unique()].fillna("")


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def tidy(config: Config, results: Results) -> pd.DataFrame:
    """One row per experiment, system, collection and measure, in the columns of metrics.csv; a further training seed is
    an experiment of its own."""
    parts = [results.means().assign(experiment=config.experiment)]
    for other in config.other_seeds():
        measures = results.seeds[results.seeds.seed == other.training_seed]
        parts.append(replace(results, measures=measures).means().assign(experiment=other.experiment))
    columns = ["experiment", "system", "collection", "query_language", "document_language", "measure", "value"]
    return pd.concat(parts)[columns].round({"value": 6})


def language_table(results: Results, measure: str, cross_lingual: bool) -> pd.DataFrame:
    """A measure by collection (rows) and system (columns), as `collection_table` has it, of the collections across
    languages or of those within one; empty if there is none."""
    means = results.means()
    means = means[means.measure == measure]
    rows = means[(means.query_language != means.document_language) == cross_lingual]
    if not cross_lingual:
        rows = rows[rows.collection != CEILING]
    return collection_table(results, rows, cross_lingual)


def collection_table(results: Results, rows: pd.DataFrame, ceiling: bool) -> pd.DataFrame:
    """Rows of one measure, by collection and system, with the ceiling where all collections have one and it is asked
    for. `means_of` them comes last, if they are several."""
    table = rows.pivot(index="collection", columns="system", values="value")
    table = table[[system for system in results.systems if system in table]]
    if table.empty:
        return table
    reached = results.ceiling(rows.measure.iloc[0]).reindex(table.index)
    if ceiling and reached.notna().all():
        table["ceiling"] = reached
        table["share"] = table[results.main] / reached
    return pd.concat([table, means_of(table)]) if len(table) > 1 else table


def means_of(table: pd.DataFrame) -> pd.DataFrame:
    """Means of the columns of a table: over all rows, for the columns without a gap. Then, if some have gaps, over the
    rows in which all have a value, if there are any.

    Quote the first mean: it does not depend on which collections an English-only system can read.
    """
    shared, rows = table.dropna(), {f"mean of all {len(table)}": table.mean(skipna=False)}
    if 0 < len(shared) < len(table):
        rows[f"mean of the {len(shared)} that all have"] = shared.mean()
    return pd.DataFrame(rows).T


def averages_of(means: pd.DataFrame) -> pd.DataFrame:
    """System → mean of each measure over the collections that have it, as `means_of` has it."""
    columns, total = {}, means.collection.nunique()
    for measure, rows in means.groupby("measure", sort=False):
        table = rows.pivot(index="collection", columns="system", values="value")
        whole, *shared = means_of(table).to_dict("index").values()
        columns[f"{measure}" if len(table) == total else f"{measure}, {len(table)} of them"] = whole
        if shared:
            columns[f"{measure}, the {len(table.dropna())} that all have"] = shared[0]
    return pd.DataFrame(columns)


def others_of(results: Results, comparison: Comparison) -> pd.DataFrame:
    """What was measured on collections that are not compared: one row per source and measure, with the number of
    collections and, for each system that has all of them, the mean."""
    means = results.means()
    means = means[~means.collection.isin([*comparison.collections, CEILING])]
    rows = means.assign(source=means.collection.map(comparison.sources)).groupby(["source", "measure"], sort=False)
    found = []
    for (source, measure), part in rows:
        table = part.pivot(index="collection", columns="system", values="value")
        found.append(
            {"source": source, "measure": measure, "collections": len(table), **table.mean(skipna=False).to_dict()}
        )
    return pd.DataFrame(found)


def summary_of(
    main: pd.DataFrame,
    averages: pd.DataFrame,
    others: pd.DataFrame,
    seeds: pd.DataFrame,
    results: Results,
    comparison: Comparison,
    names: dict[str, str],
    worth: str,
    gained: pd.DataFrame,
    provenance: Provenance,
) -> str:
    """The main tables as Markdown, with what they were measured on.

    Args:
        main: the compared collections, as `collection_table` has them.
        averages, others, seeds: as `averages_of`, `others_of` and `table_of` give them.
        names, worth: as `system_names` and `worth_of` give them.
        gained: as `forgotten` gives it.
    """
    seconds, peak = results.nodes.s.sum(), results.nodes.max_rss.max()
    made_by = f"{provenance}; {seconds / 60:.1f} minutes of work in all nodes, peak memory {peak / 1024:.1f} GB.\n"
    if main.empty:
        parts = [f"Nothing is compared: {comparison}; {made_by}"]
    else:
        rows = [["collection", *(names.get(column, column) for column in main)]]
        for name, row in main.iterrows():
            rows.append(
                [str(name), *(_cell(value, ".0%" if column == "share" else ".3f") for column, value in row.items())]
            )
        means = [["system, mean", *averages.columns]]
        means += [[names[system], *(_cell(value, ".3f") for value in row)] for system, row in averages.iterrows()]
        parts = [f"{comparison.measure}, {comparison}; {made_by}\n{worth}\n"]
        parts += [markdown_table(rows), markdown_table(means)]
    if not seeds.empty:
        parts.append(markdown_table(_seed_rows(seeds, names)))
    if not others.empty:
        systems = [system for system in names if system in others]
        rows = [["other collections, mean", "measure", "collections", *(names[system] for system in systems)]]
        rows += [
            [row["source"], row["measure"], str(row["collections"]), *(_cell(row[system], ".3f") for system in systems)]
            for row in others.to_dict("records")
        ]
        parts.append(markdown_table(rows))
    if not gained.empty:
        rows = [["gained and forgotten", "queries", "start", "now", "difference", "95 % interval", "q"]]
        for name, row in gained.iterrows():
            figures = [f"{row.start:.3f}", f"{row.now:.3f}", f"{row.difference:+.3f}"]
            rows.append([str(name), str(row.queries), *figures, interval(row.low, row.high), chance(row.q)])
        parts += [f"{in_words(gained)}\n", markdown_table(rows)]
    return "\n".join([*parts, made_how(provenance)])


def _seed_rows(seeds: pd.DataFrame, names: dict[str, str]) -> list[list[str]]:
    """The cells of `table_of`, the head first."""
    trained = [column for column in seeds if column not in ("mean", "deviation", "low", "high")]
    head = [
        "system, by training seed",
        *map(str, trained),
        "mean over seeds",
        "deviation",
        "95 % interval over queries",
    ]
    rows = [head]
    for system, row in seeds.iterrows():
        means = [_cell(row[key], ".3f") for key in [*trained, "mean"]]
        rows.append([names[str(system)], *means, f"{row.deviation:.4f}", interval(row.low, row.high, ".3f")])
    return rows


def worth_of(config: Config, comparison: Comparison, against: pd.DataFrame, seeds: pd.DataFrame) -> str:
    """Sentences on the reliability of a comparison: the origin of the labels, and whether a difference of one point is
    significant.

    Args:
        against: as `Results.against` gives it.
        seeds: as `table_of` gives it.
    """
    sources = list(dict.fromkeys(comparison.sources[name] for name in comparison.collections))
    known_items = {name for name, source in config.sources.items() if source.format == "home-assistant"}
    derived = [name for name in sources if name in known_items]
    given = [name for name in sources if name not in derived]
    said = []
    if derived:
        said.append(
            f"The labels of {', '.join(derived)} are derived from the data (the title of a setting looks for its own "
            "description), nobody judged them."
        )
    if given:
        said.append(f"The labels of {', '.join(given)} are the judgements that came with the collections.")
    tested = against.dropna() if len(against) else against
    if len(tested):
        reach = (tested.high - tested.low) / 2
        low, high = reach.min(), reach.max()
        verdict = "is more than chance" if high < POINT else "may be chance"
        said.append(
            f"The 95 % interval of a difference of systems reaches {low:.3f} to {high:.3f} to either side, over "
            f"{tested.different.max()} different queries: a difference of one point ({POINT:g}) "
            f"{'cannot be told from chance' if low > POINT else verdict}."
        )
    if config.main in seeds.index:
        said.append(
            f"Trained with {len(config.seeds or [])} seeds, {system_names(config)[config.main]} has a mean of "
            f"{seeds['mean'][config.main]:.3f} and between them a deviation of {seeds.deviation[config.main]:.4f}."
        )
    elif len(tested) and not config.evaluate.model:
        said.append("Another seed may move it, too.")
    return " ".join(said)


def made_how(provenance: Provenance) -> str:
    """Where the stages were made, as Markdown."""
    return f"{markdown_table(provenance.rows)}\nVersions: {provenance.versions}.\n"


def _cell(value: float, form: str) -> str:
    return "–" if pd.isna(value) else format(value, form)


def markdown_table(rows: list[list[str]]) -> str:
    """Rows of cells as Markdown, the head first, all but the first column to the right."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" + "|---:" * (len(rows[0]) - 1) + "|", *lines[1:]]) + "\n"


def template(name: str) -> jinja2.Template:
    """A template of this package; it escapes the values that it is given."""
    loader = jinja2.PackageLoader("milco.evaluation", ".")
    pages = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    pages.globals |= {"interval": interval, "chance": chance}
    return pages.get_template(name)


def write(
    config: Config,
    results: Results,
    comparison: Comparison,
    published: Path,
    report: Path,
    metrics: Path,
    summary: Path,
) -> None:
    """Write report.html, metrics.csv and summary.md; `published` is a file like config/published.yaml."""
    with finished_file(metrics) as draft:
        tidy(config, results).to_csv(draft, index=False)
    means, names, provenance = (
        results.means(),
        system_names(config),
        Provenance.of([*Experiment(config).seeds.values()]),
    )
    shown = [system for system in names if not config.mixes().get(system)]
    results = replace(results, systems=shown, main=config.main)
    main = collection_table(results, comparison.rows(means), comparison.across)
    averages = averages_of(means[means.collection.isin(comparison.collections)])
    averages = averages.reindex([system for system in names if system in averages.index])
    others, against = others_of(results, comparison), results.against(config.main, comparison)
    seeds = table_of(results.seeds, comparison)
    worth = worth_of(config, comparison, against, seeds)
    gained = forgotten(config, results.measures)
    figures = results.statistics.groupby("system", sort=False).mean(numeric_only=True)
    active = figures.dropna(subset=["active_query", "active_document", "empty_query"])
    costs = figures.dropna(subset="dimensions") if "dimensions" in figures else figures[:0]  # else of earlier versions
    curve = results.curves.get("distill", pd.DataFrame())
    kept = {
        stage: results.curves[stage].query("best == 1").step.iloc[-1]
        for stage in results.curves
        if getattr(config, stage).keep == "best"
    }
    if "distill" in kept:
        curve = curve[curve.step <= kept["distill"]]
    examples = curve.examples.dropna().iloc[-1] if "examples" in curve else {}
    page = template("report.html.jinja").render(
        config=config,
        names=names,
        comparison=comparison,
        headline=main.iloc[: main.index.isin(comparison.collections).sum()].mean(skipna=False).dropna(),
        cross=language_table(results, comparison.measure, True),
        same=language_table(results, comparison.measure, False),
        averages=averages,
        others=others,
        active=active,
        costs=costs.reindex([system for system in names if system in costs.index]),
        published=beside_published(published, means),
        against=against,
        seeds=_seed_rows(seeds, names) if len(seeds) else [],
        worth=worth,
        gained=gained,
        gained_in_words=in_words(gained) if len(gained) else "",
        index=results.index,
        pruning=budgets.means(results.pruning),
        spread=results.pruning.get("milliseconds_spread"),
        passes=PASSES,
        timed=TIMED,
        choices=budgets.choices(results.tuned, results.pruning),
        nodes=results.nodes.sort_values("s", ascending=False),
        corpora=results.corpora,
        overlap=results.overlap,
        triples=results.triples,
        curves=draw_curves(results.curves) if results.curves else "",
        pruning_curve=draw_pruning(results.pruning, comparison.measure),
        examples=examples,
        kept=kept,
        cuts=cut_table(results.cuts),
        settings=config.to_yaml(),
        provenance=provenance,
    )
    with finished_file(summary) as draft:
        text = summary_of(main, averages, others, seeds, results, comparison, names, worth, gained, provenance)
        draft.write_text(text, encoding="utf-8")
    with finished_file(report) as draft:
        draft.write_text(page, encoding="utf-8")
