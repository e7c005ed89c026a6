import http.client
import threading
from html.parser import HTMLParser
from urllib.parse import urljoin

import pytest

from clipcov_assets import pages
from clipcov_assets.core.set_algebra import Combination
from clipcov_assets.export.gallery_page import gallery_page
from clipcov_assets.galleries import gallery_name, gallery_of
from clipcov_assets.pages import Pages, server
from resources.crawl_catalog import CrawlCatalog
from resources.lance_store import LanceStore
from resources.report_shelf import ReportShelf
from tests.ranked_pool import DAMAGED, catalog_of, combine, known, ranked_pool, uid_of

POLICY = "default-src 'none'; img-src data: 'self'; style-src 'unsafe-inline'; form-action 'self'"
BOTH = Combination("clipcov", "&", "semdedup")
PARTITION = "crawl-2|f20"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A shelf, and beside it what nobody may read."""
    home = tmp_path_factory.mktemp("home")
    written = {
        "comparisons/crawl-1.html": b"<p>compared</p>",
        "curves.png": b"\x89PNG",
        "galleries/crawl-2/f20/clipcov_subset.html": b"<p>gallery</p>",
        "galleries/crawl-10/f20/clipcov_subset.html": b"<p>gallery</p>",
        "galleries/crawl-2/f20/a <b>.html": b"<p>odd</p>",
        ".secret": b"PRIVATE",
        ".hidden/page.html": b"PRIVATE",
    }
    for name, content in written.items():
        (home / "reports" / name).parent.mkdir(parents=True, exist_ok=True)
        (home / "reports" / name).write_bytes(content)
    (home / "secret.html").write_bytes(b"PRIVATE")
    (home / "reports/inside.html").symlink_to(home / "reports/comparisons/crawl-1.html")
    (home / "reports/outside.html").symlink_to(home / "secret.html")
    (home / "reports/elsewhere").symlink_to(home)
    (home / "reports/shown.html").symlink_to(home / "reports/.secret")
    (home / "reports/round.html").symlink_to(home / "reports/round.html")
    (home / "reports-of-others").mkdir()
    (home / "reports-of-others/page.html").write_bytes(b"PRIVATE")
    combine(ranked_pool(home, "clipcov", "semdedup"), BOTH, "crawl-2")
    with known(BOTH):
        yield home


def pages_of(home):
    store = LanceStore(uri=str(home / "lance"))
    return Pages(store, catalog_of(store), ReportShelf(directory=str(home / "reports")))


@pytest.fixture(scope="module")
def port(home):
    with server(pages_of(home), port=0) as opened:
        thread = threading.Thread(target=opened.serve_forever)
        thread.start()
        yield opened.server_port
        opened.shutdown()
        thread.join()


def ask(port, target, method="GET", host="127.0.0.1"):
    """Send one request as it is written; answers the status, the headers and the content."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.putrequest(method, target, skip_host=True)
    if host is not None:
        connection.putheader("Host", host)
    connection.endheaders()
    response = connection.getresponse()
    return response.status, dict(response.getheaders()), response.read()


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found += [value for name, value in attrs if name == "href"]


def links_of(content):
    parser = Links()
    parser.feed(content.decode())
    return parser.found


@pytest.mark.parametrize(
    ("target", "kind", "content"),
    [
        ("/comparisons/crawl-1.html", "text/html; charset=utf-8", b"<p>compared</p>"),
        ("/comparisons/crawl-1.html?x=1", "text/html; charset=utf-8", b"<p>compared</p>"),
        ("/curves.png", "image/png", b"\x89PNG"),
        ("/galleries/crawl-2/f20/clipcov_subset.html", "text/html; charset=utf-8", b"<p>gallery</p>"),
        ("/galleries/crawl-2/f20/a%20%3Cb%3E.html", "text/html; charset=utf-8", b"<p>odd</p>"),
        ("/inside.html", "text/html; charset=utf-8", b"<p>compared</p>"),
    ],
)
def test_a_file_of_the_shelf_is_served(port, target, kind, content):
    status, headers, found = ask(port, target)
    assert (status, headers["Content-Type"], found) == (200, kind, content)
    assert headers["Content-Length"] == str(len(content))


