"""CCA against constructed pairs of known canonical correlations and a plain NumPy solution."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from coaug.eval.cca import fit, fit_best
from coaug.eval.metrics import recall


def white(rows: int, columns: int, seed: int) -> np.ndarray:
    """(rows, columns) with mean exactly 0 and covariance exactly the identity."""
    draw = np.random.default_rng(seed).normal(size=(rows, columns))
    return np.linalg.qr(draw - draw.mean(0))[0] * np.sqrt(rows)


def correlated(rho: list[float], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Views whose canonical correlations are exactly `rho`, hidden by invertible maps and shifts."""
    base = white(500, 2 * len(rho), seed)
    x, e = base[:, : len(rho)], base[:, len(rho) :]
    y = np.array(rho) * x + np.sqrt(1 - np.array(rho) ** 2) * e
    rng = np.random.default_rng(seed + 1)
    mix = [rng.normal(size=(len(rho), len(rho))) for _ in range(2)]
    return torch.from_numpy(x @ mix[0] + 3.0), torch.from_numpy(y @ mix[1] - 1.0)


def test_known_correlations_are_found() -> None:
    rho = [0.9, 0.6, 0.2]
    found = fit(*correlated(rho))
    assert found.correlation.tolist() == pytest.approx(rho, abs=1e-10)


def test_projections_are_uncorrelated_of_unit_variance_and_correlate_as_said() -> None:
    x, y = correlated([0.8, 0.5])
    cca = fit(x, y)
    u, v = ((x - cca.mean_x) @ cca.map_x).numpy(), ((y - cca.mean_y) @ cca.map_y).numpy()
    np.testing.assert_allclose(u.T @ u / len(u), np.eye(2), atol=1e-10)
    np.testing.assert_allclose(v.T @ v / len(v), np.eye(2), atol=1e-10)
    np.testing.assert_allclose(u.T @ v / len(u), np.diag([0.8, 0.5]), atol=1e-10)


def test_ridge_against_the_generalised_eigenproblem() -> None:
    """rho² are the eigenvalues of (Cxx + rx)^-1 Cxy (Cyy + ry)^-1 Cyx."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(80, 5)) @ rng.normal(size=(5, 5))
    y = x[:, :3] @ rng.normal(size=(3, 4)) + rng.normal(size=(80, 4))
    a, b = x - x.mean(0), y - y.mean(0)
    cxx, cyy, cxy = a.T @ a / 80, b.T @ b / 80, a.T @ b / 80
    rx, ry = 0.1 * np.trace(cxx) / 5, 0.3 * np.trace(cyy) / 4
    squares = np.linalg.eigvals(
        np.linalg.solve(cxx + rx * np.eye(5), cxy) @ np.linalg.solve(cyy + ry * np.eye(4), cxy.T)
    )
    want = np.sqrt(np.sort(squares.real)[::-1][:4])
    got = fit(torch.from_numpy(x), torch.from_numpy(y), 0.1, 0.3).correlation
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-8)


def test_more_columns_than_rows_and_constant_columns() -> None:
    x, y = correlated([0.9, 0.4])
    wide = torch.cat(
        [x, torch.ones(len(x), 3), x @ torch.ones(2, 1).double()], 1
    )  # constant and repeated columns
    assert fit(wide, y).correlation.tolist() == pytest.approx([0.9, 0.4], abs=1e-8)
    few = fit(torch.randn(6, 40), torch.randn(6, 30), 0.1, 0.1)
    assert torch.isfinite(few.map_x).all()
    assert torch.isfinite(few.correlation).all()


def test_the_probe_finds_partners_that_it_has_not_seen() -> None:
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(600, 6, generator=draw)
    x = hidden @ torch.randn(6, 50, generator=draw) + 0.3 * torch.randn(600, 50, generator=draw)
    y = hidden @ torch.randn(6, 20, generator=draw) + 0.3 * torch.randn(600, 20, generator=draw)
    cca, width = fit_best(x[:400], y[:400])
    u, v = cca(x[400:], y[400:], width)
    ids = torch.arange(200)
    assert recall(u, v, ids, ids)[1] > 0.8
    assert recall(u, v.roll(1, 0), ids, ids)[1] < 0.05


def test_the_probe_on_unrelated_views_stays_at_chance() -> None:
    draw = torch.Generator().manual_seed(1)
    x, y, ids = torch.randn(500, 30, generator=draw), torch.randn(500, 10, generator=draw), torch.arange(200)
    cca, width = fit_best(x[:300], y[:300])
    u, v = cca(x[300:], y[300:], width)
    assert recall(u, v, ids, ids, (10,))[10] < 0.12  # chance 0.05
