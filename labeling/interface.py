"""The labelling interface: one picture, one verdict, and what follows from it."""

from pathlib import Path

from label_studio_sdk.label_interface.interface import LabelInterface

INTERFACE = Path(__file__).parent / "interface.xml"


def load_interface() -> LabelInterface:
    """The Label Studio interface of this project, validated by Label Studio's own SDK.

    Raises ValueError (of the SDK) where interface.xml is no valid interface.
    """
    interface = LabelInterface(INTERFACE.read_text("utf-8"))
    interface.validate()  # type: ignore[no-untyped-call]
    return interface


def choices() -> dict[str, tuple[str, ...]]:
    """The allowed choices of every question, by its name. Label Studio itself checks none of them."""
    interface = load_interface()
    return {control.name: tuple(control.labels) for control in interface.controls if control.tag == "Choices"}
