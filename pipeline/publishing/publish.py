"""The study's dataset, or the embedded networks, to the Hugging Face Hub.

    python -m pipeline.publishing.publish repo_id=<owner>/<name> --dry-run      what would be sent; needs no network
    python -m pipeline.publishing.publish repo_id=<owner>/<name>                to a private repository
    python -m pipeline.publishing.publish repo_id=<owner>/<name> what=models    the embedded networks

One commit holds everything and a tag names its content. Nothing is sent that has no licence, or that holds a credential
or a person's name. What an interrupted run had sent is not sent again; an unchanged set makes no commit.
"""

import argparse
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx2
import yaml
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, RepoCard, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, RepositoryNotFoundError
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    disable_progress_bars,
    enable_progress_bars,
    validate_repo_id,
)
from pydantic import ValidationError, field_validator
from tqdm import tqdm

from pipeline.credentials import check_private
from pipeline.errors import InputError, run_stage
from pipeline.layout import DATASET, EMBEDDED
from pipeline.publishing.leaks import check_leaks, labeller_names
from pipeline.settings import Settings
from pipeline.storage.files import file_digest, fingerprint
from pipeline.study.licences import check_licence

CARD = "README.md"
_LABELS = Path("labels")
# What belongs to the embedded networks; the rest of their folder is code and the training's own checkpoints.
_NETWORKS = ("main", "guide", "flow", "clip")
_BESIDE_THEM = (
    "*.safetensors", "kinds.json", "measured.json", "worldcheck.json", "hands_by_eye*.json", "contact.png",
)  # fmt: skip
# Files whose upload is one step of the progress bar and of the client's threads.
_AT_ONCE = 8
# The client's errors, and Python's own, which its uploader to the Hub's storage raises. Other OSErrors are of this
# machine.
_CONNECTION = (httpx2.HTTPError, ConnectionError, TimeoutError)
_WRITE_TOKEN = (
    "make one with write permission (https://huggingface.co/settings/tokens), then `hf auth login` or HF_TOKEN"
)


class Destination(Settings):
    """What is published where: `repo_id` is <owner>/<name>."""

    repo_id: str
    what: Literal["dataset", "models"] = "dataset"
    private: bool = True
    dry_run: bool = False

    @field_validator("repo_id")
    @classmethod
    def _owner_and_name(cls, repo_id: str) -> str:
        try:
            validate_repo_id(repo_id)
        except HFValidationError:
            repo_id = ""
        if repo_id.count("/") != 1:
            raise ValueError("must be <owner>/<name>, of letters, digits, '-', '_' and '.'")
        return repo_id


@dataclass(frozen=True)
class Publication:
    """Files by their path in the repository, and the tag that names their content."""

    repo_type: Literal["dataset", "model"]
    files: Mapping[str, Path]
    tag: str

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in self.files.values())


@dataclass(frozen=True)
class Published:
    """Where it went: `new` is whether there was anything to commit."""

    url: str
    commit: str
    tag: str
    private: bool
    new: bool


def publication(what: Literal["dataset", "models"], root: Path) -> Publication:
    """The files under `root` that would be published. Raises InputError where they are not there."""
    if what == "dataset":
        folder = root / DATASET
        files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if _is_own_file(path)}
        if CARD not in files:
            raise InputError(f"{folder / CARD} does not exist; `dvc repro dataset` makes it")
        return Publication("dataset", dict(sorted(files.items())), f"study-{_content(files)}")
    folder = root / EMBEDDED
    files = {
        path.relative_to(folder).as_posix(): path
        for pattern in (*(f"{network}/**/*" for network in _NETWORKS), *_BESIDE_THEM)
        for path in folder.glob(pattern)
        if _is_own_file(path)
    }
    files[CARD] = folder / "CARD.md"
    for needed in (CARD, "main/unet/diffusion_pytorch_model.safetensors"):
        if needed not in files or not files[needed].is_file():
            raise InputError(f"{files.get(needed, folder / needed)} does not exist; `make train` makes it")
    return Publication("model", dict(sorted(files.items())), f"weights-{_content(files)}")


