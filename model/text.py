"""The one description-style prompt of all modalities, and the tokenizers that read it.

A prompt is a description of what is heard, and, where somebody speaks or sings, the words. The
words stay verbatim and recoverable, because intelligibility is measured against them.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from model.phonemes import UnknownLanguageError, pronounced

_NUM_SPECIAL = 4
_KEPT_JOINERS = "\u200c\u200d"  # meaningful inside words of several scripts, and inside emoji
_BYTE_FILE = "byte_tokenizer.json"
_WORD = re.compile(r"([^\W\d_]+)")
_STEM_LETTERS = 5
_NUM_STEMS = 8192
_SOUNDS = (
    " ,.;:!?"
    "abcdefghijklmnopqrstuvwxyz"
    "\u00e6\u00e7\u00f0\u00f8\u0127\u014b\u0153\u03b2\u03b8\u03c7\u1d7b\u2c71"
    + "".join(map(chr, range(0x250, 0x2B0)))
    + "\u02b0\u02b2\u02b7\u02bc\u02c8\u02cc\u02d0\u02d1\u02de\u02e0\u02e4\u207f"
    + "\u0303\u0308\u030a\u030d\u031a\u031d\u031e\u031f\u0320\u0324\u0325\u0329\u032a"
    + "\u032f\u0330\u0334\u033a\u0361"
    + "\u02e5\u02e6\u02e7\u02e8\u02e9123456789"
)
"""Letters, stress, length, diacritics and tones of the International Phonetic Alphabet, and marks
between clauses. Their order fixes their ids."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """Description of the audio to generate.

    Attributes:
        description: What is heard, in words; runs of white space count as one space.
        transcript: Words spoken or sung, kept to the letter.
        language: BCP 47 tag of the words.
        duration_s: Wanted duration.
        is_singing: Whether the words are sung.

    Raises:
        ValueError: If there is neither description nor transcript, or a duration that is not
            positive and finite.
    """

    description: str
    transcript: str | None = None
    language: str | None = None
    duration_s: float | None = None
    is_singing: bool = False

    def __post_init__(self) -> None:
        if not self.description.strip() and self.transcript is None:
            raise ValueError("the prompt is empty; give a description, a transcript, or both")
        if self.duration_s is not None and not 0 < self.duration_s < math.inf:
            raise ValueError(f"duration_s is {self.duration_s}; it must be positive and finite")
        if self.language is not None and not re.fullmatch(r"[A-Za-z0-9-]+", self.language):
            raise ValueError(
                f"language {self.language!r} is not a BCP 47 tag such as en or zh-hant"
            )


def render(prompt: Prompt) -> str:
    """One text for a prompt: the description as a sentence, a line of facts, the words last.

    Whether someone types "rain" or "Rain." is one request, so both become the latter.
    The first two lines hold no line break, so whatever the words contain, they are what follows
    the first `Says: ` or `Sings: ` at the start of the second or third line.
    """
    facts = []
    if prompt.language:
        facts.append(f"language {prompt.language.lower()}")
    if prompt.is_singing and prompt.transcript is None:
        facts.append("singing")
    if prompt.duration_s is not None:
        facts.append(f"{prompt.duration_s:.1f} seconds")
    lines = [_sentence(prompt.description)]
    if facts:
        lines.append(f"({', '.join(facts)})")
    if prompt.transcript is not None:
        lines.append(f"{'Sings' if prompt.is_singing else 'Says'}: {prompt.transcript}")
    return "\n".join(lines)


def _sentence(text: str) -> str:
    """Text that begins with a capital and ends with a mark, where its script knows capitals."""
    text = " ".join(text.split())
    ends_open = text[-1:].isdecimal() or text[-1:].isupper() or text[-1:].islower()
    return text[:1].upper() + text[1:] + ("." if ends_open else "")


def clean_text(text: str) -> tuple[str, str | None]:
    """Text without control, bidirectional and zero-width characters, in NFC, on one line.

    The text of training data and of requests passes through here, so that a model is asked in the
    form that it learned.

    Returns:
        The text, and a note that names what was removed, or None.
    """
    removed = sorted({c for c in text if _is_unwanted(c)})
    kept = "".join(" " if c.isspace() else c for c in text if not _is_unwanted(c))
    cleaned = unicodedata.normalize("NFC", " ".join(kept.split()))
    if not removed:
        return cleaned, None
    return cleaned, "cleaned: removed " + ", ".join(f"U+{ord(c):04X}" for c in removed)


def _is_unwanted(char: str) -> bool:
    if char.isspace() or char in _KEPT_JOINERS:
        return False
    return unicodedata.category(char) in ("Cc", "Cf", "Co", "Cs")


@runtime_checkable
class Tokenizer(Protocol):
    """Text to integer ids and back.

    Attributes:
        name: `bytes`, or the name of a published tokenizer.
        vocab_size: Ids are below it; the embedding needs at least as many rows.
        audio_id: Ends the prefix; the audio follows.
        speaker_id: Its embedding is overwritten by the speaker embedding.
        null_id: Stands for the dropped text of the unconditional prefix.
        pad_id: Batch padding.
    """

    name: str
    vocab_size: int
    audio_id: int
    speaker_id: int
    null_id: int
    pad_id: int

    def encode(self, text: str) -> list[int]:
        """Ids of a text; special ids never come out of text."""

    def encode_words(self, transcript: str, language: str | None) -> list[int]:
        """Ids of words that are spoken or sung, at least one if they are not empty; `language` is
        a BCP 47 tag, None is English."""

    def decode(self, ids: list[int]) -> str:
        """Text of ids; special ids are left out."""

    def save(self, folder: Path) -> None:
        """Write what `load_tokenizer` reads."""


class ByteTokenizer:
    """UTF-8 bytes: any language, no files, four special ids above them."""

    name = "bytes"
    vocab_size = 512
    audio_id = 256
    speaker_id = 257
    null_id = 258
    pad_id = 259

    def encode(self, text: str) -> list[int]:
        """The bytes of a text.

        Raises:
            ValueError: If the text holds a lone surrogate, which UTF-8 cannot express.
        """
        return list(text.encode("utf-8"))

    def encode_words(self, transcript: str, language: str | None) -> list[int]:
        """The bytes of the words."""
        return self.encode(transcript)

    def decode(self, ids: list[int]) -> str:
        """Text of the bytes among the ids; a cut character becomes U+FFFD."""
        return bytes(i for i in ids if i < self.audio_id).decode("utf-8", errors="replace")

    def save(self, folder: Path) -> None:
        """Write a file that names this tokenizer."""
        folder.mkdir(parents=True, exist_ok=True)
        facts = {"name": self.name, "vocab_size": self.vocab_size}
        (folder / _BYTE_FILE).write_text(json.dumps(facts, sort_keys=True) + "\n")


class PhonemeTokenizer(ByteTokenizer):
    """For a small model: whole words and bytes for the description, sounds for what is spoken.

    Before the bytes of each word of a description stands an id of its first letters, by their hash:
    a word that was read in training is known at once, another one is still spelled (the idea of
    hashed word and subword vectors, arXiv:1607.04606). How spoken words are spelled need not be
    learned. They begin and end with a space, which stands for the silence around them. A symbol
    that is not in the alphabet, and a language whose sounds are not known, is spelled in bytes.
    """

    name = "phonemes"
    vocab_size = ByteTokenizer.vocab_size + _NUM_STEMS
    _ids: ClassVar[Mapping[str, int]] = {sound: 260 + index for index, sound in enumerate(_SOUNDS)}

    def encode(self, text: str) -> list[int]:
        """The bytes of a text, and before those of each word the id of its stem.

        Raises:
            ValueError: If the text holds a lone surrogate, which UTF-8 cannot express.
        """
        ids: list[int] = []
        for part in _WORD.split(text):
            if _WORD.fullmatch(part):
                stem = part.lower().rstrip("s")[:_STEM_LETTERS].encode()
                ids.append(ByteTokenizer.vocab_size + zlib.crc32(stem) % _NUM_STEMS)
            ids += super().encode(part)
        return ids

    def encode_words(self, transcript: str, language: str | None) -> list[int]:
        """The sounds of the words.

        Raises:
            PronunciationError: If eSpeak NG is not installed or broken.
        """
        if not transcript:
            return []
        try:
            spoken = pronounced(transcript, language)
        except UnknownLanguageError:
            return [self._ids[" "], *super().encode(transcript), self._ids[" "]]
        sounds = unicodedata.normalize("NFD", f" {spoken} ")
        sounds = sounds.replace("c\u0327", "\u00e7")  # a letter of its own, not c with a cedilla
        ids = ([self._ids[s]] if s in self._ids else list(s.encode()) for s in sounds)
        return [number for symbol in ids for number in symbol]

    def decode(self, ids: list[int]) -> str:
        """Text of the bytes and sounds among the ids."""
        sounds = {number: sound.encode() for sound, number in self._ids.items()}
        known = (sounds.get(i, bytes([i]) if i < self.audio_id else b"") for i in ids)
        return b"".join(known).decode("utf-8", errors="replace")


class PublishedTokenizer:
    """A tokenizer folder as published with Qwen3, read by `transformers`.

    The four special ids are the first ones the published tokenizer leaves free. The published
    embedding has rows for them (Qwen3: 151,936 rows, 151,669 in use), so its shape stays.

    Args:
        folder: Holds `tokenizer.json` and its companions.

    Raises:
        ValueError: If `transformers` or the files are missing, or cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from transformers import AutoTokenizer
        except ImportError as error:
            raise ValueError(
                f"reading the tokenizer in {folder} needs the package transformers; "
                "install the extra `hf`"
            ) from error
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"cannot read a tokenizer from {folder}: {error}") from error
        first = len(self._tokenizer)
        self.name = folder.name
        self.audio_id, self.speaker_id, self.null_id, self.pad_id = range(
            first, first + _NUM_SPECIAL
        )
        self.vocab_size = max(first + _NUM_SPECIAL, _embedding_rows(folder))

    def encode(self, text: str) -> list[int]:
        """Ids of a text; what looks like a control token in it is read as plain text."""
        ids: list[int] = self._tokenizer.encode(
            text, add_special_tokens=False, split_special_tokens=True
        )
        return ids

    def encode_words(self, transcript: str, language: str | None) -> list[int]:
        """The ids of the words, spelled as they are."""
        return self.encode(transcript)

    def decode(self, ids: list[int]) -> str:
        """Text of the ids that the published tokenizer knows."""
        kept = [i for i in ids if i < self.audio_id]
        text: str = self._tokenizer.decode(kept, clean_up_tokenization_spaces=False)
        return text

    def save(self, folder: Path) -> None:
        """Write the published files again."""
        self._tokenizer.save_pretrained(str(folder))


