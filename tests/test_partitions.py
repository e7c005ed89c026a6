import pytest

from clipcov_assets.partitions import check_crawl_name, crawl_order, fraction_key


@pytest.mark.parametrize("name", ["crawl-1", "2026-11-21", "a", "cc3m_part.2", "x" * 64])
def test_ordinary_crawl_names_are_accepted(name):
    assert check_crawl_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Crawl",
        "-x",
        ".hidden",
        "a..b",
        "a/b",
        "a|b",
        "a,b",
        "a b",
        "a\tb",
        "a\n",
        "é",
        "x" * 65,
        "../etc",
    ],
)
def test_a_crawl_name_that_could_harm_is_refused_with_the_rule(name):
    with pytest.raises(ValueError, match="rename the folder") as refused:
        check_crawl_name(name)
    assert repr(name) in str(refused.value)


def test_crawls_are_ordered_with_numbers_as_numbers():
    names = ["crawl-10", "crawl-2", "crawl-1", "2026-02-01", "2025-12-31"]
    assert sorted(names, key=crawl_order) == ["2025-12-31", "2026-02-01", "crawl-1", "crawl-2", "crawl-10"]


def test_of_two_crawls_one_is_always_the_earlier():
    assert crawl_order("crawl-01") < crawl_order("crawl-1")


@pytest.mark.parametrize(
    ("fraction", "key"),
    [(0.05, "f05"), (0.1, "f10"), (0.5, "f50"), (1.0, "f100"), (0.025, "f02p5"), (0.29, "f29")],
)
def test_fraction_keys_are_zero_padded(fraction, key):
    assert fraction_key(fraction) == key