def _is_own_file(path: Path) -> bool:
    # A link could bring any file of this machine to the Hub.
    if path.is_symlink():
        raise InputError(f"{path} is a symbolic link, and only files are published; replace it by what it points to")
    return path.is_file()


def _content(files: Mapping[str, Path]) -> str:
    return fingerprint([[name, file_digest(path)] for name, path in sorted(files.items())])


def check_publishable(files: Mapping[str, Path], labels: Path) -> None:
    """Refuse a card without a known licence, and files with credentials or names of the labellers in `labels`.

    Raises InputError.
    """
    card = files[CARD]
    try:
        fields = vars(RepoCard(card.read_text("utf-8")).data)
    except (ValueError, yaml.YAMLError) as error:
        raise InputError(f"{card}: its front matter is not YAML ({' '.join(str(error).split())[:200]})") from None
    licence, link = fields.get("license", ""), ""
    if licence == "other":
        licence, link = fields.get("license_name", ""), fields.get("license_link", "")
    try:
        check_licence(str(licence), str(link))
    except ValueError as error:
        raise InputError(f"{card}: {error}; for a study, set model.licence in conf/ and `dvc repro dataset`") from None
    check_leaks(files, labeller_names(labels))


def hub_token() -> str:
    """The token for the Hub, from the environment or the file of `hf auth login`.

    Raises InputError where there is none, or others can read that file.
    """
    token = get_token()
    if token is None:
        raise InputError(f"there is no token for the Hub; {_WRITE_TOKEN}")
    file = Path(constants.HF_TOKEN_PATH)
    if file.is_file() and file.read_text("utf-8").strip() == token:
        check_private(file)
    return token


def publish(what: Publication, settings: Destination, token: str) -> Published:
    """Send everything in one commit and tag it; keep what is there already. Raises InputError."""
    api, repo, kind = HfApi(token=token), settings.repo_id, what.repo_type
    with _explained(repo, token):
        api.whoami()
        try:
            info = api.repo_info(repo, repo_type=kind)
        except RepositoryNotFoundError:
            api.create_repo(repo, repo_type=kind, private=settings.private)
            info = api.repo_info(repo, repo_type=kind)
        if settings.private and not info.private:
            raise InputError(f"{repo} exists and is public; say private=false to publish there, or make it private")
        tags = {tag.name for tag in api.list_repo_refs(repo, repo_type=kind).tags}
        there = set(api.list_repo_files(repo, repo_type=kind))
        if not any(tag.startswith(what.tag.split("-")[0]) for tag in tags) and not _is_ours(there, what.files):
            raise InputError(f"{repo} exists and holds other things; choose another repo_id")
        additions = [CommitOperationAdd(name, path) for name, path in what.files.items()]
        with _quiet_client():
            with tqdm(total=what.size, desc=f"publish {repo}", unit="B", unit_scale=True, disable=None) as bar:
                for batch in _batches(additions):
                    api.preupload_lfs_files(repo, batch, repo_type=kind, free_memory=False)
                    bar.update(sum(addition.upload_info.size for addition in batch))
            commit = api.create_commit(
                repo,
                [*additions, *(CommitOperationDelete(name) for name in sorted(_stale(there, what.files)))],
                commit_message=f"guidedrift {what.tag}",
                repo_type=kind,
                # No one else's change is overwritten: the Hub refuses when its head has moved.
                parent_commit=info.sha,
            )
        if what.tag not in tags:
            api.create_tag(repo, tag=what.tag, revision=commit.oid, repo_type=kind, exist_ok=True)
    place = f"{api.endpoint}/{'datasets/' if kind == 'dataset' else ''}{repo}"
    return Published(place, commit.oid, what.tag, bool(info.private), commit.oid != info.sha)


def _is_ours(there: set[str], files: Mapping[str, Path]) -> bool:
    # What the Hub or its web page put into a new repository, or the commit of a run that broke off before its tag.
    return there <= {".gitattributes", *files}


def _stale(there: set[str], files: Mapping[str, Path]) -> set[str]:
    # Files of arms that the study has no more. What others put beside our folders stays.
    folders = {name.split("/")[0] for name in files if "/" in name}
    return {name for name in there - set(files) if "/" in name and name.split("/")[0] in folders}


