"""Compose conf/ into params.yaml: `python -m pipeline.compose [group=choice] [key=value] ...`.

The composed study is validated before params.yaml is touched, and params.yaml keeps its time stamp where nothing
changed.
"""

import argparse
import os
import re
import shlex
import sys
from pathlib import Path

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import (
    GrammarParseError,
    InterpolationKeyError,
    OmegaConfBaseException,
    UnsupportedInterpolationType,
)

from pipeline.errors import InputError, run_stage
from pipeline.experiment import remember_params
from pipeline.generation.arm_texts import study_prompts
from pipeline.layout import CONF, IMAGES, PARAMS
from pipeline.storage.files import write_atomically
from pipeline.study.controls import with_controls
from pipeline.study.plain_yaml import YAML_ERRORS, check_aliases, check_names, way_to_quote
from pipeline.study.scales import with_scales
from pipeline.study.study import parse_study

_OVERRIDES = "GUIDEDRIFT_OVERRIDES"
# Hydra's advice on a key that is not there.
_ADDED = re.compile(r"(Could not override '.*?')\.\s+To append to your config use \+(.*)", re.DOTALL)
_UNKNOWN = re.compile(r"[^;:\s]+ is no known key(?:; did you mean [^?;]*\?)?")
# The folds of the comparison's classifier test, which holds prompts out (eval/distances/two_sample_classifier.py).
_FEWEST_PROMPTS = 5


def compose(conf: Path, overrides: list[str]) -> dict[str, object]:
    """The composed configuration, of files below `conf` alone.

    Raises InputError for unknown groups, choices and keys, files of other folders, and values of the environment.
    """
    for path in sorted(conf.rglob("*.yaml")):
        check_aliases(path)
        check_names(path)
    for override in overrides:
        _check_override(override)
    OmegaConf.register_new_resolver("oc.env", _no_environment, replace=True)
    try:
        with initialize_config_dir(str(conf.resolve()), version_base=None):
            _check_sources(conf, overrides)
            config = hydra_compose("config", overrides)
        content = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except MissingConfigException as error:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        known = ", ".join(sorted(path.stem for path in (conf / group).glob("*.yaml")))
        raise InputError(f"{conf.name}/ has no {group} '{choice}'; known choices: {known or 'none'}") from None
    except (HydraException, OmegaConfBaseException, *YAML_ERRORS) as error:
        if missing := _ADDED.search(str(error)):
            if refusal := _refusal(conf, overrides, missing[2]):
                raise InputError(f"{missing[1]}: {refusal}") from None
            raise InputError(f"{missing[1]}; to add it, write {shlex.quote('+' + missing[2])}") from None
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        # ${ in a text is a reference to another key.
        unresolved = isinstance(error, GrammarParseError | InterpolationKeyError | UnsupportedInterpolationType)
        way = "; write \\${ where it is part of a text" if unresolved else way_to_quote(error)
        raise InputError(f"{conf} cannot be composed: {' '.join(lines)[:600]}{way}") from None
    assert isinstance(content, dict)
    return with_controls(with_scales({str(key): value for key, value in content.items()}))


def quoted(override: str) -> str:
    """An override key=value as a shell takes it, with its value as one text for Hydra, whatever stands in it."""
    key, _, value = override.partition("=")
    # In Hydra's quotes a backslash counts before a quote and before an interpolation.
    inner = re.sub(r'(\\*)("|$)', lambda match: match[1] * 2 + ('\\"' if match[2] else ""), value)
    inner = re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + "\\${", inner)
    return shlex.quote(f'{key}="{inner}"')


