"""The cluster of these tests is one: it runs jobs with GPUs and outlives its daemons."""

from __future__ import annotations

import signal

from slurmcluster import wait_for


def test_a_job_gets_its_gpu(cluster, tmp_path):
    out = tmp_path / "out"
    job = cluster.submit(f"echo $CUDA_VISIBLE_DEVICES > {out}", "--gpus=a100:2")
    wait_for(lambda: cluster.job(job)["JobState"] == "COMPLETED", what="the job")
    assert out.read_text() == "0,1\n"
    assert cluster.job(job)["TresPerJob"] == "gres:gpu:a100:2"


def test_jobs_outlive_the_daemons(cluster):
    job = cluster.submit("sleep 600")
    wait_for(lambda: cluster.processes_of(job, "sleep"), what="the job")
    cluster.stop_controller()
    cluster.stop_node_daemon(signal.SIGKILL)
    cluster.start_controller()
    cluster.start_node()
    assert cluster.job(job)["JobState"] == "RUNNING"
    assert cluster.processes_of(job, "sleep")


def test_a_job_is_requeued_when_its_node_goes_down(cluster):
    job = cluster.submit("sleep 600")
    wait_for(lambda: cluster.processes_of(job, "sleep"), what="the job")
    cluster.crash_node()
    wait_for(lambda: cluster.job(job)["Restarts"] == "1", 90, "the requeue")
    cluster.start_node()
    wait_for(lambda: cluster.processes_of(job, "sleep"), 60, "the job's second start")
