"""The starter corpus: speech, sound and music made from nothing, with true labels, under CC0.

`speech` speaks sentences it composes, `sounds` synthesises everyday sounds, `music` composes and
plays short pieces; `write` puts them down in three different layouts, as corpora come.
"""
