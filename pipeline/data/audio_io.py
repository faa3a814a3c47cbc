"""Audio files as waveforms, for the data stages; see `pipeline.audio_io`, which all rooms share."""

from pipeline.audio_io import (
    Audio,
    AudioError,
    AudioFault,
    AudioInfo,
    file_sha256,
    open_audio,
    probe,
    read_audio,
    resample,
    to_channels,
)

__all__ = [
    "Audio",
    "AudioError",
    "AudioFault",
    "AudioInfo",
    "file_sha256",
    "open_audio",
    "probe",
    "read_audio",
    "resample",
    "to_channels",
]
