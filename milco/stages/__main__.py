"""The programs behind the rules: `python -m milco.stages PROGRAM --help`. A program has the name of its rule.

Rules `export` and `plan` use the commands `milco export` and `milco plan`.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from milco import config as configuration
from milco.environment import record, record_as_parts, recorded
from milco.errors import MilcoError
from milco.experiments import KEYED, Experiment
from milco.outputs import check_output
from milco.program import run

# Heavy packages are imported inside the commands: `milco --help` and the workflow's parsing stay quick.

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)

ConfigFile = Annotated[Path, typer.Option("--config", help="Settings, as YAML.")]
Corpora = Annotated[Path, typer.Option(help="What `corpora` wrote; to search, what `collections` wrote.")]
Tests = Annotated[Path, typer.Option("--collections", help="What `collections` wrote.")]
Looks = Annotated[Path, typer.Option(help="What `development` wrote.")]
Cutter = Annotated[Path | None, typer.Option(help="Checkpoint by whose tokens documents are cut.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes that share the work.")]


def _new(path: Path) -> Path:
    """Check that an output would replace nothing. Snakemake removes old outputs before it reruns a rule. What is there
    under the key of a node was finished meanwhile by a job that outlived its Snakemake, and is used as it is."""
    made = path.exists() and (not path.is_dir() or any(path.iterdir()))
    if made and KEYED.fullmatch(path.as_posix()) and "WORLD_SIZE" not in os.environ:
        print(f"{path}: an earlier job has made it meanwhile; it is used as it is", flush=True)
        raise typer.Exit
    if os.environ.get("RANK", "0") == "0":  # others may begin when the first has finished
        check_output(path, "an empty folder" if path.is_dir() else "an empty file", folder=path.is_dir())
    return path


def _trained(path: Path) -> Path:
    """Check that an output is new or replaces a model: an earlier run of this training may have finished meanwhile."""
    from milco.tools.export import has_milco

    check_output(path, "a MILCO model", has_milco, folder=True)
    return path


def _shard(text: str) -> Any:
    from milco.evaluation.sharding import Shard

    return Shard.parse(text)


Output = Annotated[
    Path, typer.Option(help="New file or folder to write; it appears whole or not at all.", callback=_new)
]
Trained = Annotated[Path, typer.Option(help="Folder for the model; it appears whole or not at all.", callback=_trained)]
Tuned = Annotated[Path | None, typer.Option(help="What `tune` wrote, where a budget is chosen.")]
Input = Annotated[Path, typer.Option(help="Result of another program, or a checkpoint.")]
Name = Annotated[str, typer.Option()]
OneShard = Annotated[Any, typer.Option("--shard", parser=_shard, metavar="N-of-M", help="One of M parts of the texts.")]
Answers = Annotated[list[Path] | None, typer.Option(help="What this program wrote of each shard.")]
Named = Annotated[list[str], typer.Option(help="NAME=PATH, once for each.")]
NamedOrNone = Annotated[list[str] | None, typer.Option(help="NAME=PATH, once for each.")]


def _named(values: list[str]) -> dict[str, Path]:
    wrong = [value for value in values if "=" not in value]
    if wrong:
        raise MilcoError(f"{wrong[0]!r}: expected NAME=PATH")
    return {name: Path(path) for name, _, path in (value.rpartition("=") for value in values)}


def _settings(config: Path, output: Path) -> configuration.Config:
    """Load the settings and check that they match the key in the output's name."""
    settings = configuration.load(config)
    Experiment(settings).check_key(output)
    return settings


def _load(config: Path, output: Path) -> configuration.Config:
    """The same, checked against the checkpoints that were fetched after the workflow had looked at them."""
    settings = _settings(config, output)
    Experiment(settings).check_lengths()
    return settings


@app.command()
def fetch(config: ConfigFile, name: Name, output: Output) -> None:
    """Download one source, checked against its checksum."""
    from milco.data.sources import fetch

    sources = _settings(config, output).sources
    if name not in sources:
        raise MilcoError(f"sources.{name}: no such source (there are: {', '.join(sources)})")
    fetch(name, sources[name], output)


@app.command()
def convert(binary: Input, tokenizer: Input, output: Output) -> None:
    """Turn a 4-bit E5 file into a transformers checkpoint."""
    from milco.data.convert import convert_e5

    convert_e5(binary, tokenizer, output)


@app.command()
def corpora(config: ConfigFile, source: Named, output: Output) -> None:
    """Write parallel text and known items."""
    from milco.data.corpora import build

    build(_load(config, output), _named(source), output)
    record(output)


