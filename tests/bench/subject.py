"""What the model's benchmarks measure: a preset on a device, with random weights."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property

import torch

from model.audiocalm import AudioCALM
from model.codec.protocol import AudioCodec
from model.codec.registry import build_codec, codec_preset
from model.config import ModelConfig, preset
from model.inference.generation import GenerationRequest, SamplingOptions
from model.layers import materialise
from model.timebase import Timebase

FLOW_STEPS = 16
PREFIX = tuple(range(60))


@dataclass(frozen=True)
class Subject:
    """A preset on the device at hand: bfloat16 on a GPU, float32 on a CPU."""

    name: str

    @property
    def device(self) -> torch.device:
        """A GPU where there is one."""
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @property
    def dtype(self) -> torch.dtype:
        """Of weights and activations."""
        return torch.bfloat16 if self.device.type == "cuda" else torch.float32

    @property
    def config(self) -> ModelConfig:
        """Of the preset."""
        return preset(self.name)

    @cached_property
    def codec(self) -> AudioCodec:
        """A codec as wide as the preset's latents, with random weights."""
        codec = build_codec(codec_preset("tiny" if self.name == "tiny" else "paper"))
        if isinstance(codec, torch.nn.Module):
            codec.to(self.device)
        return codec

    @property
    def timebase(self) -> Timebase:
        """Of the codec."""
        return self.codec.timebase

    def built(self, config: ModelConfig) -> AudioCALM:
        """A model with random weights; never more than one copy of them in memory."""
        torch.manual_seed(0)
        with torch.device("meta"):
            model = AudioCALM(config)
        return materialise(model.to(self.dtype), self.device).eval()


def with_local_head(config: ModelConfig) -> ModelConfig:
    """The same backbone, a local head as wide and deep as the thin one."""
    return dataclasses.replace(config, head=dataclasses.replace(config.head, kind="local"))


def request(
    frames: int,
    seed: int = 0,
    *,
    uses_expert: bool = False,
    waits_for_stop: bool = False,
    **options: object,
) -> GenerationRequest:
    """A request of one length, whether the stop head is asked or not."""
    given = {"num_flow_steps": FLOW_STEPS, "guidance_scale": 2.0, "stop_threshold": 1 - 1e-9}
    return GenerationRequest(
        token_ids=PREFIX,
        null_ids=PREFIX[:2],
        uses_expert=uses_expert,
        seed=seed,
        max_frames=frames,
        exact_frames=None if waits_for_stop else frames,
        options=SamplingOptions(**{**given, **options}),  # type: ignore[arg-type]
    )
