"""Format `datacomp`: DataComp's metadata, a parquet with uid and text, and an npz of the same name with embeddings.

The arrays of an npz are named after a model: b32_img and b32_txt, l14_img and l14_txt. Images are not part of it.
"""

import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from clipcov_assets.ingest.columns import CAPTIONS, UID, find_column, no_columns
from clipcov_assets.ingest.delivery import DeliveryError, DeliveryOptions, Format, Shard
from clipcov_assets.ingest.embedded_rows import Array, EmbeddedShard
from clipcov_assets.ingest.embedding_arrays import DAMAGE
from clipcov_assets.ingest.looking import first_files, walk_files
from clipcov_assets.ingest.parquet_rows import cut_rows, is_text, is_text_or_number, open_parquet
from clipcov_assets.ingest.unreadable_table import table_shards

NONE = "none"  # take no embeddings over
USUAL_MODEL = "b32"
_PARQUET = frozenset({".parquet"})
_NPZ = frozenset({".npz"})


def _is_here(directory: Path) -> bool:
    for path in first_files(directory, _NPZ):
        with suppress(DeliveryError):
            _read_columns(path.with_suffix(".parquet"), DeliveryOptions())
            return True
    return False


def _obstacle(directory: Path) -> str | None:
    for path in first_files(directory, _NPZ):
        if not path.with_suffix(".parquet").exists():
            return f"{path} has no {path.stem}.parquet beside it, so nobody knows its pairs; fetch the metadata again"
    return None


def _shards(directory: Path, options: DeliveryOptions) -> tuple[Shard, ...]:
    tables = sorted(walk_files(directory, _PARQUET))
    model, remark = _choose_model(tables, options)

    def cut(path: Path) -> list[Shard]:
        nonlocal remark
        npz = path.with_suffix(".npz")
        arrays = () if model == NONE else (Array(npz, f"{model}_img"), Array(npz, f"{model}_txt"))
        caption, uid = _read_columns(path, options)
        shards: list[Shard] = []
        with open_parquet(path) as file:
            n_rows = file.metadata.num_rows
            for run in cut_rows(file):
                shards.append(EmbeddedShard(directory, path, n_rows, run, None, caption, uid, arrays, remark))
                remark = None  # once a delivery
        return shards

    return table_shards(directory, tables, cut)


def _choose_model(tables: Sequence[Path], options: DeliveryOptions) -> tuple[str, str | None]:
    """Return the model whose embeddings are taken over, and what to say of the choice."""
    if options.embeddings == NONE:
        return NONE, None
    models = next(filter(None, (_models(path.with_suffix(".npz")) for path in tables)), [])
    others = 'embeddings = "..." in delivery.toml takes others, "none" takes none'
    if options.embeddings is not None:
        if models and options.embeddings not in models:
            raise DeliveryError(f"no embeddings of {options.embeddings!r}, there are {', '.join(models)}; {others}")
        return options.embeddings, None
    if len(models) == 1:
        return models[0], None
    if models and USUAL_MODEL not in models:
        raise DeliveryError(f"embeddings of {', '.join(models)}: which are to be taken over? {others}")
    remark = f"embeddings of {', '.join(models)}: {USUAL_MODEL} is taken over; {others}" if models else None
    return USUAL_MODEL, remark


def _models(npz: Path) -> list[str]:
    """Return the models of which an npz holds images and texts; none if it cannot be read."""
    try:
        with zipfile.ZipFile(npz) as archive:
            keys = {name.removesuffix(".npy") for name in archive.namelist()}
    except DAMAGE:
        return []
    return sorted(key[:-4] for key in keys if key.endswith("_img") and f"{key[:-4]}_txt" in keys)


def _read_columns(path: Path, options: DeliveryOptions) -> tuple[str, str | None]:
    """Return the columns of caption and uid.

    Raises:
        DeliveryError: It is not readable, or has no such columns.
    """
    with open_parquet(path) as file:
        fields = list(file.schema_arrow)
    caption = find_column([field.name for field in fields if is_text(field.type)], options.caption, CAPTIONS)
    uid = find_column([field.name for field in fields if is_text_or_number(field.type)], options.uid, (UID,))
    if caption is None or uid is None:
        raise no_columns(path, [field.name for field in fields], "uids")
    return caption, uid


FORMAT = Format(name="datacomp", is_here=_is_here, obstacle=_obstacle, shards=_shards)
