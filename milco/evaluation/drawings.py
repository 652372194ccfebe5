"""The drawings of the report, as SVG."""

import io

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

from milco.evaluation import budgets
from milco.experiments import SYSTEM_NAMES

matplotlib.use("svg")
matplotlib.rcParams["svg.fonttype"] = "none"
matplotlib.rcParams["svg.hashsalt"] = "milco"
from matplotlib import pyplot as plt  # noqa: E402  (the backend is chosen first)

COLORS = {"align": "#3b7dd8", "distill": "#c8553d"}


def draw_curves(curves: dict[str, pd.DataFrame]) -> str:
    """Loss, development nDCG@10 and active dimensions over the steps: stage → rows of its metrics.jsonl."""
    panels = {"loss": "loss", "dev_nDCG@10": "nDCG@10, development", "dev_active_document": "active terms, development"}
    figure, axes = plt.subplots(1, len(panels), figsize=(11, 2.8), layout="constrained")
    for axis, (column, title) in zip(axes, panels.items(), strict=True):
        for stage, curve in curves.items():
            if column in curve:
                rows = curve.dropna(subset=column)
                axis.plot(rows.step, rows[column], label=SYSTEM_NAMES[stage], color=COLORS[stage], marker=".")
        _dress(axis, title, "step")
    axes[0].legend(frameon=False)
    return _svg(figure)


def draw_pruning(pruning: pd.DataFrame, measure: str) -> str:
    """The measure against the cost of pruned documents and of pruned queries, for top-k and mass pruning."""
    panels = [
        ("documents", "active", "terms per document"),
        ("documents", "bytes", "index, bytes per document"),
        ("documents", "milliseconds", "milliseconds per query"),
        ("queries", "active", "terms per query"),
    ]
    figure, axes = plt.subplots(1, len(panels), figsize=(11, 2.8), layout="constrained", sharey=True)
    table = budgets.means(pruning)
    for axis, (side, column, title) in zip(axes, panels, strict=True):
        rows = table[table.side == side].sort_values(column)
        for method, color in (("top-k", "#3b7dd8"), ("mass", "#c8553d")):
            drawn = rows[rows.budget.str.startswith(method)]
            axis.plot(drawn[column], drawn.value, label=method, color=color, marker=".")
        full = rows[rows.budget == "none"]
        axis.plot(full[column], full.value, "k*", label="not pruned")
        _dress(axis, measure if axis is axes[0] else "", title)
    axes[0].legend(frameon=False)
    return _svg(figure)


def draw_training(told: pd.DataFrame, measure: str) -> str:
    """The measure of compared experiments against the minutes of their trainings; nothing, where fewer than two have
    any. Of systems with the same trainings only the first is drawn."""
    rows = told.dropna(subset=["minutes", measure]).drop_duplicates("minutes")
    if len(rows) < 2:
        return ""
    figure, axis = plt.subplots(figsize=(7, 3.2), layout="constrained")
    axis.plot(rows.minutes, rows[measure], linestyle="", color=COLORS["distill"], marker="o")
    for name, row in rows.iterrows():
        axis.annotate(str(name), (row.minutes, row[measure]), xytext=(4, 4), textcoords="offset points", fontsize=8)
    axis.set_xscale("log")
    axis.margins(x=0.12)  # names stand to the right of their points
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_locator(NullLocator())
    _dress(axis, measure, "minutes of training")
    return _svg(figure)


def _dress(axis: Axes, title: str, below: str) -> None:
    axis.set_title(title, fontsize=10, loc="left")
    axis.set_xlabel(below)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25)


def _svg(figure) -> str:
    drawing = io.StringIO()
    figure.savefig(drawing, format="svg", transparent=True, metadata={"Date": None})
    plt.close(figure)
    return "<svg" + drawing.getvalue().partition("<svg")[2]  # a page has no place for the head of an XML file
