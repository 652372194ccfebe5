"""Download repositories of the Hugging Face Hub: pinned to a commit, verified, and resumable.

The commit that a repository had at its first download is written to hub.lock.json in the working directory, and later
downloads take the same one: keep that file with the configuration. To take a newer commit, delete the repository's line
in that file. An address with a whole commit id (hf:OWNER/NAME@40 HEX DIGITS) needs no lock.

For a model, the files that loading needs are downloaded (in the layout of MILCO's authors also its encoder's
config.json); for a table, those of the wanted subsets and split, a folder for each subset. `revision.json` beside them
records repository and commit.
"""

import hashlib
import json
import re
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import huggingface_hub
from huggingface_hub import HfApi, constants, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    OfflineModeIsEnabled,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers

from milco.config import Source
from milco.config.source import HUB_MODELS
from milco.errors import MilcoError
from milco.files import finished_folder, lock, write_json

LOCK = Path("hub.lock.json")
LOCKED_FOR = 60  # seconds that another download may take to write a commit into it
COMMIT = re.compile(r"[0-9a-f]{40}")
BUSY = (408, 429, 500, 502, 503, 504)
PAUSES = (5, 60, 300)  # seconds before a busy hub is asked again; its limits count requests in 5 minutes

# A MILCO model has its English tokenizer in a folder.
BESIDE_WEIGHTS = re.compile(r"encoder/config\.json|(pivot_tokenizer/)?(?!.*\.index\.json)[^/]+\.(json|txt|model|jinja)")
WEIGHTS = [
    re.compile(r"model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json"),
    re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin|pytorch_model\.bin\.index\.json"),
]
# A model of sentence-transformers has folders for its modules; weights for other runtimes have other names.
MODULES = re.compile(r"(?:[^/]+/)*(?!.*\.index\.json)[^/]+\.(json|txt|model|jinja)")
SPARSE_LAYER = "sparse_linear.pt"  # of BGE-M3, beside its encoder
COLLECTION = re.compile(r"((corpus|queries)\.jsonl|qrels/[^/]+\.tsv)(\.gz|\.bz2|\.xz|\.zst)?")

Answer = TypeVar("Answer")


@dataclass
class Repository:
    """A repository at one commit.

    Attributes:
        kind: model or dataset.
        files: path → what the hub says of a file: size, blob_id, and lfs.sha256 of a large one.
        licence: the one in its card.
    """

    kind: str
    name: str
    revision: str
    files: dict[str, Any]
    licence: str | list[str] | None


def fetch_repository(name: str, source: Source, output: Path) -> None:
    """Download the files that a source needs into the folder `output`, which appears when it is complete.

    Raises:
        MilcoError: the download fails, or the repository does not match the source's settings.
    """
    huggingface_hub.logging.set_verbosity_error()  # its warnings are about requests that we retry or report ourselves
    try:
        repository = _look_up(name, source)
        with finished_folder(output, made_by=repository.name) as folder:
            places = _places(name, source, repository, folder)
            for place, path in places.items():
                _download(name, repository, path, folder / place)
                if place.endswith(".parquet"):
                    _check_columns(name, source, repository, folder / place, path)
            for left in [path for path in folder.rglob("*") if path.is_file()]:
                if left.relative_to(folder).as_posix() not in places:  # of another commit
                    left.unlink()
            encoder = _add_encoder(name, repository, folder)
            _describe(source, repository, folder, places, encoder)
    except (HTTPError, OSError) as error:
        raise MilcoError(f"sources.{name}: {_explain(source, error)}") from None


def _address(source: Source) -> tuple[str, str, str]:
    """Kind, OWNER/NAME, and REVISION or nothing."""
    repository, _, revision = source.uri.removeprefix("hf:").partition("@")
    kind = "model" if source.format in {*HUB_MODELS, "tokenizer"} else "dataset"
    return kind, repository, revision


