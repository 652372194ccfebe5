"""Estimate an experiment before anything is fetched: examples, steps, disk space, device hours.

Examples are what the publishers say (`sources.NAME.examples`), documents what mteb counted; lengths and speeds are
those of section `machine`.

Run by rule `plan`:  python -m milco plan --config FILE
"""

from itertools import islice
from pathlib import Path
from typing import Any

from milco.config import Config, Source, Training
from milco.data.beir import iter_documents, read_about, read_queries
from milco.data.cuts import Cuts
from milco.data.mteb_tasks import split_of
from milco.experiments import Experiment
from milco.languages import SEVERAL

SAMPLE = 10_000  # texts of a collection that are counted


def plan(config: Config) -> list[dict[str, str]]:
    """One row per stage: what it works on, optimizer steps, disk, device hours, and hours on all devices.

    Sources that do not say how many examples they have count as 0 and are named in a last row.
    """
    machine = config.machine
    pairs, english = _pairs(config)
    several = any(SEVERAL in _said(config.sources[name]) for name in config.parallel_datasets())
    texts_of = f"{'at least ' * several}{english:,.0f}"  # not all of its texts are there in each of its languages
    queries = sum(_examples(config, name) for name in config.distill.train_datasets)
    texts = _texts_to_encode(config)
    align, distill = config.align, config.distill
    ids, cell = 4 * machine.tokens_per_text + 8, 4 * machine.terms_per_text + 8
    epochs = distill.num_train_epochs * (2 if config.first_round() else 1)
    seeds = len(config.seeds or [config.seed])
    seen, asked = seeds * pairs * align.num_train_epochs, seeds * queries * epochs
    again = f" with each of {seeds} seeds" if seeds > 1 else ""
    encoded = [system for system in config.systems() if system not in ("bm25", *config.mixes())]
    encoding = texts * sum(seeds if system in ("align", "distill") else 1 for system in encoded)
    unsaid = [name for name in config.used_datasets() if config.sources[name].examples is None]
    unsaid = [name for name in unsaid if config.sources[name].format != "mteb"]
    stage_1 = [
        _row("token cache", f"{pairs:,.0f} pairs, {texts_of} English texts", disk=(pairs + english) * ids,
             devices=machine.devices),
        _row("teacher targets", f"{texts_of} texts", disk=english * (cell + ids * (align.target == "raw")),
             work=english, speed=machine.teacher_texts_per_second, devices=machine.devices),
        _row("Stage 1", f"{seen:,.0f} pairs in {_most(align)}{align.num_train_epochs:g} epochs{again}",
             seen / align.global_batch_size,
             work=seen, speed=machine.align_pairs_per_second, devices=machine.devices),
    ]  # fmt: skip
    stage_2 = [
        _row("Stage 2", f"{asked:,.0f} queries in {_most(distill)}{epochs:g} epochs{again}",
             asked / distill.global_batch_size,
             work=asked, speed=machine.distill_queries_per_second, devices=machine.devices),
        _row("held out", _held_out(config), devices=machine.devices),
    ]  # fmt: skip
    if not config.aligns():
        stage_1 = stage_1[1:2] if config.reads_targets() else []
    trained = [*stage_1, *stage_2] if Experiment(config).stages else []
    rows = [
        *trained,
        _row("encoding", f"{encoding:,.0f} texts of the test collections, all systems",
             disk=encoding * 8 * machine.terms_per_text, work=encoding, speed=machine.encode_documents_per_second,
             devices=machine.devices),
        _row("cut", _cut(config), devices=machine.devices),
    ]  # fmt: skip
    if unsaid:
        rows.append(_row("not counted", f"{', '.join(unsaid)}: say sources.NAME.examples", devices=machine.devices))
    return rows


