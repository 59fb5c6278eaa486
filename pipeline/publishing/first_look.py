"""What the card of a dataset begins with: the same seeds under every arm, and two sentences of what was found."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from pipeline.publishing.digits import in_two_digits
from pipeline.publishing.pairs import images_of
from pipeline.results.comparison import ComparedArm, Comparison, Verdict
from pipeline.results.metrics import metric
from pipeline.storage.contact_sheet import same_seed_grid
from pipeline.storage.images import decode_image
from pipeline.storage.shards import read_table, shard_paths

GRID = "grid.png"
# The first seeds of the study: nobody chose them.
SEEDS = 4
# Longest side of an image in the grid, in pixels.
SIDE = 160


def seed_grid(sets: Path, arms: Sequence[str], baseline: str) -> Image.Image:
    """The baseline's first `SEEDS` pairs under every arm: one column per arm, one row per pair. Raises InputError."""
    pairs = read_table(shard_paths(sets / baseline)[0], ["pair_id"]).column("pair_id").to_pylist()[:SEEDS]
    found = [images_of(sets / arm, pairs) for arm in arms]
    rows = [[_shown(own[pair]) for own in found] for pair in pairs if all(pair in own for own in found)]
    return same_seed_grid(rows, arms)


def _shown(content: bytes) -> Image.Image:
    image = decode_image(content)
    longest = max(image.size)
    # Whole multiples of small images, so that their pixels stay squares.
    factor = SIDE // longest if longest <= SIDE else SIDE / longest
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.NEAREST if longest <= SIDE else Image.Resampling.LANCZOS)


def finding(comparison: Comparison) -> str:
    """Two sentences: which arms change the distribution, and which come closer to real images.

    They follow from the verdicts of metrics/compare.json, and are about the arms that got the baseline's prompts: an
    arm that nobody told the prompt generates something else. Controls are left out. Empty where nothing was compared.
    """
    verdicts = {found.arm: {one.topic: one for one in found.verdicts} for found in comparison.verdicts}
    prompt = comparison.by_name(comparison.baseline).prompt
    guided = [arm for arm, _ in comparison.guided if arm.prompt == prompt and arm.control_of is None]
    topics = (metric("shift_fd").asked.topic, metric("fd").asked.topic)
    if not guided or any(topic not in verdicts.get(arm.arm, {}) for arm in guided for topic in topics):
        return ""
    shift, distance = ({arm.arm: verdicts[arm.arm][topic] for arm in guided} for topic in topics)
    return f"{_shift_sentence(comparison, guided, shift)} {_distance_sentence(comparison, distance)}"


def _shift_sentence(comparison: Comparison, guided: Sequence[ComparedArm], verdicts: dict[str, Verdict]) -> str:
    base = f"`{comparison.baseline}`"
    shifting = {arm.arm: arm for arm in guided if verdicts[arm.arm].decided}
    others = [arm.arm for arm in guided if arm.arm not in shifting]
    if not shifting:
        return f"No arm can be told apart from {base} by the distribution of its images."
    shifts = {name: arm.against_baseline.fd for name, arm in shifting.items() if arm.against_baseline}
    ordered = sorted(shifts, key=lambda name: -shifts[name].value)
    said = f"`{ordered[0]}` shifts the distribution of images {'most ' if len(ordered) > 1 else ''}from {base}"
    said += f" (Fréchet distance {in_two_digits(shifts[ordered[0]])}"
    if len(ordered) > 1:
        said += f"), `{ordered[-1]}` least ({in_two_digits(shifts[ordered[-1]])}"
    return f"{said})" + (f"; {_names(others)} cannot be told apart from it." if others else ".")


def _distance_sentence(comparison: Comparison, verdicts: dict[str, Verdict]) -> str:
    # Where the feature spaces differ, a verdict says so in other words than these.
    asked = metric("fd").asked
    closer, farther = (
        [name for name, one in verdicts.items() if one.verdict == word] for word in (asked.below, asked.above)
    )
    others = [name for name in verdicts if name not in (*closer, *farther)]
    base = f"`{comparison.baseline}`"
    if not closer and not farther:
        return f"No arm is clearly closer to real images than {base}, or farther from them, in every feature space."
    parts = [
        f"{_names(names)} {'are' if len(names) > 1 else 'is'} {word} {than} {base}"
        for names, word, than in (
            (closer, "closer to real images", "than"),
            (farther, "farther from real images", "than"),
        )
        if names
    ]
    said = " and ".join(parts) + " in every feature space"
    return said + (f"; for {_names(others)} the spaces differ or the numbers leave it open." if others else ".")


def _names(arms: Sequence[str]) -> str:
    shown = [f"`{arm}`" for arm in arms]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