def _look_up(name: str, source: Source) -> Repository:
    """Find the commit to take and what is in it."""
    kind, repository, wanted = _address(source)
    key, api = f"{kind}s/{repository}", HfApi()
    revision = wanted or _pins().get(key)
    try:
        info: Any = patiently(
            lambda: api.repo_info(repository, revision=revision, repo_type=kind, files_metadata=True, timeout=60)
        )
    except RevisionNotFoundError:
        refs = patiently(lambda: api.list_repo_refs(repository, repo_type=kind))
        there = ", ".join(ref.name for ref in [*refs.branches, *refs.tags])
        origin = "uri" if wanted else f"uri, of which {LOCK} has the commit"
        raise MilcoError(
            f"sources.{name}.{origin}: {repository} has no revision {revision} (there are: {there})"
        ) from None
    patiently(lambda: api.auth_check(repository, repo_type=kind))  # a gated repository tells its commit to everyone
    if not COMMIT.fullmatch(wanted):
        pinned = _pin(key, str(info.sha))
        if pinned != info.sha and not wanted:  # another job looked it up just before the repository moved on
            return _look_up(name, source)
        if pinned != info.sha:
            raise MilcoError(
                f"sources.{name}.uri: {LOCK} has {repository} at {pinned}, but {wanted} is {info.sha} now; "
                f'delete the line "{key}" from {LOCK} to take that, or keep the other with hf:{repository}@{pinned}'
            )
    card = info.card_data or {}
    files = {file.rfilename: file for file in info.siblings or []}
    return Repository(kind, repository, str(info.sha), files, card.get("license"))


