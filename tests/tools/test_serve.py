"""The page of `milco serve`: its answers, its access control, and its behaviour in a real browser."""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from urllib.parse import quote

import pytest
from browser import Browser
from miniature import write_lines

from milco.errors import MilcoError
from milco.tools.inspection import load_model
from milco.tools.retrieval import Retriever
from milco.tools.serve import Answers, Server

pytestmark = pytest.mark.slow

HOSTILE = (
    """<img src=x onerror="document.title='owned'"> "house" 'the' </li><script>document.title='owned'</script> &amp;"""
)
HEBREW = "בית the house"
DOCUMENTS = {"d1": "die Katze", "d2": "the house", "<b>d3</b>": HOSTILE, "d4": HEBREW, "d5": "the old red house 水"}


@pytest.fixture(scope="module")
def answers(model_folder) -> Answers:
    model = load_model(model_folder)
    retriever = Retriever.of_texts(model, iter(DOCUMENTS.items()), lambda count: None)
    return Answers(model, retriever, [4, 2], "my <i>documents</i>", ["die Katze", HOSTILE])


@pytest.fixture(scope="module")
def server(answers):
    with Server(answers, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def ask(server):
    """Sends a request: (status, headers, body)."""

    def send(method: str, path: str, body: bytes | dict | None = None, **headers: str):
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
        if isinstance(body, dict):
            body, headers = json.dumps(body).encode(), {"Content-Type": "application/json", **headers}
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, answer.headers, content

    return send


def test_results_are_those_of_the_index_at_each_budget(ask, answers):
    about = json.loads(ask("GET", "/api/about")[2])
    assert [budget["terms"] for budget in about["budgets"]] == [2, 4, None] and about["documents"] == 5
    assert [budget["active"] for budget in about["budgets"][:2]] == [2, 4]
    bytes_ = [budget["bytes"] for budget in about["budgets"]]
    assert bytes_ == sorted(bytes_) and bytes_[0] > 0
    query = answers.model.encode_query(["the house"])
    for place, budget in enumerate(answers.budgets):
        found = json.loads(ask("POST", "/api/search", {"query": "the house", "budget": place, "k": 3})[2])
        wanted = budget.retriever.search(query[:, answers.columns], 3)[0]
        names = budget.retriever.ids
        assert [(hit["id"], hit["score"]) for hit in found["hits"]] == [(names[row], score) for row, score in wanted]
        for hit in found["hits"]:
            assert sum(word["part"] for word in hit["words"]) == pytest.approx(hit["score"], rel=1e-5)
            assert hit["text"] == DOCUMENTS[hit["id"]]
            assert len(hit["pivot"]) + len(hit["source"]) <= (budget.terms or 1000)
    assert found["budgets"][2]["kept"] == found["budgets"][2]["of"] == 3 >= found["budgets"][0]["kept"]
    views = {f"e_{word}": weight for word, weight in found["query"]["pivot"]}
    views |= {f"m_{word}": weight for word, weight in found["query"]["source"]}
    assert views == pytest.approx(answers.model.decode(query)[0], rel=1e-3)


def test_texts_side_by_side(ask):
    found = json.loads(ask("POST", "/api/inspect", {"texts": ["the cat", "the cat", "ночь"]})[2])["texts"]
    assert found[0]["pivot"] == found[1]["pivot"] and found[0]["pivot"]
    assert found[1]["like"] == pytest.approx(1) and 0 <= found[2]["like"] < 1


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/search", {"query": 5, "budget": 0}, 400),
        ("/api/search", {"query": "x"}, 400),
        ("/api/search", {"query": "x", "budget": 3}, 400),
        ("/api/search", {"query": "x", "budget": True}, 400),
        ("/api/search", {"query": "x", "budget": 0, "k": 10**9}, 400),
        ("/api/search", {"query": "x" * 20_001, "budget": 0}, 400),
        ("/api/search", {"query": "\ud800 half a pair", "budget": 0}, 200),
        ("/api/search", {"query": "", "budget": 0}, 200),
        ("/api/inspect", {"texts": []}, 400),
        ("/api/inspect", {"texts": ["x"] * 13}, 400),
        ("/api/inspect", {"texts": [None]}, 400),
        ("/api/other", {}, 404),
    ],
)
def test_odd_questions_get_an_answer(ask, path, body, status):
    found, _, content = ask("POST", path, body)
    assert found == status and (status == 200 or json.loads(content)["error"])


def test_odd_bodies_get_an_answer(ask):
    as_json = {"Content-Type": "application/json"}
    assert ask("POST", "/api/search", b"no JSON", **as_json)[0] == 400
    assert ask("POST", "/api/search", b"[1]", **as_json)[0] == 400
    assert ask("POST", "/api/search", b"\xff", **as_json)[0] == 400
    assert ask("POST", "/api/search", b"[" * 100_000, **as_json)[0] == 400
    assert ask("POST", "/api/search", None, **{"Content-Length": str(1 << 30)}, **as_json)[0] == 413
    assert ask("POST", "/api/search", None, **{"Content-Length": "-5"}, **as_json)[0] == 413


