"""Format `clip_retrieval`: what clip-retrieval's inference writes, joined by the position of rows.

img_emb/img_emb_N.npy and text_emb/text_emb_N.npy hold embeddings, metadata/metadata_N.parquet image path and
caption. An image that lies in the delivery's folder is taken, of the others the embeddings alone.
"""

from collections.abc import Iterator
from pathlib import Path

from clipcov_assets.ingest.columns import CAPTIONS, IMAGE_PATHS, UID, find_column, no_columns
from clipcov_assets.ingest.datacomp import NONE
from clipcov_assets.ingest.delivery import DeliveryError, DeliveryOptions, Format, Shard, printable
from clipcov_assets.ingest.embedded_rows import Array, EmbeddedShard
from clipcov_assets.ingest.parquet_rows import cut_rows, is_text, is_text_or_number, open_parquet
from clipcov_assets.ingest.unreadable_table import table_shards

_ARRAYS = ("img_emb", "text_emb")
WRITE_AGAIN = "run clip-retrieval inference again with the same arguments"


def _is_here(directory: Path) -> bool:
    folders = (directory / "metadata", *(directory / name for name in _ARRAYS))
    return sum(folder.is_dir() for folder in folders) > 1 and any(_numbers(directory))


def _obstacle(directory: Path) -> str | None:
    """A part is written as images, texts, metadata, so that its metadata mark it as complete."""
    for name in _ARRAYS:
        for number in _numbers(directory, name):
            metadata = directory / "metadata" / f"metadata_{number}.parquet"
            if not metadata.exists():
                return f"{name}_{number}.npy is unfinished: no {metadata}; wait, or {WRITE_AGAIN}"
    return None


def _shards(directory: Path, options: DeliveryOptions) -> tuple[Shard, ...]:
    if options.embeddings not in (None, NONE):
        raise DeliveryError(
            f"{directory / 'delivery.toml'}: embeddings = {printable(options.embeddings or '')!r}, "
            f'but clip-retrieval writes those of one model; leave it out, or write "{NONE}"'
        )

    def cut(path: Path) -> list[Shard]:
        number = path.stem.removeprefix("metadata_")
        arrays = tuple(Array(directory / name / f"{name}_{number}.npy") for name in _ARRAYS)
        taken = () if options.embeddings == NONE else arrays
        image, caption, uid = _read_columns(path, options)
        with open_parquet(path) as file:
            n_rows = file.metadata.num_rows
            return [EmbeddedShard(directory, path, n_rows, run, image, caption, uid, taken) for run in cut_rows(file)]

    numbers = sorted(_numbers(directory, "metadata"), key=lambda number: (len(number), number))
    return table_shards(directory, [directory / "metadata" / f"metadata_{number}.parquet" for number in numbers], cut)


def _numbers(directory: Path, *names: str) -> Iterator[str]:
    """Yield the numbers of the parts that have a file in one of the folders, in all of them if none is named."""
    for name in names or ("metadata", *_ARRAYS):
        suffix = "parquet" if name == "metadata" else "npy"
        for path in (directory / name).glob(f"{name}_*.{suffix}"):
            yield path.stem.removeprefix(f"{name}_")


def _read_columns(path: Path, options: DeliveryOptions) -> tuple[str | None, str | None, str | None]:
    """Return the columns of image path, caption and uid, None for what was not written.

    Raises:
        DeliveryError: It is not readable, or lacks a column that `delivery.toml` names, or image and caption.
    """
    with open_parquet(path) as file:
        fields = list(file.schema_arrow)
    texts = [field.name for field in fields if is_text(field.type)]
    image = find_column(texts, options.image, IMAGE_PATHS)
    caption = find_column(texts, options.caption, CAPTIONS)
    uid = find_column([field.name for field in fields if is_text_or_number(field.type)], options.uid, (UID,))
    wanted = ((options.image, image), (options.caption, caption), (options.uid, uid))
    if (image is None and caption is None) or any(name is not None and found is None for name, found in wanted):
        raise no_columns(path, [field.name for field in fields], "image paths")
    return image, caption, uid


FORMAT = Format(name="clip_retrieval", is_here=_is_here, obstacle=_obstacle, shards=_shards)
