"""A linear classifier on frozen features: multinomial logistic regression, its ridge chosen on rows it is fitted on."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .subject import EvalError

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""scikit-learn's C: the weight of the data against |w|^2 / 2, on standardised features."""
HELD_OUT = 0.25
ITERATIONS = 500
SMALL = 1e8
"""Features x rows x classes below which BLAS gets one thread: several would wait for each other most of the time."""
Array = NDArray[Any]


@dataclass(frozen=True)
class Probe:
    """A fitted classifier, and the share of the held-out rows that the chosen C had right before the fit on all."""

    model: Any
    held_out: float

    def accuracy(self, x: Tensor, label: Tensor) -> float:
        """Share of rows (N, d) whose class (N,) it names."""
        return float((self.model.predict(_rows(x)) == label.cpu().numpy()).mean())


def fit(x: Tensor, label: Tensor, *, seed: int = 0) -> Probe:
    """A probe of features x (N, d) with classes (N,).

    Mean and deviation of every feature are those of the rows fitted on. C is the one of `STRENGTHS` with the best
    accuracy on a quarter of the rows, drawn at random with the classes' shares (the smallest one of equals); then all
    rows are fitted with it.

    Raises:
        EvalError: fewer than two classes.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    rows, classes = _rows(x), label.cpu().numpy()
    if len(np.unique(classes)) < 2:
        raise EvalError(
            f"a classifier needs two classes, the recordings to fit it on have {np.unique(classes).tolist()}"
        )
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(solver="lbfgs", max_iter=ITERATIONS))
    small = rows.size * len(np.unique(classes)) < SMALL
    search = GridSearchCV(pipeline, {"logisticregression__C": STRENGTHS}, cv=[_division(classes, seed)])
    with warnings.catch_warnings(), threadpool_limits(1 if small else None):
        warnings.simplefilter(
            "ignore", ConvergenceWarning
        )  # nearly there is as good, for features that separate
        search.fit(rows, classes)
    return Probe(search.best_estimator_, float(search.best_score_))


def _division(classes: Array, seed: int) -> tuple[Array, Array]:
    """Rows to fit on and rows to choose C by; with the classes' shares where every class has two rows."""
    from sklearn.model_selection import ShuffleSplit, StratifiedShuffleSplit

    counts = np.unique(classes, return_counts=True)[1]
    even = counts.min() >= 2 and len(classes) * HELD_OUT >= len(counts)
    kind = StratifiedShuffleSplit if even else ShuffleSplit
    fitted, held = next(kind(1, test_size=HELD_OUT, random_state=seed).split(classes, classes))
    return fitted, held


def _rows(x: Tensor) -> Array:
    rows: Array = x.detach().cpu().double().numpy()
    return rows
