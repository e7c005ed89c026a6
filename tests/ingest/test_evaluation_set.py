import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from clipcov_assets.core.prompts import imagenet_prompts
from clipcov_assets.core.suite import slice_classes
from clipcov_assets.ingest.delivery import DeliveryError
from clipcov_assets.ingest.evaluation_set import find_evaluation_sets, read_prompts
from clipcov_assets.ingest.shard_digests import ShardDigests
from tests.deliveries import retrieval_set

Labelled = Callable[..., list[tuple[str, bytes]]]

DEMO = Path(__file__).parents[2] / "data" / "demo" / "eval"


@pytest.fixture
def labelled(make: SimpleNamespace) -> Labelled:
    def labelled(*labels: object) -> list[tuple[str, bytes]]:
        return [
            member
            for number, label in enumerate(labels)
            for member in ((f"s{number}.cls", str(label).encode()), (f"s{number}.png", make.image(number)))
        ]

    return labelled


@pytest.fixture
def imagenet_family(tmp_path: Path, make: SimpleNamespace, labelled: Labelled) -> Callable[..., Path]:
    """Writes a set with the names of some of ImageNet's classes, and OpenAI's templates."""

    def write(folder: str, labels: list[int], classes: tuple[int, ...] = tuple(range(1000))) -> Path:
        names = imagenet_prompts().class_names
        path = make.evaluation_set(
            tmp_path / folder, [labelled(*labels)], classes="\n".join(names[one] for one in classes)
        )
        (path / "zeroshot_classification_templates.txt").write_text("\n".join(imagenet_prompts().templates) + "\n\n")
        return path

    return write


def test_the_sets_of_the_demo_are_found() -> None:
    sets = find_evaluation_sets(DEMO)
    assert [found.name for found in sets] == ["emoji_id_subgroup", "emoji_ood_openmoji_subgroup"]
    assert [len(found) for found in sets] == [287, 635]
    assert [found.known for found in sets] == [None, None]


def test_images_come_in_order_with_keys_unique_across_shards(
    tmp_path: Path, make: SimpleNamespace, labelled: Labelled
) -> None:
    make.evaluation_set(tmp_path / "pets", [labelled(1, 0), labelled(1)])
    (pets,) = find_evaluation_sets(tmp_path)
    assert pets.prompts.class_names == ("cat", "dog")
    assert pets.prompts.templates == ("a photo of {c}.", "{c}")
    assert pets.keys == ("0/s0", "0/s1", "1/s0")
    assert pets.labels.tolist() == [1, 0, 1]
    assert [pets.image(place) for place in range(len(pets))] == [make.image(0), make.image(1), make.image(0)]
    assert (pets.is_retrieval, pets.captions) == (False, None)


def test_a_retrieval_set_has_captions_and_no_classes(tmp_path: Path) -> None:
    retrieval_set(tmp_path / "wds_flickr30k_test", range(3), captions=5)
    (found,) = find_evaluation_sets(tmp_path)
    assert found.is_retrieval
    assert (found.known.name, found.prompts, found.labels, found.other_prompts) == ("flickr30k", None, None, False)
    assert [len(captions) for captions in found.captions] == [5, 5, 5]
    assert found.captions[2][4] == "caption 4 of picture 2"


def test_sets_are_sorted_by_name_and_hidden_folders_are_none(
    tmp_path: Path, make: SimpleNamespace, labelled: Labelled
) -> None:
    (tmp_path / ".cache").mkdir()
    for name in ("b", "vtab/dtd", "a"):
        make.evaluation_set(tmp_path / name, [labelled(0)])
    sets = find_evaluation_sets(tmp_path)
    assert [found.name for found in sets] == ["a", "b", "vtab/dtd"]
    assert [found.known and found.known.name for found in sets] == [None, None, "dtd"]


