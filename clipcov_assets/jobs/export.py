"""A subset out of the tables, as files in the formats that other tools read."""

from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version

from clipcov_assets.export.subset_files import FORMATS
from clipcov_assets.export.subset_files.export_format import ExportError, ExportFormat, ExportOptions, Watch
from clipcov_assets.methods import SELECTIONS
from clipcov_assets.partitions import crawl_order
from clipcov_assets.progress import Progress
from clipcov_assets.provenance import content_version
from clipcov_assets.subset_pairs import SubsetPairs
from resources.export_shelf import ExportShelf, FinishedExport
from resources.lance_store import LanceStore


def export_subset(
    store: LanceStore,
    exports: ExportShelf,
    asset: str,
    partition: str,
    formats: Sequence[str],
    options: ExportOptions,
    report: Callable[[str], None],
) -> list[FinishedExport]:
    """Write one partition of a subset in some formats, each to a folder of its own.

    An export of equal content that is there already is left as it is; one that was broken off is gone on with.

    Args:
        store: Holds the subset, its pool and its crawls.
        exports: Where the files go.
        asset: Such as `clipcov_subset`.
        partition: Such as `crawl-2|f20`.
        formats: Names of formats.
        options: For the formats that have any.
        report: Takes a sentence now and then, with rate and time left.

    Raises:
        ExportError: There is no such subset or format, or the subset cannot leave in one of them; nothing is written.
        InUseError: Another process makes one of these exports.
        FullDiskError: There is no room; what was finished is kept.
    """
    chosen = _formats(formats)
    check_subset(store, asset, partition)
    pairs = SubsetPairs(store, asset, partition)
    if obstacles := [f"{one.name}: {why}" for one in chosen if (why := one.obstacle(pairs))]:
        raise ExportError("; ".join(obstacles))
    subset = {
        "asset": asset,
        "partition": partition,
        "data_version": content_version(store.read(asset, partition)),
        "pairs": len(pairs.rows),
        "content": content_version(pairs.rows),
        "project": f"clipcov-assets {version('clipcov-assets')}",
    }
    finished = []
    for one in chosen:
        plan = {
            "format": one.name,
            "format_version": one.version,
            **subset,
            **one.plan(pairs, options, exports.folder(asset, partition, one.name)),
        }
        write = partial(one.write, pairs, options=options, watch=_watch(one, report))
        finished.append(exports.make(asset, partition, one.name, plan, write))
    return finished


def check_subset(store: LanceStore, asset: str, partition: str) -> None:
    """Look whether a partition of a subset is materialized.

    Raises:
        ExportError: It is not; the message lists those that are.
    """
    known = materialized_subsets(store)
    if asset not in {f"{method}_subset" for method in SELECTIONS}:
        listed = ", ".join(sorted(f"{method}_subset" for method in SELECTIONS))
        raise ExportError(f"no subset is called {asset!r}: choose from {listed}")
    if (asset, partition) not in known:
        listed = ", ".join(f'"{other}"' for name, other in known if name == asset) or "none"
        raise ExportError(f"{asset} is not materialized for {partition!r}; it is for: {listed}. Materialize it first")


def materialized_subsets(store: LanceStore) -> list[tuple[str, str]]:
    """Asset and partition of every subset in the store, by method, oldest crawl first."""
    found = []
    for method in SELECTIONS:
        names = (name.rpartition(".") for name in store.partitions(f"{method}_subset"))
        found += [(f"{method}_subset", crawl, fraction) for crawl, _, fraction in names]
    found.sort(key=lambda one: (one[0], crawl_order(one[1]), one[2]))
    return [(asset, f"{crawl}|{fraction}") for asset, crawl, fraction in found]


def _formats(names: Sequence[str]) -> list[ExportFormat]:
    unknown = [name for name in names if name not in FORMATS]
    if unknown or not names:
        asked = f"no format is called {unknown[0]!r}" if unknown else "no format was asked for"
        raise ExportError(f"{asked}: choose from {', '.join(FORMATS)}")
    return [FORMATS[name] for name in dict.fromkeys(names)]


def _watch(one: ExportFormat, report: Callable[[str], None]) -> Watch:
    return lambda pairs: Progress(pairs, "pairs", lambda words: report(f"{one.name}: {words}")).add
