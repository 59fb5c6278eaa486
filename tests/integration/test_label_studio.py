"""The whole way of a label on the real Label Studio: push, people (over the API and in a browser), pull."""

import io
import os
import pty
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import yaml
from compositions import composed
from datasets import Features, Value
from datasets import Image as EncodedImage
from free_port import free_port
from label_studio_sdk.client import LabelStudio
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import Browser, Page, Route, expect
from pydantic import SecretStr
from repository_copy import ROOT

from labeling.label_studio import demo
from labeling.label_studio.connection import (
    KEY_VARIABLE,
    SERVER_FOLDER,
    URL_VARIABLE,
    Connection,
    Credentials,
    ServerUnavailable,
    answers,
    client_of,
)
from labeling.label_studio.interface import choice
from labeling.label_studio.project import find_project, tasks_on_server
from labeling.label_studio.pull import pull
from labeling.label_studio.push import push
from labeling.label_studio.server import ENVIRONMENT, make_environment, running_server
from labeling.rates.label_rates import ArmScores, estimate
from labeling.records import (
    SAMPLED_PAIRS,
    SAMPLED_TASKS,
    Label,
    SampledPair,
    SampledTask,
    read_labels,
    read_pair_labels,
    write_labels,
    write_pairs,
    write_tasks,
)
from pipeline.errors import InputError
from pipeline.layout import PARAMS, SETS
from pipeline.storage.shards import write_shard
from pipeline.study.study import Study, parse_study

# Words that stand in no program, so that finding one in a response means that it was told.
ARMS = ("zebrafish", "quokkaarm")
PROMPT = "1person, <img src=x onerror=document.title='owned'><b>solo</b>"
IMAGES = 8


class Server:
    """The test's own server, started by the command of `make label-studio`; it can be killed and started again."""

    def __init__(self, project: Path):
        self.project, self.folder, self.port = project, project / SERVER_FOLDER, free_port()
        self.people = dict[str, Labeller]()
        make_environment(ROOT / ENVIRONMENT)
        (project / ENVIRONMENT).symlink_to(ROOT / ENVIRONMENT)

    def start(self) -> None:
        self.command = subprocess.Popen(
            [sys.executable, "-m", "labeling.label_studio.server", "--port", str(self.port)],
            cwd=self.project,
            env={**os.environ, "PYTHONPATH": str(ROOT), "DATABASE_URL": ""},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.command.stdout is not None
        said = self.command.stdout.readline()
        assert said.startswith(f"Label Studio: http://127.0.0.1:{self.port} "), said
        assert "password in .label-studio/credentials.json" in said, "this is no terminal"
        self.credentials = Credentials.model_validate_json((self.folder / "credentials.json").read_bytes())

    def kill(self) -> None:
        for process in psutil.Process(self.command.pid).children():
            process.kill()
        assert self.command.wait(60) == 2

    def stop(self) -> None:
        self.command.terminate()
        assert self.command.wait(60) == 0
        assert not answers(f"http://127.0.0.1:{self.port}")

    @property
    def connection(self) -> Connection:
        return Connection(self.credentials.url, self.credentials.token, "the test")

    def labeller(self, name: str) -> "Labeller":
        """A person who signed up by invitation, with a token of their own."""
        if name not in self.people:
            key = {"Authorization": f"Token {self.credentials.token.get_secret_value()}"}
            email, password = f"{name}@example.org", "a long password"
            with httpx.Client(base_url=self.credentials.url, follow_redirects=True, timeout=60) as browser:
                invitation = httpx.get(f"{self.credentials.url}/api/invite", headers=key).json()["invite_url"]
                browser.get(invitation)
                form = {"email": email, "password": password, "csrfmiddlewaretoken": browser.cookies["csrftoken"]}
                browser.post(invitation, data=form, headers={"Referer": self.credentials.url})
                token = browser.get("/api/current-user/token").json()["token"]
            self.people[name] = Labeller(self.credentials.url, email, password, token)
        return self.people[name]


class Labeller:
    def __init__(self, url: str, email: str, password: str, token: str):
        self.url, self.email, self.password, self.token = url, email, password, token
        self.client = LabelStudio(base_url=url, api_key=token)

    def answers(self, task: int, *result: dict[str, object], skip: bool = False) -> int:
        return int(self.client.annotations.create(task, result=list(result), was_cancelled=skip).id)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("label-studio"))
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two arms' images, their arm also in the metadata, in the encoder and in the name inside the shard."""
    folder = tmp_path_factory.mktemp("sets")
    for number, arm in enumerate(ARMS):
        cells = []
        for k in range(IMAGES):
            said = PngInfo()
            said.add_text("arm", arm)
            content = io.BytesIO()
            image(number, k).save(content, "png", pnginfo=said, compress_level=1 + 8 * number)
            cells.append({"bytes": content.getvalue(), "path": f"{arm}.png"})
        columns = {"image_id": [f"{arm}-{k:06}" for k in range(IMAGES)], "image": cells}
        features = Features({"image_id": Value("string"), "image": EncodedImage()})
        write_shard(folder / arm / "part-00000.parquet", columns, features, "mark")
    return folder


