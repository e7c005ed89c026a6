import pytest

from clipcov_assets.core.set_algebra import Combination
from clipcov_assets.why import main
from tests.ranked_pool import DAMAGED, combine, known, ranked_pool, uid_of

EITHER = Combination("clipcov", "|", "random")


@pytest.fixture(scope="module")
def lance(tmp_path_factory):
    store = ranked_pool(tmp_path_factory.mktemp("home"), "clipcov", "random")
    combine(store, EITHER, "crawl-2")
    return store.uri


@pytest.fixture(autouse=True)
def here(lance, tmp_path, monkeypatch):
    monkeypatch.setenv("CLIPCOV_LANCE", lance)
    monkeypatch.setenv("CLIPCOV_CRAWLS", str(tmp_path))


def test_the_newest_pool_and_clipcov_are_asked_unless_another_is_named(capsys):
    assert main([uid_of(1)]) == 0
    found = capsys.readouterr().out
    assert found.startswith("picture of class 1, number 1\n")
    assert "by clipcov in the pool of crawl-2" in found and "What its gain is made of" in found
    assert main([uid_of(1), "--method", "random", "--crawl", "crawl-2"]) == 0
    assert "by random in the pool of crawl-2" in capsys.readouterr().out


def test_a_combination_is_asked_like_a_method(capsys):
    with known(EITHER):
        assert main([uid_of(1), "--method", "clipcov_or_random"]) == 0
    printed = capsys.readouterr().out
    assert "clipcov_or_random: Pairs that clipcov or random picks" in printed
    assert "by clipcov in the pool of crawl-2" in printed and "by random in the pool of crawl-2" in printed


def test_the_newest_pool_that_was_not_withdrawn_is_asked(tmp_path, capsys):
    (tmp_path / "crawl-2.withdrawn").write_text("licence revoked")
    assert main([uid_of(60)]) == 0
    assert capsys.readouterr().out == (
        f"Pair {uid_of(60)} is not in the pool of crawl-1.\ncrawl-2 holds it, but was withdrawn: licence revoked.\n"
    )


def test_a_page_is_written_where_it_is_asked_for(tmp_path, capsys):
    page = tmp_path / "why.html"
    assert main([uid_of(1), "--page", str(page)]) == 0
    assert page.read_text().startswith("<!doctype html>") and "number 1" in page.read_text()


def test_a_damaged_pair_is_explained_too(capsys):
    assert main([uid_of(DAMAGED)]) == 0
    assert "because of image_corrupt: truncated." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nobody"], "error: no crawl knows pair 'nobody'"),
        ([uid_of(1), "--method", "charm"], "error: unknown selection method 'charm'"),
        ([uid_of(1), "--crawl", "crawl-9"], "error: crawl 'crawl-9' has no pool"),
        ([uid_of(1), "--page", "/nowhere/why.html"], "error: "),
    ],
)
def test_what_cannot_be_asked_is_an_error(capsys, arguments, words):
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith(words) and not printed.out


def test_without_a_pool_the_error_says_what_to_make(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CLIPCOV_LANCE", str(tmp_path / "empty"))
    assert main(["anyone"]) == 1
    assert "materialize pool for one first" in capsys.readouterr().err
