"""Slurm: a job requeued before its time limit, and jobs that a dead Snakemake left in the queue.

Shortly before its time limit a program sends itself an alarm, saves its state and requeues its own
job, so that Snakemake sees one job throughout. Slurm's own signals would end the Snakemake of the
job before the program has saved.
Imported in interpreters of label sources: only the standard library.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from typing import Any

from pretraining.runtime.cli import log

# Time for the longest step with its validation, and for saving the state (s).
MARGIN = 120.0
# Of a short allocation the margin is this fraction.
SHARE = 0.25
# Time limits may change while a job runs: look again every hour.
LOOK = 3600.0
RETRY = 60.0
TIMEOUT = 30.0
QUEUE_LOOK = 10.0
SHOWN = 5

_saved = False


def progress() -> None:
    """Note that this process has saved a state to resume from."""
    global _saved
    _saved = True


def has_progressed() -> bool:
    """Return whether this process has saved a state."""
    return _saved


class Watch:
    """Sends SIGALRM to this process shortly before its time limit, if it runs in a Slurm job.

    Only jobs of Snakemake count, known by their comment: a user's own script may plan otherwise.
    """

    def __init__(self) -> None:
        self.job = slurm_job()
        self._over = threading.Event()
        if self.job is not None:
            threading.Thread(target=self._watch, daemon=True).start()

    def end(self) -> None:
        """Send no alarm any more."""
        self._over.set()

    def requeue(self) -> str:
        """Requeue the job, which ends this process; return why that failed."""
        # Slurm ends this process now.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        try:
            _query("scontrol", "requeue", str(self.job))
        except (OSError, subprocess.SubprocessError) as error:
            return _reason(error)
        time.sleep(MARGIN)
        return "nothing has happened"

    def _watch(self) -> None:
        end, margin = None, 0.0
        while True:
            try:
                left = seconds_left(str(self.job))
                if left is None:
                    return
                if end is None:
                    margin = min(MARGIN, SHARE * left)
                end = time.monotonic() + left
            except (OSError, subprocess.SubprocessError):
                pass  # the controller may answer later
            pause = RETRY if end is None else min(end - margin - time.monotonic(), LOOK)
            if pause <= 0:
                break
            if self._over.wait(pause):
                return
        os.kill(os.getpid(), signal.SIGALRM)


def slurm_job() -> str | None:
    """Return the number by which this process' Slurm job is requeued; None outside Slurm."""
    if "SLURM_ARRAY_TASK_ID" in os.environ:
        # The plain number of an array's last task means the whole array.
        return "{SLURM_ARRAY_JOB_ID}_{SLURM_ARRAY_TASK_ID}".format_map(os.environ)
    return os.environ.get("SLURM_JOB_ID")


def seconds_left(job: str) -> float | None:
    """Return the time left to a job, s; None if it has no limit or is not Snakemake's."""
    answer = _query("squeue", "--noheader", "--jobs", job, "--format", "%L|%k").strip()
    left, _, comment = answer.partition("|")
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", left)
    if found is None or not comment.startswith("rule_"):
        return None
    days, hours, minutes, seconds = (int(number or 0) for number in found.groups())
    return float(((24 * days + hours) * 60 + minutes) * 60 + seconds)


def stop_after_leftovers(workflow: Any) -> None:
    """Wait for jobs that an earlier Snakemake left in the queue, then exit; do nothing without any.

    Called when Snakemake has planned its jobs and started none (``onstart``): it knows nothing of
    the earlier jobs and would submit them again. Started again, it finds their outputs.
    """
    if not workflow.is_main_process or "slurm" not in type(workflow.executor_settings).__module__:
        return
    left = queued_jobs()
    if not left:
        return
    listed = [f"{number} ({rule})" for number, (_, rule) in left.items()]
    more = [f"and {len(left) - SHOWN} more"] if len(left) > SHOWN else []
    names = sorted({name for name, _ in left.values()})
    log(
        f"Jobs of an earlier Snakemake in the queue: {', '.join(listed[:SHOWN] + more)}. Waiting "
        "for their end, so that nothing is done twice. To stop them (saved states are kept): "
        + " && ".join(f"scancel --name={name}" for name in names)
    )
    while left.keys() & queued_jobs().keys():
        time.sleep(QUEUE_LOOK)
    sys.exit("The jobs of the earlier Snakemake have ended: start Snakemake again")


def queued_jobs() -> dict[str, tuple[str, str]]:
    """Return name and rule of each of Snakemake's jobs of this folder in the queue, by number."""
    while True:
        try:
            answer = _query("squeue", "--noheader", "--me", "--array", "--format=%i|%j|%k|%Z")
            break
        except (OSError, subprocess.SubprocessError) as error:
            log(f"squeue: {_reason(error)}; asking again")
            time.sleep(QUEUE_LOOK)
    jobs = (line.split("|", 3) for line in answer.splitlines())
    return {
        number: (name, comment.removeprefix("rule_").partition("_wildcards_")[0])
        for number, name, comment, folder in jobs
        if folder == os.getcwd() and comment.startswith("rule_")
    }


def _query(*command: str) -> str:
    options = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
    return subprocess.run(command, timeout=TIMEOUT, check=True, **options).stdout


def _reason(error: Exception) -> str:
    return (getattr(error, "stderr", None) or "").strip() or str(error)