@pytest.mark.parametrize(
    "target",
    [
        "/../secret.html",
        "/%2e%2e/secret.html",
        "/..%2fsecret.html",
        "/%2e%2e%2fsecret.html",
        "/%252e%252e/secret.html",
        "/galleries/../../secret.html",
        "/galleries/%2e%2e/%2e%2e/secret.html",
        "/..\\secret.html",
        "/..%5csecret.html",
        "//secret.html",
        "/%2fetc/passwd",
        "//etc/passwd",
        "/elsewhere/secret.html",
        "/outside.html",
        "/shown.html",
        "/round.html",
        "/.secret",
        "/%2esecret",
        "/.hidden/page.html",
        "/galleries/../.secret",
        "/../reports-of-others/page.html",
        "/comparisons/crawl-1.html%00.png",
        "/comparisons/crawl-1.html/",
        "/galleries",
        "/galleries/",
        f"/{'a' * 5_000}.html",
        "/nothing.html",
        "http://elsewhere/comparisons/crawl-1.html",
        "*",
    ],
)
def test_nothing_outside_the_shelf_and_nothing_hidden_is_served(port, target):
    status, headers, found = ask(port, target)
    assert status == 404 and b"PRIVATE" not in found
    assert headers["Content-Security-Policy"] == POLICY


def test_head_is_answered_without_content(port):
    for target in ("/", "/comparisons/crawl-1.html", "/nothing.html"):
        whole, head = ask(port, target), ask(port, target, "HEAD")
        assert head[0] == whole[0] and head[2] == b""
        assert head[1]["Content-Length"] == str(len(whole[2]))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_nothing_but_get_and_head_is_answered(port, method):
    status, headers, _ = ask(port, "/comparisons/crawl-1.html", method)
    assert status == 501 and headers["Content-Security-Policy"] == POLICY


@pytest.mark.parametrize(
    "target", ["/", "/comparisons/crawl-1.html", f"/pair?uid={uid_of(1)}", "/pair?uid=nobody", "/nothing"]
)
def test_every_answer_forbids_scripts_and_guessing_of_types(port, target):
    headers = ask(port, target)[1]
    assert headers["Content-Security-Policy"] == POLICY
    assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST", "[::1]"])
