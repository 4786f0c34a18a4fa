"""The few fields of coded video that say what a packet holds, read without decoding it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache, reduce
from itertools import pairwise
from operator import or_
from struct import Struct
from typing import NamedTuple


class UnreadError(Exception):
    """Something cut off, or so rare that it is not read here."""


class Bits:
    """Reads bits, the highest first. Raises UnreadError at the end."""

    def __init__(self, data: bytes | memoryview) -> None:
        self.value, self.left = int.from_bytes(data, "big"), 8 * len(data)

    def read(self, count: int) -> int:
        """The next `count` bits."""
        self.left -= count
        if self.left < 0:
            raise UnreadError
        return self.value >> self.left & (1 << count) - 1

    def golomb(self) -> int:
        """An exponential Golomb code, ue(v)."""
        zeros = 0
        while not self.read(1):
            zeros += 1
        return (1 << zeros) - 1 + self.read(zeros)


def nal_units(data: bytes | memoryview, extradata: bytes, *, hevc: bool) -> list[memoryview]:
    """The NAL units of an H.264 or HEVC packet, each from its header on; [] if it is not made of such.

    Units stand after start codes (what follows a unit may then hang on to its end) or, where `extradata` is the box
    of ISO/IEC 14496-15 as in mp4 and Matroska, after their lengths.
    """
    data = memoryview(data)
    if extradata[:1] != b"\1" or len(extradata) < (23 if hevc else 7):
        starts = [m.end() for m in re.finditer(b"\x00\x00\x01", data)]
        return [data[a:b] for a, b in pairwise([*starts, len(data)]) if b > a]
    size, at, end, units = (extradata[21 if hevc else 4] & 3) + 1, 0, len(data), list[memoryview]()
    while at < end:
        begin = at + size
        at = begin + int.from_bytes(data[at:begin], "big")
        if at == begin:
            return []
        units.append(data[begin:at])
    return units if at == end else []


LENGTH_AND_HEADER = Struct(">IB")


def avc_headers(data: memoryview, extradata: bytes) -> bytes:
    """The headers of the NAL units in an H.264 packet, a byte each. (Most packets in files are one unit.)"""
    if extradata[:1] == b"\1" and len(extradata) > 6 and extradata[4] & 3 == 3 and len(data) > 4:
        size, header = LENGTH_AND_HEADER.unpack_from(data)
        if size == len(data) - 4:
            return bytes((header,))
    return bytes([unit[0] for unit in nal_units(data, extradata, hevc=False)])


def avc_sequences(extradata: bytes) -> list[bytes]:
    """The sequence parameter sets in H.264's `extradata`, either form (ISO/IEC 14496-15, 5.3.3.1.2)."""
    if extradata[:1] != b"\1" or len(extradata) < 7:
        return [bytes(unit) for unit in nal_units(extradata, b"", hevc=False) if unit[0] & 31 == 7]
    sets, at = [], 6
    for _ in range(extradata[5] & 31):
        size = int.from_bytes(extradata[at : at + 2], "big")
        sets.append(extradata[at + 2 : at + 2 + size])
        at += 2 + size
    return sets


WITH_CHROMA = {100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135}  # profile_idc


@lru_cache  # files of one encoder have one and the same
def avc_is_plain(sequence: bytes) -> bool:
    """Whether a sequence parameter set (Rec. ITU-T H.264, 7.3.2.1.1) says that all pictures are whole frames, and how
    far they are reordered. Raises UnreadError: cut off, or with scaling lists."""
    bits = Bits(sequence.replace(b"\x00\x00\x03", b"\x00\x00")[1:])
    profile, _, _ = bits.read(8), bits.read(16), bits.golomb()
    if profile in WITH_CHROMA:
        bits.read(bits.golomb() == 3)  # separate_colour_plane_flag
        _, _, _, scaled = bits.golomb(), bits.golomb(), bits.read(1), bits.read(1)
        if scaled:
            raise UnreadError
    _, order = bits.golomb(), bits.golomb()
    cycle = 0 if order != 1 else [bits.read(1), bits.golomb(), bits.golomb(), bits.golomb()][-1]
    for _ in range(1 if order == 0 else cycle):
        bits.golomb()
    _, _, _, _ = bits.golomb(), bits.read(1), bits.golomb(), bits.golomb()  # references, gaps, width, height
    frames_only, _, cropped = bits.read(1), bits.read(1), bits.read(1)
    for _ in range(4 * cropped):
        bits.golomb()
    return bool(frames_only and bits.read(1) and _avc_tells_order(bits))


