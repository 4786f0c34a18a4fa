"""Which packets a decoder can do without: pictures that nothing refers to and nobody will see.

A decoder keeps pictures in places, named here by the bits of a mask. What a packet may put there is of use if a later
one that is decoded may read it from there; so from the last packet to the first:

    decoded   I0 P4 B2 b1 b3 P8 B6 b5 b7        (H.264 with a pyramid; numbers are presentation times)
    fills     *  *  *        *  *               (nal_ref_idc; every picture may read)
    wanted          B2                b7
    needed    I0 P4 B2       P8 B6    b7

H.264 tells references from others, HEVC also by temporal layer, AV1 each of its eight places. VP8 and VP9 have no rule:
each frame changes what the next starts from (the last picture, probabilities, motion), except in streams made for
conferences. Nor have MPEG-1, 2 and 4: few encoders make B-pictures untold, and XviD packs them two to a packet.
Containers' own marks (`Packet.is_disposable`) are left aside: most writers set none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import chain, compress, repeat
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .bitstream import Av1Frame, UnreadError, av1_frames, avc_headers, avc_is_plain, avc_sequences, nal_units


class Use(NamedTuple):
    """Masks of the places that a packet may put a picture in, that it may read, and whose content it ends."""

    fills: int
    reads: int
    ends: int = 0


ANYTHING = Use(-1, -1)  # what is not understood
REFERENCE, OTHER = Use(1, 1), Use(0, 1)
Rule = Callable[[list[memoryview], bytes], list[Use]]


def without_disposable(packets: list[Any], wanted: NDArray[np.bool_], codec: Any) -> list[Any]:
    """`packets` (n, decoding order) but for those that neither one of the `wanted` (n,) nor one left may refer to.

    The pictures of those left are, bit for bit, what they are if all packets are decoded.

    Args:
        codec: the stream's codec context.
    """
    if wanted.all() or (found := uses(packets, codec)) is None:
        return packets
    keys = [p.is_keyframe for p in packets]
    return list(compress(packets, referred(found, wanted.tolist(), keys)))


def uses(packets: list[Any], codec: Any) -> list[Use] | None:
    """Each packet's use, or None where all of them are needed."""
    rule = RULES.get(codec.codec.canonical_name)
    if rule is None or any(d.data_type == "new_extradata" for p in packets for d in p.iter_sidedata()):
        return None
    return rule([memoryview(p) for p in packets], bytes(codec.extradata or b""))


def referred(found: Sequence[Use], wanted: Sequence[bool], keys: Sequence[bool]) -> list[bool]:
    """Which packets are wanted, key frames, or of use to one of those after them."""
    kept, live = [], 0
    for (fills, reads, ends), seen, key in zip(
        reversed(found), reversed(wanted), reversed(keys), strict=True
    ):
        kept.append(needed := bool(seen or fills & live or key))
        if needed:
            live = live & ~ends | reads
    return kept[::-1]


def _h264(packets: list[memoryview], extradata: bytes) -> list[Use]:
    """By nal_ref_idc (Rec. ITU-T H.264, 7.4.1) of all slices. Left as they are: interlaced video, where a field may
    come alone in a packet, and video that does not tell its delay, which FFmpeg guesses from the pictures it gets."""
    headers = [avc_headers(p, extradata) for p in packets]
    uses = {kinds: _avc_use(kinds) for kinds in set(headers)}  # few, of many packets
    sequences = set(avc_sequences(extradata))
    if any(header & 31 == 7 for header in chain.from_iterable(uses)):
        units = chain.from_iterable(nal_units(p, extradata, hevc=False) for p in packets)
        sequences |= {bytes(unit) for unit in units if unit[0] & 31 == 7}
    with suppress(UnreadError):
        if sequences and all(map(avc_is_plain, sequences)):
            return [uses[kinds] for kinds in headers]
    return [ANYTHING] * len(packets)


def _avc_use(headers: bytes) -> Use:
    slices = [h for h in headers if 1 <= h & 31 <= 5]
    # besides slices only SEI, delimiters and filler: parameter sets must reach the decoder
    others = {h & 31 for h in headers} - {1, 2, 3, 4, 5} - {6, 9, 12}
    return OTHER if slices and not others and not any(h & 0x60 for h in slices) else REFERENCE


def _hevc(packets: list[memoryview], extradata: bytes) -> list[Use]:
    """Place 2t holds temporal layer t's references; in 2t + 1 are its sub-layer non-reference pictures, which only
    higher layers may read (Rec. ITU-T H.265, 7.4.2.2)."""
    return [_hevc_use(nal_units(p, extradata, hevc=True)) for p in packets]


def _hevc_use(units: list[memoryview]) -> Use:
    if any(len(u) < 2 or u[0] & 1 or u[1] >> 3 for u in units):  # cut off, or of a second view
        return ANYTHING
    kinds = {u[0] >> 1 for u in units}
    slices = {kind for kind in kinds if kind < 32}
    layers = {u[1] & 7 for u in units if u[0] >> 1 < 32}  # counted from one
    if len(layers) != 1 or 0 in layers:
        return ANYTHING
    place = 2 * layers.pop() - 2
    plain = kinds - slices <= {35, 38, 39, 40}  # besides slices only delimiters, filler and SEI
    return Use(1 << place + (slices <= {0, 2, 4, 6, 8}) if plain else -1, (2 << place) - 1)


def _av1(packets: list[memoryview], extradata: bytes) -> list[Use]:
    """By refresh_frame_flags and ref_frame_idx (AV1, 5.9.2 and 7.20) of all frames of a packet, shown or not."""
    known = (_av1_use(frames) for frames in av1_frames(packets, extradata))
    return [use for use, _ in zip(chain(known, repeat(ANYTHING)), packets, strict=False)]


def _av1_use(frames: list[Av1Frame]) -> Use:
    fills, reads = 0, 0
    for frame in reversed(frames):
        fills, reads = fills | frame.fills, reads & ~frame.fills | frame.reads
    return Use(fills, reads, fills) if frames else ANYTHING


RULES: dict[str, Rule] = {"h264": _h264, "hevc": _hevc, "av1": _av1}
