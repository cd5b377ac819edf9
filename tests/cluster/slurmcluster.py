"""A real Slurm on this machine: one controller and one node with generic GPUs, on loopback.

It needs root, and Debian's ``slurm-wlm`` and ``munge``. The GPUs are links to ``/dev/null``: Slurm
hands them out and sets ``CUDA_VISIBLE_DEVICES``, and nothing computes on them. The node pretends to
more cores and memory than there are.

The configuration is at Slurm's default place: what Snakemake starts in a job knows no other.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

CONFIGURATION = Path("/etc/slurm/slurm.conf")
FOLDER = Path("/tmp/pretraining-slurm")
MARK = "# Written by the tests of synthetic-pretraining, which delete it when they end."
COMMANDS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scontrol", "srun")
NODE = "node1"
GPUS = 8
SHARDS = 2  # of the first

# One partition for all, one that is short, and one whose jobs make way for those of `urgent`.
SLURM_CONF = """\
{mark}
ClusterName=pretraining
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# A requeued job waits until its old credential has expired: 120 s by default.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
OverTimeLimit=0
KillWait=5
SlurmctldTimeout=10
SlurmdTimeout=15
BatchStartTimeout=10
MessageTimeout=10
InactiveLimit=0
# Finished jobs stay in squeue and scontrol for longer than any test.
MinJobAge=7200
GresTypes=gpu,shard
DefMemPerNode=1000
NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 CPUs=64 RealMemory=1000000 \
Gres=gpu:a100:{gpus},shard:{shards} State=UNKNOWN
PartitionName=main Nodes={node} Default=YES MaxTime=7-0 DefaultTime=10 PriorityTier=10 \
PreemptMode=off
PartitionName=short Nodes={node} MaxTime=1 PriorityTier=10 PreemptMode=off
PartitionName=urgent Nodes={node} MaxTime=7-0 PriorityTier=20 PreemptMode=off
PartitionName=scavenge Nodes={node} MaxTime=7-0 PriorityTier=1 PreemptMode=requeue GraceTime=5
"""

Result = TypeVar("Result")


def wait_for(
    condition: Callable[[], Result], timeout: float = 60, what: str = "", every: float = 0.2
) -> Result:
    """Call `condition` until what it returns is true, and return that.

    Raises
    ------
    TimeoutError
        After `timeout` seconds; the message is `what`.
    """
    end = time.monotonic() + timeout
    while not (result := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"waited {timeout:g} s for {what or condition}")
        time.sleep(every)
    return result


def unavailable() -> str | None:
    """Return why there can be no cluster on this machine, None if there can."""
    if os.environ.get("PRETRAINING_TEST_CLUSTER") != "1":
        return "a Slurm of its own is started only with PRETRAINING_TEST_CLUSTER=1"
    missing = [name for name in COMMANDS if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} not installed; Debian's slurm-wlm and munge bring them"
    if os.geteuid() != 0:
        return "only root can start a Slurm"
    if CONFIGURATION.exists() and not CONFIGURATION.read_text().startswith(MARK):
        return f"this machine has a Slurm of its own ({CONFIGURATION})"
    return None


class Cluster:
    """One controller and one node; :meth:`start` it, and :meth:`stop` it whatever happens.

    Attributes
    ----------
    configuration
        Slurm's configuration.
    folder
        State, logs, process ids and sockets of the daemons.
    """

    def __init__(self) -> None:
        self.configuration = CONFIGURATION
        self.folder = FOLDER
        self._forgotten = 0
        # By this the cluster's processes are known, also those of a run that was killed.
        self.environment = os.environ | {"SLURM_CONF": str(self.configuration)}

    # -- all of it ----------------------------------------------------------------------------

    def start(self) -> None:
        """Write the configuration and start everything; what an earlier run left is ended first."""
        self.stop()
        self._forgotten = 0
        for name in ("", "state", "spool"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(1024))
        for number in range(GPUS):
            (self.folder / f"gpu{number}").symlink_to("/dev/null")
        self.configuration.parent.mkdir(parents=True, exist_ok=True)
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            other.bind(("127.0.0.1", 0))
            ports = [one.getsockname()[1], other.getsockname()[1]]
        text = SLURM_CONF.format(
            mark=MARK,
            host=socket.gethostname().split(".")[0],
            folder=self.folder,
            ports=ports,
            node=NODE,
            gpus=GPUS,
            shards=SHARDS,
        )
        gres = f"NodeName={NODE} Name=gpu Type=a100 File={self.folder}/gpu[0-{GPUS - 1}]\n"
        gres += f"NodeName={NODE} Name=shard Count={SHARDS} File={self.folder}/gpu0\n"
        self.configuration.with_name("gres.conf").write_text(gres)
        self.configuration.write_text(text)
        self._run(
            "munged",
            *("--force", f"--socket={self.folder}/munge.socket", f"--key-file={key}"),
            *(f"--pid-file={self.folder}/munged.pid", f"--log-file={self.folder}/munged.log"),
            f"--seed-file={self.folder}/munged.seed",
        )
        self.start_controller()
        self.start_node()

    def stop(self) -> None:
        """End every process of the cluster, jobs included, and delete what :meth:`start` wrote."""
        for _ in range(50):
            if not any([_kill(pid, signal.SIGKILL) for pid in self._processes()]):
                break
            time.sleep(0.1)
        for name in ("slurm.conf", "gres.conf"):
            self.configuration.with_name(name).unlink(missing_ok=True)
        if self.folder.exists():
            shutil.rmtree(self.folder)

    # -- daemons, one by one ------------------------------------------------------------------

    def start_controller(self) -> None:
        """Start slurmctld, and wait until it answers."""
        self._run("slurmctld")
        wait_for(self.answers, 30, "slurmctld")

    def stop_controller(self, number: int = signal.SIGTERM) -> None:
        """End slurmctld by a signal, and wait until it is gone. Jobs and the node go on.

        Killed at once (SIGKILL) it forgets what happened in the last seconds: a job just submitted
        is lost.
        """
        self._end("slurmctld", number)

    def start_node(self) -> None:
        """Start slurmd, and wait until the node takes jobs."""
        self._run("slurmd", "-N", NODE)
        wait_for(lambda: self.node_state() in ("IDLE", "MIXED", "ALLOCATED"), 30, "the node")

    def stop_node_daemon(self, number: int = signal.SIGTERM) -> None:
        """End slurmd by a signal, and wait until it is gone. Jobs go on.

        After SlurmdTimeout (15 s) the node counts as down, and its jobs are requeued.
        """
        self._end("slurmd", number)

    def crash_node(self) -> None:
        """Kill slurmd and all that runs on the node at once, as a power cut does."""
        spared = {self._pid("slurmctld"), self._pid("munged")}
        for _ in range(50):
            pids = [pid for pid in self._processes() if pid not in spared]
            # Slurm's own first: they would report how the jobs ended.
            pids.sort(key=lambda pid: not _is_daemon(pid))
            if not any([_kill(pid, signal.SIGKILL) for pid in pids]):
                return
            time.sleep(0.05)

    def drain(self, reason: str = "test") -> None:
        """Let the node take no new job; those that run go on."""
        self.scontrol("update", f"NodeName={NODE}", "State=DRAIN", f"Reason={reason}")

    def resume(self) -> None:
        """Let the node take jobs again."""
        self.scontrol("update", f"NodeName={NODE}", "State=RESUME")

    def node_state(self) -> str:
        """Return the node's state, such as ``IDLE`` or ``MIXED+DRAIN``."""
        text = self._run("scontrol", "show", "node", NODE, check=False).stdout
        found = re.search(r" State=(\S+)", text)
        return found[1] if found else ""

    def answers(self) -> bool:
        """Return whether the controller answers."""
        return "is UP" in self._run("scontrol", "ping", check=False).stdout

    # -- jobs ---------------------------------------------------------------------------------

    def jobs(self, **wanted: str) -> list[dict[str, str]]:
        """Return all jobs since :meth:`clear`, finished ones included, oldest first.

        They have the names of ``scontrol show job``: ``JobId``, ``JobState``, ``Partition``,
        ``TimeLimit``, ``NumCPUs``, ``MinMemoryNode``, ``TresPerJob``, ``Restarts``, ``Comment`` …
        What Snakemake submits has the comment ``rule_NAME_wildcards_…``, and the name (``JobName``)
        of its head process' run.

        Parameters
        ----------
        wanted
            Only jobs with these values, such as ``JobState="RUNNING"``.
        """
        text = self._run("scontrol", "show", "job", "--oneliner", check=False).stdout
        found = []
        for line in text.splitlines():
            pairs = re.findall(r"([A-Za-z][\w/:]*)=(.*?)(?=\s+[A-Za-z][\w/:]*=|\s*$)", line)
            if pairs and pairs[0][0] == "JobId":
                found.append(dict(reversed(pairs)))
        found = [j for j in found if all(j.get(k) == value for k, value in wanted.items())]
        found = [j for j in found if int(j["JobId"]) > self._forgotten]
        return sorted(found, key=lambda job: int(job["JobId"]))

    def job(self, identifier: str | int) -> dict[str, str]:
        """Return one job, as :meth:`jobs` does; an empty dictionary if there is none."""
        return next(iter(self.jobs(JobId=str(identifier))), {})

    def jobs_of(self, rule: str) -> list[dict[str, str]]:
        """Return the jobs that Snakemake has submitted for a rule."""
        jobs = self.jobs()
        names = (f"rule_{rule}", f"rule_{rule}_wildcards_")
        return [j for j in jobs if j.get("Comment") == names[0] or names[1] in j.get("Comment", "")]

    def squeue(self) -> list[dict[str, str]]:
        """Return waiting and running jobs: their id, state, reason, partition and name."""
        text = self._run("squeue", "--noheader", "--format=%i|%T|%r|%P|%j", check=False).stdout
        keys = ("id", "state", "reason", "partition", "name")
        return [dict(zip(keys, line.split("|"), strict=True)) for line in text.splitlines()]

    def submit(self, command: str, *options: str) -> str:
        """Submit a shell command with sbatch's options; return the job's number."""
        words = ["--parsable", "--output=/dev/null", *options, f"--wrap={command}"]
        return self._run("sbatch", *words).stdout.strip()

    def cancel(self, *arguments: str) -> None:
        """Run scancel, which takes job numbers and options."""
        self._run("scancel", *arguments)

    def scontrol(self, *arguments: str) -> str:
        """Run scontrol and return its output."""
        return self._run("scontrol", *arguments).stdout

    def clear(self) -> None:
        """Cancel every job and wait until all have ended; the node is up and takes jobs again.

        :meth:`jobs` knows none of them any more.
        """
        if not self._pid("slurmctld"):
            self.start_controller()
        for job in self.squeue():
            self.cancel(job["id"])
        if not self._pid("slurmd"):
            self.start_node()
        if "DRAIN" in self.node_state() or "DOWN" in self.node_state():
            self.resume()
        wait_for(lambda: not self.squeue(), 60, "the end of all jobs")
        self._forgotten = max((int(job["JobId"]) for job in self.jobs()), default=self._forgotten)

    def processes_of(self, job: str | int, name: str = "") -> list[int]:
        """Return the ids of a job's processes whose command line contains `name`."""
        variable = f"SLURM_JOB_ID={job}"
        return [
            pid
            for pid in self._processes()
            if variable in _read(pid, "environ") and name in " ".join(_read(pid, "cmdline"))
        ]

    def logs(self) -> str:
        """Return the ends of the daemons' logs."""
        files = sorted(self.folder.glob("slurm*.log"))
        return "\n".join(f"== {f.name}\n{f.read_text(errors='replace')[-3000:]}" for f in files)

    # -- details ------------------------------------------------------------------------------

    def _run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess:
        process = subprocess.run(
            command,
            env=self.environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        if check and process.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: {process.stdout}{process.stderr}")
        return process

    def _pid(self, daemon: str) -> int | None:
        """Return the process id of a daemon, None if it does not run."""
        try:
            pid = int((self.folder / f"{daemon}.pid").read_text())
        except (OSError, ValueError):
            return None
        return pid if any(daemon in word for word in _read(pid, "cmdline")[:1]) else None

    def _end(self, daemon: str, number: int) -> None:
        pid = self._pid(daemon)
        if pid is not None:
            _kill(pid, number)
            wait_for(lambda: not _read(pid, "cmdline"), 30, f"the end of {daemon}")

    def _processes(self) -> Iterator[int]:
        """Yield the ids of the cluster's daemons, of its job steps and of what these have started.

        All of them have the configuration in their environment; so has Snakemake's head process,
        but no number of a job.
        """
        munge = self._pid("munged")
        if munge is not None:
            yield munge
        variable = f"SLURM_CONF={self.configuration}"
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            pid = int(entry.name)
            environment = _read(pid, "environ")
            if variable not in environment or pid == os.getpid() or _is_contained(pid):
                continue
            if _is_daemon(pid) or any(word.startswith("SLURM_JOB_ID=") for word in environment):
                yield pid


def _read(pid: int, what: str) -> list[str]:
    """Return a process' ``cmdline`` or ``environ``; an empty list if it is no more."""
    try:
        text = Path(f"/proc/{pid}/{what}").read_bytes().decode(errors="replace")
    except OSError:
        return []
    return [word for word in text.split("\0") if word]


def _is_daemon(pid: int) -> bool:
    """Return whether a process is slurmctld, slurmd or slurmstepd."""
    program = (_read(pid, "cmdline") or [""])[0].split(":")[0]
    return Path(program).name in ("slurmctld", "slurmd", "slurmstepd")


def _is_contained(pid: int) -> bool:
    """Return whether a process is in a container, which may have a Slurm of its own."""
    try:
        return os.readlink(f"/proc/{pid}/ns/pid") != os.readlink("/proc/self/ns/pid")
    except OSError:
        return True


def _kill(pid: int, number: int) -> bool:
    """Send a signal; return whether the process was there and alive."""
    try:
        os.kill(pid, number)
        return bool(_read(pid, "cmdline"))
    except ProcessLookupError:
        return False
