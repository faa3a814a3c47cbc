"""Sentence parts for sound labels: better names, and clauses about what a source does."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.data.descriptions.grammar import join_words
from pipeline.data.descriptions.vocabulary import NounPhrase, noun_phrase

_RENAMED = {
    "air conditioner": "an air conditioner", "car passing by": "a passing car",
    "clock alarm": "an alarm clock", "door wood creaks": "a creaking wooden door",
    "door wood knock": "knocking on a wooden door", "fill": "filling a container",
    "female singing": "a woman singing", "female speech": "a woman speaking",
    "gun shot": "a gunshot",
    "drinking sipping": "sipping a drink", "can opening": "opening a can",
    "door knock": "a knock on a door", "male singing": "a man singing",
    "male speech": "a man speaking",
    "man speaking": "a man speaking",
    "woman speaking": "a woman speaking",
    "kid speaking": "a child speaking", "mouse click": "a mouse click", "pour": "pouring liquid",
    "run": "running", "speech": "someone speaking",
    "child speech": "a child speaking", "conversation": "a conversation",
    "walk": "walking", "yell": "yelling", "writing": "writing",
}  # fmt: skip
"""Labels that do not fit into a sentence, and the noun phrases that replace them."""
_CLAUSES = {
    "airplane": "an airplane flies past", "applause": "a crowd applauds", "bark": "a dog barks",
    "bee": "a bee buzzes", "bell": "a bell rings", "bird": "a bird sings",
    "breathing": "someone breathes", "car horn": "a car horn honks", "cat": "a cat meows",
    "chainsaw": "a chainsaw runs", "chicken": "a chicken clucks", "chirping birds": "birds chirp",
    "church bell": "a church bell rings", "church bells": "church bells ring",
    "clapping": "people clap", "clock tick": "a clock ticks", "coughing": "someone coughs",
    "cow": "a cow moos", "crackling fire": "a fire crackles", "cricket": "a cricket chirps",
    "crickets": "crickets chirp", "crow": "a crow caws", "crying baby": "a baby cries",
    "dog": "a dog barks", "doorbell": "a doorbell rings", "duck": "a duck quacks",
    "engine": "an engine runs", "fireworks": "fireworks explode", "footsteps": "someone walks",
    "frog": "a frog croaks", "goat": "a goat bleats", "hand saw": "someone saws wood",
    "helicopter": "a helicopter hovers", "hen": "a hen clucks", "horse": "a horse neighs",
    "insects": "insects buzz", "keyboard typing": "someone types on a keyboard",
    "laughing": "someone laughs", "laughter": "people laugh", "lion": "a lion roars",
    "meow": "a cat meows", "owl": "an owl hoots", "pig": "a pig grunts", "rain": "rain falls",
    "rooster": "a rooster crows", "sea waves": "waves break on the shore",
    "sheep": "a sheep bleats", "siren": "a siren wails", "sneezing": "someone sneezes",
    "snoring": "someone snores", "telephone": "a telephone rings", "thunder": "thunder rumbles",
    "thunderstorm": "a thunderstorm rumbles", "toilet flush": "a toilet flushes",
    "train": "a train passes", "vacuum cleaner": "a vacuum cleaner runs",
    "washing machine": "a washing machine runs", "water drops": "water drips",
    "whistling": "someone whistles", "wind": "the wind blows", "wolf": "a wolf howls",
}  # fmt: skip
"""Labels that name a source, and what the source does."""
_MAX_SOURCES = 3


def source_slots(labels: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Slots for what is heard in a sound with these labels.

    A label may hold several names of one thing, with commas, as in AudioSet: each wording takes
    one of them.
    """
    names = [label.split(", ") for label in labels[:_MAX_SOURCES]]
    slots: dict[str, tuple[str, ...]] = {}
    for number in range(max(len(choices) for choices in names)):
        chosen = [choices[min(number, len(choices) - 1)] for choices in names]
        phrases = [_said(name) for name in chosen]
        subjects = join_words([phrase.text for phrase in phrases])
        is_plural = len(phrases) > 1 or phrases[0].is_plural
        kind = "source_plural" if is_plural else "source_singular"
        for slot in ("source", kind):
            slots[slot] = (*slots.get(slot, ()), subjects)
        if all(name in _CLAUSES for name in chosen):
            clauses = join_words([_CLAUSES[name] for name in chosen])
            slots["source_clause"] = (*slots.get("source_clause", ()), clauses)
    return slots


def _said(name: str) -> NounPhrase:
    if (text := _RENAMED.get(name)) is not None:
        return NounPhrase(text, is_plural=noun_phrase(name).is_plural)
    return noun_phrase(name)
