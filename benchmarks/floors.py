"""Floors that several benchmarks share: shapes enter, bytes and operations leave."""

from benchmarks.measure import Floor
from benchmarks.pools import EMBEDDINGS, Columns


def embedding_bytes(columns: Columns) -> int:
    """Return the bytes of all image and text embeddings."""
    return int(sum(columns[name].nbytes for name in EMBEDDINGS))


def of_clipcov(columns: Columns) -> Floor:
    """Return the floor of a greedy ranking: the best queue imaginable looks at each pair twice.

    With d the width of an embedding: two gains (4 d each), sim(e, e) (2 d), and the pair's way into the sum
    of its class and into that of the picks (2 d each).
    """
    n, d = columns["image_embeddings"].shape
    return Floor(
        "every embedding is read once; a pair's gain is evaluated at the start and when it is picked",
        bytes=embedding_bytes(columns),
        operations=14.0 * n * d,
    )
