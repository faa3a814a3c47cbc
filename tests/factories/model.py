"""Small models, documents and batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.audiocalm import AudioCALM
from model.batch import Document
from model.bundle.weights import Qwen3Checkpoint
from model.config import BackboneConfig, HeadConfig, ModelConfig
from model.flow import sample_flow_time

SPEAKER_ID = 40
AUDIO_ID = 41
NULL_ID = 42


def tiny_config(**changes: Any) -> ModelConfig:
    """Three layers, two query heads a key head, four frames a block."""
    config = ModelConfig(
        backbone=BackboneConfig(
            hidden_dim=32,
            num_layers=3,
            num_heads=4,
            num_kv_heads=2,
            head_dim=8,
            ffn_dim=48,
            vocab_size=50,
        ),
        head=HeadConfig(hidden_dim=24, num_layers=2, time_embedding_dim=16),
        latent_dim=6,
        frames_per_block=4,
        speaker_dim=5,
        speaker_id=SPEAKER_ID,
    )
    return dataclasses.replace(config, **changes)


LOCAL_HEAD = HeadConfig(
    kind="local", hidden_dim=24, num_layers=2, head_dim=8, time_embedding_dim=16
)
"""For `tiny_config(head=LOCAL_HEAD)`."""


def load_qwen3(model: AudioCALM, folder: Path, new_token_ids: Sequence[int] = ()) -> None:
    """Fill the backbone with a published checkpoint, as a run starts from one."""
    checkpoint = Qwen3Checkpoint(model, folder, new_token_ids)
    for module in model.backbone.modules():
        checkpoint.fill(module)


def random_model(config: ModelConfig | None = None, seed: int = 0) -> AudioCALM:
    """A model with no zero anywhere: trained weights stand further apart than fresh ones."""
    torch.manual_seed(seed)
    model = AudioCALM(config or tiny_config())
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(noise / parameter.shape[-1] ** 0.5)
            else:
                parameter.add_(0.1 * noise)
            if name.endswith("embed_tokens.weight"):
                parameter.copy_(noise)
    return model.eval()


def random_document(
    config: ModelConfig,
    seed: int,
    *,
    num_text: int = 5,
    num_blocks: int = 3,
    num_copies: int = 1,
    has_speaker: bool = False,
    modality: str = "sound",
    num_valid_frames: int | None = None,
    history_noise: float = 0.0,
    **changes: Any,
) -> Document:
    """Random text and latents; speech routes to the expert."""
    generator = torch.Generator().manual_seed(seed)
    num_frames = num_blocks * config.frames_per_block

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    token_ids = torch.randint(0, SPEAKER_ID, (num_text,), generator=generator)
    token_ids[-1] = AUDIO_ID
    if has_speaker:
        token_ids[0] = SPEAKER_ID
    latents = normal(num_frames, config.latent_dim)
    fields: dict[str, Any] = {
        "token_ids": token_ids,
        "latents": latents,
        "history": latents + history_noise * normal(*latents.shape),
        "noise": normal(num_copies, num_frames, config.latent_dim),
        "flow_time": sample_flow_time(num_copies, num_blocks, generator),
        "num_valid_frames": num_valid_frames or num_frames,
        "modality": modality,
        "uses_expert": modality == "speech",
        "speaker": normal(config.speaker_dim) if has_speaker else None,
    }
    return Document(**{**fields, **changes})
