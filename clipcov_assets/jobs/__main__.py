"""`python -m clipcov_assets.jobs`: the driver of a Ray job, which Dagster starts through Pipes."""

import json
import sys

from dagster_pipes import PipesContext, open_dagster_pipes

from clipcov_assets.faults import may_pass, words_of
from clipcov_assets.jobs.job import Voice, unpacked
from clipcov_assets.jobs.on_ray import OnRay
from clipcov_assets.jobs.submit import FAULT, FIELDS, JOB, OUTCOME, VERSIONS, versions


def main() -> int:
    """Do the job that Dagster sent, and tell it what was made or what went wrong; returns the exit status."""
    with open_dagster_pipes() as pipes:
        try:
            pipes.report_custom_message({OUTCOME: _done(pipes)})
        except Exception as fault:
            pipes.report_custom_message({FAULT: {"words": words_of(fault), "may_pass": may_pass(fault)}})
            return 1
    return 0


def _done(pipes: PipesContext) -> dict[str, object]:
    here, there = versions(), pipes.get_extra(VERSIONS)
    if here != there:
        raise ValueError(
            f"this Ray cluster runs {here} and Dagster {there}: use one image, or the same versions, on all machines"
        )
    job = unpacked(pipes.get_extra(JOB), json.dumps(pipes.get_extra(FIELDS)))
    voice = Voice(pipes.log.info, pipes.log.warning)
    return job.run(OnRay(job.compute, voice, address="auto"))


if __name__ == "__main__":
    sys.exit(main())
