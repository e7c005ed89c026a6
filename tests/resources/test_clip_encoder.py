"""Checkpoints in a directory and at an address: saved whole, loaded as they are now, copied once."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from clipcov_assets.core.clip_model import create_clip, weights_sha256
from resources.clip_encoder import MOST_CACHED, ClipEncoder
from resources.mirror import Address, UnreadableAddressError

NAME = "clipcov_checkpoint/crawl-1/f10"
LOAD = """
import sys
from clipcov_assets.core.clip_model import weights_sha256
from resources.clip_encoder import ClipEncoder
encoder = ClipEncoder(directory=sys.argv[1], cache=sys.argv[2])
print(weights_sha256(encoder.load("demo", sys.argv[3]).model))
"""


@pytest.fixture(params=["directory", "file address", "bucket"])
def encoder(request, tmp_path):
    models = tmp_path / "models"
    places = {"directory": models.__str__, "file address": models.as_uri}
    at = places[request.param]() if request.param in places else request.getfixturevalue("bucket").at("models")
    return ClipEncoder(directory=at, cache=str(tmp_path / "cache"))


@pytest.fixture
def in_bucket(bucket, tmp_path):
    return ClipEncoder(directory=bucket.at("models"), cache=str(tmp_path / "cache"))


def model(seed):
    return create_clip("demo", seed=seed)


def sha256(clip):
    return weights_sha256(clip.model)


def copies(encoder):
    return sorted(Path(encoder.cache).glob("*.pt"))


def test_a_checkpoint_is_loaded_as_it_was_saved(encoder):
    saved = encoder.save(model(1), f"{NAME}/seed-1")
    assert saved.path == encoder.path(f"{NAME}/seed-1") == f"{encoder.directory}/{NAME}/seed-1/weights.pt"
    assert sha256(encoder.load("demo", saved.path)) == saved.sha256 == sha256(model(1))


def test_a_checkpoint_that_was_replaced_is_seen_at_once(encoder):
    for seed in (1, 2, 3):
        saved = encoder.save(model(seed), NAME)
        assert sha256(encoder.load("demo", saved.path)) == sha256(model(seed))
    assert len(copies(encoder)) == ("://" in encoder.directory)


def test_weights_of_other_seeds_go_and_other_checkpoints_stay(encoder):
    for seed in (0, 1, 2):
        encoder.save(model(seed), f"{NAME}/seed-{seed}")
    other = encoder.save(model(5), "clipcov_checkpoint/crawl-1/f100/seed-5")
    encoder.keep_seeds(NAME, [1])
    encoder.keep_seeds("nobody/trained", [0])
    assert Address.at(encoder.directory).below(NAME).names() == ["seed-1"]
    assert sha256(encoder.load("demo", other.path)) == other.sha256


def test_a_checkpoint_that_is_not_there_is_named(encoder):
    with pytest.raises(FileNotFoundError, match="no checkpoint at .*nobody/weights.pt: give the path or address"):
        encoder.load("demo", encoder.path("nobody"))


def test_nothing_is_left_where_a_checkpoint_was_written(encoder, tmp_path):
    encoder.save(model(1), NAME)
    assert Address.at(encoder.directory).below(NAME).names() == ["weights.pt"]
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".unfinished"]


def test_a_checkpoint_is_copied_once(proxy, in_bucket):
    saved = in_bucket.save(model(1), NAME)
    in_bucket.load("demo", saved.path)
    read = [one for one in proxy.passed if one.startswith("GET /pool/models/")]
    assert read
    for _ in range(2):
        in_bucket.load("demo", saved.path)
    assert [one for one in proxy.passed if one.startswith("GET /pool/models/")] == read


def test_a_damaged_copy_is_never_used(in_bucket):
    saved = in_bucket.save(model(1), NAME)
    in_bucket.load("demo", saved.path)
    (copy,) = copies(in_bucket)
    # As if the process was killed while it copied another version.
    copy.with_suffix(".stamp").unlink()
    copy.write_bytes(b"half")
    assert sha256(in_bucket.load("demo", saved.path)) == saved.sha256


def test_two_processes_load_at_once(in_bucket, monkeypatch):
    saved = in_bucket.save(model(1), NAME)
    command = [sys.executable, "-c", LOAD, in_bucket.directory, in_bucket.cache, saved.path]
    started = [subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE) for _ in range(2)]
    assert [process.communicate()[0].decode().strip() for process in started] == [saved.sha256] * 2
    assert len(copies(in_bucket)) == 1


def test_copies_that_were_not_wanted_for_long_are_forgotten(in_bucket):
    place = Address.at(in_bucket.directory)
    torch.save(model(1).model.state_dict(), source := Path(in_bucket.cache).with_name("source"))
    names = [f"{number}/weights.pt" for number in range(MOST_CACHED + 2)]
    for name in names:
        place.upload(name, source)
    for name in [*names, names[2]]:
        in_bucket.load("demo", f"{in_bucket.directory}/{name}")
        time.sleep(0.01)
    assert len(copies(in_bucket)) == len(list(Path(in_bucket.cache).glob("*.stamp"))) == MOST_CACHED
    inode = {path.stat().st_ino for path in copies(in_bucket)}
    in_bucket.load("demo", f"{in_bucket.directory}/{names[2]}")
    assert {path.stat().st_ino for path in copies(in_bucket)} == inode


def test_the_checkpoint_of_another_address_is_loaded(in_bucket, bucket, tmp_path):
    other = ClipEncoder(directory=bucket.at("elsewhere"), cache=in_bucket.cache).save(model(4), "a")
    assert sha256(in_bucket.load("demo", other.path)) == other.sha256
    local = ClipEncoder(directory=str(tmp_path / "models"), cache=in_bucket.cache)
    assert sha256(local.load("demo", other.path)) == other.sha256


def test_an_address_that_names_its_server_does_not_show_it_in_the_paths(bucket, monkeypatch, tmp_path):
    server = bucket.endpoint.removeprefix("http://")
    bucket.use(monkeypatch, AWS_ENDPOINT_URL="http://127.0.0.1:1")
    encoder = ClipEncoder(
        directory=f"s3://testing:hunter2@pool/models?endpoint_override={server}&scheme=http",
        cache=str(tmp_path / "cache"),
    )
    saved = encoder.save(model(1), NAME)
    assert saved.path == f"s3://pool/models/{NAME}/weights.pt"
    assert sha256(encoder.load("demo", saved.path)) == saved.sha256


def test_a_bucket_that_is_not_there_is_not_taken_for_a_missing_checkpoint(bucket, tmp_path):
    encoder = ClipEncoder(directory="s3://nobody-has-this/models", cache=str(tmp_path / "cache"))
    for use in (lambda: encoder.load("demo", encoder.path("a")), lambda: encoder.save(model(1), "a")):
        with pytest.raises(UnreadableAddressError, match="CLIPCOV_CHECKPOINTS=s3://nobody-has-this/models"):
            use()
