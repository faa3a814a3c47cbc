"""Pictures that artefacts and reports share: spectrograms and curves, as PNG files."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.storage import Folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DYNAMIC_RANGE_DB = 80.0
"""Range of levels that a spectrogram shows below its loudest point, dB."""


def save_spectrogram(
    path: Path,
    waveform: NDArray[np.float32],
    sample_rate: int,
    title: str = "",
    loudest_db: float | None = None,
) -> None:
    """Log-magnitude spectrogram of a waveform, `channels samples`; channels are averaged.

    Args:
        path: PNG file to write.
        waveform: `channels samples`.
        sample_rate: Hz.
        title: Heading.
        loudest_db: Top of the colour scale, so that pictures compare; None takes the loudest point.

    Raises:
        ValueError: If the waveform is empty.
    """
    levels, num_samples = _spectrum_db(waveform)
    top = levels.max() if loudest_db is None else loudest_db
    figure = _figure(6.4, 2.6)
    axes = figure.subplots()
    picture = axes.imshow(
        levels,
        origin="lower",
        aspect="auto",
        cmap="magma",
        vmin=top - DYNAMIC_RANGE_DB,
        vmax=top,
        extent=(0, num_samples / sample_rate, 0, sample_rate / 2000),
    )
    figure.colorbar(picture, ax=axes, label="dB of a full-scale sine", pad=0.01)
    axes.set(xlabel="time, s", ylabel="frequency, kHz", title=title)
    _save(figure, path)


def save_curves(
    path: Path,
    curves: Mapping[str, Sequence[tuple[float, float]]],
    title: str = "",
    *,
    x_label: str = "step",
    y_label: str = "loss",
    is_log: bool = False,
) -> None:
    """Draw curves over a common horizontal axis, such as steps or seconds.

    Args:
        path: PNG file to write.
        curves: Name to (step, value) points; those without points are left out.
        title: Heading.
        x_label: Label of the horizontal axis.
        y_label: Label of the vertical axis.
        is_log: Whether the vertical axis is logarithmic.
    """
    figure = _figure(7.0, 3.2)
    axes = figure.subplots()
    for name, points in curves.items():
        if points:
            steps, values = zip(*points, strict=True)
            axes.plot(steps, values, label=name, linewidth=1.2)
    if is_log:
        axes.set_yscale("log")
    axes.grid(visible=True, alpha=0.3)
    axes.set(xlabel=x_label, ylabel=y_label, title=title)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small", ncols=2)
    _save(figure, path)


@dataclass(frozen=True)
class Interval:
    """A value with the ends of its interval, which are None where it has none."""

    value: float
    low: float | None = None
    high: float | None = None


def save_intervals(
    path: Path, rows: Mapping[str, Mapping[str, Interval]], limits: tuple[float, float]
) -> None:
    """Draw values with their intervals: a line of the picture for each row, a colour for each key.

    Args:
        path: PNG file to write.
        rows: Label of a row to its intervals by key, the first row on top.
        limits: Ends of the horizontal axis; what lies beyond is cut off.
    """
    keys = list(dict.fromkeys(key for row in rows.values() for key in row))
    figure = _figure(8.6, 0.9 + 0.3 * len(rows))
    axes = figure.subplots()
    for place, key in enumerate(keys):
        points = [(y, row[key]) for y, row in enumerate(rows.values()) if key in row]
        heights = [y + 0.22 * (place - (len(keys) - 1) / 2) for y, _ in points]
        values = [point.value for _, point in points]
        reach = [
            [0.0 if (end := getattr(point, side)) is None else abs(point.value - end)
             for _, point in points]
            for side in ("low", "high")
        ]  # fmt: skip
        axes.errorbar(values, heights, xerr=reach, fmt="o", markersize=4, linewidth=1.2, label=key)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.invert_yaxis()
    axes.grid(visible=True, axis="x", alpha=0.3)
    axes.margins(y=0.02)
    axes.set_xlim(*limits)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=len(keys))
    _save(figure, path)


def loudest_db(waveform: NDArray[np.float32]) -> float:
    """Loudest point of the spectrogram of a waveform, dB relative to a full-scale sine.

    Raises:
        ValueError: If the waveform is empty.
    """
    return float(_spectrum_db(waveform)[0].max())


def _spectrum_db(waveform: NDArray[np.float32]) -> tuple[NDArray[np.float64], int]:
    """Levels, `frequencies frames`, 0 dB for a full-scale sine, and the number of samples."""
    if waveform.size == 0:
        raise ValueError("an empty waveform has no spectrogram")
    mono = np.nan_to_num(np.atleast_2d(waveform).mean(0))
    window = min(1024, max(64, 1 << (len(mono).bit_length() - 2)))
    weights = np.hanning(window)
    padded = np.pad(mono, window // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[:: window // 4]
    spectrum = np.abs(np.fft.rfft(frames * weights, axis=-1)).T * (2 / weights.sum())
    levels: NDArray[np.float64] = 20 * np.log10(np.maximum(spectrum, 1e-10))
    return levels, len(mono)


def _figure(width_in: float, height_in: float) -> Figure:
    # The object interface: no pyplot, so no global figure list and no display is looked for.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path) -> None:
    sink = io.BytesIO()
    figure.savefig(sink, format="png", metadata={"Software": None})
    Folder.at(path.parent).write_bytes(path.name, sink.getvalue())
