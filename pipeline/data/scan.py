"""The scan: it decodes and checks all clips of the corpora, and cuts long ones into segments."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from model.timebase import round_half_up
from pipeline.audio.files import AudioError, AudioStream, file_sha256, open_audio
from pipeline.clip_tables import part_name
from pipeline.data.padding import PaddingFilter
from pipeline.data.plan import rows_of
from pipeline.data.rejects import Reason, reject
from pipeline.data.schema import CLIPS, ClipRow, Reject, clip_columns, clip_from_columns
from pipeline.data.screening.checks import (
    CheckSettings,
    Measured,
    Meter,
    UnfitError,
    check_declared,
    check_transcript,
)
from pipeline.data.segments import Segment, SegmentSettings, cut, segment_row
from pipeline.data.units.stage import Resources, Unit, UnitOutput, hours_key, run_stage
from pipeline.settings import Settings
from pipeline.storage import Folder, table_bytes

SCAN = "scan"
SEGMENTED = "segmented/"
"""Prefix of the totals that count recordings that were cut and their segments."""

_CUT_SHORT = ("truncated", "damaged")  # warnings of files of which not everything was decoded


class _ScanSettings(Settings):
    """Settings that a scan depends on, besides the rows of the plan."""

    checks: CheckSettings
    segments: SegmentSettings


def scan_units(
    folder: Folder,
    inputs: dict[str, str],
    units: Sequence[Unit],
    checks: CheckSettings,
    segments: SegmentSettings,
    resources: Resources,
) -> dict[str, Any]:
    """Bring a scan up to date with a plan; returns its card."""
    return run_stage(
        folder,
        stage=SCAN,
        settings=_ScanSettings(checks=checks, segments=segments),
        inputs=inputs,
        units=units,
        worker=ScanWorker,
        worker_kwargs={"checks": checks, "segments": segments},
        resources=resources,
        max_reject_share=1.0,
    )


class ScanWorker:
    """Decodes and checks the clips of a unit.

    Args:
        checks: Limits.
        segments: Which recordings are cut.
    """

    def __init__(self, checks: CheckSettings, segments: SegmentSettings) -> None:
        self._checks = checks
        self._segments = segments
        self._hashed: tuple[str, str] = ("", "")

    def process(self, unit: Unit) -> UnitOutput:
        """Rows of the `CLIPS` schema, and a reject for everything that failed.

        A recording that was cut counts as its segments, each written or rejected; one of which no
        segment is any good for one and the same reason counts as one reject.
        """
        planned = rows_of(unit)
        rejects = [Reject(**columns) for columns in planned["rejects"]]
        rows: list[dict[str, Any]] = []
        totals: Counter[str] = Counter()
        for columns in planned["clips"]:
            clip = clip_from_columns(columns)
            try:
                if not unit.guard(clip.clip_id):
                    raise UnfitError(Reason.WORKER_DIED, "decoding it killed the worker process")
                kept, refused = self._scan(clip, unit.beat)
            except (UnfitError, AudioError) as error:
                kept, refused = [], [_reject(clip, error)]
            rows += kept
            rejects += refused
            if len(kept) + len(refused) > 1:
                totals[f"{SEGMENTED}recordings"] += 1
                totals[f"{SEGMENTED}segments"] += len(kept) + len(refused)
        part = pa.Table.from_pylist(rows, schema=CLIPS)
        return UnitOutput(
            files={part_name(unit.name): table_bytes(part)},
            read=len(rows) + len(rejects),
            written=len(rows),
            rejects=rejects,
            totals=totals_of(rows, rejects, totals),
        )

    def _scan(
        self, clip: ClipRow, beat: Callable[[], None]
    ) -> tuple[list[dict[str, Any]], list[Reject]]:
        with open_audio(clip.uri, clip.start_s, clip.end_s) as stream:
            if self._is_cut(clip, stream):
                return self._scan_segments(clip, stream, beat)
            padding = self._padding(stream.info.sample_rate)
            meter = Meter(stream.info.sample_rate, stream.info.num_channels, self._checks)
            for block in padding.blocks(stream.blocks()):
                meter.add(block)
                beat()
            measured = meter.result()
            warnings = tuple(stream.warnings)
        cut_short = [text for text in warnings if text.partition(":")[0] in _CUT_SHORT]
        if cut_short and clip.transcript:
            raise UnfitError(
                Reason.TRUNCATED, f"{cut_short[0]}; the transcript may go on where the audio ends"
            )
        self._check_uncut(clip, measured.duration_s)
        found_s = measured.duration_s + padding.duration_s
        notes = warnings + measured.notes + check_declared(clip, found_s, self._checks)
        notes += check_transcript(clip, measured.duration_s, self._checks)
        return [self._row(padding.cut(clip, found_s), measured, notes)], []

    def _is_cut(self, clip: ClipRow, stream: AudioStream) -> bool:
        """Whether a clip is longer than a segment, or does not say how long it is."""
        settings, info = self._segments, stream.info
        if not settings.enabled or clip.transcript:
            return False
        limit_s = settings.limit_s(clip.modality)
        duration_s = None if clip.end_s is None else clip.end_s - (clip.start_s or 0.0)
        if duration_s is None and info.num_samples is not None:
            duration_s = info.num_samples / info.sample_rate - (clip.start_s or 0.0)
        return duration_s is None or duration_s > limit_s

    def _check_uncut(self, clip: ClipRow, duration_s: float) -> None:
        limit_s = self._segments.limit_s(clip.modality)
        is_kept = self._segments.keep_transcribed or not self._segments.enabled
        if clip.transcript and duration_s > limit_s and not is_kept:
            raise UnfitError(
                Reason.TOO_LONG,
                f"{duration_s:.1f} s with a transcript that has no times, so that it cannot be "
                f"cut; limit {limit_s:g} s; give times, or set segments.keep_transcribed",
            )

    def _scan_segments(
        self, clip: ClipRow, stream: AudioStream, beat: Callable[[], None]
    ) -> tuple[list[dict[str, Any]], list[Reject]]:
        rate = stream.info.sample_rate
        offset = round_half_up((clip.start_s or 0.0) * rate)
        found: list[tuple[ClipRow, Measured | UnfitError, tuple[str, ...]]] = []
        num_samples = 0
        for segment in cut(
            self._limited(stream),
            rate,
            max_s=self._segments.limit_s(clip.modality),
            min_s=self._segments.min_s,
            offset=offset,
        ):
            beat()
            num_samples = segment.end
            padding = self._padding(rate)
            measured = self._measure(segment, rate, padding)
            start = offset + segment.start + padding.before
            row = segment_row(clip, start / rate, (offset + segment.end - padding.after) / rate)
            notes = _cut_notes(segment) + padding.notes
            found.append((row, measured, notes))
        common = check_declared(clip, num_samples / rate, self._checks)
        last = found[-1][0].clip_id
        if len(found) == 1:  # the header did not say, or overstated, how long it is
            found = [(padding.cut(clip, num_samples / rate), measured, ())]
            last = clip.clip_id
        rows, rejects = [], []
        for row, measured, notes in found:
            if isinstance(measured, UnfitError):
                rejects.append(_reject(row, measured))
                continue
            warnings = tuple(stream.warnings) if row.clip_id == last else ()
            rows.append(self._row(row, measured, warnings + notes + measured.notes + common))
        reasons = {row.reason for row in rejects}
        if not rows and len(rejects) > 1 and len(reasons) == 1:
            detail = f"all {len(rejects)} segments; the first: {rejects[0].detail}"
            return [], [_reject(clip, UnfitError(Reason(reasons.pop()), detail))]
        return rows, rejects

    def _limited(self, stream: AudioStream) -> Iterable[Float[np.ndarray, "channels samples"]]:
        """The blocks of a stream up to the longest recording allowed."""
        limit = self._segments.max_recording_s * stream.info.sample_rate
        done = 0
        for block in stream.blocks():
            done += block.shape[1]
            if done > limit:
                raise UnfitError(
                    Reason.TOO_LONG,
                    f"longer than the limit of {self._segments.max_recording_s:g} s for recordings",
                )
            yield block

    def _padding(self, sample_rate: int) -> PaddingFilter:
        return PaddingFilter(sample_rate, self._segments.max_padding_s)

    def _measure(
        self, segment: Segment, rate: int, padding: PaddingFilter
    ) -> Measured | UnfitError:
        meter = Meter(rate, len(segment.waveform), self._checks)
        try:
            for block in padding.blocks([segment.waveform]):
                meter.add(block)
            return meter.result()
        except UnfitError as error:
            return error

    def _row(self, clip: ClipRow, measured: Measured, notes: tuple[str, ...]) -> dict[str, Any]:
        columns = clip_columns(replace(clip, notes=clip.notes + notes))
        return columns | {
            "num_samples": measured.num_samples,
            "sample_rate": measured.sample_rate,
            "num_channels": measured.num_channels,
            "duration_s": measured.duration_s,
            "fingerprint": measured.fingerprint,
            "acoustic": measured.acoustic,
            "content_sha256": self._sha256(clip.uri),
        }

    def _sha256(self, uri: str) -> str:
        if self._hashed[0] != uri:  # several spans of one file follow each other
            self._hashed = uri, file_sha256(uri)
        return self._hashed[1]


def totals_of(
    rows: Iterable[Mapping[str, Any]], rejects: Iterable[Reject], others: Mapping[str, float]
) -> dict[str, float]:
    """Sums of a unit for the card: hours, clips of each corpus and split, notes, and others."""
    counts: Counter[str] = Counter()
    hours: defaultdict[str, float] = defaultdict(float)
    for row in rows:
        hours[hours_key(row["modality"], row["language"])] += row["duration_s"] / 3600
        counts[f"clips/{row['corpus']}"] += 1
        counts[f"split/{row['split']}"] += 1
        counts.update({f"noted/{note.partition(':')[0]}" for note in row["notes"]})
    counts.update(f"rejected/{row.corpus}" for row in rejects)
    return dict(sorted({**counts, **hours, **others}.items()))


def _cut_notes(segment: Segment) -> tuple[str, ...]:
    return () if segment.is_at_pause else ("no_pause: the segment ends amid sound",)


def _reject(clip: ClipRow, error: UnfitError | AudioError) -> Reject:
    return reject(
        Reason(str(error.reason)),
        error.detail,
        corpus=clip.corpus,
        uri=clip.uri,
        clip_id=clip.clip_id,
    )
