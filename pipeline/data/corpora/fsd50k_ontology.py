"""The part of the AudioSet ontology that FSD50K uses: which of its classes lie below which."""

from __future__ import annotations

from collections.abc import Sequence

_BELOW = {
    "Aircraft": "Fixed-wing_aircraft_and_airplane",
    "Alarm": "Bicycle_bell Doorbell Siren Ringtone Telephone",
    "Animal": "Domestic_animals_and_pets Livestock_and_farm_animals_and_working_animals "
    "Wild_animals",
    "Bell": "Bicycle_bell Church_bell Cowbell Doorbell",
    "Bird": "Bird_vocalization_and_bird_call_and_bird_song Chirp_and_tweet Crow Fowl "
    "Gull_and_seagull "
    "Owl",
    "Bird_vocalization_and_bird_call_and_bird_song": "Chirp_and_tweet",
    "Bowed_string_instrument": "Cello Violin_and_fiddle",
    "Brass_instrument": "Trumpet Trombone",
    "Car": "Accelerating_and_revving_and_vroom Car_passing_by Race_car_and_auto_racing Skidding "
    "Vehicle_horn_and_car_horn_and_honking",
    "Cat": "Meow Purr",
    "Clock": "Tick Tick-tock",
    "Crowd": "Applause Cheering Chatter",
    "Cymbal": "Crash_cymbal Hi-hat",
    "Dog": "Bark Growling",
    "Domestic_animals_and_pets": "Cat Dog",
    "Domestic_sounds_and_home_sounds": "Cupboard_open_or_close Cutlery_and_silverware "
    "Dishes_and_pots_and_pans Door Drawer_open_or_close Frying_(food) Keys_jangling Microwave_oven "
    "Packing_tape_and_duct_tape Scissors Sink_(filling_or_washing) Toilet_flush Typing "
    "Water_tap_and_faucet Writing Zipper_(clothing) Bathtub_(filling_or_washing) Coin_(dropping)",
    "Door": "Doorbell Knock Slam Sliding_door Squeak Tap",
    "Drum": "Bass_drum Snare_drum Tabla",
    "Drum_kit": "Bass_drum Snare_drum Hi-hat Crash_cymbal",
    "Engine": "Accelerating_and_revving_and_vroom Engine_starting Idling",
    "Explosion": "Boom Fireworks Gunshot_and_gunfire",
    "Fire": "Crackle",
    "Fowl": "Chicken_and_rooster",
    "Glass": "Chink_and_clink Shatter",
    "Guitar": "Acoustic_guitar Bass_guitar Electric_guitar Strum",
    "Hands": "Clapping Finger_snapping",
    "Human_group_actions": "Applause Cheering Chatter Clapping Crowd",
    "Human_voice": "Chatter Conversation Crying_and_sobbing Giggle Laughter Screaming Shout "
    "Singing "
    "Speech Whispering Yell Sigh",
    "Insect": "Buzz Cricket",
    "Keyboard_(musical)": "Organ Piano",
    "Laughter": "Chuckle_and_chortle Giggle",
    "Liquid": "Boiling Drip Fill_(with_liquid) Gurgling Pour Splash_and_splatter "
    "Trickle_and_dribble",
    "Livestock_and_farm_animals_and_working_animals": "Chicken_and_rooster Fowl",
    "Mallet_percussion": "Glockenspiel Marimba_and_xylophone",
    "Mechanisms": "Camera Clock Mechanical_fan Printer Ratchet_and_pawl Sewing_machine",
    "Motor_vehicle_(road)": "Bus Car Motorcycle Truck Traffic_noise_and_roadway_noise",
    "Music": "Musical_instrument",
    "Musical_instrument": "Accordion Bell Bowed_string_instrument Brass_instrument Chime Cymbal "
    "Gong "
    "Harmonica Harp Keyboard_(musical) Percussion Plucked_string_instrument "
    "Scratching_(performance_technique) Wind_instrument_and_woodwind_instrument",
    "Ocean": "Waves_and_surf",
    "Percussion": "Cowbell Cymbal Drum Drum_kit Gong Mallet_percussion Rattle_(instrument) "
    "Tambourine",
    "Plucked_string_instrument": "Guitar Harp",
    "Power_tool": "Drill",
    "Rail_transport": "Subway_and_metro_and_underground Train",
    "Rain": "Raindrop",
    "Respiratory_sounds": "Breathing Burping_and_eructation Cough Gasp Sigh Sneeze",
    "Singing": "Female_singing Male_singing",
    "Speech": "Child_speech_and_kid_speaking Conversation Female_speech_and_woman_speaking "
    "Male_speech_and_man_speaking Speech_synthesizer Whispering",
    "Telephone": "Ringtone",
    "Thunder": "Thunderstorm",
    "Tools": "Drill Hammer Power_tool Sawing",
    "Typing": "Computer_keyboard Typewriter",
    "Vehicle": "Aircraft Bicycle Boat_and_Water_vehicle Motor_vehicle_(road) Rail_transport "
    "Skateboard",
    "Water": "Ocean Rain Stream Waves_and_surf",
    "Wild_animals": "Bird Frog Insect",
    "Wind_instrument_and_woodwind_instrument": "Bagpipes Clarinet Flute Saxophone",
    "Wood": "Chop Crack",
}  # fmt: skip
"""Classes straight below a class."""


def _all_below() -> dict[str, frozenset[str]]:
    """Every class below each class, at any depth."""
    found: dict[str, frozenset[str]] = {}
    for name in _BELOW:
        below, new = set[str](), set(_BELOW[name].split())
        while new:
            below |= new
            new = {one for parent in new for one in _BELOW.get(parent, "").split()} - below
        found[name] = frozenset(below - {name})
    return found


_ALL_BELOW = _all_below()


def leaves(labels: Sequence[str]) -> tuple[str, ...]:
    """Labels without those that another one of them lies below: the most specific ones."""
    there = frozenset(labels)
    return tuple(label for label in labels if not there & _ALL_BELOW.get(label, frozenset()))
