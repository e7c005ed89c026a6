"""Why a pair is in the subsets of a method, or not: out of the tables, as little of them as that takes.

Nothing is stored for it. The rank and the gain are those of the ranking; the terms of a ClipCov gain are computed from
the pair's latent class alone, and must add up to the gain that is stored.
"""

import math
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clipcov_assets.core.explanation import gain_terms, similarities
from clipcov_assets.core.selection.clipcov import rank_by_clipcov
from clipcov_assets.core.set_algebra import Combination
from clipcov_assets.export.pair_page import (
    Absence,
    ClassPicks,
    CombinedCut,
    CombinedExplanation,
    Cut,
    Explanation,
    OtherPair,
    SetAside,
    ShownPair,
    place_words,
)
from clipcov_assets.methods import COMBINED, KNOWN, RANKED
from clipcov_assets.partitions import FULL_FRACTION, check_crawl_name, crawl_order, fractions_of, of_crawl
from clipcov_assets.pool_tables import READERS, PooledClasses, class_names, places_of, pooled_crawls
from clipcov_assets.scales import SCALE
from clipcov_assets.tables import PLACE, POOL, RANKING
from resources.crawl_catalog import CrawlCatalog
from resources.lance_store import LanceStore

SHOWN_PICKS = 6
ROUNDING = 1e-5  # of gains, which a ranking holds as float32


def pools(store: LanceStore, catalog: CrawlCatalog) -> list[str]:
    """The crawls that have a pool, oldest first, but for those that were withdrawn.

    Raises:
        KeyError: There is none yet.
        OSError: The catalog cannot be read.
    """
    withdrawn = catalog.withdrawn()
    crawls = sorted((one for one in store.partitions("pool") if one not in withdrawn), key=crawl_order)
    if not crawls:
        raise KeyError(f"no crawl has a pool in {store.uri}: materialize pool for one first, or run make demo")
    return crawls


def newest_pool(store: LanceStore, catalog: CrawlCatalog) -> str:
    """The newest crawl that has a pool and was not withdrawn.

    Raises:
        KeyError: There is none yet.
        OSError: The catalog cannot be read.
    """
    return pools(store, catalog)[-1]


def askable(store: LanceStore, crawl: str) -> list[str]:
    """The methods and combinations that can be asked about the pool as of a crawl."""
    ranked = [method for method in RANKED if store.exists(*_ranking_table(method, crawl))]
    return [*ranked, *(name for name, one in COMBINED.items() if set(one.methods) <= set(ranked))]


def explain(
    store: LanceStore, catalog: CrawlCatalog, uid: str, *, method: str, crawl: str
) -> Explanation | CombinedExplanation | Absence:
    """Say why a method ranked a pair where it is; an `Absence` where a crawl knows the pair and the pool does not.

    Args:
        store: The tables.
        catalog: Tells which crawls were withdrawn.
        uid: The pair.
        method: Any that has a ranking, or a combination of two.
        crawl: The pool is that as of this crawl, which may be withdrawn.

    Raises:
        KeyError: A table is not there, or no crawl knows the pair; the message says what to do.
        ValueError: There is no such method or crawl name, or tables do not belong together.
        OSError: The pool lacks the pair, and the catalog cannot be read.
    """
    check_crawl_name(crawl)
    if method not in KNOWN:
        raise ValueError(f"unknown selection method {method!r}: choose one of {', '.join(KNOWN)}")
    if not store.exists("pool", crawl):
        listed = ", ".join(pools(store, catalog))
        raise KeyError(f"crawl {crawl!r} has no pool: choose one of {listed}, or materialize its pool")
    found = store.find("pool", crawl, "uid", [uid], POOL.names).to_pylist()
    if not found:
        return _absence(store, catalog, uid, crawl)
    combination = KNOWN[method]
    if isinstance(combination, Combination):
        return _combined(store, combination, crawl, found[0])
    return _PooledPair(store, method, crawl, found[0]).explanation()


def _combined(
    store: LanceStore, combination: Combination, crawl: str, pooled: Mapping[str, Any]
) -> CombinedExplanation:
    first, second = (_PooledPair(store, one, crawl, pooled).explanation() for one in combination.methods)
    uid = pooled["uid"]

    def cut(key: str, ours: Cut, theirs: Cut) -> CombinedCut:
        subset = f"{combination.name}_subset", of_crawl(crawl, key)
        if not store.exists(*subset):
            return CombinedCut(ours.fraction)
        held = len(store.find(*subset, "uid", [uid], ["uid"])) > 0
        heads = ([uid] if ours.holds(first.rank) else [], [uid] if theirs.holds(second.rank) else [])
        if held != (len(combination(*heads)) > 0):
            raise ValueError(f"{subset[0]} of {subset[1]} was made from other subsets: materialize it again")
        return CombinedCut(ours.fraction, store.row_count(*subset), held)

    keys = fractions_of(combination.name)
    return CombinedExplanation(
        name=combination.name,
        summary=combination.summary,
        cuts=tuple(map(cut, keys, first.cuts, second.cuts)),
        first=first,
        second=second,
    )


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
            latent_class=class_names(self._store, self._crawl)[self._pooled["latent_class"]],
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
        cut = Cut(fraction, len(rows), rows.slice(len(rows) - 1, 1, ["gain"])["gain"][0].as_py())
        if held != cut.holds(self._ranked["rank"]):
            raise ValueError(f"{subset[0]} of {subset[1]} was made from another ranking: materialize it again")
        return cut

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


def _absence(store: LanceStore, catalog: CrawlCatalog, uid: str, crawl: str) -> Absence:
    """Look for a pair that the pool does not hold in every crawl."""

    def search(asset: str, columns: list[str]) -> dict[str, list[dict[str, Any]]]:
        """Crawl -> its rows of the pair, oldest crawl first; crawls that have none are left out."""
        crawls = sorted(store.partitions(asset), key=crawl_order)
        with ThreadPoolExecutor(READERS) as readers:
            rows = readers.map(lambda one: store.find(asset, one, "uid", [uid], columns).to_pylist(), crawls)
            return {one: found for one, found in zip(crawls, rows, strict=True) if found}

    held, faults = search("raw_pairs", ["uid"]), search("quarantine", [*PLACE, "reason", "detail"])
    if not held and not faults:
        raise KeyError(
            f"no crawl knows pair {uid!r}: look for its uid in raw_pairs or in a gallery (a pair that was delivered "
            "without one is named by its content), or ingest the crawl that delivers it"
        )
    withdrawn = catalog.withdrawn()
    pooled = {one.crawl for one in pooled_crawls(store, crawl)}
    there = [one for one in held if one not in withdrawn]
    later = [one for one in there if crawl_order(one) > crawl_order(crawl)]
    return Absence(
        uid=uid,
        crawl=crawl,
        set_aside=tuple(
            SetAside(one, place_words(row["file"], row["key"], row["row"]), row["reason"], row["detail"] or "")
            for one, rows in faults.items()
            for row in rows
        ),
        withdrawn={one: withdrawn[one] for one in held if one in withdrawn},
        left_out=tuple(one for one in there if one not in pooled and one not in later),
        changed=tuple(one for one in there if one in pooled),
        later=tuple(later),
    )
