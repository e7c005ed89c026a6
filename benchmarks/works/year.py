"""What a tick, a page and a pool cost after a year of daily crawls: as much as what is new, or as what is there?"""

import shutil
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from benchmarks.bare_model import seconds_of
from benchmarks.measure import Benchmark, Floor, Line, Measurement, Work, in_words, scaled
from benchmarks.report import amount
from clipcov_assets.core.similarity import clip_scores
from clipcov_assets.pool_tables import (
    CLASS_EMBEDDINGS,
    CRAWL_PRODUCTS,
    CRAWL_STATISTICS,
    POOL_PRODUCTS,
    POOL_STATISTICS,
    cross_product_rows,
    list_column,
    statistics_rows,
    sums_of,
)
from clipcov_assets.tables import class_embeddings_schema, latent_classes_schema
from resources.lance_store import LanceStore

# Dagster is imported where it is used: every benchmark loads this module.
if TYPE_CHECKING:
    import dagster as dg

    from benchmarks.dagster_site import Site

YEAR, MONTH, LEAST = 365, 30, 4
TICKS, POOL = "ticks and pages", "pool"
TICK_BAR, PAGE_BAR = 2.0, 3.0
ARRIVALS, LOADS = 3, 3
PAIRS, WIDTH, CLASSES = 20, 8, 1_000


def prepare(case: str, scale: float) -> Work:
    """Fill an instance of Dagster, or a store."""
    year, month = max(scaled(YEAR, scale), LEAST), max(scaled(MONTH, scale), LEAST // 2)
    return ticks_work(year, month) if case == TICKS else pool_work(year, month)


def ticks_work(year: int, month: int) -> Work:
    """A tick on which nothing is new is timed; a tick with a new crawl, pages and sizes are facts."""
    from benchmarks.crawl_year import INDEX, RUNS, carried, repeat
    from benchmarks.dagster_site import PAGES, Site

    home, stack = TemporaryDirectory(), ExitStack()
    full, small = (Path(home.name, name) for name in ("year", "month"))
    with carried(year) as (template, before):
        for directory, days in ((full, year), (small, month)):
            shutil.copytree(template, directory)
            repeat(directory, range(year - days + 1, year + 1), before)
        run_files = [file.stat().st_size for file in (template / "history/runs").glob("*-*.db")]
    database: int = sum((full / name).stat().st_size for name in (INDEX, RUNS))
    site = Site(full, stack)
    first = seconds_of(site.tick)

    def facts(_: int) -> dict[str, Any]:
        seconds, stored = arrivals(site, year)
        pages = {page: max(seconds_of(partial(site.load, page)) for _ in range(LOADS)) for page in PAGES}
        partitions, cursor = site.partitions(), len(site.cursor or "")
        stack.close()
        with ExitStack() as other:
            of_a_month = arrivals(Site(small, other), year)[1]
        home.cleanup()
        return {
            "days": (year, month),
            "first": first,
            "arrival": seconds,
            "stored": (stored, of_a_month),
            "pages": pages,
            "database": database,
            "run_files": run_files,
            "partitions": partitions,
            "cursor": cursor,
        }

    floor = Floor("the cursor of the conditions is read and written once", bytes=2 * len(site.cursor or ""))
    return Work(lambda: None, lambda _: site.tick(), floor, warm_up=site.tick, facts=facts)


def arrivals(site: "Site", last: int) -> tuple[float, int]:
    """Seconds of the tick on which a crawl is new, and the bytes that it stores."""
    from benchmarks.crawl_year import crawl_name

    for _ in range(2):
        site.tick()  # until nothing is new
    seconds, stored = list[float](), list[int]()
    for day in range(last + 1, last + 1 + ARRIVALS):
        site.arrive(crawl_name(day))
        seconds.append(seconds_of(lambda: stored.append(site.tick())))
        site.tick()
    return median(seconds), int(median(stored))


def pool_work(year: int, month: int) -> Work:
    """The pool of the last crawl, after that of the crawl before it."""
    import dagster as dg

    home, instance = TemporaryDirectory(), dg.DagsterInstance.ephemeral()
    store = LanceStore(uri=home.name)
    crawls = [f"crawl-{day}" for day in range(1, year + 1)]
    for day, crawl in enumerate(crawls):
        write_crawl(store, crawl, day)
    instance.add_dynamic_partitions("crawl", crawls)
    for crawl in crawls:
        for asset in ("raw_pairs", "embeddings", "latent_classes"):
            instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=crawl))
    kept = {crawl: make_pool(instance, store, crawl) for crawl in (*crawls[month - 2 : month], *crawls[-2:])}
    ends = crawls[-1], crawls[month - 1]
    tables = [size_of_pool(store, crawl) for crawl in ends]

    def facts(_: int) -> dict[str, Any]:
        seconds = [seconds_of(partial(make_pool, instance, store, crawls[month - 1])) for _ in range(LOADS)]
        home.cleanup()
        return {
            "days": (year, month),
            "seconds": median(seconds),
            "kept": [kept[crawl] for crawl in ends],
            "tables": tables,
        }

    floor = Floor("the uids of the pool are read and written once", bytes=2 * 32 * PAIRS * year)
    return Work(lambda: None, lambda _: make_pool(instance, store, crawls[-1]), floor, facts=facts)


