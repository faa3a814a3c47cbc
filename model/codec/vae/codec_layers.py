"""Layers of the codec: convolutions that carry their past, and attention within a window.

Inside the codec, convolution features are `batch hidden seq` and attention features
`batch seq hidden`. A causal layer takes and returns its past as a tensor; None is the beginning of
a waveform, where the past of a convolution is zeros and attention has none.
"""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F


class ChannelNorm(nn.Module):
    """RMSNorm over the channels of convolution features; no step sees another."""

    def __init__(self, num_channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(num_channels, 1))

    def forward(self, features: Float[Tensor, "batch hidden seq"]) -> Tensor:
        """Scale every step to unit mean square."""
        power = features.float().square().mean(dim=1, keepdim=True)
        return features * torch.rsqrt(power + self.eps) * self.weight


class CenteredConv(nn.Module):
    """Convolution padded with zeros on both sides: `seq` steps give exactly `seq / stride`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        padding = (kernel - 1) * dilation + 1 - stride
        self.padding = (padding // 2, padding - padding // 2)
        self.conv = nn.Conv1d(in_channels, out_channels, kernel, stride, dilation=dilation)

    def forward(self, features: Float[Tensor, "batch hidden seq"]) -> Tensor:
        """Convolve; the length must be a multiple of the stride."""
        return self.conv(F.pad(features, self.padding))


class CausalConv(nn.Module):
    """Convolution over the past only; the past of a piece is the end of the piece before."""

    def __init__(self, num_channels: int, kernel: int, *, dilation: int = 1) -> None:
        super().__init__()
        self.num_channels = num_channels
        self.dilation = dilation
        self.reach = (kernel - 1) * dilation
        self.conv = nn.Conv1d(num_channels, num_channels, kernel, dilation=dilation)

    def initial_state(self) -> Float[Tensor, "hidden seq"]:
        """Silence before the first piece."""
        return self.conv.weight.new_zeros(self.num_channels, self.reach)

    def forward(
        self,
        features: Float[Tensor, "batch hidden seq"],
        state: Float[Tensor, "batch hidden past"] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Convolved features, and the state for the next piece."""
        if state is None:
            joined = F.pad(features, (self.reach, 0))
        else:
            joined = torch.cat([state, features], dim=-1)
        return self._convolved(joined), joined[..., joined.shape[-1] - self.reach :]

    def _convolved(self, joined: Float[Tensor, "batch hidden past_and_seq"]) -> Tensor:
        if self.dilation == 1 or not joined.is_cpu or torch.is_grad_enabled():
            return self.conv(joined)
        # Torch dilates a single short piece by a loop over its channels, at five times the cost.
        taps = joined.unfold(-1, self.reach + 1, 1)[..., :: self.dilation].transpose(2, 3)
        weight = self.conv.weight.flatten(1).expand(len(joined), -1, -1)
        assert self.conv.bias is not None
        return torch.baddbmm(self.conv.bias[:, None], weight, taps.flatten(1, 2))