def test_its_own_loopback_names_are_answered_on_any_port(port, host):
    assert ask(port, "/comparisons/crawl-1.html", host=host)[0] == 200
    assert ask(port, "/comparisons/crawl-1.html", host=f"{host}:{port}")[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", f"evil.example:{3001}", "127.0.0.1.evil.example", "localhost.", "[", "", None, "a@b"]
)
def test_another_name_that_leads_here_is_refused(port, host):
    for target in ("/comparisons/crawl-1.html", f"/pair?uid={uid_of(1)}"):
        status, _, found = ask(port, target, host=host)
        assert status == 403 and b"compared" not in found


def test_on_another_address_every_name_is_answered(home):
    with server(pages_of(home), host="0.0.0.0", port=0) as opened:
        thread = threading.Thread(target=opened.serve_forever)
        thread.start()
        assert ask(opened.server_port, "/comparisons/crawl-1.html", host="clipcov.example")[0] == 200
        opened.shutdown()
        thread.join()


def test_the_index_links_to_everything_newest_crawl_first_and_every_link_works(port):
    status, _, found = ask(port, "/")
    links = links_of(found)
    assert status == 200 and links[0] == "http://127.0.0.1:3000"
    assert links[1:] == [
        "/comparisons/crawl-1.html",
        "/galleries/crawl-10/f20/clipcov_subset.html",
        "/galleries/crawl-2/f20/a%20%3Cb%3E.html",
        "/galleries/crawl-2/f20/clipcov_subset.html",
    ]
    assert all(ask(port, link)[0] == 200 for link in links[1:])
    assert b"<b>" not in found and b"PRIVATE" not in found


def test_the_index_asks_for_a_pair_by_what_can_be_asked(port):
    found = ask(port, "/")[2].decode()
    assert '<form action="/pair">' in found
    assert "<option>clipcov</option><option>semdedup</option><option>clipcov_and_semdedup</option></select>" in found
    assert "<option>crawl-2</option><option>crawl-1</option></select>" in found


def test_before_anything_is_made_the_index_says_what_to_make(tmp_path):
    found = pages_of(tmp_path).answer("/")
    assert found.status == 200
    for words in (b"No comparison yet", b"No gallery yet", b"materialize pool for one first"):
        assert words in found.content


def test_a_pair_is_explained_with_links_to_other_pairs_and_methods_that_work(port):
    status, _, found = ask(port, f"/pair?uid={uid_of(50)}&method=clipcov&crawl=crawl-2")
    assert status == 200 and b"number 50" in found and b"What its gain is made of" in found
    links = links_of(found)
    assert f"/pair?uid={uid_of(50)}&method=semdedup&crawl=crawl-2" in links
    assert len(links) > 4 and all(ask(port, link)[0] == 200 for link in links)


def test_every_pair_of_a_combinations_gallery_leads_to_the_reasons_of_both_methods(home, port):
    asset = f"{BOTH.name}_subset"
    gallery = gallery_page(gallery_of(LanceStore(uri=str(home / "lance")), asset, PARTITION)).encode()
    place = f"/{gallery_name(asset, PARTITION)}"
    links = {urljoin(place, link) for link in links_of(gallery) if not link.startswith("#")}
    assert links
    for status, _, found in (ask(port, link) for link in links):
        assert status == 200 and b"By clipcov" in found and b"By semdedup" in found


def test_crawls_that_were_withdrawn_are_not_offered(home, tmp_path):
    (tmp_path / "crawl-2.withdrawn").write_text("licence revoked")
    shelf, catalog = ReportShelf(directory=str(home / "reports")), CrawlCatalog(directory=str(tmp_path))
    answers = Pages(LanceStore(uri=str(home / "lance")), catalog, shelf)
    assert b'<select name="crawl"><option>crawl-1</option></select>' in answers.answer("/").content
    found = answers.answer(f"/pair?uid={uid_of(60)}")
    assert b"crawl-2 holds it, but was withdrawn: licence revoked." in found.content
    assert links_of(found.content) == ["/"]


def test_where_the_marks_of_withdrawn_crawls_cannot_be_read_the_page_says_so(home, tmp_path):
    shelf, catalog = ReportShelf(directory=str(home / "reports")), CrawlCatalog(directory=str(tmp_path / "nowhere"))
    answers = Pages(LanceStore(uri=str(home / "lance")), catalog, shelf)
    index, pair = answers.answer("/"), answers.answer(f"/pair?uid={uid_of(1)}")
    assert (index.status, pair.status) == (200, 500)
    assert all(b"nowhere does not exist: create it" in one.content for one in (index, pair))
    assert answers.answer(f"/pair?uid={uid_of(1)}&crawl=crawl-2").status == 200


def test_the_newest_pool_and_clipcov_are_asked_unless_others_are_named(port):
    assert b"clipcov, the pool of crawl-2, 70 pairs" in ask(port, f"/pair?uid=%20{uid_of(1)}%20&method=&crawl=")[2]
    assert b"image_corrupt" in ask(port, f"/pair?uid={uid_of(DAMAGED)}")[2]


def test_a_pair_of_a_later_crawl_is_one_link_away(port):
    status, _, found = ask(port, f"/pair?uid={uid_of(60)}&crawl=crawl-1")
    assert status == 200 and b"crawl-2 brought it, after this pool" in found
    assert links_of(found) == ["/", f"/pair?uid={uid_of(60)}&method=clipcov&crawl=crawl-2"]


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ("", 400, "no uid"),
        ("uid=%20", 400, "no uid"),
        ("uid=nobody", 404, "no crawl knows pair"),
        (f"uid={uid_of(1)}&method=charm", 400, "unknown selection method"),
        (f"uid={uid_of(1)}&crawl=../x", 400, "is not allowed"),
        (f"uid={uid_of(1)}&crawl=crawl-9", 404, "has no pool: choose one of crawl-1, crawl-2"),
        (f"uid={uid_of(1)}&crawl=crawl-1", 404, "materialize clipcov_ranking"),
        ("&".join(["uid=1"] * 20), 400, "Max number of fields"),
        ("uid=%3Cscript%3Ealert(1)%3C/script%3E", 404, "&lt;script&gt;"),
        ("uid=x'%20OR%20'1'%20=%20'1", 404, "no crawl knows pair"),
        ("uid=%ff%00", 404, "no crawl knows pair"),
    ],
)
def test_what_cannot_be_asked_is_a_page_that_says_why(port, query, status, words):
    found = ask(port, f"/pair?{query}")
    assert found[0] == status and words in found[2].decode()
    assert b"<script" not in found[2]


def test_many_at_once_are_answered(port):
    found = []
    threads = [
        threading.Thread(target=lambda pair=pair: found.append(ask(port, f"/pair?uid={uid_of(pair)}")[0]))
        for pair in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [200] * 12


def test_a_port_that_is_taken_is_named(port, capsys):
    assert pages.main(["--port", str(port)]) == 1
    assert f"error: cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err


def test_a_port_that_is_none_is_named(capsys):
    assert pages.main(["--port", "70000"]) == 1
    assert "error: cannot listen on 127.0.0.1:70000" in capsys.readouterr().err
