"""A place where the shards of an arm are kept: the project's folders, or a storage that many machines reach."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from pipeline.cost.shard_cost import ShardCost
from pipeline.errors import InputError
from pipeline.generation.shard_files import GeneratedShard
from pipeline.generation.shard_plan import Shard
from pipeline.generation.trajectory import trajectory_fingerprint
from pipeline.storage.files import write_atomically
from pipeline.storage.json_file import read_json_text, seal_json
from pipeline.storage.places import Places
from pipeline.storage.remote_path import AnyPath, path_of
from pipeline.storage.shards import shard_fingerprint
from pipeline.study.study import Study


class ShardStorage:
    """The shards of one arm at one place."""

    def __init__(self, places: Places, study: Study, arm_name: str):
        self.places, self._watched = places.of(arm_name), study.generate.watched

    @staticmethod
    def at(place: str, study: Study, arm_name: str) -> "ShardStorage":
        """In a storage of several studies, a folder or an fsspec URL. Raises InputError."""
        return ShardStorage(Places.under(path_of(place) / study.name), study, arm_name)

    def holds(self, shard: Shard) -> bool:
        """Whether a shard is there, whole and with the right fingerprint."""
        if any(shard_fingerprint(path) != shard.fingerprint for path in (self._image_set(shard), self._trace(shard))):
            return False
        kept = trajectory_fingerprint(shard, self._watched)
        return not self._is_watched(shard) or shard_fingerprint(self._trajectory(shard)) == kept

    def put(self, drawn: GeneratedShard) -> None:
        """Write a shard's files. Its image set is the sign that all the rest is there as well, so it comes last."""
        if drawn.trajectory is not None:
            write_atomically(self._trajectory(drawn.shard), drawn.trajectory)
        write_atomically(self._trace(drawn.shard), drawn.trace)
        write_atomically(self._image_set(drawn.shard), drawn.image_set)

    def put_with_cost(self, drawn: GeneratedShard) -> None:
        """Write a shard's files, and before them what they cost."""
        write_atomically(self._cost(drawn.shard), seal_json(json.dumps(asdict(drawn.cost), indent=2)))
        self.put(drawn)

    def get(self, shard: Shard) -> GeneratedShard | None:
        """A shard with its cost; None where it is not there or not the right one."""
        return self.fetch(shard) if self.holds(shard) and self._cost(shard).exists() else None

    def fetch(self, shard: Shard) -> GeneratedShard:
        """A shard that is known to exist. Raises InputError where it is not."""
        try:
            return GeneratedShard(
                shard,
                self._image_set(shard).read_bytes(),
                self._trace(shard).read_bytes(),
                self._trajectory(shard).read_bytes() if self._is_watched(shard) else None,
                ShardCost(**json.loads(read_json_text(self._cost(shard)))),
            )
        except (OSError, ValueError, TypeError) as error:
            raise InputError(
                f"shard {self._image_set(shard)} cannot be read back ({error}); run the stage again"
            ) from None

    def clear(self, shards: Sequence[Shard]) -> None:
        """Delete everything except these shards, and what a killed process left half-written."""
        expected = {shard.name for shard in shards}
        watched = {shard.name for shard in shards if self._is_watched(shard)}
        own = self.places
        for folder, names in ((own.sets, expected), (own.traces, expected), (own.trajectories, watched)):
            everything: list[AnyPath] = [*folder.glob("*")]  # hidden files, too
            for found in everything:
                if found.name not in names:
                    found.unlink()

    def _is_watched(self, shard: Shard) -> bool:
        return shard.start < self._watched

    def _image_set(self, shard: Shard) -> AnyPath:
        return self.places.sets / shard.name

    def _trace(self, shard: Shard) -> AnyPath:
        return self.places.traces / shard.name

    def _trajectory(self, shard: Shard) -> AnyPath:
        return self.places.trajectories / shard.name

    def _cost(self, shard: Shard) -> AnyPath:
        return self.places.sets / f"{shard.name}.cost.json"
