"""Where the shards of a study's arms lie."""

from dataclasses import dataclass

from pipeline.layout import COSTS, SETS, TRACES, TRAJECTORIES
from pipeline.storage.remote_path import AnyPath


@dataclass(frozen=True)
class Places:
    """Where an arm's shards are, each kind in its own folder."""

    sets: AnyPath = SETS
    traces: AnyPath = TRACES
    trajectories: AnyPath = TRAJECTORIES
    costs: AnyPath = COSTS

    @staticmethod
    def under(root: AnyPath) -> "Places":
        """The places of a project in the folder `root`."""
        return Places(root / SETS, root / TRACES, root / TRAJECTORIES, root / COSTS)

    def of(self, arm_name: str) -> "Places":
        """The folders of one arm, and the file of its cost."""
        folders = [place / arm_name for place in (self.sets, self.traces, self.trajectories)]
        return Places(folders[0], folders[1], folders[2], self.costs / f"{arm_name}.json")
