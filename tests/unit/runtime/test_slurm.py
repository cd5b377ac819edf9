"""What the package asks of Slurm, without one: tests/cluster has a real one."""

from __future__ import annotations

import types

import pytest

from pretraining.runtime import slurm


@pytest.fixture
def queue(tmp_path, monkeypatch):
    """A function that puts a program in the place of squeue, which prints an answer at each call.

    The last answer is given again and again; one that starts with an exclamation mark is an error.
    """
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(slurm, "QUEUE_LOOK", 0.01)
    monkeypatch.chdir(tmp_path)

    def answers(*texts):
        for number, text in enumerate(texts):
            (tmp_path / f"answer{number}").write_text(text)
        (tmp_path / "calls").write_text("0")
        program = tmp_path / "squeue"
        program.write_text(
            "#!/bin/sh\nn=$(cat calls)\n"
            f"[ $n -lt {len(texts) - 1} ] && echo $((n + 1)) > calls\n"
            "if grep -q '^!' answer$n; then cat answer$n >&2; exit 1; fi\ncat answer$n\n"
        )
        program.chmod(0o755)

    return answers


def head(main=True, executor="snakemake_executor_plugin_slurm"):
    """Return a stand-in for Snakemake's workflow."""
    settings = type("ExecutorSettings", (), {"__module__": executor})()
    return types.SimpleNamespace(is_main_process=main, executor_settings=settings)


def test_a_head_waits_for_the_jobs_of_an_earlier_one_and_stops(queue, tmp_path, capfd):
    jobs = [f"{n}|uuid1|rule_label_wildcards_a_{n}|{tmp_path}\n" for n in range(7)]
    others = f"9|mine|a comment|{tmp_path}\n10|uuid2|rule_label|/elsewhere\n"
    array = f"11_3|uuid3|rule_direct|{tmp_path}\n"
    queue("".join(jobs) + others + array, "!no controller", jobs[3] + others, others)
    with pytest.raises(SystemExit, match="have ended: start Snakemake again"):
        slurm.stop_after_leftovers(head())
    said = capfd.readouterr().err
    assert (
        "in the queue: 0 (label), 1 (label), 2 (label), 3 (label), 4 (label), and 3 more." in said
    )
    assert "scancel --name=uuid1 && scancel --name=uuid3\n" in said
    assert "squeue: !no controller; asking again" in said
    assert int((tmp_path / "calls").read_text()) == 3


def test_without_jobs_left_nothing_happens(queue, tmp_path, capfd):
    queue(f"9|mine|a comment|{tmp_path}\n10|uuid2|rule_label|/elsewhere\n")
    slurm.stop_after_leftovers(head())
    # Neither does it in a job, or in a Snakemake that submits nothing.
    queue(f"9|uuid|rule_label|{tmp_path}\n")
    slurm.stop_after_leftovers(head(main=False))
    slurm.stop_after_leftovers(head(executor="builtins"))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        ("1-02:03:04|rule_direct", 93784),
        ("2:05|rule_direct", 125),
        ("UNLIMITED|rule_direct", None),
        ("2:05|my own script", None),
    ],
)
def test_the_time_left_to_a_job_of_snakemake(queue, answer, seconds):
    queue(answer)
    assert slurm.seconds_left("17") == seconds


def test_a_task_of_an_array_is_requeued_by_both_numbers(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "19")
    assert slurm.slurm_job() == "19"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "17")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    assert slurm.slurm_job() == "17_2"
