"""The report says which networks made the images and what these are compared with."""

from report_study import Inputs, study

from eval.report.provenance import networks


def test_the_page_says_what_the_reference_set_is(own_inputs: Inputs) -> None:
    page = own_inputs.report()
    assert page.count("64x64 drawings of the embedded world tinybooru") == 2


def test_the_page_is_about_toy_networks_only_where_they_made_its_images() -> None:
    assert networks(study(), "64x64") == "Toy networks, 64x64"
    other = study().model.model_copy(update={"name": "sd_v1_5", "main": "models/sd_v1_5"})
    assert networks(study().model_copy(update={"model": other}), "512x512") == "Networks of sd_v1_5, 512x512"
