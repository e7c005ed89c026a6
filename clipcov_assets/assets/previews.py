"""A handful of pairs as people see them, beside the numbers of an asset."""

from collections.abc import Iterable, Mapping

import dagster as dg
import pyarrow as pa

from clipcov_assets.export.gallery import gallery_markdown
from clipcov_assets.pool_tables import pooled_crawls
from resources.lance_store import LanceStore

SHOWN_PAIRS = 8  # Dagster keeps metadata in its event log


def preview(pairs: Iterable[tuple[bytes | None, str]], notes: Iterable[str]) -> dg.MarkdownMetadataValue:
    """Thumbnails and captions, each caption behind a note.

    Args:
        pairs: Encoded image, None where there is none, and caption.
        notes: What to say of each, such as its score.
    """
    noted = [(image, f"{note}: {caption}") for (image, caption), note in zip(pairs, notes, strict=True)]
    return dg.MetadataValue.md(gallery_markdown(noted))


def preview_of_crawl(store: LanceStore, crawl: str, notes: Mapping[str, str]) -> dg.MarkdownMetadataValue:
    """Some pairs of one crawl, in the order of the notes (uid -> note); one that it no longer holds is passed over."""
    return _in_order(store.find("raw_pairs", crawl, "uid", notes, ["uid", "caption", "image"]), notes)


def preview_of_pool(store: LanceStore, crawl: str, notes: Mapping[str, str]) -> dg.MarkdownMetadataValue:
    """Some pairs of the pool as of a crawl, in the order of the notes (uid -> note), as the pool recorded them."""
    owner = store.find("pool", crawl, "uid", notes, ["uid", "crawl"]).to_pylist()
    found = []
    for one in pooled_crawls(store, crawl):
        uids = [row["uid"] for row in owner if row["crawl"] == one.crawl]
        if uids:
            columns, version = ["uid", "caption", "image"], one.versions["raw_pairs"]
            found.append(store.find("raw_pairs", one.crawl, "uid", uids, columns, version=version))
    return _in_order(pa.concat_tables(found), notes)


def _in_order(rows: pa.Table, notes: Mapping[str, str]) -> dg.MarkdownMetadataValue:
    pairs = {row["uid"]: (row["image"], row["caption"]) for row in rows.to_pylist()}
    shown = [uid for uid in notes if uid in pairs]
    return preview((pairs[uid] for uid in shown), (notes[uid] for uid in shown))
