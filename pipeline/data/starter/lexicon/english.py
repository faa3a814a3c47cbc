"""English: a few hundred words, many thousands of sentences."""

from __future__ import annotations

from pipeline.data.starter.lexicon.schema import Grammar


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_SMALL = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
)
_TENS = _words("twenty thirty forty fifty sixty seventy eighty ninety")


def _numbers() -> tuple[str, ...]:
    words = list(_SMALL)
    for ten in _TENS:
        words.append(ten)
        words += [f"{ten}-{unit}" for unit in _SMALL[1:10]]
    return tuple(words)


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.strip().splitlines())


_SENTENCES = _lines(
    """
    {np} {vi}.
    {np} {vi} {where}.
    {np} {vi} {when_past}.
    {np} {did} {np}.
    {np} {did} {np} {where}.
    {np} {did} {indefinite} {when_past}.
    {who} {did} {indefinite}.
    {who} {did} {np} and {did} {indefinite}.
    {who} {vi} {where}.
    {who} {vi} {how}.
    {np} is {quality}.
    {np} is {quality} and {quality}.
    {np} was very {adjective} {when_past}.
    The {noun} {where} is {quality}.
    {np} looks {quality}, but {np} is {quality}.
    {where_first}, {who} {did} {indefinite}.
    Is {np} {quality}?
    Was {np} {where}?
    Where is {np}?
    Where did {who} {do} {np}?
    Who {did} {np}?
    Why is {np} so {adjective}?
    Why did {who} {do} {indefinite}?
    When will {who} {do} {np}?
    Can you {do} {np}?
    Could you {do} {np} {when_future}, please?
    Have you seen {np}?
    Please {do} {np}.
    Please do not {do} {np}.
    Never {do} {indefinite} {where}.
    I want to {do} {np}.
    We have to {do} {np} {when_future}.
    They will {do} {indefinite}.
    {who} will {do} {np} {when_future}.
    Let us {do} {np} {where}.
    There is {indefinite} {where}.
    There was {indefinite} {where}.
    There are {count} {plural} {where}.
    {who} counted {count} {plural}.
    I can see {count} {adjective} {plural}.
    We need {count} {plural} and {count} {plural}.
    The {noun} costs {count} pounds.
    {np} and {np} {pair} {where}.
    If {weather_if}, {who} will {do} {np}.
    I think that {np} is {quality}.
    {who} said that {np} was {quality}.
    {name} lives in {city}.
    {name} and {name} are from {city}.
    {name} will travel to {city} {when_future}.
    {name} knows the way to {city}.
    The train to {city} leaves at {clock}.
    The bus from {city} is {count} minutes late.
    We will meet {where} at {clock}.
    It is {weather} in {city}.
    It was {weather} {when_past}.
    The {sky} is {sky_quality} in {city}.
    Tomorrow will be {weather_day} and {weather_day}.
    {rich}
    My favourite colour is {colour}.
    The {noun} is {colour}, not {colour}.
    """
)

_PHRASES = _lines(
    """
    {np}
    {np}
    {indefinite}
    {where}
    {when_past}
    {when_future}
    {count} {plural}
    {count} {adjective} {plural}
    {quality} and {quality}
    {do} {np}
    {np} {where}
    {name} and {name}
    {name} from {city}
    very {adjective}
    not {quality}
    {colour} and {colour}
    {greeting}
    {greeting}
    """
)

_TIMES = _lines(
    """
    {clock}
    {hour} o'clock {day_part}
    It is {clock}.
    The time is {clock}.
    {weekday}, {clock}
    {weekday} {part}
    {date}
    {date}
    {weekday}, {date}
    {date}, {year}
    {month}, {year}
    It happened in {year}.
    Today is {weekday}, {date}.
    """
)


