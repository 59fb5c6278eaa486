"""JSON that someone else's program has left in an image."""

import json
from typing import Any

from pipeline.external.metadata.record import Unreadable


def json_object(content: str, what: str) -> dict[str, Any]:
    """The object that a text holds; `what` names it. Raises Unreadable, with the reason."""
    try:
        found = json.loads(content)
    except RecursionError:
        raise Unreadable(f"{what} is nested too deeply") from None
    # Also of an integer with more digits than Python converts.
    except ValueError as error:
        raise Unreadable(f"{what} is not whole JSON ({error})") from None
    if not isinstance(found, dict):
        raise Unreadable(f"{what} is not a JSON object")
    return found
