"""Why a pair is in the subsets of a method, or not: out of the tables, as little of them as that takes.

Nothing is stored for it. The rank and the gain are those of the ranking; the terms of a ClipCov gain are computed from
the pair's latent class alone, and must add up to the gain that is stored.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clipcov_assets.core.explanation import gain_terms, similarities
from clipcov_assets.core.selection.clipcov import rank_by_clipcov
from clipcov_assets.export.pair_page import (
    Absence,
    ClassPicks,
    Cut,
    Explanation,
    OtherPair,
    SetAside,
    ShownPair,
    place_words,
)
from clipcov_assets.methods import RANKED
from clipcov_assets.partitions import FULL_FRACTION, check_crawl_name, crawl_order, fractions_of, of_crawl
from clipcov_assets.pool_tables import CLASS_EMBEDDINGS, PooledClasses, places_of, pooled_crawls
from clipcov_assets.scales import SCALE
from clipcov_assets.tables import PLACE, POOL, RANKING
from resources.lance_store import LanceStore

SHOWN_PICKS = 6
ROUNDING = 1e-5  # of gains, which a ranking holds as float32


def pools(store: LanceStore) -> list[str]:
    """The crawls that have a pool, oldest first.

    Raises:
        KeyError: There is none yet.
    """
    crawls = sorted(store.partitions("pool"), key=crawl_order)
    if not crawls:
        raise KeyError(f"no crawl has a pool in {store.uri}: materialize pool for one first, or run make demo")
    return crawls


def newest_pool(store: LanceStore) -> str:
    """The newest crawl that has a pool.

    Raises:
        KeyError: There is none yet.
    """
    return pools(store)[-1]


def ranked_methods(store: LanceStore, crawl: str) -> list[str]:
    """The methods that can be asked about the pool as of a crawl."""
    return [method for method in RANKED if store.exists(*_ranking_table(method, crawl))]


def explain(store: LanceStore, uid: str, *, method: str, crawl: str) -> Explanation | Absence:
    """Say why a method ranked a pair where it is; an `Absence` where a crawl knows the pair and the pool does not.

    Args:
        store: The tables.
        uid: The pair.
        method: Any that has a ranking.
        crawl: The pool is that as of this crawl.

    Raises:
        KeyError: A table is not there, or no crawl knows the pair; the message says what to do.
        ValueError: There is no such method or crawl name, or tables do not belong together.
    """
    check_crawl_name(crawl)
    if method not in RANKED:
        raise ValueError(f"unknown selection method {method!r}: choose one of {', '.join(RANKED)}")
    if crawl not in pools(store):
        raise KeyError(f"crawl {crawl!r} has no pool: choose one of {', '.join(pools(store))}, or materialize its pool")
    pooled = store.find("pool", crawl, "uid", [uid], POOL.names).to_pylist()
    return _PooledPair(store, method, crawl, pooled[0]).explanation() if pooled else _absence(store, uid, crawl)


class _PooledPair:
    """What the tables hold on one pair of a pool and one method."""

    def __init__(self, store: LanceStore, method: str, crawl: str, pooled: Mapping[str, Any]) -> None:
        self._store, self._method, self._crawl, self._pooled = store, method, crawl, pooled
        self._uid: str = pooled["uid"]
        self._ranking = _ranking_table(method, crawl)
        self._ranked = self._row_of(self._uid)

    def explanation(self) -> Explanation:
        """Read the rest."""
        own = self._raw_pairs({self._uid: self._pooled["crawl"]})[self._uid]
        return Explanation(
            pair=_shown(own),
            method=self._method,
            summary=RANKED[self._method].summary,
            crawl=self._crawl,
            pool_pairs=self._store.row_count("pool", self._crawl),
            brought_by=self._pooled["crawl"],
            place=place_words(own["file"], own["key"], own["row"]),
            latent_class=self._class_name(),
            clip_score=self._pooled["clip_score"],
            rank=self._ranked["rank"],
            gain=self._ranked["gain"],
            cuts=tuple(self._cut(key, fraction) for key, fraction in fractions_of(self._method).items()),
            class_picks=self._class_picks(),
            partner=self._partner(),
            entry=self._ranked.get("entry"),
        )

    def _row_of(self, uid: str) -> dict[str, Any]:
        """A pair's row of the ranking."""
        columns = [*RANKING.names, *RANKED[self._method].reasons]
        found: list[dict[str, Any]] = self._store.find(*self._ranking, "uid", [uid], columns).to_pylist()
        if not found:
            raise self._stale(f"lacks pair {uid!r} of the pool")
        return found[0]

    def _cut(self, key: str, fraction: float) -> Cut:
        subset = f"{self._method}_subset", of_crawl(self._crawl, key)
        if not self._store.exists(*subset):
            return Cut(fraction)
        rows = self._store.rows(*subset)
        held = len(self._store.find(*subset, "uid", [self._uid], ["uid"])) > 0
        if held != (self._ranked["rank"] < len(rows)):
            raise ValueError(f"{subset[0]} of {subset[1]} was made from another ranking: materialize it again")
        return Cut(fraction, len(rows), rows.slice(len(rows) - 1, 1, ["gain"])["gain"][0].as_py())

    def _class_picks(self) -> ClassPicks | None:
        """The picks before the pair in its latent class, the only one whose embeddings are read."""
        options = _objective_options(self._method)
        if options is None:
            return None
        classes = PooledClasses(self._store, self._crawl)
        k: int = self._pooled["latent_class"]
        (loaded,) = classes.load([k])
        members = self._store.rows("pool", self._crawl).slice(int(loaded.uid[0]), len(loaded), ["uid", "crawl"])
        own = pc.index(members["uid"], self._uid).as_py()
        head = self._store.rows(*self._ranking).slice(0, self._ranked["rank"], ["uid"])["uid"]
        places = pc.index_in(head, value_set=members["uid"].combine_chunks())
        rank, picked = np.flatnonzero(pc.is_valid(places)), places.drop_null().to_numpy()
        similarity = similarities(loaded.pairs[own], loaded.pairs[picked])
        terms: dict[str, float] = {}
        if options.pop("variant", "paper") == "paper":
            pair, before = loaded.pairs[own], loaded.pairs[picked]
            terms = gain_terms(pair, before, k, classes.statistics, classes.class_embeddings, **options)
            self._check_gain(sum(terms.values()))

        def shown(some: np.ndarray) -> tuple[OtherPair, ...]:
            return tuple(self._others(members.take(pa.array(picked[some])), rank[some], similarity[some]))

        return ClassPicks(
            pairs=len(loaded),
            before=len(picked),
            terms=terms,
            covered=float(similarity.sum()) / len(loaded) if "class" in terms else None,
            last=shown(np.arange(len(picked))[::-1][:SHOWN_PICKS]),
            most_similar=shown(np.argsort(-similarity, kind="stable")[:SHOWN_PICKS]),
        )

    def _check_gain(self, computed: float) -> None:
        stored = self._ranked["gain"]
        if not math.isclose(computed, stored, rel_tol=ROUNDING, abs_tol=ROUNDING):
            raise self._stale(f"gives pair {self._uid!r} a gain of {stored:.6f}, which is {computed:.6f} by now")

    def _stale(self, words: str) -> ValueError:
        asset, crawl = self._ranking
        return ValueError(
            f"{asset} of {crawl} {words}: it was made from another pool or with other options; materialize it again"
        )

    def _partner(self) -> OtherPair | None:
        uid = self._ranked.get("partner")
        if uid is None:
            return None
        pooled = self._store.find("pool", self._crawl, "uid", [uid], ["uid", "crawl"])
        if not len(pooled):
            raise self._stale(f"names {uid!r}, which the pool lacks")
        cosine = -self._ranked["gain"]  # by what its gain is
        (partner,) = self._others(pooled, [self._row_of(uid)["rank"]], [cosine])
        return replace(partner, measure="cosine")

    def _others(self, pooled: pa.Table, rank: Iterable[int], similarity: Iterable[float]) -> list[OtherPair]:
        """Other pairs with caption and image.

        Args:
            pooled: (m) columns uid and crawl of the pool.
            rank: (m,) of each.
            similarity: (m,) to the pair.
        """
        found = self._raw_pairs(dict(zip(pooled["uid"].to_pylist(), pooled["crawl"].to_pylist(), strict=True)))
        return [
            OtherPair(_shown(found[uid]), int(one), float(other))
            for uid, one, other in zip(pooled["uid"].to_pylist(), rank, similarity, strict=True)
        ]

    def _raw_pairs(self, brought_by: Mapping[str, str]) -> dict[str, dict[str, Any]]:
        """Rows of raw pairs by uid, each of the crawl that brought it, as the pool recorded it."""
        columns = ["uid", "caption", "image", *PLACE]
        found: dict[str, dict[str, Any]] = {}
        for one in pooled_crawls(self._store, self._crawl):
            wanted = [uid for uid, crawl in brought_by.items() if crawl == one.crawl]
            if wanted:
                table = "raw_pairs", one.crawl
                rows = self._store.find(*table, "uid", wanted, columns, version=one.versions["raw_pairs"])
                places_of(pa.chunked_array([wanted]), rows["uid"], f"raw_pairs of {one.crawl}")
                found |= {row["uid"]: row for row in rows.to_pylist()}
        return found

    def _class_name(self) -> str:
        names = self._store.read(CLASS_EMBEDDINGS, self._crawl, ["latent_class", "name"])
        name: str = names.filter(pc.equal(names["latent_class"], self._pooled["latent_class"]))["name"][0].as_py()
        return name


