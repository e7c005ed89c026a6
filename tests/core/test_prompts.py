import pytest

from clipcov_assets.core.prompts import Prompts, fill, imagenet_prompts


def test_the_placeholder_is_filled_and_other_braces_stay() -> None:
    assert fill("a {big} photo of {c}, {c}!", "cat") == "a {big} photo of cat, cat!"


@pytest.mark.parametrize(
    ("class_names", "templates", "named"),
    [
        ((), ("{c}",), "no class name"),
        (("cat",), (), "no template"),
        (("cat", " "), ("{c}",), "class name 1"),
        (("cat",), ("{c}", "a photo of {}"), "a photo of {}"),
    ],
)
def test_unusable_prompts_are_named(class_names: tuple[str, ...], templates: tuple[str, ...], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Prompts(class_names, templates)


def test_the_hash_follows_content_and_order() -> None:
    prompts = Prompts(("cat", "dog"), ("{c}", "a {c}"))
    assert prompts.sha256 == Prompts(("cat", "dog"), ("{c}", "a {c}")).sha256
    assert prompts.sha256 != Prompts(("dog", "cat"), ("{c}", "a {c}")).sha256
    assert prompts.sha256 != Prompts(("cat",), ("{c}", "a {c}")).sha256


def test_imagenet_has_a_thousand_names_and_eighty_templates() -> None:
    prompts = imagenet_prompts()
    assert (len(prompts.class_names), len(prompts.templates)) == (1000, 80)
    assert prompts.class_names[0] == "tench"
    assert prompts.templates[0] == "a bad photo of a {c}."
