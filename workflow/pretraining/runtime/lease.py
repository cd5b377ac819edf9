"""One process at a time works on a run, on whatever machine.

File locks are unreliable on NFS. So the process that works on a run keeps a file that names it, and
touches that file every few seconds. Another process takes over if the first has ended, or has not
touched the file for a minute.
Imported in interpreters of label sources: only the standard library.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from pretraining.runtime.cli import log
from pretraining.runtime.errors import UserError
from pretraining.runtime.files import remove, room_for

BEAT = 10.0  # seconds
# A process silent for this long has ended, or will notice that it was replaced.
SILENCE = 6 * BEAT
LOOK = 1.0


class Lease:
    """The right to work on a run: a context manager that waits until the run is free."""

    def __init__(self, path: Path, name: str) -> None:
        self.path = path  # the file that names the holder
        self.name = name  # the run's name in messages
        self.waited = False  # whether another process held the lease at first
        self._token = uuid.uuid4().hex
        self._over = threading.Event()
        self._beats = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Lease:
        with room_for(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        while not self._taken():
            holder = _read(self.path)
            if _has_ended(holder) or self._silence() > SILENCE:
                self._displace(holder)
                continue
            if not self.waited:
                log(
                    f"{self.name}: {_described(holder)} works on it: waiting for its end (if you "
                    "stop it, this one resumes from its last checkpoint)"
                )
                self.waited = True
            time.sleep(LOOK)
        self._beats.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._beats.join()
        if self._held():
            self.path.unlink(missing_ok=True)

    def check(self) -> None:
        """Raise a `UserError` if another process has taken over, as after a suspension."""
        if not self._held():
            raise UserError(
                f"{self.name}: {_described(_read(self.path))} has taken over, because this process "
                f"was silent for {SILENCE:g} s: it stops here, and nothing is lost"
            )

    def _taken(self) -> bool:
        """Create the file, which only one of several processes can."""
        with room_for(self.path):
            try:
                with open(self.path, "x", encoding="utf-8") as handle:
                    json.dump(_this_process() | {"token": self._token}, handle)
            except FileExistsError:
                return False
            except OSError:
                remove(self.path)
                raise
        return True

    def _silence(self) -> float:
        """Return the time since the holder's last touch, s, by the clock of the file system."""
        probe = self.path.with_name(f".{self.path.name}.{self._token}")
        try:
            probe.touch()
            # NFS caches times until the file is opened.
            with open(self.path, "rb") as handle:
                return probe.stat().st_mtime - os.fstat(handle.fileno()).st_mtime
        except FileNotFoundError:
            return 0.0
        finally:
            remove(probe)

    def _displace(self, holder: dict[str, Any]) -> None:
        """Remove the file of a process that has ended; put back a newer one of another process."""
        aside = self.path.with_name(f".{self.path.name}.{self._token}.ended")
        try:
            os.rename(self.path, aside)
        except FileNotFoundError:
            return
        if _read(aside) == holder:
            log(f"{self.name}: {_described(holder)} has ended without notice: taking its place")
        else:
            with contextlib.suppress(OSError):
                os.link(aside, self.path)
        aside.unlink()

    def _held(self) -> bool:
        return _read(self.path).get("token") == self._token

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            if self._held():
                with contextlib.suppress(OSError):
                    os.utime(self.path)


def running(output: Path) -> Path:
    """Return the lease file of an output that is a single file."""
    return output.with_name(f"{output.name}.running.json")


def worker(path: Path) -> str | None:
    """Return the process that holds a lease, for people to read; None if none does.

    On another machine it may be silent for a few times :data:`SILENCE`: clocks differ.
    """
    holder = _read(path)
    if not holder or _has_ended(holder):
        return None
    try:
        silence = time.time() - path.stat().st_mtime
    except OSError:
        return None
    return _described(holder) if silence < 3 * SILENCE else None


def _read(path: Path) -> dict[str, Any]:
    """Return the holder of a lease; an empty dictionary if the file cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _this_process() -> dict[str, Any]:
    return {
        "host": platform.node(),
        "pid": os.getpid(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "machine": _machine(),
        "began": _began(os.getpid()),
    }


def _machine() -> str | None:
    """Return an identifier of this boot of the machine and of the container; None off Linux."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _began(pid: int) -> str | None:
    """Return when a process of this machine began, in kernel ticks; None if it has ended."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return None if words[0] in "ZX" else words[19]


def _has_ended(holder: dict[str, Any]) -> bool:
    """Return whether a process is known to have ended; False for one of another machine."""
    here = holder.get("machine")
    return here is not None and here == _machine() and _began(holder["pid"]) != holder.get("began")


def _described(holder: dict[str, Any]) -> str:
    job = f", Slurm job {holder['slurm_job']}" if holder.get("slurm_job") else ""
    return f"process {holder.get('pid', '?')} on {holder.get('host', '?')}{job}"
