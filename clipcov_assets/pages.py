"""`python -m clipcov_assets.pages`: the pages that Dagster links to, in a browser.

It serves the files of the report shelf, an index of them, and for any pair the page that says why it was chosen or not.
It reads and never writes; what it shows may run no script and load nothing from elsewhere.
"""

import argparse
import html
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

from clipcov_assets.definitions import resources
from clipcov_assets.explain import askable, explain, newest_pool, pools
from clipcov_assets.export.pair_page import Absence, page, pair_page
from clipcov_assets.export.report import report_name
from clipcov_assets.partitions import crawl_order
from resources.crawl_catalog import CrawlCatalog
from resources.lance_store import LanceStore
from resources.report_shelf import ReportShelf

HTML = "text/html; charset=utf-8"
KINDS = {".html": HTML, ".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp", ".csv": "text/csv"}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src data: 'self'; style-src 'unsafe-inline'; form-action 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
}
LOOPBACK = ("127.0.0.1", "localhost", "::1")
MOST_FIELDS = 8
METHOD = "clipcov"
BACK = {"All reports": "/"}


@dataclass(frozen=True)
class Answer:
    """What a browser gets."""

    content: bytes
    status: HTTPStatus = HTTPStatus.OK
    kind: str = HTML


class Pages:
    """The pages of a store, a catalog and a shelf; may be used from several threads."""

    def __init__(self, store: LanceStore, catalog: CrawlCatalog, shelf: ReportShelf) -> None:
        """Nothing is read yet."""
        self._store, self._catalog, self._shelf = store, catalog, shelf

    def answer(self, target: str) -> Answer:
        """Answer a request for a path, with or without a query."""
        path, _, query = target.partition("?")
        try:
            if path == "/":
                return self._index()
            return self._pair(query) if path == "/pair" else self._file(path)
        except KeyError as error:
            return _refusal(HTTPStatus.NOT_FOUND, str(error.args[0]))
        except (OSError, RuntimeError) as error:  # what Lance raises where a table cannot be read
            words = f"the tables, the report or the marks of withdrawn crawls cannot be read: {error}"
            return _refusal(HTTPStatus.INTERNAL_SERVER_ERROR, words)
        except ValueError as error:  # last: that an address cannot be read is one, too
            return _refusal(HTTPStatus.BAD_REQUEST, str(error))

    def _file(self, path: str) -> Answer:
        """A file of the shelf: nothing hidden, and nothing that lies elsewhere or is linked from elsewhere."""
        shelf, name = Path(self._shelf.directory).resolve(), unquote(path).removeprefix("/")
        missing = KeyError(f"no page {path!r}: choose one of those that are listed")
        if _is_hidden(name):
            raise missing
        try:
            file = (shelf / name).resolve(strict=True)
        except (OSError, RuntimeError):  # not there, or links that go round in circles
            raise missing from None
        if not file.is_relative_to(shelf) or _is_hidden(file.relative_to(shelf).as_posix()) or not file.is_file():
            raise missing
        return Answer(file.read_bytes(), kind=KINDS.get(file.suffix, "application/octet-stream"))

    def _pair(self, query: str) -> Answer:
        fields = {name: values[-1].strip() for name, values in parse_qs(query, max_num_fields=MOST_FIELDS).items()}
        if not fields.get("uid"):
            raise ValueError("no uid: write the pair's uid into the form of the first page")
        uid, method = fields["uid"], fields.get("method", METHOD)
        crawl = fields["crawl"] if "crawl" in fields else newest_pool(self._store, self._catalog)
        explanation = explain(self._store, self._catalog, uid, method=method, crawl=crawl)
        if isinstance(explanation, Absence):
            links = {f"the pool of {one}": _address(uid, method=method, crawl=one) for one in explanation.later}
        else:
            others = (one for one in askable(self._store, crawl) if one != method)
            links = {f"by {one}": _address(uid, method=one, crawl=crawl) for one in others}
        address = partial(_address, method=method, crawl=crawl)
        found = pair_page(explanation, links={**BACK, **links}, address=address)
        return Answer(found.encode())

    def _index(self) -> Answer:
        links = {"Dagster": self._shelf.dagster_ui}
        sections = f"{self._form()}{self._reports()}{self._galleries()}"
        return Answer(page("Reports", sections, links=links).encode())

    def _reports(self) -> str:
        """Links to the comparisons, newest crawl first."""
        there = [file.stem for file in Path(self._shelf.directory, report_name("x")).parent.glob("*.html")]
        links = [
            f'<li><a href="/{quote(report_name(crawl))}">{html.escape(crawl)}</a></li>'
            for crawl in sorted(there, key=crawl_order, reverse=True)
            if not _is_hidden(report_name(crawl))
        ]
        words = (
            f"<p>Zero-shot scores of every method and size:</p>\n<ul>{''.join(links)}</ul>"
            if links
            else "<p>No comparison yet: materialize <b>comparison</b> for a crawl.</p>"
        )
        return f"<section><h2>Comparisons</h2>\n{words}</section>\n"

    def _galleries(self) -> str:
        """Links to the galleries, newest crawl first."""
        root = Path(self._shelf.directory) / "galleries"
        found: dict[str, dict[str, list[str]]] = {}
        for file in sorted(root.glob("*/*/*.html")):
            crawl, fraction = file.parts[-3:-1]
            if not _is_hidden(file.relative_to(root).as_posix()):
                found.setdefault(crawl, {}).setdefault(fraction, []).append(file.stem)
        if not found:
            return "<section><h2>Galleries</h2>\n<p>No gallery yet: materialize a subset.</p></section>\n"
        newest_first = sorted(found.items(), key=lambda one: crawl_order(one[0]), reverse=True)
        return f"<section><h2>Galleries</h2>\n{''.join(_of_crawl(*one) for one in newest_first)}</section>\n"

    def _form(self) -> str:
        """Asks for a pair, a method and a crawl."""
        try:
            crawls = pools(self._store, self._catalog)[::-1]
        except (KeyError, OSError) as error:
            words = str(error.args[0] if isinstance(error, KeyError) else error)
            return f"<section><h2>Why this pair?</h2>\n<p>{html.escape(words)}</p></section>\n"
        methods = askable(self._store, crawls[0])
        return (
            '<section><h2>Why this pair?</h2>\n<form action="/pair">'
            '<label>uid of the pair<input name="uid" required autocomplete="off" spellcheck="false"></label>'
            f"<label>method{_choice('method', methods)}</label><label>pool as of{_choice('crawl', crawls)}</label>"
            "<button>Explain</button></form></section>\n"
        )