def _batches(additions: Sequence[CommitOperationAdd]) -> Iterator[Sequence[CommitOperationAdd]]:
    for start in range(0, len(additions), _AT_ONCE):
        yield additions[start : start + _AT_ONCE]


@contextmanager
def _quiet_client() -> Iterator[None]:
    # One bar instead of the client's bar a file; its warnings name addresses that are signed for an upload.
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
        logger.setLevel(level)


@contextmanager
def _explained(repo: str, token: str) -> Iterator[None]:
    # The client's errors as one line without the token, each with its way out.
    try:
        yield
    except OfflineModeIsEnabled:
        raise InputError("HF_HUB_OFFLINE is set, and publishing needs the Hub; run it with HF_HUB_OFFLINE=0") from None
    except (*_CONNECTION, RuntimeError, ValueError) as error:
        reason = next((cause for cause in _causes(error) if isinstance(cause, _CONNECTION)), None)
        if reason is None:
            raise
        message = _way_out(reason, repo)
    else:
        return
    raise InputError(message.replace(token, "***"))


def _way_out(reason: BaseException, repo: str) -> str:
    again = "what was sent is kept; run the same command again to continue"
    if not isinstance(reason, HfHubHTTPError):
        return f"the Hub at {constants.ENDPOINT} does not answer ({type(reason).__name__}); {again}"
    status = reason.response.status_code
    said = " ".join((reason.server_message or "").split())[:200] or "no reason given"
    if status == 401:
        return f"the Hub refuses the token (401: {said}); {_WRITE_TOKEN}"
    if status == 403:
        return f"the token may not write to {repo} (403: {said}); choose another owner, or {_WRITE_TOKEN}"
    if status == 412:
        return f"someone else changed {repo} meanwhile (412: {said}); look at it, then run the same command again"
    return f"the Hub refuses {repo} ({status}: {said}); {again}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def parse_settings(words: Sequence[str], dry_run: bool) -> Destination:
    """Settings of key=value words. Raises InputError that names the key and the allowed ones."""
    given = dict(word.split("=", 1) for word in words if "=" in word)
    if lone := [word for word in words if "=" not in word]:
        raise InputError(f"'{lone[0]}' is not a key=value; known keys: {', '.join(Destination.model_fields)}")
    try:
        settings = Destination.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        key, message = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        known = f"known keys: {', '.join(Destination.model_fields)}"
        if first["type"] in ("missing", "extra_forbidden"):
            raise InputError(
                f"{key} is {'missing' if first['type'] == 'missing' else 'not a known key'}; {known}"
            ) from None
        raise InputError(f"{key} is {first['input']!r}: {message}") from None
    return settings.model_copy(update={"dry_run": settings.dry_run or dry_run})


def _shown(size: int) -> str:
    return f"{size / 1e6:.2f} MB" if size >= 10_000 else f"{size} B"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.publishing.publish",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "settings",
        nargs="*",
        metavar="key=value",
        help="repo_id=<owner>/<name>; what=dataset (default) or models; private=true (default) or false",
    )
    parser.add_argument("--dry-run", action="store_true", help="list files and sizes, check them, and send nothing")
    arguments = parser.parse_args()
    settings = parse_settings(arguments.settings, arguments.dry_run)
    what = publication(settings.what, Path())
    check_publishable(what.files, _LABELS)
    total = f"{len(what.files)} files, {_shown(what.size)}"
    if settings.dry_run:
        for name, path in what.files.items():
            print(f"{_shown(path.stat().st_size):>12}  {name}")
        kind = "private" if settings.private else "public"
        print(f"publish: dry run, nothing was sent; {total} would go to {kind} {settings.repo_id} with tag {what.tag}")
        return
    done = publish(what, settings, hub_token())
    if done.new:
        print(f"publish: {total} in commit {done.commit[:8]} with tag {done.tag}")
    else:
        print(f"publish: unchanged since commit {done.commit[:8]} (tag {done.tag}); no new commit")
    print(f"{'private' if done.private else 'public'}: {done.url}")


if __name__ == "__main__":
    run_stage(main)
