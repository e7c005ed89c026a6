from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from clipcov_assets.ingest.delivery import DeliveryError
from clipcov_assets.ingest.evaluation_set import find_evaluation_sets, read_prompts

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


def test_the_sets_of_the_demo_are_found() -> None:
    sets = find_evaluation_sets(DEMO)
    assert [found.name for found in sets] == ["emoji_id_subgroup", "emoji_ood_openmoji_subgroup"]
    assert [sum(1 for _ in found.images()) for found in sets] == [287, 635]


def test_images_come_in_order_with_keys_unique_across_shards(
    tmp_path: Path, make: SimpleNamespace, labelled: Labelled
) -> None:
    make.evaluation_set(tmp_path / "pets", [labelled(1, 0), labelled(1)])
    (pets,) = find_evaluation_sets(tmp_path)
    assert pets.prompts.class_names == ("cat", "dog")
    assert pets.prompts.templates == ("a photo of {c}.", "{c}")
    images = list(pets.images())
    assert [(key, label) for key, _, label in images] == [("0/s0", 1), ("0/s1", 0), ("1/s0", 1)]
    assert images[1][1] == make.image(1)


def test_sets_are_sorted_by_name_and_hidden_folders_are_none(
    tmp_path: Path, make: SimpleNamespace, labelled: Labelled
) -> None:
    (tmp_path / ".cache").mkdir()
    for name in ("b", "a"):
        make.evaluation_set(tmp_path / name, [labelled(0)])
    assert [found.name for found in find_evaluation_sets(tmp_path)] == ["a", "b"]


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


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_no_evaluation_set_is_refused_with_the_layout(tmp_path: Path, name: str) -> None:
    with pytest.raises(DeliveryError, match=r"no evaluation set in.*classnames\.txt"):
        find_evaluation_sets(tmp_path / name)


@pytest.mark.parametrize(
    "name", ["classnames.txt", "zeroshot_classification_templates.txt", "test/nshards.txt", "test/0.tar"]
)
def test_a_missing_file_is_named(tmp_path: Path, make: SimpleNamespace, labelled: Labelled, name: str) -> None:
    (make.evaluation_set(tmp_path / "pets", [labelled(0)]) / name).unlink()
    with pytest.raises(DeliveryError, match="pets.*" + Path(name).name.replace("0.tar", "nshards.txt")):
        find_evaluation_sets(tmp_path)


@pytest.mark.parametrize("number", ["1", "3", "two"])
def test_a_wrong_number_of_shards_is_refused(
    tmp_path: Path, make: SimpleNamespace, labelled: Labelled, number: str
) -> None:
    folder = make.evaluation_set(tmp_path / "pets", [labelled(0), labelled(1)])
    (folder / "test" / "nshards.txt").write_text(number)
    with pytest.raises(DeliveryError, match=r"nshards\.txt.*2 \.tar"):
        find_evaluation_sets(tmp_path)


@pytest.mark.parametrize("label", ["2", "-1", "", "cat", "0000000001", "1.0"])
def test_a_label_outside_the_classes_is_refused(
    tmp_path: Path, make: SimpleNamespace, labelled: Labelled, label: str
) -> None:
    make.evaluation_set(tmp_path / "pets", [labelled(0, label)])
    with pytest.raises(DeliveryError, match=r"'pets', 0/s1: label .* not in 0\.\.1"):
        find_evaluation_sets(tmp_path)


@pytest.mark.parametrize("drop", [0, 1])
def test_an_image_and_its_label_come_together(
    tmp_path: Path, make: SimpleNamespace, labelled: Labelled, drop: int
) -> None:
    members = labelled(0, 1)
    del members[drop]
    make.evaluation_set(tmp_path / "pets", [members])
    with pytest.raises(DeliveryError, match="'pets', 0/s0: . images and . labels"):
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
