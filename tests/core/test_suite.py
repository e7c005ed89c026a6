import re
import subprocess
import sys

import pytest

from clipcov_assets.core.prompts import Prompts, imagenet_prompts
from clipcov_assets.core.suite import (
    GROUPS,
    KNOWN_SETS,
    MEAN_RECALL,
    PER_CLASS,
    known_set,
    slice_classes,
)

SETS = {one.name: one for one in KNOWN_SETS}


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("imagenet1k", "imagenet1k"),
        ("wds_imagenet-a_test", "imagenet-a"),
        ("imagenet_sketch", "imagenet_sketch"),
        ("wds_vtab-dtd_test", "dtd"),
        ("wds_vtab-dtd", "dtd"),
        ("vtab/caltech101", "caltech101"),
        ("wds_mscoco_captions", "mscoco_captions"),
        ("ObjectNet", "objectnet"),
    ],
)
def test_a_set_is_known_by_the_folders_that_people_have(folder: str, name: str) -> None:
    assert known_set(folder) == SETS[name]


@pytest.mark.parametrize("folder", ["mine", "imagenet", "imagenet1k_val", "dtd2", ""])
def test_other_folders_are_sets_of_ones_own(folder: str) -> None:
    assert known_set(folder) is None


def test_names_and_folders_belong_to_one_set_each() -> None:
    folders = [folder for one in KNOWN_SETS for folder in one.folders]
    assert len(set(folders)) == len(folders)
    assert len(SETS) == len(KNOWN_SETS)


def test_main_metrics_are_those_of_datacomp() -> None:
    assert {one.name for one in KNOWN_SETS if one.main_metric == PER_CLASS} == {
        "caltech101",
        "fgvc_aircraft",
        "flowers",
        "pets",
    }
    assert {one.name for one in KNOWN_SETS if one.main_metric == MEAN_RECALL} == {
        "flickr30k",
        "flickr8k",
        "mscoco_captions",
    }


def test_groups_are_those_of_the_paper_and_of_datacomp() -> None:
    sets = {group.name: group.sets for group in GROUPS}
    assert {name: len(members) for name, members in sets.items()} == {
        "imagenet": 1,
        "shift5": 5,
        "average11": 11,
        "shift6": 6,
        "others5": 5,
    }
    assert set(sets["average11"]) == {*sets["imagenet"], *sets["shift5"], *sets["others5"]}
    assert set(sets["shift6"]) - set(sets["shift5"]) == {"imagenet-o"}


def test_every_set_of_a_group_has_its_prompts_pinned() -> None:
    for name in {name for group in GROUPS for name in group.sets}:
        assert SETS[name].prompts_sha256
        assert all(re.fullmatch("[0-9a-f]{64}", one) for one in SETS[name].prompts_sha256)


def test_pinned_prompts_of_the_imagenet_family_are_those_of_open_clip() -> None:
    published = imagenet_prompts()
    for name in ("imagenet1k", "imagenetv2", "imagenet_sketch"):
        assert SETS[name].prompts_sha256 == (published.sha256,)
    for name in ("imagenet-a", "imagenet-r"):
        classes = slice_classes(SETS[name].imagenet_slice)
        names = tuple(published.class_names[label] for label in classes)
        assert SETS[name].prompts_sha256 == (Prompts(names, published.templates).sha256,)


def test_slices_have_two_hundred_classes_and_share_eighty_six() -> None:
    a, r = slice_classes("a"), slice_classes("r")
    assert [len(a), len(r)] == [200, 200]
    assert list(a) == sorted(set(a))
    assert list(r) == sorted(set(r))
    assert 0 <= min(a + r) <= max(a + r) < 1000
    assert len(set(a) & set(r)) == 86


def test_the_sets_are_known_without_torch() -> None:
    code = "import sys, clipcov_assets.core.suite; sys.exit('torch' in sys.modules or 'timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
