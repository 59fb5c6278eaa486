"""Publishing with the real client against a stand-in Hub on loopback: once, whole, private, and without leaks."""

import errno
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Features, Value
from hub_server import Hub, serve
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from repository_copy import ROOT
from safetensors.numpy import save_file
from small_study import ARMS, PARAMS, write_study

from labeling.records import SAMPLED_TASKS, write_tasks
from pipeline.errors import InputError
from pipeline.publishing import publish as publish_module
from pipeline.publishing.dataset import make_dataset
from pipeline.publishing.leaks import check_leaks, labeller_names
from pipeline.publishing.publish import parse_settings
from pipeline.storage.shards import read_set, write_shard
from pipeline.study.study import parse_study

TOKEN = "hf_" + "AbCdEfGh" * 4
REPO = "anna/study"
# Two shards per arm, and the pairs; beside them the card and the grid.
LARGE = 2 * len(ARMS) + 1
EMBEDDED = {"name": "tinybooru", "main": "models/tinybooru/main", "guide": "models/tinybooru/guide"}

Publish = Callable[..., str]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small study with its dataset, made by the stage."""
    root = tmp_path_factory.mktemp("built")
    write_study(root)
    write_tasks(root / SAMPLED_TASKS, [])
    make_dataset(parse_study({**PARAMS, "model": EMBEDDED}, "test"), root)
    return root


@pytest.fixture
def project(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it as working directory."""
    root = tmp_path / "project"
    shutil.copytree(built, root)
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve(TOKEN) as running:
        use_endpoint(monkeypatch, running.url)
        yield running


