"""The optimiser of a config."""

from __future__ import annotations

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from .run_config import OptimConfig


def build_optimizer(module: nn.Module, config: OptimConfig) -> Optimizer:
    """SGD, Adam or AdamW over the trainable parameters; biases and norms decay only with `decay_biases`."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    flat = [p for p in parameters if p.ndim <= 1 and not config.decay_biases]
    deep = [p for p in parameters if p.ndim > 1 or config.decay_biases]
    groups = [
        {"params": deep, "weight_decay": config.weight_decay},
        *([{"params": flat, "weight_decay": 0.0}] if flat else []),
    ]
    if config.name == "sgd":
        return SGD(groups, lr=config.lr, momentum=config.momentum)
    kind = Adam if config.name == "adam" else AdamW
    return kind(groups, lr=config.lr, betas=config.betas)


def set_learning_rate(optimizer: Optimizer, lr: float) -> None:
    """Use `lr` from the next step on."""
    for group in optimizer.param_groups:
        group["lr"] = lr
