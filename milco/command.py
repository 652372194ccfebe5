"""Use a trained model: look at what it makes of a text, encode, prune, index, search, measure, show.

The programs that the rules of the workflow call are another thing: `python -m milco --help`.
"""

import json
from pathlib import Path
from typing import Annotated

import typer

from milco.cli import plan, start

# Heavy packages are imported inside the commands: `milco --help` and the shell's completion stay quick.

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
app.command()(plan)

ModelFolder = Annotated[Path, typer.Option("--model", envvar="MILCO_MODEL", help="Folder of a trained model.")]
AsQuery = Annotated[bool, typer.Option("--query", help="Texts are queries; by default they are documents.")]
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


def main() -> None:
    """Entry point of `milco`."""
    start(app)


if __name__ == "__main__":
    main()
