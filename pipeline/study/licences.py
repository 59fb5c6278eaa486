"""Licences as the Hugging Face Hub knows them, for what a study generates and publishes."""

# The Hub's identifiers (its documentation, "Licenses"), without `unknown` and `other`, which say nothing by themselves.
_IDENTIFIERS = """
afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0 bigscience-openrail-m bsd
bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-
by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0
cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0 cdla-permissive-2.0 cdla-sharing-1.0 creativeml-openrail-m
deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 gemma gfdl gpl gpl-2.0 gpl-3.0 isc lgpl lgpl-2.1
lgpl-3.0 lgpl-lr llama2 lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 openrail openrail++ osl-3.0 pddl
postgresql unlicense wtfpl zlib
"""
HUB_LICENCES = frozenset(_IDENTIFIERS.split())
# Images and weights of tinybooru: it is drawn from styles under CC BY 4.0 and CC0.
EMBEDDED_LICENCE = "cc-by-4.0"

_WAY_OUT = (
    "write one of the Hub's identifiers (cc-by-4.0, creativeml-openrail-m, ...), or its own name and a link to it"
)


def check_licence(licence: str, link: str) -> None:
    """Raise ValueError where a licence is neither one that the Hub knows nor one with a link to its text."""
    if licence in ("", "unknown", "other"):
        raise ValueError(f"licence '{licence}' says nothing; {_WAY_OUT}")
    if licence not in HUB_LICENCES and not link.startswith("https://"):
        raise ValueError(f"licence '{licence}' is unknown to the Hub and has no https:// link; {_WAY_OUT}")


def licence_fields(licence: str, link: str) -> dict[str, str]:
    """The fields of a card's front matter that name the licence."""
    if licence in HUB_LICENCES:
        return {"license": licence}
    return {"license": "other", "license_name": licence, "license_link": link}
