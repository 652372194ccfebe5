"""docs/budget.svg: nDCG@10 against training minutes, from the comparison of the demo's budgets.

snakemake --profile profiles/local --configfile config/demo.yaml config/demo-budget.yaml -- ablations
python benchmarks/budget.py
"""

import re

import pandas as pd
from experiment import ROOT, Experiment

from milco.evaluation.drawings import draw_training
from milco.evaluation.report import markdown_table


def main() -> None:
    experiment = Experiment()
    told = pd.read_csv(experiment.at(experiment.results) / "ablations.csv", index_col="experiment")
    measure = experiment.config.evaluate.compared_measure
    trained = told[told.index.str.fullmatch(r"Stage 2|minutes-\d+")].rename({"Stage 2": "demo"}).sort_values("minutes")
    (ROOT / "docs" / "budget.svg").write_text(draw_training(trained, measure), encoding="utf-8")
    summary = (experiment.at(experiment.results) / "summary.md").read_text(encoding="utf-8")
    (ceiling,) = map(float, re.findall(r"^\| mean.*\| (\S+) \| \d+% \|$", summary, re.MULTILINE))
    rows = [["", "minutes of training", measure, "share of the ceiling", "terms per query", "per document"]]
    for name, row in trained.iterrows():
        costs = f"{row.active_query:.0f}", f"{row.active_document:.0f}"
        share = f"{row[measure] / ceiling:.0%}"
        rows.append([str(name), f"{row.minutes:.1f}", f"{row[measure]:.3f}", share, *costs])
    print(markdown_table(rows))


if __name__ == "__main__":
    main()
