"""The fastest form of a backbone for where it lives."""

from __future__ import annotations

import torch

from model.backbone import Backbone, BackboneLike
from model.fast.cpu import CpuBackbone
from model.fast.cuda_graphs import GraphBackbone
from model.inference.cache import KVCache

_MAX_COPY_BYTES = 2 << 30
"""Weights up to this size are copied for a CPU; beyond, a copy costs more memory than it is
worth."""


def fast_backbone(backbone: Backbone, cache: KVCache | None = None) -> BackboneLike:
    """A form of the backbone that gives the same states sooner, or the backbone itself.

    Args:
        backbone: Its weights must not change afterwards.
        cache: The cache of the sampler that uses it; on a GPU, one with few shapes has its passes
            captured as CUDA graphs.
    """
    weights = list(backbone.parameters())
    if all(weight.is_cuda for weight in weights):
        has_few_shapes = cache is not None and cache.has_few_shapes
        return GraphBackbone(backbone, cache) if cache and has_few_shapes else backbone
    size = sum(weight.numel() * weight.element_size() for weight in weights)
    is_plain = all(weight.is_cpu and weight.dtype == torch.float32 for weight in weights)
    return CpuBackbone(backbone) if is_plain and size <= _MAX_COPY_BYTES else backbone
