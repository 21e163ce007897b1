"""The vectors of a policy as named arrays, as `decision.safetensors` holds them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bankintent.decision.gaussian import Gaussians
from bankintent.decision.prototypes import Prototypes
from bankintent.decision.scope_scores import Geometry

Arrays = dict[str, NDArray[Any]]

GAUSSIANS = ("mean", "whitening", "centres", "background")
"""Arrays of the Gaussians; a policy whose score needs none lacks them."""

NORMALISED = "normalised"
"""(1,) whether the Gaussians are of features of length 1."""


LONGEST_PROTOTYPE = 1.001
"""A prototype has length 1, but for rounding, or 0 where an intent has no direction."""

LARGEST = 1e9
"""Largest absolute number of the Gaussians: squares of sums of products stay within float32."""


def as_float32(array: NDArray[Any]) -> NDArray[np.float32]:
    """An array of any number type; what is too large for float32 becomes infinite."""
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def to_arrays(geometry: Geometry) -> Arrays:
    """The arrays to write."""
    arrays: Arrays = {
        "prototypes": geometry.prototypes.vectors,
        "prototype_labels": geometry.prototypes.labels,
    }
    gaussians = geometry.gaussians
    if gaussians is not None:
        arrays |= {name: getattr(gaussians, name) for name in GAUSSIANS}
        arrays[NORMALISED] = np.array([gaussians.normalised])
    return arrays


def from_arrays(arrays: Arrays, num_labels: int) -> Geometry:
    """The geometry of a model with so many labels.

    Raises ValueError where the arrays are not what `to_arrays` gives for such a model.
    """
    try:
        vectors = as_float32(arrays["prototypes"])
        labels = arrays["prototype_labels"].astype(np.int64)
    except KeyError:
        raise ValueError("it holds no prototypes") from None
    if vectors.ndim != 2 or labels.ndim != 1:
        raise ValueError("its prototypes are no list of vectors")

    # Sorted, and no intent without one.
    is_whole = np.array_equal(np.unique(labels), np.arange(num_labels))
    if len(vectors) != len(labels) or not is_whole or np.any(np.diff(labels) < 0):
        raise ValueError("its prototypes are not those of the labels")
    # With NaN it is not at most anything.
    if not (np.linalg.norm(vectors.astype(np.float64), axis=1) <= LONGEST_PROTOTYPE).all():
        raise ValueError("a prototype is not of length 1")
    width = vectors.shape[1]
    return Geometry(Prototypes(vectors, labels), _read_gaussians(arrays, num_labels, width))


def _read_gaussians(arrays: Arrays, num_labels: int, width: int) -> Gaussians | None:
    if NORMALISED not in arrays:
        return None

    shapes = {
        "mean": (width,),
        "whitening": (width, width),
        "centres": (num_labels, width),
        "background": (width, width),
    }
    values = {}
    for name, shape in shapes.items():
        array = arrays.get(name)
        if array is None or array.shape != shape:
            raise ValueError(f"its {name} is not that of the labels")
        values[name] = as_float32(array)
        if not (np.abs(values[name]) <= LARGEST).all():
            raise ValueError(f"its {name} holds a number that is not finite, or beyond {LARGEST:g}")
    return Gaussians(**values, normalised=bool(arrays[NORMALISED].all()))
