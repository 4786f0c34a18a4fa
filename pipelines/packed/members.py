"""A sample as files of a tar archive, grouped by name as WebDataset reads them.

A shard is samples one after the other and two empty blocks, so whoever packs a sample need not know where it will lie.
"""

from __future__ import annotations

import tarfile
from collections.abc import Mapping

BLOCK = 512
END = bytes(2 * BLOCK)


def archived(key: str, members: Mapping[str, bytes]) -> tuple[bytes, dict[str, int]]:
    """The tar entries of `members` (suffix -> content) of the sample `key`, and where each content begins in them.

    The same bytes whenever and by whomever they are made.
    """
    out, places = bytearray(), {}
    for suffix, content in members.items():
        entry = tarfile.TarInfo(f"{key}.{suffix}")
        entry.size = len(content)
        out += entry.tobuf(tarfile.USTAR_FORMAT)
        places[suffix] = len(out)
        out += content
        out += bytes(-len(content) % BLOCK)
    return bytes(out), places
