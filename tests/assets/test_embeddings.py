import io

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from clipcov_assets.core.clip_model import create_clip
from clipcov_assets.core.encoding import encode_captions, encode_images
from clipcov_assets.pool_tables import list_column, row_matrix
from clipcov_assets.tables import EMBEDDINGS, delivered_embeddings_schema
from tests.world import Machine

WIDTH = 128


def picture(seed):
    stream = io.BytesIO()
    Image.frombytes("RGB", (8, 8), np.random.default_rng(seed).bytes(192)).resize((32, 32)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def machine(tmp_path):
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        made = Machine(tmp_path, instance)
        made.resources["encoder"].save(create_clip("demo", seed=0), "proxy_checkpoint")
        instance.report_runless_asset_event(dg.AssetMaterialization("proxy_checkpoint"))
        yield made


def store_pairs(machine, crawl, seeds, *, images=True):
    columns = {
        "uid": [f"{crawl}-{seed}" for seed in seeds],
        "caption": [f"a thing with number {seed}" for seed in seeds],
        "image": pa.array([picture(seed) if images else None for seed in seeds], pa.large_binary()),
        "content": pa.array([seed.to_bytes(16, "big") for seed in seeds], pa.binary(16)),
    }
    machine.instance.add_dynamic_partitions("crawl", [crawl])
    machine.instance.report_runless_asset_event(dg.AssetMaterialization("raw_pairs", partition=crawl))
    return machine.store.write("raw_pairs", crawl, pa.table(columns)).version


def deliver(machine, crawl, version, image, text):
    columns = {"uid": machine.store.read("raw_pairs", crawl, ["uid"])["uid"]}
    columns |= dict(zip(EMBEDDINGS, (list_column(rows.astype(np.float16)) for rows in (image, text)), strict=True))
    table = pa.table(columns, schema=delivered_embeddings_schema(image.shape[1]))
    machine.store.write("delivered_embeddings", crawl, table, metadata={"raw_pairs_version": str(version)})


def embed(machine, crawl, **options):
    return machine.materialize("embeddings", partition=crawl, **options)


def rows(machine, crawl):
    table = machine.store.read("embeddings", crawl)
    return table["uid"].to_pylist(), *(row_matrix(table[column]) for column in EMBEDDINGS)


def failure(result):
    return result.failure_data_for_node("embeddings").error.to_string()


def test_a_second_crawl_embeds_only_what_is_new(machine):
    store_pairs(machine, "crawl-1", range(40))
    store_pairs(machine, "crawl-2", [*range(50, 54), *range(39, 3, -1)])
    embed(machine, "crawl-1")
    result = embed(machine, "crawl-2")
    found = machine.metadata("embeddings", "crawl-2")
    assert (found["pairs_embedded"], found["pairs_reused"], found["reused/crawl-1"]) == (4, 36, 36)
    (_, image, text), (uid, again, text_again) = rows(machine, "crawl-1"), rows(machine, "crawl-2")
    assert uid[4] == "crawl-2-39"
    assert np.array_equal(again[4:], image[39:3:-1])
    assert np.array_equal(text_again[4:], text[39:3:-1])
    assert all(check.passed for check in result.get_asset_check_evaluations())


def test_a_crawl_whose_delivery_grew_keeps_its_embeddings(machine):
    store_pairs(machine, "crawl-1", range(10))
    embed(machine, "crawl-1")
    _, before, _ = rows(machine, "crawl-1")
    store_pairs(machine, "crawl-1", range(12))
    embed(machine, "crawl-1")
    assert machine.metadata("embeddings", "crawl-1")["pairs_embedded"] == 2
    assert np.array_equal(rows(machine, "crawl-1")[1][:10], before)


def test_a_new_proxy_embeds_everything(machine):
    store_pairs(machine, "crawl-1", range(5))
    embed(machine, "crawl-1")
    machine.resources["encoder"].save(create_clip("demo", seed=1), "proxy_checkpoint")
    embed(machine, "crawl-1")
    assert machine.metadata("embeddings", "crawl-1")["pairs_embedded"] == 5


def own_embeddings(machine, crawl):
    clip, pairs = create_clip("demo", seed=0), machine.store.read("raw_pairs", crawl)
    uid = pairs["uid"].to_pylist()
    images = encode_images(clip, zip(uid, pairs["image"].to_pylist(), strict=True), device="cpu", batch_size=len(uid))
    captions = zip(uid, pairs["caption"].to_pylist(), strict=True)
    return tuple(
        np.concatenate(list(part))
        for part in (images, encode_captions(clip, captions, device="cpu", batch_size=len(uid)))
    )


def test_embeddings_of_the_proxy_that_came_along_are_taken_over(machine):
    version = store_pairs(machine, "crawl-1", range(20))
    image, text = own_embeddings(machine, "crawl-1")
    deliver(machine, "crawl-1", version, image, text)
    embed(machine, "crawl-1")
    found = machine.metadata("embeddings", "crawl-1")
    assert (found["pairs_taken_over"], found["pairs_embedded"], found["pairs_reused"]) == (20, 0, 0)
    assert found["spot_check_image_cosine"] == pytest.approx(1, abs=1e-3)
    assert found["spot_check_text_cosine"] == pytest.approx(1, abs=1e-3)
    _, image_rows, text_rows = rows(machine, "crawl-1")
    assert np.array_equal(image_rows, image.astype(np.float16))
    assert np.array_equal(text_rows, text.astype(np.float16))
    store_pairs(machine, "crawl-2", range(20))
    embed(machine, "crawl-2")
    assert machine.metadata("embeddings", "crawl-2")["pairs_embedded"] == 20


def test_a_delivered_row_that_is_a_little_off_is_scaled_and_does_not_stop_its_crawl(machine):
    version = store_pairs(machine, "crawl-1", range(20))
    image, text = own_embeddings(machine, "crawl-1")
    spoiled = image.copy()
    spoiled[7] *= 1.008  # what ingest lets pass, and the check on unit rows does not
    deliver(machine, "crawl-1", version, spoiled, text)
    result = embed(machine, "crawl-1")
    assert all(check.passed for check in result.get_asset_check_evaluations())
    _, image_rows, _ = rows(machine, "crawl-1")
    assert np.allclose(image_rows[7], image[7], atol=1e-3)
    others = np.arange(20) != 7
    assert np.array_equal(image_rows[others], image[others].astype(np.float16))


def test_pairs_without_images_are_taken_over_by_their_captions(machine):
    store_pairs(machine, "crawl-1", range(20))
    image, text = own_embeddings(machine, "crawl-1")
    version = store_pairs(machine, "crawl-1", range(20), images=False)
    deliver(machine, "crawl-1", version, image, text)
    embed(machine, "crawl-1")
    found = machine.metadata("embeddings", "crawl-1")
    assert found["pairs_taken_over"] == 20
    assert "spot_check_image_cosine" not in found


@pytest.mark.parametrize("strange", ["image", "text"])
def test_embeddings_of_another_model_are_refused(machine, strange):
    version = store_pairs(machine, "crawl-1", range(20))
    delivered = dict(zip(("image", "text"), own_embeddings(machine, "crawl-1"), strict=True))
    delivered[strange] = np.roll(delivered[strange], 1, axis=1)
    deliver(machine, "crawl-1", version, delivered["image"], delivered["text"])
    said = failure(embed(machine, "crawl-1", ok=False))
    for words in (
        f"cosine of {strange} embeddings is",
        "demo, trained on the oldest crawl",
        "scale's proxy",
        "delivery.toml",
    ):
        assert words in said
    assert not machine.store.exists("embeddings", "crawl-1")


def test_embeddings_of_another_width_are_refused(machine):
    version = store_pairs(machine, "crawl-1", range(5))
    narrow = np.eye(5, 64)
    deliver(machine, "crawl-1", version, narrow, narrow)
    said = failure(embed(machine, "crawl-1", ok=False))
    for words in ("64 wide", "are 128", "scale's proxy", 'embeddings = "none"'):
        assert words in said


def test_embeddings_of_an_earlier_delivery_are_not_taken_over(machine):
    version = store_pairs(machine, "crawl-1", range(5), images=False)
    rows = np.eye(5, WIDTH)
    deliver(machine, "crawl-1", version, rows, rows)
    store_pairs(machine, "crawl-1", range(6), images=False)
    said = failure(embed(machine, "crawl-1", ok=False))
    assert "pair crawl-1-0 of crawl-1 has neither an image nor delivered embeddings" in said
