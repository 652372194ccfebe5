"""Show a text's representation as weighted words, separately for pivot view and source view.

model = load_model(Path("results/demo/model"))
print(inspect(model, ["Wie setze ich mein Passwort zurück?"], query=True)[0].pivot)  # {"password": 1.9, …}
"""

import re
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from milco.checkpoint_config import is_milco, read_config
from milco.errors import MilcoError

if TYPE_CHECKING:
    from milco.modeling.model import MilcoModel

VIEWS = {"pivot": "e_", "source": "m_"}  # what the names of their tokens begin with, see `MilcoModel.decode`
ON_HUB = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
BAR = 12  # characters of the longest bar


@dataclass
class Inspected:
    """Words of one text by falling weight, without the marks of their view."""

    text: str
    pivot: dict[str, float]
    source: dict[str, float]

    as_dict = asdict


def load_model(place: Path, trust: bool = False, **parts: Any) -> "MilcoModel":
    """The model of a folder, from that folder alone, or of the Hub's OWNER/NAME or OWNER/NAME@REVISION, in our layout
    or in the authors'; on the first GPU if there is one.

    Args:
        trust: whether Python files that lie in the folder may be run.
        parts: `encoder` and `teacher` as for `MilcoModel.from_pretrained`.

    Raises:
        MilcoError: there is no such folder, something else lies in it, or it cannot be loaded without its code.
    """
    remedy = "give the folder of a trained MILCO model, such as results/demo/model"
    address = None if place.is_dir() else ON_HUB.fullmatch(str(place))
    if not address and not (place / "config.json").is_file():
        what = "no config.json in it" if place.is_dir() else "no such folder"
        raise MilcoError(f"model {place}: {what}; {remedy}")
    name: str = address["name"] if address else str(place)
    hub: dict[str, Any] = {"revision": address["revision"]} if address else {}
    try:
        settings = _settings_on_hub(name, hub) if address else read_config(place / "config.json")
    except (OSError, ValueError) as error:
        what = f"no such folder, nor such a model on the Hub ({str(error).splitlines()[0].rstrip('.')})"
        raise MilcoError(f"model {place}: {what}; {remedy}") from None
    if not is_milco(settings):
        raise MilcoError(f"model {place}: a model of type {settings.get('model_type')!r}; {remedy}")

    import torch  # seconds, with the next two: what is wrong above is said at once
    from transformers.utils.logging import disable_progress_bar

    from milco.modeling.model import MilcoModel

    if not address:
        disable_progress_bar()  # too quick for one
    try:
        model = MilcoModel.from_pretrained(name, trust_remote_code=trust, **hub, **parts)
    except (OSError, RuntimeError, ValueError) as error:
        raise MilcoError(f"model {place}: {str(error).splitlines()[0]}; copy or export the model again") from error
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu")


def _settings_on_hub(name: str, hub: dict[str, Any]) -> dict[str, Any]:
    from transformers import PretrainedConfig

    return PretrainedConfig.get_config_dict(name, **hub)[0]


def split_views(tokens: dict[str, float]) -> dict[str, dict[str, float]]:
    """Named weights, as `MilcoModel.decode` gives them → {"pivot": …, "source": …} without the marks."""
    return {
        view: {token.removeprefix(mark): weight for token, weight in tokens.items() if token.startswith(mark)}
        for view, mark in VIEWS.items()
    }


def inspect(model: "MilcoModel", texts: list[str], query: bool, language: str | None = None) -> list[Inspected]:
    """Both views of each text, cut and pruned as a query or as a document in `language`."""
    encode = model.encode_query if query else model.encode_document
    rows = encode(texts, language=language)
    return [Inspected(text, **split_views(named)) for text, named in zip(texts, model.decode(rows), strict=True)]


def side_by_side(found: list[Inspected], top: int) -> Table:
    """A column for each text and a section for each view with its `top` heaviest words; what several texts have in
    common stands out."""
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", show_edge=False)
    for one in found:
        table.add_column(Text(one.text), min_width=24, overflow="fold")
    for view, colour in (("pivot", "cyan"), ("source", "magenta")):
        views = [list(getattr(one, view).items()) for one in found]
        common = {word for word, texts in Counter(word for words in views for word, _ in words).items() if texts > 1}
        table.add_row(*(Text(f"{view} view: {len(words)} words", style="dim") for words in views))
        heaviest = max((words[0][1] for words in views if words), default=1.0)
        for rank in range(min(top, max(map(len, views)))):
            cells = [words[rank] if rank < len(words) else None for words in views]
            table.add_row(*(_cell(cell, heaviest, colour, common) for cell in cells))
        table.add_section()
    return table


def _cell(cell: tuple[str, float] | None, heaviest: float, colour: str, common: set[str]) -> Text:
    """A weight, its bar and its word; the word comes last, since scripts differ in width and direction."""
    if cell is None:
        return Text()
    word, weight = cell
    bar = "━" * max(1, round(BAR * weight / heaviest))
    style = f"bold {colour}" if word in common else ""
    return Text.assemble((f"{weight:5.2f} ", "dim"), (f"{bar:<{BAR}} ", colour), (word, style))
