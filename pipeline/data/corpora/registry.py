"""All layouts, in the order in which they are tried."""

from __future__ import annotations

from pipeline.data.corpora.audio_index import AudioIndexFile
from pipeline.data.corpora.audiocaps import AudioCaps
from pipeline.data.corpora.base import Corpus
from pipeline.data.corpora.clotho import Clotho
from pipeline.data.corpora.common_voice import CommonVoice
from pipeline.data.corpora.emilia import Emilia
from pipeline.data.corpora.esc50 import Esc50
from pipeline.data.corpora.fma import Fma
from pipeline.data.corpora.fsd50k import Fsd50k
from pipeline.data.corpora.fsdd import Fsdd
from pipeline.data.corpora.hifi_tts import HifiTts
from pipeline.data.corpora.hugging_face import HuggingFace
from pipeline.data.corpora.librispeech import LibriSpeech
from pipeline.data.corpora.libritts import LibriTts
from pipeline.data.corpora.ljspeech import LjSpeech
from pipeline.data.corpora.mtg_jamendo import MtgJamendo
from pipeline.data.corpora.musiccaps import MusicCaps
from pipeline.data.corpora.opencpop import Opencpop
from pipeline.data.corpora.picovoice import Picovoice
from pipeline.data.corpora.plain_folder import PlainFolder
from pipeline.data.corpora.rows import Rows
from pipeline.data.corpora.sample_pack import SamplePack
from pipeline.data.corpora.sidecar import JsonSidecar
from pipeline.data.corpora.song_describer import SongDescriber
from pipeline.data.corpora.sphinx import Sphinx
from pipeline.data.corpora.subtitles import TextBeside
from pipeline.data.corpora.table import Table
from pipeline.data.corpora.vctk import Vctk
from pipeline.data.corpora.wavcaps import WavCaps
from pipeline.data.corpora.webdataset import WebDataset

SPECIFIC: tuple[Corpus, ...] = (
    LibriSpeech(),
    LibriTts(),
    Vctk(),
    CommonVoice(),
    HifiTts(),
    Emilia(),
    Opencpop(),
    AudioCaps(),
    Clotho(),
    WavCaps(),
    Fsd50k(),
    SongDescriber(),
    MtgJamendo(),
    Fma(),
    Picovoice(),
    AudioIndexFile(),
    Sphinx(),
    SamplePack(),
    Fsdd(),
    MusicCaps(),
    Esc50(),
    HuggingFace(),
    Table(),
    Rows(),
    LjSpeech(),
    WebDataset(),
)
"""Layouts with a manifest or a naming scheme of their own; tried first, in every directory."""
GENERIC: tuple[Corpus, ...] = (JsonSidecar(), TextBeside())
"""Layouts of files that describe the file beside them; tried on what the others left."""
LAST_RESORT: Corpus = PlainFolder()
"""Layouts for audio that no other layout claims."""


def layout_named(name: str) -> Corpus:
    """A layout by its name in settings.

    Raises:
        ValueError: If there is none of that name.
    """
    layouts = {corpus.layout: corpus for corpus in (*SPECIFIC, *GENERIC, LAST_RESORT)}
    if name not in layouts:
        raise ValueError(f"no corpus layout {name!r}; known are {', '.join(sorted(layouts))}")
    return layouts[name]
