"""Writing the starter corpus: three layouts in one directory that appears complete or not at all.

The layouts differ on purpose, as corpora do; bringing them into one form is the pipeline's work:
`speech/` has a CSV for each kind of text, `sound/` a class table with folds, `music/` a JSON file
beside each clip.
"""

from __future__ import annotations

import csv
import hashlib
import io
import logging
import multiprocessing
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.data.starter.open_sentences import read_sentences
from pipeline.data.starter.settings import MODALITIES, StarterSettings
from pipeline.data.starter.tasks import LICENCE, Done, perform, plan_tasks, seconds_of
from pipeline.errors import PipelineError

logger = logging.getLogger(__name__)

VERSION = 2
"""Raised when the same settings give other bytes."""
CARD = "corpus.yaml"
"""What the corpus is: licence, settings, counts, digest of its contents."""
SPEECH_HEADER = ("file", "transcript", "language", "speaker", "sex", "style", "captions", "licence")
"""Columns of speech/<kind>/metadata.csv."""
SOUND_HEADER = ("filename", "category", "captions", "fold")
"""Columns of sound/classes.csv; classes of a mixture are joined by `|` in order of onset."""

_LICENCE_TEXT = """CC0 1.0 Universal

This corpus was made by a program out of nothing: no music of others is in it, and no recording.
{exceptions}To the extent possible under law, its makers have waived all copyright and related or
neighbouring rights to it. SPDX-License-Identifier: CC0-1.0
The legal text: https://creativecommons.org/publicdomain/zero/1.0/legalcode
"""
_FLITE_NOTE = """The English voices are those of Flite, which Carnegie Mellon University made from
recordings of their speakers and gives away for any use, without restriction or fee.
"""
_OPEN_NOTE = """The sentences in speech/open come from a text of its maker; the licence of that text
({licence}) applies to them.
"""


class CorpusError(PipelineError):
    """The output directory holds something else, or a worker died."""


@dataclass(frozen=True)
class Corpus:
    """A corpus on disk.

    Attributes:
        folder: Directory of the corpus.
        card: Contents of its card.
        was_there: Whether it was found complete, and nothing was written.
    """

    folder: Path
    card: dict[str, Any]
    was_there: bool


def write_corpus(folder: Path, settings: StarterSettings, processes: int = 2) -> Corpus:
    """Make the corpus, or find it made with the same settings.

    The same settings give the same bytes on one machine with the same library versions, whatever
    the number of processes.

    Args:
        folder: Directory to write; it must not exist, be empty, or hold this very corpus.
        settings: What to make.
        processes: Worker processes; at least one, since the speech engine needs a fresh one.

    Raises:
        CorpusError: If the directory holds something else, or a worker died.
        SpeechEngineError: If the speech library cannot be loaded.
        ValueError: If `processes` is below one.
    """
    if processes < 1:
        raise ValueError(f"processes is {processes}; at least 1 is needed")
    folder = folder.absolute()
    card = _existing(folder, settings)
    if card is not None:
        return Corpus(folder, card, was_there=True)
    with _aside(folder) as aside:
        done = _perform_all(aside, settings, processes)
        card = _finish(aside, settings, done)
        _appear(aside, folder)
    return Corpus(folder, card, was_there=False)


def _existing(folder: Path, settings: StarterSettings) -> dict[str, Any] | None:
    """Card of the complete corpus of these settings, or None if there is nothing."""
    if not folder.exists():
        return None
    if not folder.is_dir():
        raise CorpusError(f"{folder} is a file; give a directory for the corpus")
    if not any(folder.iterdir()):
        return None
    if not (folder / CARD).is_file():
        raise CorpusError(f"{folder} is not empty and holds no {CARD}; choose another directory")
    card = yaml.safe_load((folder / CARD).read_text(encoding="utf-8"))
    if not isinstance(card, dict) or "settings" not in card or "clips" not in card:
        raise CorpusError(f"{folder / CARD} is not the card of a starter corpus")
    wanted = {
        "version": VERSION,
        "sentences_sha256": _sentences_digest(settings),
        **settings.model_dump(mode="json"),
    }
    found = {key: card.get(key) for key in ("version", "sentences_sha256")} | card["settings"]
    differing = sorted(key for key in wanted | found if wanted.get(key) != found.get(key))
    if differing:
        changes = ", ".join(f"{key} {found.get(key)} -> {wanted.get(key)}" for key in differing)
        raise CorpusError(
            f"{folder} holds a starter corpus with other settings ({changes}); "
            "choose another directory or remove it"
        )
    count = sum(1 for path in folder.rglob("*") if path.suffix in (".wav", ".flac"))
    if count != sum(card["clips"].values()):
        raise CorpusError(
            f"{folder} holds {count} audio files of {sum(card['clips'].values())}; "
            "remove it and run again"
        )
    return card


