"""What a prompt says to a network that knows no emphasis."""

from pipeline.prompting.emphasis import parse
from pipeline.prompting.text_settings import TextSettings
from pipeline.prompting.underscores import spaced


def plain_text(prompt: str, settings: TextSettings) -> str:
    """A prompt without its weights and breaks, its underscores read as the settings say.

    Scorers and T5 take brackets and numbers for words.
    """
    text = " ".join("".join(span.text for span in section) for section in parse(prompt, settings.syntax))
    return spaced(text) if settings.underscores == "spaces" else text