def write_crawl(store: LanceStore, crawl: str, day: int) -> None:
    """Write the tables of a crawl that a pool is made from: few pairs, as many classes as ImageNet."""
    random = np.random.default_rng(day)
    image, text = (unit_rows(random, PAIRS).astype(np.float16) for _ in range(2))
    columns = {
        "uid": [f"{PAIRS * day + place:032x}" for place in range(PAIRS)],
        "latent_class": np.sort(random.integers(0, CLASSES, PAIRS)).astype(np.int32),
        "margin": np.zeros(PAIRS, np.float32),
        "clip_score": clip_scores(image, text),
        "image_embedding": list_column(image),
        "text_embedding": list_column(text),
    }
    rows = pa.table(columns, schema=latent_classes_schema(WIDTH))
    statistics, products = sums_of(rows, CLASSES)
    names = np.arange(CLASSES, dtype=np.int32)
    classes = [names, names.astype(str).tolist(), list_column(unit_rows(random, CLASSES))]
    store.write("raw_pairs", crawl, rows.select(["uid"]))
    store.write("latent_classes", crawl, rows)
    store.write(CRAWL_STATISTICS, crawl, statistics_rows(statistics))
    store.write(CRAWL_PRODUCTS, crawl, cross_product_rows(products))
    store.write(CLASS_EMBEDDINGS, crawl, pa.table(classes, schema=class_embeddings_schema(WIDTH)))


def unit_rows(random: np.random.Generator, count: int) -> np.ndarray:
    """Return (count, WIDTH) float32 unit rows."""
    rows = random.normal(size=(count, WIDTH)).astype(np.float32)
    found: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return found


def make_pool(instance: "dg.DagsterInstance", store: LanceStore, crawl: str) -> int:
    """Materialize a pool, and return the bytes that Dagster keeps of that for ever."""
    import dagster as dg
    from dagster._serdes import serialize_value

    from clipcov_assets.assets.pool import pool
    from clipcov_assets.demo import QUIET

    made = dg.materialize([pool], partition_key=crawl, instance=instance, resources={"store": store}, run_config=QUIET)
    (event,) = made.get_asset_materialization_events()
    return len(serialize_value(event))


def size_of_pool(store: LanceStore, crawl: str) -> int:
    """Bytes of the files of a pool's tables."""
    tables = (Path(store.uri, f"{table}.{crawl}.lance") for table in ("pool", POOL_STATISTICS, POOL_PRODUCTS))
    return sum(file.stat().st_size for table in tables for file in table.rglob("*") if file.is_file())


def lines(measured: Mapping[str, Measurement], scale: float) -> list[Line]:
    """Return lines for ticks, pages, sizes and the pool."""
    return [*ticks_lines(measured[TICKS]), pool_line(measured[POOL])]


def ticks_lines(ticks: Measurement) -> Iterable[Line]:
    """Return lines for ticks, pages and the database."""
    facts = ticks.facts
    year, month = facts["days"]
    now, then = facts["stored"]
    after = f"after {year:,} daily crawls"
    yield Line(
        f"a tick of all conditions {after}, {facts['partitions']:,} partitions of a subset: nothing is new",
        in_words(ticks.median),
        f"{TICK_BAR:g} s",
        ticks.median <= TICK_BAR,
        ticks,
        f"the first tick of all takes {in_words(facts['first'])}; the cursor has {amount(facts['cursor'], 'B')}",
    )
    yield Line(
        f"a tick of all conditions {after}: a new crawl",
        in_words(facts["arrival"]),
        f"{TICK_BAR:g} s",
        facts["arrival"] <= TICK_BAR,
        note=f"it stores {amount(now, 'B')} of evaluations, after {month:,} crawls {amount(then, 'B')}",
    )
    for page, seconds in facts["pages"].items():
        yield Line(f"{page} {after}", in_words(seconds), f"{PAGE_BAR:g} s", seconds <= PAGE_BAR)
    files = facts["run_files"]
    yield Line(
        f"Dagster's databases {after}",
        amount(facts["database"], "B"),
        note=f"{amount(facts['database'] / year, 'B')} a crawl; besides, SQLite has a file of "
        f"{amount(sum(files) / len(files), 'B')} for each run, {amount(sum(files), 'B')} for {len(files)} runs a crawl",
    )


def pool_line(pool: Measurement) -> Line:
    """Return the line of the pool."""
    facts = pool.facts
    (year, month), (now, then), (large, small) = facts["days"], facts["kept"], facts["tables"]
    return Line(
        f"the pool of crawl {year:,}, {PAIRS} pairs a crawl, {CLASSES:,} classes",
        in_words(pool.median),
        measurement=pool,
        note=f"that of crawl {month:,} takes {in_words(facts['seconds'])}; the two leave {amount(now, 'B')} and "
        f"{amount(then, 'B')} in Dagster, {amount(large, 'B')} and {amount(small, 'B')} in LanceDB",
    )


BENCHMARK = Benchmark(
    "a tick, pages and a pool after a year of daily crawls", (TICKS, POOL), prepare, lines, {"CLIPCOV_SCALE": "cc3m"}
)
