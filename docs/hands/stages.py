"""The stages of training at which hands are compared, and the networks of each as folders that a study reads."""

import json
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from models.tinybooru.networks.export import export_pair
from models.tinybooru.networks.families import FamilyRecipe
from models.tinybooru.networks.run import CPU, FLOW, FLOW_SMALL, UNET, UNET_SMALL
from pipeline.errors import InputError

TINYBOORU = Path("models/tinybooru")
# Snapshots of a run: those that are shipped, then those of this machine's own training.
STATES = (TINYBOORU / "stages", TINYBOORU / "checkpoints/networks")
FOLDERS = TINYBOORU / "checkpoints/stages"
_SNAPSHOT = re.compile(r"(?P<family>unet|flow)-(?P<size>main|small)-(?P<seed>\d+)-(?P<step>\d+)\.safetensors")


@dataclass(frozen=True)
class Family:
    """A family of the embedded networks: the recipes of its main network and guide, the folder of the shipped ones, and
    what a study needs for it."""

    main: FamilyRecipe
    guide: FamilyRecipe
    shipped: Path
    overrides: tuple[str, ...] = ()


FAMILIES = {
    "unet": Family(UNET, UNET_SMALL, TINYBOORU),
    "flow": Family(FLOW, FLOW_SMALL, TINYBOORU / "flow", ("model=tinybooru_flow", "sampler=euler")),
}


@dataclass(frozen=True, order=True)
class Stage:
    """A main network after `step` steps of training seed `seed`, with its guide after `guide_step` of them.

    The guide is the smaller network, or, with `same_size`, an earlier stage of the main network itself.
    """

    family: str
    seed: int
    step: int
    guide_step: int
    same_size: bool = False

    @property
    def name(self) -> str:
        size = "main" if self.same_size else "small"
        return f"{self.family}-{self.seed}-{self.step}-{size}-{self.guide_step}"

    @property
    def parts(self) -> tuple[str, str, str]:
        """The snapshots that it needs: main network, guide, text encoder."""
        size = "main" if self.same_size else "small"
        own = f"{self.family}-{{}}-{self.seed}-{{}}".format
        return own("main", self.step), own(size, self.guide_step), f"text-{self.seed}"

    @property
    def overrides(self) -> tuple[str, ...]:
        """What a study is composed with to read its networks."""
        folder = FAMILIES[self.family].shipped if self in shipped() else FOLDERS / self.name
        return *FAMILIES[self.family].overrides, f"model.main={folder}/main", f"model.guide={folder}/guide"


def stages_of(snapshots: Iterable[str]) -> list[Stage]:
    """The stages that snapshots, by their file names, have the networks for.

    Main networks of every stage with the finished guide, then the finished main network with every other guide: the
    smaller network at its own stages, and the main network's earlier ones.
    """
    steps: dict[tuple[str, int, str], list[int]] = {}
    for name in snapshots:
        if found := _SNAPSHOT.fullmatch(name):
            key = (found["family"], int(found["seed"]), found["size"])
            steps.setdefault(key, []).append(int(found["step"]))
    stages = []
    for (family, seed, size), main in sorted(steps.items()):
        small = sorted(steps.get((family, seed, "small"), []))
        if size != "main" or not small:
            continue
        last = max(main)
        stages += [Stage(family, seed, step, small[-1]) for step in sorted(main)]
        stages += [Stage(family, seed, last, step) for step in small[:-1]]
        stages += [Stage(family, seed, last, step, same_size=True) for step in sorted(main) if step < last]
    return stages


@cache
def shipped() -> list[Stage]:
    """The stages of the networks in the repository, one per family. Raises InputError where their record is missing."""
    path = TINYBOORU / "training.json"
    try:
        trained = json.loads(path.read_bytes())
        recipes = {family: [trained[f"{family}-{size}"]["recipe"] for size in ("main", "small")] for family in FAMILIES}
        return [Stage(family, main["seed"], main["steps"], guide["steps"]) for family, (main, guide) in recipes.items()]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} does not say how the networks were trained ({error!r}); `make train` does") from None


def available() -> list[Stage]:
    """The stages whose networks are on this machine: the shipped ones, and those of snapshots."""
    names = {path.name for state in STATES for path in (state / "snapshots").glob("*.safetensors")}
    return sorted({*shipped(), *stages_of(names)})


def prepare(stage: Stage) -> None:
    """Write a stage's networks as the folders that its `overrides` name. Raises InputError where one is missing."""
    folder = FOLDERS / stage.name
    if stage in shipped() or (folder / "guide").is_dir():
        return
    family = FAMILIES[stage.family]
    guide = family.main if stage.same_size else family.guide
    sizes = replace(CPU, steps=stage.step, small_steps=stage.guide_step)
    making = folder.with_suffix(".tmp")
    shutil.rmtree(making, ignore_errors=True)
    export_pair(_state_of(stage), family.main, guide, stage.seed, sizes, making)
    shutil.rmtree(folder, ignore_errors=True)
    making.rename(folder)


def _state_of(stage: Stage) -> Path:
    for state in STATES:
        if all((state / "snapshots" / f"{part}.safetensors").is_file() for part in stage.parts):
            return state
    raise InputError(f"no run has the snapshots {', '.join(stage.parts)}; `make train` makes them")
