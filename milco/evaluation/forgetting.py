"""Compare a fine-tuned model with its start model on every collection: the gain in the training languages and the loss
in other languages."""

import pandas as pd

from milco.config import Config
from milco.evaluation.comparison import ASKED
from milco.evaluation.significance import LEVEL, adjusted, paired_difference

TUNED, OTHERS = "trained on", "other languages"


def forgotten(config: Config, measures: pd.DataFrame) -> pd.DataFrame:
    """Start and fine-tuned model on every collection that has `evaluate.compared_measure`.

    Args:
        measures: one row per system, collection, query and measure.

    Returns:
        One row per collection, those in the languages that were trained on first, and before them one row for the mean
        over all queries of each of the two groups. Columns start and now (means), queries, difference with low and high
        (95 % bootstrap interval), p (paired randomisation test), q (p of the collections, adjusted for so many
        comparisons; of the groups likewise), tuned (whether it asks in a language that was trained on). Empty if
        Stage 2 starts from no finished model, `evaluate.baselines` does not name it, or nothing is measured so.
    """
    if config.start not in config.evaluate.baselines:
        return pd.DataFrame()
    rows = measures[measures.measure == config.evaluate.compared_measure]
    if rows.empty:
        return pd.DataFrame()
    languages = rows.groupby("collection", sort=False).query_language.first()
    tuned = languages.isin(config.tuned_languages())
    tuned = tuned.sort_values(ascending=False, kind="stable")
    values = rows.pivot(index=ASKED, columns="system", values="value")
    both = values[[config.start, config.main]].dropna()
    groups = {name: tuned.index[tuned == said] for name, said in ((TUNED, True), (OTHERS, False))}
    tables = [{name: list(names) for name, names in groups.items() if len(names)}]
    tables.append({name: [name] for name in tuned.index})
    return pd.concat([_rows(both, table, tuned) for table in tables])


def _rows(both: pd.DataFrame, groups: dict[str, list[str]], tuned: pd.Series) -> pd.DataFrame:
    """A row for each group of collections; the tests of the groups are one family."""
    found = {}
    for name, collections in groups.items():
        part = both[both.index.get_level_values("collection").isin(collections)]
        start, now = (part[column] for column in part)
        said = {"tuned": tuned[collections[0]], "queries": len(part), "start": start.mean(), "now": now.mean()}
        found[name] = said | paired_difference(now, start)
    table = pd.DataFrame.from_dict(found, orient="index")
    return table.assign(q=adjusted(table.p))


def in_words(table: pd.DataFrame) -> str:
    """Sentence that names the collections with significant gains and losses."""
    single = table[~table.index.isin([TUNED, OTHERS])]
    beyond = single[single.q < LEVEL]
    signs = {"gained": beyond[beyond.difference > 0], "lost": beyond[beyond.difference < 0]}
    said = [f"{word} beyond chance: {', '.join(rows.index) or 'none'}" for word, rows in signs.items()]
    return f"Of {len(single)} collections {'; '.join(said)} (q < {LEVEL})."
