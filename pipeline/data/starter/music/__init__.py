"""Short pieces: `styles` says how a style goes, `composer` writes a score, `piece` plays it."""
