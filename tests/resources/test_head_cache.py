import time

import numpy as np
import pytest

from resources.head_cache import HeadCache

TEMPLATES = ("a {c}", "the {c}")


class Embedding:
    """Gives a name a row of its own, and remembers what it was asked for."""

    def __init__(self):
        self.asked = []

    def __call__(self, names):
        self.asked.append(list(names))
        return np.stack([np.array([len(name), sum(map(ord, name)), 1 / 3], np.float32) for name in names])


@pytest.fixture
def embed():
    return Embedding()


@pytest.fixture
def cache(tmp_path):
    return HeadCache(directory=str(tmp_path / "heads"))


def test_what_is_read_back_is_what_was_embedded_to_the_last_bit(cache, embed):
    first = cache.rows("a model", TEMPLATES, ("dog", "cat", "Käfer"), embed)
    again = cache.rows("a model", TEMPLATES, ("dog", "cat", "Käfer"), embed)
    assert embed.asked == [["dog", "cat", "Käfer"]]
    assert first.dtype == again.dtype == np.float32
    assert first.tobytes() == again.tobytes()


def test_a_slice_shares_the_rows_and_more_classes_are_added(cache, embed):
    whole = cache.rows("a model", TEMPLATES, ("dog", "cat", "owl"), embed)
    assert np.array_equal(cache.rows("a model", TEMPLATES, ("owl", "dog"), embed), whole[[2, 0]])
    assert np.array_equal(cache.rows("a model", TEMPLATES, ("cat", "bee", "owl"), embed)[[0, 2]], whole[[1, 2]])
    assert embed.asked == [["dog", "cat", "owl"], ["bee"]]


def test_a_name_that_comes_twice_is_embedded_once(cache, embed):
    found = cache.rows("a model", TEMPLATES, ("missile", "dog", "missile"), embed)
    assert embed.asked == [["missile", "dog"]]
    assert np.array_equal(found[0], found[2])


@pytest.mark.parametrize(("made_with", "templates"), [("another", TEMPLATES), ("a model", TEMPLATES[::-1])])
def test_another_model_and_other_templates_have_their_own_rows(cache, embed, made_with, templates):
    cache.rows("a model", TEMPLATES, ("dog",), embed)
    cache.rows(made_with, templates, ("dog",), embed)
    assert embed.asked == [["dog"], ["dog"]]


def test_models_that_were_not_evaluated_for_the_longest_time_are_forgotten(tmp_path, embed):
    cache = HeadCache(directory=str(tmp_path / "heads"), models=2)
    for model in ("one", "two", "one", "three", "one"):
        cache.rows(model, TEMPLATES, ("dog",), embed)
        time.sleep(0.02)  # times of files have steps
    assert len(embed.asked) == 3
    assert len(list((tmp_path / "heads").iterdir())) == 2
    cache.rows("two", TEMPLATES, ("dog",), embed)
    assert len(embed.asked) == 4


def test_a_damaged_file_is_made_again(cache, embed, tmp_path):
    first = cache.rows("a model", TEMPLATES, ("dog", "cat"), embed)
    (file,) = (tmp_path / "heads").glob("*/*.npz")
    for damaged in (file.read_bytes()[:-40], b"", b"nothing that numpy knows"):
        file.write_bytes(damaged)
        assert np.array_equal(cache.rows("a model", TEMPLATES, ("dog", "cat"), embed), first)
    assert len(embed.asked) == 4


def test_nothing_is_kept_of_a_head_that_failed(cache, embed, tmp_path):
    def fail(names):
        raise FloatingPointError("not finite")

    with pytest.raises(FloatingPointError):
        cache.rows("a model", TEMPLATES, ("dog",), fail)
    cache.rows("a model", TEMPLATES, ("dog",), embed)
    assert embed.asked == [["dog"]]
    assert [path.suffix for path in (tmp_path / "heads").glob("*/*")] == [".npz"]
