"""The learning rate as a function of the step: linear warm-up, then a cosine."""

from __future__ import annotations

import math

from .run_config import OptimConfig


def learning_rate(step: int, config: OptimConfig, epochs: int, steps_per_epoch: int) -> float:
    """Learning rate of step `step` (from 0): `start_lr` -> `lr` over the warm-up, then a cosine to `end_lr`.

    Source: SvaCLR §4.1 (0.064 to 0.64 over 10 epochs, then to 0.10 over the remaining 90).
    """
    warmup, total = config.warmup_epochs * steps_per_epoch, epochs * steps_per_epoch
    if step < warmup:
        return config.start_lr + (config.lr - config.start_lr) * step / warmup
    progress = min(1.0, (step - warmup) / max(1.0, total - warmup))
    return config.end_lr + (config.lr - config.end_lr) * 0.5 * (1 + math.cos(math.pi * progress))
