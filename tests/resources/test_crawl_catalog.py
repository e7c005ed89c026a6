from pathlib import Path

import pytest

from resources.crawl_catalog import CrawlCatalog
from resources.mirror import UnreadableAddressError


@pytest.fixture(params=["directory", "address"])
def catalog(tmp_path: Path, request: pytest.FixtureRequest) -> CrawlCatalog:
    for name in ("b", "a"):
        (tmp_path / "crawls" / name).mkdir(parents=True)
        (tmp_path / "crawls" / name / "0.tar").write_bytes(b"pairs")
    crawls = tmp_path / "crawls"
    return CrawlCatalog(directory=str(crawls) if request.param == "directory" else crawls.as_uri())


def test_crawls_are_listed_by_name_and_files_beside_them_are_none(catalog, tmp_path):
    (tmp_path / "crawls/file").touch()
    assert catalog.crawls() == ("a", "b")


def test_what_is_hidden_is_no_crawl_and_no_mark(catalog, tmp_path):
    (tmp_path / "crawls/.crawl-3").mkdir()
    (tmp_path / "crawls/.crawl-3/0.tar").write_bytes(b"pairs")
    (tmp_path / "crawls/.crawl-4.withdrawn").touch()
    assert (catalog.crawls(), catalog.withdrawn()) == (("a", "b"), {})


def test_links_of_a_directory_are_not_followed_and_the_message_says_so(tmp_path):
    (tmp_path / "link").symlink_to("/")
    (tmp_path / ".hidden").symlink_to("/")
    catalog = CrawlCatalog(directory=str(tmp_path))
    assert (catalog.crawls(), catalog.links()) == ((), ("link",))
    with pytest.raises(FileNotFoundError, match="link is a link, and links are not followed: put the folder itself"):
        catalog.folder("link")


def test_an_unknown_crawl_is_named_beside_those_that_are_there(catalog):
    with pytest.raises(FileNotFoundError, match="no folder named 'crawl-9'.*there are: a, b"):
        catalog.check_there("crawl-9")


def test_a_missing_directory_is_named_with_the_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist: create it, or point CLIPCOV_CRAWLS"):
        CrawlCatalog(directory=str(tmp_path / "nowhere")).crawls()


def test_an_address_that_cannot_be_read_is_named_without_its_secrets():
    catalog = CrawlCatalog(directory="gopher://key:hunter/2@crawls")
    with pytest.raises(UnreadableAddressError, match="gopher://crawls cannot be read.*check the address") as raised:
        catalog.crawls()
    assert "hunter" not in str(raised.value) + catalog.shown


def test_a_withdrawn_crawl_is_not_there_any_more_and_nothing_of_it_is_removed(catalog, tmp_path):
    catalog.withdraw("a", "licence\n revoked, says Zoë")
    assert catalog.crawls() == ("b",)
    assert catalog.withdrawn() == {"a": "licence revoked, says Zoë"}
    assert (tmp_path / "crawls/a/0.tar").read_bytes() == b"pairs"
    with pytest.raises(FileNotFoundError, match=r"a is withdrawn: licence.*; delete a\.withdrawn to take it back"):
        catalog.check_there("a")


def test_a_crawl_whose_mark_is_deleted_is_back(catalog, tmp_path):
    catalog.withdraw("a", "a mistake")
    (tmp_path / "crawls/a.withdrawn").unlink()
    assert (catalog.crawls(), catalog.withdrawn()) == (("a", "b"), {})


def test_a_mark_says_when_and_may_be_written_by_hand(catalog, tmp_path):
    catalog.withdraw("a", "duplicate")
    reason, day = (tmp_path / "crawls/a.withdrawn").read_text().splitlines()
    assert reason == "duplicate"
    assert day.endswith(" UTC")
    (tmp_path / "crawls/b.withdrawn").touch()
    assert catalog.withdrawn()["b"] == "no reason given"


@pytest.mark.parametrize(
    ("crawl", "reason", "message"), [("a", "  ", "say why"), ("../a", "x", "no name"), ("", "x", "no name")]
)
def test_a_withdrawal_without_a_reason_or_of_no_crawl_is_refused(catalog, crawl, reason, message):
    with pytest.raises(ValueError, match=message):
        catalog.withdraw(crawl, reason)
    assert catalog.withdrawn() == {}
