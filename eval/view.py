"""`coaug view`: one file as the encoders see and hear it, as a preset draws it or by recipes of one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from .clip_file import write_clips
from .look import ViewError, look
from .sheet import draw

__all__ = ["ViewError", "look", "view"]

FORMATS = (".png", ".pdf", ".svg")


def view(
    file: str | Path,
    preset: str = "svaclr",
    out: str | Path | None = None,
    start: float | None = None,
    overrides: Iterable[str] = (),
    *,
    recipes: Sequence[str] = (),
    seed: int = 0,
    mp4: str | Path | None = None,
) -> list[Path]:
    """Draws what a preset, or recipes, make of `file`: frames, sound and spectrogram of every view on one time axis.

    Args:
        file: a video, a silent film or a sound.
        preset, start, overrides, recipes, seed: see `look`.
        out: the sheet, .png, .pdf or .svg; default: `<name>.png` in the current folder.
        mp4: a film of the views, one after the other, if it is wanted.

    Returns:
        The paths written.

    Raises:
        ViewError: nothing to show, a start outside the recording, or a file that cannot be written.
        ConfigError: no such preset or key.
    """
    path = Path(out) if out is not None else Path(f"{Path(file).stem}.png")
    film = None if mp4 is None else Path(mp4)
    if path.suffix.lower() not in FORMATS:
        raise ViewError(f"{path}: a sheet is a {', '.join(FORMATS)} file")
    if film and film.suffix.lower() != ".mp4":
        raise ViewError(f"{film}: the clips are written as an .mp4 file")
    sheet = look(file, preset, start, overrides, recipes=recipes, seed=seed)
    if film and "audio" in sheet.config.modalities and not sheet.config.audio.waveform:
        raise ViewError(f"{film}: data.audio.speed_on=spectrogram makes no sound that could be heard")
    figure = draw(sheet)
    _save(path, lambda: figure.savefig(path))
    if film:
        _save(film, lambda: write_clips(sheet, film))
    return [path, film] if film else [path]


def _save(path: Path, save: Callable[[], None]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save()
    except OSError as error:
        raise ViewError(f"{path}: cannot be written ({error.strerror or error})") from None
