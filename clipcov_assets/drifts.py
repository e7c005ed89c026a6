"""How far a pool is from the one before it, as the numbers and the table that Dagster shows beside the pool."""

import math
from collections.abc import Sequence
from typing import Any

import dagster as dg

from clipcov_assets.core.drift import ROUNDED, Drift, PoolSums
from clipcov_assets.pool_tables import (
    POOL_PRODUCTS,
    POOL_STATISTICS,
    PooledCrawl,
    class_names,
    load_cross_products,
    load_statistics,
    pooled_crawls,
)
from clipcov_assets.provenance import legible
from clipcov_assets.tables import PROXY_SHA256
from resources.lance_store import LanceStore

POOL, NEW = "drift", "new_crawl"
MEASURES = ("class_shares", "image_centres", "text_centres", "cross_covariance")
SHOWN_CLASSES = 10  # that gained, and as many that lost
SHOWN_MOVED = 5


def drift_metadata(store: LanceStore, crawl: str) -> dict[str, Any]:
    """What changed in a pool since the one before, from their sums: no pair is read.

    `drift/...` compares the two pools, which is what a training sees change. `new_crawl/...` compares the pairs that
    came new since the pool before with that pool, which is how foreign they are. The measures are those of
    `core.drift.Drift`; one that has no finite value is left out.

    Args:
        store: Holds the pools.
        crawl: Newest crawl of the pool, which is written already.

    Returns:
        Metadata by name; none for the first pool. Where two pools cannot be compared, `drift/remark` or
        `new_crawl/remark` says why in place of the numbers.

    Raises:
        KeyError: The pool is not materialized.
    """
    now = _Pool(store, crawl)
    previous = next((one.crawl for one in now.crawls[-2::-1] if store.exists("pool", one.crawl)), None)
    if previous is None:
        return {}
    try:
        before = _Pool(store, previous)
    except (KeyError, ValueError) as fault:  # an old pool that is half there is no fault of this one
        return {f"{POOL}/previous_crawl": previous, f"{POOL}/remark": str(fault.args[0])}
    return {f"{POOL}/previous_crawl": previous, **_compare(before, now)}


class _Pool:
    """What is compared of the pool as of a crawl.

    Attributes:
        crawl: The newest one.
        crawls: All of them, oldest first.
        sums: Of its pairs.
        class_names: Of its K latent classes.
        proxy: Digest of the weights that embedded its pairs; None where its tables do not tell.
        classes: K.
        width: Of an embedding.
    """

    def __init__(self, store: LanceStore, crawl: str) -> None:
        """Read the sums.

        Raises:
            KeyError: A table is not there; the message says what to materialize.
            ValueError: A version that the pool recorded is gone.
        """
        self.crawl, self.crawls = crawl, pooled_crawls(store, crawl)
        self.sums = PoolSums(
            load_statistics(store, POOL_STATISTICS, crawl), load_cross_products(store, POOL_PRODUCTS, crawl)
        )
        self.class_names = class_names(store, crawl)
        self.proxy = _proxy(store, self.crawls[-1])
        self.classes, self.width = self.sums.statistics.image_sums.shape

    @property
    def embedded_by(self) -> str:
        """The proxy in words."""
        return f"proxy {(self.proxy or 'of no name')[:12]} of width {self.width}"


def _proxy(store: LanceStore, pooled: PooledCrawl) -> str | None:
    """The proxy of a pool's tables as it recorded them: a pool that is not made again yet has the old one."""
    version = pooled.versions["latent_classes"]
    nothing = store.rows("latent_classes", pooled.crawl, version=version).slice(0, 0, ["uid"])
    found = (nothing.schema.metadata or {}).get(PROXY_SHA256.encode())
    return None if found is None else found.decode()


def _compare(before: _Pool, now: _Pool) -> dict[str, Any]:
    remark = _incomparable(before, now)
    if remark:
        return {f"{POOL}/remark": remark}
    drift = Drift(before.sums, now.sums)
    return {
        **_numbers(POOL, drift),
        f"{POOL}/classes": _class_table(drift, now.class_names),
        f"{POOL}/moved_most": _moved(drift, now.class_names),
        **_of_new_pairs(before, now),
    }


def _incomparable(before: _Pool, now: _Pool) -> str | None:
    """Why two pools cannot be compared, if they cannot."""
    if (before.proxy, before.width) != (now.proxy, now.width):
        return (
            f"not compared: the pool as of {before.crawl} is embedded by {before.embedded_by}, this one by "
            f"{now.embedded_by}"
        )
    if before.class_names != now.class_names or before.classes != now.classes:
        return (
            f"not compared: the prompts have changed; the pool as of {before.crawl} has {before.classes} latent "
            f"classes, this one {now.classes} or others"
        )
    return None


def _of_new_pairs(before: _Pool, now: _Pool) -> dict[str, Any]:
    # The pool grew by new pairs only if it holds all that was there before, as it was.
    if now.crawls[: len(before.crawls)] != before.crawls:
        return {
            f"{NEW}/remark": f"not compared: a crawl before {now.crawl} came, went or was made again since the pool "
            f"as of {before.crawl}, so that the new pairs cannot be told from the others"
        }
    new = now.sums - before.sums
    if not new.statistics.counts.any():
        return {f"{NEW}/remark": f"not compared: the pool as of {before.crawl} holds all of its pairs"}
    return _numbers(NEW, Drift(before.sums, new))


def _numbers(comparison: str, drift: Drift) -> dict[str, float]:
    found = {f"{comparison}/{measure}": float(getattr(drift, measure)) for measure in MEASURES}
    # What is infinite or undefined cannot be plotted; what adding and taking out again leaves is no drift.
    return {name: legible(round(value, ROUNDED)) for name, value in found.items() if math.isfinite(value)}


def _class_table(drift: Drift, names: Sequence[str]) -> dg.TableMetadataValue:
    """The classes whose share has grown most, then those whose share has shrunk most."""
    before, now = (one.statistics.counts for one in (drift.before, drift.now))
    return dg.MetadataValue.table(
        [
            dg.TableRecord(
                {
                    "latent_class": names[k],
                    "pairs_before": int(before[k]),
                    "pairs": int(now[k]),
                    "share_before": legible(before[k] / before.sum()),
                    "share": legible(now[k] / now.sum()),
                    "share_change": legible(drift.share_changes[k]),
                    "image_distance": _number(drift.image_distances[k]),
                    "text_distance": _number(drift.text_distances[k]),
                }
            )
            for k in [*drift.gained(SHOWN_CLASSES), *drift.lost(SHOWN_CLASSES)]
        ],
        schema=dg.TableSchema.from_name_type_dict(
            {
                "latent_class": "string",
                **dict.fromkeys(("pairs_before", "pairs"), "int"),
                **dict.fromkeys(("share_before", "share", "share_change", "image_distance", "text_distance"), "float"),
            }
        ),
    )


def _number(distance: float) -> float | None:
    """A distance, or nothing where a side has no pairs of the class."""
    return legible(distance) if math.isfinite(distance) else None


def _moved(drift: Drift, names: Sequence[str]) -> str:
    """The classes whose centres have moved the pool most, with the distances of images and captions."""
    return (
        ", ".join(
            f"{names[k]} (images {drift.image_distances[k]:.3g}, captions {drift.text_distances[k]:.3g})"
            for k in drift.moved(SHOWN_MOVED)
        )
        or "none"
    )