@app.command()
def collections(config: ConfigFile, output: Output, source: Named, encoder: Cutter = None) -> None:
    """Write the test collections."""
    from milco.data.corpora import build_collections

    build_collections(_load(config, output), _named(source), "test", output, encoder)
    record(output)


@app.command()
def development(config: ConfigFile, output: Output, source: NamedOrNone = None, encoder: Cutter = None) -> None:
    """Write the development collections that a training evaluates."""
    from milco.data.corpora import build_collections

    build_collections(_load(config, output), _named(source or []), "dev", output, encoder)
    record(output)


@app.command()
def overlap(
    config: ConfigFile, corpora: Corpora, triples: Input, tests: Tests, output: Output, workers: Workers = 1
) -> None:
    """Count the queries of the test collections that occur in the training text."""
    from milco.data.overlap import write

    write(_settings(config, output), corpora, triples, tests, output, workers)
    record(output)


@app.command()
def tokenize(config: ConfigFile, corpora: Corpora, encoder: Input, output: Output, workers: Workers = 1) -> None:
    """Write the token cache."""
    from milco.data.tokens import build

    settings = _load(config, output)
    build(corpora, encoder, settings.align.max_length, workers, output, settings.trusts("dense"))
    record(output)


@app.command()
def teacher(config: ConfigFile, corpora: Corpora, teacher: Input, output: Output) -> None:
    """Write the teacher's sparse targets of every English text. Start it with torchrun to have several processes."""
    from milco.training.teacher import write_targets

    settings = _load(config, output)
    align, (_, length), trust = settings.align, settings.teacher_length(), settings.trusts("teacher")
    raw, precision = align.target == "raw", align.teacher_precision
    write_targets(
        corpora, teacher, length, settings.evaluate.batch_size, output, trust, tokens=raw, precision=precision
    )
    if int(os.environ.get("RANK", 0)) == 0:
        record(output)


@app.command()
def mine(
    config: ConfigFile,
    corpora: Corpora,
    source: Named,
    output: Output,
    teacher: Annotated[Path | None, typer.Option(help="Targets, where a dataset has an English side.")] = None,
    miner: Annotated[Path | None, typer.Option(help="The MILCO model that distill.miner means.")] = None,
    scorer: Annotated[Path | None, typer.Option(help="The cross-encoder that distill.scorer names.")] = None,
) -> None:
    """Write distillation triples with mined negatives."""
    from milco.training.mine import mine

    mine(_load(config, output), corpora, teacher, _named(source), output, miner, scorer)
    record(output)


@app.command()
def pack(config: ConfigFile, triples: Input, tokenizer: Input, output: Output, workers: Workers = 1) -> None:
    """Write the triples as token ids."""
    from milco.data.triples import pack

    pack(_load(config, output), triples, tokenizer, workers, output)
    record(output)


@app.command()
def align(
    config: ConfigFile,
    corpora: Corpora,
    tokens: Input,
    targets: Input,
    encoder: Input,
    lsr: Input,
    development: Looks,
    output: Trained,
) -> None:
    """Stage 1: sparse alignment. Start it with torchrun."""
    from milco.training.align import run as train

    train(_load(config, output), corpora, tokens, targets, encoder, lsr, development, output)


@app.command()
def distill(
    config: ConfigFile, corpora: Corpora, triples: Input, start: Input, lsr: Input, development: Looks, output: Trained
) -> None:
    """Stage 2: distillation. Start it with torchrun."""
    from milco.training.distill import run as train

    train(_load(config, output), corpora, triples, start, lsr, development, output)


@app.command()
def encode(
    config: ConfigFile,
    system: Name,
    model: Input,
    corpora: Corpora,
    output: Output,
    shard: OneShard = "1-of-1",
) -> None:
    """Encode the test collections with one system."""
    from milco.evaluation.encode import encode

    number, shards = shard
    split = "dev" if system == "development" else "test"
    texts = corpora / "collections" / split
    encode(_load(config, output), system, model, texts, output, number, shards, split)
    record(output)


@app.command()
def merge(shard: Annotated[list[Path], typer.Option(help="What `encode` wrote.")], output: Output) -> None:
    """Put the vectors of all shards together."""
    from milco.evaluation.lookup import merge

    merge(shard, output)
    record_as_parts(output, shard)


def _environments(found: list[Path] | None) -> list[dict[str, Any]]:
    """Recorded environments of the shards."""
    return [environment for path in found or () for environment in recorded(path)]


