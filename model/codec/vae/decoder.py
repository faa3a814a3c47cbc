"""Decoder: causal throughout, so that a waveform can be decoded in pieces and come out the same.

Latents are spread over the steps of a patch, mixed by causal self-attention and causal residual
convolutions, and end in an inverse STFT at a finer hop. Everything a piece needs of the pieces
before it is a `DecoderState`: a value that belongs to one request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from model.codec.tiny.principal import Components, PrincipalDecoder
from model.codec.tiny.pulse import PulseTrain
from model.codec.vae.codec_config import CodecConfig
from model.codec.vae.codec_layers import CausalConv, CausalTransformerLayer, CausalUnit, ChannelNorm
from model.codec.vae.istft import HeadSpectrum, SpectralHead, overlap_add

_KERNEL = 3


@dataclass(frozen=True)
class DecoderState:
    """State of one request from piece to piece.

    Attributes:
        layers: Past of every causal layer, in their order, and of the head; no batch axis.
        overlap: Sum of waveform frames that later ones still add to, `channels samples`; the last
            row is the sum of squared windows that it is divided by.
        num_spectral_frames: Inverse-STFT frames so far.
    """

    layers: tuple[Tensor, ...]
    overlap: Tensor
    num_spectral_frames: int


class Decoder(nn.Module):
    """Latents to waveform."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        hidden = config.hidden_dim
        self.spread = nn.Linear(config.latent_dim, config.patch_frames * hidden)
        self.layers = nn.ModuleList(
            CausalTransformerLayer(hidden, config.num_heads, config.ffn_dim, config.window)
            for _ in range(config.decoder_layers)
        )
        self.units = nn.ModuleList(_units(hidden, config.decoder_units, config.dilations))
        self.upsample = nn.Linear(hidden, config.head_upsample * config.head_channels)
        self.smooth = CausalConv(config.head_channels, _KERNEL)
        self.head_units = nn.ModuleList(
            _units(config.head_channels, config.head_units, config.dilations)
        )
        self.norm = ChannelNorm(config.head_channels)
        self.head = SpectralHead(
            config.head_channels,
            config.num_channels,
            config.head_window,
            config.head_hop,
            is_propagated=config.head_phase == "propagated",
        )
        self.principal = self.partials = self.pulses = None
        if config.principal_bands:
            self.principal = PrincipalDecoder(config)
            harmonics = self.principal.harmonics
            self.pulses = PulseTrain(harmonics, config.sample_rate, config.head_hop)
            self.partials = nn.Linear(self.head.num_bins, config.head_channels, bias=False)
            nn.init.zeros_(self.partials.weight)

    def initial_state(self) -> DecoderState:
        """State of a request before its first piece."""
        overlap = self.config.head_window - self.config.head_hop
        return DecoderState(
            layers=tuple(layer.initial_state() for layer in (*self._causal_layers(), self.head)),
            overlap=self.head.window.new_zeros(self.config.num_channels + 1, overlap),
            num_spectral_frames=0,
        )

    def start_linear(self, components: Components) -> None:
        """Initialise as principal components, with nothing added by the network.

        The configuration has `principal_bands`.
        """
        assert self.principal is not None
        self.principal.fit(components)
        self.head.start_linear()

    def forward(
        self, latents: Float[Tensor, "batch frames latent_dim"]
    ) -> Float[Tensor, "batch channels samples"]:
        """Waveform of a whole clip, for training."""
        return self.synthesize(self.predict(latents))

    def predict(self, latents: Float[Tensor, "batch frames latent_dim"]) -> HeadSpectrum:
        """Spectra of a whole clip, from which `synthesize` makes the waveform."""
        return self._predict(latents, [None] * len(self._causal_layers()))[0]

    def synthesize(self, predicted: HeadSpectrum) -> Float[Tensor, "batch channels samples"]:
        """Waveform of the spectra of a whole clip."""
        frames, _ = self.head.frames(predicted)
        start = self.initial_state().overlap
        summed, tail = self._overlap_add(frames, start.expand(frames.shape[0], -1, -1))
        samples = _normalised(torch.cat([summed, tail], dim=-1))
        trim = self._trim
        return samples[..., trim : samples.shape[-1] - trim]

    def stream(
        self,
        latents: Float[Tensor, "batch frames latent_dim"],
        states: Sequence[DecoderState],
        is_last: Sequence[bool],
    ) -> tuple[list[Float[Tensor, "channels samples"]], list[DecoderState]]:
        """Next piece of each request, and its new state."""
        past = [torch.stack(parts) for parts in zip(*(s.layers for s in states), strict=True)]
        if latents.shape[1]:
            counts = [state.num_spectral_frames for state in states]
            num_before = torch.tensor(counts, device=latents.device)
            predicted, following_layers = self._predict(latents, past[:-1])
            frames, phases = self.head.frames(predicted, num_before, past[-1])
            past = [*following_layers, phases]
        else:
            # Convolutions refuse inputs without steps; a piece may only flush what is held back.
            shape = (latents.shape[0], self.config.num_channels, 0, self.config.head_window)
            frames = latents.new_zeros(shape)
        overlap = torch.stack([state.overlap for state in states])
        summed, tail = self._overlap_add(frames, overlap)
        samples = _normalised(summed)
        ending = _normalised(tail)
        pieces, following = [], []
        for row, state in enumerate(states):
            skipped = max(0, self._trim - state.num_spectral_frames * self.config.head_hop)
            piece = samples[row]
            if is_last[row]:
                rest = ending[row]
                piece = torch.cat([piece, rest[:, : rest.shape[-1] - self._trim]], dim=-1)
            pieces.append(piece[:, skipped:])
            following.append(
                DecoderState(
                    layers=tuple(part[row] for part in past),
                    overlap=tail[row],
                    num_spectral_frames=state.num_spectral_frames + frames.shape[2],
                )
            )
        return pieces, following

    @property
    def _trim(self) -> int:
        """Samples of the first frame before the waveform begins; the stream's delay."""
        return (self.config.head_window - self.config.head_hop) // 2

    def _causal_layers(self) -> list[Any]:
        voice = [] if self.pulses is None else [self.pulses]
        return [*self.layers, *self.units, *voice, self.smooth, *self.head_units]

    def _predict(
        self, latents: Tensor, states: Sequence[Tensor | None]
    ) -> tuple[HeadSpectrum, list[Tensor]]:
        past, following = iter(states), []
        steps = rearrange(
            self.spread(latents).float(), "b f (p d) -> b (f p) d", p=self.config.patch_frames
        )
        for layer in self.layers:
            steps, state = layer(steps, next(past))
            following.append(state)
        features = rearrange(steps, "batch seq hidden -> batch hidden seq")
        for unit in self.units:
            features, state = unit(features, next(past))
            following.append(state)
        fine = self.upsample(rearrange(features, "batch hidden seq -> batch seq hidden"))
        fine = rearrange(fine, "b s (u d) -> b (s u) d", u=self.config.head_upsample)
        linear = pulses = None
        if self.principal and self.partials and self.pulses:
            linear, comb = self.principal(latents)
            fine = fine + self.partials(comb)
            pulses, state = self.pulses(self.principal.pitch(latents.double()), next(past))
            following.append(state)
        features = rearrange(fine, "b s d -> b d s")
        for unit in (self.smooth, *self.head_units):
            features, state = unit(features, next(past))
            following.append(state)
        features = rearrange(self.norm(features), "batch hidden seq -> batch seq hidden")
        return self.head.predict(features, linear, pulses), following

    def _overlap_add(self, frames: Tensor, overlap: Tensor) -> tuple[Tensor, Tensor]:
        envelope = self.head.window.square().expand(frames.shape[0], 1, frames.shape[2], -1)
        return overlap_add(torch.cat([frames, envelope], dim=1), self.config.head_hop, overlap)


def _normalised(summed: Float[Tensor, "batch parts samples"]) -> Tensor:
    """Overlapped frames over the overlapped squared windows, which are the last row."""
    return summed[:, :-1] / summed[:, -1:].clamp(min=1e-8)


def _units(num_channels: int, count: int, dilations: tuple[int, ...]) -> list[CausalUnit]:
    return [
        CausalUnit(num_channels, _KERNEL, dilations[index % len(dilations)])
        for index in range(count)
    ]