_NUMBERS = _numbers()
_RULES = {
    "number": ("{below_hundred}", "{below_hundred}", "{hundreds}", "{thousands}"),
    "below_hundred": _NUMBERS,
    "above_nine": _NUMBERS[10:],
    "count": _NUMBERS[2:21],
    "digit_one": _NUMBERS[1:10],
    "hundreds": ("{digit_one} hundred", "{digit_one} hundred and {above_zero}"),
    "above_zero": _NUMBERS[1:],
    "thousands": ("{digit_one} thousand", "{digit_one} thousand {hundreds}"),
    "hour": _NUMBERS[1:13],
    "minute": (*_NUMBERS[10:60], *(f"oh {word}" for word in _NUMBERS[1:10])),
    "year": ("nineteen {above_nine}", "twenty {above_nine}", "eighteen {above_nine}"),
    "sentence": _SENTENCES,
    "phrase": _PHRASES,
    "time": _TIMES,
    "rich": (
        "A joyful boy chews thick yellow cheese by the fire.",
        "She vowed to measure the bath water with her thumb.",
        "Five huge jugs of quince jam were shaken over the wet zebra.",
        "The vision of a good feast drew us through the thorny woods.",
        "Pack my yacht with nice foxgloves, then join the dizzy queue.",
        "Their usual choice is a thin slice of warm ginger cake.",
        "Judge Hugh should not look away while the young thief sings.",
        "The azure bird poured out a pure, joyous, thoughtful song.",
    ),
    "np": ("the {noun}", "the {adjective} {noun}", "the {adjective} {noun}", "{owner} {noun}"),
    "indefinite": (
        "a {noun_a}",
        "an {noun_an}",
        "a {adjective_a} {noun}",
        "an {adjective_an} {noun}",
    ),
    "noun": ("{noun_a}", "{noun_a}", "{noun_a}", "{noun_an}"),
    "adjective": ("{adjective_a}", "{adjective_a}", "{adjective_a}", "{adjective_an}"),
    "quality": ("{adjective}", "{state}"),
    "who": ("{name}", "{name}", "{person}", "{pronoun}"),
    "owner": _words("my your his her our their"),
    "pronoun": _words("he she we they I you"),
    "person": _lines(
        """
        my brother
        your sister
        her mother
        his father
        our teacher
        the doctor
        the baker
        the farmer
        the captain
        the children
        """
    ),
    "name": _words(
        "Adam Alice Anna Ben Clara Daniel Emily Frank George Hannah Jack Julia Kate Laura "
        "Martin Nora Oliver Paul Rose Sam Susan Thomas"
    ),
    "city": _words(
        "Boston Chicago Dallas Denver Dublin Glasgow London Madrid Moscow Oxford Paris Rome "
        "Sydney Toronto Vienna Berlin"
    ),
    "noun_a": _words(
        "bag ball basket bed bell bicycle bird boat book bottle bowl box bridge brush bucket "
        "button cake camera candle car carpet castle cat chair cheese church clock cloud coat "
        "coin cup dog door dress drum farm feather fence field fire fish flag flower forest "
        "garden gate glass glove guitar hammer hat hill horse house jacket kettle key kitchen "
        "knife ladder lake lamp leaf letter lion map market mirror moon mountain mouse needle "
        "paper pen piano picture pillow plate pocket potato radio ring river road roof room "
        "rope sheep ship shirt shoe shop snake soup spoon star stone storm story street table "
        "tiger towel tower toy train tree valley village violin wall watch wheel window yard"
    ),
    "noun_an": _words(
        "animal apple arrow egg elephant engine envelope island onion orange oven owl umbrella"
    ),
    "plural": _words(
        "apples birds boats books bottles boxes chairs children coins days dogs eggs fingers "
        "flowers horses houses keys leaves letters men miles minutes onions pages people "
        "plates shoes stars stones trees weeks windows women years"
    ),
    "adjective_a": _words(
        "big black blue bright broken brown cheap clean cold dark deep dirty dry fresh funny "
        "good green grey happy heavy high hot huge large light little long lovely narrow new "
        "nice pink plain purple quiet red rich round sharp short silver simple small smooth "
        "soft strange strong sweet tall thick thin tiny warm wet white wide wild wonderful "
        "wooden yellow young"
    ),
    "adjective_an": _words("old empty easy ugly ancient open orange enormous"),
    "state": _words("ready gone lost busy late early free safe near far asleep missing here there"),
    "did": _words(
        "found lost bought sold carried opened closed painted cleaned wanted liked loved "
        "forgot remembered brought took saw heard watched followed moved pulled pushed broke "
        "fixed washed hid kept dropped needed"
    ),
    "do": _words(
        "find lose buy sell carry open close paint clean like love forget remember bring take "
        "see hear watch follow move pull push break fix wash hide keep drop need"
    ),
    "vi": _lines(
        """
        waited
        laughed
        slept
        fell
        came back
        went away
        stopped
        turned around
        stayed
        disappeared
        arrived
        moved slowly
        made a noise
        """
    ),
    "pair": _lines("waited\nstayed\nmet\nfell\nare\nwere"),
    "how": _words("slowly quickly quietly loudly softly again together alone"),
    "where": _lines(
        """
        in the {place}
        near the {place}
        behind the {place}
        by the {place}
        on the {surface}
        under the {surface}
        next to the {noun_a}
        between the {noun_a} and the {noun_a}
        at home
        outside
        """
    ),
    "place": _words(
        "garden house kitchen forest market village city school church station park field "
        "river street castle office hall"
    ),
    "surface": _words("table bridge roof floor wall chair shelf bed hill train boat road"),
    "when": _lines(
        """
        this {part}
        on {weekday}
        on {weekday} {part}
        in {month}
        in {season}
        before {meal}
        after {meal}
        at {clock}
        """
    ),
    "when_past": ("{when}", "{when}", "{when}", "yesterday", "last {weekday}", "every {part}"),
    "when_future": ("{when}", "{when}", "{when}", "today", "tomorrow", "tonight", "next {weekday}"),
    "where_first": _lines(
        "In the {place}\nNear the {place}\nOn {weekday}\nIn {month}\nAfter {meal}"
    ),
    "part": _words("morning afternoon evening"),
    "day_part": _lines("in the morning\nin the afternoon\nin the evening\nat night"),
    "meal": _words("breakfast lunch dinner"),
    "season": _words("spring summer autumn winter"),
    "weekday": _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday"),
    "month": _words(
        "January February March April May June July August September October November December"
    ),
    "date": ("the {ordinal} of {month}", "{month} the {ordinal}"),
    "ordinal": _words(
        "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth "
        "thirteenth fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth twentieth "
        "twenty-first twenty-second twenty-third twenty-fourth twenty-fifth twenty-sixth "
        "twenty-seventh twenty-eighth"
    ),
    "clock": _lines(
        """
        {hour} o'clock
        half past {hour}
        a quarter past {hour}
        a quarter to {hour}
        ten past {hour}
        twenty to {hour}
        {hour} {minute}
        {hour} {minute}
        noon
        midnight
        """
    ),
    "colour": _words("red blue green yellow black white brown grey orange pink purple silver"),
    "weather": _words("raining snowing cold warm hot windy cloudy sunny foggy wet dry"),
    "weather_day": _words("cold warm hot windy cloudy sunny foggy wet dry mild"),
    "weather_if": _lines(
        "it rains\nit snows\nthe sun shines\nthe wind blows\nit gets dark\nit is cold"
    ),
    "sky": _words("sky air wind sea water"),
    "sky_quality": _words("clear calm cold warm blue grey dark wild"),
    "greeting": _lines(
        """
        Good morning!
        Good evening!
        Good night!
        Hello!
        Hello, how are you?
        How are you today?
        Nice to meet you.
        Thank you.
        Thank you very much.
        You are welcome.
        See you tomorrow.
        See you on {weekday}.
        Welcome home!
        Excuse me, please.
        I am sorry.
        Yes.
        No.
        Yes, please.
        No, thank you.
        Of course.
        Goodbye!
        Well done!
        Come in.
        Sit down, please.
        Wait a moment.
        I do not know.
        My name is {name}.
        What is your name?
        What time is it?
        """
    ),
}

ENGLISH = Grammar(language="en", numbers=_NUMBERS, rules=_RULES)
