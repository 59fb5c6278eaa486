"""Texts of families along rectified flow: encoded once, kept, and read as each family reads them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from checked_networks import edit
from flow_studies import CANVAS, CPU, FLOWS, LENGTH, SEEDS, WITH_FLUX2, Flows, far
from safetensors.torch import load_file, save_file

from pipeline.generation.arm_generator import ArmGenerator, GeneratedBatch
from pipeline.generation.loaded_model import LoadedModel
from pipeline.generation.shard_plan import arm_texts, batch_texts
from pipeline.networks.checkpoints import locate
from pipeline.networks.text.text_encoder import TextEncoder
from pipeline.study.study import parse_study


@pytest.mark.parametrize("name", WITH_FLUX2)
def test_texts_are_encoded_once_and_their_encoders_dropped(
    flows: Flows, cache: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = flows.study(name, method="cfg", scale=3.0)
    generator = ArmGenerator(study, "arm", CPU)
    assert all(tower.model.device.type == "meta" for tower in generator.text_encoder.towers)
    kept = list((cache / "guidedrift/embeddings").rglob("*.safetensors"))
    assert len(kept) == len({text for texts in arm_texts(study, "arm").values() for text in texts})
    # A worker that starts later finds them, and never loads what encodes.
    again = ArmGenerator(study, "arm", CPU)
    monkeypatch.setattr(again.model, "_load_texts", None)
    prompt = arm_texts(study, "arm")["prompt"][:2]
    found = again.model.encode({"prompt": prompt})["prompt"]
    checkpoint = locate(name)
    fresh = checkpoint.family.load_texts(checkpoint, CPU, study.text).encode(prompt)
    # Together, and not each alone: torch rounds otherwise.
    torch.testing.assert_close(dict(found), dict(fresh))


@pytest.mark.parametrize("name", ["sd3", "lumina2"])
def test_each_text_of_a_study_is_encoded_once_over_its_arms_and_runs(
    flows: Flows, cache: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    flows.study(name)
    flows.params["generate"] |= {"images": 10, "shard": 10, "batch": 5}
    negative = {"method": "negative", "scale": 3.0, "negative_prompt": "lowres", "canvas": CANVAS}
    flows.params["arms"] |= {"negative": negative, "cfg": {"method": "cfg", "scale": 3.0, "canvas": CANVAS}}
    study = parse_study(flows.params, "test")
    assert study.generated == ["arm", "negative", "cfg"]
    embed, calls = TextEncoder.embed, []

    def counted(encoder: TextEncoder, texts: list[Any], number: int) -> Any:
        calls.append(len(texts))
        return embed(encoder, texts, number)

    monkeypatch.setattr(TextEncoder, "embed", counted)
    told = [arm_texts(study, arm) for arm in study.generated]

    def generated() -> list[GeneratedBatch]:
        model = LoadedModel(study, CPU)
        return [
            ArmGenerator(study, arm, CPU, model).draw(batch_texts(texts, range(2)), SEEDS)
            for arm, texts in zip(study.generated, told, strict=True)
        ]

    distinct = {text for texts in told for group in texts.values() for text in group}
    first = generated()
    assert calls == [1] * len(distinct)
    second = generated()
    assert calls == [1] * len(distinct)
    assert max(map(far, first, second)) == 0


@pytest.mark.parametrize("name", FLOWS)
def test_a_damaged_embedding_is_made_again(flows: Flows, cache: Path, name: str) -> None:
    study = flows.study(name)
    first = ArmGenerator(study, "arm", CPU).model.encode({"prompt": ["pattern"]})["prompt"]["tokens"]
    for path in cache.rglob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-3] + b"\0\1\2")
    second = ArmGenerator(study, "arm", CPU).model.encode({"prompt": ["pattern"]})["prompt"]["tokens"]
    assert torch.equal(first, second)


def test_embeddings_that_are_kept_are_those_of_the_encoders_weights(flows: Flows, cache: Path) -> None:
    study = flows.study("sd3")
    file = Path("sd3/text_encoder_3/model.safetensors")
    first = ArmGenerator(study, "arm", CPU).model.encode({"prompt": ["pattern"]})["prompt"]["tokens"]
    before, after = load_file(file), {name: 2 * tensor for name, tensor in load_file(file).items()}
    save_file(after, file, {"format": "pt"})
    other = ArmGenerator(study, "arm", CPU).model.encode({"prompt": ["pattern"]})["prompt"]["tokens"]
    assert not torch.equal(first, other)
    save_file(before, file, {"format": "pt"})
    again = ArmGenerator(study, "arm", CPU).model.encode({"prompt": ["pattern"]})["prompt"]["tokens"]
    assert torch.equal(first, again)
    assert len(list((cache / "guidedrift/embeddings").iterdir())) == 2


def test_weights_of_words_act_on_the_clips_of_sd3_alone(flows: Flows) -> None:
    encoder = locate(str(flows.copy("sd3"))).family.load_texts(
        locate("sd3"), CPU, flows.study("sd3", text={"syntax": "a1111"}).text
    )
    plain, weighted = (encoder.encode([text])["tokens"][0] for text in ("a hat", "a (hat:1.4)"))
    clip = len(plain) - LENGTH
    assert not torch.equal(plain[:clip], weighted[:clip])
    assert torch.equal(plain[clip:], weighted[clip:])


def test_long_texts_take_more_chunks_of_sd3s_clips(flows: Flows) -> None:
    folder = flows.copy("sd3")
    edit(folder / "tokenizer/tokenizer_config.json", model_max_length=10)
    edit(folder / "tokenizer_2/tokenizer_config.json", model_max_length=10)
    encoder = locate("sd3").family.load_texts(locate("sd3"), CPU, flows.study("sd3").text)
    short, long = (encoder.encode([text])["tokens"] for text in ("hat", "1person, blue hair, smile, hat"))
    assert short.shape[1] == 10 + LENGTH
    assert long.shape[1] > short.shape[1]
    assert (long.shape[1] - LENGTH) % 10 == 0
