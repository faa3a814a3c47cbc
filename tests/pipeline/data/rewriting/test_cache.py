from __future__ import annotations

from pipeline.data.rewriting.cache import ReplyCache, Usage, ask
from pipeline.data.rewriting.chat import ChatRequest, Reply, SentAudio, Unanswered
from pipeline.storage import Folder


class Echo:
    """Answers with the question; counts them."""

    def __init__(self, name: str = "echo") -> None:
        self.name, self.seen = name, []

    def answer(self, requests, keep):
        answers = []
        for index, request in enumerate(requests):
            text = request.messages[0]["content"]
            self.seen.append(text)
            answers.append(Unanswered.TIMEOUT if text == "never" else Reply(text))
            if text != "never":
                keep(index, answers[-1])
        return answers


def question(text: str, **given) -> ChatRequest:
    values = {"temperature": 0.5, "max_tokens": 50} | given
    return ChatRequest(({"role": "user", "content": text},), **values)


def test_remembered_answers_are_not_asked_again(tmp_path):
    cache, usage = ReplyCache(Folder.at(tmp_path)), Usage()
    requests = [question(text) for text in ("a", "b", "a")]
    assert ask(Echo(), cache, requests, usage) == [Reply("a"), Reply("b"), Reply("a")]
    assert usage.counts == {"asked": 2, "cached": 1}
    silent = Echo()
    again = ask(silent, cache, [*requests, question("c")], Usage())
    assert again == [Reply("a"), Reply("b"), Reply("a"), Reply("c")]
    assert silent.seen == ["c"]


def test_failed_requests_are_sent_again(tmp_path):
    cache, model = ReplyCache(Folder.at(tmp_path)), Echo()
    for _ in range(2):
        assert ask(model, cache, [question("never")], Usage()) == [Unanswered.TIMEOUT]
    assert model.seen == ["never", "never"]


def test_everything_that_changes_an_answer_changes_the_key():
    base = question("a")
    others = [
        question("b"),
        question("a", temperature=0.6),
        question("a", max_tokens=51),
        question("a", extra={"top_p": 0.5}),
        question("a", audio=SentAudio("digest", lambda: b"", 1.0)),
        question("a", audio=SentAudio("other", lambda: b"", 1.0)),
    ]
    keys = {request.key("m") for request in [base, *others]} | {base.key("n")}
    assert len(keys) == len(others) + 2
    assert question("a").key("m") == base.key("m")


def test_damaged_entry_is_asked_anew(tmp_path):
    cache, model = ReplyCache(Folder.at(tmp_path)), Echo()
    ask(model, cache, [question("a")], Usage())
    (entry,) = list(tmp_path.rglob("*.json"))
    for damage in ("{", '{"words": 1}', "[]"):
        entry.write_text(damage)
        assert ask(model, cache, [question("a")], Usage()) == [Reply("a")]
    assert model.seen == ["a"] * 4