def _ranking_table(method: str, crawl: str) -> tuple[str, str]:
    """Asset and partition of a method's ranking; `full` has none but its subset, which is the whole pool."""
    if method == "full":
        return "full_subset", of_crawl(crawl, next(iter(FULL_FRACTION)))
    return f"{method}_ranking", crawl


def _objective_options(method: str) -> dict[str, Any] | None:
    """How a method that is ClipCov or a part of it computes its gains; None for other methods."""
    rank = RANKED[method].rank
    bound = rank.keywords if isinstance(rank, partial) else {}
    if (rank.func if isinstance(rank, partial) else rank) is not rank_by_clipcov:
        return None
    return {**bound, **SCALE.method_parameters.get(method, {})}


def _shown(row: Mapping[str, Any]) -> ShownPair:
    return ShownPair(row["uid"], row["caption"], row["image"])


def _absence(store: LanceStore, uid: str, crawl: str) -> Absence:
    """Look for a pair that the pool does not hold in every crawl."""
    held = [one for one in store.partitions("raw_pairs") if len(store.find("raw_pairs", one, "uid", [uid], ["uid"]))]
    set_aside = [
        SetAside(one, place_words(row["file"], row["key"], row["row"]), row["reason"], row["detail"] or "")
        for one in sorted(store.partitions("quarantine"), key=crawl_order)
        for row in store.find("quarantine", one, "uid", [uid], [*PLACE, "reason", "detail"]).to_pylist()
    ]
    if not held and not set_aside:
        raise KeyError(
            f"no crawl knows pair {uid!r}: look for its uid in raw_pairs or in a gallery (a pair that was delivered "
            "without one is named by its content), or ingest the crawl that delivers it"
        )
    held.sort(key=crawl_order)
    later = tuple(one for one in held if crawl_order(one) > crawl_order(crawl))
    return Absence(uid, crawl, tuple(set_aside), tuple(one for one in held if one not in later), later)