_OWN = {tokenizer.name: tokenizer for tokenizer in (ByteTokenizer, PhonemeTokenizer)}


def load_tokenizer(source: Path | str | None) -> Tokenizer:
    """The tokenizer of a folder, or one of our own by name: `bytes` (also None) or `phonemes`.

    Raises:
        ValueError: If the folder holds no tokenizer, or `transformers` is missing for it.
    """
    if source is None or source in _OWN:
        return _OWN[str(source or "bytes")]()
    folder = Path(source)
    if (folder / _BYTE_FILE).is_file():
        name = json.loads((folder / _BYTE_FILE).read_text()).get("name")
        if name not in _OWN:
            raise ValueError(f"{folder / _BYTE_FILE} names {name!r}; known are {', '.join(_OWN)}")
        return _OWN[name]()
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise ValueError(
            f"{folder} holds no tokenizer: neither {_BYTE_FILE} nor tokenizer.json nor vocab.json; "
            f"give such a folder, or one of {', '.join(_OWN)}"
        )
    return PublishedTokenizer(folder)


def prompt_ids(prompt: Prompt, tokenizer: Tokenizer, has_speaker: bool) -> list[int]:
    """Ids of the prefix: the speaker's place if there is one, the text, the start of audio.

    The words come last and are encoded by themselves.
    """
    speaker = [tokenizer.speaker_id] if has_speaker else []
    words = prompt.transcript or ""
    text = tokenizer.encode(render(prompt).removesuffix(words))
    spoken = tokenizer.encode_words(words, prompt.language)
    return [*speaker, *text, *spoken, tokenizer.audio_id]


def num_word_tokens(prompt: Prompt, tokenizer: Tokenizer) -> int:
    """Tokens of the words in `prompt_ids`, which end it but for the start of audio."""
    return len(tokenizer.encode_words(prompt.transcript or "", prompt.language))


def null_ids(tokenizer: Tokenizer) -> list[int]:
    """Ids of the unconditional prefix; the speaker's place is dropped too."""
    return [tokenizer.null_id, tokenizer.audio_id]


def _embedding_rows(folder: Path) -> int:
    path = folder / "config.json"
    return int(json.loads(path.read_text()).get("vocab_size", 0)) if path.is_file() else 0
