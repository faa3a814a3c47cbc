"""Finds the corpora below the input directories, and accounts for every file that lies there."""

from __future__ import annotations

import logging
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from urllib.parse import unquote

from pipeline.audio.containers import split_member
from pipeline.cluster import in_tasks
from pipeline.data.corpora.base import MAX_LINE_BYTES, Corpus, CorpusFacts, CorpusFolder
from pipeline.data.corpora.catalogue import Catalogue, SplitRule
from pipeline.data.corpora.file_names import MANIFEST_SUFFIXES, is_audio_name, suffix_of
from pipeline.data.corpora.file_table import FileFact
from pipeline.data.corpora.found import Discovery, FoundCorpus, write_parts
from pipeline.data.corpora.listing import Listing, walk
from pipeline.data.corpora.manifests import ManifestError, read_json, read_lines
from pipeline.data.corpora.registry import GENERIC, LAST_RESORT, SPECIFIC, layout_named
from pipeline.data.corpora.table import header_of
from pipeline.data.rejects import Reason, reject
from pipeline.data.schema import Reject
from pipeline.errors import SettingsError
from pipeline.storage import Folder

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Source:
    """A directory to look for corpora in.

    Attributes:
        uri: The directory.
        layout: Its layout, if it is one corpus; None looks below it.
        name: Name of the corpus, or prefix of the names of those below; None takes the path.
        facts: What settings say of all corpora below it.
    """

    uri: str
    layout: str | None = None
    name: str | None = None
    facts: CorpusFacts = field(default_factory=CorpusFacts)


@dataclass(frozen=True)
class _Reading:
    """What a task reads: one input.

    Attributes:
        source: The input.
        others: Paths of the other inputs, which it leaves out.
        rule: How clips get their splits.
        store: Where the items go.
    """

    source: Source
    others: frozenset[str]
    rule: SplitRule
    store: Folder


def discover(
    sources: Sequence[Source], rule: SplitRule, store: Folder, *, uses_tasks: bool = True
) -> Discovery:
    """Read all corpora of the sources, and write what is in them as Parquet.

    A directory is a corpus if a layout recognises it; the deepest directory wins, and layouts
    with manifests win over those that only look at neighbours. Audio that is left inside a corpus
    is unreferenced; elsewhere it is a folder without labels.

    Args:
        sources: The inputs. On a cluster each is read by a task.
        rule: How clips get their splits.
        store: Where the items go; what an earlier discovery left there is removed.
        uses_tasks: False reads everything in this process, on a cluster too.

    Raises:
        SettingsError: If a source is missing, or two corpora have one name.
    """
    paths = {Folder.at(source.uri).path for source in sources}
    readings = [
        _Reading(source, frozenset(paths - {Folder.at(source.uri).path}), rule, store)
        for source in sources
    ]
    corpora: dict[str, FoundCorpus] = {}
    ignored: Counter[str] = Counter()
    for found, left in in_tasks(_read, readings) if uses_tasks else map(_read, readings):
        for corpus in found:
            if corpus.name in corpora:
                raise _same_name(corpus.name, corpora[corpus.name].uri, corpus.uri)
            corpora[corpus.name] = corpus
            _report(corpus)
        ignored.update(left)
    if ignored:
        counts = ", ".join(f"{count} {kind}" for kind, count in ignored.most_common())
        logger.info("ignored, neither audio nor manifest: %s", counts)
    kept = {part.file for corpus in corpora.values() for part in corpus.parts}
    for name in set(store.files(".parquet")) - kept:
        store.delete(name)
    return Discovery(
        store, [corpora[name] for name in sorted(corpora)], dict(sorted(ignored.items()))
    )


def _read(reading: _Reading) -> tuple[list[FoundCorpus], dict[str, int]]:
    """The corpora of one input, and its ignored files by kind."""
    catalogue = Catalogue()
    listing = walk(Folder.at(reading.source.uri), reading.others)
    search = _Search(reading.source, listing, catalogue)
    found = []
    for corpus in search.run():
        catalogue.assign_splits(corpus.name, reading.rule)
        found.append(
            FoundCorpus(
                name=corpus.name,
                layout=corpus.layout,
                uri=corpus.uri,
                digest=catalogue.digest(corpus.name),
                num_clips=catalogue.count(corpus.name, is_reject=False),
                num_rejects=catalogue.count(corpus.name, is_reject=True),
                parts=write_parts(reading.store, catalogue.planned(corpus.name)),
                moved=corpus.moved,
            )
        )
    return found, dict(search.ignored)


def _report(corpus: FoundCorpus) -> None:
    logger.info(
        "%s: layout %s, %d clips, %d rejects",
        *(corpus.name, corpus.layout, corpus.num_clips, corpus.num_rejects),
    )
    for folder, count in corpus.moved.items():
        logger.warning(
            "%s: %d paths begin with %s, which is not here; they were matched by what follows",
            *(corpus.name, count, folder),
        )


def _same_name(name: str, one: str, other: str) -> SettingsError:
    return SettingsError(
        f"two corpora are called {name!r}: {one} and {other}; list them in the setting `corpora` "
        "with a name each"
    )


@dataclass
class _Recognised:
    """A corpus that is being read; its attributes are those of `FoundCorpus`."""

    name: str
    layout: str
    uri: str
    moved: dict[str, int] = field(default_factory=dict)


