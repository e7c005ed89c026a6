import pytest

from resources.crawl_catalog import CrawlCatalog


def test_folders_are_listed_by_name_and_links_are_not_followed(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "a").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("/")
    assert [folder.name for folder in CrawlCatalog(directory=str(tmp_path)).folders()] == ["a", "b"]


def test_an_unknown_crawl_is_named_beside_those_that_are_there(tmp_path):
    (tmp_path / "crawl-1").mkdir()
    with pytest.raises(FileNotFoundError, match="no folder named 'crawl-9'.*there are: crawl-1"):
        CrawlCatalog(directory=str(tmp_path)).folder("crawl-9")


def test_a_missing_directory_is_named_with_the_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist: create it, or point CLIPCOV_CRAWLS"):
        CrawlCatalog(directory=str(tmp_path / "nowhere")).folders()