def test_a_set_goes_to_other_processes_and_is_read_in_many_threads(
    tmp_path: Path, make: SimpleNamespace, labelled: Labelled
) -> None:
    make.evaluation_set(tmp_path / "pets", [labelled(*[0] * 40), labelled(*[1] * 40)])
    (pets,) = find_evaluation_sets(tmp_path)
    expected = [make.image(place % 40) for place in range(80)]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(pets.image, range(80))) == expected
    with ProcessPoolExecutor(1, get_context("spawn")) as processes:
        assert list(processes.map(pets.image, [0, 79])) == [expected[0], expected[79]]


def test_a_set_stays_small_however_large_its_images_are(tmp_path: Path, make: SimpleNamespace) -> None:
    members = [("a.cls", b"0"), ("a.png", bytes(10_000_000))]
    make.evaluation_set(tmp_path / "pets", [members])
    (pets,) = find_evaluation_sets(tmp_path)
    assert len(pickle.dumps(pets)) < 5_000


def test_an_image_that_does_not_decode_is_still_one_of_the_set(tmp_path: Path, make: SimpleNamespace) -> None:
    make.evaluation_set(tmp_path / "pets", [[("a.cls", b"0"), ("a.png", b"no image")]])
    (pets,) = find_evaluation_sets(tmp_path)
    assert [pets.image(place) for place in range(len(pets))] == [b"no image"]


def test_a_shard_that_changes_after_it_was_read_gives_no_image(
    tmp_path: Path, make: SimpleNamespace, labelled: Labelled
) -> None:
    folder = make.evaluation_set(tmp_path / "pets", [labelled(0, 1)])
    (pets,) = find_evaluation_sets(tmp_path)
    os.utime(folder / "test" / "0.tar", ns=(1, 1))
    with pytest.raises(DeliveryError, match=r"'pets', 0/s1: .*0\.tar has changed"):
        pets.image(1)
    (folder / "test" / "0.tar").unlink()
    with pytest.raises(DeliveryError, match=r"'pets', 0/s1: .*0\.tar"):
        pets.image(1)


def test_a_set_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, make: SimpleNamespace, labelled: Labelled, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make.evaluation_set(tmp_path / "pets", [labelled(0)])

    def arrive_late(*_: object) -> bytes:
        os.utime(folder / "test" / "0.tar", ns=(1, 1))
        return b""

    monkeypatch.setattr(ShardDigests, "of", arrive_late)
    with pytest.raises(DeliveryError, match="'pets' has changed while it was read"):
        find_evaluation_sets(tmp_path)


def test_the_hash_changes_with_every_part(tmp_path: Path, make: SimpleNamespace, labelled: Labelled) -> None:
    def sha256(name: str, shards: list[list[tuple[str, bytes]]], **changes: str) -> str:
        make.evaluation_set(tmp_path / name / "same", shards, **changes)
        return find_evaluation_sets(tmp_path / name)[0].sha256

    original = sha256("0", [labelled(0, 1)])
    assert sha256("1", [labelled(0, 1)]) == original
    changed = {
        sha256("2", [labelled(1, 1)]),
        sha256("3", [labelled(0), labelled(1)]),
        sha256("4", [labelled(0, 1)], classes="cat\ncow"),
    }
    assert len(changed | {original}) == 4


