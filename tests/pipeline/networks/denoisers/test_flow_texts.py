"""Texts of families along rectified flow: encoded once, kept, and read as each family reads them."""

from pathlib import Path

import pytest
import torch
from checked_networks import edit
from flow_studies import CPU, FLOWS, LENGTH, WITH_FLUX2, Flows

from pipeline.generation.arm_generator import ArmGenerator
from pipeline.generation.shard_plan import arm_texts
from pipeline.networks.checkpoints import locate


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


@pytest.mark.parametrize("name", FLOWS)
def test_a_damaged_embedding_is_made_again(flows: Flows, cache: Path, name: str) -> None:
    study = flows.study(name)
    first = ArmGenerator(study, "arm", CPU).model.encode({"prompt": ["pattern"]})["prompt"]["tokens"]
    for path in cache.rglob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-3] + b"\0\1\2")
    second = ArmGenerator(study, "arm", CPU).model.encode({"prompt": ["pattern"]})["prompt"]["tokens"]
    assert torch.equal(first, second)


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
