"""Transcripts that could be taken for markup, for special tokens, or for the end of a line."""

from __future__ import annotations

import random

_PIECES = (
    "\"", "'", "\u201c", "\u201d", "\xab", "\xbb", "(", ")", "[", "]", "{", "}", "<", ">", "\\",
    "/", "|", "\n", "\r", "\r\n", "\t", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029", "\xa0",
    "\u200b", "\u200d", "\ufeff", " ", "  ", "Says: ", "Sings: ", "\nSays: ", "\nSings: no",
    "(language en)", "(singing, 3.0 seconds)", "<|endoftext|>", "<|im_start|>", "<|im_end|>",
    "<s>", "</s>", "[INST]", "<think>", "<unk>", "[PAD]", "%s", "{transcript}", "${x}", "&amp;",
    "`code`", "**", "# ", "- ", "\\n", "\\u0000", "\u05e9\u05dc\u05d5\u05dd",
    "\u0645\u0631\u062d\u0628\u0627", "\u202eevil\u202c", "\u2067\u062e\u0637\u2069",
    "\u4f60\u597d\uff0c\u4e16\u754c", "\u300c\u3053\u3093\u306b\u3061\u306f\u300d", "\uc548\ub155",
    "\u0928\u092e\u0938\u094d\u0924\u0947", "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35", "\xe9",
    "e\u0301", "\ufb01", "\u0130", "\xdf", "\U0001f469\u200d\U0001f680",
    "\U0001d518\U0001d52b\U0001d526", "\U0010fffd", "a", "Word", "1,234.5", "...",
)  # fmt: skip


def nasty_transcript(rng: random.Random) -> str:
    """Some pieces in a row; it may be empty or white space alone."""
    return "".join(rng.choice(_PIECES) for _ in range(rng.randrange(9)))
