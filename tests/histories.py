"""Materializations as Dagster would have recorded them, without runs, with small tables where they are wanted."""

from pathlib import Path

import dagster as dg
import pyarrow as pa

from clipcov_assets.assets.pool import CRAWL_TABLES
from clipcov_assets.pool_tables import PooledCrawl, pooled_crawls_metadata
from clipcov_assets.provenance import LANCE_VERSION, PROVENANCE, Input, provenance_table
from resources.lance_store import LanceStore

PROXY = "abcdefabcdefabcdef"
SCORECARD = ("clipcov_scorecard", "crawl-2|f20")


class Past:
    """What was materialized so far."""

    def __init__(self, home: Path, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self.store = LanceStore(uri=str(home / "lance"))

    def make(
        self,
        asset: str,
        partition: str | None,
        version: str,
        inputs: tuple[Input, ...] | list[Input] = (),
        *,
        rows: pa.Table | None = None,
        table: dict[str, str] | None = None,
        **facts: object,
    ) -> Input:
        """Record a materialization, and write its table if there are rows; returns it as an input of the next."""
        metadata: dict[str, object] = dict(facts)
        if rows is not None:
            metadata[LANCE_VERSION] = self.store.write(asset, partition or "", rows, table).version
        if inputs:
            metadata[PROVENANCE] = provenance_table(inputs)
        tags = {"dagster/data_version": version, "dagster/code_version": "1"}
        self.instance.report_runless_asset_event(
            dg.AssetMaterialization(asset, partition=partition, tags=tags, metadata=metadata)
        )
        normal = {name: dg.MetadataValue.int(value) for name, value in metadata.items() if name == LANCE_VERSION}
        return Input(asset, partition, version, "", normal)


def pairs(*uids: str) -> pa.Table:
    return pa.table({"uid": list(uids)}, schema=pa.schema({"uid": pa.string()}))


def crawl(past: Past, name: str, proxy: Input | None, *uids: str) -> list[Input]:
    """The tables of one crawl; without a proxy it is trained on this crawl first."""
    raw = past.make("raw_pairs", name, f"raw {name}", rows=pairs(*uids), pairs_stored=len(uids))
    if proxy is None:
        proxy = past.make("proxy_checkpoint", None, PROXY[:16], [raw], sha256=PROXY, source=f"trained on {name}")
    told = {"rows": pairs(*uids), "table": {"proxy_sha256": PROXY}}
    embedded = past.make("embeddings", name, f"embedded {name}", [raw, proxy], **told)
    return [raw, embedded, past.make("latent_classes", name, f"classes {name}", [embedded, proxy], **told)]


def pool(past: Past, version: str, *crawls: list[Input], rows: pa.Table | None = None) -> Input:
    """The pool as of the last of some crawls: Dagster keeps the inputs of that one, the pool's table those of all."""
    pooled = [
        PooledCrawl(
            crawl=str(tables[0].partition),
            pairs=0,
            new_pairs=0,
            versions={
                one.asset: int(one.lance_version) for one in tables if one.asset in CRAWL_TABLES and one.lance_version
            },
            data_versions={one.asset: one.data_version for one in tables},
        )
        for tables in crawls
    ]
    rows = pairs() if rows is None else rows
    told = {"table": pooled_crawls_metadata(pooled), "pairs": len(rows), "crawls": len(crawls)}
    return past.make("pool", pooled[-1].crawl, version, crawls[-1], rows=rows, **told)


def two_crawls(past: Past) -> None:
    """A road over two crawls to one scorecard: pairs a b c, then c d e of which c is known; the subset is b and d."""
    proxy = Input("proxy_checkpoint", None, PROXY[:16], "", {})
    crawls = crawl(past, "crawl-1", None, "a", "b", "c"), crawl(past, "crawl-2", proxy, "c", "d", "e")
    rows = pa.table({"uid": ["a", "b", "c", "d", "e"], "crawl": ["crawl-1"] * 3 + ["crawl-2"] * 2})
    pooled = pool(past, "pool", *crawls, rows=rows)
    shards = [
        past.make("clipcov_class_ranking", f"crawl-2|s0{shard}", f"shard {shard}", [pooled], rows=pairs())
        for shard in range(2)
    ]
    ranking = past.make("clipcov_ranking", "crawl-2", "ranking", shards, rows=pairs("b", "d"))
    subset = past.make("clipcov_subset", "crawl-2|f20", "subset", [ranking], rows=pairs("b", "d"), pairs=2)
    checkpoint = past.make("clipcov_checkpoint", "crawl-2|f20", "checkpoint", [subset], rows=pairs(), recipe_hash="r1")
    past.make(*SCORECARD, "scorecard", [checkpoint], rows=pairs())
