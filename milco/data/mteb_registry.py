"""Look up models in mteb's registry: whether they can be measured here, and which repository to download.

    mteb:OWNER/NAME    a model at the revision that mteb names

Rule `fetch` downloads its repository like any other of the Hub; milco/evaluation/mteb_models.py has mteb load it there.
"""

import re
from typing import Any

from milco.config import Source
from milco.errors import MilcoError

ONE_VECTOR = {"dense", "sparse"}  # kinds of models that give a text one vector, by their names in mteb


def find(name: str, source: Source) -> Any:
    """mteb's metadata of a model (ModelMeta).

    Raises:
        MilcoError: mteb knows no such model, or it is of a kind that cannot be measured here.
    """
    import mteb  # takes seconds

    title = source.uri.removeprefix("mteb:")
    try:
        found = mteb.get_model_meta(title)
    except KeyError as error:
        raise MilcoError(f"sources.{name}.uri: {error.args[0]}") from None
    others = [kind for kind in found.model_type if kind not in ONE_VECTOR]
    problem = None
    if others:
        problem = f"is a {others[0]} model; one that gives every text a single vector, dense or sparse, is wanted"
    elif "text" not in found.modalities:
        problem = f"reads {' and '.join(found.modalities)}, no text"
    elif found.loader is None or found.open_weights is False or "API" in found.framework:
        problem = "has no weights that could be downloaded, and encoding has no network"
    elif not re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w.]+)?", _address(found)):  # base and adapter: two revisions
        problem = f"is no single repository of the Hub ({_address(found)})"
    if problem:
        raise MilcoError(f"sources.{name}.uri: {title} {problem}")
    return found


def weights(name: str, source: Source) -> Source:
    """The repository of the Hub with the weights of a model, as a source."""
    trust = {"trust_remote_code": source.trust_remote_code, "licence": source.licence}
    return Source(uri=f"hf:{_address(find(name, source))}", format="sentence-transformers", **trust)


def _address(found: Any) -> str:
    return f"{found.name}@{found.revision}" if found.revision else found.name