def as_text(rows: list[dict[str, str]]) -> str:
    """The rows as a Markdown table."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (list(rows[0]), *(row.values() for row in rows))]
    return "\n".join([lines[0], "|---|---|" + "---:|" * (len(rows[0]) - 2), *lines[1:]]) + "\n"


def _row(stage: str, what: str, steps: float = 0, disk: float = 0, work: float = 0, speed=None, devices=1) -> dict:
    hours = work / speed / 3600 if speed else None
    return {
        "stage": stage,
        "what": what,
        "steps": f"{steps:,.0f}" if steps else "",
        "disk, GB": f"{disk / 1e9:,.1f}" if disk else "",
        "device hours": f"{hours:,.1f}" if hours else "",
        f"hours, {devices} device{'s' * (devices > 1)}": f"{hours / devices:,.1f}" if hours else "",
    }


def _most(settings: Training) -> str:
    return "at most " if settings.patience else ""  # which may end it earlier


def _examples(config: Config, name: str) -> int:
    return config.sources[name].examples or 0


def _held_out(config: Config) -> str:
    """What will be removed from the training text; the amount is known only after `corpora`."""
    names = dict.fromkeys([*config.taken_out("test"), *config.taken_out("dev")])
    if not names:
        return "nothing (corpora.decontaminate_for); `overlap` counts the queries that occur in the training text"
    what = {"relevant": "queries and relevant documents", "all": "queries and documents", "queries": "queries"}
    return (
        f"{what[config.corpora.decontaminate]} of {', '.join(names)} are removed from the training text; "
        "`corpora` counts them"
    )


def _cut(config: Config) -> str:
    """How many texts of the test collections are longer than the model reads, by language: counted in the first
    `SAMPLE` of each collection, if it and the encoder's tokenizer are on this machine already."""
    experiment, settings = Experiment(config), config.model
    lengths = {"queries": settings.query_max_length, "documents": settings.passage_max_length}
    made = sorted(Path(experiment.collections.path, "collections", "test").glob("*"))
    places = [(folder, read_about(folder)) for folder in made] or _own_collections(config)
    encoder = Path(experiment.encoder)
    if not places or not (encoder / "tokenizer.json").exists():
        limits = " or ".join(f"{side} longer than {length:,} tokens" for side, length in lengths.items())
        return f"{limits} are cut; plan counts them once `collections` and the encoder's download are done"
    from transformers import AutoTokenizer  # takes seconds

    from milco.modeling.checkpoints import load
    from milco.modeling.texts import ids_and_cut

    tokenizer, said = load(AutoTokenizer, encoder, config.trusts("dense")), []
    for side, length in lengths.items():
        cuts = Cuts()
        for folder, about in places:
            texts = read_queries(folder)[0].items() if side == "queries" else iter_documents(folder)
            some = [text for _, text in islice(texts, SAMPLE)]
            language = about["query_language" if side == "queries" else "document_language"]
            cuts.count([language] * len(some), ids_and_cut(tokenizer, some, length)[1])
        said.append(cuts.sentence(side, length) or f"no {side} at {length} tokens, of {cuts.texts.total():,}")
    return "; ".join(said)


def _own_collections(config: Config) -> list[tuple[Path, dict[str, Any]]]:
    """The user's own collections, which lie here before anything is made of them, with their languages."""
    sources = [config.sources[name] for name in config.evaluate.test_collections]
    return [
        (source.local_path, {"query_language": source.language, "document_language": source.document_language})
        for source in sources
        if source.format == "beir" and source.local_path and source.local_path.exists()
    ]


def _said(source: Source) -> list[str]:
    """The languages that a source names; a table with a language column may have several."""
    return list(source.subsets.values()) or [source.language or SEVERAL]


def _languages(source: Source, asked: int) -> int:
    """In how many languages a source has its English texts: of `mul` as many as the experiment asks for."""
    return sum(asked if language == SEVERAL else 1 for language in _said(source))


def _pairs(config: Config) -> tuple[float, float]:
    """Pairs, and English texts: the languages of a source translate the same ones."""
    pairs, english = 0.0, 0.0
    for name in config.parallel_datasets():
        source, there = config.sources[name], _examples(config, name)
        taken, languages = min(there, source.max_pairs or there), _languages(source, len(config.languages))
        pairs += taken
        if there:  # a text stays if any of its pairs is drawn
            english += there / languages * (1 - (1 - taken / there) ** languages)
    return pairs, english


def _texts_to_encode(config: Config) -> int:
    """Queries and documents of the test collections, as mteb has counted them or their sources say (`examples`)."""
    import mteb  # takes seconds

    total = 0
    for name in config.evaluate.test_collections:
        source = config.sources[name]
        if source.format != "mteb":
            total += _examples(config, name)
            continue
        metadata = mteb.get_task(source.uri.removeprefix("mteb:")).metadata
        split = source.split or split_of(metadata.eval_splits)
        found = (metadata.descriptive_stats or {}).get(split, {})
        parts = [found.get("hf_subset_descriptive_stats", {}).get(subset, {}) for subset in source.subsets]
        total += sum(part.get("num_samples", 0) for part in parts or [found])
    return total
