"""The sensor that finds crawls: it says what exists outside, and only adds partitions."""

import time
from collections.abc import Callable, Collection, Hashable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from threading import Lock, Semaphore, Thread
from typing import Any

import dagster as dg

from clipcov_assets.ingest.find import why_incomplete
from clipcov_assets.ingest.listing import SETTLED_SECONDS as STORE_SETTLED_SECONDS
from clipcov_assets.ingest.listing import why_listing_incomplete
from clipcov_assets.partitions import check_crawl_name, crawl_order, crawls
from resources.alerts import Alerts, paragraph
from resources.crawl_catalog import CrawlCatalog, why_not_followed, why_withdrawn
from resources.mirror import UnreadableAddressError
from resources.report_shelf import ReportShelf

SETTLED_SECONDS = 60.0
ANSWER_SECONDS = 20.0  # of all questions to a store in a tick; Dagster breaks off a tick that takes a minute
QUESTIONS_AT_ONCE = 8
STALE_SECONDS = 120.0  # an answer that nobody took for so long says nothing any more
IN_REACH, OUT_OF_REACH = "in reach", "out of reach"  # the cursor: what was told of the crawls last


class Questions:
    """Questions to a store that may be slow or silent, each asked in a thread of its own.

    Whoever asks waits for a while only. A question that is still open when it is asked again is not put twice: its
    answer is taken when it is there.
    """

    def __init__(self) -> None:
        self._open: dict[Hashable, Future[tuple[float, Any]]] = {}
        self._slots = Semaphore(QUESTIONS_AT_ONCE)
        self._lock = Lock()

    def ask(self, key: Hashable, question: Callable[[], object]) -> None:
        """Put a question, unless the one of this key is open."""
        with self._lock:
            if key in self._open and not _is_stale(self._open[key]):
                return
            self._open[key] = future = Future[tuple[float, Any]]()
        # No pool: at its end Python would wait for a pool's threads, and a store may stay silent for minutes.
        Thread(target=self._work, args=(future, question), daemon=True).start()

    def answer(self, key: Hashable, until: float) -> Any:  # noqa: ANN401
        """Return the answer to a question that was asked, or raise what it raised.

        Args:
            key: Of the question.
            until: How long to wait, by `time.monotonic`.

        Raises:
            TimeoutError: There is none yet; the question stays open.
        """
        _, found = self._open[key].result(timeout=max(0.0, until - time.monotonic()))
        with self._lock:
            del self._open[key]
        if isinstance(found, Exception):
            raise found
        return found

    def _work(self, future: Future[tuple[float, Any]], question: Callable[[], object]) -> None:
        with self._slots:
            try:
                found = question()
            except Exception as error:  # it belongs to whoever asked
                found = error
        future.set_result((time.monotonic(), found))


def _is_stale(future: Future[tuple[float, Any]]) -> bool:
    return future.done() and time.monotonic() - future.result()[0] > STALE_SECONDS


_questions = Questions()


def find_deliveries(
    catalog: CrawlCatalog, *, known: Collection[str] = (), settled_seconds: float | None = None
) -> tuple[list[str], list[str]]:
    """Find the deliveries that are complete.

    Args:
        catalog: Where they land.
        known: Crawls that are not looked at again.
        settled_seconds: How long nothing may have changed in a delivery whose format has no mark of completion; by
            default a minute in a directory, and ten in a store, where a long upload shows nothing.

    Returns:
        The names of the complete deliveries, oldest first, and why other folders are passed over.

    Raises:
        FileNotFoundError: The directory is missing.
        UnreadableAddressError: The address cannot be read, or its store is silent.
        OSError: The directory cannot be read.
    """
    until = time.monotonic() + ANSWER_SECONDS
    there, withdrawn = _look_around(catalog, until)
    passed_over = [why_withdrawn(crawl, reason) for crawl, reason in withdrawn.items() if crawl not in known]
    passed_over += [why_not_followed(crawl) for crawl in catalog.links() if crawl not in known]
    candidates = []
    for crawl in there:
        if crawl not in known:
            try:
                candidates.append(check_crawl_name(crawl))
            except ValueError as error:
                passed_over.append(str(error))
    if catalog.is_remote:
        rest = STORE_SETTLED_SECONDS if settled_seconds is None else settled_seconds
        reasons = _judged_by_listing(catalog, candidates, rest, until)
    else:
        rest = SETTLED_SECONDS if settled_seconds is None else settled_seconds
        folders = {crawl: Path(catalog.directory) / crawl for crawl in candidates}
        reasons = {crawl: why_incomplete(folder, settled_seconds=rest) for crawl, folder in folders.items()}
    passed_over += [reason for reason in reasons.values() if reason is not None]
    return sorted((crawl for crawl, reason in reasons.items() if reason is None), key=crawl_order), passed_over


