"""Harmonic fill: the smoothest surface through the hole's border (heat equation)."""

from jaxpaint.poisson import harmonic_fill
from jaxpaint.types import Method, Window, classical


def make(*, tolerance: float = 1e-5, iterations: int = 200) -> Method:
    """Returns the method; see `jaxpaint.poisson.harmonic_fill` for the options."""
    return classical(
        lambda image, mask, key: harmonic_fill(
            image, mask, tolerance=tolerance, iterations=iterations
        ),
        Window(margin=2, splits=True),
    )
