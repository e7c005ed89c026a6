"""Whether a delivery in a store is complete, told from its names."""

import pytest

from clipcov_assets.ingest.listing import listing_obstacle, why_listing_incomplete

PLACE = "s3://bucket/crawls/crawl-1"
SHARD = ("00000.tar", "00000.parquet", "00000_stats.json")


def test_a_delivery_whose_tars_all_have_statistics_needs_no_rest():
    assert why_listing_incomplete(PLACE, SHARD, rested=0) is None


@pytest.mark.parametrize("names", [["a.csv", "a.png"], ["0.tar", "delivery.toml"], ["data/0.parquet"], ["a/b.JPG"]])
def test_a_delivery_without_marks_must_rest(names):
    assert why_listing_incomplete(PLACE, names, rested=601) is None
    reason = why_listing_incomplete(PLACE, names, rested=12)
    assert reason == f"{PLACE} changed 12 s ago; it is taken after 600 s of rest"


def test_a_store_whose_clock_is_ahead_only_delays():
    assert "changed 0 s ago" in why_listing_incomplete(PLACE, ["a.csv"], rested=-30)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([*SHARD, "00001.tar"], "00001.tar is unfinished: no 00001_stats.json"),
        (["00000.tar"], 'write format = "webdataset" into s3://bucket/crawls/crawl-1/delivery.toml'),
        ([*SHARD, "00001.tar", "delivery.toml"], "00001.tar is unfinished"),
        ([*SHARD, "00001_stats.json"], "00001.tar is missing"),
        ([*SHARD, "_tmp/0.feather"], "holds _tmp"),
        ([*SHARD, "00001.tar.part"], "00001.tar.part looks like a copy in progress"),
        (["_temporary/0/a.parquet", "b.parquet"], "looks like a copy in progress"),
        (["deep/.a.parquet.Qh3xZ1", "b.parquet"], "looks like a copy in progress"),
        (["README.md"], "no delivery recognised"),
        (["deep/0.tar"], "no delivery recognised"),
        ([], "no delivery recognised"),
    ],
)
def test_what_cannot_be_complete_is_named_however_long_it_rests(names, message):
    assert message in (listing_obstacle(PLACE, names) or "")
    assert message in (why_listing_incomplete(PLACE, names, rested=1e9) or "")


def test_names_of_a_store_are_shown_on_one_line():
    assert "\n" not in listing_obstacle(PLACE, ["a\nb.tar"])
