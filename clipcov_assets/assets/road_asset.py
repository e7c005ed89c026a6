"""What every asset of the road shares: owners, tags, which faults are tried again, and how its runs are found."""

import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg

from clipcov_assets.assets.groups import OWNERS
from clipcov_assets.faults import may_pass, words_of
from clipcov_assets.partitions import dimensions

RETRIES = dg.RetryPolicy(
    max_retries=2,
    delay=float(os.environ.get("CLIPCOV_RETRY_SECONDS", "10")),
    backoff=dg.Backoff.EXPONENTIAL,
    jitter=dg.Jitter.PLUS_MINUS,
)


def road_asset(*, stage: str, method: str | None = None, **options: Any) -> Callable[..., dg.AssetsDefinition]:  # noqa: ANN401
    """Make an asset of a function, as `dagster.asset` does with these options.

    A fault of the machine is tried again; a fault of the data, or of the code, is not. The run is tagged with the
    crawl, the methods and the fractions that it works on, so that it is found in the list of runs.

    Args:
        stage: What it does, in one word.
        method: The selection method that it belongs to.
        options: Of `dagster.asset`.
    """
    tags = {"clipcov/stage": stage} | ({"clipcov/method": method} if method else {})

    def decorate(function: Callable[..., dg.MaterializeResult]) -> dg.AssetsDefinition:
        @functools.wraps(function)
        def step(context: dg.AssetExecutionContext, *arguments: Any, **resources: Any) -> dg.MaterializeResult:  # noqa: ANN401
            _tag_run(context, method)
            try:
                return function(context, *arguments, **resources)
            except dg.Failure:
                raise
            except Exception as fault:
                if may_pass(fault):
                    raise
                raise dg.Failure(words_of(fault), allow_retries=False) from fault

        made: dg.AssetsDefinition = dg.asset(owners=OWNERS, tags=tags, retry_policy=RETRIES, **options)(step)
        return made

    return decorate


def _tag_run(context: dg.AssetExecutionContext, method: str | None) -> None:
    found = dimensions(context) | ({"method": method} if method else {})
    run = context.instance.get_run_by_id(context.run.run_id)
    known: Mapping[str, str] = run.tags if run else {}
    named = {f"clipcov/{name}": value for name, value in found.items()}
    joined = {name: _joined(known.get(name), value) for name, value in named.items()}
    context.instance.add_run_tags(context.run.run_id, joined)


def _joined(earlier: str | None, value: str) -> str:
    """Several methods may share a run."""
    return ", ".join(dict.fromkeys([*(earlier.split(", ") if earlier else []), value]))
