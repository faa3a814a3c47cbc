"""The names of all files below an input, and which of them corpora have used, on scratch disk."""

from __future__ import annotations

import posixpath
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from pipeline.data.corpora.file_names import is_audio_name, stem_of, suffix_of
from pipeline.data.scratch import ScratchMap, scratch_database, sql_text

_PAGE = 512
_AFTER_SLASH = "0"  # the character that follows the slash


@dataclass(frozen=True, slots=True)
class FileFact:
    """Size and modification time of a file."""

    size_bytes: int
    mtime_ns: int


class FileTable:
    """Facts of files by name, in the order of the names.

    Args:
        files: File names with facts, in any order.
    """

    def __init__(self, files: Iterable[tuple[str, FileFact]] = ()) -> None:
        self._database = scratch_database()
        self._num_views = 0
        self._indexed: set[str] = set()
        for function in (suffix_of, _parent_of, _key_of_path, _key_of_last):
            self._database.create_function(function.__name__, 1, function, deterministic=True)
        self._database.execute(
            "CREATE TABLE files (name TEXT PRIMARY KEY, size_bytes INT, mtime_ns INT,"
            " is_audio INT, used_by INT) WITHOUT ROWID"
        )
        self._database.executemany(
            "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, NULL)",
            ((n, fact.size_bytes, fact.mtime_ns, is_audio_name(n)) for n, fact in files),
        )
        self._database.execute(
            "CREATE INDEX by_folder ON files (_parent_of(name), suffix_of(name), name)"
        )

    def __contains__(self, name: object) -> bool:
        return self._fact(str(name)) is not None

    def __getitem__(self, name: str) -> FileFact:
        fact = self._fact(name)
        if fact is None:
            raise KeyError(name)
        return FileFact(*fact)

    def _fact(self, name: str) -> tuple[int, int] | None:
        return self._database.execute(
            "SELECT size_bytes, mtime_ns FROM files WHERE name = ?", (sql_text(name),)
        ).fetchone()

    def names(self, root: str = "") -> Names:
        """The names below a directory that no view made before this one has claimed."""
        self._num_views += 1
        return Names(self, f"{root}/" if root else "", self._num_views)

    def map(self) -> ScratchMap:
        """A new table of texts beside the names."""
        return ScratchMap(self._database)

    def claim(self, name: str, view: int) -> None:
        """Note that a corpus accounts for a file; later views leave it out.

        Args:
            name: The file; nothing happens if there is none of this name.
            view: Number of the view that it is claimed in.
        """
        self._database.execute(
            "UPDATE files SET used_by = ? WHERE name = ? AND used_by IS NULL",
            (view, sql_text(name)),
        )

    def select(
        self, condition: str, values: Sequence[str], order: str = "name"
    ) -> list[tuple[str]]:
        """Select the names that meet a condition of SQL."""
        return self._database.execute(
            f"SELECT name FROM files WHERE {condition} ORDER BY {order}",
            [sql_text(value) for value in values],
        ).fetchall()

    def index(self, function: str) -> None:
        """Make looking up by a function of the name fast; the first time it is needed."""
        if function not in self._indexed:
            self._indexed.add(function)
            self._database.execute(f"CREATE INDEX by{function} ON files ({function}(name))")


@dataclass(frozen=True)
class Names:
    """Some names of a `FileTable`, relative to a directory, in sorted order.

    Attributes:
        table: The files.
        prefix: The directory with a slash; empty for all.
        view: Files that views of smaller numbers have claimed are left out.
        is_audio: Whether only names that end like audio count.
        keep: Further condition.
    """

    table: FileTable
    prefix: str = ""
    view: int = 0
    is_audio: bool = False
    keep: Callable[[str], bool] | None = None

    @cached_property
    def audio(self) -> Names:
        """The names that have the ending of an audio file."""
        return replace(self, is_audio=True)

    def __iter__(self) -> Iterator[str]:
        return self._pages("name > ?", self.prefix, "name")

    def __reversed__(self) -> Iterator[str]:
        return self._pages("name < ?", self._end, "name DESC")

    def __contains__(self, name: object) -> bool:
        found = self.table.select(f"name = ? AND {self._condition}", (f"{self.prefix}{name}",))
        return bool(found) and (self.keep is None or self.keep(str(name)))

    def __bool__(self) -> bool:
        return self._is_any

    @cached_property
    def _is_any(self) -> bool:
        return next(iter(self), None) is not None

    def directly_in(self, folder: str = "", suffixes: tuple[str, ...] = ()) -> list[str]:
        """Names in one directory, and not below, with one of the endings if some are given."""
        parent = f"{self.prefix}{folder}".rstrip("/")
        condition = f"_parent_of(name) = ? AND {self._condition}"
        if suffixes:
            condition += f" AND suffix_of(name) IN ({', '.join('?' * len(suffixes))})"
        return self._relative(self.table.select(condition, (parent, *suffixes)))

    def like_path(self, path: str) -> list[str]:
        """Names that equal the path apart from case, Unicode form and the ending of audio."""
        return self._like("_key_of_path", path)

    def like_last(self, path: str) -> list[str]:
        """Names whose last part equals that of the path, apart from the same differences."""
        return self._like("_key_of_last", posixpath.basename(path))

    def _like(self, function: str, text: str) -> list[str]:
        self.table.index(function)
        inside = self.prefix if function == "_key_of_path" else ""
        keys = {_key(inside + text), _key_of_path(inside + text)}
        found = self.table.select(
            f"{function}(name) IN ({', '.join('?' * len(keys))}) AND name > ? AND name < ?"
            f" AND {self._condition}",
            (*sorted(keys), self.prefix, self._end),
        )
        return self._relative(found)

    def _pages(self, bound: str, start: str, order: str) -> Iterator[str]:
        """Names page by page, so that files may be claimed while they are looked at."""
        low, high = self.prefix, self._end
        while True:
            page = self.table.select(
                f"{bound} AND name > ? AND name < ? AND {self._condition}",
                (start, low, high),
                f"{order} LIMIT {_PAGE}",
            )
            yield from self._relative(page)
            if len(page) < _PAGE:
                return
            start = page[-1][0]

    def _relative(self, found: list[tuple[str]]) -> list[str]:
        names = [name[len(self.prefix) :] for (name,) in found]
        return names if self.keep is None else [name for name in names if self.keep(name)]

    @property
    def _condition(self) -> str:
        audio = " AND is_audio" if self.is_audio else ""
        return f"(used_by IS NULL OR used_by >= {self.view:d}){audio}"

    @property
    def _end(self) -> str:
        return self.prefix[:-1] + _AFTER_SLASH if self.prefix else "\U0010ffff"


def _parent_of(name: str) -> str:
    return name.rpartition("/")[0]


def _key(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()


def _key_of_path(name: str) -> str:
    return _key(stem_of(name))


def _key_of_last(name: str) -> str:
    return _key(stem_of(posixpath.basename(name)))