class _Handler(BaseHTTPRequestHandler):
    """One request: GET and HEAD alone."""

    server_version, sys_version = "clipcov-assets", ""
    timeout = 30

    def __init__(self, pages: Pages, names: Sequence[str] | None, *connection: Any) -> None:  # noqa: ANN401
        self._pages, self._names = pages, names
        super().__init__(*connection)  # which answers

    def do_GET(self) -> None:  # noqa: N802  (so http.server calls it)
        """Answer with the content."""
        answer = self._answer()
        self._head(answer)
        self.wfile.write(answer.content)

    def do_HEAD(self) -> None:  # noqa: N802
        """Answer without the content."""
        self._head(self._answer())

    def end_headers(self) -> None:
        """Every answer, also a refusal, says what its page may do."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Only what goes wrong is worth a line."""

    def _answer(self) -> Answer:
        if self._names is not None and _name(self.headers.get("Host", "")) not in self._names:
            return _refusal(HTTPStatus.FORBIDDEN, "another host name leads here: use 127.0.0.1 or localhost")
        return self._pages.answer(self.path)

    def _head(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()


def server(pages: Pages, host: str = LOOPBACK[0], port: int = 3001) -> ThreadingHTTPServer:
    """Open the port.

    On a loopback address only requests to a loopback name are answered: another site that has its name lead here
    (DNS rebinding) reads nothing.

    Raises:
        OSError: The address is not this machine's, or the port is taken.
    """
    names = LOOPBACK if host == "localhost" or _is_loopback(host) else None
    return ThreadingHTTPServer((host, port), partial(_Handler, pages, names))


def main(arguments: Sequence[str]) -> int:
    """Run the command until it is stopped; returns the exit status."""
    options = parser().parse_args(arguments)
    world = resources()
    try:
        pages = Pages(world["store"], world["catalog"], world["shelf"])
        with server(pages, options.host, options.port) as opened:
            print(f"reports on http://{options.host}:{opened.server_port}", flush=True)
            opened.serve_forever()
    except KeyboardInterrupt:
        return 0
    except (OSError, OverflowError) as error:
        print(f"error: cannot listen on {options.host}:{options.port}: {error}; choose another --port", file=sys.stderr)
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    """Return what the command line understands."""
    command = argparse.ArgumentParser(
        "python -m clipcov_assets.pages", description="Show reports, galleries and pairs."
    )
    command.add_argument(
        "--host", default=LOOPBACK[0], help="address to listen on; anyone who reaches another than the default may read"
    )
    command.add_argument("--port", type=int, default=3001, help="3001 by default, which Dagster's pages link to")
    return command


def _refusal(status: HTTPStatus, words: str) -> Answer:
    content = page(status.phrase, f"<section><p>{html.escape(words)}</p></section>\n", links=BACK)
    return Answer(content.encode(), status)


def _address(uid: str, *, method: str, crawl: str) -> str:
    return f"/pair?{urlencode({'uid': uid, 'method': method, 'crawl': crawl})}"


def _of_crawl(crawl: str, galleries: dict[str, list[str]]) -> str:
    rows = "".join(
        f"<dt>{html.escape(fraction)}</dt><dd>{', '.join(_gallery(crawl, fraction, asset) for asset in assets)}</dd>\n"
        for fraction, assets in galleries.items()
    )
    return f"<h3>{html.escape(crawl)}</h3>\n<dl>{rows}</dl>\n"


def _gallery(crawl: str, fraction: str, asset: str) -> str:
    address = quote(f"/galleries/{crawl}/{fraction}/{asset}.html")
    return f'<a href="{html.escape(address)}">{html.escape(asset)}</a>'


def _choice(name: str, values: Sequence[str]) -> str:
    return f'<select name="{name}">{"".join(f"<option>{html.escape(value)}</option>" for value in values)}</select>'


def _is_hidden(name: str) -> bool:
    """Whether a name leads to a hidden file, to a folder above, or is no name of a file."""
    parts = name.split("/")
    return any(not part or part.startswith(".") or not part.isprintable() or "\\" in part for part in parts)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _name(host: str) -> str | None:
    """The name of a Host header, without the port."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
