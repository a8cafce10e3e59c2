"""Otsu's threshold."""

import numpy as np


def threshold_otsu(values: np.ndarray, nbins: int = 256) -> float:
    """Return the centre of the bin up to which the variance between the two classes is largest."""
    counts, edges = np.histogram(values, bins=nbins)
    centres, counts = (edges[:-1] + edges[1:]) / 2, counts.astype(np.float32)
    below, above = np.cumsum(counts), np.cumsum(counts[::-1])[::-1]
    low = np.cumsum(counts * centres) / below
    high = (np.cumsum((counts * centres)[::-1]) / above[::-1])[::-1]
    return float(centres[np.argmax(below[:-1] * above[1:] * (low[:-1] - high[1:]) ** 2)])