def test_other_sites_and_other_names_are_kept_out(ask, server):
    body = b'{"query": "x", "budget": 0}'
    assert ask("POST", "/api/search", body, **{"Content-Type": "text/plain"})[0] == 415  # all that a form can send
    for path in ("/", "/api/about"):
        assert ask("GET", path, Host="evil.example")[0] == 403
        assert ask("GET", path, Host=f"evil.example:{server.server_port}")[0] == 403
        assert ask("GET", path, Host=f"localhost:{server.server_port}")[0] == 200
    assert ask("POST", "/api/search", {"query": "x", "budget": 0}, Host="evil.example")[0] == 403
    for path in ("/serve.py", "/../serve.py", "/%2e%2e/errors.py", "/etc/passwd"):
        assert ask("GET", path)[0] == 404


def test_the_page_may_run_nothing_but_its_own_script(ask):
    status, headers, content = ask("GET", "/?q=house")
    policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
    assert status == 200 and policy["default-src"] == "'none'" and policy["connect-src"] == "'self'"
    assert policy["script-src"].startswith("'sha256-") and "unsafe" not in str(policy) and "*" not in str(policy)
    assert headers["X-Content-Type-Options"] == "nosniff" and "Access-Control-Allow-Origin" not in headers
    text = content.decode()
    assert "http" not in text.replace("httpEquiv", "") and "innerHTML" not in text and "src=" not in text


def test_two_servers_cannot_have_one_port(answers, server):
    with pytest.raises(MilcoError, match=r"cannot listen on 127\.0\.0\.1:\d+ .* choose another --port"):
        Server(answers, "127.0.0.1", server.server_port)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1"])
def test_a_host_that_is_not_this_machine_is_named(answers, host):
    with pytest.raises(MilcoError, match=rf"cannot listen on {host}:8000 .* choose another --host"):
        Server(answers, host, 8000)


def test_no_thread_outlives_the_server_though_a_browser_keeps_its_connection_open(answers):
    before = set(threading.enumerate())
    with Server(answers, "127.0.0.1", 0) as server:
        loop = threading.Thread(target=server.serve_forever)
        loop.start()
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
        connection.request("GET", "/api/about")
        assert connection.getresponse().read()
        assert len(set(threading.enumerate()) - before) == 2
        server.shutdown()
        loop.join()
    assert not set(threading.enumerate()) - before  # those of other tests may end meanwhile
    connection.close()