def _avc_tells_order(bits: Bits) -> int:
    """bitstream_restriction_flag (Rec. ITU-T H.264, E.1.1): without it decoders guess the delay from what they see."""
    if bits.read(1) and bits.read(8) == 255:  # aspect ratio
        bits.read(32)
    bits.read(bits.read(1))  # overscan
    if bits.read(1) and bits.read(5) & 1:  # colours
        bits.read(24)
    for _ in range(2 * bits.read(1)):  # where chroma samples lie
        bits.golomb()
    bits.read(65 * bits.read(1))  # timing
    return bits.read(4) & 0b1101 == 1  # neither of two buffer models; pic_struct_present_flag


class Av1Frame(NamedTuple):
    """Which of the eight places for reference frames a frame `fills`, and which it may have been predicted from, as
    masks. What else a frame takes from others (probabilities, motion, segments, film grain) it takes from those."""

    fills: int
    reads: int


class _Av1Sequence(NamedTuple):
    """What of a sequence header shapes frame headers (AV1, 5.5.1); of tools 2 stands for "each frame says"."""

    screen: int
    integer: int
    hint_bits: int


def av1_frames(packets: list[memoryview], extradata: bytes) -> list[list[Av1Frame]]:
    """The frames of each packet, in order, up to the first packet with anything in it that is not read here.

    Args:
        extradata: the box of "AV1 Codec ISO Media File Format Binding", 2.3, for packets without a sequence header.
    """
    box = memoryview(extradata)[4:] if extradata[:1] == b"\x81" else memoryview(b"")
    sequence, found = None, list[list[Av1Frame]]()
    with suppress(UnreadError, IndexError):
        for data in (box, *packets):
            units = list(_av1_units(data))
            for kind, unit in units:
                sequence = _av1_sequence(Bits(unit)) if kind == 1 else sequence
            found.append([_av1_frame(Bits(unit[:16]), sequence) for kind, unit in units if kind in {3, 6}])
    return found[1:]


def _av1_units(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """(obu_type, payload) of a temporal unit's parts (AV1, 5.3). Raises IndexError if it is cut off."""
    at = 0
    while at < len(data):
        header, at = data[at], at + 1 + (data[at] >> 2 & 1)
        size, shift = 0 if header & 2 else len(data) - at, 0
        while header & 2:
            size, shift, at = size | (data[at] & 127) << shift, shift + 7, at + 1
            if not data[at - 1] & 128:
                break
        kind = header >> 3 & 15
        if kind not in {1, 2, 3, 4, 5, 6, 15}:  # no repeated headers, no lists of tiles
            raise UnreadError
        yield kind, data[at : at + size]
        at += size


def _av1_sequence(bits: Bits) -> _Av1Sequence:
    """Not of stills, nor with timing, several operating points or frame numbers (AV1, 5.5.1)."""
    _, reduced, timing = bits.read(4), bits.read(1), bits.read(1)
    delay, points, layers = bits.read(1), bits.read(5), bits.read(12)
    if reduced or timing or points or layers:
        raise UnreadError
    if bits.read(5) > 7:
        bits.read(1)  # seq_tier
    if delay and bits.read(1):
        bits.read(4)
    width, height = bits.read(4) + 1, bits.read(4) + 1
    bits.read(width + height)
    if bits.read(1):  # frame_id_numbers_present_flag
        raise UnreadError
    bits.read(7)  # tools that leave no trace in frame headers
    ordered = bits.read(1)
    bits.read(2 * ordered)
    screen = 2 if bits.read(1) else bits.read(1)
    integer = 2 if not screen or bits.read(1) else bits.read(1)
    hint_bits = bits.read(3) + 1 if ordered else 0
    return _Av1Sequence(screen, integer, hint_bits)


def _av1_frame(bits: Bits, sequence: _Av1Sequence | None) -> Av1Frame:
    """A frame header up to the references (AV1, 5.9.2)."""
    if bits.read(1):  # show_existing_frame
        return Av1Frame(0, 1 << bits.read(3))
    kind, shown = bits.read(2), bits.read(1)
    if kind == 0 and shown:
        return Av1Frame(255, 0)
    if kind in {0, 3} or sequence is None:  # a key frame that takes effect later, or a switch frame
        raise UnreadError
    bits.read(not shown)  # showable_frame
    resilient, _ = bits.read(1), bits.read(1)
    screen = bits.read(1) if sequence.screen == 2 else sequence.screen
    bits.read(screen and sequence.integer == 2)  # force_integer_mv
    bits.read(1 + sequence.hint_bits)
    bits.read(0 if resilient or kind == 2 else 3)  # primary_ref_frame
    fills = bits.read(8)
    if kind == 2:  # intra only
        return Av1Frame(fills, 0)
    if resilient or (sequence.hint_bits and bits.read(1)):  # hints on every place, or places found by those
        return Av1Frame(fills, 255)
    places = bits.read(21)  # seven times ref_frame_idx
    return Av1Frame(fills, reduce(or_, (1 << (places >> at & 7) for at in range(0, 21, 3))))