@dg.sensor(
    target=None,
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=15,
    description="Adds a partition for every complete delivery where crawls land; it starts no run.",
)
def new_crawls(
    context: dg.SensorEvaluationContext, catalog: CrawlCatalog, alerts: Alerts, shelf: ReportShelf
) -> dg.SensorResult:
    """Find complete deliveries that are not partitions yet; where nothing can be found out, the tick says why."""
    known = context.instance.get_dynamic_partitions("crawl")
    page = f"{shelf.dagster_ui}/automation"
    try:
        found, passed_over = find_deliveries(catalog, known=known)
    except OSError as error:
        to_do = "mend what it names; it is tried again by itself, and you are told when crawls are in reach again"
        _tell_once(context, alerts, OUT_OF_REACH, paragraph("crawls cannot be looked for", [str(error)], to_do, page))
        return dg.SensorResult(skip_reason=f"crawls cannot be looked for: {error}")
    over = paragraph(f"crawls in {catalog.shown} are in reach again", [], "nothing is to be done", page)
    _tell_once(context, alerts, IN_REACH, over)
    if not found:
        return dg.SensorResult(skip_reason="; ".join([f"no new crawl in {catalog.shown}", *passed_over]))
    for reason in passed_over:
        context.log.warning(reason)
    return dg.SensorResult(dynamic_partitions_requests=[crawls.build_add_request(found)])


def _tell_once(context: dg.SensorEvaluationContext, alerts: Alerts, state: str, words: str) -> None:
    """Tell of a state in the tick in which it begins, and of no news in the ticks after it."""
    if state == (context.cursor or IN_REACH):
        return
    if trouble := alerts.tell(words):
        context.log.warning(trouble)
    context.update_cursor(state)


def _look_around(catalog: CrawlCatalog, until: float) -> tuple[tuple[str, ...], dict[str, str]]:
    """The crawls that are there, and those that were withdrawn with the reasons."""
    if not catalog.is_remote:
        return catalog.crawls(), catalog.withdrawn()
    _questions.ask(catalog.directory, lambda: (catalog.crawls(), catalog.withdrawn()))
    try:
        there, withdrawn = _questions.answer(catalog.directory, until)
    except TimeoutError as error:
        raise UnreadableAddressError(
            f"{catalog.shown} gave no answer in {ANSWER_SECONDS:.0f} s; check the network and the endpoint "
            "(AWS_ENDPOINT_URL)"
        ) from error
    return there, withdrawn


def _judged_by_listing(
    catalog: CrawlCatalog, candidates: list[str], settled_seconds: float, until: float
) -> dict[str, str | None]:
    """Why crawls of a store are passed over; None where one is complete. Each is listed once, nothing is read."""
    for crawl in candidates:
        _questions.ask((catalog.directory, crawl), partial(catalog.listing, crawl))
    reasons: dict[str, str | None] = {}
    for crawl in candidates:
        try:
            found = _questions.answer((catalog.directory, crawl), until)
            reasons[crawl] = why_listing_incomplete(
                found.address, found.names, rested=found.rested, settled_seconds=settled_seconds
            )
        except UnreadableAddressError as error:
            reasons[crawl] = str(error)
        except TimeoutError:
            reasons[crawl] = f"{crawl} in {catalog.shown} is still being listed; it is judged when its names are there"
    return reasons