def _pins() -> dict[str, str]:
    try:
        return json.loads(LOCK.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise MilcoError(f"{LOCK}: not valid JSON ({error}); delete it to look all commits up anew") from None


def _pin(key: str, revision: str) -> str:
    """Store a repository's commit unless one is stored already; return the stored commit."""
    with LOCK.with_name(".hub.lock").open("w") as guard:  # several downloads run at once
        if not lock(guard, LOCKED_FOR):
            raise MilcoError(
                f"{guard.name}: another process has locked it for {LOCKED_FOR} s; end it, or delete the file"
            )
        pins = _pins()
        if key not in pins:
            write_json(LOCK, dict(sorted({**pins, key: revision}.items())))
    return pins.get(key, revision)


def patiently(ask: Callable[[], Answer]) -> Answer:
    """Send a request to the Hub; retry if the Hub is busy."""
    for pause in PAUSES:
        try:
            return ask()
        except HfHubHTTPError as error:
            status, says = error.response.status_code, error.response.headers.get("Retry-After", "")
            if status not in BUSY:
                raise
            seconds = int(says) if says.isdigit() else pause
            print(f"the hub is busy ({status}); asking again in {seconds} s", file=sys.stderr)
            time.sleep(seconds)
    return ask()


def _places(name: str, source: Source, repository: Repository, folder: Path) -> dict[str, str]:
    """Which files to download: place in the folder → path in the repository."""
    match source.format:
        case "pairs" | "triples":
            return _tables(name, source, repository)
        case "beir":
            wanted = [path for path in repository.files if COLLECTION.fullmatch(path)]
        case "tokenizer":
            wanted = [path for path in repository.files if path == "tokenizer.json"]
        case "sentence-transformers" if "modules.json" in repository.files:
            wanted = _modules(source, repository)
        case "bge-m3-sparse" if SPARSE_LAYER not in repository.files:
            raise MilcoError(
                f"sources.{name}.format: {repository.name} holds no {SPARSE_LAYER}, which has the sparse weights of a "
                "model like BGE-M3; one without them may be of format sentence-transformers"
            )
        case "bge-m3-sparse":
            wanted = [*_checkpoint(name, source, repository, folder), SPARSE_LAYER]
        case _:
            wanted = _checkpoint(name, source, repository, folder)
    if not wanted:
        raise MilcoError(f"sources.{name}.format: {repository.name} holds no {source.format}")
    return {path: path for path in wanted}


def _tables(name: str, source: Source, repository: Repository) -> dict[str, str]:
    import datasets

    from milco.data.reading import readable
    from milco.data.tables import TABLES, is_table

    datasets.logging.set_verbosity_error()
    places = {}
    with tempfile.TemporaryDirectory() as scratch:
        here = {"path": repository.name, "revision": repository.revision, "cache_dir": scratch}
        try:
            there = datasets.get_dataset_config_names(**here)
        except RuntimeError as error:  # it is made by a script
            raise MilcoError(
                f"sources.{name}: {repository.name}: {error}; take another repository, or make tables and name them "
                "with file:"
            ) from None
        unknown = [subset for subset in source.subsets if subset not in there]
        if unknown or (len(there) > 1 and not source.subsets):
            problem = f"has no subset {unknown[0]}" if unknown else "has several subsets; name those to read"
            raise MilcoError(f"sources.{name}.subsets: {repository.name} {problem} (there are: {', '.join(there)})")
        split = source.split or "train"
        for subset in source.subsets or {"default": ""}:
            builder = datasets.load_dataset_builder(name=subset if source.subsets else None, **here)
            splits = builder.config.data_files or {}
            if split not in splits:
                there = ", ".join(map(str, splits))
                raise MilcoError(f"sources.{name}.split: {repository.name} has no {split} (there are: {there})")
            for address in splits[split]:
                path = address.removeprefix(f"hf://datasets/{repository.name}@{repository.revision}/")
                if path not in repository.files or not is_table(Path(path)):
                    raise MilcoError(
                        f"sources.{name}: {repository.name} is made of {address.rpartition('/')[2]} and the like, not "
                        f"of tables of its own ({readable(TABLES)}); turn it into such a file and name that with file:"
                    )
                places[f"{subset}/{path}"] = path
    return places


def _checkpoint(name: str, source: Source, repository: Repository, folder: Path) -> list[str]:
    """Files that loading needs: the weights in one format, and Python files only where they are trusted."""
    weights = [[path for path in repository.files if pattern.fullmatch(path)] for pattern in WEIGHTS]
    if "config.json" not in repository.files or not any(weights):
        raise MilcoError(
            f"sources.{name}: {repository.name} is no transformers checkpoint: it holds no config.json with "
            "model.safetensors or pytorch_model.bin"
        )
    _download(name, repository, "config.json", folder / "config.json")  # before the weights, which may be gigabytes
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if "auto_map" in settings and not source.trust_remote_code:
        from transformers import CONFIG_MAPPING

        from milco.checkpoint_config import is_milco

        # A published model of ours brings a copy of code that is here; one of the authors is read without its code.
        if not is_milco(settings) and settings.get("model_type") not in CONFIG_MAPPING:
            raise MilcoError(
                f"sources.{name}.trust_remote_code: {repository.name} cannot be loaded without running Python code "
                "that lies in it; read that code, then set the key to true, or choose another model"
            )
    elsewhere = [str(code) for code in settings.get("auto_map", {}).values() if "--" in str(code)]
    if elsewhere and source.trust_remote_code:
        raise MilcoError(
            f"sources.{name}.trust_remote_code: {repository.name} wants Python code of a repository by its address "
            f"({elsewhere[0]}), and only code that lies in its own folder is run; choose another model"
        )
    code = [path for path in repository.files if path.endswith(".py")] if source.trust_remote_code else []
    return [*filter(BESIDE_WEIGHTS.fullmatch, repository.files), *(weights[0] or weights[1]), *code]


def _modules(source: Source, repository: Repository) -> list[str]:
    """All modules of a model of sentence-transformers: in each folder the weights in one format, and Python files only
    where they are trusted."""
    found = [path for path in repository.files if MODULES.fullmatch(path)]
    for folder in dict.fromkeys(Path(path).parent for path in repository.files):
        here = [path for path in repository.files if Path(path).parent == folder]
        weights = [[path for path in here if pattern.fullmatch(Path(path).name)] for pattern in WEIGHTS]
        found += weights[0] or weights[1]
    return found + [path for path in repository.files if path.endswith(".py") and source.trust_remote_code]


def _add_encoder(name: str, repository: Repository, folder: Path) -> Repository | None:
    """For a MILCO model in its authors' layout, fetch the shape of its encoder, a small file of another repository."""
    from milco.modeling.authors_layout import is_theirs, shape_within

    if repository.kind != "model" or not (folder / "config.json").exists():  # a tokenizer alone
        return None
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    target = folder / "encoder" / "config.json"
    if not is_theirs(settings) or target.exists() or shape_within(settings):
        return None
    named = settings["multilingual_encoder_checkpoint"]
    if not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", named):
        raise MilcoError(
            f"sources.{name}: {repository.name} names {named!r} as its encoder, which is no OWNER/NAME of the Hub; "
            "take a copy of the model with the config.json of its encoder in a folder encoder/, and name it with file:"
        )
    encoder = Source(uri=f"hf:{named}", format="transformers")
    try:
        found = _look_up(name, encoder)
        if "config.json" not in found.files:
            raise MilcoError(
                f"sources.{name}: {repository.name} names {found.name} as its encoder: no config.json there"
            )
        _download(name, found, "config.json", target)
    except (HTTPError, OSError) as error:
        raise MilcoError(f"sources.{name}: the encoder of {repository.name}: {_explain(encoder, error)}") from None
    return found


def _download(name: str, repository: Repository, path: str, target: Path) -> None:
    """Download one file to `target`; it has that name only when its content is what the hub says.

    The part that has arrived lies beside it, named after the content; the next try resumes there. (The hub's own client
    throws it away when it ends.)
    """
    file = repository.files[path]
    if target.exists() and _is(target, file):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f"{target.name}.{file.blob_id}.incomplete")
    url = hf_hub_url(repository.name, path, repo_type=repository.kind, revision=repository.revision)

    def go_on() -> None:
        with draft.open("ab") as sink:
            if sink.tell() < file.size:
                http_get(url, sink, resume_size=sink.tell(), headers=build_hf_headers(), displayed_filename=path)

    patiently(go_on)
    if draft.stat().st_size < file.size:
        raise MilcoError(
            f"sources.{name}: {path} broke off after {draft.stat().st_size} of {file.size} bytes; run again, "
            "it goes on there"
        )
    if not _is(draft, file):
        draft.unlink()
        raise MilcoError(
            f"sources.{name}: the checksum of {path} is not the one that the hub has for it, so it was changed on its "
            "way; run again, and if that does not help, ask whoever runs the proxy or mirror"
        )
    draft.rename(target)


