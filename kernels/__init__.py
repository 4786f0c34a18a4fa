"""Operations that the objectives spend their time in, each a public function on torch tensors."""

from .agreement_topk import agreement_topk
from .bank_draw import sample_negatives
from .bank_nce import nce_loss
from .bank_scores import bank_scores
from .bank_update import bank_update_
from .cross_affinity import cross_affinity
from .queue_neighbors import queue_neighbors
from .soft_infonce import infonce, soft_infonce

__all__ = [
    "agreement_topk",
    "bank_scores",
    "bank_update_",
    "cross_affinity",
    "infonce",
    "nce_loss",
    "queue_neighbors",
    "sample_negatives",
    "soft_infonce",
]
