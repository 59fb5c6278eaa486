"""An embedding made of words: its vectors are those that the text encoders have for the words.

`python -m pipeline.embeddings.from_words bad "worst quality, lowres"` writes embeddings/bad.safetensors for the
networks of params.yaml. A text that calls it reads as the words do. Training starts from such a file, and it shows
that embeddings are read as they should be (study=embedding).
"""

import argparse
from pathlib import Path

import torch

from pipeline.embeddings.new_embedding import new_path, reading_checkpoint
from pipeline.errors import InputError, run_stage
from pipeline.generation.shard_plan import replaced_parts
from pipeline.networks.checkpoints import locate
from pipeline.networks.text.clip_tower import ClipTower
from pipeline.networks.text.text_encoder import TextEncoder
from pipeline.networks.weights.embedding_file import tensor_names
from pipeline.prompting.text_settings import TextSettings
from pipeline.storage.files import write_atomically
from pipeline.storage.tensor_file import encode_tensors
from pipeline.study.study import Study, load_study


def embedding_of(words: str, encoder: TextEncoder) -> dict[str, torch.Tensor]:
    """The vectors [N, W] of the N tokens of some words for each CLIP of an encoder, by their names in a file.

    Brackets are text. Raises InputError where there are no words, or more than a chunk holds.
    """
    towers = [tower for tower in encoder.towers if isinstance(tower, ClipTower)]
    settings = TextSettings(underscores=encoder.settings.underscores)
    found = {}
    for name, tower in zip(tensor_names(len(towers)), towers, strict=True):
        first, *others = tower.chunks(words, settings)
        if not first or others:
            count = len(first) + sum(map(len, others))
            raise InputError(f"'{words[:60]}' has {count} tokens; an embedding has 1 to {tower.context - 2}")
        tokens = torch.tensor([item.token for item in first])
        found[name] = tower.model.get_input_embeddings().weight[tokens].detach().float().contiguous()
    return found


def write_embedding(study: Study, name: str, words: str) -> Path:
    """Write the embedding of some words for a study's text encoders; returns the file.

    Raises InputError where texts could not call it by its name, where there is a file of that name already, and for a
    family that takes no embeddings.
    """
    path, main = new_path(name), reading_checkpoint(study)
    swapped = replaced_parts(study.model).get("text_encoder")
    source = None if swapped is None else locate(swapped, study.model.config)
    encoder = main.family.load_texts(main, torch.device("cpu"), study.text, swapped=source)
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, encode_tensors(embedding_of(words, encoder), {}))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.embeddings.from_words",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", help="what texts call it by")
    parser.add_argument("words")
    given = parser.parse_args()
    print(f"{write_embedding(load_study(), given.name, given.words)}: a text calls it as {given.name}")


if __name__ == "__main__":
    run_stage(main)
