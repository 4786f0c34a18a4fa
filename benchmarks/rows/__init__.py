"""Every way to the same batches: one file each, loaded only where it runs, in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple, Protocol

from .request import Request


class Way(Protocol):
    """One way to prepare batches. Ways that count what they decode have `decoded`, frames so far."""

    def __call__(self, batch: list[Request]) -> Any:
        """Prepare a batch: (B, V, 3, T, S, S) pictures and (B, V, 1, mels, L) log-mel, or the same in a list."""


class Row(NamedTuple):
    """`module:maker` in this package; the maker takes (catalog, config, batch, **setting) and returns a Way."""

    maker: str
    about: str
    settings: str = ""  # name of the module's tuple of settings to choose the fastest from
    alone: bool = False  # a ceiling on one core: several workers mean nothing to it
    own: bool = False  # has workers of its own, as many as its maker is told
    gpu: bool = False  # decodes and finishes on a GPU


ROWS = {
    "coaug": Row("ours:Loaded", "AVLoader", own=True),
    "AVID-CMA": Row("avid:Avid", "its own loader, re-implemented bit for bit"),
    "AVID-CMA, plain": Row("avid:Plain", "the same without its colour jitter, which no other row has"),
    "GDT": Row("gdt:Gdt", "its loader's pattern, re-implemented"),
    "torchcodec": Row("codec:TorchCodec", "torchcodec + torchaudio", "SETTINGS"),
    "decord": Row("reader:Decord", "decord2 + torchaudio", "SETTINGS"),
    "DALI": Row(
        "dali:Dali", "fn.decoders.video on whole files, sound by PyAV, as DALI reads no AAC", "SETTINGS"
    ),
    "PyAV + torch": Row("by_hand:ByHand", "a lean loader by hand, each view for itself"),
    "decode only": Row(
        "ceiling:DecodeOnly", "the packets that are needed, nothing else: the ceiling", alone=True
    ),
    "cached": Row("ceiling:Cached", "batches that are ready, copied: the headspace", alone=True),
    "coaug, GPU": Row("ours:OnGpu", "AVLoader, decoding and augmenting there", own=True, gpu=True),
    "torchcodec, CUDA": Row("codec:OnGpu", "torchcodec decodes on NVDEC", gpu=True),
    "PyNvVideoCodec": Row("nvidia:Decoded", "NVIDIA's own library, sessions kept", gpu=True),
    "NVDEC": Row("nvidia:Raw", "the same, nothing but decoding: the ceiling", gpu=True),
}


def maker(name: str) -> Callable[..., Way]:
    module, attribute = ROWS[name].maker.split(":")
    made: Callable[..., Way] = getattr(import_module(f".{module}", __package__), attribute)
    return made


def settings(name: str, feeds: tuple[str, ...] = ()) -> tuple[dict[str, Any], ...]:
    """What the fastest of is looked for; one empty setting where there is nothing to choose.

    Args:
        feeds: kinds of workers to try as well; our own loader has only its processes.
    """
    row = ROWS[name]
    module = import_module(f".{row.maker.split(':')[0]}", __package__)
    own: tuple[dict[str, Any], ...] = getattr(module, row.settings) if row.settings else ({},)
    if not feeds or row.own:
        return own
    return tuple({"feed": feed, **setting} for feed in feeds for setting in own)
