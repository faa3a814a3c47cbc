"""Italian."""

from __future__ import annotations

from pipeline.data.starter.lexicon.schema import Lexicon

_SMALL = [
    "zero",
    "uno",
    "due",
    "tre",
    "quattro",
    "cinque",
    "sei",
    "sette",
    "otto",
    "nove",
    "dieci",
    "undici",
    "dodici",
    "tredici",
    "quattordici",
    "quindici",
    "sedici",
    "diciassette",
    "diciotto",
    "diciannove",
]
_TENS = ["venti", "trenta", "quaranta", "cinquanta", "sessanta", "settanta", "ottanta", "novanta"]


def _numbers() -> tuple[str, ...]:
    words = list(_SMALL)
    for ten in _TENS:
        words.append(ten)
        for unit in _SMALL[1:10]:
            stem = ten[:-1] if unit in ("uno", "otto") else ten
            words.append(stem + ("tré" if unit == "tre" else unit))
    return tuple(words)


ITALIAN = Lexicon(
    language="it",
    numbers=_numbers(),
    beings=(
        "il maestro",
        "la mia vicina",
        "il vecchio marinaio",
        "un giovane medico",
        "la fornaia",
        "suo fratello",
        "nostra figlia",
        "il gatto grigio",
        "il cane",
        "la pittrice",
    ),
    actions=(
        "canta piano",
        "aspetta il treno",
        "ride forte",
        "dorme",
        "lavora molto",
        "legge il giornale",
        "cammina piano piano",
        "beve un caffè",
        "fischia una canzone",
        "balla",
    ),
    handles=("cerca", "trova", "dipinge", "porta", "dimentica", "compra", "ripara", "nasconde"),
    objects=(
        "la bicicletta rossa",
        "una scatola di legno",
        "la sedia della cucina",
        "un'arancia",
        "l'ombrello giallo",
        "il pane fresco",
        "la piccola radio",
        "un libro pesante",
        "la chiave d'argento",
        "tre mele verdi",
    ),
    things=(
        "la porta blu",
        "il treno",
        "l'ufficio postale",
        "la lampada",
        "il mio cappotto",
        "il vecchio orologio",
        "la scala",
        "la tua lettera",
        "la stazione",
        "il cancello",
    ),
    states=(
        "si trova laggiù",
        "appartiene a mia sorella",
        "manca ancora",
        "fa molto rumore",
        "costa troppo",
        "sembra molto grande",
        "resta sempre qui",
    ),
    places=(
        "in giardino",
        "vicino al fiume",
        "dietro la casa",
        "al mercato",
        "sul ponte",
        "sotto il melo",
        "accanto alla finestra",
        "in paese",
        "all'angolo",
        "al terzo piano",
    ),
    moments=(
        "oggi",
        "ogni mattina",
        "il lunedì",
        "dopo pranzo",
        "stasera",
        "il giovedì",
        "d'inverno",
        "a mezzogiorno",
        "il sabato",
    ),
    counted=("libri", "uccelli", "bicchieri", "bambini", "alberi", "cavalli", "biglietti"),
    count_templates=(
        "Vedo {count} {counted}.",
        "Qui ci sono {count} {counted}.",
        "Abbiamo {count} {counted}.",
        "Lei conta {count} {counted}.",
    ),
    cities=("Roma", "Milano", "Torino", "Napoli", "Genova", "Firenze", "Bologna", "Palermo"),
    weather=(
        "Piove a {city}.",
        "A {city} splende il sole.",
        "Stanotte nevicherà.",
        "Un vento freddo soffia da nord.",
        "Stamattina a {city} c'è la nebbia.",
        "Le nuvole passano veloci.",
        "Domani farà caldo.",
        "A {city} c'è stato un temporale.",
        "Il cielo è chiaro e azzurro.",
    ),
    clock=(
        "Sono le {hour}.",
        "Sono le {hour} e mezza.",
        "Sono le {hour} e un quarto.",
        "L'autobus parte alle {hour}.",
        "Sono le {hour} meno dieci.",
        "Ci vediamo alle {hour}.",
    ),
    questions=(
        "Dov'è {thing}?",
        "Hai visto {thing}?",
        "Quanti anni hai?",
        "Che ore sono?",
        "Quanto costa {thing}?",
        "Vuoi un caffè?",
        "Senti la musica?",
        "Sai come mi chiamo?",
    ),
    greetings=(
        "Buongiorno!",
        "Ciao, come stai?",
        "Molto piacere.",
        "Buonanotte!",
        "Grazie mille.",
        "A domani.",
        "Benvenuti a casa!",
        "Mi scusi, per favore.",
        "Buon viaggio!",
        "Sì, certo.",
        "No, grazie.",
        "Mi dispiace.",
    ),
    rich=(
        "Il giovane gnomo sceglie aglio, zucca e formaggio.",
        "Quattro vecchie zie giocano a carte sotto la quercia.",
        "Chi beve acqua fresca e mangia uva non sbaglia.",
        "La foglia gialla scivola lenta nell'acqua del ruscello.",
        "Ogni pioggia porta fango, ghiaccio e qualche fungo.",
    ),
).grammar()