def image(number: int, k: int) -> Image.Image:
    drawn = Image.new("RGB", (64, 64), (200 - 20 * k, 60 + 100 * number, 25 * k))
    drawn.putpixel((k, k), (255, 255, 255))
    return drawn


def study(name: str, **labeling: Any) -> Study:
    content = composed()
    content["name"] = name
    content["labeling"] |= labeling
    return parse_study(content, "the test's study")


def tasks(count: int = IMAGES, overlap: int = 1) -> list[SampledTask]:
    """Arms alternate in the queue, and the task ids run against it."""
    return [
        SampledTask(
            task_id=f"{0xFEDC - k:016x}",
            image_id=f"{ARMS[k % 2]}-{k // 2 % IMAGES:06}",
            arm=ARMS[k % 2],
            pair_id=k // 2 % IMAGES,
            canvas="64x64",
            stratum=ARMS[k % 2],
            inclusion_probability=0.5,
            batch="random",
            overlap=overlap if k == 1 else 1,
            position=k,
        )
        for k in range(count)
    ]


def pairs() -> list[SampledPair]:
    return [
        SampledPair(
            task_id=f"{0xABCD - k:016x}",
            pair_id=k,
            prompt=PROMPT,
            left_arm=ARMS[k % 2],
            right_arm=ARMS[1 - k % 2],
            left_image_id=f"{ARMS[k % 2]}-{k:06}",
            right_image_id=f"{ARMS[1 - k % 2]}-{k:06}",
            position=k,
        )
        for k in range(2)
    ]


def numbers(server: Server, name: str, kind: Any = "tasks") -> dict[str, int]:
    """Label Studio's number of every task of a study, by our id, in the order in which people see them."""
    with client_of(server.connection) as client:
        project = find_project(client, name, kind)
        assert project is not None
        listed = sorted(tasks_on_server(client, project, "id,data"), key=lambda task: int(task.id))
        return {task.data["task_id"]: int(task.id) for task in listed}


