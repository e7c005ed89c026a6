"""A delivery becomes a table of pairs, and a table of what was set aside."""

from collections import Counter
from collections.abc import Iterator

import dagster as dg
import pyarrow as pa

from clipcov_assets.assets.groups import CRAWLS, OWNERS
from clipcov_assets.automation import on_arrival
from clipcov_assets.export.gallery import gallery_markdown
from clipcov_assets.ingest.delivery import Fault, Pair, ShardContents
from clipcov_assets.ingest.img2dataset import read_delivery
from clipcov_assets.partitions import check_crawl_name, crawls
from clipcov_assets.provenance import content_version, materialized
from clipcov_assets.tables import QUARANTINE, RAW_PAIRS, column_schema
from resources.crawl_catalog import CrawlCatalog
from resources.lance_store import LanceStore

SHOWN_PAIRS = 8


@dg.asset(
    partitions_def=crawls,
    group_name=CRAWLS,
    owners=OWNERS,
    kinds={"lancedb", "arrow"},
    tags={"clipcov/stage": "ingest"},
    code_version="1",
    automation_condition=on_arrival,
    metadata={"dagster/column_schema": column_schema(RAW_PAIRS)},
)
def raw_pairs(context: dg.AssetExecutionContext, catalog: CrawlCatalog, store: LanceStore) -> dg.MaterializeResult:
    """The image-caption pairs of one crawl, as delivered.

    Reads the crawl's folder (img2dataset's output) and keeps every sound pair: uid, caption, image bytes and
    where it came from. Damaged pairs go to the quarantine table with the reason; pairs in = stored + quarantined,
    and a check holds it to that. A shard without `_stats.json` is not complete and stops the run.
    """
    crawl = check_crawl_name(context.partition_key)
    tally = _Tally()
    rows = pa.RecordBatchReader.from_batches(RAW_PAIRS, tally.batches(read_delivery(catalog.folder(crawl))))
    stored = store.write("raw_pairs", crawl, rows)
    quarantine = store.write("quarantine", crawl, _fault_table(tally.faults))
    reasons = Counter(fault.reason.value for fault in tally.faults)
    if stored.row_count == 0:
        raise dg.Failure(
            f"{crawl}: every one of its {tally.expected} pairs was quarantined ({dict(reasons)}): "
            f"look at {quarantine.uri} and deliver the crawl again",
            allow_retries=False,
        )
    context.log.info(f"{crawl}: {stored.row_count} pairs stored, {quarantine.row_count} quarantined")
    return materialized(
        stored,
        content_version(*tally.digests),
        inputs=(),
        metadata={
            "pairs_in": tally.expected,
            "pairs_stored": stored.row_count,
            "pairs_quarantined": quarantine.row_count,
            **{f"quarantined/{reason}": count for reason, count in sorted(reasons.items())},
            "shards": tally.shards,
            "delivery": dg.MetadataValue.path(str(catalog.folder(crawl))),
            "quarantine_table": quarantine.uri,
            "first_quarantined": _fault_preview(tally.faults),
            "first_pairs": dg.MetadataValue.md(gallery_markdown(tally.shown)),
        },
    )


class _Tally:
    """Counts what passes while the pairs stream into the store."""

    def __init__(self) -> None:
        self.expected = 0
        self.shards = 0
        self.faults: list[Fault] = []
        self.digests: list[str] = []
        self.shown: list[tuple[bytes, str]] = []

    def batches(self, shards: Iterator[ShardContents]) -> Iterator[pa.RecordBatch]:
        for shard in shards:
            self.expected += shard.expected
            self.shards += 1
            self.faults.extend(shard.faults)
            self.digests += [content_version(pair.uid, pair.caption, pair.image) for pair in shard.pairs]
            self.shown += [(pair.image, pair.caption) for pair in shard.pairs[: SHOWN_PAIRS - len(self.shown)]]
            yield _pair_batch(shard.pairs)


def _pair_batch(pairs: tuple[Pair, ...] | list[Pair]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(
        {
            "uid": [pair.uid for pair in pairs],
            "caption": [pair.caption for pair in pairs],
            "image": [pair.image for pair in pairs],
            "source": [pair.source for pair in pairs],
            "bytes": [len(pair.image) for pair in pairs],
        },
        schema=RAW_PAIRS,
    )


def _fault_table(faults: list[Fault]) -> pa.Table:
    rows = [
        {"source": fault.source, "uid": fault.uid, "reason": fault.reason.value, "detail": fault.detail}
        for fault in faults
    ]
    return pa.Table.from_pylist(rows, schema=QUARANTINE)


def _fault_preview(faults: list[Fault], limit: int = 10) -> dg.TableMetadataValue:
    records = [
        dg.TableRecord({"source": fault.source, "reason": fault.reason.value, "detail": fault.detail[:200]})
        for fault in faults[:limit]
    ]
    return dg.MetadataValue.table(
        records,
        schema=dg.TableSchema.from_name_type_dict({"source": "string", "reason": "string", "detail": "string"}),
    )
