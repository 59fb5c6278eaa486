"""Files of families along rectified flow: folders, pieces, and transformers in one file."""

import pytest
from flow_studies import FLOWS, WITH_FLUX2, Flows, far

from pipeline.networks.checkpoints import locate
from pipeline.networks.families import FAMILIES
from pipeline.networks.weights.weight_files import weight_paths


@pytest.mark.parametrize("name", WITH_FLUX2)
def test_a_folder_is_of_the_family_with_and_without_its_index(flows: Flows, name: str) -> None:
    folder = flows.copy(name)
    found = locate(name)
    factor = 4 if name.startswith("flux2") else 2  # its latents are patches of them
    assert (found.family, found.factor, found.unit) == (FAMILIES[name], factor, 4)
    (folder / "model_index.json").unlink()
    assert locate(name).family is FAMILIES[name]


@pytest.mark.parametrize("name", FLOWS)
def test_weights_in_pieces_are_read(flows: Flows, name: str) -> None:
    folder = flows.copy(name)
    whole = flows.draw(name)
    transformer = FAMILIES[name].model_class.from_pretrained(folder / "transformer")
    (folder / "transformer/diffusion_pytorch_model.safetensors").unlink()
    transformer.save_pretrained(folder / "transformer", max_shard_size="100KB")
    assert len(weight_paths(folder, "transformer")) > 1
    assert far(whole, flows.draw(name)) <= 1
