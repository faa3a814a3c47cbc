"""Description-style texts of clips, composed by a grammar so that no two need sound alike."""

from __future__ import annotations

import hashlib
import random

from pipeline.data.descriptions.facts import Facts, split_sentences
from pipeline.data.descriptions.grammar import Grammar, Sentence, pick

GRAMMAR_VERSION = 1
"""Raised when wording changes, so that texts are written again."""
_MAX_DRAWS = 24
_KEPT_SHARE = 0.8

_SHARED = {
    "recording_note": (
        "in a(n) {recording} recording",
        "in a(n) {level} recording",
        "in a(n) {level}, {recording} recording",
        "{level}",
    ),
    "recording_sentence": (
        "the recording is {recording}",
        "the recording is {level}",
        "the recording is {level} and {recording}",
        "the sound is {recording}",
        "the volume is {level}",
    ),
    "length_note": ("lasting {length}", "{length} long"),
    "order": ("generate", "make", "create", "produce", "give me", "I want", "synthesize"),
}

_SPEECH = {
    "speech": (
        "<who> <speaks>[ <in_language>][ <manner>].[ <speech_after>.]",
        "<who> <speaks>[ <in_language>] <manner>[, <aside>].",
        "in a(n) {pitch} voice, {person_human} <speaks>[ <in_language>][ {pace}].",
        "<manner_first>, <who> <speaks>[ <in_language>].",
        "{language} speech by <who_plain>[, <aside>].",
        "{language} speech[, spoken {pace}][ <tone_with>].",
        "spoken {language}: <portrait>[, <aside>].",
        "<portrait>[, speaking <manner>].",
        "<portrait>.[ <speech_after>.][ <speech_after_last>.]",
        "the <portrait_bare> <speaks>[ <in_language>][ <manner>].",
        "<keywords>.",
        "[{language} ]speech, <keywords_rest>.",
        "{person_voice}: <keywords_rest>.",
        "<order> a(n) <adjectives> {person_voice}[ <speaking> <in_language>][, <manner>].",
        "<read_order> <in_voice>[, {pace}][, {tone}].",
        "a recording of <who_plain> <speaking>[ <in_language>][ <manner>].",
        "<who> can be heard <speaking>[ <in_language>][ <manner>].",
        "we hear <who_plain> <speaking>[ <in_language>][ {pace}].[ <speech_after>.]",
        "<recording_sentence>: <who> <speaks>[ <in_language>][ <manner>].",
        "{person_human} with a(n) <adjectives> voice <speaks>[ <in_language>][ <manner>].",
        "{person_human} <speaks>[ <in_language>] in a(n) <adjectives> voice[, <aside>].",
        "the voice is <adjectives>[ and the delivery {pace_adjective}].[ <speech_after>.]",
    ),
    "who": (
        "{person}",
        "{person}",
        "a(n) {pitch} {person_noun}",
        "a(n) <adjectives> {person_noun}",
    ),
    "who_plain": ("{person}", "a(n) {pitch} {person_noun}", "a(n) {tone_adjective} {person_noun}"),
    "portrait": (
        "a(n) {person_noun}",
        "a(n) <adjectives> {person_noun}",
        "a(n) <adjectives> {person_noun}",
    ),
    "portrait_bare": ("{person_noun}", "<adjectives> {person_noun}"),
    "adjectives": (
        "{pitch}",
        "{tone_adjective}",
        "{pace_adjective}",
        "{pitch}, {tone_adjective}",
        "{pitch} and {tone_adjective}",
        "{pitch}, {pace_adjective}",
        "{tone_adjective}, {pace_adjective}",
    ),
    "speaks": (
        "speaks",
        "talks",
        "says something",
        "is speaking",
        "is talking",
    ),
    "speaking": ("speaking", "talking"),
    "in_language": ("in {language}",),
    "manner": (
        "{pace}",
        "{tone}",
        "{pauses}",
        "{pace} and {tone}",
        "{tone}, {pace}",
        "{pace}, {pauses}",
        "{tone}, {pauses}",
    ),
    "manner_first": ("{pace}", "{tone}", "speaking {pace}", "{tone} and {pace}"),
    "tone_with": ("{tone}", ", {tone}"),
    "aside": ("<recording_note>", "{pauses}", "<length_note>", "{tone}", "{pace}"),
    "speech_after": (
        "<recording_sentence>",
        "the delivery is {pace_adjective}",
        "the delivery is {tone_adjective}",
        "the delivery is {pace_adjective} and {tone_adjective}",
        "the voice is {pitch}",
        "the pitch is {pitch}",
        "the words come {pace}",
        "the language is {language}",
        "it lasts {length}",
        "keywords: {tags}",
    ),
    "speech_after_last": (
        "<recording_sentence>",
        "it lasts {length}",
        "the language is {language}",
    ),
    "keywords": (
        "{person_noun}, <keywords_rest>",
        "{person_sex} voice, {language}, <keywords_rest>",
        "{language}, {person_noun}[, {pitch}][, {pace_adjective}]",
    ),
    "keywords_rest": (
        "{pitch}[, {pace_adjective}][, {tone_adjective}][, {recording}]",
        "{pace_adjective}[, {tone_adjective}][, {level}]",
        "{tone_adjective}[, {pitch}][, {recording}]",
        "{language}[, {pitch}][, {tone_adjective}]",
    ),
    "read_order": ("read this", "say this", "speak the words", "say it", "read the text aloud"),
    "in_voice": (
        "in a(n) {person_sex} voice",
        "in a(n) {pitch} {person_sex} voice",
        "in a(n) <adjectives> voice",
        "in {language}",
    ),
}

