"""What a long job does when its Slurm allocation ends before it does: it goes on in the next one.

Shortly before the end the program sends itself an alarm, saves its state and has its own job put
back into the queue, so that Snakemake sees one job throughout. No signal of Slurm's is used for it:
one that reaches a job's steps ends the Snakemake that runs in them before the program has saved.

Jobs of label sources use this in their own interpreters: it imports only the standard library.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time

# The longest step, with its validation, and the saving of the state fit into this many seconds.
MARGIN = 120.0
# Of a short allocation, this part.
SHARE = 0.25
# Time limits may be changed while a job runs.
LOOK = 3600.0
RETRY = 60.0
ANSWER = 30.0
# In the environment of jobs that may consist of several programs: their Snakemake run.
PACKED = "PRETRAINING_PACKED_BY"

_saved = False


def progress() -> None:
    """Note that something has been saved which a later process goes on from."""
    global _saved
    _saved = True


def has_progressed() -> bool:
    """Return whether this process has saved something."""
    return _saved


class Watch:
    """Sends this process SIGALRM shortly before the end of its allocation, if it has one.

    Only of jobs that Snakemake has submitted, which their comment tells: somebody's own script may
    have other plans for its last minutes.
    """

    def __init__(self) -> None:
        self.job = slurm_job()
        self._over = threading.Event()
        if self.job is not None:
            threading.Thread(target=self._watch, daemon=True).start()

    def end(self) -> None:
        """Send nothing any more."""
        self._over.set()

    def requeue(self) -> str | None:
        """Have the job put back into the queue, which ends this process.

        Returns
        -------
        str or None
            Why that could not be done.
        """
        # It is Slurm that ends it now.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if PACKED in os.environ:
            # Whoever is first ends all programs of the job: the others are to have saved by then.
            time.sleep(max(self._end - self._margin / 2 - time.monotonic(), 0))
        try:
            _ask("scontrol", "requeue", str(self.job))
        except (OSError, subprocess.SubprocessError) as error:
            if not self._has_been_requeued():
                return _words(error)
        time.sleep(MARGIN)
        return "nothing has happened"

    def _has_been_requeued(self) -> bool:
        """Whether another program of the same job has done it."""
        try:
            state = _ask("squeue", "--noheader", "--jobs", str(self.job), "--format", "%T")
        except (OSError, subprocess.SubprocessError):
            return False
        return state.strip() not in ("RUNNING", "")

    def _watch(self) -> None:
        alarm = None
        while True:
            try:
                left = seconds_left(str(self.job))
                if left is None:
                    return
                if alarm is None:
                    self._margin = min(MARGIN, SHARE * left)
                self._end = time.monotonic() + left
                alarm = self._end - self._margin
            except (OSError, subprocess.SubprocessError):
                pass  # a controller that does not answer may do so later
            if alarm is None:
                pause = RETRY
            else:
                pause = min(alarm - time.monotonic(), LOOK)
                if pause <= 0:
                    break
            if self._over.wait(pause):
                return
        os.kill(os.getpid(), signal.SIGALRM)


def slurm_job() -> str | None:
    """Return the number of the Slurm job that this process belongs to, by which it is requeued."""
    if "SLURM_ARRAY_TASK_ID" in os.environ:
        # The plain number of an array's last task means all of the array.
        return "{SLURM_ARRAY_JOB_ID}_{SLURM_ARRAY_TASK_ID}".format_map(os.environ)
    return os.environ.get("SLURM_JOB_ID")


def seconds_left(job: str) -> float | None:
    """Return what is left of a job's time; None if it has no limit, or is not of Snakemake.

    Raises
    ------
    OSError, subprocess.SubprocessError
        If Slurm does not answer.
    """
    answer = _ask("squeue", "--noheader", "--jobs", job, "--format", "%L|%k").strip()
    left, _, comment = answer.partition("|")
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", left)
    if found is None or not comment.startswith("rule_"):
        return None
    days, hours, minutes, seconds = (int(number or 0) for number in found.groups())
    return float(((24 * days + hours) * 60 + minutes) * 60 + seconds)


def _ask(*command: str) -> str:
    process = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=ANSWER,
        check=True,
    )
    return process.stdout


def _words(error: Exception) -> str:
    """Return what Slurm says of a failure, or else the system."""
    said = (getattr(error, "stderr", None) or "").strip()
    return said or str(error)
