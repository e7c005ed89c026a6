"""Small deliveries and evaluation sets for tests, in the formats that users bring."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def image(seed: int, size: int = 16) -> bytes:
    """A noisy picture whose main colour depends on the seed."""
    generator = np.random.default_rng(seed)
    colour = np.array([255 * (seed % 2), 255 * (seed // 2 % 2), 255 * (seed // 4 % 2)])
    pixels = np.clip(colour + generator.normal(0, 40, (size, size, 3)), 0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "WEBP", lossless=True)
    return stream.getvalue()


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Put one member into a tar."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def deliver(folder: Path, seeds: range, *, spoiled: dict[int, bytes] | None = None, shard: str = "00000") -> Path:
    """Write one shard of img2dataset output; `spoiled` replaces the image bytes of some seeds."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    with tarfile.open(folder / f"{shard}.tar", "w") as tar:
        for place, seed in enumerate(seeds):
            key, caption = f"{place:08d}", f"picture of class {seed % 4}, number {seed}"
            row = {"uid": f"{seed:032x}", "key": key, "caption": caption, "status": "success"}
            content = (spoiled or {}).get(seed, image(seed))
            for suffix, part in (
                ("json", json.dumps(row).encode()),
                ("txt", caption.encode()),
                ("webp", content),
            ):
                add(tar, f"{key}.{suffix}", part)
            rows.append(row)
    pq.write_table(pa.Table.from_pylist(rows), folder / f"{shard}.parquet")
    stats = {"count": len(rows), "successes": len(rows), "failed_to_download": 0, "failed_to_resize": 0}
    (folder / f"{shard}_stats.json").write_text(json.dumps(stats))
    return folder


def evaluation_set(folder: Path, seeds: range, *, classes: int = 4) -> Path:
    """Write one evaluation set in CLIP_benchmark's webdataset layout."""
    (folder / "test").mkdir(parents=True)
    (folder / "classnames.txt").write_text("\n".join(f"class {label}" for label in range(classes)))
    (folder / "zeroshot_classification_templates.txt").write_text("{c}\npicture of {c}")
    (folder / "test/nshards.txt").write_text("1")
    with tarfile.open(folder / "test/0.tar", "w") as tar:
        for place, seed in enumerate(seeds):
            add(tar, f"{place:07d}.cls", str(seed % classes).encode())
            add(tar, f"{place:07d}.webp", image(seed))
    return folder


def retrieval_set(folder: Path, seeds: range, *, captions: int = 2) -> Path:
    """Write one retrieval set in CLIP_benchmark's webdataset layout, with some captions an image."""
    (folder / "test").mkdir(parents=True)
    (folder / "dataset_type.txt").write_text("retrieval\n")
    (folder / "test/nshards.txt").write_text("1\n")
    with tarfile.open(folder / "test/0.tar", "w") as tar:
        for place, seed in enumerate(seeds):
            lines = [f"caption {number} of picture {seed}" for number in range(captions)]
            add(tar, f"s{place:07d}.txt", "\n".join(lines).encode())
            add(tar, f"s{place:07d}.webp", image(seed))
    return folder
