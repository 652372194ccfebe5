"""Use a trained model: look at what it makes of a text, encode, prune, index, search, measure, show.

The programs that the rules of the workflow call are another thing: `python -m milco --help`.
"""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from milco.cli import plan, start

# Heavy packages are imported inside the commands: `milco --help` and the shell's completion stay quick.

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
app.command()(plan)

ModelFolder = Annotated[Path, typer.Option("--model", envvar="MILCO_MODEL", help="Folder of a trained model.")]
AsQuery = Annotated[bool, typer.Option("--query", help="Texts are queries; by default they are documents.")]
Form = Annotated[
    Literal["txt", "tsv", "jsonl", "parquet"] | None,
    typer.Option("--format", help="What the texts come in; by default what the file's name says, or txt."),
]
IdKey = Annotated[str | None, typer.Option(help="Key or column of the ids.")]
TextKey = Annotated[str, typer.Option(help="Key or column of the texts.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _console():
    """Where tables go; into a file or pipe without colours and as wide as they like."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=200)


@app.command()
def inspect(
    text: Annotated[list[str], typer.Argument(help="Texts in any language; several stand side by side.")],
    model: ModelFolder,
    query: AsQuery = False,
    top: Annotated[int, typer.Option(min=1, help="Heaviest words of each view to show.")] = 15,
    as_json: AsJson = False,
) -> None:
    """Show the weighted words that a text becomes: the pivot view in English, the source view in its own words.

    \b
    milco inspect --model results/demo/model "Wie setze ich mein Passwort zurück?"
    milco inspect --model results/demo/model "the house" "das Haus" "家" --top 5
    milco inspect --model results/demo/model "Haus" --json | jq '.[0].pivot'
    """
    from milco.inspection import inspect, load_model, side_by_side

    found = inspect(load_model(model), text, query)
    if as_json:
        print(json.dumps([one.as_dict() for one in found], ensure_ascii=False, indent=2))
    else:
        _console().print(side_by_side(found, top))


@app.command()
def encode(
    texts: Annotated[Path, typer.Argument(help="TXT, TSV, JSONL or Parquet; - is the standard input.")],
    model: ModelFolder,
    output: Annotated[Path, typer.Option(help="NAME.jsonl, or a folder for safetensors.")],
    query: AsQuery = False,
    form: Form = None,
    id_key: IdKey = None,
    text_key: TextKey = "text",
    batch_size: Annotated[int, typer.Option(min=1, help="Texts that are encoded together.")] = 64,
    bf16: Annotated[bool, typer.Option("--bf16", help="Compute in bfloat16, for GPUs.")] = False,
) -> None:
    """Encode texts of any number into sparse vectors.

    A text is a line (TXT), an id and a text (TSV), or has its id under _id, id or docid and its text under text, with
    a title before it if there is one. Memory does not grow with the file. A run that was cut off goes on where it was
    when it is called again.

    \b
    milco encode corpus.jsonl --model results/demo/model --output vectors
    milco encode corpus.parquet --id-key url --text-key body --output vectors.jsonl
    zcat corpus.jsonl.gz | milco encode - --format jsonl --output vectors.jsonl
    milco encode queries.tsv --query --output queries.jsonl
    """
    from tqdm import tqdm

    from milco import streams
    from milco.errors import MilcoError
    from milco.inspection import load_model

    if output.exists() and texts.exists() and output.samefile(texts):
        raise MilcoError(f"{output}: the texts that are encoded; give another name")
    with tqdm(total=streams.count_texts(texts, form), desc="encode", unit="text", mininterval=1) as bar:
        found = streams.read_texts(texts, form, id_key, text_key)
        streams.encode(load_model(model), found, output, query, batch_size, bf16, bar.update)


@app.command()
def prune(
    vectors: Annotated[Path, typer.Argument(help="What milco encode wrote.")],
    output: Annotated[Path, typer.Option(help="NAME.jsonl, or a folder for safetensors.")],
    top_k: Annotated[int | None, typer.Option(min=1, help="Keep so many of the heaviest tokens.")] = None,
    mass: Annotated[float | None, typer.Option(min=0, max=1, help="Keep this share of the weight.")] = None,
) -> None:
    """Keep the heaviest tokens of each vector: a smaller, faster index for a little of the quality.

    The pruning table of an experiment's report shows what a budget costs.

    \b
    milco prune vectors --top-k 100 --output vectors-100
    milco prune vectors.jsonl --mass 0.9 --output vectors-90.jsonl
    """
    from milco import streams

    if (top_k is None) == (mass is None):
        raise typer.BadParameter("give one of --top-k and --mass")
    before, after = streams.prune(vectors, output, top_k, mass)
    print(f"{before:.1f} active dimensions a text before, {after:.1f} after")


def main() -> None:
    """Entry point of `milco`."""
    start(app)


if __name__ == "__main__":
    main()
