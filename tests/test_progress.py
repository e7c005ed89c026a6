import pytest

from clipcov_assets.progress import Progress, in_words


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_count_rate_and_time_left_are_told_every_ten_seconds(clock):
    said = []
    progress = Progress(100_000, "pairs", said.append, clock=clock)
    for count in (4_096, 4_096, 4_096, 4_096):
        clock.now += 8
        progress.add(count)
    assert said == [
        "8,192 of 100,000 pairs, 512 pairs/s, 2 min 59 s left",
        "16,384 of 100,000 pairs, 512 pairs/s, 2 min 43 s left",
    ]


def test_work_that_is_over_quickly_says_nothing(clock):
    said = []
    progress = Progress(10, "pairs", said.append, clock=clock)
    clock.now += 9
    progress.add(10)
    assert said == []


def test_the_end_is_told_where_anything_was(clock):
    said = []
    progress = Progress(30, "pairs", said.append, clock=clock)
    for seconds in (10, 1, 1):
        clock.now += seconds
        progress.add(10)
    assert said == ["10 of 30 pairs, 1.0 pairs/s, 20 s left", "30 of 30 pairs, 2.5 pairs/s, done in 12 s"]


def test_the_total_may_be_in_bytes_while_pairs_are_counted(clock):
    said = []
    progress = Progress(1_000, "pairs", said.append, clock=clock)
    clock.now += 20
    progress.add(400, of_total=250)
    assert said == ["400 pairs, 25%, 20 pairs/s, 1 min 0 s left"]


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (171, "2 min 51 s"), (11_065, "3 h 4 min")]
)
def test_durations_are_said_as_people_say_them(seconds, words):
    assert in_words(seconds) == words