_SINGING = {
    "singing": (
        "<singer> <sings>[ <in_language>][, <song_note>].[ <song_after>.]",
        "<singer> <sings>[ <in_language>] to <backing>[, <song_note>].",
        "a(n) [{language} ]song[ <by_singer>][, <song_note>].[ <song_after>.]",
        "a(n) [{tempo} ][{language} ]song with {person_sex} vocals[, <song_note>].",
        "[{language} ]singing by <singer>[, <song_note>].",
        "vocal music[, sung <in_language>][ <by_singer>][, <song_note>].",
        "<order> a song sung <by_singer>[ <in_language>][, <song_note>].",
        "<order> [{tempo} ]{person_sex} singing[ <in_language>][, <song_note>].",
        "sing this <in_language>[, {bpm}].",
        "[{person_sex} ]vocals, {language}[, {tempo}][, {colour}].",
        "lyrics sung <in_language> <by_singer>[, <song_note>].",
        "<singer> can be heard singing[ <in_language>][, <song_note>].",
        "a song: {tags}[, sung <in_language>].",
    ),
    "singer": ("{person}", "{person}"),
    "by_singer": ("by {person}",),
    "sings": ("sings", "is singing", "sings a song", "performs a song", "sings a melody"),
    "in_language": ("in {language}",),
    "backing": ("a {tempo} accompaniment", "music {bpm}", "a {colour} backing"),
    "song_note": ("{bpm}", "{tags}", "<recording_note>", "{dynamics}", "{stereo}", "{trend}"),
    "song_after": (
        "the tempo is {tempo_word}",
        "the mix is {colour}",
        "the mix is {level}",
        "the words are in {language}",
        "it lasts {length}",
        "style: {tags}",
    ),
}

