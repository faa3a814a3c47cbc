"""Compressed audio files that only ffmpeg reads, written by it."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np


def tone(num_samples: int, num_channels: int = 1, rate: int = 16_000, seed: int = 0) -> np.ndarray:
    """A sine under noise of its own, the same in all channels, `channels samples`."""
    time = np.arange(num_samples) / rate
    noise = np.random.default_rng(seed).standard_normal(num_samples)
    wave = 0.3 * np.sin(2 * np.pi * 440 * time) + (0.1 if seed else 0.02) * noise
    return np.repeat(wave[None], num_channels, axis=0).astype(np.float32)


def ffmpeg_bytes(
    waveform: np.ndarray, rate: int = 16_000, container: str = "mp4", codec: str = "aac"
) -> bytes:
    """A waveform, `channels samples`, as a file of ffmpeg."""
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(waveform)]
    sink = io.BytesIO()
    with av.open(sink, "w", format=container) as file:
        track = file.add_stream(codec, rate=rate, layout=layout)
        resampler = av.AudioResampler(
            format=track.codec_context.format, layout=layout, rate=rate, frame_size=1_024
        )
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(waveform, dtype=np.float32), format="fltp", layout=layout
        )
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            file.mux(track.encode(part))
        file.mux(track.encode(None))
    return sink.getvalue()


def video_bytes(with_audio: bool) -> bytes:
    """Two frames of video in Matroska, and a second of sound if wanted."""
    sink = io.BytesIO()
    with av.open(sink, "w", format="matroska") as file:
        picture = file.add_stream("mpeg4", rate=2)
        picture.width, picture.height, picture.pix_fmt = 32, 32, "yuv420p"
        sound = file.add_stream("aac", rate=16_000, layout="mono") if with_audio else None
        for _ in range(2):
            image = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
            file.mux(picture.encode(image))
        if sound is not None:
            frame = av.AudioFrame.from_ndarray(tone(16_000), format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16_000, 0, Fraction(1, 16_000)
            file.mux([*sound.encode(frame), *sound.encode(None)])
        file.mux(picture.encode(None))
    return sink.getvalue()
