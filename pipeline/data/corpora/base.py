"""The protocol of corpus layouts, and the view of a corpus directory that all layouts read."""

from __future__ import annotations

import codecs
import contextlib
import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, BinaryIO, Protocol

from pipeline.audio.containers import split_member
from pipeline.data.corpora.file_names import last_stem_of, suffix_of
from pipeline.data.corpora.file_table import Names
from pipeline.data.corpora.licences import licences_in
from pipeline.data.corpora.listing import Listing
from pipeline.data.corpora.lookup import AudioIndex
from pipeline.data.corpora.manifests import BadLine, Line, ManifestError, read_lines
from pipeline.data.rejects import Reason, reject
from pipeline.data.schema import ClipRow, Reject
from pipeline.data.scratch import ScratchMap
from pipeline.settings import digest_of

HEAD_BYTES = 4_096
"""Bytes of a file by which a layout recognises itself; of a manifest at least its first lines."""
JSON_HEAD_BYTES = 2**20
"""Bytes of a JSON file by which a layout recognises itself; they hold one record."""
MAX_LINE_BYTES = 64 * 2**20
"""Longest first line of a manifest that is read whole, bytes."""
_WHOLE_LINES = 4  # of which the first may be broken
_LINES = (".csv", ".tsv", ".jsonl", ".ndjson", ".txt")
MODALITIES = ("speech", "sound", "music")
"""Values of `ClipRow.modality`."""
MODALITY_FOLDERS = {
    "speech": "speech",
    "voice": "speech",
    "sound": "sound",
    "sounds": "sound",
    "sfx": "sound",
    "music": "music",
}
"""Names of directories that state the modality of the audio in them."""
_LICENCE_FILES = re.compile(r"(licen[cs]e|copying|readme)[^/]*", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class CorpusFacts:
    """Facts from settings: overrides take precedence over the corpus, defaults fill its gaps."""

    modality: str | None = None
    language: str | None = None
    licence: str | None = None
    attribution: str | None = None
    default_modality: str | None = None
    default_language: str | None = None
    default_licence: str | None = None


@dataclass(frozen=True)
class Place:
    """File and line of a manifest that describe a clip.

    Attributes:
        manifest: Name of the manifest, or of the audio file itself, in the corpus.
        line: Line or row, counted from 1; None if the whole file describes the clip.
    """

    manifest: str
    line: int | None = None

    def __str__(self) -> str:
        return self.manifest if self.line is None else f"{self.manifest} line {self.line}"


class Corpus(Protocol):
    """The layout of a published corpus: finds itself, and reads itself."""

    layout: str
    """Name of the layout, as in settings."""

    def matches(self, folder: CorpusFolder) -> bool:
        """Whether the directory is the root of a corpus in this layout."""

    def read(self, folder: CorpusFolder) -> Iterator[ClipRow | Reject]:
        """One item for each clip and each rejected row; the files that it uses are claimed."""


class CorpusFolder:
    """A corpus directory: its files, the lookup of audio, and the construction of rows.

    Args:
        listing: Listing of the input directory; files that the layout uses are claimed in it.
        root: The corpus directory, relative to it; empty is the input itself.
        name: Name of the corpus.
        facts: Facts from settings.

    Attributes:
        names: Files that the layout may use, relative to the corpus directory, sorted: those that
            no layout claimed before.
    """

    def __init__(
        self,
        listing: Listing,
        root: str,
        name: str,
        facts: CorpusFacts,
    ) -> None:
        self.listing = listing
        self.root = root
        self.names = listing.files.names(root)
        self.name = name
        self.facts = facts
        self._heads: dict[str, bytes] = {}

    @cached_property
    def files(self) -> list[str]:
        """Names of files directly in the directory."""
        return self.names.directly_in()

    @property
    def audio(self) -> Names:
        """Names that end like audio, at any depth."""
        return self.names.audio

    def having(self, *suffixes: str, within: str = "") -> list[str]:
        """Names directly in the directory, or in one below it, with one of the endings."""
        return self.names.directly_in(within, suffixes)

    def uri(self, name: str = "") -> str:
        """Path, or percent-encoded URI, of a file, of `archive.tar#member`, or of the corpus."""
        path = posixpath.join(self.root, name)
        inner = None if path in self.listing.files else split_member(path)
        if inner is None:
            return self.listing.uri(path)
        return f"{self.listing.uri(inner[0])}#{inner[1]}"

    def read_bytes(self, name: str) -> bytes:
        """A file's contents.

        Raises:
            ManifestError: If it cannot be read.
        """
        try:
            return self.listing.folder.read_bytes(posixpath.join(self.root, name))
        except OSError as error:
            raise ManifestError(Reason.NOT_A_FILE, f"cannot be read: {error}") from error

    def lines(self, name: str) -> Iterator[Line | BadLine]:
        """Lines of a manifest, read as they are taken; see `read_lines`.

        Raises:
            ManifestError: If it cannot be read.
        """
        try:
            with self.listing.folder.open(posixpath.join(self.root, name)) as stream:
                yield from read_lines(stream)
        except OSError as error:
            raise ManifestError(Reason.NOT_A_FILE, f"cannot be read: {error}") from error

    def head(self, name: str) -> bytes:
        """The first bytes of a file, of a manifest at least its first lines that say something.

        A file that cannot be read has none.
        """
        if name not in self._heads:
            self._heads[name] = b""
            path = posixpath.join(self.root, name)
            with contextlib.suppress(OSError), self.listing.folder.open(path) as stream:
                suffix = suffix_of(name)
                size = JSON_HEAD_BYTES if suffix == ".json" else HEAD_BYTES
                self._heads[name] = _first_lines(stream) if suffix in _LINES else stream.read(size)
        return self._heads[name]

    def parts_of(self, name: str = "") -> list[str]:
        """Directories from the input's own down to a file or the corpus, the nearest first."""
        path = posixpath.join(posixpath.basename(self.listing.folder.path), self.root, name)
        return [part for part in reversed(path.split("/")) if part]

    def exists_above(self, name: str) -> bool:
        """Whether a directory above, within the input, holds a file of that name."""
        above = self.root
        while above:
            above = posixpath.dirname(above)
            if posixpath.join(above, name) in self.listing.files:
                return True
        return False

    def claim(self, name: str) -> None:
        """Note that the corpus accounts for a file."""
        self.listing.files.claim(posixpath.join(self.root, name), self.names.view)

    def first_of(self, names: Iterable[str]) -> str | None:
        """The first of some names that is a file of the corpus; None if there is none."""
        return next((name for name in names if name in self.names), None)

    def find_audio(
        self, reference: str, near: str = "", *, field: str | None = None
    ) -> tuple[str, str | None]:
        """The file that a manifest names, claimed, and a note if its name differs.

        Args:
            reference: The file as the manifest writes it.
            near: Directory that the path may start from.
            field: Column or key that names it.

        Raises:
            ManifestError: If there is no such file, or several.
        """
        try:
            name, note = self._index.find(reference, near)
        except ManifestError as error:
            raise ManifestError(error.reason, error.detail, field=field) from error
        self.claim(name)
        return name, note

    def find_named(
        self, stems: Sequence[str], within: str = "", *, field: str | None = None
    ) -> str:
        """The audio file of the first name that exists, claimed.

        Args:
            stems: File names without folder and ending.
            within: Some directory on the way to it must be called so; empty takes any.
            field: Column or key that names it.

        Raises:
            ManifestError: If there is none, or more than one.
        """
        for stem in stems:
            alike = self.audio.like_last(stem)
            found = [name for name in alike if last_stem_of(name) == stem]
            if within:
                found = [name for name in found if within in name.split("/")[:-1]]
            if len(found) > 1:
                listed = ", ".join(map(repr, found[:4]))
                raise ManifestError(
                    Reason.AMBIGUOUS_AUDIO, f"{stem!r} could be any of {listed}", field=field
                )
            if found:
                self.claim(found[0])
                return found[0]
        names = " or ".join(map(repr, stems))
        place = f" in a folder {within!r}" if within else ""
        raise ManifestError(
            Reason.MISSING_AUDIO, f"no audio file is called {names}{place}", field=field
        )

    @property
    def moved(self) -> dict[str, int]:
        """Folders in manifests that do not exist, with the number of paths found elsewhere."""
        return dict(sorted(self._index.moved.items()))

    def claim_if_there(self, references: Iterable[str], near: str = "") -> None:
        """Claim the audio of a row that is rejected for another reason."""
        for reference in references:
            with contextlib.suppress(ManifestError):
                self.find_audio(reference, near)

    def clip(
        self, key: str, audio: str, *, modality: str | None, place: Place, **fields: Any
    ) -> ClipRow | Reject:
        """A clip row with the corpus's own facts filled in; a reject if the key is not new.

        Args:
            key: Unique inside the corpus, and stable.
            audio: Name of the audio file, or `archive.tar#member`.
            modality: What the layout or row says; settings, folder names and defaults fill in.
            place: File and line of the manifest that describe the clip.
            fields: Other fields of `ClipRow`, empty where unknown; `speaker` without the corpus.
        """
        facts = self.facts
        chosen = self.modality_of(modality)
        if chosen is None:
            return self.reject(
                Reason.MISSING_MODALITY,
                "nothing says whether this is speech, sound or music; set modality, or put it in a "
                "folder of that name",
                place.manifest,
                key=key,
                line=place.line,
                field="modality",
            )
        digest = digest_of([audio, chosen, {k: v for k, v in fields.items() if k != "notes"}])
        described = json.dumps([digest, str(place)])
        first = self._seen.setdefault(key, described)
        if first is not described:
            return self._reject_repeat(key, digest, first, place)
        row = ClipRow(
            clip_id=f"{self.name}/{key}",
            corpus=self.name,
            uri=self.uri(audio),
            modality=chosen,
            **fields,
        )
        has_voice = chosen == "speech" or row.transcript is not None
        return replace(
            row,
            language=facts.language
            or row.language
            or (facts.default_language if has_voice else None),
            licence=facts.licence or row.licence or self.licence or facts.default_licence,
            attribution=facts.attribution or row.attribution,
            speaker=f"{self.name}/{row.speaker}" if row.speaker else None,
        )

    def _reject_repeat(self, key: str, digest: str, first: str, place: Place) -> Reject:
        first_digest, first_place = json.loads(first)
        is_alike = first_digest == digest
        how = "alike" if is_alike else "differently"
        return self.reject(
            Reason.DUPLICATE_ID if is_alike else Reason.CONFLICT,
            f"{key!r} is already described, {how}, at {first_place}, which is kept",
            place.manifest,
            key=key,
            line=place.line,
        )

    def reject(
        self,
        reason: Reason,
        detail: str,
        name: str = "",
        *,
        key: str | None = None,
        line: int | None = None,
        field: str | None = None,
    ) -> Reject:
        """A reject row about a file of the corpus."""
        return reject(
            reason,
            detail,
            corpus=self.name,
            uri=self.uri(name),
            clip_id=f"{self.name}/{key}" if key else None,
            line=line,
            field=field,
        )

    def reject_line(self, line: BadLine, name: str) -> Reject:
        """A reject row about a line that could not be read."""
        return self.reject(line.reason, line.detail, name, line=line.number)

    def reject_manifest(self, error: ManifestError, name: str) -> Reject:
        """A reject row about a whole manifest."""
        return self.reject(error.reason, error.detail, name, line=error.line, field=error.field)

    def modality_of(self, given: str | None) -> str | None:
        """Modality of a clip whose layout or row states `given`; None if it is not known."""
        facts = self.facts
        return facts.modality or given or self.modality_hint or facts.default_modality

    @cached_property
    def modality_hint(self) -> str | None:
        """Modality by the name of the directory, or of the nearest above it within the input."""
        for part in self.parts_of():
            if part.lower() in MODALITY_FOLDERS:
                return MODALITY_FOLDERS[part.lower()]
        return None

    @cached_property
    def licence(self) -> str | None:
        """Licence by the one Creative Commons address in the licence or readme files, if so."""
        texts = [
            self.head(name).decode(errors="replace")
            for name in self.files
            if _LICENCE_FILES.fullmatch(name)
        ]
        found = {licence for text in texts for licence in licences_in(text)}
        return found.pop() if len(found) == 1 else None

    @cached_property
    def _seen(self) -> ScratchMap:
        """Digest and place of the first description of every key."""
        return self.listing.files.map()

    @cached_property
    def _index(self) -> AudioIndex:
        return AudioIndex(self.names, self.uri())


def _first_lines(stream: BinaryIO) -> bytes:
    """Bytes with some whole lines that are neither blank nor comments, up to `MAX_LINE_BYTES`."""
    head, size = b"", HEAD_BYTES
    while len(head) < MAX_LINE_BYTES:
        more = stream.read(size)
        head += more
        lines = head.removeprefix(codecs.BOM_UTF8).splitlines(keepends=True)
        whole = lines if not more else lines[:-1]
        said = [line for line in whole if line.strip() and not line.startswith(b"#")]
        if not more or len(said) >= _WHOLE_LINES:
            break
        size = len(head)
    return head