class _Search:
    """One source.

    Args:
        source: The source.
        listing: Its files.
        catalogue: Takes the items.
    """

    def __init__(self, source: Source, listing: Listing, catalogue: Catalogue) -> None:
        self._source = source
        self._listing = listing
        self._catalogue = catalogue
        self._found: dict[str, _Recognised] = {}
        self.ignored: Counter[str] = Counter()

    def run(self) -> Iterator[_Recognised]:
        """Every corpus, and what is left over as rejects of the corpus it lies in."""
        if self._source.layout is not None:
            self._read("", layout_named(self._source.layout))
        else:
            folders = self._folders()
            for layouts in (SPECIFIC, GENERIC):
                for root in folders:
                    self._try(root, layouts)
            self._read_plain(folders)
        self._account_for_rest()
        return iter(self._found.values())

    def _folders(self) -> list[str]:
        """All directories, the deepest first; the input itself is the empty name."""
        folders = {""}
        for name in self._listing.files.names():
            parent = posixpath.dirname(name)
            while parent not in folders:
                folders.add(parent)
                parent = posixpath.dirname(parent)
        return sorted(folders, key=lambda name: (-_depth(name), name))

    def _try(self, root: str, layouts: Iterable[Corpus]) -> None:
        if root in self._found:
            return
        view = self._view(root)
        layout = next((layout for layout in layouts if view.names and layout.matches(view)), None)
        if layout is not None:
            self._read(root, layout)

    def _view(self, root: str) -> CorpusFolder:
        return CorpusFolder(self._listing, root, self._name(root), self._source.facts)

    def _name(self, root: str) -> str:
        path = root.replace("/", "-")
        if self._source.name:
            return f"{self._source.name}-{path}" if path else self._source.name
        return path or posixpath.basename(self._listing.folder.path) or "corpus"

    def _read(self, root: str, layout: Corpus) -> None:
        view = self._view(root)
        found = self._new(root, layout.layout, view.uri())
        for item in layout.read(view):
            if isinstance(item, Reject):
                self._catalogue.add_reject(item)
            else:
                self._catalogue.add_clip(found.name, found.uri, item, self._fact(item.uri))
        found.moved = view.moved

    def _new(self, root: str, layout: str, uri: str) -> _Recognised:
        name = self._name(root)
        for other in self._found.values():
            if other.name == name:
                raise _same_name(name, other.uri, uri)
        found = self._found[root] = _Recognised(name, layout, uri)
        return found

    def _fact(self, uri: str) -> FileFact:
        """Size and time of the audio file, or of the file that the audio lies in."""
        top = self._listing.folder.uri.rstrip("/") + "/"
        name = uri.removeprefix(top)
        if "://" not in top:
            inner = None if name in self._listing.files else split_member(name)
            return self._listing.files[inner[0] if inner else name]
        inner = split_member(name)
        return self._listing.files[unquote(inner[0] if inner else name)]

    def _read_plain(self, folders: list[str]) -> None:
        """Audio outside all corpora: the outermost directories that hold some directly."""
        for root in sorted(folders, key=_depth):
            if self._enclosing(root) is None:
                view = self._view(root)
                view.names = replace(view.names, keep=partial(self._is_outside, root))
                if LAST_RESORT.matches(view):
                    self._read(root, LAST_RESORT)

    def _is_outside(self, root: str, name: str) -> bool:
        """Whether a file below a directory lies in no corpus."""
        return self._enclosing(posixpath.join(root, posixpath.dirname(name))) is None

    def _enclosing(self, folder: str) -> _Recognised | None:
        """The corpus that a directory lies in."""
        folder = folder.rstrip("/")
        while folder not in self._found:
            if not folder:
                return None
            folder = posixpath.dirname(folder)
        return self._found[folder]

    def _account_for_rest(self) -> None:
        for name in self._listing.files.names():
            home = self._enclosing(posixpath.dirname(name))
            if is_audio_name(name):
                self._leave(
                    home, name, Reason.UNREFERENCED, "audio that no row of the corpus names"
                )
            elif suffix_of(name) in MANIFEST_SUFFIXES:
                self._leave(home, name, *self._why_unclaimed(name))
            else:
                self.ignored[suffix_of(name) or "(none)"] += 1
        self.ignored.update(self._listing.litter)
        for name, reason, detail in self._listing.faults:
            self._leave(self._enclosing(posixpath.dirname(name)), name, reason, detail)

    def _leave(self, home: _Recognised | None, name: str, reason: Reason, detail: str) -> None:
        if home is None:
            home = self._new("", "none", self._listing.folder.uri)
        uri = self._listing.uri(name)
        self._catalogue.add_reject(reject(reason, detail, corpus=home.name, uri=uri))

    def _why_unclaimed(self, name: str) -> tuple[Reason, str]:
        view = self._view(posixpath.dirname(name))
        last = posixpath.basename(name)
        try:
            payload = view.read_bytes(last)
            if suffix_of(name) == ".json":
                read_json(payload)
            elif suffix_of(name) != ".parquet":
                next(read_lines(payload))
        except ManifestError as error:
            return error.reason, error.detail
        head = view.head(last)
        if len(head) >= MAX_LINE_BYTES and len(head.strip().splitlines()) == 1:
            return (
                Reason.UNCLAIMED,
                f"its first line is longer than {MAX_LINE_BYTES} bytes: not looked at",
            )
        detail = "no layout reads it: nothing in it names audio files of its folder"
        if suffix_of(name) in (".csv", ".tsv"):
            columns = header_of(view, last)[0][:8]
            detail = f"no layout reads it: the first row {columns} names no audio column and label"
        return Reason.UNCLAIMED, detail


def _depth(name: str) -> int:
    return name.count("/") + 1 if name else 0
