"""The model card of an experiment, with the metadata that the Hugging Face Hub reads.

Run by rule `card`:
    python -m milco.stages card --config FILE --corpora FOLDER --model FOLDER --metrics FILE --summary FILE --prune FILE
        --citation CITATION.cff --output FILE
"""

import json
import re
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import yaml
from huggingface_hub import ModelCard, ModelCardData

from milco.config import Config
from milco.evaluation import budgets
from milco.evaluation.report import markdown_table
from milco.experiments import Experiment
from milco.files import finished_file
from milco.modeling.pruning import IN_CONFIG

# Names of the Hub, the most restrictive last.
LICENCES = [
    "cc0-1.0", "mit", "bsd-2-clause", "bsd-3-clause", "apache-2.0", "odc-by", "cc-by-3.0", "cc-by-4.0", "mpl-2.0",
    "lgpl-2.1", "lgpl-3.0", "gpl-2.0", "gpl-3.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0",
]  # fmt: skip
TAGS = ["milco", "sparse-encoder", "learned-sparse-retrieval", "cross-lingual", "multilingual"]


def made_of(experiment: Experiment) -> list[dict[str, Any]]:
    """Sources of the weights: role, name, uri and licence (None if unknown) of each."""
    config = experiment.config
    model, distill = config.model, config.distill
    encoder = config.sources[model.multilingual_encoder_checkpoint]
    parts = [
        ("multilingual encoder", model.multilingual_encoder_checkpoint),
        ("its tokenizer", encoder.tokenizer),
        ("English sparse retriever: teacher and pivot head", model.lsr_encoder_checkpoint),
    ]
    roles = [
        *((role, name) for role, name in parts if name != config.start),  # which has encoder and head of its own
        ("start of Stage 2", distill.pretrained_alignment_checkpoint),
        ("miner of hard negatives", distill.miner),
        ("scores of Stage 2", distill.scorer),
        *(("text of Stage 1", name) for name in config.align.train_datasets if "align" in config.systems()),
        *(("text of Stage 2", name) for name in distill.train_datasets),
    ]
    return [
        {"role": role, "name": name, "uri": _public(config.sources[name].uri), "licence": _licence(experiment, name)}
        for role, name in roles
        if name in config.sources
    ]


def _public(uri: str) -> str:
    """A source's address without local folders."""
    return f"file:{Path(uri).name}" if uri.startswith("file:") else uri


def _licence(experiment: Experiment, name: str) -> str | None:
    """What the configuration says, or the card of a repository that was fetched."""
    about = Path(experiment.source(name)) / "revision.json"
    if experiment.config.sources[name].licence or not about.exists():
        return experiment.config.sources[name].licence
    said = json.loads(about.read_text(encoding="utf-8"))["licence"]
    return ", ".join(said) if isinstance(said, list) else said


def licence_of(licences: list[str | None]) -> str:
    """The most restrictive licence, as the Hub names it; `other` if one that is not known may be more restrictive."""
    names = [(licence or "").lower().replace(" ", "-") for licence in licences]
    strictest = max(names, key=lambda name: LICENCES.index(name) if name in LICENCES else -1)
    return strictest if strictest == LICENCES[-1] or set(names) <= set(LICENCES) else "other"


def metadata(config: Config, sources: list[dict[str, Any]], languages: list[str]) -> ModelCardData:
    """The metadata at the top of the card."""
    codes = dict.fromkeys(language.partition("-")[0].lower() for language in ["en", *languages])
    hub = {source["uri"][3:].partition("@")[0]: source for source in sources if source["uri"].startswith("hf:")}
    data = [name for name, source in hub.items() if source["role"].startswith("text of")]
    return ModelCardData(
        language=["multilingual" if code == "mul" else code for code in codes],
        library_name="sentence-transformers",
        pipeline_tag="feature-extraction",
        tags=TAGS,
        datasets=data or None,
        base_model=[name for name in hub if name not in data] or None,
        license=licence_of([source["licence"] for source in sources]),
    )


def bibtex(citation: Path) -> str:
    """BibTeX entry of the preferred citation in CITATION.cff."""
    paper = yaml.safe_load(citation.read_text(encoding="utf-8"))["preferred-citation"]
    names = [author["family-names"] for author in paper["authors"]]
    fields = {
        "title": f"{{{paper['title']}}}",
        "author": " and ".join(names),
        "booktitle": paper["collection-title"],
        "year": paper["year"],
        "note": ", ".join(item["value"] for item in paper["identifiers"]),
    }
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items()]
    key = names[0].lower() + str(paper["year"]) + paper["title"].partition(":")[0].lower()
    return "\n".join([f"@inproceedings{{{key},", *lines, "}"])


def pruning_table(measured: pd.DataFrame) -> str:
    """Every budget of documents and queries, mean over collections, as Markdown; empty if none was measured."""
    if measured.empty:
        return ""
    rows = [["what is pruned", "budget", "terms", measured.measure.iloc[0], "bytes per document", "ms per query"]]
    for row in budgets.means(measured).to_dict("records"):
        figures = [f"{row['active']:.1f}", f"{row['value']:.3f}", f"{row['bytes']:.0f}", f"{row['milliseconds']:.2f}"]
        rows.append([row["side"], row["budget"], *figures])
    return markdown_table(rows)


def write(
    config: Config,
    corpora: Path,
    model: Path,
    metrics: Path,
    summary: Path,
    prune: Path,
    citation: Path,
    output: Path,
    tune: Path | None = None,
) -> None:
    """Write the card.

    Args:
        corpora, metrics, summary, prune, tune: what these programs and `report` wrote.
        model: the exported model; the card states its budgets.
    """
    statistics = json.loads((corpora / "statistics.json").read_text(encoding="utf-8"))
    settings = config.model_dump(include={"languages", "model", "align", "distill"} & config.model_fields_set)
    sources = made_of(Experiment(config))
    measured = pd.read_parquet(prune)
    asked = pd.read_csv(metrics, keep_default_na=False).query_language
    exported = json.loads((model / "config.json").read_text(encoding="utf-8"))
    loader = jinja2.PackageLoader("milco.tools", ".")
    page = jinja2.Environment(loader=loader, trim_blocks=True, lstrip_blocks=True).get_template("card.md.jinja")
    text = page.render(
        config=config,
        repo=config.publish.repo or "OWNER/NAME",
        metadata=metadata(config, sources, list(statistics["pairs"]) or sorted(config.tuned_languages())),
        sources=sources,
        pairs=statistics["pairs"],
        tuned=sorted(config.tuned_languages()),
        unmeasured=[language for language in statistics["pairs"] if language not in set(asked)],
        summary=summary.read_text(encoding="utf-8"),
        pruning=pruning_table(measured),
        collections=measured.collection.unique(),
        choices=budgets.choices(pd.read_parquet(tune) if tune else pd.DataFrame(), measured),
        budgets={side: exported.get(key, {}) for side, key in IN_CONFIG.items()},
        known_items=any(config.sources[name].format == "home-assistant" for name in config.evaluate.test_collections),
        settings=yaml.safe_dump(settings, sort_keys=False, allow_unicode=True),
        citation=bibtex(citation),
    )
    card = ModelCard(re.sub(r"\n{3,}", "\n\n", text))  # reads the metadata as the Hub does
    with finished_file(output) as draft:
        draft.write_text(str(card), encoding="utf-8")
