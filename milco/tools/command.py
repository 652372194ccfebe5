"""Use a trained model: inspect, encode, prune, index, search, evaluate, serve, export.

The rules of the workflow call other programs: `python -m milco.stages --help`.
"""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from milco.program import run

# Heavy packages are imported inside the commands: `milco --help` and the shell's completion stay quick.

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)

Budget = Annotated[str | None, typer.Option(help="none, auto, top-k 100, mass 0.9; without it that of --model.")]
Trust = Annotated[
    bool,
    typer.Option("--trust-remote-code", help="Run the code of the encoder that lies in the model."),
]
ModelFolder = Annotated[
    Path, typer.Option("--model", envvar="MILCO_MODEL", help="Folder of a trained model, or its OWNER/NAME on the Hub.")
]
AsQuery = Annotated[bool, typer.Option("--query", help="Texts are queries; by default they are documents.")]
Form = Annotated[
    Literal["txt", "tsv", "csv", "jsonl", "parquet"] | None,
    typer.Option("--format", help="What the texts come in; by default what the file's name says, or txt."),
]
IdKey = Annotated[str | None, typer.Option(help="Key or column of the ids.")]
TextKey = Annotated[str, typer.Option(help="Key or column of the texts.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
OptionalModel = Annotated[Path | None, typer.Option("--model", envvar="MILCO_MODEL", help="The model of the vectors.")]
Language = Annotated[str | None, typer.Option(help="Language of the texts, where a model prunes each its own way.")]


def _as_text(words: list[str] | None) -> list[str]:
    """Decode command-line texts as UTF-8, independent of the locale."""
    try:
        return [os.fsencode(word).decode("utf-8") for word in words or []]
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"not UTF-8 ({error.reason})") from None


def _is_address(place: str) -> bool:
    """Whether an engine lies there (docs/engines.md), not a folder of ours."""
    return place.startswith(("milvus:", "qdrant:", "seismic:"))


def _console():
    """The console for tables; into a file or pipe they go without colours, 200 columns wide."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=200)


@app.command()
def inspect(
    text: Annotated[
        list[str], typer.Argument(help="Texts in any language; several stand side by side.", callback=_as_text)
    ],
    model: ModelFolder,
    query: AsQuery = False,
    language: Language = None,
    top: Annotated[int, typer.Option(min=1, help="Heaviest words of each view to show.")] = 15,
    as_json: AsJson = False,
    trust_remote_code: Trust = False,
) -> None:
    """Show the weighted words that a text becomes: the pivot view in English, the source view in its own words.

    \b
    milco inspect --model results/demo/model "Wie setze ich mein Passwort zurück?"
    milco inspect --model results/demo/model "the house" "das Haus" "家" --top 5
    milco inspect --model results/demo/model "Haus" --json | jq '.[0].pivot'
    """
    from milco.tools.inspection import inspect, load_model, side_by_side

    found = inspect(load_model(model, trust_remote_code), text, query, language)
    if as_json:
        print(json.dumps([one.as_dict() for one in found], ensure_ascii=False, indent=2))
    else:
        _console().print(side_by_side(found, top))


@app.command()
def encode(
    texts: Annotated[Path, typer.Argument(help="TXT, TSV, CSV, JSONL, Parquet, or a folder; - is the standard input.")],
    model: ModelFolder,
    output: Annotated[Path, typer.Option(help="NAME.jsonl, or a folder for safetensors; - prints lines.")],
    query: AsQuery = False,
    language: Language = None,
    form: Form = None,
    id_key: IdKey = None,
    text_key: TextKey = "text",
    batch_size: Annotated[int, typer.Option(min=1, help="Texts that are encoded together.")] = 64,
    bf16: Annotated[bool, typer.Option("--bf16", help="Compute in bfloat16, for GPUs.")] = False,
    trust_remote_code: Trust = False,
) -> None:
    """Encode any number of texts into sparse vectors.

    A text is a line (TXT), an id and a text (TSV), or has its id under _id, id or docid and its text under text, with a
    title before it if there is one. Memory does not grow with the file. An interrupted run resumes when the same
    command is repeated.

    \b
    milco encode corpus.jsonl --model results/demo/model --output vectors
    milco encode corpus.parquet --id-key url --text-key body --output vectors.jsonl
    milco encode corpus.jsonl.gz --output vectors.jsonl
    some-program | milco encode - --format jsonl --output vectors.jsonl
    milco encode queries.tsv --query --output queries.jsonl
    """
    from tqdm import tqdm

    from milco.errors import MilcoError
    from milco.tools import streams, text_files
    from milco.tools.inspection import load_model

    if output.exists() and texts.exists() and output.samefile(texts):
        raise MilcoError(f"{output}: the texts that are encoded; give another name")
    with tqdm(total=text_files.count_texts(texts, form), desc="encode", unit="text", mininterval=1) as bar:
        found = text_files.read_texts(texts, form, id_key, text_key)
        if query:
            found = iter(text_files.each_once(found, texts))
        loaded = load_model(model, trust_remote_code)
        cuts = streams.encode(loaded, found, output, query, language, batch_size, bf16, bar.update)
    length = loaded.config.query_max_length if query else loaded.config.passage_max_length
    if said := cuts.sentence("queries" if query else "texts", length):
        print(said, file=sys.stderr)


@app.command()
def prune(
    vectors: Annotated[Path, typer.Argument(help="What milco encode wrote.")],
    output: Annotated[Path, typer.Option(help="NAME.jsonl, or a folder for safetensors; - prints lines.")],
    top_k: Annotated[int | None, typer.Option(min=1, help="Keep so many of the heaviest tokens.")] = None,
    mass: Annotated[float | None, typer.Option(min=0, max=1, help="Keep this share of the weight.")] = None,
) -> None:
    """Keep only the heaviest tokens of each vector. The index becomes smaller and faster at a small loss of quality.

    The pruning table of an experiment's report shows what a budget costs.

    \b
    milco prune vectors --top-k 100 --output vectors-100
    milco prune vectors.jsonl --mass 0.9 --output vectors-90.jsonl
    """
    from milco.outputs import is_stream
    from milco.tools import streams

    if (top_k is None) == (mass is None):
        raise typer.BadParameter("give one of --top-k and --mass")
    before, after = streams.prune(vectors, output, top_k, mass)
    said = sys.stderr if is_stream(output) else sys.stdout
    print(f"{before:.1f} active dimensions a text before, {after:.1f} after", file=said)


@app.command()
def index(
    vectors: Annotated[Path, typer.Argument(help="What milco encode or milco prune wrote.")],
    output: Annotated[str, typer.Option(help="Folder for the index, or an engine such as milvus:FILE.db or URL.")],
    texts: Annotated[Path | None, typer.Option(help="The texts that were encoded, to be shown with results.")] = None,
    model: OptionalModel = None,
    replace: Annotated[bool, typer.Option("--replace", help="Exchange what an engine has for this.")] = False,
    form: Form = None,
    id_key: IdKey = None,
    text_key: TextKey = "text",
    trust_remote_code: Trust = False,
) -> None:
    """Build a Seismic inverted index of vectors, or write them into Milvus or Qdrant, here or on a cluster.

    \b
    milco index vectors --output my-index
    milco index vectors.jsonl --texts corpus.jsonl --output my-index
    milco index vectors --model results/demo/model --output milvus:milco.db
    milco index vectors --model results/demo/model --output qdrant:http://cluster:6333#wiki --replace
    """
    from milco.tools import retrieval, text_files, vector_files
    from milco.tools.engines import engine_at
    from milco.tools.inspection import load_model

    if not _is_address(output):
        found = text_files.read_texts(texts, form, id_key, text_key) if texts else None
        print(f"{output}: {retrieval.build(vectors, Path(output), found) / 1e6:.1f} MB")
        return
    if texts or not model:
        raise typer.BadParameter("an engine takes --model, and no --texts")
    rows = vector_files.in_columns_of(load_model(model, trust_remote_code), vectors)
    with engine_at(output) as engine:
        print(f"{output}: {engine.write(rows, replace)} documents")


@app.command()
def feed(
    form: Annotated[
        Literal["anserini", "opensearch", "elasticsearch", "vespa"], typer.Argument(help="Engine that loads the files.")
    ],
    vectors: Annotated[Path, typer.Argument(help="Documents, as milco encode or milco prune wrote them.")],
    model: ModelFolder,
    output: Annotated[Path, typer.Option(help="New folder for the files.")],
    queries: Annotated[Path | None, typer.Option(help="Queries, as milco encode --query wrote them.")] = None,
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="Documents that a query asks for.")] = 10,
    trust_remote_code: Trust = False,
) -> None:
    """Write the files that another search engine loads, and queries in its own form.

    \b
    milco feed anserini vectors --queries query-vectors --output anserini
    milco feed opensearch vectors --output opensearch
    """
    from milco.tools import feeds, vector_files
    from milco.tools.inspection import load_model

    loaded = load_model(model, trust_remote_code)
    asked = vector_files.each_once(vector_files.in_columns_of(loaded, queries), queries) if queries else ()
    documents = vector_files.in_columns_of(loaded, vectors)
    counts = feeds.export(form, documents, asked, loaded.column_name, output, k)
    print(f"{output}: {counts[0]} documents, {counts[1]} queries")


@app.command()
def search(
    index: Annotated[str, typer.Argument(help="Folder that milco index wrote, or an engine such as milvus:FILE.db.")],
    model: ModelFolder,
    query: Annotated[list[str] | None, typer.Argument(help="Queries in any language.", callback=_as_text)] = None,
    queries: Annotated[
        Path | None, typer.Option(help="File of queries: TXT, TSV, CSV, JSONL or Parquet; - is the standard input.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="TREC run, or with --json lines of JSON; - prints them.")] = None,
    k: Annotated[
        int | None, typer.Option("--k", "-k", min=1, help="Documents for each query; by default 10, in a run 100.")
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Compare with every document, without Seismic.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Show the words that matched and what each gave.")] = False,
    top: Annotated[int, typer.Option(min=1, help="Words of --explain to show.")] = 8,
    form: Form = None,
    id_key: IdKey = None,
    text_key: TextKey = "text",
    as_json: AsJson = False,
    trust_remote_code: Trust = False,
) -> None:
    """Search an index with queries in any language.

    Results of a query are printed. A file of queries gives a TREC run, written to --output or printed. An index of
    milco is searched approximately, unless --exact is given: a few of the documents may be missing.

    \b
    milco search my-index "Wie setze ich mein Passwort zurück?" --explain
    milco search my-index --queries queries.tsv -k 1000 --output run.trec
    milco search my-index --queries queries.jsonl --explain --json --output results.jsonl
    milco search milvus:http://cluster:19530 --queries queries.tsv --output run.trec
    """
    from milco.data.trec import OUR_LINE, write_run
    from milco.files import text_lines
    from milco.outputs import begins, check_output
    from milco.tools import text_files
    from milco.tools.inspection import load_model
    from milco.tools.retrieval import Retriever, search_engine, search_texts

    if bool(query) == bool(queries):
        raise typer.BadParameter("give queries, or a file of them with --queries")
    if queries:
        asked = text_files.each_once(text_files.read_texts(queries, form, id_key, text_key), queries)
    else:
        asked = [(text, text) for text in query or ()]
    if output:
        check_output(output, "a run or results of milco search", begins(rb'{"query": ' + b"|" + OUR_LINE))
    as_run = bool(output or queries) and not as_json
    depth = k or (100 if as_run else 10)
    if _is_address(index):
        if exact or explain:
            raise typer.BadParameter("--exact and --explain go with a folder that milco index wrote")
        found = search_engine(index, load_model(model, trust_remote_code), asked, depth)
    else:
        retriever = Retriever.open(Path(index))
        found = search_texts(retriever, load_model(model, trust_remote_code), asked, depth, exact, explain)
        if not exact:
            print("milco: note: an approximate search, which may miss documents; --exact misses none", file=sys.stderr)
    if not (output or queries or as_json):
        for name, hits in found:
            _print_hits(name, hits, top)
        return
    with text_lines(output) as lines:
        for name, hits in found:
            if as_json:
                told = {"query": name, "results": [_as_dict(hit) for hit in hits]}
                lines.write(json.dumps(told, ensure_ascii=False) + "\n")
            else:
                write_run({name: {hit.id: hit.score for hit in hits}}, "milco", lines)


def _as_dict(hit) -> dict:
    words = {"words": [{**word._asdict(), "part": word.part} for word in hit.words]} if hit.words is not None else {}
    return {"id": hit.id, "score": hit.score, "text": hit.text, **words}


def _print_hits(query: str, hits: list, top: int) -> None:
    from rich.text import Text

    console = _console()
    console.print(Text(query, style="bold"))
    if not hits:
        console.print("  nothing found")
    for rank, hit in enumerate(hits, 1):
        console.print(Text.assemble(f"{rank:3} {hit.score:8.3f}  ", (hit.id, "bold green"), f"  {hit.text or ''}"))
        for word in (hit.words or [])[:top]:
            colour = "cyan" if word.token.startswith("e_") else "magenta"
            bar = "━" * max(1, round(20 * word.part / hit.words[0].part))
            weights = (f"  {word.query:.2f} × {word.document:.2f}", "dim")
            console.print(Text.assemble(f"    {word.part:8.3f}  ", (f"{bar:<20} ", colour), word.token, weights))


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="TREC run, such as milco search writes.")],
    qrels: Annotated[Path, typer.Argument(help="Judgements as in TREC, or as in BEIR: TSV, CSV, JSONL or Parquet.")],
    measure: Annotated[list[str] | None, typer.Option(help="As ir-measures writes it.")] = None,
    per_query: Annotated[bool, typer.Option("--per-query", help="Print every query, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Evaluate a run with judgements. A judged query that is missing from the run counts as 0; a query without a
    relevant document is left out.

    \b
    milco evaluate run.trec qrels/test.tsv
    milco evaluate run.trec qrels.txt --measure nDCG@20 --measure R@1000 --per-query
    """
    import ir_measures

    from milco.data.trec import complete, read_qrels, read_run, with_relevant
    from milco.evaluation.evaluate import depth_of
    from milco.evaluation.evaluate import measure as measured

    try:
        wanted = [ir_measures.parse_measure(name) for name in measure or ["nDCG@10", "R@100", "RR@10"]]
    except (NameError, ValueError) as error:
        raise typer.BadParameter(f"--measure: {error}; names are such as nDCG@10, R@100, RR@10, AP") from error
    judged = read_qrels(qrels)
    grades = with_relevant(judged, qrels)
    if left_out := len(judged) - len(grades):
        said = f"{left_out} of {len(judged)} queries have no relevant document and are left out"
        print(f"milco: warning: {qrels}: {said}", file=sys.stderr)
    found = complete(read_run(run), grades, run)
    longest = max(map(len, found.values()))
    deeper = [one for one in wanted if depth_of(one) > longest]
    if deeper:
        print(
            f"milco: warning: no query of {run} has more than {longest} documents, and {', '.join(map(str, deeper))} "
            f"would look deeper; milco search -k {max(map(depth_of, deeper))} finds more, if there are more",
            file=sys.stderr,
        )
    table = measured(grades, found, wanted)
    means = table.groupby("measure").value.mean()
    if as_json:
        queries = {query: dict(zip(rows.measure, rows.value, strict=True)) for query, rows in table.groupby("query")}
        told = {"queries": len(grades), "mean": means.to_dict(), **({"per_query": queries} if per_query else {})}
        print(json.dumps(told, ensure_ascii=False, indent=2))
        return
    rows = [("all", name, means[name]) for name in map(str, wanted)]
    if per_query:
        rows = [*table.sort_values("query", kind="stable").itertuples(index=False, name=None), *rows]
    for query, name, value in rows:
        print(f"{query}\t{name}\t{value:.4f}")


@app.command()
def serve(
    documents: Annotated[
        Path,
        typer.Argument(help="Index of milco index --texts, folder in BEIR layout, or TXT, TSV, CSV, JSONL, Parquet."),
    ],
    model: ModelFolder,
    host: Annotated[str, typer.Option(help="Address to listen on; others than this machine's let others in.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8000,
    budget: Annotated[list[int] | None, typer.Option(min=1, help="Words a document keeps, for the slider.")] = None,
    open_page: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = True,
    trust_remote_code: Trust = False,
) -> None:
    """Open a page on this machine: search in any language, see the words that matched, prune, compare texts.

    \b
    milco serve artifacts/collections/KEY/collections/test/de-en --model results/demo/model
    milco serve my-index --budget 20 --budget 50 --budget 100
    """
    import webbrowser
    from itertools import islice
    from threading import Thread

    from tqdm import tqdm

    from milco.data import reading
    from milco.tools import text_files
    from milco.tools.inspection import load_model
    from milco.tools.retrieval import Retriever
    from milco.tools.serve import Answers, Server

    loaded = load_model(model, trust_remote_code)
    corpus = reading.one_of(documents, "corpus.jsonl")
    corpus = corpus if corpus.exists() else documents
    examples: list[str] = []
    if corpus != documents and (asked := reading.one_of(documents, "queries.jsonl")).exists():
        examples = [text for _, text in islice(text_files.read_texts(asked), 6)]
    if (documents / "seismic.index.seismic").exists():
        retriever = Retriever.open(documents)
    else:
        with tqdm(total=text_files.count_texts(corpus), desc="encode", unit="text", mininterval=1) as bar:
            retriever = Retriever.of_texts(loaded, text_files.read_texts(corpus), bar.update)
    answers = Answers(loaded, retriever, budget or [5, 10, 20, 50, 100, 200], documents.name, examples)
    with Server(answers, host, port) as server:
        print(f"{server.url}  (Ctrl-C ends it)", flush=True)
        if open_page:
            # A browser for a terminal stays in the foreground, and waits for an answer.
            Thread(target=webbrowser.open, args=(server.url,), daemon=True).start()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


@app.command()
def export(
    model: Annotated[Path, typer.Option(help="Folder of a trained model, or its OWNER/NAME on the Hub.")],
    output: Annotated[Path, typer.Option(help="Folder to write; it appears whole or not at all.")],
    onnx: Annotated[bool, typer.Option("--onnx", help="Write onnx/model.onnx too.")] = False,
    prune_documents: Budget = None,
    prune_queries: Budget = None,
    measured: Annotated[Path | None, typer.Option(help="What `tune` wrote, for auto.")] = None,
    encoder: Annotated[
        Path | None, typer.Option(help="Of a model as MILCO's authors publish them: folder or name of its encoder.")
    ] = None,
    teacher: Annotated[
        Path | None, typer.Option(help="The same: folder or name of the English retriever, for its vocabulary.")
    ] = None,
    trust_remote_code: Trust = False,
) -> None:
    """Export a model for AutoModel, SparseEncoder and onnxruntime.

    \b
    milco export --model artifacts/distill/KEY/model --output my-model --onnx
    milco export --model omai-research/milco-650m --output milco-650m
    """
    from milco.tools.export import budgets, export

    said = {"documents": prune_documents, "queries": prune_queries}
    chosen = {side: budgets(budget, side, measured) for side, budget in said.items() if budget is not None}
    export(model, output, onnx, chosen, trust_remote_code, encoder=encoder, teacher=teacher)


@app.command()
def plan(config: Annotated[Path, typer.Option(help="Settings, as YAML.")]) -> None:
    """Estimate the examples, steps, disk space and device hours of an experiment.

    \b
    milco plan --config config/milco.yaml
    """
    from milco.config import load
    from milco.tools.plan import as_text, plan

    print(as_text(plan(load(config))))


def main() -> None:
    """Entry point of `milco`."""
    run(app, hub=True)
