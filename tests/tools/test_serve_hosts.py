"""By which names the page of `milco serve` is reached, and what becomes of clients that behave badly."""

import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

import pytest
from browser import Browser
from miniature import write_lines

from milco.tools.inspection import load_model
from milco.tools.retrieval import Retriever
from milco.tools.serve import Answers, Server, is_this_machine

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def answers(model_folder) -> Answers:
    model = load_model(model_folder)
    texts = {"d1": "die Katze", "d2": "the house"}
    return Answers(model, Retriever.of_texts(model, iter(texts.items()), lambda count: None), [2], "texts")


def serving(answers, host: str):
    server = Server(answers, host, 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture(scope="module")
def server(answers):
    with serving(answers, "127.0.0.1") as server:
        yield server
        server.shutdown()


def get(server, host: str, path: str = "/", at: str = "127.0.0.1") -> tuple[int, str, str]:
    connection = http.client.HTTPConnection(at, server.server_port, timeout=60)
    connection.request("GET", path, headers={"Host": host})
    answer = connection.getresponse()
    status, kind, body = answer.status, answer.headers["Content-Type"], answer.read().decode()
    connection.close()
    return status, kind, body


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:9000",
        "LOCALHOST:8000",
        "127.0.0.1",
        "127.0.0.2:1",
        "[::1]:8000",
        "[::1]",
        "a.localhost:5",
    ],
)
def test_every_name_of_the_loopback_is_answered_at_every_port(server, host):
    assert is_this_machine(host) and get(server, host)[0] == get(server, host, "/api/about")[0] == 200


@pytest.mark.parametrize(
    "host", ["", "evil.example", "localhost.evil.example:8000", "10.0.0.1", "[::2]", "[", "notlocalhost", "0.0.0.0"]
)
def test_no_other_name_is_and_it_is_said_what_to_do(server, host):
    status, kind, page = get(server, host)
    assert (status, kind) == (403, "text/html; charset=utf-8")
    status, kind, body = get(server, host, "/api/about")
    assert (status, kind) == (403, "application/json")
    for said in (page, json.loads(body)["error"]):
        assert f"Open http://localhost:{server.server_port}/ there, or start milco serve with --host" in said


def test_a_name_is_no_html(server):
    assert "<script>" not in get(server, "<script>alert(1)</script>")[2]


@pytest.mark.browser
def test_a_browser_shows_what_to_do(server):
    browser = Browser(flags=["--host-resolver-rules=MAP stranger.example 127.0.0.1"])
    try:
        browser.open(f"http://stranger.example:{server.server_port}/")
        assert "start milco serve with --host to let others in" in browser.run("document.body.innerText")
        browser.open(f"http://a.localhost:{server.server_port}/?q=house")
        browser.wait("document.querySelectorAll('#hits > li').length > 0")
    finally:
        browser.close()


def test_the_page_is_reached_by_ipv6(answers):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"this machine has no IPv6 ({error})")
    with serving(answers, "::1") as server:
        assert server.url == f"http://[::1]:{server.server_port}/"
        assert get(server, f"[::1]:{server.server_port}", at="::1")[0] == 200
        assert get(server, "evil.example", at="::1")[0] == 403
        server.shutdown()


def test_whoever_lets_others_in_answers_to_every_name(answers):
    with serving(answers, "0.0.0.0") as server:
        assert get(server, "gpu7.example:8000")[0] == 200
        server.shutdown()


def test_a_request_that_is_broken_off_prints_nothing(server, capfd):
    body = b'{"query": "the house", "budget": 0}'
    head = (
        f"POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    )
    for sent in (head.encode() + b"\r\n\r\n" + body, head.encode(), b""):
        client = socket.create_connection(("127.0.0.1", server.server_port))
        client.sendall(sent)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # as a crash or a reload
        client.close()
    assert get(server, "localhost", "/api/about")[0] == 200
    end = time.monotonic() + 20
    while server.connections and time.monotonic() < end:
        time.sleep(0.05)
    assert capfd.readouterr() == ("", "")


def test_a_text_browser_gets_an_answer_while_it_is_open(tmp_path, model_folder):
    """On a collection without judgements, and with a browser that ends only when it has what it wants."""
    write_lines(tmp_path / "coll" / "corpus.jsonl", ['{"_id": "d1", "text": "die Katze"}'])
    write_lines(tmp_path / "coll" / "queries.jsonl", ['{"_id": "q1", "text": "the house"}'])
    code = f"import sys, urllib.request as r; open('{tmp_path}/page', 'wb').write(r.urlopen(sys.argv[1]).read())"
    environment = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
    environment["BROWSER"] = f'{sys.executable} -c "{code}" %s'
    words = ["serve", str(tmp_path / "coll"), "--model", str(model_folder), "--port", "0", "--budget", "2"]
    with subprocess.Popen(
        [sys.executable, "-m", "milco", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:  # fmt: skip
        url = process.stdout.readline().split()[0]
        end = time.monotonic() + 60
        while not (tmp_path / "page").exists() and time.monotonic() < end:
            time.sleep(0.1)
        connection = http.client.HTTPConnection("127.0.0.1", int(url.strip("/").rpartition(":")[2]), timeout=60)
        connection.request("GET", "/api/about")
        about = json.loads(connection.getresponse().read())
        connection.close()
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(60) == 0
    assert "<title>milco</title>" in (tmp_path / "page").read_text() and about["examples"] == ["the house"]