class CenteredUnit(nn.Module):
    """Residual unit of the encoder: norm, activation, dilated and pointwise convolution.

    Zero steps stay zero on its inside, so that steps masked to zero act as the end of a waveform.
    """

    def __init__(self, num_channels: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(num_channels)
        self.dilated = CenteredConv(num_channels, num_channels, kernel, dilation=dilation)
        self.pointwise = nn.Conv1d(num_channels, num_channels, 1)

    def forward(self, features: Float[Tensor, "batch hidden seq"]) -> Tensor:
        """Features plus the residual."""
        inner = self.dilated(F.silu(self.norm(features)))
        return features + self.pointwise(F.silu(inner))


class CausalUnit(nn.Module):
    """Residual unit of the decoder: as `CenteredUnit`, over the past only."""

    def __init__(self, num_channels: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(num_channels)
        self.dilated = CausalConv(num_channels, kernel, dilation=dilation)
        self.pointwise = nn.Conv1d(num_channels, num_channels, 1)

    def initial_state(self) -> Tensor:
        """State before the first piece."""
        return self.dilated.initial_state()

    def forward(
        self, features: Float[Tensor, "batch hidden seq"], state: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Features plus the residual, and the state for the next piece."""
        inner, state = self.dilated(F.silu(self.norm(features)), state)
        return features + self.pointwise(F.silu(inner)), state


class WindowedAttention(nn.Module):
    """Multi-head attention with rotary positions, within a window of steps.

    Rotary positions are relative, so every piece counts its steps from the start of its own past:
    precision does not fade over a long stream.
    """

    def __init__(self, hidden_dim: int, num_heads: int, window: int) -> None:
        super().__init__()
        self.num_heads, self.window, self.hidden_dim = num_heads, window, hidden_dim
        self.qkv = nn.Linear(hidden_dim, 3 * hidden_dim, bias=False)
        self.out = nn.Linear(hidden_dim, hidden_dim, bias=False)

    def initial_state(self) -> Float[Tensor, "seq hidden"]:
        """An empty past: keys, values, and whether each step exists."""
        return self.qkv.weight.new_zeros(self.window, 2 * self.hidden_dim + 1)

    def bidirectional(
        self,
        features: Float[Tensor, "batch seq hidden"],
        valid: Bool[Tensor, "batch seq"] | None = None,
    ) -> Tensor:
        """Attend to `window` steps either side, among the valid ones."""
        query, key, value = (self._heads(part) for part in self.qkv(features).chunk(3, dim=-1))
        query, key = rotate_steps(query), rotate_steps(key)
        if features.shape[1] <= self.window + 1 and valid is None:
            mixed = F.scaled_dot_product_attention(query, key, value)
        else:
            mixed = banded_attention(query, key, value, self.window, valid)
        return self.out(rearrange(mixed, "batch heads seq dim -> batch seq (heads dim)"))

    def causal(
        self,
        features: Float[Tensor, "batch seq hidden"],
        state: Float[Tensor, "batch past cached"] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Attend to this step and `window` earlier ones; gives the state for the next piece."""
        query, *key_value = self.qkv(features).chunk(3, dim=-1)
        exists = torch.ones_like(features[..., :1])
        joined = torch.cat([*key_value, exists], dim=-1)
        if state is not None:
            joined = torch.cat([state, joined], dim=1)
        key, value, exists = joined.split([self.hidden_dim, self.hidden_dim, 1], dim=-1)
        num_past = joined.shape[1] - features.shape[1]
        query = rotate_steps(self._heads(query), offset=num_past)
        step = torch.arange(joined.shape[1], device=features.device)
        distance = step[num_past:, None] - step
        allowed = (distance >= 0) & (distance <= self.window) & (exists[..., 0] > 0)[:, None]
        mixed = F.scaled_dot_product_attention(
            query, rotate_steps(self._heads(key)), self._heads(value), allowed[:, None]
        )
        out = self.out(rearrange(mixed, "batch heads seq dim -> batch seq (heads dim)"))
        if joined.shape[1] < self.window:
            joined = F.pad(joined, (0, 0, self.window - joined.shape[1], 0))
        return out, joined[:, joined.shape[1] - self.window :]

    def _heads(self, features: Tensor) -> Tensor:
        return rearrange(
            features, "batch seq (heads dim) -> batch heads seq dim", heads=self.num_heads
        )


class TransformerLayer(nn.Module):
    """Parts of a pre-norm layer: attention and SwiGLU feed-forward."""

    def __init__(self, hidden_dim: int, num_heads: int, ffn_dim: int, window: int) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(hidden_dim, eps=1e-6)
        self.attention = WindowedAttention(hidden_dim, num_heads, window)
        self.ffn_norm = nn.RMSNorm(hidden_dim, eps=1e-6)
        self.gate_up = nn.Linear(hidden_dim, 2 * ffn_dim, bias=False)
        self.down = nn.Linear(ffn_dim, hidden_dim, bias=False)

    def feed_forward(self, features: Float[Tensor, "batch seq hidden"]) -> Tensor:
        """Features plus the feed-forward's residual."""
        gate, up = self.gate_up(self.ffn_norm(features)).chunk(2, dim=-1)
        return features + self.down(F.silu(gate) * up)


class CenteredTransformerLayer(TransformerLayer):
    """Layer that sees `window` steps either side."""

    def forward(
        self,
        features: Float[Tensor, "batch seq hidden"],
        valid: Bool[Tensor, "batch seq"] | None = None,
    ) -> Tensor:
        """Mixed features; only valid steps are seen."""
        mixed = self.attention.bidirectional(self.attention_norm(features), valid)
        return self.feed_forward(features + mixed)


class CausalTransformerLayer(TransformerLayer):
    """Layer that sees the present step and `window` earlier ones."""

    def initial_state(self) -> Tensor:
        """State before the first piece."""
        return self.attention.initial_state()

    def forward(
        self, features: Float[Tensor, "batch seq hidden"], state: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mixed features, and the state for the next piece."""
        mixed, state = self.attention.causal(self.attention_norm(features), state)
        return self.feed_forward(features + mixed), state


def rotate_steps(
    heads: Float[Tensor, "batch heads seq head_dim"], offset: int = 0, theta: float = 10_000.0
) -> Float[Tensor, "batch heads seq head_dim"]:
    """Rotary position embedding (rotate-half form), step 0 at position `offset`.

    Source:
        RoFormer, arXiv:2104.09864, section 3.4.
    """
    half = heads.shape[-1] // 2
    device = heads.device
    frequency = theta ** (-torch.arange(half, device=device, dtype=torch.float32) / half)
    position = torch.arange(offset, offset + heads.shape[-2], device=device, dtype=torch.float32)
    angle = position[:, None] * frequency
    cos, sin = angle.cos().to(heads.dtype), angle.sin().to(heads.dtype)
    first, second = heads[..., :half], heads[..., half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def banded_attention(
    query: Float[Tensor, "batch heads seq head_dim"],
    key: Float[Tensor, "batch heads seq head_dim"],
    value: Float[Tensor, "batch heads seq head_dim"],
    window: int,
    valid: Bool[Tensor, "batch seq"] | None = None,
) -> Float[Tensor, "batch heads seq head_dim"]:
    """WindowedAttention to at most `window` steps either side, in memory linear in the length.

    Args:
        query: Queries.
        key: Keys.
        value: Values.
        window: Steps either side; also the length of the blocks that are attended together.
        valid: Steps that may be attended to; None is all. A step always attends to itself, so that
            padding stays finite.
    """
    batch, _, length, _ = query.shape
    if valid is None:
        valid = torch.ones(batch, length, dtype=torch.bool, device=query.device)
    tail = -length % window
    blocks = rearrange(
        F.pad(query, (0, 0, 0, tail)), "b heads (n w) dim -> (b n) heads w dim", w=window
    )

    def around(steps: Tensor) -> Tensor:
        """Steps of the window before, of the window itself and of the one after it."""
        padded = F.pad(steps, (0, 0, window, window + tail))
        return rearrange(
            padded.unfold(2, 3 * window, window), "b heads n dim keys -> (b n) heads keys dim"
        )

    exists = F.pad(valid, (window, window + tail)).unfold(1, 3 * window, window)
    step = torch.arange(window, device=query.device)[:, None]
    other = torch.arange(3 * window, device=query.device)
    inside = (other >= step) & (other <= step + 2 * window)
    own = other == step + window
    allowed = (inside & rearrange(exists, "b n keys -> (b n) 1 keys")) | own
    mixed = F.scaled_dot_product_attention(blocks, around(key), around(value), allowed[:, None])
    joined = rearrange(mixed, "(b n) heads w dim -> b heads (n w) dim", b=batch)
    return joined[:, :, :length]
