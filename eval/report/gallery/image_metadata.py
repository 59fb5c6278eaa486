"""What the files of an external arm say of themselves, as YAML to read and to copy."""

import json
from pathlib import Path

import yaml

from pipeline.storage.shards import read_set


def image_metadata(folder: Path) -> dict[int, str]:
    """{pair: YAML of an image's file, its size as it was found, what was done to it, and its metadata}."""
    rows = read_set(folder, ["pair_id", "image_id", "arm", "file", "size", "done", "metadata", "fault"]).to_pylist()
    found = {}
    for row in rows:
        content = {
            "image": row["image_id"],
            "arm": row["arm"],
            "file": row["file"],
            "size": row["size"],
            "read": json.loads(row["done"]) or None,
            "not_read": row["fault"] or None,
            **(json.loads(row["metadata"]) if row["metadata"] else {}),
        }
        known = {key: value for key, value in content.items() if value is not None}
        found[row["pair_id"]] = yaml.safe_dump(known, sort_keys=False, allow_unicode=True, width=120).rstrip()
    return found
