"""The Label Studio projects of a study: one for verdicts, one for pairs, each found again by its fingerprint."""

import hashlib
import json
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from label_studio_sdk.core.api_error import ApiError

from labeling.label_studio.guide import examples, guide
from labeling.label_studio.interface import INTERFACES, Kind, choices
from pipeline.results.rates import Verdict
from pipeline.storage.files import fingerprint
from pipeline.storage.shards import encode_png

if TYPE_CHECKING:
    from label_studio_sdk.client import LabelStudio
    from label_studio_sdk.types.file_upload import FileUpload

_TITLES: dict[Kind, str] = {"tasks": "guidedrift {study}: images", "pairs": "guidedrift {study}: pairs"}
_DESCRIPTION = "Blind labels for guidedrift, which finds this project by: guidedrift:{mark}:{key}:{setup}"
_MARK = re.compile(r"guidedrift:([0-9a-f]{16}):([0-9a-f]{32}):([0-9a-f]{16}|new)")
_STRIP = "guide-{verdict}.png"


@dataclass(frozen=True)
class Project:
    """A project on a server. `pseudonym_key` makes labellers' pseudonyms; all projects of a server share it.

    `setup` is of the interface and guide that it shows.
    """

    number: int
    mark: str
    pseudonym_key: str
    setup: str

    @property
    def description(self) -> str:
        """The project's description on the server, by which it is found."""
        return _DESCRIPTION.format(mark=self.mark, key=self.pseudonym_key, setup=self.setup)


def project_mark(study: str, kind: Kind) -> str:
    """What a project is known by: its study and the choices it offers. Wording, hotkeys and guide may change."""
    return fingerprint([study, kind, choices(INTERFACES[kind])])


def find_project(client: "LabelStudio", study: str, kind: Kind) -> Project | None:
    """The study's project on this server, or None."""
    return _known(client).get(project_mark(study, kind))


def other_projects(client: "LabelStudio", project: Project) -> list[Project]:
    """This server's projects of guidedrift but for one; tasks are the same wherever arms are the same."""
    return [other for mark, other in _known(client).items() if mark != project.mark]


def ensure_project(client: "LabelStudio", study: str, kind: Kind) -> Project:
    """The study's project on this server, created where it is missing, with the present interface and guide."""
    interface = INTERFACES[kind].read_text("utf-8")
    images = {_STRIP.format(verdict=verdict): encode_png(strip) for verdict, strip in examples().items()}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in images.items()}
    setup = fingerprint([interface, guide(kind, dict.fromkeys(get_args(Verdict), "")), digests])
    known = _known(client)
    mark = project_mark(study, kind)
    project = known.get(mark)
    if project is None:
        # Kept on the server, which knows the labellers anyway, so that every machine that pulls from it makes the
        # same pseudonyms, and the repository cannot undo them.
        key = next((other.pseudonym_key for other in known.values()), secrets.token_hex(16))
        project = Project(0, mark, key, "new")
        created: Any = client.projects.create(
            title=_TITLES[kind].format(study=study),
            description=project.description,
            label_config=interface,
            sampling="Sequential sampling",
            show_overlap_first=False,
            show_collab_predictions=False,
            show_skip_button=True,
            enable_empty_annotation=False,
            maximum_annotations=1,
        )
        project = replace(project, number=int(created.id))
    if project.setup != setup:
        addresses = upload_images(client, project, images) if kind == "tasks" else {}
        strips = {verdict: addresses.get(_STRIP.format(verdict=verdict), "") for verdict in get_args(Verdict)}
        project = replace(project, setup=setup)
        # The mark of the setup goes last, in one request with what it stands for.
        client.projects.update(
            project.number,
            label_config=interface,
            expert_instruction=guide(kind, strips),
            show_instruction=True,
            description=project.description,
        )
    return project


def tasks_on_server(client: "LabelStudio", project: Project, include: str) -> Iterator[Any]:
    """The project's tasks, with the fields `include` (comma-separated)."""
    yield from client.tasks.list(project=project.number, page_size=1000, fields="all", include=include)


def upload_images(client: "LabelStudio", project: Project, images: Mapping[str, bytes]) -> dict[str, str]:
    """Upload at most 100 PNGs by name to a project for verdicts; returns their addresses on the server by that name.

    Label Studio takes files only where an interface shows one thing, so the images of pairs go there too.
    """
    # The SDK has no method for files; the client that it wraps knows how to use both kinds of keys.
    response = client._client_wrapper.httpx_client.request(
        f"api/projects/{project.number}/import",
        method="POST",
        params={"commit_to_project": "false"},
        files={name: (name, content, "image/png") for name, content in images.items()},
    )
    if response.status_code >= 400:
        raise ApiError(status_code=response.status_code, body=response.text)
    return _addresses(client.files.list(project.number, ids=json.dumps(response.json()["file_upload_ids"])))


def uploaded_images(client: "LabelStudio", project: Project) -> dict[str, str]:
    """The addresses of all uploaded images, by name."""
    return _addresses(client.files.list(project.number, all_=True))


def _addresses(uploads: Sequence["FileUpload"]) -> dict[str, str]:
    # The server puts 8 letters and a hyphen before the name.
    return {Path(upload.file).name[9:]: f"/data/{upload.file}" for upload in uploads}


def _known(client: "LabelStudio") -> dict[str, Project]:
    # By mark; where there are two of a mark, the older one. Titles are not unique and are people's to change.
    known: dict[str, Project] = {}
    projects: list[Any] = list(client.projects.list(page_size=1000, include="id,description"))
    for listed in sorted(projects, key=lambda project: int(project.id)):
        found = _MARK.search(listed.description or "")
        if found:
            known.setdefault(found[1], Project(int(listed.id), found[1], found[2], found[3]))
    return known
