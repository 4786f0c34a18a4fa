"""Frames as planes: cut, upright and odd ones against plain slicing, colours against the pictures that were coded."""

from __future__ import annotations

from typing import Any

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter
from hypothesis import given, settings
from hypothesis import strategies as st

from coaug.pipelines.media import MediaError
from coaug.pipelines.planes import Cutter, kept, rgb_matrix


def planar(height: int, width: int, seed: int = 0) -> tuple[av.VideoFrame, list[np.ndarray]]:
    """A 4:2:0 frame of noise, and its three planes."""
    rng, frame = np.random.default_rng(seed), av.VideoFrame(width, height, "yuv420p")
    planes = [rng.integers(0, 256, (p.height, p.width), dtype=np.uint8) for p in frame.planes]
    for plane, values in zip(frame.planes, planes, strict=True):
        rows = np.zeros((plane.height, plane.line_size), np.uint8)
        rows[:, : plane.width] = values
        plane.update(rows.tobytes())
    return frame, planes


def parts(array: np.ndarray) -> list[np.ndarray]:
    height, width = 2 * array.shape[0] // 3, array.shape[1]
    return [array[:height], array[height:, : width // 2], array[height:, width // 2 :]]


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("size", [(48, 64), (47, 64), (48, 63), (5, 7), (1, 1), (2, 1)])
def test_planes_are_the_decoder_s(size: tuple[int, int], turns: int) -> None:
    frame, planes = planar(*size)
    for got, plane in zip(parts(Cutter(turns)(frame)), planes, strict=True):
        upright = np.rot90(plane, -turns)
        height, width = upright.shape
        np.testing.assert_array_equal(got[:height, :width], upright)
        # what makes an odd picture even is its last row and column again
        np.testing.assert_array_equal(
            got, np.pad(upright, [(0, got.shape[0] - height), (0, got.shape[1] - width)], "edge")
        )


@settings(deadline=None)
@given(
    st.integers(0, 20),
    st.integers(0, 15),
    st.integers(1, 43),
    st.integers(1, 32),
    st.sampled_from([0, 1, 2, 3]),
)
def test_a_box_is_cut_out(column: int, row: int, width: int, height: int, turns: int) -> None:
    frame, planes = planar(48, 64) if turns % 2 == 0 else planar(64, 48)
    box = (2 * column, 2 * row, min(2 * column + width, 64), min(2 * row + height, 48))
    luma, *chroma = parts(Cutter(turns, box)(frame))
    whole = [np.rot90(plane, -turns) for plane in planes]
    left, top, right, bottom = box
    np.testing.assert_array_equal(luma[: bottom - top, : right - left], whole[0][top:bottom, left:right])
    for got, plane in zip(chroma, whole[1:], strict=True):
        np.testing.assert_array_equal(got, plane[top // 2 : -(-bottom // 2), left // 2 : -(-right // 2)])


def interpolated(array: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    luma, *chroma = parts(array.astype(np.float64))
    doubled = [plane.repeat(2, 0).repeat(2, 1) for plane in chroma]
    return np.clip(np.stack([luma, *doubled], -1) @ matrix[:, :3].T + matrix[:, 3], 0, 255)


def smooth() -> np.ndarray:
    """(48, 64, 3): every colour of a corner of the cube, slowly changing."""
    y, x = np.mgrid[0:48, 0:64]
    return np.stack([2 * x + 2 * y, 4 * x, 5 * y], -1).clip(0, 255).astype(np.uint8)


FORMATS = [
    "yuv420p",
    "yuvj420p",
    "yuv422p",
    "yuv444p",
    "yuv420p10le",
    "yuv444p12le",
    "nv12",
    "gbrp",
    "rgb24",
    "yuva420p",
]
SPACES = ["itu601", "itu709", "smpte240m", "fcc", "bt2020"]


@pytest.mark.parametrize("span", ["MPEG", "JPEG"])
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("form", FORMATS)
def test_colours_are_those_that_were_coded(form: str, space: str, span: str) -> None:
    """Whatever the format, and whichever matrix and range it says it has."""
    options: dict[str, Any] = {"dst_colorspace": space, "dst_color_range": span}
    coded = VideoReformatter().reformat(av.VideoFrame.from_ndarray(smooth(), "rgb24"), format=form, **options)
    cutter = Cutter()
    got = interpolated(cutter(coded), cutter.matrix)
    assert abs(got - smooth())[2:-2, 2:-2].mean() < 1.5


def test_grey_and_no_colour_space() -> None:
    """A file that names none is read as BT.601 in 16 … 235, as FFmpeg does."""
    frame, _ = planar(4, 4)
    matrix = rgb_matrix(frame)
    np.testing.assert_allclose(matrix @ [16, 128, 128, 1], 0, atol=1e-3)
    np.testing.assert_allclose(matrix @ [235, 128, 128, 1], 255, atol=1e-3)
    np.testing.assert_allclose(
        matrix[:, :3], [[1.164, 0, 1.596], [1.164, -0.392, -0.813], [1.164, 2.017, 0]], atol=1e-3
    )
    grey = Cutter()(av.VideoFrame.from_ndarray(np.full((4, 4), 77, np.uint8), "gray"))
    assert (parts(grey)[1] == 128).all() and (parts(grey)[2] == 128).all()


crops = st.tuples(*[st.floats(0, 1, width=32)] * 4).filter(
    lambda c: abs(c[0] - c[2]) > 0.02 and c[3] - c[1] > 0.02
)


@given(st.lists(crops, min_size=1, max_size=3), st.integers(1, 500), st.integers(1, 500), st.integers(8, 224))
def test_what_is_kept_holds_all_crops(
    views: list[tuple[float, ...]], width: int, height: int, size: int
) -> None:
    upright, shares = np.array([width, height]), np.array(views, np.float32)
    left, top, right, bottom = kept(shares, upright, size)
    assert left % 2 == top % 2 == 0 and 0 <= left < right <= width and 0 <= top < bottom <= height
    room = np.array([right - left + (right - left) % 2, bottom - top + (bottom - top) % 2])
    for crop, share in zip(np.array(views, np.float32), shares, strict=True):
        sides, moved = crop.reshape(2, 2) * upright, share.reshape(2, 2) * room + [left, top]
        np.testing.assert_allclose(sides, moved, atol=1e-3)
        reach = np.maximum(abs(sides[1] - sides[0]) / size, 2)  # of the triangle, also in chroma's pixels
        low, high = sides.min(0) - reach, sides.max(0) + reach
        assert ((low >= [left, top]) | ([left, top] == np.zeros(2))).all()
        assert ((high <= [right, bottom]) | ([right, bottom] == upright)).all()


def test_a_frame_smaller_than_what_is_kept_of_it() -> None:
    frame = av.VideoFrame(32, 16, "yuv420p")
    with pytest.raises(MediaError, match="smaller than the one that was catalogued"):
        Cutter(box=(0, 0, 32, 18))(frame)
