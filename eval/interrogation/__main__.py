"""From images to prompts: the tags that each image shows, with their chances, and captions of them.

Tags are those of the captions of the study's reference set, or words of a file. `guidedrift interrogate` calls it.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from eval.interrogation.asked_images import AskedImage, asked_images, check_caption_files
from eval.interrogation.captions import Chances, Written, caption_of, likeliest, write_captions
from pipeline.errors import InputError, printable, run_stage
from pipeline.storage.file_names import printable_name
from pipeline.study.study import load_study

# Tags that are shown of a single image.
_MOST = 20


def shown(found: Sequence[tuple[AskedImage, Chances]], least: float) -> str:
    """The likeliest tags of a single image, one per line; of several images those of at least a chance, one image per
    line."""
    if len(found) == 1:
        return "\n".join(f"{chance:5.2f}  {printable(tag)}" for tag, chance in likeliest(found[0][1])[:_MOST])
    return "\n".join(f"{printable_name(image.name)}: {_in_line(chances, least)}" for image, chances in found)


def _in_line(chances: Chances, least: float) -> str:
    parts = [f"{printable(tag)} {chance:.2f}" for tag, chance in likeliest(chances) if chance >= least]
    return ", ".join(parts) or f"no tag of chance {least:g}"


def said_of(written: Written, least: float) -> str:
    """What was done with captions, in one line."""
    parts = [f"{written.written} written" + (f" ({written.replaced} replaced)" if written.replaced else "")]
    if written.kept:
        parts.append(f"{written.kept} kept, as there was a caption or a prompt in the metadata (see --overwrite)")
    if written.empty:
        parts.append(f"{written.empty} empty, as no tag has a chance of {least:g}")
    return f"captions: {'; '.join(parts)}"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m eval.interrogation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", help="an image, a folder of images, an arm of the study, or `reference`")
    parser.add_argument("--words", type=Path, action="append", default=[], help="a text file, one word per line")
    parser.add_argument("--features", help="an extractor of conf/features (default: the study's CLIP)")
    parser.add_argument(
        "--chance", type=float, default=0.5, help="the least chance of a tag in a caption (default: 0.5)"
    )
    parser.add_argument("--captions", action="store_true", help="write captions beside the images, as .txt")
    parser.add_argument("--overwrite", action="store_true", help="write them where captions are already, too")
    arguments = parser.parse_args()
    if not 0 < arguments.chance < 1:
        raise InputError(f"--chance is {arguments.chance:g}; a chance is between 0 and 1")
    study = load_study()
    asked = asked_images(arguments.images, study)
    if arguments.captions:
        check_caption_files(asked)
    # Torch and scikit-learn take seconds, for which no refusal of the above has to wait.
    from eval.interrogation.interrogate import interrogator
    from pipeline.execution.executor import local_devices

    reads = interrogator(study, local_devices()[0], arguments.words, arguments.features)
    for said in reads.said:
        print(said, file=sys.stderr)
    found = reads(asked)
    print(shown(found, arguments.chance))
    if arguments.captions:
        captions = [(image, caption_of(chances, arguments.chance)) for image, chances in found]
        print(said_of(write_captions(captions, arguments.overwrite), arguments.chance), file=sys.stderr)


if __name__ == "__main__":
    run_stage(main)