@app.command()
def evaluate(
    config: ConfigFile,
    system: Name,
    corpora: Corpora,
    encoder: Input,
    output: Output,
    vectors: Annotated[Path | None, typer.Option()] = None,
    shard: OneShard = None,
    found: Answers = None,
) -> None:
    """Search the test collections with one system and measure it."""
    from milco.evaluation import evaluate

    settings, tests = _settings(config, output), corpora / "collections" / "test"
    if shard:
        evaluate.search_shard(settings, system, tests, vectors, encoder, shard, output)
    else:
        evaluate.evaluate(settings, system, tests, vectors, encoder, output, found or ())
    record(output, _environments(found))


@app.command()
def index(
    config: ConfigFile,
    corpora: Corpora,
    vectors: Input,
    output: Output,
    shard: OneShard = None,
    found: Answers = None,
) -> None:
    """Build the Seismic indexes and compare them with exact search."""
    from milco.evaluation.index import build_all, build_shard

    settings, tests = _settings(config, output), corpora / "collections" / "test"
    if shard:
        build_shard(settings, tests, vectors, shard, output)
    else:
        build_all(settings, tests, vectors, output, found or ())
    record(output, _environments(found))


@app.command()
def prune(
    config: ConfigFile,
    corpora: Corpora,
    vectors: Input,
    output: Output,
    shard: OneShard = None,
    found: Answers = None,
) -> None:
    """Measure every pruning budget."""
    from milco.evaluation.budgets import sweep, sweep_shard

    settings, tests = _settings(config, output), corpora / "collections" / "test"
    if shard:
        sweep_shard(settings, tests, vectors, shard, output)
    else:
        sweep(settings, tests, vectors, output, found=found or ())
    record(output, _environments(found))


@app.command()
def tune(config: ConfigFile, development: Looks, vectors: Input, output: Output) -> None:
    """Measure every pruning budget on the development collections, to choose one."""
    from milco.evaluation.budgets import sweep

    sweep(_settings(config, output), development / "collections" / "dev", vectors, output, "dev")
    record(output)


@app.command()
def report(
    config: ConfigFile,
    tests: Tests,
    runs: Named,
    node: Named,
    index: Input,
    prune: Input,
    published: Input,
    report: Output,
    metrics: Output,
    summary: Output,
    corpora: Annotated[Path | None, typer.Option(help="What `corpora` wrote; these four are of a training.")] = None,
    overlap: Annotated[Path | None, typer.Option()] = None,
    triples: Annotated[Path | None, typer.Option()] = None,
    stage: NamedOrNone = None,
    tune: Tuned = None,
) -> None:
    """Write report.html, metrics.csv and summary.md from all results."""
    from milco.evaluation.comparison import Comparison
    from milco.evaluation.report import Results, write

    settings = _settings(config, report)
    places = _named(runs), _named(stage or []), _named(node)
    runs_of = {system: Experiment(settings).runs_of(system) for system in settings.systems()}
    seeds = {system: found for system, found in runs_of.items() if len(found) > 1}
    results = Results.read(corpora, tests, overlap, *places, index, prune, triples, tune, seeds)
    comparison = Comparison.of(settings, tests / "collections" / "test")
    write(settings, results, comparison, published, report, metrics, summary)


@app.command()
def ablations(
    experiment: Annotated[list[Path], typer.Option(help="Settings of each experiment, the base first.")],
    published: Input,
    page: Output,
    table: Output,
    summary: Output,
) -> None:
    """Compare an experiment with its variants."""
    from milco.evaluation.ablations import write

    experiments = [Experiment(configuration.load(path)) for path in experiment]
    write(experiments, published, page, table, summary)


@app.command()
def card(
    config: ConfigFile,
    corpora: Corpora,
    model: Input,
    metrics: Input,
    summary: Input,
    prune: Input,
    citation: Input,
    output: Output,
    tune: Tuned = None,
) -> None:
    """Write the model card from what was measured."""
    from milco.tools.card import write

    write(_settings(config, output), corpora, model, metrics, summary, prune, citation, output, tune)


@app.command()
def publish(
    config: ConfigFile,
    model: Input,
    card: Input,
    output: Output,
    vectors: Annotated[Path | None, typer.Option(help="Vectors to put there too.")] = None,
) -> None:
    """Put an exported model on the Hugging Face Hub."""
    from milco.tools.publish import publish

    publish(_settings(config, output), model, card, vectors, output)


@app.command()
def doctor(gpus_per_node: Annotated[int, typer.Option(help="Devices that each node should have.")] = 0) -> None:
    """Check the nodes: devices, memory, versions, shared disk, all-reduce. Start it with torchrun."""
    from milco.stages.doctor import examine

    examine(gpus_per_node)


@app.command()
def dag(output: Output) -> None:
    """Draw the graph that `snakemake --rulegraph` prints, from the standard input, as an SVG."""
    from milco.stages.dag import draw

    draw(sys.stdin.read(), output)


if __name__ == "__main__":
    run(app)
