"""The words that a user asks for: a text file, one word or phrase per line."""

from pathlib import Path

from pipeline.errors import InputError
from pipeline.storage.file_names import said_missing

KEY = "--words"


def read_words(path: Path) -> list[str]:
    """The words of a file, each once, in its order; blank lines are skipped.

    Raises InputError for a file that is missing or not UTF-8, and for fewer than two words.
    """
    try:
        text = path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise InputError(
            f"{KEY} {path} does not exist{said_missing(path)}; put one word or phrase per line into it"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{KEY} {path} is not a readable UTF-8 text ({reason}); save it as such") from None
    words = list(dict.fromkeys(" ".join(line.split()) for line in text.split("\n") if line.strip()))
    if len(words) < 2:
        found = f"one word, {words[0]}" if words else "no word"
        raise InputError(
            f"{KEY} {path} holds {found}; chances are shared among the words of a file: put at least two into it, one "
            "per line"
        )
    return words
