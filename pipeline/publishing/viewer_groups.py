"""How rows are grouped in a published file: as the Hub's viewer reads them."""

from collections.abc import Iterator, Sequence

from pipeline.storage.shards import row_groups

# The viewer shows a page of 100 rows, reads whole groups of rows, and refuses those of more than 300 MB.
GROUP_ROWS = 100
GROUP_BYTES = 100_000_000


def viewer_groups(sizes: Sequence[int]) -> Iterator[slice]:
    """Rows of these bytes in groups that the viewer can read; a larger row is a group by itself."""
    return row_groups(sizes, GROUP_BYTES, GROUP_ROWS)