_SOUND = {
    "sound": (
        "<the_sound_of> {source}[, <sound_note>].[ <sound_after>.]",
        "<thing>[, <sound_note>].[ <sound_after>.]",
        "<heard>[, <sound_note>].[ <sound_after>.]",
        "{source}[: <adjectives>][, <sound_note>].",
        "{source}, <adjectives>[ and {level}].",
        "<adjectives_first> sound of {source}[, <sound_note>].",
        "<order> <the_sound_of> {source}[, <sound_note>].",
        "sound effect: {source_tags}[, <adjectives>][, {level}].",
        "{source_tags}[, <adjectives>][, {recording}].",
        "a field recording of {source}[, <sound_note>].[ <sound_after>.]",
        "someone has recorded {source}[, <sound_note>].",
        "this is {source}[, <sound_note>].[ <sound_after>.]",
        "listen: {source}[, <sound_note>].",
        "in this clip, <heard>[, <sound_note>].",
        "<adjectives>: {source}[, <sound_note>].",
        "{source} and nothing else[, <sound_note>].",
        "nothing but {source}[, <sound_note>].",
        "an example of {source}[, <sound_note>].",
    ),
    "unlabelled": (
        "a(n) <adjectives> <noise>[, <sound_note>].[ <sound_after>.]",
        "the <noise> is <adjectives>[ and {level}].[ <sound_after>.]",
        "<order> a(n) <adjectives> <noise>[, <sound_note>].",
        "we hear a(n) <adjectives> <noise>[, <sound_note>].",
        "some <adjectives> <noise>[, <sound_note>].",
        "a(n) <noise> called {title}[, <adjectives>].",
        "{title}: a(n) <adjectives> <noise>.",
    ),
    "the_sound_of": (
        "the sound of",
        "a recording of",
        "the noise of",
        "a sound effect of",
        "the unmistakable sound of",
        "audio of",
    ),
    "thing": ("{source}", "{source}"),
    "heard": (
        "{source_singular} is heard",
        "{source_plural} are heard",
        "{source} can be heard",
        "you hear {source}",
        "we hear {source}",
        "one hears {source}",
        "there is the sound of {source}",
        "{source_singular} sounds",
        "{source_plural} sound",
    ),
    "noise": ("sound", "noise", "sound effect"),
    "adjectives_first": ("a(n) <adjectives>", "the <adjectives>"),
    "adjectives": (
        "{colour}",
        "{activity}",
        "{size}",
        "{tonality}",
        "{colour}, {activity}",
        "{size}, {colour}",
        "{activity} and {colour}",
        "{tonality}, {colour}",
        "{size}, {tonality}",
        "{level}, {colour}",
        "{level}",
    ),
    "sound_note": (
        "{trend}",
        "{dynamics}",
        "{stereo}",
        "<length_note>",
        "{level}",
        "{colour} in tone",
        "{colour} and {level}",
        "{trend}, {stereo}",
        "{dynamics}, {trend}",
    ),
    "sound_after": (
        "it is {level}",
        "it is {colour}",
        "it is {activity} and {colour}",
        "it is <adjectives>",
        "the tone is {colour}",
        "it lasts {length}",
        "the clip is {length} long",
        "the recording is {recording}",
        "the pitch is {tonality}",
    ),
}

_MUSIC = {
    "music": (
        "<piece>[, <music_note>].[ <music_after>.]",
        "<piece> <with> {tags}[, <music_note>].",
        "music: {tags}[, {bpm}].",
        "{tags}[, {tempo}][, {colour}][, {bpm}].",
        "<piece>.[ <music_after>.][ <music_after_last>.]",
        "a(n) <adjectives> <work>[, <music_note>].[ <music_after>.]",
        "a(n) <adjectives> <work>, {bpm}[, <music_note>].",
        "<order> <piece>[, <music_note>].",
        "<order> <work_plural> <with> {tags}[, {bpm}].",
        "<order> something {tempo} and {colour}[, <music_note>].",
        "{tempo} music[, {bpm}][, {colour} in tone][, {level}].",
        "music that sounds {colour}[ and {tempo}][, <music_note>].",
        "the music is <adjectives>[, <music_note>].[ <music_after>.]",
        "the music is {tempo}[, {bpm}][ and sounds {colour}].",
        "this is <piece>[, <music_note>].[ <music_after>.]",
        "we hear <piece>[, <music_note>].",
        "in this clip, <piece> plays[, <music_note>].",
        "<piece> plays[, <music_note>].[ <music_after>.]",
        "style: {tags}.[ <music_after>.]",
        "a(n) <work> called {title}[, <music_note>].[ <music_after>.]",
        "{title}, a(n) <adjectives> <work>[, <music_note>].",
    ),
    "piece": (
        "a(n) <work>",
        "a(n) <adjectives> <work>",
        "a(n) {tempo} <work>",
        "an excerpt of <adjectives> music",
        "some <adjectives> music",
        "a(n) <adjectives> musical sound",
    ),
    "work": ("piece of music", "piece", "track", "musical excerpt", "tune", "passage of music"),
    "work_plural": ("music", "a few bars", "some music"),
    "with": ("with", "featuring", "marked by", "described as"),
    "adjectives": (
        "{colour}",
        "{tempo}",
        "{tempo}, {colour}",
        "{colour}, {tempo}",
        "{colour} and {level}",
        "{size}, {colour}",
        "{activity}, {colour}",
        "{level}, {tempo}",
        "{size}",
        "{activity}",
    ),
    "music_note": (
        "{bpm}",
        "{dynamics}",
        "{stereo}",
        "{trend}",
        "<length_note>",
        "{bpm} and {dynamics}",
        "{colour} in tone",
        "{level}",
    ),
    "music_after": (
        "the tempo is {tempo_word}",
        "the tempo is {tempo_word}, {bpm}",
        "the sound is {colour}",
        "the sound is {colour} and {level}",
        "the mix is {level}",
        "it is {activity} and {colour}",
        "it lasts {length}",
        "keywords: {tags}",
        "the recording is {recording}",
    ),
    "music_after_last": ("it lasts {length}", "the mix is {level}", "the tempo is {tempo_word}"),
}

