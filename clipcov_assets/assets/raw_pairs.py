"""A delivery becomes a table of pairs, and a table of what was set aside."""

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import dagster as dg
import pyarrow as pa

from clipcov_assets.assets.groups import CRAWLS
from clipcov_assets.assets.road_asset import road_asset
from clipcov_assets.automation import on_arrival
from clipcov_assets.export.gallery import gallery_markdown
from clipcov_assets.ingest.delivery import Delivery, Shard, delivery_fingerprint
from clipcov_assets.jobs.fetch import fetched
from clipcov_assets.jobs.ingest import Census, StagedShard, stage_delivery
from clipcov_assets.partitions import check_crawl_name, crawls
from clipcov_assets.progress import Progress
from clipcov_assets.provenance import materialized
from clipcov_assets.tables import (
    EMBEDDINGS,
    QUARANTINE,
    RAW_PAIRS,
    RAW_PAIRS_VERSION,
    column_schema,
    delivered_embeddings_schema,
)
from resources.compute import Compute
from resources.crawl_catalog import CrawlCatalog
from resources.lance_store import LanceStore, WrittenTable
from resources.pieces import Pieces
from resources.staging import Staging

DELIVERY_LOOK, DELIVERY_FINGERPRINT = "delivery_look", "delivery_fingerprint"
SHOWN_PAIRS, SHOWN_FAULTS, SHOWN_REMARKS = 8, 10, 20


@road_asset(
    partitions_def=crawls,
    group_name=CRAWLS,
    kinds={"lancedb", "arrow"},
    stage="ingest",
    code_version="2",
    automation_condition=on_arrival,
    metadata={"dagster/column_schema": column_schema(RAW_PAIRS)},
)
def raw_pairs(
    context: dg.AssetExecutionContext, catalog: CrawlCatalog, store: LanceStore, staging: Staging, compute: Compute
) -> dg.MaterializeResult:
    """The image-caption pairs of one crawl, as delivered.

    Reads the crawl's folder, or a copy of it where it lies in an object store, whatever format it has, and keeps every
    sound pair: uid, caption, image bytes and where it came from. Damaged pairs go to the quarantine table with their
    place and the reason, and every pair is accounted for: pairs in = stored + already known (the same pair again) +
    quarantined. A run that was broken off goes on with the files and shards that it had not finished. An incomplete
    delivery stops the run.
    """
    crawl = check_crawl_name(context.partition_key)
    copies = Path(staging.directory)
    with (
        staging.pieces("raw_pairs", crawl) as pieces,
        fetched(catalog, crawl, copies, report=context.log.info) as source,
    ):
        delivery = source.delivery
        delivered_bytes = sum(shard.size for shard in delivery.shards)
        context.log.info(f"{crawl}: {delivery.format}, {len(delivery.shards)} shards")
        shards = _stage(context, delivery, pieces, compute)
        names = (shard.name for shard in delivery.shards)
        fingerprint = delivery_fingerprint(zip(names, (one.fingerprint for one in shards), strict=True))
        census = Census(pieces, shards)
        quarantine = store.write("quarantine", crawl, pa.RecordBatchReader.from_batches(QUARANTINE, census.faults()))
        if census.stored == 0:
            raise dg.Failure(
                f"{crawl}: every one of its {census.promised} pairs was quarantined ({dict(census.reasons)}): "
                f"look at {quarantine.uri} and deliver the crawl again",
                allow_retries=False,
            )
        rows = pa.RecordBatchReader.from_batches(RAW_PAIRS, census.pairs(RAW_PAIRS.names))
        stored = store.write("raw_pairs", crawl, rows)
        if census.width:
            _store_embeddings(store, crawl, census, stored)
        previews = {
            "first_quarantined": _fault_preview(census),
            "first_pairs": _pair_preview(census),
            "first_remarks": _table([{"remark": remark} for remark in census.remarks[:SHOWN_REMARKS]], ["remark"]),
        }
    context.log.info(
        f"{crawl}: {census.stored} pairs stored, {census.known} known already, {quarantine.row_count} quarantined"
    )
    return materialized(
        stored,
        census.version(),
        inputs=(),
        metadata={
            "pairs_in": census.promised,
            "pairs_stored": census.stored,
            "pairs_already_known": census.known,
            "pairs_quarantined": quarantine.row_count,
            **{f"quarantined/{reason}": count for reason, count in sorted(census.reasons.items())},
            "format": delivery.format,
            "shards": len(delivery.shards),
            "remarks": len(census.remarks),
            "delivered_bytes": delivered_bytes,
            "delivered_embeddings": census.width,
            DELIVERY_LOOK: source.look,
            DELIVERY_FINGERPRINT: fingerprint,
            "delivery": dg.MetadataValue.path(source.place),
            "quarantine_table": quarantine.uri,
            **previews,
        },
    )


def _stage(
    context: dg.AssetExecutionContext, delivery: Delivery, pieces: Pieces, compute: Compute
) -> list[StagedShard]:
    progress = Progress(sum(shard.size for shard in delivery.shards), "pairs", context.log.info)

    def on_shard(shard: Shard, staged: StagedShard) -> None:
        progress.add(staged.promised, of_total=shard.size)

    shards = stage_delivery(delivery, pieces, workers=compute.resolved_workers(), on_shard=on_shard)
    found = sum(shard.found for shard in shards)
    if found:
        context.log.info(f"{found} of {len(shards)} shards had been read by a run that was broken off")
    return shards


def _store_embeddings(store: LanceStore, crawl: str, census: Census, pairs: WrittenTable) -> None:
    """Keep the embeddings that came with the pairs; they belong to this version of the pairs and to no other."""
    batches = census.pairs(["uid", *EMBEDDINGS])
    rows = pa.RecordBatchReader.from_batches(delivered_embeddings_schema(census.width), batches)
    store.write("delivered_embeddings", crawl, rows, metadata={RAW_PAIRS_VERSION: str(pairs.version)})


def _pair_preview(census: Census) -> dg.MarkdownMetadataValue:
    pairs = (pair for batch in census.pairs(["image", "caption"]) for pair in batch.to_pylist())
    return dg.MetadataValue.md(gallery_markdown((one["image"], one["caption"]) for one in islice(pairs, SHOWN_PAIRS)))


def _fault_preview(census: Census) -> dg.TableMetadataValue:
    faults = (fault for batch in census.faults() for fault in batch.to_pylist())
    return _table(list(islice(faults, SHOWN_FAULTS)), ["file", "key", "row", "reason", "detail"])


def _table(rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> dg.TableMetadataValue:
    """Rows as Dagster shows them: as text, which no name of a delivery gets out of."""
    records = [
        dg.TableRecord({column: "" if row[column] is None else str(row[column]) for column in columns}) for row in rows
    ]
    return dg.MetadataValue.table(records, dg.TableSchema.from_name_type_dict(dict.fromkeys(columns, "string")))
