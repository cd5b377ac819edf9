"""What Snakemake alone does not see: jobs of an earlier process, and successes within a failure.

Slurm goes on with the jobs of a Snakemake process that was killed or lost its machine, while a new
one knows nothing of them: it would submit the same jobs again. So it first waits until they have
ended, and then decides anew what is to be done.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pretraining.training import packing

LOOK = 10.0  # seconds
SHOWN = 5


def wait_for_leftovers(workflow: Any) -> None:
    """Wait until no earlier process' jobs are left that this one would submit again.

    To be called when Snakemake has decided what to do and has done nothing yet (``onstart``). If
    there were such jobs it starts again in this process' place, and finds what they have made.

    Parameters
    ----------
    workflow
        Snakemake's.
    """
    if not workflow.is_main_process or "slurm" not in type(workflow.executor_settings).__module__:
        return
    left = _leftovers(workflow)
    if not left:
        return
    listed = [f"{number} ({jobs[0].rule.name})" for number, (jobs, _) in left.items()]
    more = [f"and {len(left) - SHOWN} more"] if len(left) > SHOWN else []
    cancel = " && ".join(f"scancel --name={name}" for name in sorted({n for _, n in left.values()}))
    print(
        "Still in the queue or running since an earlier Snakemake process: "
        f"{', '.join(listed[:SHOWN] + more)}. Waiting until they have ended, so that nothing is "
        f"done twice. To go on at once: {cancel} (what they have saved is not lost)",
        file=sys.stderr,
        flush=True,
    )
    while left.keys() & queued_jobs().keys():
        time.sleep(LOOK)
    for job in (job for jobs, _ in left.values() for job in jobs):
        if _has_succeeded(workflow, job):
            # Note what it was made of, as Snakemake does for a job whose end it sees.
            workflow.async_run(workflow.persistence.finished(job))
    print("They have ended: starting again", file=sys.stderr, flush=True)
    _start_again(workflow)


def go_on_after_failures(workflow: Any) -> None:
    """Start Snakemake again if a job that failed has made what others can go on with.

    To be called at the end (``onerror``). Of a group of jobs of which one fails, Snakemake takes
    all to have failed, and leaves what follows from the others. Started again, it sees them done,
    so that this comes to an end.

    Parameters
    ----------
    workflow
        Snakemake's.
    """
    settings, scheduler, dag = workflow.dag_settings, workflow.scheduler, workflow.dag
    if settings.forceall or settings.forcerun or settings.forcetargets:
        return
    if scheduler.running or scheduler._user_kill:
        return  # it has been interrupted
    groups = [job for job in scheduler.failed if job.is_group()]
    done = {job for group in groups for job in group if _has_succeeded(workflow, job)}
    waiting = {after for job in done for after in dag.depending[job]}
    missing = set(dag.needrun_jobs()) - done
    if any(one in missing and missing.isdisjoint(dag.dependencies[one]) for one in waiting):
        print("Going on with what follows from the runs that have not failed", file=sys.stderr)
        os.environ[packing.APART] = "1"
        _start_again(workflow)


def _start_again(workflow: Any) -> None:
    """Start the same Snakemake again in this process' place."""
    sys.stderr.flush()
    workflow.persistence.unlock()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _leftovers(workflow: Any) -> dict[str, tuple[list[Any], str]]:
    """Return the queued jobs that are to be done, and Slurm's names for them, by their numbers.

    Snakemake's own record of a job's number is gone as soon as the job runs: a job is known by its
    folder and by the comment that the executor gives it. Tasks of an array share that of the first;
    a group of jobs has one number, and the name of a pack of trainings tells which they are.
    """
    queued = queued_jobs()
    if not queued:
        return {}
    wanted: dict[str, list[Any]] = {}
    for job in workflow.dag.needrun_jobs():
        group = workflow.dag.get_job_group(job)
        values = "" if group else "_".join(job.wildcards).replace("/", "_")
        comment = f"rule_{(group or job).name}" + (f"_wildcards_{values}" if values else "")
        wanted.setdefault(comment, []).append(job)
    rules = {jobs[0].rule.name: jobs[:1] for jobs in wanted.values()}
    left = {}
    for number, (name, comment) in queued.items():
        if comment in wanted:
            left[number] = wanted[comment], name
        elif "_" in number and (rule := comment[5:].partition("_wildcards_")[0]) in rules:
            left[number] = rules[rule], name
    return left


def queued_jobs() -> dict[str, tuple[str, str]]:
    """Return names and comments of this folder's jobs that wait or run, by their numbers.

    A controller that does not answer is asked again.
    """
    command = ["squeue", "--noheader", "--me", "--array", "--format=%i|%j|%k|%Z"]
    while True:
        answer = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if answer.returncode == 0:
            break
        print(f"squeue: {answer.stderr.strip()}; asking again", file=sys.stderr, flush=True)
        time.sleep(LOOK)
    jobs = (line.split("|", 3) for line in answer.stdout.splitlines())
    return {number: (name, about) for number, name, about, folder in jobs if folder == os.getcwd()}


def _has_succeeded(workflow: Any, job: Any) -> bool:
    """Whether a job that has ended took back the mark that its outputs are not complete."""
    incomplete = workflow.async_run(workflow.persistence.incomplete(job))
    return not incomplete and all(Path(file).exists() for file in job.output)