class TestHashesThatAreKept:
    @pytest.fixture
    def digests(self, tmp_path: Path) -> Path:
        return tmp_path / "cache" / "digests.json"

    @pytest.fixture
    def folder(self, tmp_path: Path, make: SimpleNamespace, labelled: Labelled) -> Path:
        make.evaluation_set(tmp_path / "eval" / "pets", [labelled(0, 1), labelled(1)])
        return tmp_path / "eval"

    def test_they_are_those_that_are_computed(self, folder: Path, digests: Path) -> None:
        (plain,) = find_evaluation_sets(folder)
        for _ in range(2):
            (kept,) = find_evaluation_sets(folder, digests)
            assert kept.sha256 == plain.sha256

    def test_a_shard_is_read_through_once(self, folder: Path, digests: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (first,) = find_evaluation_sets(folder, digests)
        monkeypatch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("a shard is read again"))
        (second,) = find_evaluation_sets(folder, digests)
        assert second.sha256 == first.sha256

    def test_a_shard_of_another_time_is_read_again(self, folder: Path, digests: Path, make: SimpleNamespace) -> None:
        (first,) = find_evaluation_sets(folder, digests)
        shard = folder / "pets" / "test" / "1.tar"
        other = make.tar([("s1.cls", b"1"), ("s1.png", make.image(0))])
        assert len(other) == shard.stat().st_size
        shard.write_bytes(other)
        os.utime(shard, ns=(1, 1))
        (second,) = find_evaluation_sets(folder, digests)
        assert second.sha256 != first.sha256
        assert second.sha256 == find_evaluation_sets(folder)[0].sha256

    @pytest.mark.parametrize("content", [b"", b"[1]", b'{"a', b"\xff", b'{"PATH": [1, "x"]}'])
    def test_a_damaged_file_of_them_is_written_anew(self, folder: Path, digests: Path, content: bytes) -> None:
        (first,) = find_evaluation_sets(folder, digests)
        shard = str(folder / "pets" / "test" / "0.tar")
        digests.write_bytes(content.replace(b"PATH", shard.encode()))
        (second,) = find_evaluation_sets(folder, digests)
        assert second.sha256 == first.sha256
        assert shard in json.loads(digests.read_text())
        assert [path.name for path in digests.parent.iterdir()] == ["digests.json"]


class TestKnownSets:
    def test_published_prompts_are_recognized_and_others_are_told(
        self, imagenet_family: Callable[..., Path], tmp_path: Path
    ) -> None:
        folder = imagenet_family("wds_imagenetv2_test", [0, 999])
        (found,) = find_evaluation_sets(tmp_path)
        assert (found.known.title, found.other_prompts) == ("ImageNet-V2", False)
        (folder / "zeroshot_classification_templates.txt").write_text("a photo of {c}")
        (found,) = find_evaluation_sets(tmp_path)
        assert found.other_prompts

    def test_a_set_of_ones_own_has_no_published_prompts(
        self, tmp_path: Path, make: SimpleNamespace, labelled: Labelled
    ) -> None:
        make.evaluation_set(tmp_path / "mine", [labelled(0)])
        (found,) = find_evaluation_sets(tmp_path)
        assert (found.known, found.other_prompts) == (None, False)

    @pytest.mark.parametrize("name", ["a", "r"])
    def test_a_slice_with_all_names_equals_the_slice_with_its_own(
        self, imagenet_family: Callable[..., Path], tmp_path: Path, name: str
    ) -> None:
        classes = slice_classes(name)
        imagenet_family(f"full/imagenet-{name}", [classes[0], classes[7], classes[199]])
        imagenet_family(f"own/imagenet-{name}", [0, 7, 199], classes)
        (full,), (own,) = (find_evaluation_sets(tmp_path / form) for form in ("full", "own"))
        assert len(full.prompts.class_names) == 200
        assert full.prompts == own.prompts
        assert full.labels.tolist() == own.labels.tolist() == [0, 7, 199]
        assert full.labels.dtype == own.labels.dtype == np.int64
        assert not full.other_prompts
        assert not own.other_prompts

    def test_an_image_of_a_class_outside_the_slice_is_named(
        self, imagenet_family: Callable[..., Path], tmp_path: Path
    ) -> None:
        imagenet_family("imagenet-a", [slice_classes("a")[0], 0])
        with pytest.raises(DeliveryError, match=r"'imagenet-a', 0/s1: class 0 \('tench'\) is not among its 200"):
            find_evaluation_sets(tmp_path)

    def test_imagenet_itself_is_no_slice(self, imagenet_family: Callable[..., Path], tmp_path: Path) -> None:
        imagenet_family("imagenet1k", [0, 999])
        (found,) = find_evaluation_sets(tmp_path)
        assert found.labels.tolist() == [0, 999]

    def test_two_folders_of_one_known_set_are_refused(
        self, tmp_path: Path, make: SimpleNamespace, labelled: Labelled
    ) -> None:
        for name in ("dtd", "wds_vtab-dtd_test"):
            make.evaluation_set(tmp_path / name, [labelled(0)])
        with pytest.raises(DeliveryError, match="'dtd' and 'wds_vtab-dtd_test' are both DTD"):
            find_evaluation_sets(tmp_path)


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_no_evaluation_set_is_refused_with_the_layout(tmp_path: Path, name: str) -> None:
    with pytest.raises(DeliveryError, match=r"no evaluation set in.*classnames\.txt"):
        find_evaluation_sets(tmp_path / name)