def test_labels_of_two_people_arrive_once_under_pseudonyms(server: Server, sets: Path, tmp_path: Path) -> None:
    queue = tasks(overlap=2)
    said = push(server.connection, study("two"), queue, [], sets)
    assert said.startswith("push: 8 of 8 tasks sent")
    assert push(server.connection, study("two"), queue, [], sets).startswith("push: 0 of 8 tasks sent")
    number = numbers(server, "two")
    assert list(number) == [task.task_id for task in queue]
    with client_of(server.connection) as client:
        assert [client.tasks.get(str(number[task.task_id])).overlap for task in queue[:3]] == [1, 2, 1]

    ann, bob = server.labeller("ann"), server.labeller("bob")
    first, second, third, fourth = (task.task_id for task in queue[:4])
    note = {
        "from_name": "note",
        "to_name": "image",
        "type": "textarea",
        "value": {"text": ["<b>two</b> \N{EM DASH} heads"]},
    }
    ann.answers(number[first], choice("verdict", "malformed_human"), choice("malformed_parts", "limbs", "face"), note)
    ann.answers(number[second], choice("verdict", "pattern"))
    bob.answers(number[second], choice("verdict", "object_or_scenery"))
    ann.answers(number[third], skip=True)
    ann.answers(number[fourth], choice("verdict", "legit_human"), choice("body_shape", "other"))
    taken_back = bob.answers(number[fourth], choice("verdict", "legit_human"))
    changed = bob.answers(number[fourth], choice("verdict", "pattern"), choice("body_shape", "other"))
    bob.client.annotations.update(changed, result=[choice("verdict", "object_or_scenery")])

    said = pull(server.connection, "two", tmp_path)
    assert "5 labels of tasks in labels/tasks.jsonl, 5 of them new" in said
    file = tmp_path / "labels/tasks.jsonl"
    labels = {(label.task_id, label.labeller): label for label in read_labels(file)}
    anns = next(who for task, who in labels if task == first)
    bobs = next(who for task, who in labels if task == second and who != anns)
    assert labels.keys() == {(first, anns), (second, anns), (second, bobs), (fourth, anns), (fourth, bobs)}
    assert labels[first, anns].malformed_parts == ["face", "limbs"]
    assert labels[first, anns].note == "<b>two</b> \N{EM DASH} heads"
    assert labels[fourth, anns].body_shape == "other"
    assert labels[fourth, bobs].verdict == "object_or_scenery"
    assert not any(label.simulated for label in labels.values())
    text = file.read_text("utf-8")
    assert "example.org" not in text
    assert "ann" not in {anns[:3], bobs[:3]}

    of_two = study("two")
    of_two = of_two.model_copy(
        update={"arms": dict.fromkeys(ARMS, next(iter(of_two.arms.values()))), "baseline": ARMS[0]}
    )
    rows = {pair: pair for pair in range(IMAGES)}
    scores = {arm: ArmScores({"p_malformed": np.full(IMAGES, 0.5)}, rows) for arm in ARMS}
    rates = estimate(of_two, queue, list(labels.values()), [], [], scores)
    # Ann's one image of the first arm is malformed: Wilson's interval of 1 in 1 begins at 1 / (1 + 1.96^2).
    found = rates.of_arm(ARMS[0]).verdicts["malformed_human"].classical
    assert (found.value, found.n, found.high) == (1, 1, 1)
    assert found.low == pytest.approx(0.2065, abs=1e-4)
    # Of the second arm two images are labelled by both, who agree on neither: alpha is 1 - 1 / (1 - 2/12).
    shares = {verdict: rate.classical.value for verdict, rate in rates.of_arm(ARMS[1]).verdicts.items()}
    assert shares == {"pattern": 0.25, "object_or_scenery": 0.5, "malformed_human": 0, "legit_human": 0.25}
    assert rates.of_arm(ARMS[1]).body_normal.value == 0
    assert rates.agreement.alpha.value == pytest.approx(-0.2)

    pull(server.connection, "two", tmp_path)
    assert file.read_text("utf-8") == text
    # A label of a task that the server does not have stays; one that its labeller deleted goes.
    stranger = Label.model_validate_json(text.splitlines()[0]).model_copy(update={"task_id": "gone", "labeller": anns})
    write_labels(file, [*read_labels(file), stranger])
    for annotation in (changed, taken_back):
        bob.client.annotations.delete(annotation)
    pull(server.connection, "two", tmp_path)
    kept = {(label.task_id, label.labeller) for label in read_labels(file)}
    assert kept == labels.keys() - {(fourth, bobs)} | {("gone", anns)}
    pull(server.connection, "two", tmp_path, only_server=True)
    assert "gone" not in file.read_text("utf-8")


def test_labels_stay_when_another_study_has_the_same_images(server: Server, sets: Path, tmp_path: Path) -> None:
    # The default study's arms are arms of the sweep, too: the same tasks, in a project of its own.
    for name in ("narrow", "wide"):
        push(server.connection, study(name), tasks(4), [], sets)
    ann = server.labeller("ann")
    first, second, *_ = numbers(server, "narrow")
    ann.answers(numbers(server, "narrow")[first], choice("verdict", "pattern"))
    for name in ("narrow", "wide"):
        pull(server.connection, name, tmp_path)
    ann.answers(numbers(server, "wide")[second], choice("verdict", "object_or_scenery"))
    for name in ("wide", "narrow"):
        pull(server.connection, name, tmp_path)
    labels = {label.task_id: label.verdict for label in read_labels(tmp_path / "labels/tasks.jsonl")}
    assert labels.items() >= {(first, "pattern"), (second, "object_or_scenery")}