def use_endpoint(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    # `make test` sets HF_HUB_OFFLINE, as nothing else here may ask the Hub.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    # Xet needs storage servers of its own; without it the client speaks Git LFS, which the Hub understands as well.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    # The client waits up to half a minute between attempts.
    quick = SimpleNamespace(**{**vars(time), "sleep": lambda _: None})
    monkeypatch.setattr("huggingface_hub.utils._http.time", quick)


@pytest.fixture
def publish(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Publish:
    """The command with these words; returns all that it printed, in which the token must never be."""

    def run(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["publish", f"repo_id={REPO}", *words])
        refused = None
        try:
            publish_module.main()
        except InputError as error:
            refused = error
        output = "".join(capfd.readouterr())
        assert TOKEN not in f"{output}{refused}"
        if refused:
            assert "\n" not in str(refused)
            raise refused
        return output

    return run


def local(project: Path) -> dict[str, bytes]:
    folder = project / "data/dataset"
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def remote(hub: Hub) -> dict[str, bytes]:
    files = dict(hub.repository(REPO).commits[-1].files)
    del files[".gitattributes"]
    return files


def test_one_private_commit_with_a_tag_holds_data_and_card(project: Path, hub: Hub, publish: Publish) -> None:
    output = publish()
    repository = hub.repository(REPO)
    _, commit = repository.commits
    assert remote(hub) == local(project)
    assert repository.private
    ((tag, tagged),) = repository.tags.items()
    assert tagged == commit.oid
    assert tag in commit.message
    assert tag in output
    assert f"private: {hub.url}/datasets/{REPO}" in output


def test_a_second_publish_sends_nothing_and_makes_no_commit(project: Path, hub: Hub, publish: Publish) -> None:
    publish()
    sent, tags = hub.sent.total(), dict(hub.repository(REPO).tags)
    hub.requests.clear()
    assert "unchanged" in publish()
    assert hub.sent.total() == sent == LARGE
    assert len(hub.repository(REPO).commits) == 2
    assert hub.repository(REPO).tags == tags
    assert not any(word in request for request in hub.requests for word in ("/commit/", "/upload/", "/tag/", "create"))


def test_a_changed_set_is_one_more_commit_and_tag_and_only_its_change_is_sent(
    project: Path, hub: Hub, publish: Publish
) -> None:
    publish()
    (project / "data/dataset/README.md").write_bytes(local(project)["README.md"] + b"\nMore.\n")
    shutil.rmtree(project / "data/dataset/data/negative")
    publish()
    repository = hub.repository(REPO)
    assert len(repository.commits) == 3
    assert len(repository.tags) == 2
    assert remote(hub) == local(project)
    assert hub.sent.total() == LARGE


def test_public_has_to_be_said(project: Path, hub: Hub, publish: Publish) -> None:
    assert f"public: {hub.url}" in publish("private=false")
    assert not hub.repository(REPO).private


def test_a_public_repository_is_not_filled_by_default(project: Path, hub: Hub, publish: Publish) -> None:
    hub.create(REPO, private=False)
    with pytest.raises(InputError, match=f"{REPO} exists and is public; say private=false"):
        publish()
    assert len(hub.repository(REPO).commits) == 1
    assert hub.sent.total() == 0


def test_a_repository_of_something_else_is_left_alone(project: Path, hub: Hub, publish: Publish) -> None:
    hub.create(REPO).commits[-1].files["train.csv"] = b"a,b\n"
    with pytest.raises(InputError, match="exists and holds other things"):
        publish()
    assert hub.sent.total() == 0


def test_what_others_put_beside_the_data_stays(project: Path, hub: Hub, publish: Publish) -> None:
    publish()
    hub.repository(REPO).commits[-1].files["notes.md"] = b"mine"
    (project / "data/dataset/data/cfg/part-00001.parquet").unlink()
    publish()
    assert remote(hub) == {**local(project), "notes.md": b"mine"}


def test_a_connection_that_breaks_in_the_middle_is_continued(project: Path, hub: Hub, publish: Publish) -> None:
    hub.breaks_after = 3
    with pytest.raises(InputError, match=r"does not answer .*run the same command again to continue"):
        publish()
    repository = hub.repository(REPO)
    assert len(repository.commits) == 1
    assert hub.sent.total() == 3
    hub.breaks_after = None
    publish()
    assert hub.sent.total() == LARGE
    assert set(hub.sent.values()) == {1}
    assert len(repository.commits) == 2
    assert remote(hub) == local(project)


@pytest.mark.parametrize("status", [401, 404])
def test_a_storage_of_the_hub_that_does_not_answer_is_one_line(
    project: Path, hub: Hub, publish: Publish, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """With the client's own uploader (Xet), which the stand-in gives no storage; it raises Python's ConnectionError."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)
    hub.refuses["xet-write-token"] = (status, "no storage today")
    with pytest.raises(InputError, match=r"does not answer \(ConnectionError\); .*run the same command again"):
        publish()
    assert any("xet-write-token" in request for request in hub.requests)
    assert len(hub.repository(REPO).commits) == 1


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), PermissionError(errno.EACCES, "Permission denied")]
)
def test_this_machines_disk_is_not_taken_for_the_hub(
    project: Path, hub: Hub, publish: Publish, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(publish_module.HfApi, "preupload_lfs_files", full)
    with pytest.raises(type(error)) as raised:
        publish()
    assert raised.value is error


def test_a_run_that_broke_off_before_its_tag_is_tagged(project: Path, hub: Hub, publish: Publish) -> None:
    hub.refuses["/tag/"] = (500, "no tags today")
    with pytest.raises(InputError, match=r"500: no tags today"):
        publish()
    assert hub.repository(REPO).tags == {}
    hub.refuses.clear()
    assert "unchanged" in publish()
    assert list(hub.repository(REPO).tags.values()) == [hub.repository(REPO).commits[-1].oid]
    assert len(hub.repository(REPO).commits) == 2


def test_a_dry_run_lists_every_file_with_its_size_and_asks_nobody(
    project: Path, hub: Hub, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    output = publish("--dry-run")
    for name, content in local(project).items():
        (line,) = (line for line in output.splitlines() if line.endswith(f"  {name}"))
        number, unit = line.split()[:2]
        assert float(number) * {"B": 1, "MB": 1e6}[unit] == pytest.approx(len(content), abs=5000)
    assert f"{LARGE + 2} files" in output
    assert f"would go to private {REPO}" in output
    assert output == publish("dry_run=true")
    assert hub.requests == []


def test_a_refused_token_is_one_line(
    project: Path, hub: Hub, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.token = "another"
    with pytest.raises(InputError, match="refuses the token"):
        publish()
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(project / "none"))
    with pytest.raises(InputError, match=r"there is no token for the Hub; .*`hf auth login` or HF_TOKEN"):
        publish()
    assert hub.repositories == {}


def test_a_token_from_the_login_file_is_used_where_nobody_else_can_read_it(
    project: Path, hub: Hub, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    (project / "token").write_text(TOKEN)
    (project / "token").chmod(0o644)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(project / "token"))
    with pytest.raises(InputError, match=r"token holds a credential .*\(mode 644\); run: chmod 600"):
        publish()
    (project / "token").chmod(0o600)
    publish()
    assert len(hub.repository(REPO).commits) == 2


@pytest.mark.parametrize(
    ("where", "status", "said", "way_out"),
    [
        ("create", 403, "no rights here", "may not write to anna/study .*another owner"),
        ("preupload", 403, "read only", "may not write to anna/study"),
        ("/commit/", 412, "moved", "someone else changed anna/study meanwhile"),
        ("/commit/", 400, f"echo {TOKEN}", r"refuses anna/study \(400: echo \*\*\*\)"),
    ],
)
def test_what_the_hub_refuses_is_one_line_with_its_reason(
    project: Path, hub: Hub, publish: Publish, where: str, status: int, said: str, way_out: str
) -> None:
    hub.refuses[where] = (status, said)
    with pytest.raises(InputError, match=way_out):
        publish()
    assert all(len(repository.commits) == 1 for repository in hub.repositories.values())


def test_a_hub_that_is_down_is_one_line(project: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    use_endpoint(monkeypatch, url)
    with pytest.raises(InputError, match=rf"the Hub at {url} does not answer \(ConnectError\)"):
        publish()


def test_without_a_dataset_the_way_to_make_it_is_named(project: Path, hub: Hub, publish: Publish) -> None:
    shutil.rmtree(project / "data/dataset")
    with pytest.raises(InputError, match=r"data/dataset/README\.md does not exist; `dvc repro dataset`"):
        publish()
    assert hub.requests == []


@pytest.mark.parametrize(
    ("card", "reason"),
    [
        ("---\npretty_name: x\n---\n# x\n", "licence '' says nothing"),
        ("# x\n", "licence '' says nothing"),
        ("---\nlicense: unknown\n---\n", "licence 'unknown' says nothing"),
        ("---\nlicense: mine\n---\n", "licence 'mine' is unknown to the Hub"),
        ("---\nlicense: other\n---\n", "licence '' says nothing"),
        ("---\nlicense: [\n---\n", "front matter is not YAML"),
    ],
)
def test_a_card_without_a_known_licence_is_refused(
    project: Path, hub: Hub, publish: Publish, card: str, reason: str
) -> None:
    (project / "data/dataset/README.md").write_text(card)
    with pytest.raises(InputError, match=rf"README\.md: .*{reason}"):
        publish()
    assert hub.requests == []


LEAKS = {
    "hf_" + "x1" * 12: "a Hugging Face token",
    "api_key = '" + "0123456789" * 2 + "'": "a secret",
    "anna.b+c@uni.example.org": "an e-mail address",
    "https://anna:pass@host/": "credentials in an address",
    "AKIA" + "ABCD1234" * 2: "an AWS key",
    "/home/anna/images": "a folder of this machine's user",
    "-----BEGIN RSA PRIVATE KEY-----": "a private key",
}


@pytest.mark.parametrize(("text", "what"), LEAKS.items())
def test_a_leak_in_the_card_stops_everything_by_the_name_of_the_file(
    project: Path, hub: Hub, publish: Publish, text: str, what: str
) -> None:
    with open(project / "data/dataset/README.md", "a") as file:
        file.write(f"\nmore: {text}\n")
    with pytest.raises(InputError, match=rf"README\.md holds {what}") as error:
        publish()
    assert text not in str(error.value)
    assert hub.requests == []


@pytest.mark.parametrize("what", ["an e-mail address", "a Hugging Face token"])
def test_a_leak_in_a_prompt_is_found_in_the_shard(tmp_path: Path, what: str) -> None:
    text = next(text for text, found in LEAKS.items() if found == what)
    shard = tmp_path / "part-00000.parquet"
    features = Features({"prompt": Value("string")})
    write_shard(shard, {"prompt": ["1person, solo, @_@"]}, features, "mark")
    check_leaks({"data/cfg/part-00000.parquet": shard}, [], {})
    write_shard(shard, {"prompt": ["1person, solo", f"painted by {text}"]}, features, "mark")
    with pytest.raises(InputError, match=rf"part-00000\.parquet holds {what} \(column prompt\)"):
        check_leaks({"data/cfg/part-00000.parquet": shard}, [], {})


@pytest.mark.parametrize("kind", [pa.string_view(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_a_leak_is_found_in_every_kind_of_text_column(tmp_path: Path, kind: pa.DataType) -> None:
    shard = tmp_path / "part-00000.parquet"
    texts = pa.array(["1person, solo", "by anna@uni.example.org"])
    pq.write_table(pa.table({"tags": texts.cast(kind)}), shard)
    with pytest.raises(InputError, match=r"holds an e-mail address \(column tags\)"):
        check_leaks({"data/cfg/part-00000.parquet": shard}, [], {})


def test_a_leak_in_the_path_of_an_image_is_found_and_its_bytes_are_not_read(tmp_path: Path) -> None:
    def shard(path: str | None) -> Path:
        cells = [{"bytes": b"someone@example.org", "path": path}]
        table = pa.table({"cfg": pa.array(cells, pa.struct({"bytes": pa.binary(), "path": pa.string()}))})
        pq.write_table(table, tmp_path / "part-00000.parquet")
        return tmp_path / "part-00000.parquet"

    check_leaks({"pairs/part-00000.parquet": shard(None)}, [], {})
    with pytest.raises(InputError, match="a folder of this machine's user"):
        check_leaks({"pairs/part-00000.parquet": shard("/home/someone/1.png")}, [], {})


def test_an_address_behind_markdowns_backslashes_is_found(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_text("by anna\\@uni.example.org\n")
    with pytest.raises(InputError, match="an e-mail address"):
        check_leaks({"README.md": card}, [], {})


def test_metadata_of_weights_are_read(tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    save_file({"w": np.zeros(2)}, weights, {"trained_by": "anna@uni.example.org"})
    with pytest.raises(InputError, match=r"w\.safetensors holds an e-mail address \(metadata\)"):
        check_leaks({"w.safetensors": weights}, [], {})


def test_metadata_of_images_are_read_and_their_pixels_are_not(tmp_path: Path) -> None:
    address, image = b"anna@uni.example.org ", tmp_path / "contact.png"
    pixels = Image.frombytes("P", (64, 64), (address * 200)[: 64 * 64])
    pixels.putpalette(bytes(range(256)) * 3)  # with fewer colours a pixel is no whole byte
    pixels.save(image, compress_level=0)
    assert address in image.read_bytes()  # as compression makes it by chance
    check_leaks({"contact.png": image}, [], {})

    text = PngInfo()
    text.add_text("Author", "anna@uni.example.org", zip=True)
    exif = Image.Exif()
    exif[0x013B] = "anna@uni.example.org"  # Artist
    for suffix, metadata in ((".png", {"pnginfo": text}), (".png", {"exif": exif}), (".jpg", {"exif": exif})):
        image = tmp_path / f"by{suffix}"
        pixels.convert("L").save(image, **metadata)
        with pytest.raises(InputError, match=r"by\.\w+ holds an e-mail address \(metadata\)"):
            check_leaks({image.name: image}, [], {})


def test_an_image_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    image = tmp_path / "contact.png"
    Image.effect_noise((64, 64), 64).save(image)
    image.write_bytes(image.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"contact\.png is not a readable image"):
        check_leaks({"contact.png": image}, [], {})


def test_values_of_secret_variables_are_looked_for_and_not_shown(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_text("see correct-horse-battery\n")
    check_leaks({"README.md": card}, [], {"HORSE": "correct-horse-battery", "DB_PASSWORD": "see"})
    with pytest.raises(InputError, match="the value of DB_PASSWORD") as error:
        check_leaks({"README.md": card}, [], {"DB_PASSWORD": "correct-horse-battery"})
    assert "horse" not in str(error.value)


def test_a_labellers_name_is_refused_wherever_it_stands(project: Path, hub: Hub, publish: Publish) -> None:
    (project / "labels").mkdir()
    (project / "labels/tasks.jsonl").write_text('{"task_id": "t", "labeller": "0123456789ab"}\n')
    publish("--dry-run")
    with open(project / "data/dataset/README.md", "a") as file:
        file.write("\nThanks to 0123456789ab.\n")
    with pytest.raises(InputError, match=r"README\.md holds the labeller '0123456789ab'"):
        publish()
    (project / "labels/tasks.jsonl").write_text('{"task_id": "t"}\n')
    with pytest.raises(InputError, match=r"labels/tasks\.jsonl:1 is not a label"):
        labeller_names(project / "labels")


def test_the_embedded_networks_go_with_their_card_to_a_model_repository(
    hub: Hub, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    publish("what=models")
    repository = hub.repository(REPO, "model")
    files = repository.commits[-1].files
    models = ROOT / "models/tinybooru"
    assert files["README.md"] == (models / "CARD.md").read_bytes()
    for name in ("main/unet/diffusion_pytorch_model.safetensors", "guide/unet/config.json", "malformed.safetensors"):
        assert files[name] == (models / name).read_bytes()
    assert not any(name.endswith(".py") or "checkpoints" in name for name in files)
    assert repository.private
    assert next(iter(repository.tags)).startswith("weights-")
    assert "unchanged" in publish("what=models")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "repo_id is missing; known keys: repo_id, what, private, dry_run"),
        (["repo_id=anna"], "repo_id is 'anna': must be <owner>/<name>"),
        (["repo_id=a/b c"], "must be <owner>/<name>"),
        (["repo_id=a/b", "privat=false"], "privat is not a known key"),
        (["repo_id=a/b", "private=perhaps"], "private is 'perhaps'"),
        (["repo_id=a/b", "what=labels"], "what is 'labels': Input should be 'dataset' or 'models'"),
        (["a/b"], "'a/b' is not a key=value"),
    ],
)
def test_wrong_settings_are_named(words: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_settings(words, dry_run=False)


LOAD = """
import hashlib, json, sys
from datasets import Image, get_dataset_config_names, load_dataset
found = {}
for arm in get_dataset_config_names(sys.argv[1]):
    for streaming in (False, True):
        rows = load_dataset(sys.argv[1], arm, split="train", streaming=streaming, revision=sys.argv[2])
        columns = [name for name, feature in rows.features.items() if isinstance(feature, Image)]
        for column in columns:
            rows = rows.cast_column(column, Image(decode=False))
        for column in columns:
            name = column if arm == "pairs" else arm
            found[f"{arm} {name} {streaming}"] = [hashlib.sha256(row[column]["bytes"]).hexdigest() for row in rows]
print(json.dumps(found))
"""


def test_from_the_shell_and_back_every_image_is_the_same(project: Path, hub: Hub) -> None:
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("HF_")},
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(project / "hf"),
        "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_XET": "1",
        "PYTHONPATH": str(ROOT),
    }

    def python(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *words], cwd=project, env={**environment, **more}, capture_output=True, text=True
        )

    done = python("-m", "pipeline.publishing.publish", f"repo_id={REPO}")
    assert (done.returncode, done.stderr) == (0, "")
    assert TOKEN not in done.stdout
    tag = next(iter(hub.repository(REPO).tags))
    back = python("-c", LOAD, REPO, tag)
    assert back.returncode == 0, back.stderr
    expected = {
        f"{name} {arm} {streaming}": [
            hashlib.sha256(cell["bytes"].as_py()).hexdigest() for cell in read_set(project / "data/sets" / arm)["image"]
        ]
        for arm in ARMS
        for name in ("pairs", arm)
        for streaming in (False, True)
    }
    assert json.loads(back.stdout) == expected
    refused = python("-m", "pipeline.publishing.publish", f"repo_id={REPO}", HF_HUB_OFFLINE="1")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: HF_HUB_OFFLINE is set")
