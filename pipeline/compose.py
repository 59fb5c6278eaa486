"""Compose conf/ into params.yaml: `python -m pipeline.compose [group=choice] [key=value] ...`.

The composed study is validated before params.yaml is touched, and params.yaml keeps its time stamp where nothing
changed.
"""

import argparse
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
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
from pipeline.overrides import from_environment, literal, readable
from pipeline.settings import nearest
from pipeline.storage.files import write_atomically
from pipeline.study.controls import with_controls, with_headlines
from pipeline.study.negative import with_negative
from pipeline.study.plain_yaml import YAML_ERRORS, check_aliases, check_names, way_to_quote
from pipeline.study.reseeded import with_reseeded
from pipeline.study.scales import at_scales, with_scales
from pipeline.study.study import Study, parse_study

# Hydra's advice on a key that is not there.
_ADDED = re.compile(r"(Could not override '.*?')\.\s+To append to your config use \+(.*)", re.DOTALL)
_UNKNOWN = re.compile(r"[^;:\s]+ is (?:not a known key(?:; did you mean [^?;]*\?)?|now [a-z.]+)")
# The folds of the comparison's classifier test, which holds prompts out (eval/distances/two_sample_classifier.py).
_FEWEST_PROMPTS = 5


def compose(
    conf: Path, overrides: Sequence[str], negative: str | None = None, scales: Sequence[float] = ()
) -> dict[str, Any]:
    """The composed configuration, of files below `conf` alone.

    `negative` is the study's negative prompt in place of the one in conf/, `scales` those at which every guided arm
    replaces its own negative. Raises InputError for unknown groups, choices and keys, files of other folders, values
    of the environment, and a negative prompt that no arm would take.
    """
    for path in sorted(conf.rglob("*.yaml")):
        check_aliases(path)
        check_names(path)
    given = readable(list(overrides))
    if negative is not None:
        given.append(literal(f"++negative={negative}"))
    OmegaConf.register_new_resolver("oc.env", _no_environment, replace=True)
    content = with_negative(with_reseeded(_composed(conf, given)))
    if negative is not None and "negative" not in content:
        raise InputError(
            f"study '{content.get('name')}' has no arm that takes the study's negative prompt: each has its own or "
            "reads none; take study=default, or set arms.<arm>.negative_prompt"
        )
    return with_headlines(with_controls(with_scales(at_scales(content, scales))))


def _composed(conf: Path, overrides: list[str]) -> dict[str, Any]:
    try:
        with initialize_config_dir(str(conf.resolve()), version_base=None):
            _check_sources(conf, overrides)
            config = hydra_compose("config", overrides)
        content = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except MissingConfigException as error:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        known = sorted(path.stem for path in (conf / group).glob("*.yaml"))
        meant = f" did you mean {near}?" if (near := nearest(choice, known)) else ""
        raise InputError(
            f"{conf.name}/ has no {group} '{choice}';{meant} known choices: {', '.join(known) or 'none'}"
        ) from None
    except (HydraException, OmegaConfBaseException, *YAML_ERRORS) as error:
        if missing := _ADDED.search(str(error)):
            return _with_added(conf, overrides, missing[1], missing[2])
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        # ${ in a text is a reference to another key.
        unresolved = isinstance(error, GrammarParseError | InterpolationKeyError | UnsupportedInterpolationType)
        way = "; write \\${ where it is part of a text" if unresolved else way_to_quote(error)
        raise InputError(f"{conf} cannot be composed: {' '.join(lines)[:600]}{way}") from None
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def _with_added(conf: Path, overrides: list[str], refused: str, added: str) -> dict[str, Any]:
    """The composed configuration with a key that conf/ leaves out and the study knows. Raises InputError for others.

    `refused` is what Hydra says about it, `added` the override.
    """
    key = added.partition("=")[0]
    if "/" in key:
        way = shlex.quote(added.replace("/", ".", key.count("/")))
        raise InputError(f"{refused}: dots separate the parts of a key; write {way}")
    content = _composed(conf, [f"+{one}" if one.partition("=")[0] == key else one for one in overrides])
    filled = with_negative(with_reseeded(content))
    try:
        parse_study(filled, "")
    except InputError as error:
        if said := _UNKNOWN.search(str(error)):
            group = "" if re.search("did you mean| is now ", said[0]) else nearest(key, _groups(conf))
            meant = f"; did you mean {group}?" if group else ""
            raise InputError(f"{refused}: {said[0]}{meant}") from None
        if new := _only_added(filled, key):
            # A part that has nothing but what this override gave it: a slip in its name, most often.
            group, name, siblings = new
            meant = (
                f"; did you mean {near}?" if (near := nearest(name, siblings)) else f"; known: {', '.join(siblings)}"
            )
            raise InputError(f"{refused}: {group} has no {name}{meant}") from None
        # Whatever else is wrong, the study says when it is validated.
    return content


def _groups(conf: Path) -> list[str]:
    return sorted(path.name for path in conf.iterdir() if path.is_dir())


def _only_added(content: dict[str, Any], key: str) -> tuple[str, str, list[str]] | None:
    """The part of the study that an added key made: its group, its name and the names beside it."""
    group, _, rest = key.partition(".")
    name = rest.partition(".")[0]
    parts = content.get(group)
    if group != "arms" or not isinstance(parts, dict) or "method" in (parts.get(name) or {}):
        return None
    return group, name, [part for part in parts if part != name]


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


def composed_study(
    overrides: Sequence[str], negative: str | None = None, scales: Sequence[float] = ()
) -> tuple[dict[str, Any], Study]:
    """The study in conf/ as plain content and validated, with the overrides of the environment before these.

    Raises InputError, also for a prompt file that is missing or malformed: that is better known now than after the
    reference set is made.
    """
    content = compose(CONF, [*from_environment(), *overrides], negative, scales)
    study = parse_study(content, "the composed study")
    check_number_of_prompts(study_prompts(study))
    return content, study


def warnings(study: Study) -> list[str]:
    """What to know of a study before it runs, with what to do about it."""
    found = []
    if study.size_caution:
        found.append(study.size_caution)
    if study.reference_caution:
        found.append(
            f"{study.reference_caution} Put real images into {IMAGES}/<name> and take "
            f"reference.source={IMAGES}/<name> (docs/checkpoints.md)"
        )
    for extractor in study.features.extractors.values():
        faults = extractor.kind.faults(extractor.weights, extractor.hub)
        found += [fault for path, fault in faults.items() if not path.is_file()]
    return found


def write_params(content: dict[str, Any]) -> bool:
    """Write params.yaml where it holds something else; returns whether it did."""
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    changed = not PARAMS.exists() or PARAMS.read_text("utf-8") != text
    if changed:
        write_atomically(PARAMS, text.encode())
    remember_params()
    return changed


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.compose",
        description=__doc__,
        epilog="reads: conf/\nwrites: params.yaml\n`python -m pipeline` lists studies, arms and the other choices",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="in Hydra's syntax, or group=choice")
    content, study = composed_study(parser.parse_args().overrides)
    for warning in warnings(study):
        print(f"warning: {warning}", file=sys.stderr)
    if write_params(content):
        print(f"{PARAMS}: study '{study.name}' with arms {', '.join(study.arms)}; next: dvc repro")


if __name__ == "__main__":
    run_stage(main)
