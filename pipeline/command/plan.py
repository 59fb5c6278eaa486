"""What a study will take: arms, images, network evaluations, disk and time, and which part is finished."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.command.durations import ELSEWHERE, EMBEDDED_EVALUATION, in_words, stage_seconds, workers
from pipeline.command.finished import finished_images, recorded_cost
from pipeline.errors import InputError
from pipeline.layout import COSTS, PARAMS, REPORT
from pipeline.networks.checkpoints import locate
from pipeline.study.arm import Arm
from pipeline.study.study import Study, load_study

# Solvers with two evaluations from a noise level to the next (pipeline/sampling/steppers.py).
_TWICE = ("heun", "dpmsolver++_sde")
# A PNG of the embedded world takes 0.6 of its pixels' bytes; it lies in the image set, in DVC's cache and in the
# dataset. Features, trace and scores of an image take some 25 kB with their copies.
_PNG = 0.6
_COPIES = 3
_BESIDE = 25_000
# Stages that dvc.yaml has run every time.
_ASKING = ("preflight", "push", "pull")
_NAMED_TEXT = 95


@dataclass(frozen=True)
class PlannedArm:
    """One arm: its images, how many of them are `finished`, and network evaluations per image with those of probes."""

    name: str
    method: str
    scale: float
    images: int
    finished: int
    evaluations: float

    @property
    def missing(self) -> int:
        return self.images - self.finished


@dataclass(frozen=True)
class Plan:
    """A study before it runs.

    `seconds` by stage are of what is left, `generate` being None where nothing like it was ever measured; `measured`
    says where the seconds of an evaluation come from. `disk` is in bytes, of the whole study.
    """

    study: Study
    arms: tuple[PlannedArm, ...]
    seconds: dict[str, float | None]
    measured: str
    disk: int

    @property
    def missing(self) -> int:
        """Images that are still to be generated."""
        return sum(arm.missing for arm in self.arms)

    @property
    def missing_evaluations(self) -> float:
        return sum(arm.missing * arm.evaluations for arm in self.arms)

    @property
    def total_seconds(self) -> float | None:
        """Of the whole run; None where the generation's is unknown."""
        known = [value for value in self.seconds.values() if value is not None]
        return None if self.seconds["generate"] is None else sum(known)


def plan_of(study: Study) -> Plan:
    """The plan of a study in the working folder. Raises InputError where its model is missing."""
    done = finished_images(study)
    images = study.generate.images
    arms = tuple(_planned(study, name, done) for name in study.arms)
    each, measured = _seconds_per_evaluation(study)
    total = images * len(arms)
    left = sum(arm.missing * arm.evaluations for arm in arms)
    parallel = workers(sum(arm.missing for arm in arms), study.generate.threads)
    generating = 6.0 if not left else None if each is None else left * each / parallel + 10
    seconds: dict[str, float | None] = {"generate": generating, **stage_seconds(total, len(arms))}
    if not left and REPORT.is_file() and _last_run() == study:
        # DVC skips every stage but those that look at what it cannot see.
        seconds = {stage: value if stage in _ASKING else 0.0 for stage, value in seconds.items()}
    return Plan(study, arms, seconds, measured, _disk(study))


def evaluations(study: Study, arm: Arm) -> float:
    """Network evaluations of one image of an arm, with those of probes: an upper bound where a schedule skips some."""
    if arm.control is not None:
        arm = study.arm(arm.control.of)  # a control spends as many as the arm that it follows
    sampler = study.sampler_of(arm)
    read = {term.reference for term in arm.all_terms} | set(arm.probes)
    steps: float = sampler.steps * (arm.image_to_image.strength if arm.image_to_image is not None else 1)
    if sampler.scheduler in _TWICE:
        steps = 2 * steps - 1
    return steps * (1 + len(read))


