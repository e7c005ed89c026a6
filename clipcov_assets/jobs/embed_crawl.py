"""The embeddings of one crawl as a job: pieces in parts, then one table with the score of each pair."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from clipcov_assets.core.encoding import preparation
from clipcov_assets.core.similarity import clip_scores
from clipcov_assets.jobs.embed import PairEncoder, StoredPairs, embed_pieces, missing_pieces, piece_rows
from clipcov_assets.jobs.job import Backend, Job, Outcome, Voice
from clipcov_assets.jobs.ready_embeddings import (
    MADE_WITH,
    delivered_embeddings,
    delivered_rows,
    delivered_width,
    find_known,
    in_order,
    spot_check,
)
from clipcov_assets.pool_tables import list_column
from clipcov_assets.provenance import content_version
from clipcov_assets.tables import PROXY_SHA256, embeddings_schema
from resources.clip_encoder import ClipEncoder
from resources.lance_store import LanceStore, StoredRows
from resources.pieces import Pieces
from resources.staging import Staging

LEAST_COSINE = 0.99  # between delivered embeddings and those of the proxy, on the median pair
SHARD_PIECES = 16  # of a part: enough pairs for workers that decode to be worth their start
SHOWN = 4  # pairs of each end of the scores

Rows = tuple[np.ndarray, np.ndarray]
Shard = tuple[Pieces, dict[str, np.ndarray]]  # where to, and the places of each missing piece


class EmbedCrawl(Job):
    """Embeds the pairs of a crawl that no crawl has brought before, or takes over what was delivered.

    Attributes:
        crawl: Its name.
        version: Lance version of its raw pairs.
        architecture: Of the proxy.
        weights: Of the proxy.
        proxy: The proxy in words.
        store: The tables.
        staging: Keeps finished pieces.
        encoder: Loads the proxy.
    """

    streams: ClassVar[bool] = True
    crawl: str
    version: int
    architecture: str
    weights: str
    proxy: str
    store: LanceStore
    staging: Staging
    encoder: ClipEncoder

    @cached_property
    def model(self) -> PairEncoder:
        """The proxy."""
        return PairEncoder.on(self.compute, self.encoder.load(self.architecture, self.weights))

    @cached_property
    def pairs(self) -> StoredPairs:
        """All pairs of the crawl."""
        return StoredPairs(self.store.uri, self.crawl, self.version, preparation(self.model.clip))

    @property
    def width(self) -> int:
        """Of an embedding."""
        import open_clip

        return int(open_clip.get_model_config(self.architecture)["embed_dim"])

    def run(self, backend: Backend) -> Outcome:
        """Write the embeddings.

        Returns:
            table, data_version, sha256, width, precision, mean, lowest and highest score, the places and scores of
            both ends, and where the embeddings come from, all as numbers and words.

        Raises:
            ValueError: A pair has no image, or one that cannot be decoded; or what was delivered is not the proxy's.
        """
        return self.model_copy(update={"compute": backend.settled(self.compute)})._run(backend)

    def _run(self, backend: Backend) -> Outcome:
        delivered = delivered_embeddings(self.store, self.crawl, self.version)
        with self.staging.pieces("embeddings", self.crawl, shared=True) as pieces:
            rows, origin = self._embedded(backend, pieces) if delivered is None else self._taken_over(delivered)
            scored = ScoredRows(rows, self.pairs, self.width)
            made_with = self.model.made_with if delivered is None else "delivered"
            told = {PROXY_SHA256: self.model.sha256, MADE_WITH: made_with}
            written = self.store.write("embeddings", self.crawl, scored.reader(), told)
        return {
            "table": asdict(written),
            "data_version": content_version(self.model.sha256, *scored.digests),
            PROXY_SHA256: self.model.sha256,
            "width": self.width,
            "precision": self.model.precision,
            "origin": origin,
            "mean": scored.sum / written.row_count,
            "lowest": scored.lowest,
            "highest": scored.highest,
            "lowest_pairs": [one.tolist() for one in scored.lowest_pairs],
            "highest_pairs": [one.tolist() for one in scored.highest_pairs],
        }

    def parts(self, items: Sequence[Shard], voice: Voice) -> Iterator[int]:
        """Embed the pieces of each shard that are not there yet, and yield how many they are."""
        if not items:
            return
        pieces = items[0][0]
        # A part that is done again goes on where a lost worker was; several shards at once have just been planned.
        left = [{key: missing[key] for key in missing if len(items) > 1 or key not in pieces} for _, missing in items]
        wanted = {key: places for missing in left for key, places in missing.items()}
        workers = self.compute.resolved_workers()
        kept = embed_pieces(self.model, self.pairs, wanted, pieces, workers=workers, report=voice.report)
        for missing in left:
            yield sum(1 for _ in zip(missing, kept, strict=False))

    def _embedded(self, backend: Backend, pieces: Pieces) -> tuple[Iterator[Rows], dict[str, Any]]:
        """Embed what no crawl has brought before; return all rows in order, and how many are new and reused."""
        content = self.pairs.rows.slice(0, len(self.pairs), ["content"])["content"]
        known = find_known(self.store, content, self.model.made_with)
        new, report = known.new, backend.voice.report
        keys, missing = missing_pieces(self.model, new, content.take(pa.array(new)), pieces, report=report)
        shards: list[Shard] = [
            (pieces, {key: missing[key] for key in list(missing)[start : start + SHARD_PIECES]})
            for start in range(0, len(missing), SHARD_PIECES)
        ]
        for _ in backend.each(self, shards):
            pass
        if lost := len({*keys} - pieces.finished(keys)):
            raise ValueError(
                f"{lost} of {len(keys)} pieces that workers embedded are not in {pieces.place}: give all machines one "
                "place for them, a shared directory or an address (CLIPCOV_PIECES)"
            )
        counts = known.counts()
        origin = {"pairs_embedded": len(new), "pairs_reused": sum(counts.values()), "pairs_taken_over": 0}
        reused = {f"reused/{crawl}": count for crawl, count in counts.items()}
        return in_order(known, piece_rows(pieces, keys), self.width), origin | reused

    def _taken_over(self, delivered: StoredRows) -> tuple[Iterator[Rows], dict[str, Any]]:
        """Take the delivered embeddings over, if the proxy makes the same ones.

        Raises:
            ValueError: They are of another width, or another model made them.
        """
        remedies = (
            "set the scale's proxy to the model that made them (clipcov_assets/scales.py), or write "
            '`embeddings = "none"` into delivery.toml in the folder of the delivery to embed its pairs anew'
        )
        found = delivered_width(delivered)
        if found != self.width:
            raise ValueError(
                f"{self.crawl} came with embeddings that are {found} wide, but those of the proxy ({self.proxy}) are "
                f"{self.width}: {remedies}"
            )
        cosines = spot_check(PairEncoder.on(self.compute.here(), self.model.clip), self.pairs, delivered)
        worst = min(cosines, key=lambda kind: cosines[kind])
        if not cosines[worst] >= LEAST_COSINE:
            raise ValueError(
                f"{self.crawl} came with embeddings that the proxy ({self.proxy}) did not make: in a spot check the "
                f"median cosine of {worst} embeddings is {cosines[worst]:.3f}, and at least {LEAST_COSINE} is "
                f"expected: {remedies}"
            )
        checked = {f"spot_check_{kind}_cosine": cosine for kind, cosine in cosines.items()}
        origin = {"pairs_embedded": 0, "pairs_reused": 0, "pairs_taken_over": len(self.pairs)}
        return delivered_rows(delivered, self.pairs), origin | checked


class ScoredRows:
    """Streams embeddings into rows of the table, and adds up their CLIP scores and digests on the way.

    Args:
        rows: Blocks of image and text embeddings (b, d) float16, in the order of the pairs.
        pairs: The crawl.
        width: Of an embedding.
    """

    def __init__(self, rows: Iterator[Rows], pairs: StoredPairs, width: int) -> None:
        """Nothing is read yet."""
        self.sum = 0.0
        self.digests: list[str] = []
        self._rows, self._pairs, self._schema = rows, pairs, embeddings_schema(width)
        self._places, self._scores = np.empty(0, np.int64), np.empty(0)  # of both ends, lowest scores first

    def reader(self) -> pa.RecordBatchReader:
        """The rows, block by block."""
        return pa.RecordBatchReader.from_batches(self._schema, self._batches())

    @property
    def lowest(self) -> float:
        """Lowest score so far."""
        return float(self._scores[0])

    @property
    def highest(self) -> float:
        """Highest score so far."""
        return float(self._scores[-1])

    @property
    def lowest_pairs(self) -> Rows:
        """Places and scores of a few pairs, the lowest score first."""
        return self._places[:SHOWN], self._scores[:SHOWN]

    @property
    def highest_pairs(self) -> Rows:
        """Places and scores of a few pairs, the highest score first."""
        return self._places[-SHOWN:][::-1], self._scores[-SHOWN:][::-1]

    def _keep_ends(self, start: int, score: np.ndarray) -> None:
        places = np.concatenate([self._places, np.arange(start, start + len(score))])
        scores = np.concatenate([self._scores, score])
        order = np.argsort(scores, kind="stable")
        if len(order) > 2 * SHOWN:
            order = np.concatenate([order[:SHOWN], order[-SHOWN:]])
        self._places, self._scores = places[order], scores[order]

    def _batches(self) -> Iterator[pa.RecordBatch]:
        start = 0
        for image, text in self._rows:
            found = self._pairs.rows.slice(start, len(image), ["uid", "content"]).combine_chunks()
            # The score of the rows as stored, so that whoever reads them finds the same number.
            score = clip_scores(image, text)
            self.sum += float(score.sum())
            self._keep_ends(start, score)
            start += len(image)
            self.digests.append(content_version("\n".join(found["uid"].to_pylist()), image, text))
            columns = {
                "uid": found["uid"],
                "content": found["content"],
                "image_embedding": list_column(image),
                "text_embedding": list_column(text),
                "clip_score": score,
            }
            yield from pa.table(columns, schema=self._schema).to_batches()
