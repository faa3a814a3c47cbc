from __future__ import annotations

import math
import shutil
import subprocess
import sys

import pytest
import torch

from model.optim import parameter_groups
from pipeline.errors import NonFiniteError, SettingsError
from pipeline.storage import Folder
from pipeline.training.engine import (
    check_compiler,
    engine_config,
    precision_of,
    quiet_deepspeed,
    sharding,
    whole_shape,
)
from pipeline.training.setup import build_model, model_config, open_tokenizer
from pipeline.training.shards import TrainShards
from tests.factories.training import reference, small_settings, training, weights_of


def test_the_engine_configuration_follows_from_the_settings():
    settings = small_settings(
        engine={"zero_stage": 3, "precision": "bf16"},
        feed={"rows_per_micro_batch": 4},
        optim={"clip_norm": 0.5},
    )
    config = engine_config(settings, num_parameters=5000)
    assert config["zero_optimization"]["stage"] == 3
    assert config["zero_optimization"]["reduce_bucket_size"] == 5120
    assert config["train_micro_batch_size_per_gpu"] == 4
    assert config["gradient_clipping"] == 0.5
    assert config["bf16"]["enabled"]
    large = engine_config(settings, num_parameters=10**10)
    assert large["zero_optimization"]["reduce_bucket_size"] < 10**9


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        ({"precision": "auto"}, "fp32"),
        ({"precision": "auto", "use_gpu": True}, "bf16"),
        ({"use_gpu": True, "precision": "fp32"}, "fp32"),
    ],
)
def test_auto_precision_follows_the_device(engine, expected, monkeypatch):
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: False)
    assert precision_of(small_settings(engine=engine)) == expected


def test_a_cpu_that_multiplies_tiles_of_bf16_trains_in_bf16(monkeypatch):
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: True)
    assert precision_of(small_settings(engine={"precision": "auto"})) == "bf16"
    assert precision_of(small_settings()) == "fp32"


@pytest.mark.slow
def test_compiled_layers_on_a_cpu_need_a_compiler(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr("shutil.which", lambda name: None)
    check_compiler(small_settings())
    check_compiler(small_settings(engine={"compile_layers": True, "use_gpu": True}))
    with pytest.raises(SettingsError, match=r"no C\+\+ compiler"):
        check_compiler(small_settings(engine={"compile_layers": True}))
    monkeypatch.setattr("shutil.which", lambda name: "/bin/" + name)
    check_compiler(small_settings(engine={"compile_layers": True}))


def test_nothing_is_compiled_for_training(alone):
    deepspeed = quiet_deepspeed()
    assert deepspeed.ops.__compatible_ops__ == {}, "what is in the table is built at first use"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("zero_stage", "recomputes"), [(1, False), (2, False), (2, True), (3, False), (3, True)]
)
def test_every_zero_stage_trains_like_plain_torch(
    alone, small_shards, tmp_path, zero_stage, recomputes
):
    settings = small_settings(engine={"zero_stage": zero_stage, "recompute_layers": recomputes})
    weights, average, losses = reference(settings, small_shards, 6)
    worker = training(settings, tmp_path, small_shards)
    summary = worker.run()
    assert summary["first"]["loss/total"] == pytest.approx(losses[0], abs=1e-5)
    assert summary["last"]["loss/total"] == pytest.approx(losses[-1], abs=1e-5)
    for kind, expected in (("weights", weights), ("average", average)):
        found = weights_of(worker, kind)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            # float32 sums in another order
            torch.testing.assert_close(found[name], value, atol=1e-5, rtol=0)
    assert any((average[name] - weights[name]).abs().max() > 1e-3 for name in weights)


def test_zero_3_takes_every_module_out_of_memory_as_soon_as_it_has_values(alone, small_shards):
    settings = small_settings(engine={"zero_stage": 3})
    shards = TrainShards(Folder.at(small_shards))
    config = model_config(settings.model, shards, open_tokenizer(settings.model))
    shard = sharding(settings, torch.device("cpu"))
    sizes = []

    def watched(module):
        sizes.append(sum(parameter.numel() for parameter in module.parameters()))
        shard(module)
        assert all(parameter.numel() == 0 for parameter in module.parameters())

    model = build_model(settings, config, shards, shard=watched)
    total = sum(math.prod(whole_shape(parameter)) for parameter in model.parameters())
    groups = parameter_groups(model, settings.optim, whole_shape)
    decaying = [p for group in groups if group["weight_decay"] for p in group["params"]]
    assert {len(whole_shape(parameter)) for parameter in decaying} == {2}
    assert sum(sizes) == total, "of every module only its own parameters were in memory"


@pytest.mark.slow
def test_a_gradient_that_is_not_finite_stops_before_the_weights_change(
    alone, small_shards, tmp_path
):
    worker = training(small_settings(), tmp_path, small_shards)
    worker.step(worker.feed.batch(0))
    before, average = weights_of(worker), weights_of(worker, "average")
    (parameter, *_) = worker.engine.module.flow_head.parameters()
    worker.engine.backward((parameter * float("inf")).sum() * 0.0 + parameter.sum())
    with pytest.raises(NonFiniteError, match="gradient is not finite at step 1"):
        worker.engine.step(1)
    after = weights_of(worker)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(torch.equal(average[n], v) for n, v in weights_of(worker, "average").items())


@pytest.mark.slow
def test_bf16_keeps_float32_masters_and_statistics(alone, small_shards, tmp_path):
    settings = small_settings(engine={"precision": "bf16"}, optim={"num_steps": 2})
    _, _, losses = reference(settings, small_shards, 2)
    worker = training(settings, tmp_path, small_shards)
    summary = worker.run()
    assert worker.engine.module.latent_proj.weight.dtype == torch.bfloat16
    assert worker.engine.module.latent_std.dtype == torch.float32
    assert {flat.dtype for flat in worker.engine.partitions.weights} == {torch.float32}
    assert summary["last"]["loss/total"] == pytest.approx(losses[-1], rel=0.02)


ADAPTERS_COMPILED = """
import dataclasses

import torch

from pipeline.training.lora import add_adapters
from pipeline.training.settings import LoraSettings
from tests.factories.model import random_model, tiny_config
from tests.model.test_audiocalm import two_documents


def gradients(model):
    model.zero_grad()
    output = model(two_documents())
    (output.velocity.square().sum() + output.stop_logit.square().sum()).backward()
    named = model.named_parameters()
    return {name: value.grad.clone() for name, value in named if value.grad is not None}


backbone = dataclasses.replace(tiny_config().backbone, num_layers=1)
model = random_model(tiny_config(backbone=backbone)).train()
add_adapters(model, LoraSettings(rank=2, alpha=4))
with torch.no_grad():
    for name, value in model.named_parameters():
        if ".lora_B." in name:  # zero at the start, and with it the gradients of the others
            torch.nn.init.normal_(value, std=0.1)
plain = gradients(model)
assert plain and all(".lora_" in name for name in plain)
model.compile_layers()
compiled = gradients(model)
assert compiled.keys() == plain.keys()
for name, value in plain.items():
    # float32: fused sums are taken in another order.
    torch.testing.assert_close(compiled[name], value, atol=1e-3, rtol=1e-4)
"""


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling for a CPU needs g++")
def test_adapters_get_the_same_gradients_in_compiled_layers() -> None:
    # In a process of its own: the type checks of the tests cannot be traced.
    subprocess.run([sys.executable, "-c", ADAPTERS_COMPILED], check=True)
