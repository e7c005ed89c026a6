"""What a delivery is made of: pairs, faults, and the shards that hold them.

Every reader of a format yields `ShardContents`; nothing that a shard promised is left out of it.
"""

import hashlib
from dataclasses import dataclass
from enum import StrEnum


class DeliveryError(ValueError):
    """A delivery or an evaluation set that cannot be read at all; the message names it and the remedy."""


class Reason(StrEnum):
    """Why a pair is in quarantine, in one word that can be counted."""

    IMAGE_MISSING = "image_missing"  # no image member, or one that is a link, sparse or above 64 MiB
    IMAGE_EMPTY = "image_empty"  # an image file of zero bytes
    IMAGE_CORRUPT = "image_corrupt"  # bytes that do not decode to RGB: damaged, cut short, not an image
    IMAGE_TOO_LARGE = "image_too_large"  # declares more pixels than any pair has: a decompression bomb
    CAPTION_MISSING = "caption_missing"  # no caption member
    CAPTION_EMPTY = "caption_empty"  # a caption of nothing but white space
    CAPTION_UNDECODABLE = "caption_undecodable"  # a caption that is not UTF-8
    METADATA_INVALID = "metadata_invalid"  # metadata that is no JSON object, or a uid that is no short text
    DUPLICATE_UID = "duplicate_uid"  # the uid of a pair that came earlier in the same delivery
    DUPLICATE_KEY = "duplicate_key"  # a key used again in its shard
    LOST_IN_TAR = "lost_in_tar"  # promised by the shard's statistics or table, absent from its tar


@dataclass(frozen=True)
class Pair:
    """One image-caption pair that can be trained on.

    Attributes:
        uid: The delivery's own, or `content_uid`.
        caption: As delivered, with at least one visible character.
        image: Encoded bytes that decode to RGB.
        source: Where it was found, as "file:key".
    """

    uid: str
    caption: str
    image: bytes
    source: str


@dataclass(frozen=True)
class Fault:
    """One pair that was promised or found and cannot be used; `uid` is None where it is not known."""

    source: str
    uid: str | None
    reason: Reason
    detail: str


@dataclass(frozen=True)
class ShardContents:
    """A shard with every pair accounted for: `expected == len(pairs) + len(faults)`."""

    name: str
    expected: int
    pairs: tuple[Pair, ...]
    faults: tuple[Fault, ...]


def content_uid(image: bytes, caption: str) -> str:
    """Return 32 hexadecimal digits, blake2b-128 of image and caption, for a pair that came without a uid."""
    digest = hashlib.blake2b(digest_size=16)
    # The length keeps the end of the image apart from the start of the caption.
    digest.update(len(image).to_bytes(8, "little"))
    digest.update(image)
    digest.update(caption.encode())
    return digest.hexdigest()
