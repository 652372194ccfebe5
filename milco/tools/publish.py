"""A finished model on the Hugging Face Hub: weights, card and, if asked, vectors, in one commit.

Unchanged files are not uploaded again; without changes there is no commit. Other files in the repository are kept. The
token is the user's own: HF_TOKEN, or what `hf auth login` keeps.

Run by rule `publish`, on request only:
    python -m milco.stages publish --config FILE --model FOLDER --card FILE [--vectors FOLDER] --output FILE
"""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

from milco.config import Config
from milco.data.hub import BUSY, patiently
from milco.data.vectors import load_vectors, pivot_columns, save_vectors
from milco.errors import MilcoError
from milco.files import write_json
from milco.modeling.pruning import IN_CONFIG, budget_of, prune


def publish(config: Config, model: Path, card: Path, vectors: Path | None, output: Path) -> None:
    """Upload an exported model to the repository `publish.repo`, and write its address and commit to `output`.

    Args:
        card: becomes README.md.
        vectors: what `encode` wrote; pruned to the budgets of `model` before it is sent.

    Raises:
        MilcoError: no repository or token is set, or the upload fails; `output` is then not written.
    """
    repo = config.publish.repo
    if repo is None:
        raise MilcoError("publish.repo is not set: write OWNER/NAME there")
    if get_token() is None:
        raise MilcoError("publish.repo: no token to write with; set HF_TOKEN or log in with `hf auth login`")
    huggingface_hub.logging.set_verbosity_error()
    api = HfApi()
    with tempfile.TemporaryDirectory() as scratch:
        files = {path.relative_to(model).as_posix(): path for path in _files(model)}
        if vectors:
            _prune_vectors(vectors, model, Path(scratch))
            files |= {f"vectors/{path.name}": path for path in _files(Path(scratch))}
        files["README.md"] = card
        operations = [CommitOperationAdd(name, path) for name, path in files.items()]
        try:
            patiently(lambda: api.create_repo(repo, private=config.publish.private, exist_ok=True))
            message = f"Experiment {config.experiment}"
            commit = patiently(lambda: api.create_commit(repo, operations, commit_message=message))
        except (HTTPError, OSError, ValueError, RuntimeError) as error:
            raise MilcoError(f"publish.repo: {_explain(repo, error)}") from None
    receipt = {"repo": repo, "commit": commit.oid, "url": f"{constants.ENDPOINT}/{repo}/tree/{commit.oid}"}
    write_json(output, receipt)
    print(f"published: {receipt['url']}")


def _files(folder: Path) -> Iterator[Path]:
    """All files but hidden ones, such as Snakemake's own."""
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith("."))


def _prune_vectors(vectors: Path, model: Path, output: Path) -> None:
    settings = json.loads((model / "config.json").read_text(encoding="utf-8"))
    for side, key in IN_CONFIG.items():
        for path in sorted(vectors.glob(f"{side}-*.safetensors")):
            rows, ids = load_vectors(path)
            save_vectors(output / path.name, prune(rows, budget_of(settings.get(key, {}))), ids, pivot_columns(path))


def _explain(repo: str, error: BaseException) -> str:
    """One line on what went wrong and what to do. The client wraps errors about a large file."""
    cause = error
    while isinstance(cause, RuntimeError) and cause.__cause__ and not isinstance(cause, OfflineModeIsEnabled):
        cause = cause.__cause__
    status = cause.response.status_code if isinstance(cause, HfHubHTTPError) else None
    if status == 401:
        return "the hub does not know the token (401); set HF_TOKEN to a valid one or log in with `hf auth login`"
    if status in (403, 404):
        return f"the token may not write to {repo} ({status}); take one with write access, or an OWNER that is yours"
    if status in BUSY:
        return f"the hub is busy or out of order ({status}) and stayed so; run again later"
    if isinstance(cause, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set; unset it to publish"
    what = " ".join(str(cause).split()) or type(cause).__name__
    return f"{repo} did not take it: {what}; when the cause is gone, run again: what has arrived is not sent again"
