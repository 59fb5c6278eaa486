"""A clone of this repository in which every study is small, to run the documentation's commands in."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from documented import files
from repository_copy import ROOT, copy_repository

GUIDE = ROOT / "docs/first-study.md"
# Appended to conf/config.yaml, whose own values come last: the documented commands stay word for word.
SMALL = """
generate: {images: 16, shard: 8, batch: 8, watched: 1}
reference: {images: 32}
sampler: {steps: 3}
metrics: {resamples: 100}
"""
ENVIRONMENT = {
    # Under `make test` the first three would make each `make` here a part of that one, which announces the folders it
    # enters; and without bytecode each of a hundred processes compiles the clone's modules anew.
    **{
        name: value
        for name, value in os.environ.items()
        if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHONDONTWRITEBYTECODE"}
    },
    "DVC_NO_ANALYTICS": "1",
    "HF_HUB_OFFLINE": "1",
    "LABEL_STUDIO_URL": "",
    "LABEL_STUDIO_API_KEY": "",
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "COLUMNS": "400",  # DVC cuts a table that is wider than the terminal
}


BARE_PATH = "/usr/local/bin:/usr/bin:/bin"

# DVC cannot see what people do in Label Studio, nor what only the configuration names, so these look every time.
ASKING = {"push", "pull", "preflight"}


def stages_run(said: str) -> set[str]:
    """The stages that ran by what DVC said, but for those that always do."""
    return {line.split("'")[1] for line in said.splitlines() if line.startswith("Running stage")} - ASKING


@dataclass
class Clone:
    """This repository's tracked and new files in a git repository of their own; every study there is small."""

    folder: Path
    said: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def make(cls, folder: Path) -> "Clone":
        copy_repository(folder)
        (folder / ".venv").symlink_to(sys.prefix)
        config = folder / "conf/config.yaml"
        config.write_text(config.read_text() + SMALL)
        for name, text in files(GUIDE).items():
            (folder / name).write_text(text)
        clone = cls(folder)
        clone.shell("git init -q")
        (folder / ".git/info/exclude").write_text(".venv\n")  # a link here, which .gitignore's folder does not match
        clone.shell("git config user.name test")
        clone.shell("git config user.email test@localhost")
        clone.commit()
        return clone

    def commit(self) -> None:
        self.shell("git add -A")
        self.shell("git commit -qm state")

    def shell(self, command: str, ok: bool = True, bare: bool = False) -> str:
        """What a command prints; `said` keeps it. The environment is this one, whatever its files' dates say.

        `bare`: in a shell in which no environment is activated.
        """
        environment = {**ENVIRONMENT, **({"PATH": BARE_PATH} if bare else {})}
        real = re.sub(r"^make ", "make -o .venv/.ready ", command)
        # The script of this environment belongs to whoever made it; what it calls is tested in test_guidedrift.py.
        real = re.sub(r"^\./guidedrift ", "MAKE='make -o .venv/.ready' ./guidedrift ", real)
        real = re.sub(r"^\.venv/bin/guidedrift ", ".venv/bin/python -m pipeline.command ", real)
        done = subprocess.run(
            real, shell=True, cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        assert (done.returncode == 0) == ok, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        self.said.setdefault(command, []).append(done.stdout)
        return done.stdout if ok else done.stdout + done.stderr

    def contents(self, folder: str) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.folder / folder).rglob("*") if path.is_file()}
