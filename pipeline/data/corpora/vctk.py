"""Read speech in the VCTK layout: audio and texts in two trees, by speaker."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from functools import partial

from model.text import clean_text
from pipeline.data.corpora.base import CorpusFolder, Place
from pipeline.data.corpora.entries import parsed_lines, read_text, rejecting
from pipeline.data.corpora.file_names import stem_of
from pipeline.data.corpora.librispeech import SEX
from pipeline.data.corpora.manifests import Line, ManifestError
from pipeline.data.rejects import Reason
from pipeline.data.schema import ClipRow, Reject

SPEAKERS = "speaker-info.txt"
"""Table of the speakers: id, age, gender, accent, region."""
_AUDIO = re.compile(
    r"(?P<tree>wav48|wav48_silence_trimmed)/(?P<speaker>[a-z]\d+)/"
    r"(?P<key>(?P=speaker)_\d+)(?:_mic(?P<mic>[12]))?"
)
_LICENCES = {"wav48": "ODC-By-1.0", "wav48_silence_trimmed": "CC-BY-4.0"}


class Vctk:
    """`wav48_silence_trimmed/p225/p225_001_mic1.flac` with `txt/p225/p225_001.txt`.

    Also the first release, `wav48/p225/p225_001.wav`. Of two microphones the first is read; audio
    without text becomes an untranscribed clip, as the corpus has some.
    """

    layout = "vctk"

    def matches(self, folder: CorpusFolder) -> bool:
        """Whether audio lies in a tree of that name, beside texts or the table of speakers."""
        is_root = SPEAKERS in folder.files or any(n.startswith("txt/") for n in folder.names)
        return is_root and any(_AUDIO.fullmatch(stem_of(name)) for name in folder.audio)

    def read(self, folder: CorpusFolder) -> Iterator[ClipRow | Reject]:
        """Every recording of the first microphone, then the texts without one."""
        sex: dict[str, str | None] = {}
        if SPEAKERS in folder.files:
            lines = parsed_lines(folder, SPEAKERS, partial(_add_speaker, sex=sex))
            yield from filter(None, lines)
        texts = {stem[4:-4]: stem for stem in folder.names if re.match(r"txt/.*\.txt$", stem)}
        heard = set()
        for audio in folder.audio:
            match = _AUDIO.fullmatch(stem_of(audio))
            if match is None:
                continue
            folder.claim(audio)
            if match["mic"] != "2":
                place = f"{match['speaker']}/{match['key']}"
                heard.add(place)
                yield _clip(folder, audio, match, texts.get(place), sex)
        for place, text in texts.items():
            folder.claim(text)
            if place not in heard:
                yield folder.reject(
                    Reason.MISSING_AUDIO, f"no recording {posixpath.basename(place)!r}", text
                )


@rejecting
def _add_speaker(
    _folder: CorpusFolder, _place: Place, line: Line, *, sex: dict[str, str | None]
) -> None:
    cells = line.text.split()
    if len(cells) > 2 and cells[2] in SEX:
        speaker = cells[0] if cells[0][0].isalpha() else f"p{cells[0]}"
        sex[speaker] = SEX[cells[2]]
    elif cells[0] != "ID":
        detail = f"not 'id age gender accent region': {line.text[:60]!r}"
        raise ManifestError(Reason.MALFORMED, detail)


def _clip(
    folder: CorpusFolder,
    audio: str,
    match: re.Match[str],
    text: str | None,
    sex: dict[str, str | None],
) -> ClipRow | Reject:
    words = "" if text is None else read_text(folder, text)
    if isinstance(words, Reject):
        return words
    transcript, note = clean_text(words)
    return folder.clip(
        match["key"],
        audio,
        modality="speech",
        place=Place(text or audio),
        transcript=transcript or None,
        speaker=match["speaker"],
        speaker_sex=sex.get(match["speaker"]),
        language="en",
        licence=_LICENCES[match["tree"]],
        notes=(note,) if note else (),
    )
