"""Underscores of booru tags: `blue_hair` is two words, `^_^` is an emoticon."""

import re

# Danbooru's emoticon tags that hold an underscore.
_EMOTICONS = (
    *("0_0", "3_3", "6_9", "(o)_(o)", "<o>_<o>", "<|>_<|>", "|_|", "||_||", "+_+", "+_-", "-_-", "._.", ";_;", "=_="),
    *(">_<", ">_>", "<_<", ">_@", ">_o", "@_@", "^_^", "n_n", "o_o", "q_q", "t_t", "u_u", "v_v", "w_w", "x_x"),
)
# An emoticon is a whole word: tags are separated by commas and spaces.
_UNDERSCORES = re.compile(
    rf"(?<![^\s,])(?P<emoticon>{'|'.join(map(re.escape, _EMOTICONS))})(?![^\s,])|_", re.IGNORECASE
)


def spaced(text: str) -> str:
    """The text with spaces for underscores, emoticons kept."""
    return _UNDERSCORES.sub(lambda match: match["emoticon"] or " ", text)