def test_the_command_serves_a_collection_until_it_is_interrupted(tmp_path, model_folder):
    rows = [json.dumps({"_id": name, "text": text}) for name, text in DOCUMENTS.items()]
    write_lines(tmp_path / "corpus.jsonl", rows)
    write_lines(tmp_path / "queries.jsonl", ['{"_id": "q", "text": "die Katze"}'])
    write_lines(tmp_path / "qrels" / "test.tsv", ["q\td1\t1"])
    words = ["serve", str(tmp_path), "--model", str(model_folder), "--port", "0", "--no-open", "--budget", "3"]
    with subprocess.Popen(
        [sys.executable, "-m", "milco", *words], stdout=subprocess.PIPE, text=True,
        # A program started by a test in the background would ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:  # fmt: skip
        url = process.stdout.readline().split()[0]
        port = int(url.rsplit(":", 1)[1].strip("/"))
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/api/about")
        about = json.loads(connection.getresponse().read())
        connection.close()
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(60) == 0
    assert url.startswith("http://127.0.0.1:") and about["collection"] == tmp_path.name
    assert about["examples"] == ["die Katze"] and [budget["terms"] for budget in about["budgets"]] == [3, None]


@pytest.fixture(scope="module")
def chromium():
    browser = Browser()
    yield browser
    browser.close()


@pytest.fixture
def browser(chromium):
    chromium.said.clear()
    return chromium


@pytest.mark.browser
def test_a_search_by_keyboard_shows_words_bars_and_views(browser, server, answers):
    browser.open(server.url)
    browser.wait("document.activeElement.id === 'query' && document.querySelectorAll('#examples button').length === 2")
    browser.type("the house")
    browser.press("Enter")
    browser.wait("document.querySelectorAll('#hits > li').length > 0")
    ranking = answers.budgets[-1].retriever.search(answers.model.encode_query(["the house"])[:, answers.columns], 10)[0]
    shown = browser.run("[...document.querySelectorAll('#hits .text')].map(x => x.textContent)")
    assert shown == [list(DOCUMENTS.values())[row] for row, _ in ranking]
    bars = browser.run("[...document.querySelectorAll('#hits > li:first-child > .words .bar')].map(x => x.clientWidth)")
    assert len(bars) > 1 and bars == sorted(bars, reverse=True) and bars[0] > 100
    assert browser.run("document.querySelectorAll('#query-views .view .word').length") > 2
    assert "all of them" in browser.run("document.querySelector('#facts').textContent")
    assert browser.run("document.querySelector('#hits details .views').checkVisibility()") is False
    browser.run("document.querySelector('#hits summary').focus()")
    browser.press("Enter")
    browser.wait("document.querySelector('#hits details .views').checkVisibility()")
    assert browser.said == []


@pytest.mark.browser
def test_the_slider_chooses_an_index(browser, server):
    browser.open(f"{server.url}?q=the+house")
    browser.wait("document.querySelectorAll('#hits > li').length > 0")
    whole = browser.run("document.querySelector('#facts').textContent")
    assert "all of them" in whole and " ms" in whole
    browser.run("document.querySelector('#budget').focus()")
    browser.press("ArrowLeft")
    browser.press("ArrowLeft")
    browser.wait("document.querySelector('#facts').textContent.includes('at most 2')")
    browser.wait(
        "[...document.querySelectorAll('#hits > li')].every(x => x.querySelectorAll(':scope > .words li').length <= 2)"
    )
    assert "at most 2" in browser.run("document.querySelector('#budget').getAttribute('aria-valuetext')")
    assert browser.said == []


@pytest.mark.browser
def test_nothing_that_comes_from_outside_is_html(browser, server):
    browser.open(f"{server.url}?q={quote(HOSTILE)}")
    browser.wait("document.querySelectorAll('#hits > li').length > 0")
    browser.run("document.querySelectorAll('details').forEach(x => x.open = true)")
    assert browser.run("document.querySelectorAll('img, #hits b, header i, #hits script').length") == 0
    assert browser.run("document.querySelector('#query').value") == HOSTILE
    assert HOSTILE in browser.run("[...document.querySelectorAll('#hits .text')].map(x => x.textContent)")
    assert "<b>d3</b>" in browser.run("document.querySelector('#hits').textContent")
    assert "my <i>documents</i>" in browser.run("document.querySelector('#about').textContent")
    browser.run("location.hash = '#compare'")
    browser.wait("document.querySelectorAll('#texts .word').length > 0")
    browser.run(f"document.querySelector('#texts textarea').value = {json.dumps(HOSTILE)}")
    browser.run("document.querySelector('#look').click()")
    browser.wait("document.querySelector('#texts .view h3').textContent.includes('words')")
    assert browser.run("document.title") == "milco" and browser.run("document.querySelectorAll('img').length") == 0
    assert browser.said == []
    # Even if the page did put it in as HTML, the browser would not run it.
    browser.run(
        f"document.body.insertAdjacentHTML('beforeend', {json.dumps(HOSTILE)}); new Promise(r => setTimeout(r, 500))"
    )
    assert browser.run("document.title") == "milco" and any("Content Security Policy" in line for line in browser.said)


@pytest.mark.browser
def test_texts_side_by_side_share_words_and_have_their_direction(browser, server):
    browser.open(f"{server.url}#compare")
    browser.wait("document.querySelectorAll('#texts > li').length === 6")
    browser.run("[...document.querySelectorAll('#texts .line button')].slice(2).forEach(x => x.click())")
    browser.run("document.querySelector('#texts textarea').focus()")
    for text in ("the cat", HEBREW):
        browser.run("document.activeElement.select()")
        browser.type(text)
        browser.press("Enter")
        browser.run("document.querySelectorAll('#texts textarea')[1].focus()")
    browser.wait("document.querySelectorAll('#texts > li')[1].querySelector('.like').textContent.includes('similar')")
    browser.wait("document.querySelectorAll('#texts .shared').length > 1")
    directions = browser.run(
        "[...document.querySelectorAll('#texts textarea')].map(x => getComputedStyle(x).direction)"
    )
    assert directions == ["ltr", "rtl"] and browser.said == []


@pytest.mark.browser
def test_everything_that_can_be_used_has_a_name(browser, server):
    browser.open(f"{server.url}?q=house#search")
    browser.wait("document.querySelectorAll('#hits > li').length > 0")
    browser.send("Accessibility.enable")
    nodes = browser.send("Accessibility.getFullAXTree")["nodes"]
    usable = [node for node in nodes if node["role"]["value"] in ("button", "searchbox", "slider", "link", "textbox")]
    assert len(usable) > 4 and all(node["name"]["value"] for node in usable)


@pytest.mark.browser
def test_the_page_fits_a_phone(browser, server):
    browser.send("Emulation.setDeviceMetricsOverride", width=360, height=700, deviceScaleFactor=1, mobile=True)
    try:
        for page in ("?q=house", "#compare"):
            browser.open(f"{server.url}{page}")
            browser.wait("document.querySelectorAll('#hits > li, #texts .word').length > 0")
            assert browser.run("document.documentElement.scrollWidth") <= 360
    finally:
        browser.send("Emulation.clearDeviceMetricsOverride")
