"""The report says what the images are compared with."""

from report_study import Inputs


def test_the_page_says_what_the_reference_set_is(own_inputs: Inputs) -> None:
    page = own_inputs.report()
    assert page.count("64x64 drawings of the embedded world tinybooru") == 2