def test_an_answer_that_the_interface_does_not_know_is_refused_by_its_task(
    server: Server, sets: Path, tmp_path: Path
) -> None:
    push(server.connection, study("unknown"), tasks(2), [], sets)
    number = numbers(server, "unknown")
    good, bad = number
    ann = server.labeller("ann")
    ann.answers(number[good], choice("verdict", "pattern"))
    ann.answers(number[bad], choice("verdict", "<i>cat</i>"))
    with pytest.raises(InputError, match=rf"task_id '{bad}' .*verdict '<i>cat</i>' is not in the interface") as error:
        pull(server.connection, "unknown", tmp_path)
    assert good not in str(error.value)
    assert not (tmp_path / "labels").exists()


def test_a_push_that_lost_its_server_is_completed_by_the_next(server: Server, sets: Path, monkeypatch: Any) -> None:
    queue, failures = tasks(160), list[BaseException]()
    # The server shall be lost between the first request and the last.
    monkeypatch.setattr("labeling.label_studio.push._TASKS_A_REQUEST", 10)

    def attempt() -> None:
        try:
            push(server.connection, study("broken"), queue, [], sets)
        except InputError as error:
            failures.append(error)

    sender = threading.Thread(target=attempt)
    sender.start()
    deadline, project = time.monotonic() + 60, None
    with client_of(server.connection) as client:
        while not project or not next(tasks_on_server(client, project, "id"), None):
            assert time.monotonic() < deadline, "no task arrived"
            project = find_project(client, "broken", "tasks")
    server.kill()
    sender.join()
    server.start()
    assert [type(error) for error in failures] == [ServerUnavailable]
    assert "what was done so far is kept" in str(failures[0])
    sent = len(numbers(server, "broken"))
    assert 0 < sent < len(queue)
    assert push(server.connection, study("broken"), queue, [], sets).startswith(f"push: {len(queue) - sent} of 160")
    assert list(numbers(server, "broken")) == [task.task_id for task in queue]
    with client_of(server.connection) as client:
        project = find_project(client, "broken", "tasks")
        assert project is not None
        assert len(list(tasks_on_server(client, project, "id"))) == len(queue)


def test_a_revoked_token_is_told_without_secrets(server: Server, sets: Path, tmp_path: Path) -> None:
    eve = server.labeller("eve")
    eve.client.users.reset_token()
    revoked = Connection(eve.url, SecretStr(eve.token), "LABEL_STUDIO_API_KEY")
    for attempt in (lambda: push(revoked, study("two"), tasks(), [], sets), lambda: pull(revoked, "two", tmp_path)):
        with pytest.raises(ServerUnavailable, match=r"refuses the key from LABEL_STUDIO_API_KEY \(401\)") as error:
            attempt()
        assert eve.token not in str(error.value)
        assert not re.search("cookie|session|csrf", str(error.value), re.IGNORECASE)


def test_a_server_that_is_down_is_told(sets: Path, tmp_path: Path) -> None:
    down = Connection(f"http://user:secret@127.0.0.1:{free_port()}", SecretStr("k" * 40), "LABEL_STUDIO_API_KEY")
    with pytest.raises(ServerUnavailable, match=r"Label Studio at http://127.0.0.1:\d+ does not answer") as error:
        pull(down, "two", tmp_path)
    assert "secret" not in str(error.value)


