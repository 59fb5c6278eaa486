"""The Label Studio projects of a study: one for verdicts, one for pairs, each found again by its fingerprint."""

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from label_studio_sdk.core.api_error import ApiError

from labeling.guide import PAIRS_GUIDE, examples, tasks_guide
from labeling.interface import INTERFACE, INTERFACE_PAIRS
from labeling.records import Verdict
from pipeline.files import fingerprint
from pipeline.shards import encode_png

if TYPE_CHECKING:
    from label_studio_sdk.client import LabelStudio
    from label_studio_sdk.types.file_upload import FileUpload

Kind = Literal["tasks", "pairs"]
INTERFACES: dict[Kind, Path] = {"tasks": INTERFACE, "pairs": INTERFACE_PAIRS}

_TITLES: dict[Kind, str] = {"tasks": "guidedrift {study}: pictures", "pairs": "guidedrift {study}: pairs"}
_DESCRIPTION = "Blind labels for guidedrift; `dvc repro push pull` finds this project by: guidedrift:{mark}:{key}"
_MARK = re.compile(r"guidedrift:([0-9a-f]{16}):([0-9a-f]{32})")
_STRIP = "guide-{verdict}.png"


@dataclass(frozen=True)
class Project:
    """A project on a server. `pseudonym_key` makes labellers' pseudonyms; all projects of a server share it."""

    number: int
    mark: str
    pseudonym_key: str


def project_mark(study: str, kind: Kind) -> str:
    """What a project is known by: a changed question or guide asks something else, so it gets a new project."""
    guide = PAIRS_GUIDE if kind == "pairs" else tasks_guide(dict.fromkeys(get_args(Verdict), ""))
    return fingerprint([study, kind, INTERFACES[kind].read_text("utf-8"), guide])


def find_project(client: "LabelStudio", study: str, kind: Kind) -> Project | None:
    """The study's project on this server, or None."""
    return _known(client).get(project_mark(study, kind))


def ensure_project(client: "LabelStudio", study: str, kind: Kind) -> Project:
    """The study's project on this server, created where it is missing, with its guide."""
    known = _known(client)
    mark = project_mark(study, kind)
    project = known.get(mark)
    if project is None:
        # Kept on the server, which knows the labellers anyway, so that every machine that pulls from it makes the
        # same pseudonyms, and the repository cannot undo them.
        key = next((other.pseudonym_key for other in known.values()), secrets.token_hex(16))
        created: Any = client.projects.create(
            title=_TITLES[kind].format(study=study),
            description=_DESCRIPTION.format(mark=mark, key=key),
            label_config=INTERFACES[kind].read_text("utf-8"),
            sampling="Sequential sampling",
            show_overlap_first=False,
            show_collab_predictions=False,
            show_skip_button=True,
            enable_empty_annotation=False,
            maximum_annotations=1,
        )
        project = Project(int(created.id), mark, key)
    if not client.projects.get(project.number).expert_instruction:
        guide = PAIRS_GUIDE if kind == "pairs" else tasks_guide(_upload_examples(client, project))
        client.projects.update(project.number, expert_instruction=guide, show_instruction=True)
    return project


def upload_pictures(client: "LabelStudio", project: Project, pictures: Mapping[str, bytes]) -> dict[str, str]:
    """Upload at most 100 PNGs by name to a project for verdicts; returns their addresses on the server by that name.

    Label Studio takes files only where an interface shows one thing, so the pictures of pairs go there too.
    """
    # The SDK has no method for files; the client that it wraps knows how to use both kinds of keys.
    response = client._client_wrapper.httpx_client.request(
        f"api/projects/{project.number}/import",
        method="POST",
        params={"commit_to_project": "false"},
        files={name: (name, content, "image/png") for name, content in pictures.items()},
    )
    if response.status_code >= 400:
        raise ApiError(status_code=response.status_code, body=response.text)
    return _addresses(client.files.list(project.number, ids=json.dumps(response.json()["file_upload_ids"])))


def uploaded_pictures(client: "LabelStudio", project: Project) -> dict[str, str]:
    """The addresses of all uploaded pictures, by name."""
    return _addresses(client.files.list(project.number, all_=True))


def _addresses(uploads: Sequence["FileUpload"]) -> dict[str, str]:
    # The server puts 8 letters and a hyphen before the name.
    return {Path(upload.file).name[9:]: f"/data/{upload.file}" for upload in uploads}


def _upload_examples(client: "LabelStudio", project: Project) -> dict[Verdict, str]:
    strips = {verdict: _STRIP.format(verdict=verdict) for verdict in get_args(Verdict)}
    pictures = {strips[verdict]: encode_png(strip) for verdict, strip in examples().items()}
    addresses = upload_pictures(client, project, pictures)
    return {verdict: addresses[name] for verdict, name in strips.items()}


def _known(client: "LabelStudio") -> dict[str, Project]:
    # By mark; where there are two of a mark, the older one. Titles are not unique and are people's to change.
    known: dict[str, Project] = {}
    projects: list[Any] = list(client.projects.list(page_size=1000, include="id,description"))
    for listed in sorted(projects, key=lambda project: int(project.id)):
        found = _MARK.search(listed.description or "")
        if found:
            known.setdefault(found[1], Project(int(listed.id), found[1], found[2]))
    return known
