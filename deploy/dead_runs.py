"""`python deploy/dead_runs.py`: before the code server starts, end the runs that died with the one before it.

Every run is a process of the code server. Where the machine or the whole server is killed, nobody is left to tell
Dagster that its runs are over: they would stay "started" for ever, and keep the GPU's slot and their partitions. Those
that failed here are tried again by the daemon, and go on where they were. Use it only while no code server of this
instance runs; runs of a command line, such as `dg launch`, are left alone.
"""

import dagster as dg

LAUNCHED_BY_A_CODE_SERVER = ".dagster/grpc_info"
UNFINISHED = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]


def end_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Report the unfinished runs of code servers as failed, or canceled where that was asked for; return their ids."""
    canceling = [dg.DagsterRunStatus.CANCELING]
    found = instance.get_runs(dg.RunsFilter(statuses=UNFINISHED + canceling))
    dead = [run for run in found if LAUNCHED_BY_A_CODE_SERVER in run.tags]
    for run in dead:
        told = "its code server or its machine was stopped while it worked"
        if run.status in canceling:
            instance.report_run_canceled(run, told)
        else:
            instance.report_run_failed(run, told)
    return [run.run_id for run in dead]


if __name__ == "__main__":
    with dg.DagsterInstance.get() as opened:
        for run_id in end_dead_runs(opened):
            print(f"ended run {run_id}, which died with its code server")  # noqa: T201