def test_local_files_are_served_without_an_upload(server: Server, sets: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT", str(server.folder / "images"))
    push(server.connection, study("shared", transport="local_files"), tasks(3), [], sets)
    ann = server.labeller("ann")
    with client_of(server.connection) as client:
        project = find_project(client, "shared", "tasks")
        assert project is not None
        addresses = [task.data["image"] for task in tasks_on_server(client, project, "id,data")]
    seen = [httpx.get(ann.url + a, headers={"Authorization": f"Token {ann.token}"}) for a in addresses]
    assert [Image.open(io.BytesIO(got.content)).getpixel((0, 0)) for got in seen[:2]] == [
        image(0, 0).getpixel((0, 0)),
        image(1, 0).getpixel((0, 0)),
    ]
    # The server's etag is the file's time and size: the time would tell the order in which arms were written.
    assert {got.headers["etag"].partition("-")[0] for got in seen} == {'W/"0'}


def lay_project(folder: Path, name: str, queue: list[SampledTask], sets: Path) -> None:
    """What `make label-demo` reads, in a project's folder."""
    (folder / PARAMS).write_text(yaml.safe_dump({**composed(), "name": name}))
    write_tasks(folder / SAMPLED_TASKS, queue)
    write_pairs(folder / SAMPLED_PAIRS, pairs())
    (folder / SETS).symlink_to(sets)
    (folder / "models").symlink_to(ROOT / "models")


def test_simulated_labels_say_so_and_pre_annotations_do_not_pile_up(
    server: Server, sets: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    queue = tasks(overlap=2)
    lay_project(tmp_path, "judged", queue, sets)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(URL_VARIABLE, server.credentials.url)
    monkeypatch.setenv(KEY_VARIABLE, server.credentials.token.get_secret_value())
    shown = study("judged", preannotate=True)
    for sent in (8, 0):
        assert f"{sent} pre-annotations sent" in push(server.connection, shown, queue, pairs(), sets)
    # Of what one labeller is enough for nothing is left to a second one.
    for labeller, done in (("judge", (8, 2)), ("judge", (0, 0)), ("second", (1, 0))):
        monkeypatch.setattr("sys.argv", ["labeling.label_studio.demo", "--error-rate", "0", "--labeller", labeller])
        demo.main()
        counts = "{} SIMULATED labels of tasks and {} SIMULATED labels of pairs".format(*done)
        assert f"label-demo: {counts} by '{labeller}'" in capsys.readouterr().out
    said = pull(server.connection, "judged", tmp_path)
    assert "9 SIMULATED" in said
    assert "2 SIMULATED" in said
    labels = read_labels(tmp_path / "labels/tasks.jsonl")
    chosen = read_pair_labels(tmp_path / "labels/pairs.jsonl")
    assert all(label.simulated and label.labeller.startswith("simulated-") for label in [*labels, *chosen])
    assert {label.task_id for label in chosen} == {pair.task_id for pair in pairs()}
    with client_of(server.connection) as client:
        project = find_project(client, "judged", "tasks")
        assert project is not None
        predictions = list(client.predictions.list(project=project.number))
        verdicts = {p.task: p.result[0]["value"]["choices"][0] for p in predictions}
    assert len(predictions) == 8
    number = numbers(server, "judged")
    assert {number[label.task_id]: label.verdict for label in labels} == verdicts


def test_simulated_labels_are_not_mixed_with_peoples_without_asking(
    server: Server, sets: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    queue = tasks()
    lay_project(tmp_path, "asked", queue, sets)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(URL_VARIABLE, server.credentials.url)
    monkeypatch.setenv(KEY_VARIABLE, server.credentials.token.get_secret_value())
    push(server.connection, study("asked"), queue, pairs(), sets)
    number = numbers(server, "asked")
    server.labeller("ann").answers(number[queue[0].task_id], choice("verdict", "pattern"))

    monkeypatch.setattr("sys.argv", ["labeling.label_studio.demo"])
    # Nobody is at this terminal who could be asked.
    with pytest.raises(InputError, match=r"people have given 1 labels of this study; .* --beside-people"):
        demo.main()
    monkeypatch.setattr("sys.argv", ["labeling.label_studio.demo", "--beside-people"])
    demo.main()
    assert "7 SIMULATED labels of tasks and 2 SIMULATED labels of pairs" in capsys.readouterr().out
    assert "8 labels of tasks in labels/tasks.jsonl, 8 of them new, 7 SIMULATED" in pull(server.connection, "asked")

    monkeypatch.setattr("sys.argv", ["labeling.label_studio.demo", "--remove"])
    demo.main()
    # With those of the tests before, which are of the same tasks.
    assert re.search(r"\d+ SIMULATED labels left the server; next: `.venv/bin/dvc repro`", capsys.readouterr().out)
    pull(server.connection, "asked")
    (left,) = read_labels(tmp_path / "labels/tasks.jsonl")
    assert not left.simulated
    assert read_pair_labels(tmp_path / "labels/pairs.jsonl") == []


def test_the_login_is_shown_once_and_only_to_a_terminal(tmp_path: Path) -> None:
    (tmp_path / ENVIRONMENT).symlink_to(ROOT / ENVIRONMENT)
    command = [sys.executable, "-m", "labeling.label_studio.server", "--port", str(free_port())]
    said = []
    for _ in range(2):
        ours, its = pty.openpty()
        started = subprocess.Popen(
            command,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "DATABASE_URL": ""},
            stdout=its,
            stderr=subprocess.DEVNULL,
        )
        os.close(its)
        with os.fdopen(ours, encoding="utf-8") as terminal:
            said.append(terminal.readline() + terminal.readline())
            started.terminate()
            assert started.wait(60) == 0
    credentials = Credentials.model_validate_json((tmp_path / SERVER_FOLDER / "credentials.json").read_bytes())
    password = credentials.password.get_secret_value()
    assert [password in text for text in said] == [True, False]
    assert "password in .label-studio/credentials.json" in said[1]
    assert all("next: `.venv/bin/dvc repro` in another terminal sends the images" in text for text in said)


class Sitting:
    """A labeller at the browser, and everything that the server told it."""

    def __init__(self, browser: Browser, person: Labeller):
        self.page: Page = browser.new_page(viewport={"width": 1360, "height": 860})
        self.page.set_default_timeout(60_000)
        self.told: list[tuple[str, bytes]] = []
        self.page.route("**/*", self.listen)
        self.url = person.url
        self.page.goto(f"{person.url}/user/login/")
        self.page.fill("input[name=email]", person.email)
        self.page.fill("input[name=password]", person.password)
        self.page.click("button[type=submit]")
        self.page.wait_for_url(f"{person.url}/**")

    def open(self, project: int) -> None:
        self.page.goto(f"{self.url}/projects/{project}/data?labeling=1")
        # The guide is shown before the first task.
        expect(self.page.get_by_text("Labeling Instructions")).to_be_visible()
        self.page.keyboard.press("Escape")
        expect(self.page.get_by_text("Labeling Instructions")).to_be_hidden()

    def choose(self, key: str, choice: str) -> None:
        """Press a hotkey, again where the page was not listening yet."""
        box = self.page.get_by_label(choice, exact=False).first
        for _ in range(5):
            self.page.keyboard.press(key)
            try:
                expect(box).to_be_checked(timeout=3_000)
                return
            except AssertionError:
                continue
        raise AssertionError(f"key {key} does not choose {choice}")

    def submit(self) -> None:
        """Submit by hotkey, and wait until the server has it and shows the next task."""
        with self.page.expect_response(lambda got: "/annotations" in got.url and got.request.method == "POST"):
            self.page.keyboard.press("Control+Enter")
        self.page.wait_for_load_state("networkidle")

    def listen(self, route: Route) -> None:
        """Note address, headers and body of every response but those that are the program itself."""
        if "/react-app/" in route.request.url or "/static/" in route.request.url:
            route.continue_()
            return
        response = route.fetch(max_redirects=0)
        self.told.append((f"{response.url} {response.headers}", response.body()))
        route.fulfill(response=response)


def test_a_person_labels_with_hotkeys_and_learns_nothing_of_the_arms(
    server: Server, sets: Path, tmp_path: Path, browser: Browser
) -> None:
    name = "seen"
    push(server.connection, study(name), tasks(), pairs(), sets)
    with client_of(server.connection) as client:
        projects = [find_project(client, name, kind) for kind in ("tasks", "pairs")]
    assert projects[0] is not None
    assert projects[1] is not None
    sitting = Sitting(browser, server.labeller("carol"))
    page = sitting.page

    sitting.open(projects[0].number)
    sitting.choose("3", "Object or scenery")
    expect(page.get_by_text("Body shape")).to_be_hidden()
    sitting.choose("2", "Malformed human")
    for key, choice_of_it in (("w", "Other[w]"), ("s", "Hands"), ("f", "Count")):
        sitting.choose(key, choice_of_it)
    page.get_by_placeholder("Note (optional)").fill("<b>six</b> fingers")
    page.get_by_placeholder("Note (optional)").press("Shift+Enter")
    expect(page.get_by_text("<b>six</b> fingers")).to_be_visible()
    shot = tmp_path / "label-studio.png"
    page.screenshot(path=shot)
    assert_pixels_are_sharp(shot)
    sitting.submit()
    # Of a changed mind only what still shows counts.
    sitting.choose("2", "Malformed human")
    sitting.choose("a", "Face")
    sitting.choose("4", "Pattern")
    sitting.submit()

    sitting.open(projects[1].number)
    expect(page.get_by_text(PROMPT)).to_be_visible()
    sitting.choose("2", "Tie")
    sitting.submit()
    page.goto(f"{server.credentials.url}/projects/{projects[0].number}/data")
    page.wait_for_load_state("networkidle")
    assert page.title() != "owned"
    assert page.locator("img[onerror]").count() == 0

    pull(server.connection, name, tmp_path)
    queue = tasks()
    labels = {label.task_id: label for label in read_labels(tmp_path / "labels/tasks.jsonl")}
    assert labels.keys() == {queue[0].task_id, queue[1].task_id}
    label = labels[queue[0].task_id]
    assert (label.verdict, label.body_shape) == ("malformed_human", "other")
    assert label.malformed_parts == ["hands", "count"]
    assert label.note == "<b>six</b> fingers"
    assert datetime.now(UTC).timestamp() - label.created_at.timestamp() < 600
    second = labels[queue[1].task_id]
    assert (second.verdict, second.body_shape, second.malformed_parts) == ("pattern", None, [])
    chosen = read_pair_labels(tmp_path / "labels/pairs.jsonl")
    assert [(label.task_id, label.choice) for label in chosen] == [(pairs()[0].task_id, "tie")]

    images = 0
    for address, body in sitting.told:
        for arm in ARMS:
            assert arm not in address
            assert arm.encode() not in body, address
        if "/data/upload/" in address and "guide-" not in address:
            images += 1
            assert re.search(r"-[0-9a-f]{16}(-left|-right)?\.png", address), address
            assert Image.open(io.BytesIO(body)).info == {}
    assert images >= 4
    page.close()


def assert_pixels_are_sharp(shot: Path) -> None:
    """The one white pixel of the first image is a square of pure white, 8 screen pixels wide."""
    shown = Image.open(shot).convert("RGB")
    base = image(0, 0).getpixel((40, 40))
    columns = [x for x in range(shown.width // 2) if shown.getpixel((x, 400)) == base]
    left, right = columns[0], columns[-1]
    top = next(y for y in range(shown.height) if shown.getpixel((right, y)) == base)
    assert right - left + 1 == 512
    corner = [shown.getpixel((left + k, top + 4)) for k in range(12)]
    assert corner == [(255, 255, 255)] * 8 + [base] * 4


def test_a_postgresql_that_is_not_there_is_told_without_its_password(tmp_path: Path) -> None:
    folder, address = tmp_path / "new", f"postgresql://labeller:geheim@127.0.0.1:{free_port()}/labels"
    with (
        pytest.raises(
            InputError, match=r"Label Studio ended with code \d+ while starting; .*server\.log says why"
        ) as error,
        running_server(folder, ROOT / ".venv-label-studio", free_port(), address),
    ):
        raise AssertionError("a server without its database came up")
    assert "geheim" not in str(error.value) + (folder / "server.log").read_text()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert "Connection refused" in (folder / "server.log").read_text()


def test_credentials_are_for_the_owner_alone(server: Server) -> None:
    file = server.folder / "credentials.json"
    assert file.stat().st_mode & 0o777 == 0o600
    assert Credentials.model_validate_json(file.read_bytes()) == server.credentials
    log = (server.folder / "server.log").read_text()
    assert server.credentials.password.get_secret_value() not in log
    assert server.credentials.token.get_secret_value() not in log
