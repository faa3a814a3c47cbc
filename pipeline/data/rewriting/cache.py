"""Answers of language models by content: asking the same thing again is free."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

from pipeline.data.rewriting.chat import ChatModel, ChatRequest, Reply, Unanswered
from pipeline.errors import IncompleteError
from pipeline.storage import Folder

_READERS = 16


@dataclass(frozen=True)
class ReplyCache:
    """Answers on any file system, one small file each, named by digest; safe for many writers."""

    folder: Folder

    def get(self, key: str) -> Reply | None:
        """The answer of that digest; None if there is none, or its file is damaged."""
        try:
            return Reply(**self.folder.read_json(_name(key)))
        except (FileNotFoundError, IncompleteError, TypeError):
            return None

    def put(self, key: str, reply: Reply) -> None:
        """Store a completion."""
        self.folder.write_json(_name(key), asdict(reply))


@dataclass
class Usage:
    """Number of completions; it differs from run to run, so it never enters a card."""

    asked: int = 0
    cached: int = 0
    beat: Callable[[], None] = lambda: None
    """Function that is called after every completion."""

    @property
    def counts(self) -> dict[str, int]:
        """The numbers, for a file."""
        return {"asked": self.asked, "cached": self.cached}


def ask(
    model: ChatModel, cache: ReplyCache, requests: Sequence[ChatRequest], usage: Usage
) -> list[Reply | Unanswered]:
    """Completions in the order of the requests, each from the cache if it is there.

    Args:
        model: Model that gets the other requests; its completions are stored as they come.
        cache: Cache of completions.
        requests: Requests; equal ones are sent once.
        usage: Counts that are increased.
    """
    keys = [request.key(model.name) for request in requests]
    wanted = dict(zip(keys, requests, strict=True))
    with ThreadPoolExecutor(_READERS) as pool:
        found = zip(wanted, pool.map(cache.get, wanted), strict=True)
        answers: dict[str, Reply | Unanswered] = {k: r for k, r in found if r is not None}
    missing = [key for key in wanted if key not in answers]
    usage.cached += len(keys) - len(missing)
    usage.asked += len(missing)
    if missing:

        def keep(index: int, reply: Reply) -> None:
            """Store a completion while others are still generated."""
            usage.beat()
            cache.put(missing[index], reply)

        fresh = model.answer([wanted[key] for key in missing], keep)
        answers |= zip(missing, fresh, strict=True)
    return [answers[key] for key in keys]


def _name(key: str) -> str:
    return f"{key[:2]}/{key}.json"