def test_a_folder_that_is_no_set_is_named(tmp_path: Path, make: SimpleNamespace, labelled: Labelled) -> None:
    make.evaluation_set(tmp_path / "pets", [labelled(0)])
    (tmp_path / "notes").mkdir()
    with pytest.raises(DeliveryError, match=r"notes/classnames\.txt cannot be read"):
        find_evaluation_sets(tmp_path)


@pytest.mark.parametrize(
    "name", ["classnames.txt", "zeroshot_classification_templates.txt", "test/nshards.txt", "test/0.tar"]
)
def test_a_missing_file_is_named(tmp_path: Path, make: SimpleNamespace, labelled: Labelled, name: str) -> None:
    (make.evaluation_set(tmp_path / "pets", [labelled(0)]) / name).unlink()
    with pytest.raises(DeliveryError, match="pets.*" + Path(name).name.replace("0.tar", "nshards.txt")):
        find_evaluation_sets(tmp_path)


def test_a_set_without_its_test_folder_is_named(tmp_path: Path, make: SimpleNamespace, labelled: Labelled) -> None:
    shutil.rmtree(make.evaluation_set(tmp_path / "pets", [labelled(0)]) / "test")
    with pytest.raises(DeliveryError, match=r"pets/test/nshards\.txt cannot be read"):
        find_evaluation_sets(tmp_path)


def test_a_link_to_a_shard_that_is_not_there_is_no_shard(
    tmp_path: Path, make: SimpleNamespace, labelled: Labelled
) -> None:
    shard = make.evaluation_set(tmp_path / "pets", [labelled(0)]) / "test" / "0.tar"
    shard.unlink()
    shard.symlink_to(tmp_path / "blob")
    with pytest.raises(DeliveryError, match=r"nshards\.txt says '1' shards, but .* holds 0"):
        find_evaluation_sets(tmp_path)


@pytest.mark.parametrize("number", ["1", "3", "two"])
def test_a_wrong_number_of_shards_is_refused(
    tmp_path: Path, make: SimpleNamespace, labelled: Labelled, number: str
) -> None:
    folder = make.evaluation_set(tmp_path / "pets", [labelled(0), labelled(1)])
    (folder / "test" / "nshards.txt").write_text(number)
    with pytest.raises(DeliveryError, match=r"nshards\.txt.*2 \.tar"):
        find_evaluation_sets(tmp_path)


def test_a_type_of_set_that_is_not_scored_is_named(tmp_path: Path, make: SimpleNamespace, labelled: Labelled) -> None:
    folder = make.evaluation_set(tmp_path / "pets", [labelled(0)])
    (folder / "dataset_type.txt").write_text("multilabel\n")
    with pytest.raises(DeliveryError, match=r"pets/dataset_type\.txt says 'multilabel'"):
        find_evaluation_sets(tmp_path)


@pytest.mark.parametrize("label", ["2", "-1", "", "cat", "0000000001", "1.0"])
def test_a_label_outside_the_classes_is_refused(
    tmp_path: Path, make: SimpleNamespace, labelled: Labelled, label: str
) -> None:
    make.evaluation_set(tmp_path / "pets", [labelled(0, label)])
    with pytest.raises(DeliveryError, match=r"'pets', 0/s1: label .* not in 0\.\.1"):
        find_evaluation_sets(tmp_path)