@contextmanager
def _aside(folder: Path) -> Iterator[Path]:
    """A directory beside the final one; whatever is left in it afterwards is removed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = folder.parent / f".{folder.name}.aside-{uuid.uuid4().hex}"
    for name in ("speech", "sound/audio", "music"):
        (aside / name).mkdir(parents=True)
    try:
        yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _appear(aside: Path, folder: Path) -> None:
    try:
        os.replace(aside, folder)
    except OSError as error:
        raise CorpusError(
            f"cannot move the finished corpus to {folder}: {error.strerror}; "
            "did another run write there meanwhile?"
        ) from error


def _perform_all(folder: Path, settings: StarterSettings, processes: int) -> list[Done]:
    tasks = plan_tasks(settings)
    context = multiprocessing.get_context("spawn")  # fresh: the speech engine keeps state
    done = []
    try:
        with ProcessPoolExecutor(min(processes, len(tasks)), mp_context=context) as pool:
            futures = [pool.submit(perform, task, settings, folder) for task in tasks]
            try:
                for future in futures:
                    done.append(future.result())
                    logger.debug("wrote %d %s clips", done[-1].clips, done[-1].modality)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
    except BrokenProcessPool as error:
        raise CorpusError(
            "a worker process died while making the corpus; was the memory enough?"
        ) from error
    return done


def _finish(folder: Path, settings: StarterSettings, done: Sequence[Done]) -> dict[str, Any]:
    """Manifests, licence, card."""
    rows = {
        name: [row for item in done if item.modality == name for row in item.rows]
        for name in MODALITIES
    }
    kinds = sorted({row[0] for row in rows["speech"]})
    for kind in kinds:
        payload = table(SPEECH_HEADER, [row[1:] for row in rows["speech"] if row[0] == kind])
        (folder / "speech" / kind / "metadata.csv").write_bytes(payload)
    (folder / "sound/classes.csv").write_bytes(table(SOUND_HEADER, rows["sound"]))
    for name in ("", *MODALITIES, *(f"speech/{kind}" for kind in kinds)):
        (folder / name / "LICENSE").write_bytes(_licence_text(settings).encode())
    clips = {name: sum(item.clips for item in done if item.modality == name) for name in MODALITIES}
    minutes = {name: round(seconds_of(done, name) / 60, 4) for name in MODALITIES}
    for name in MODALITIES:
        if not clips[name]:
            shutil.rmtree(folder / name)
    card = {
        "name": "audiocalm-starter",
        "license": _licence_id(settings),
        "version": VERSION,
        "settings": settings.model_dump(mode="json"),
        "settings_digest": settings.digest(),
        "sentences_sha256": _sentences_digest(settings),
        "clips": clips,
        "minutes": minutes,
        "contents_sha256": contents_digest(folder),
    }
    (folder / "README.md").write_bytes(_readme(card).encode())
    text = yaml.safe_dump(card, sort_keys=False, allow_unicode=True)
    (folder / CARD).write_bytes(text.encode())
    return card


def _licence_id(settings: StarterSettings) -> str:
    """SPDX expression of the whole corpus."""
    speech = settings.speech
    has_open = settings.speech_share and speech.kinds.get("open")
    return f"{LICENCE} AND {speech.sentences_licence}" if has_open else LICENCE


def _licence_text(settings: StarterSettings) -> str:
    speech = settings.speech
    exceptions = _FLITE_NOTE if speech.engines.get("flite") else ""
    if speech.kinds.get("open"):
        exceptions += _OPEN_NOTE.format(licence=speech.sentences_licence)
    return _LICENCE_TEXT.format(exceptions=exceptions)


def _sentences_digest(settings: StarterSettings) -> str | None:
    """SHA-256 of the sentences that are read from a file; None if none are."""
    speech = settings.speech
    if speech.sentences is None or not speech.kinds.get("open") or not settings.speech_share:
        return None
    text = "\n".join(read_sentences(speech.sentences))
    return hashlib.sha256(text.encode()).hexdigest()


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> bytes:
    """A CSV file: commas, quotes where needed, LF, UTF-8."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return sink.getvalue().encode()


def contents_digest(folder: Path) -> str:
    """SHA-256 over names and bytes of every manifest and audio file."""
    digest = hashlib.sha256()
    for name in MODALITIES:
        for path in sorted((folder / name).rglob("*")):
            if path.is_file():
                digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _readme(card: dict[str, Any]) -> str:
    lines = [
        f"- {name}: {card['clips'][name]} clips, {card['minutes'][name]:.2f} minutes"
        for name in MODALITIES
    ]
    settings = card["settings"]
    return "\n".join(
        [
            "---",
            "license: cc0-1.0",
            "pretty_name: AudioCALM starter corpus",
            "---",
            "# AudioCALM starter corpus",
            "",
            "Speech, sound and music made by a program out of nothing, with labels that are true",
            "because they say what was synthesised. It is for trying the pipeline and for small",
            "first models; it does not sound like recordings.",
            "",
            *lines,
            "",
            "| directory | layout |",
            "|---|---|",
            "| `speech/<kind>/` | WAV mono, 16 kHz (flite) or 22.05 kHz (espeak), `metadata.csv`: "
            + ", ".join(SPEECH_HEADER)
            + " |",
            "| `sound/` | `audio/*.flac` 44.1 kHz, `classes.csv`: "
            + ", ".join(SOUND_HEADER)
            + " |",
            "| `music/` | FLAC 44.1 kHz stereo, `<name>.json` beside each `<name>.flac` |",
            "",
            "Speech is synthesis by eSpeak NG or Flite of texts composed from the project's own",
            "word lists, and in `speech/open` of sentences of a file; sounds and music are",
            "synthesised by the project's own code.",
            "",
            f"Made again by: `audiocalm starter-corpus --out DIR --minutes {settings['minutes']:g} "
            f"--seed {settings['seed']}`"
            + ("" if _is_plain(settings) else " with the settings in `corpus.yaml`")
            + ".",
            "",
            "Licence: CC0-1.0, see LICENSE.",
            "",
        ]
    )


def _is_plain(settings: dict[str, Any]) -> bool:
    defaults = StarterSettings().model_dump(mode="json")
    return all(settings[key] == defaults[key] for key in defaults if key not in ("minutes", "seed"))
