"""French."""

from __future__ import annotations

from pipeline.data.starter.lexicon.schema import Lexicon

_SMALL = [
    "zéro",
    "un",
    "deux",
    "trois",
    "quatre",
    "cinq",
    "six",
    "sept",
    "huit",
    "neuf",
    "dix",
    "onze",
    "douze",
    "treize",
    "quatorze",
    "quinze",
    "seize",
    "dix-sept",
    "dix-huit",
    "dix-neuf",
]
_TENS = {20: "vingt", 30: "trente", 40: "quarante", 50: "cinquante", 60: "soixante"}


def _number(value: int) -> str:
    if value < 20:
        return _SMALL[value]
    if value >= 80:
        rest = value - 80
        return "quatre-vingts" if rest == 0 else f"quatre-vingt-{_SMALL[rest]}"
    base = min(value // 10 * 10, 60)
    rest = value - base
    if rest == 0:
        return _TENS[base]
    return f"{_TENS[base]}{' et ' if rest in (1, 11) else '-'}{_SMALL[rest]}"


FRENCH = Lexicon(
    language="fr",
    numbers=tuple(_number(value) for value in range(100)),
    beings=(
        "le professeur",
        "ma voisine",
        "le vieux marin",
        "un jeune médecin",
        "la boulangère",
        "son frère",
        "leur fille",
        "le chat gris",
        "notre chien",
        "le fermier",
        "la musicienne",
    ),
    actions=(
        "chante doucement",
        "attend le bus",
        "rit très fort",
        "dort",
        "travaille beaucoup",
        "lit le journal",
        "marche lentement",
        "boit du thé",
        "siffle un air",
        "danse",
    ),
    handles=(
        "cherche",
        "trouve",
        "dessine",
        "porte",
        "oublie",
        "achète",
        "répare",
        "cache",
        "apporte",
    ),
    objects=(
        "le vélo rouge",
        "une boîte en bois",
        "la chaise de la cuisine",
        "une orange",
        "le parapluie jaune",
        "un pain frais",
        "la petite radio",
        "un livre lourd",
        "la clé du jardin",
        "trois pommes vertes",
    ),
    things=(
        "la porte bleue",
        "le train",
        "la poste",
        "la lampe",
        "mon manteau",
        "la vieille horloge",
        "le grand tableau",
        "ta lettre",
        "la gare",
        "le portail",
    ),
    states=(
        "se trouve là-bas",
        "appartient à ma sœur",
        "manque encore",
        "fait du bruit",
        "coûte trop cher",
        "reste dans la maison",
    ),
    places=(
        "dans le jardin",
        "près de la rivière",
        "derrière la maison",
        "au marché",
        "sur le pont",
        "sous le pommier",
        "près de la fenêtre",
        "au village",
        "au coin de la rue",
        "au troisième étage",
    ),
    moments=(
        "aujourd'hui",
        "chaque matin",
        "le lundi",
        "après le repas",
        "ce soir",
        "le jeudi",
        "en hiver",
        "à midi",
        "le samedi",
    ),
    counted=("bateaux", "livres", "oiseaux", "verres", "enfants", "arbres", "chevaux", "billets"),
    count_templates=(
        "Je vois {count} {counted}.",
        "Il y a {count} {counted} ici.",
        "Nous avons {count} {counted}.",
        "Elle compte {count} {counted}.",
    ),
    cities=("Paris", "Lyon", "Lille", "Nantes", "Genève", "Toulouse", "Bruxelles", "Nice"),
    weather=(
        "Il pleut à {city}.",
        "Le soleil brille à {city}.",
        "Il va neiger cette nuit.",
        "Un vent froid souffle du nord.",
        "Il y a du brouillard à {city} ce matin.",
        "Les nuages passent vite.",
        "Demain, il fera chaud et sec.",
        "La nuit a été orageuse à {city}.",
        "Le ciel est clair et bleu.",
    ),
    clock=(
        "Il est {hour} heures.",
        "Il est {hour} heures et demie.",
        "Il est {hour} heures et quart.",
        "Le bus part à {hour} heures.",
        "Il est {hour} heures moins dix.",
        "Rendez-vous à {hour} heures.",
    ),
    questions=(
        "Où est {thing}?",
        "Avez-vous vu {thing}?",
        "Quel âge as-tu?",
        "Quelle heure est-il?",
        "Qui a pris {thing}?",
        "Voulez-vous du thé?",
        "Entends-tu la musique?",
        "Combien coûte {thing}?",
        "Connais-tu mon nom?",
    ),
    greetings=(
        "Bonjour!",
        "Bonsoir, comment allez-vous?",
        "Enchanté de vous connaître.",
        "Bonne nuit!",
        "Merci beaucoup.",
        "À demain.",
        "Soyez les bienvenus!",
        "Excusez-moi, s'il vous plaît.",
        "Bon voyage!",
        "Oui, bien sûr.",
        "Non, merci.",
        "Je suis désolé.",
    ),
    rich=(
        "Un jeune homme brun mange vingt huîtres près du feu.",
        "La reine choisit un joli châle gris pour son voyage à la campagne.",
        "Cet agneau suit le chemin où fleurit le muguet.",
        "Hier soir, un bon vent a poussé chaque bateau loin du quai.",
        "Le chirurgien joue du violon pendant que sa fille cueille des framboises.",
        "L'œuf est cuit, le beurre fond, et le pain grille doucement.",
    ),
).grammar()