GRAMMARS = {
    "speech": Grammar(_SHARED | _SPEECH),
    "singing": Grammar(_SHARED | _SINGING),
    "sound": Grammar(_SHARED | _SOUND),
    "music": Grammar(_SHARED | _MUSIC),
}
"""One grammar a modality; all write the same kind of text."""
_CORE = ("person", "source", "tags", "language")
"""Subjects that no text is without by chance."""
_AFTER_CAPTION = {
    "speech": "speech_after",
    "singing": "song_after",
    "sound": "sound_after",
    "music": "music_after",
}
_WANTED_SUBJECTS = (1, 2, 2, 3, 3, 4)
"""How much a text should say, drawn anew for each: most say several things."""


def describe_clip(facts: Facts, *, seed: str, count: int, max_words: int) -> tuple[list[str], str]:
    """Different texts for one clip, the first of them its first caption if it has one.

    Args:
        facts: What is known.
        seed: The same seed and facts give the same texts.
        count: Texts wanted; fewer come back where the facts allow no more.
        max_words: Longest text.

    Returns:
        The texts, and `caption` or `template`, whichever they start from.
    """
    rng = random.Random(hashlib.sha256(seed.encode()).digest())
    texts = list(facts.captions[:1])
    for _ in range(_MAX_DRAWS * count):
        if len(texts) >= count:
            break
        text = _draw(facts, rng)
        if text is not None and text not in texts and len(text.split()) <= max_words:
            texts.append(text)
    return texts, "caption" if facts.captions else "template"


def compose(facts: Facts, rng: random.Random) -> Sentence | None:
    """One text from the grammar alone, on a random share of the facts."""
    slots = {
        name: phrases
        for name, phrases in facts.slots.items()
        if rng.random() < _KEPT_SHARE or name.split("_")[0] in _CORE
    }
    # A title stands in only where nothing else says what the clip is.
    if "tags" in slots:
        slots.pop("title", None)
    is_unlabelled = facts.modality == "sound" and "source" not in slots
    start = "unlabelled" if is_unlabelled else facts.modality
    wanted = _WANTED_SUBJECTS[int(rng.random() * len(_WANTED_SUBJECTS))]
    best: Sentence | None = None
    for _ in range(_MAX_DRAWS):
        sentence = GRAMMARS[facts.modality].write(start, slots, rng)
        if sentence and (best is None or sentence.num_subjects > best.num_subjects):
            best = sentence
        if best and best.num_subjects >= wanted:
            break
    return best


def _draw(facts: Facts, rng: random.Random) -> str | None:
    kind = rng.random()
    if not facts.captions or kind < 0.4:
        sentence = compose(facts, rng)
        return sentence.text if sentence else None
    sentences = split_sentences(pick(facts.captions, rng))
    base = " ".join(sentences[: 1 + int(rng.random() * len(sentences))])
    if kind < 0.5:
        return base
    rule = _AFTER_CAPTION[facts.modality]
    after = GRAMMARS[facts.modality].write(rule, facts.slots, rng)
    return base if after is None else f"{base} {after.text}."
