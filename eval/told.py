"""What was drawn for a view, in words: "2 times as fast", "sound: pitch +4.2 semitones"."""

from __future__ import annotations

import numpy as np

from ..pipelines.plan import MODALITIES, ClipPlan
from .take import CLOSE, NAMES


def told(plan: ClipPlan, view: int) -> tuple[str, ...]:
    """What was drawn for one view of the plan's first sample, a phrase for each thing; none: as recorded."""
    used = [MODALITIES.index(name) for name in plan.config.modalities]
    at = (0, view, used)
    phrases = _shared([_faster(speed) for speed in plan.speed[at]], used, "{name} {text}")
    phrases += _shared(["backwards" if d < 0 else "" for d in plan.direction[at]], used, "{name} {text}")
    phrases += _shared([_later(offset) for offset in plan.offset[at]], used, "{name} {text}")
    for n, step in enumerate(plan.config.views[view].steps):
        applies = [step.applies(MODALITIES[m]) for m in used]
        drawn = (plan.steps[0, view, m, n] for m in used)
        values = [tuple(numbers[~np.isnan(numbers)].tolist()) for numbers in drawn]
        texts = [
            step.what.describe(numbers, plan.clip(m)) if yes else ""
            for numbers, m, yes in zip(values, used, applies, strict=True)
        ]
        phrases += _shared(texts, used, "{name}: {text}")
    return tuple(phrases)


def _faster(speed: float) -> str:
    return f"{speed:.3g} times as fast" if abs(speed - 1) > CLOSE else ""


def _later(offset: float) -> str:
    return f"{abs(offset):.2f} s {'later' if offset > 0 else 'earlier'}" if abs(offset) > CLOSE else ""


def _shared(texts: list[str], used: list[int], form: str) -> list[str]:
    """One phrase where picture and sound share it, else one for each that has any."""
    if len(set(texts)) == 1:
        return texts[:1] if texts[0] else []
    names = [NAMES[MODALITIES[m]] for m in used]
    return [form.format(name=name, text=text) for name, text in zip(names, texts, strict=True) if text]