def _refusal(conf: Path, overrides: list[str], refused: str) -> str:
    # What the study says of a key that Hydra does not find here: it is unknown, or empty where it can be added.
    key = refused.partition("=")[0]
    if "/" in key:
        return f"dots separate the parts of a key; write {shlex.quote(refused.replace('/', '.', key.count('/')))}"
    added = [f"+{one}" if one.partition("=")[0] == key else one for one in overrides]
    try:
        with initialize_config_dir(str(conf.resolve()), version_base=None):
            content = OmegaConf.to_container(hydra_compose("config", added), resolve=True)
        parse_study(content, "")
    except (HydraException, OmegaConfBaseException, *YAML_ERRORS):
        return ""
    except InputError as error:
        said = _UNKNOWN.search(str(error))
        return said[0] if said else ""
    return ""


def _check_override(override: str) -> None:
    key, equals, value = override.partition("=")
    if not key.strip() or not (equals or key.startswith("~")):
        raise InputError(
            f"{override} is not an override; write key=value, for instance study=sweep or generate.images=192"
        )
    if key != key.strip():
        raise InputError(f"{override} has spaces before =; write {shlex.quote(f'{key.strip()}={value.strip()}')}")
    try:
        parsed = OverridesParser.create().parse_override(override)
        several = parsed.is_sweep_override() or (
            key.endswith("negative_prompt") and isinstance(parsed.value(), dict | list)
        )
    except HydraException:
        several = True
    if several and equals:
        # A quote that the value already has and that does not hold is not part of the text.
        bare = value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value
        raise InputError(
            f"{override} is not one value for Hydra, to which , : = quotes and brackets are syntax; if it is one text, "
            f"quote it: {quoted(f'{key}={bare}')}"
        )


def _check_sources(conf: Path, overrides: list[str]) -> None:
    # Hydra follows `..` in a list of defaults, and hydra.searchpath to any folder.
    parts = GlobalHydra.instance().config_loader().compute_defaults_list("config", overrides, RunMode.RUN).defaults
    for part in parts:
        # What goes under `hydra` is Hydra's own and no part of the study.
        path = "" if part.config_path is None or f"{part.package}.".startswith("hydra.") else part.config_path
        if path and (".." in Path(path).parts or not (conf / f"{path}.yaml").is_file()):
            raise InputError(f"{conf.name}/ reads {path!r}, which is not in {conf.name}/; move it there")


def _no_environment(*name: object) -> None:
    # What is composed is committed, logged and published.
    raise ValueError(f"a study reads no environment variable ({name[0] if name else ''}); write the value down")


def check_number_of_prompts(prompts: list[str]) -> None:
    """Raise InputError for a few prompts: the comparison needs five to tell prompts from arms, or one for all."""
    distinct = len(set(prompts))
    if 1 < distinct < _FEWEST_PROMPTS:
        raise InputError(
            f"the study has {distinct} different prompts; write at least {_FEWEST_PROMPTS}, or one for every image"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.compose",
        description=__doc__,
        epilog="reads: conf/\nwrites: params.yaml\n`python -m pipeline` lists studies, arms and the other choices",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="in Hydra's syntax, or group=choice")
    overrides = [*os.environ.get(_OVERRIDES, "").split(), *parser.parse_args().overrides]
    content = compose(CONF, overrides)
    study = parse_study(content, "the composed study")
    # A prompt file that is missing or malformed is better known now than after the reference set is drawn.
    check_number_of_prompts(study_prompts(study))
    if study.reference_caution:
        print(
            f"warning: {study.reference_caution} Put real images into {IMAGES}/<name> and take "
            f"reference.source={IMAGES}/<name> (docs/checkpoints.md)",
            file=sys.stderr,
        )
    for extractor in study.features.extractors.values():
        for path, fault in extractor.kind.faults(extractor.weights, extractor.hub).items():
            if not path.is_file():
                print(f"warning: {fault}", file=sys.stderr)
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    if not PARAMS.exists() or PARAMS.read_text("utf-8") != text:
        write_atomically(PARAMS, text.encode())
        print(f"{PARAMS}: study '{study.name}' with arms {', '.join(study.arms)}; next: dvc repro")
    remember_params()


if __name__ == "__main__":
    run_stage(main)