def _planned(study: Study, name: str, done: Mapping[str, int]) -> PlannedArm:
    arm, images = study.arm(name), study.generate.images
    if arm.from_folder is not None:
        # Nothing is generated; reading a folder takes seconds.
        return PlannedArm(name, arm.method, arm.scale, images, images, 0)
    return PlannedArm(name, arm.method, arm.scale, images, done[name], evaluations(study, arm))


def _seconds_per_evaluation(study: Study) -> tuple[float | None, str]:
    """Seconds of one evaluation in one process, and where they were measured."""
    seconds = count = 0.0
    device = ""
    last = _last_run()
    if last is not None and last.model == study.model:
        for path in sorted(COSTS.glob("*.json")):
            cost = recorded_cost(path.stem)
            try:
                images = int(cost["images"])
                seconds += float(cost["seconds_per_image"]) * images
                count += (float(cost["nfe_per_image"]) + float(cost["probe_nfe_per_image"])) * images
                device = str(cost["device"])
            except (KeyError, TypeError, ValueError):
                continue
    if count:
        return seconds / count, f"as earlier images took on this machine ({device})"
    if study.is_embedded:
        return EMBEDDED_EVALUATION, f"as on {ELSEWHERE}; nothing was generated here yet"
    return None, "no image of this model was generated here yet; the bar of a run shows it after the first shard"


def _last_run() -> Study | None:
    try:
        return load_study(PARAMS)
    except InputError:
        return None


def _disk(study: Study) -> int:
    width, height = _canvas(study)
    total = 0.0
    for arm in study.arms.values():
        pixels = arm.canvas.width * arm.canvas.height if arm.canvas is not None else width * height
        total += study.generate.images * (3 * pixels * _PNG * _COPIES + _BESIDE)
    return int(total + study.reference.images * (3 * width * height * _PNG * 2 + _BESIDE))


def _canvas(study: Study) -> tuple[int, int]:
    if not study.generated:
        return (512, 512) if study.reference.canvas is None else study.reference.canvas.size
    try:
        return locate(study.model.main, study.model.config).canvas
    except InputError:
        return 512, 512  # the model is not there yet, and preflight says so with the way to fetch it


def shown(plan: Plan) -> str:
    """The plan as text, one line per arm and the totals below."""
    study, width = plan.study, max(len(arm.name) for arm in plan.arms)
    networks = f"with model {study.model.name}" if study.generated else "of images made elsewhere"
    lines = [f"study '{study.name}' {networks}; baseline {study.baseline}"]
    if study.negative is not None:
        text = study.negative.shown
        lines.append(f"negative prompt: {text if len(text) <= _NAMED_TEXT else text[:_NAMED_TEXT] + '…'}")
    lines += ["", f"  {'arm':<{width}}  {'method':<13} {'scale':>5}  {'images':>7}  {'finished':>8}  evaluations/image"]
    for arm in plan.arms:
        lines.append(
            f"  {arm.name:<{width}}  {arm.method:<13} {arm.scale:>5g}  {arm.images:>7,}  {arm.finished:>8,}  "
            f"{arm.evaluations:>11,.0f}"
        )
    images = sum(arm.images for arm in plan.arms)
    free = _free_bytes()
    time = "unknown" if plan.total_seconds is None else f"about {in_words(plan.total_seconds)}"
    lines += [
        "",
        f"images: {images:,}, of which {plan.missing:,} are to be generated; {study.reference.images:,} real images",
        f"network evaluations: about {plan.missing_evaluations:,.0f}",
        f"disk: about {_bytes(plan.disk)}{f' ({_bytes(free)} are free)' if free else ''}",
        f"time: {time}{f', {plan.measured}' if plan.missing else ''}",
    ]
    return "\n".join(lines)


def _free_bytes() -> int:
    try:
        return shutil.disk_usage(Path.cwd()).free
    except OSError:
        return 0


def _bytes(count: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.0f} {unit}" if count >= 10 * size else f"{count / size:.1f} {unit}"
    return f"{count / 1e3:.0f} kB"
