"""Downloads from a package registry and a web server on this machine, and every way in which they fail."""

import hashlib
import http.server
import io
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest
import yaml

from milco.config import Source
from milco.data.sources import fetch
from milco.errors import MilcoError

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
WHEEL = "tinypack-1.0-py3-none-any.whl"
TABLE = b"Good morning\tGuten Morgen\n" * 4000


def archive(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as target:
        for name, content in files.items():
            target.writestr(zipfile.ZipInfo(name), content)
    return stream.getvalue()


METADATA = b"Metadata-Version: 2.1\nName: tinypack\nVersion: 1.0\nRequires-Dist: nowhere-to-be-found\n"
CONTENT = archive(
    {
        "tinypack/model/config.json": b'{"layers": 2}',
        "tinypack/model/weights.bin": bytes(range(256)) * 200,
        "tinypack/tokenizer.json": b"{}",
        "tinypack-1.0.dist-info/METADATA": METADATA,
        "tinypack-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nTag: py3-none-any\n",
        "tinypack-1.0.dist-info/RECORD": b"",
    }
)


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.pages`. While `server.cut` is set, files (no pages) break off in the middle."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        content = self.server.pages.get(self.path.partition("?")[0])
        if content is None:
            self.send_error(404)
            return
        file = not self.path.endswith("/")
        chunked = file and self.server.cut == "chunked"
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream" if file else "text/html")
        self.send_header(*(("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(len(content)))))
        self.end_headers()
        if file and self.server.cut:
            content = content[: len(content) // 2]
            self.close_connection = True
        self.wfile.write(b"%x\r\n%b\r\n" % (len(content), content) if chunked else content)
        if file and self.server.cut == "reset":
            time.sleep(0.1)  # so that the client has begun to read
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())

    def log_message(self, *arguments):
        """Keep the test's output clean."""


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.cut = None
        running.pages = {
            "/simple/tinypack/": f'<!DOCTYPE html><html><body><a href="/{WHEEL}">{WHEEL}</a></body></html>'.encode(),
            f"/{WHEEL}": CONTENT,
            "/de.tsv": TABLE,
            "/model.zip": CONTENT,
        }
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def registry(server, monkeypatch):
    """The package registry that pip asks; nothing of this machine's own settings is left."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_INDEX_URL", f"{address(server)}/simple")
    return server


def address(server) -> str:
    return f"http://127.0.0.1:{server.server_port}"


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def wheel_source(**changes) -> Source:
    values = {"uri": "pypi:tinypack==1.0", "format": "transformers", "sha256": hashlib.sha256(CONTENT).hexdigest()}
    return Source(**{**values, "files": ["tinypack/model/config.json", "tinypack/tokenizer.json"], **changes})


def web_source(uri: str, content: bytes, **changes) -> Source:
    return Source(uri=uri, format="pairs", language="de", sha256=hashlib.sha256(content).hexdigest(), **changes)


def failure(source: Source, output: Path) -> str:
    """What a failed download says; it must be one line and leave nothing behind."""
    with pytest.raises(MilcoError) as error:
        fetch("tiny", source, output)
    assert list(output.parent.iterdir()) == []
    assert "\n" not in str(error.value)
    return str(error.value)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_wanted_files_of_a_wheel_are_taken_out_side_by_side(registry, tmp_path):
    fetch("tiny", wheel_source(), tmp_path / "tiny")
    assert contents(tmp_path / "tiny") == {"config.json": b'{"layers": 2}', "tokenizer.json": b"{}"}


def test_modules_of_a_model_keep_their_folders_in_a_wheel(registry, tmp_path):
    files = ["tinypack/model/config.json", "tinypack/tokenizer.json"]
    fetch("tiny", wheel_source(format="sentence-transformers", files=files), tmp_path / "tiny")
    found = [path.relative_to(tmp_path / "tiny").as_posix() for path in (tmp_path / "tiny").rglob("*.*")]
    assert sorted(found) == ["model/config.json", "tokenizer.json"]


def test_wheel_itself_is_kept_when_no_files_are_named(registry, tmp_path):
    fetch("tiny", wheel_source(files=[]), tmp_path / "tiny")
    assert contents(tmp_path / "tiny") == {WHEEL: CONTENT}
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_changed_wheel_is_refused(registry, tmp_path):
    registry.pages[f"/{WHEEL}"] = CONTENT.replace(b"layers", b"lagers")
    message = failure(wheel_source(), tmp_path / "tiny")
    assert message.startswith("sources.tiny.sha256: ") and hashlib.sha256(CONTENT).hexdigest() in message


def test_registry_that_does_not_answer_is_named(registry, monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{closed_port()}/simple")
    message = failure(wheel_source(), tmp_path / "tiny")
    assert message.startswith("sources.tiny: ") and "tinypack==1.0" in message and "registry" in message


def test_version_that_the_registry_has_not_is_named(registry, tmp_path):
    assert "tinypack==2.0" in failure(wheel_source(uri="pypi:tinypack==2.0"), tmp_path / "tiny")


def test_file_that_the_wheel_has_not_is_named(registry, tmp_path):
    message = failure(wheel_source(files=["tinypack/tokenizer.json", "tinypack/no.bin"]), tmp_path / "tiny")
    assert message.startswith("sources.tiny.files: ") and "tinypack/no.bin" in message


def test_rerun_after_a_wheel_that_broke_off_succeeds(registry, tmp_path):
    registry.cut = "length"
    assert "tinypack==1.0" in failure(wheel_source(), tmp_path / "tiny")
    registry.cut = None
    fetch("tiny", wheel_source(), tmp_path / "tiny")
    assert sorted(contents(tmp_path / "tiny")) == ["config.json", "tokenizer.json"]


def test_lost_connection_to_the_registry_is_told_as_such(registry, tmp_path):
    registry.cut = "reset"
    assert re.search("connection|incomplete", failure(wheel_source(), tmp_path / "tiny"), re.IGNORECASE)


def test_what_a_killed_run_left_is_replaced(registry, tmp_path):
    for folder in ("tiny", ".tiny.part"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "half.bin").write_bytes(b"half")
    fetch("tiny", wheel_source(), tmp_path / "tiny")
    assert sorted(contents(tmp_path / "tiny")) == ["config.json", "tokenizer.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_file_of_a_web_server_is_kept_under_its_name(server, tmp_path):
    fetch("tiny", web_source(f"{address(server)}/de.tsv", TABLE), tmp_path / "tiny")
    assert contents(tmp_path / "tiny") == {"de.tsv": TABLE}


def test_query_of_a_web_address_is_no_part_of_the_file_s_name(server, tmp_path):
    fetch("tiny", web_source(f"{address(server)}/de.tsv?download=1", TABLE), tmp_path / "tiny")
    assert contents(tmp_path / "tiny") == {"de.tsv": TABLE}


def test_wanted_files_are_taken_out_of_an_archive_of_a_web_server(server, tmp_path):
    source = web_source(f"{address(server)}/model.zip", CONTENT, files=["tinypack/tokenizer.json"])
    fetch("tiny", source, tmp_path / "tiny")
    assert contents(tmp_path / "tiny") == {"tokenizer.json": b"{}"}


def test_file_that_is_no_archive_is_refused_when_files_are_wanted_of_it(server, tmp_path):
    source = web_source(f"{address(server)}/de.tsv", TABLE, files=["de.txt"])
    assert failure(source, tmp_path / "tiny").startswith("sources.tiny")


def test_changed_file_of_a_web_server_is_refused(server, tmp_path):
    message = failure(web_source(f"{address(server)}/de.tsv", b"other"), tmp_path / "tiny")
    assert message.startswith("sources.tiny.sha256: ") and hashlib.sha256(TABLE).hexdigest() in message


def test_web_server_that_does_not_answer_is_named(tmp_path):
    uri = f"http://127.0.0.1:{closed_port()}/de.tsv"
    assert uri in failure(web_source(uri, TABLE), tmp_path / "tiny")


def test_file_that_the_web_server_has_not_is_named(server, tmp_path):
    message = failure(web_source(f"{address(server)}/no.tsv", TABLE), tmp_path / "tiny")
    assert f"{address(server)}/no.tsv" in message and "404" in message


@pytest.mark.parametrize("way", ["length", "chunked", "reset"])
def test_rerun_after_a_file_of_a_web_server_that_broke_off_succeeds(server, tmp_path, way):
    source = web_source(f"{address(server)}/de.tsv", TABLE)
    server.cut = way
    assert source.uri in failure(source, tmp_path / "tiny")
    server.cut = None
    fetch("tiny", source, tmp_path / "tiny")
    assert contents(tmp_path / "tiny") == {"de.tsv": TABLE}


def run_program(source: dict, output: Path, name: str = "tiny") -> subprocess.CompletedProcess:
    """`python -m milco.stages fetch` with config/demo.yaml and one more source."""
    settings = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text(encoding="utf-8"))
    settings["sources"]["tiny"] = source
    path = output.parent / "my.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    command = [sys.executable, "-m", "milco.stages", "fetch", "--config", path, "--name", name, "--output", output]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)


def assert_one_line(done: subprocess.CompletedProcess, output: Path) -> None:
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("milco: error: sources.") and done.stderr.count("\n") == 1
    assert [path.name for path in output.parent.iterdir()] == ["my.yaml"]


def test_program_fetches(registry, tmp_path):
    done = run_program(wheel_source().model_dump(), tmp_path / "tiny")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(contents(tmp_path / "tiny")) == ["config.json", "tokenizer.json"]


def test_program_ends_in_one_line_when_a_checksum_differs(registry, tmp_path):
    done = run_program(wheel_source(sha256="0" * 64).model_dump(), tmp_path / "tiny")
    assert_one_line(done, tmp_path / "tiny")
    assert "sources.tiny.sha256: " in done.stderr


def test_program_ends_in_one_line_when_the_hub_does_not_answer(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{closed_port()}")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home" / "hub"))
    (tmp_path / "work").mkdir()
    done = run_program({"uri": "hf:owner/name", "format": "transformers"}, tmp_path / "work" / "tiny")
    assert_one_line(done, tmp_path / "work" / "tiny")
    assert "hf:owner/name" in done.stderr


def test_program_ends_in_one_line_when_the_source_is_unknown(tmp_path):
    done = run_program({"uri": "file:a", "format": "tokenizer"}, tmp_path / "tiny", name="tyni")
    assert_one_line(done, tmp_path / "tiny")
    assert "tyni" in done.stderr
