"""`make fuzz`: the properties of test_hostile_inputs.py and test_hostile_files.py on many inputs.

`make fuzz FUZZ="[inputs] [property ...]"`. Inputs are numbered: the same number is the same input. Prints the first
inputs that break a property, and ends with 1.
"""

import argparse
import faulthandler
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import test_hostile_files as files
import test_hostile_inputs as properties
from mutations import random_mutation, random_swap

_SHOWN = 5
_LONGEST_SECONDS = 10
_MEMORY = 8 * 2**30


def _too_long(*_: object) -> None:
    raise TimeoutError(f"an input took {_LONGEST_SECONDS} s of processor time")


def _body(test: Any) -> Callable[..., None]:
    # What hypothesis calls with each example.
    return test.hypothesis.inner_test  # type: ignore[no-any-return]


def configuration_file(chance: random.Random, folder: Path) -> None:
    content = random_mutation(chance, properties.FILES, properties.YAML_TOKENS)
    _body(properties.test_a_configuration_file_of_any_bytes_is_a_study_or_an_input_error)(folder, content)


def configuration(chance: random.Random, _: Path) -> None:
    content = random_swap(chance, chance.choice((properties.CONTENT, properties.RICH)))
    _body(properties.test_a_configuration_of_any_values_is_a_study_or_an_input_error)(content)


def emphasis(chance: random.Random, _: Path) -> None:
    content = random_mutation(chance, properties.PROMPTS, properties.EMPHASIS_TOKENS)
    syntax = chance.choice(("plain", "a1111", "novelai"))
    _body(properties.test_a_prompt_of_any_text_has_a_reading_with_bounded_weights)(content, syntax)


def labels(chance: random.Random, folder: Path) -> None:
    content = random_mutation(chance, properties.LABEL_FILES, properties.LABEL_TOKENS)
    _body(properties.test_a_label_file_of_any_bytes_is_labels_or_an_input_error)(folder, content)


def shards(chance: random.Random, folder: Path) -> None:
    content = random_mutation(chance, properties.SHARDS, properties.SHARD_TOKENS)
    # Without its right checksum a shard is refused before it is parsed.
    with_checksum = chance.random() < 0.9
    _body(properties.test_a_shard_of_any_bytes_is_a_table_of_images_or_an_error)(folder, content, with_checksum)


def loras(chance: random.Random, folder: Path) -> None:
    header = random_mutation(chance, files.HEADERS, files.HEADER_TOKENS)
    _body(files.test_a_lora_of_any_header_is_read_or_an_input_error)(folder, header)


def headers(chance: random.Random, folder: Path) -> None:
    header = random_mutation(chance, files.HEADERS, files.HEADER_TOKENS)
    _body(files.test_a_checkpoint_of_any_header_declares_something_or_is_an_input_error)(folder, header)


def images(chance: random.Random, _: Path) -> None:
    content = random_mutation(chance, files.IMAGES, files.IMAGE_TOKENS)
    _body(files.test_an_image_of_any_bytes_is_rgb_or_an_os_error)(content, chance.random() < 0.5)


def answers(chance: random.Random, _: Path) -> None:
    content = random_mutation(chance, files.ANSWERS, files.ANSWER_TOKENS)
    _body(files.test_answers_of_any_bytes_are_annotations_or_an_input_error)(content)


PROPERTIES = {
    property.__name__: property
    for property in (emphasis, labels, shards, configuration, configuration_file, loras, headers, images, answers)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", type=int, nargs="?", default=100_000)
    parser.add_argument("properties", nargs="*", choices=[[], *PROPERTIES])
    chosen = parser.parse_args()
    # What blows up ends here and not with the machine; what crashes shows where, and what hangs is stopped.
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    faulthandler.enable()
    signal.signal(signal.SIGPROF, _too_long)
    broken = 0
    for name in chosen.properties or PROPERTIES:
        broken += _run(name, chosen.inputs)
    sys.exit(1 if broken else 0)


def _run(name: str, inputs: int) -> int:
    broken = 0
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(inputs):
            signal.setitimer(signal.ITIMER_PROF, _LONGEST_SECONDS)
            try:
                PROPERTIES[name](random.Random(f"{name} {number}"), Path(folder))
            except Exception:
                broken += 1
                if broken <= _SHOWN:
                    print(f"{name} {number}:\n{traceback.format_exc(limit=-4)}", flush=True)
    signal.setitimer(signal.ITIMER_PROF, 0)
    seconds = time.process_time() - start
    print(f"{name}: {inputs} inputs, {broken} of them broke the property, {seconds:.0f} s", flush=True)
    return broken


if __name__ == "__main__":
    main()
