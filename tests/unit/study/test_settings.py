"""Settings of a training run."""

from __future__ import annotations

import pytest

from pretraining.runtime.errors import UserError
from pretraining.study.settings import load_settings


def settings_of(tmp_path, text, kind="direct"):
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    return load_settings(path, kind)


def test_the_defaults_are_the_papers_procedure(tmp_path):
    training = settings_of(tmp_path, "{}").training
    assert (training.batch_size, training.val_batch_size) == (10, 20)
    assert (training.learning_rate, training.ema_decay) == (0.01, 0.99)
    assert training.loss == {"energy": 4.0, "forces": 1.0}
    assert (training.max_epochs, training.patience, training.min_delta) == (300, 40, 0.005)


def test_one_kind_of_run_may_differ(tmp_path):
    text = "training: {patience: 7, pretrain: {max_epochs: 450}}"
    assert settings_of(tmp_path, text, "pretrain").training.max_epochs == 450
    assert settings_of(tmp_path, text, "finetune").training.max_epochs == 300
    assert settings_of(tmp_path, text, "finetune").training.patience == 7


def test_the_identity_of_a_run_leaves_out_runtime_options(tmp_path):
    def identity(text):
        return settings_of(tmp_path, text).identity()

    plain = identity("{}")
    assert identity("training: {device: cpu, checkpoint_seconds: 5, workers: 2}") == plain
    assert identity("training: {learning_rate: 0.02}") != plain
    assert identity("network: {num_layers: 2}") != plain


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training: {patince: 3}", "settings.yaml: training: unknown key 'patince'.*'patience'"),
        ("trainings: {}", "unknown key 'trainings'.* allowed: network, training, transforms"),
        ("training: {batch_size: 0}", "training.batch_size: 0 is less than the minimum of 1"),
        ("training: {batch_size: 2.5}", "training.batch_size: 2.5 is not of type 'integer'"),
        ("training: {learning_rate: 1e6}", "training.learning_rate: '1e6' is not of type 'number'"),
        ("training: {allow_cpu: 1}", "training.allow_cpu: 1 is not of type 'boolean'"),
        ("training: {device: gpu}", "training.device: 'gpu' is not one of .'auto', 'cpu'"),
        ("training: {ema_decay: 1.0}", "training.ema_decay: 1.0 is .* equal to the maximum of 1"),
        ("training: {loss: {energy: -1}}", "training.loss.energy: -1 is less than the minimum"),
        ("training: {loss: {energy: 0, forces: 0}}", "training.loss: at least one weight"),
        ("training: {pretrain: {device: cpu}}", "training.pretrain: unknown key 'device'"),
        ("network: {cutoff: 0}", "network.cutoff: 0 is .* equal to the minimum of 0"),
        ("transforms: {Si: {elments: {C: Si}}}", "transforms.Si: unknown key 'elments'"),
        ("training: [", "not valid YAML"),
    ],
)
def test_a_fault_is_named(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        settings_of(tmp_path, text)
