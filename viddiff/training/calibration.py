"""Count symbols of real encodes, and make the entropy coder's tables from the counts.

Networks are trained with Laplace distributions. Rate-distortion optimised quantisation gives slightly
different statistics. Counts of real encodes fit better and cost nothing. The parametric table serves as a
prior worth a few hundred observations.
"""

from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from viddiff.codec.entropy import SCALE, Tables
from viddiff.codec.weights import TableSet, parametric_tables
from viddiff.encoder.frame_encoder import FrameSample
from viddiff.networks.hyperprior import TABLE_CLASSES, TABLE_COUNT

_PRIOR_WEIGHT = 300.0
_START_WEIGHT = 3000.0


class SymbolCounts:
    """Counts of (table index, symbol), for every kind of symbol."""

    def __init__(self, start: TableSet | None = None) -> None:
        """start: tables worth a few thousand observations each, with the radii of the parametric tables."""
        self.prior = parametric_tables()
        self.counts: dict[str, NDArray[np.float64]] = {
            field.name: np.zeros(getattr(self.prior, field.name).frequencies.shape)
            for field in fields(TableSet)
        }
        if start is not None:
            for name, counts in self.counts.items():
                counts += _START_WEIGHT / SCALE * getattr(start, name).frequencies

    def add(self, sample: FrameSample) -> None:
        """Count all symbols of an encoded frame."""
        for coded in sample.symbols:
            self.count(coded.kind, coded.symbols, coded.indexes)

    def count(
        self,
        kind: str,
        symbols: NDArray[np.int64],
        indexes: NDArray[np.int64],
        weights: NDArray[np.float32] | None = None,
    ) -> None:
        """Count symbols of one kind by table index. weights: how often each counts."""
        radius = getattr(self.prior, kind).radius[indexes]
        column = np.where(np.abs(symbols) <= radius, symbols + radius, 2 * radius + 1)
        counts = self.counts[kind]
        where = indexes * counts.shape[1] + column
        counts += np.bincount(where, weights, counts.size).reshape(counts.shape)

    def fade(self, kind: str, factor: float) -> None:
        """Multiply all counts of one kind by `factor`."""
        self.counts[kind] *= factor

    def tables(self) -> TableSet:
        """Tables from the counts so far. All are symmetric except flags, modes and merges."""
        names = [field.name for field in fields(TableSet)]
        return TableSet(**{n: self._fit(n, symmetric=n not in ("flags", "modes", "merges")) for n in names})

    def _fit(self, kind: str, symmetric: bool) -> Tables:
        prior: Tables = getattr(self.prior, kind)
        if kind == "y":
            return self._fit_classes(prior)
        return Tables.from_probabilities(self._rows(self.counts[kind], prior, symmetric))

    def _fit_classes(self, prior: Tables) -> Tables:
        """Tables of each class. The prior is the tables of all classes together."""
        classes = self.counts["y"].reshape(TABLE_CLASSES, TABLE_COUNT, -1)
        pooled = Tables.from_probabilities(
            self._rows(np.tile(classes.sum(0), (TABLE_CLASSES, 1)), prior, symmetric=True)
        )
        return Tables.from_probabilities(self._rows(self.counts["y"], pooled, symmetric=True))

    @staticmethod
    def _rows(counts_of: NDArray[np.float64], prior: Tables, symmetric: bool) -> list[NDArray[np.float64]]:
        rows = []
        for counts, frequencies, radius in zip(
            counts_of, prior.frequencies, prior.radius.tolist(), strict=True
        ):
            size = 2 * radius + 1
            seen, expected = counts[: size + 1].copy(), frequencies[: size + 1] / frequencies.sum()
            if symmetric:
                seen[:size] = (seen[:size] + seen[:size][::-1]) / 2
            weighted = seen + _PRIOR_WEIGHT * expected
            rows.append(weighted / weighted.sum())
        return rows
