"""A local web page: search in any language with explained results, compare pruning budgets, and compare texts.

The page is serve.html alone, without any other resource. It asks for JSON:

    GET  /api/about     what is searched, and each budget with its index
    POST /api/search    {query, budget, k} → results with their words, both views of the query and of each result
    POST /api/inspect   {texts, query} → both views of each text

Other sites that are open in the same browser can't use it: a request needs a JSON body and a Host that can only be
this machine, and the Content-Security-Policy lets the page run nothing but its own script. The port of the Host is not
checked, so that the page can be seen through a tunnel (`ssh -L 9000:localhost:8000 …`).
"""

import base64
import errno
import hashlib
import html
import ipaddress
import json
import re
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import scipy.sparse

from milco.errors import MilcoError
from milco.evaluation.search import Ranking
from milco.tools.inspection import inspect, split_views
from milco.tools.retrieval import Retriever, quiet

if TYPE_CHECKING:
    from milco.modeling.model import MilcoModel

HTML = Path(__file__).with_name("serve.html")
LONGEST_BODY, LONGEST_TEXT, MOST_TEXTS, MOST_RESULTS = 1 << 20, 20_000, 12, 100
REPEATS = 5  # searches of which the median is shown


class BadRequest(Exception):
    """An invalid request; the message says why."""


@dataclass
class Budget:
    """An index of the documents with so many of their tokens; None: all of them."""

    terms: int | None
    retriever: Retriever
    bytes: int

    @classmethod
    def of(cls, retriever: Retriever, terms: int | None) -> "Budget":
        pruned = retriever if terms is None else retriever.pruned(terms)
        with quiet(), tempfile.TemporaryDirectory() as folder:
            return cls(terms, pruned, pruned.index.save(Path(folder) / "index"))

    def about(self) -> dict[str, Any]:
        active = self.retriever.rows.nnz / max(1, len(self.retriever.ids))
        return {"terms": self.terms, "active": active, "bytes": self.bytes}


class Answers:
    """What the page asks for.

    Args:
        model: encodes queries.
        retriever: all documents, unpruned.
        budgets: how many tokens a document keeps; each budget has an index, beside the unpruned one.
        name: of the collection.
        examples: queries to try.
    """

    def __init__(
        self,
        model: "MilcoModel",
        retriever: Retriever,
        budgets: list[int],
        name: str,
        examples: list[str] | None = None,
    ):
        self.model, self.name, self.examples = model, name, examples or []
        self.columns = retriever.of_model(model)
        self.budgets = [Budget.of(retriever, terms) for terms in [*sorted(set(budgets)), None]]
        self.lock = threading.Lock()  # a tokenizer that is cutting texts cannot be used by two threads

    def about(self) -> dict[str, Any]:
        return {
            "collection": self.name,
            "documents": len(self.budgets[-1].retriever.ids),
            "model": "/".join(Path(self.model.name_or_path).parts[-2:]),
            "budgets": [budget.about() for budget in self.budgets],
            "examples": self.examples,
        }

    def search(self, asked: dict[str, Any]) -> dict[str, Any]:
        text = _text(asked.get("query"))
        place = _whole(asked.get("budget"), 0, len(self.budgets) - 1, "budget")
        k = _whole(asked.get("k", 10), 1, MOST_RESULTS, "k")
        started = time.perf_counter()
        with self.lock:
            full = self.model.encode_query([text])
            named = self.model.decode(full)[0]
        encoded = time.perf_counter() - started
        query = scipy.sparse.csr_array(full[:, self.columns])
        searches: list[tuple[Ranking, float]] = []
        for budget in self.budgets:
            runs = [budget.retriever.index.search(query, k)[1] for _ in range(REPEATS)]
            searches.append((budget.retriever.search(query, k)[0], median(runs)))
        whole = {row for row, _ in searches[-1][0]}
        retriever, ranking = self.budgets[place].retriever, searches[place][0]
        return {
            "query": _views(named),
            "encode_ms": encoded * 1000,
            "budgets": [
                {"search_ms": spent, "kept": len(whole & {row for row, _ in found}), "of": len(whole)}
                for found, spent in searches
            ],
            "hits": [
                {
                    "id": hit.id,
                    "score": hit.score,
                    "text": hit.text,
                    "words": [{**word._asdict(), "part": word.part} for word in hit.words or []],
                    **_views(retriever.named(row)),
                }
                for hit, (row, _) in zip(retriever.hits(query, ranking, explain=True), ranking, strict=True)
            ],
        }

    def inspect(self, asked: dict[str, Any]) -> dict[str, Any]:
        texts = asked.get("texts")
        if not isinstance(texts, list) or not 1 <= len(texts) <= MOST_TEXTS:
            raise BadRequest(f"texts: expected 1 to {MOST_TEXTS} texts")
        with self.lock:
            found = inspect(self.model, [_text(text) for text in texts], bool(asked.get("query")))
        first = _weights(found[0])
        return {
            "texts": [
                {"pivot": list(one.pivot.items()), "source": list(one.source.items()), "like": _cosine(first, one)}
                for one in found
            ]
        }


def _weights(one) -> dict[str, float]:
    return {f"{view}{word}": weight for view in ("pivot", "source") for word, weight in getattr(one, view).items()}


def _cosine(first: dict[str, float], one) -> float:
    """Likeness to the first text, from 0 to 1; 0 for a text without words."""
    other = _weights(one)
    product = sum(weight * other.get(word, 0.0) for word, weight in first.items())
    norms = np.linalg.norm(list(first.values())) * np.linalg.norm(list(other.values()))
    return float(product / norms) if norms else 0.0


