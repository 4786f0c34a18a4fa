"""The demo's classes: each a way to move and the sound that the movement makes."""

from __future__ import annotations

from .event import Event
from .impacts import IMPACTS
from .textures import TEXTURES
from .tones import TONES

EVENTS: dict[str, Event] = {event.name: event for event in (*IMPACTS, *TONES, *TEXTURES)}
