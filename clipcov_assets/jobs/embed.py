"""Pairs in, unit embeddings out, batch by batch."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from clipcov_assets.core.clip_model import ClipModel
from clipcov_assets.core.encoding import encode_captions, encode_images
from resources.compute import Compute
from resources.lance_store import LanceStore

PAIR_COLUMNS = ["uid", "caption", "image"]


def embed_pairs(clip: ClipModel, pairs: pa.Table | pa.RecordBatch, compute: Compute) -> tuple[np.ndarray, np.ndarray]:
    """Embed pairs that are in memory.

    Args:
        clip: The model.
        pairs: Columns uid, caption and image, n rows.
        compute: Device and batch size.

    Returns:
        Image embeddings and text embeddings, both (n, d) float32 with unit rows.
    """
    device, uid = compute.resolved_device(), pairs["uid"].to_pylist()
    images = zip(uid, (value.as_py() for value in pairs["image"]), strict=True)
    captions = zip(uid, pairs["caption"].to_pylist(), strict=True)
    return (
        np.concatenate(list(encode_images(clip, images, device=device, batch_size=compute.batch_size))),
        np.concatenate(list(encode_captions(clip, captions, device=device, batch_size=compute.batch_size))),
    )


def embed_crawl(
    clip: ClipModel, store: LanceStore, crawl: str, compute: Compute
) -> Iterator[tuple[list[str], np.ndarray, np.ndarray]]:
    """Embed the stored pairs of a crawl, a batch at a time.

    Yields:
        uid (b,), image embeddings and text embeddings (b, d) float32.
    """
    for batch in store.stream("raw_pairs", crawl, PAIR_COLUMNS, batch_size=compute.batch_size):
        if batch.num_rows:
            yield batch["uid"].to_pylist(), *embed_pairs(clip, batch, compute)