def _views(named: dict[str, float]) -> dict[str, list]:
    return {view: list(words.items()) for view, words in split_views(named).items()}


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > LONGEST_TEXT:
        raise BadRequest(f"expected a text of up to {LONGEST_TEXT} characters")
    return value.encode("utf-8", "replace").decode()  # half a surrogate pair is no text


def _whole(value: Any, least: int, most: int, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise BadRequest(f"{name}: expected a whole number from {least} to {most}")
    return value


def policy(html: bytes) -> str:
    """The Content-Security-Policy of the page: its own script and style, by their hash, and requests to itself."""

    def source(tag: bytes) -> str:
        (inner,) = re.findall(rb"<%b>(.*?)</%b>" % (tag, tag), html, re.DOTALL)
        return f"'sha256-{base64.b64encode(hashlib.sha256(inner).digest()).decode()}'"

    return (
        f"default-src 'none'; script-src {source(b'script')}; style-src {source(b'style')}; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def is_this_machine(host: str) -> bool:
    """Whether a Host header, with or without a port, names the loopback, which no other site can redirect."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or name.endswith(".localhost") or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class Handler(BaseHTTPRequestHandler):
    """Serves the page and its answers."""

    protocol_version = "HTTP/1.1"
    timeout = 60

    def __init__(self, answers: Answers, *arguments):
        self.answers = answers
        super().__init__(*arguments)

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if not self._from_here():
            self._refuse(as_page=path == "/")
        elif path == "/":
            page = HTML.read_bytes()
            self._send(HTTPStatus.OK, page, "text/html; charset=utf-8", policy(page))
        elif path == "/api/about":
            self._send(HTTPStatus.OK, self.answers.about())
        else:
            self._send(HTTPStatus.NOT_FOUND, {"error": "no such page"})

    def do_POST(self) -> None:
        answer = {"/api/search": self.answers.search, "/api/inspect": self.answers.inspect}.get(self.path)
        length = self.headers.get("Content-Length", "")
        # A body that is not read would be taken for the next request.
        self.close_connection = True
        if not self._from_here():
            self._refuse()
        elif answer is None:
            self._send(HTTPStatus.NOT_FOUND, {"error": "no such page"})
        elif self.headers.get_content_type() != "application/json":
            self._send(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, {"error": "expected application/json"})
        elif not (length.isascii() and length.isdigit() and int(length) <= LONGEST_BODY):
            self._send(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"error": f"expected up to {LONGEST_BODY} bytes"})
        else:
            self._answer(answer, self.rfile.read(int(length)))

    def _answer(self, answer: Callable[[dict[str, Any]], dict[str, Any]], body: bytes) -> None:
        try:
            asked = json.loads(body)
            if not isinstance(asked, dict):
                raise BadRequest("expected a JSON object")
            self._send(HTTPStatus.OK, answer(asked))
        except (ValueError, RecursionError):
            self._send(HTTPStatus.BAD_REQUEST, {"error": "not JSON"})
        except BadRequest as error:
            self._send(HTTPStatus.BAD_REQUEST, {"error": str(error)})

    def _from_here(self) -> bool:
        """Whether the browser was asked for this machine by its own name, not by one that a stranger pointed at it."""
        page: Server = self.server  # type: ignore[assignment]
        return not is_this_machine(page.authority) or is_this_machine(self.headers.get("Host", ""))

    def _refuse(self, as_page: bool = False) -> None:
        page: Server = self.server  # type: ignore[assignment]
        says = (
            f"This page is for the machine that it runs on, and was asked for as {self.headers.get('Host')}. Open "
            f"http://localhost:{page.server_port}/ there, or start milco serve with --host to let others in."
        )
        if as_page:
            text = f"<!doctype html><title>milco</title><p>{html.escape(says)}</p>".encode()
            self._send(HTTPStatus.FORBIDDEN, text, "text/html; charset=utf-8")
        else:
            self._send(HTTPStatus.FORBIDDEN, {"error": says})

    def _send(self, status: HTTPStatus, body: dict | bytes, kind: str = "application/json", csp: str = "") -> None:
        content = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Security-Policy", csp or "default-src 'none'")
        for name, value in (
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Cache-Control", "no-store"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: Any) -> None:
        """Log nothing: queries are private."""


class Server(ThreadingHTTPServer):
    """The server of one page; `serve_forever` runs it until it is shut down.

    Args:
        host, port: where it listens; port 0 takes any free one.

    Raises:
        MilcoError: it cannot listen there.
    """

    # A thread that outlives the interpreter and drops the last reference to the model ends the process with an abort.
    daemon_threads = False

    def __init__(self, answers: Answers, host: str, port: int):
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.authority = f"[{host}]" if ":" in host else host  # as a URL has it
        self.connections: set[socket.socket] = set()
        try:
            super().__init__((host, port), partial(Handler, answers))
        except OSError as error:
            wrong = "host" if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL else "port"
            raise MilcoError(
                f"cannot listen on {self.authority}:{port} ({error.strerror}); choose another --{wrong}"
            ) from error

    @property
    def url(self) -> str:
        return f"http://{self.authority}:{self.server_port}/"

    def handle_error(self, request, client_address) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # else somebody closed or reloaded the page
            super().handle_error(request, client_address)

    def process_request(self, request, client_address) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Finish started answers; do not wait for idle keep-alive connections."""
        for connection in list(self.connections):
            with suppress(OSError):  # it ended by itself meanwhile
                connection.shutdown(socket.SHUT_RD)
        super().server_close()
