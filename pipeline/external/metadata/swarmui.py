"""What SwarmUI writes: a JSON object with the settings under `sui_image_params`."""

from typing import Any

from pipeline.external.metadata.record import Metadata, Unreadable, number, text, whole_number

KEY = "sui_image_params"


def read_swarmui(content: dict[str, Any]) -> Metadata:
    """The settings in SwarmUI's object. Raises Unreadable where they are not an object."""
    settings = content.get(KEY)
    if not isinstance(settings, dict):
        raise Unreadable(f"SwarmUI's {KEY} is not a JSON object")
    sampler, scheduler = text(settings.get("sampler")), text(settings.get("scheduler"))
    return Metadata(
        tool="SwarmUI",
        prompt=text(settings.get("prompt")),
        negative=text(settings.get("negativeprompt")),
        seed=whole_number(settings.get("seed")),
        sampler=" ".join(part for part in (sampler, scheduler) if part),
        steps=whole_number(settings.get("steps"), 100_000),
        scale=number(settings.get("cfgscale")),
        model=text(settings.get("model")),
    )
