"""FFmpeg under the names that torchcodec asks for: the very build that PyAV brings and all other rows decode with, so
that none has a better decoder. (decord2 brings its own, of the same release but for a patch.)"""

from __future__ import annotations

import re
from pathlib import Path

import av

HASHED = re.compile(r"(lib(?:av|sw)[a-z]+)-[0-9a-f]+\.so\.(\d+)[.\d]*")  # libavcodec-5e6b81c2.so.62.28.102


def ffmpeg_folder(into: Path) -> Path:
    """Link FFmpeg's seven libraries as libavcodec.so.62 and so on; empty where PyAV's FFmpeg is the system's.

    The loader reads LD_LIBRARY_PATH once, when a process starts: name the folder there, and let that process
    `import av` before torchcodec, which loads what the seven depend on. Loading the links by ctypes instead was tried
    and does not help: the loader knows a library by its soname, which has the hash.
    """
    into.mkdir(parents=True, exist_ok=True)
    for library in sorted(Path(av.__file__).parents[1].glob("av.libs/lib*")):
        if parts := HASHED.fullmatch(library.name):
            link = into / f"{parts[1]}.so.{parts[2]}"
            link.unlink(missing_ok=True)
            link.symlink_to(library)
    return into