@pytest.mark.parametrize(
    ("captions", "words"), [(b"", "blank"), (b"one\n \nthree", "blank"), (b"caf\xe9", "not UTF-8")]
)
def test_captions_that_cannot_be_used_are_named(
    tmp_path: Path, make: SimpleNamespace, captions: bytes, words: str
) -> None:
    folder = retrieval_set(tmp_path / "pairs", range(1))
    content = make.tar([("a.txt", b"fine"), ("a.png", make.image()), ("b.txt", captions), ("b.png", make.image())])
    (folder / "test" / "0.tar").write_bytes(content)
    with pytest.raises(DeliveryError, match=f"'pairs', 0/b: .*{words}"):
        find_evaluation_sets(tmp_path)


@pytest.mark.parametrize("drop", [0, 1])
def test_an_image_and_its_label_come_together(
    tmp_path: Path, make: SimpleNamespace, labelled: Labelled, drop: int
) -> None:
    members = labelled(0, 1)
    del members[drop]
    make.evaluation_set(tmp_path / "pets", [members])
    with pytest.raises(DeliveryError, match=r"'pets', 0/s0: . images and . \.cls"):
        find_evaluation_sets(tmp_path)


def test_labels_are_no_captions(tmp_path: Path, make: SimpleNamespace, labelled: Labelled) -> None:
    folder = retrieval_set(tmp_path / "pairs", range(1))
    (folder / "test" / "0.tar").write_bytes(make.tar(labelled(0)))
    with pytest.raises(DeliveryError, match=r"'pairs', 0/s0: 1 images and 0 \.txt"):
        find_evaluation_sets(tmp_path)


def test_a_key_used_twice_is_refused(tmp_path: Path, make: SimpleNamespace, labelled: Labelled) -> None:
    make.evaluation_set(tmp_path / "pets", [[*labelled(0, 1), *labelled(1)]])
    with pytest.raises(DeliveryError, match="'pets' uses a key twice"):
        find_evaluation_sets(tmp_path)


def test_a_set_without_images_is_refused(tmp_path: Path, make: SimpleNamespace) -> None:
    make.evaluation_set(tmp_path / "pets", [[]])
    with pytest.raises(DeliveryError, match="'pets' holds no image"):
        find_evaluation_sets(tmp_path)


def test_a_shard_cut_short_between_two_images_is_noticed(
    tmp_path: Path, make: SimpleNamespace, labelled: Labelled
) -> None:
    folder = make.evaluation_set(tmp_path / "pets", [labelled(0, 1)])
    shard = folder / "test" / "0.tar"
    shard.write_bytes(shard.read_bytes()[:2048])
    with pytest.raises(DeliveryError, match=r"0\.tar is damaged or cut short"):
        find_evaluation_sets(tmp_path)


@pytest.mark.parametrize(
    "names, templates, complaint",
    [
        (b"", b"{c}", "names.txt is empty"),
        (b"cat", b" \n", "templates.txt is empty"),
        (b"cat\n\ndog", b"{c}", "names.txt"),
        (b"cat", b"a photo", "templates.txt"),
        (b"caf\xe9", b"{c}", "names.txt cannot be read"),
    ],
)
def test_prompts_that_cannot_be_used_name_their_file(
    tmp_path: Path, names: bytes, templates: bytes, complaint: str
) -> None:
    (tmp_path / "names.txt").write_bytes(names)
    (tmp_path / "templates.txt").write_bytes(templates)
    with pytest.raises(DeliveryError, match=complaint):
        read_prompts(tmp_path / "names.txt", tmp_path / "templates.txt")


def test_prompts_are_read_line_by_line(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_bytes("cat \r\nchâteau\r\n\r\n".encode())
    (tmp_path / "templates.txt").write_bytes(b"{c}\na {c}")
    prompts = read_prompts(tmp_path / "names.txt", tmp_path / "templates.txt")
    assert prompts.class_names == ("cat", "château")
    assert prompts.templates == ("{c}", "a {c}")
