"""Which form of the backbone runs where."""

from __future__ import annotations

import pytest
import torch

from model.fast import choice
from model.fast.choice import fast_backbone
from model.fast.cpu import CpuBackbone
from model.inference.cache import CacheSize, KVCache
from tests.factories.model import random_model


def test_small_float32_weights_on_a_cpu_are_copied_and_others_run_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backbone = random_model().backbone
    assert isinstance(fast_backbone(backbone), CpuBackbone)
    half = random_model().backbone.bfloat16()
    assert fast_backbone(half) is half
    monkeypatch.setattr(choice, "_MAX_COPY_BYTES", 1000)
    assert fast_backbone(backbone) is backbone


def test_nothing_is_captured_on_a_cpu() -> None:
    model = random_model()
    size = CacheSize(num_rows=2, num_tokens=64, has_few_shapes=True)
    cache = KVCache(model.config, torch.device("cpu"), torch.float32, size)
    assert isinstance(fast_backbone(model.backbone, cache), CpuBackbone)