def _is(path: Path, file: Any) -> bool:
    """Whether a file matches the Hub's checksum: git's for small files, SHA-256 for large ones."""
    if path.stat().st_size != file.size:
        return False
    if file.lfs:
        return _sha256(path) == file.lfs.sha256
    return hashlib.sha1(b"blob %d\0" % file.size + path.read_bytes()).hexdigest() == file.blob_id


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _check_columns(name: str, source: Source, repository: Repository, file: Path, path: str) -> None:
    """Whether a Parquet file is whole, and has the columns that its readers will want."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from milco.data.tables import PAIR_COLUMNS, TRIPLE_COLUMNS

    try:
        schema = pq.read_schema(file)
        there = list(dict.fromkeys([*schema.names, *(inner.name for outer in schema for inner in outer.flatten())]))
    except (pa.ArrowException, OSError) as error:
        raise MilcoError(
            f"sources.{name}: {path} is not a complete Parquet file in {repository.name} at {repository.revision} "
            f"({str(error).splitlines()[0]}); take another revision, or delete its line from {LOCK} to take the newest"
        ) from None
    wanted = TRIPLE_COLUMNS if source.format == "triples" else PAIR_COLUMNS
    for column in wanted:
        if column == "language" and (source.subsets or source.language):
            continue
        if source.columns.get(column, column) not in there:
            raise MilcoError(
                f"sources.{name}.columns: {path} has no column {source.columns.get(column, column)} (there are: "
                f"{', '.join(there)}); map {column} to one of them"
            )


def _describe(
    source: Source, repository: Repository, folder: Path, places: dict[str, str], encoder: Repository | None
) -> None:
    files, more = {}, {}
    for place, path in places.items():
        file = repository.files[path]
        files[place] = {"size": file.size, "sha256": file.lfs.sha256 if file.lfs else _sha256(folder / place)}
    if encoder:
        more = {"encoder": {"repository": f"models/{encoder.name}", "revision": encoder.revision}}
        shape = folder / "encoder" / "config.json"
        files["encoder/config.json"] = {"size": shape.stat().st_size, "sha256": _sha256(shape)}
    write_json(
        folder / "revision.json",
        {
            "repository": f"{repository.kind}s/{repository.name}",
            "revision": repository.revision,
            "licence": source.licence or repository.licence,
            "files": files,
            **more,
        },
    )


def _explain(source: Source, error: BaseException) -> str:
    """One line on what went wrong and what to do. `datasets` wraps the hub's answer in errors of its own."""
    kind, repository, _ = _address(source)
    page = f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{repository}"
    chain: list[BaseException] = [error]
    while len(chain) < 10 and (deeper := chain[-1].__cause__ or chain[-1].__context__):
        chain.append(deeper)
    cause = next((link for link in chain if isinstance(link, HTTPError | OfflineModeIsEnabled)), error)
    status = cause.response.status_code if isinstance(cause, HfHubHTTPError) else None
    if isinstance(cause, GatedRepoError) or status in (401, 403):
        return (
            f"{page} is gated or private, or there is no such {kind} ({status}): accept its terms at that page, then "
            "set HF_TOKEN or log in with `hf auth login`"
        )
    if status == 404:
        return f"there is no {kind} {page} (404): is it misspelt, or private and HF_TOKEN not set?"
    if status in BUSY:
        return f"the hub is busy or out of order ({status}) and stayed so; run again later, what has come is kept"
    if isinstance(cause, OfflineModeIsEnabled):
        return f"{source.uri} must be downloaded, but HF_HUB_OFFLINE is set; unset it where there is a network"
    what = (str(cause).splitlines() or [""])[0] or type(cause).__name__
    return f"cannot download {source.uri}: {what}; when the cause is gone, run again: what has come is kept"
