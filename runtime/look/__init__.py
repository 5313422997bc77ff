"""Looking into trained networks: filters, activations, what a unit wants to see, what deceives it, how its loss lies.

In: a model and arrays. Out: arrays; `figure` draws them. The methods themselves are `.nn` library code
(`dsl/std/inputs.nn`): what stands here puts them behind the user's program, as exports, and repeats them.
"""

from .ascent import Dream, dream, saliency
from .attacks import Pixels, fgsm, guided_pixel, pgd, pgd_held, random_pixel, searched_pixel
from .inside import activations, filters, first_with_filters, inner_types, scores, subject
from .patch import Patch, patch, stick
from .rates import Rates, range_test
from .surface import Surface, surface

__all__ = [
    "Dream",
    "Patch",
    "Pixels",
    "Rates",
    "Surface",
    "activations",
    "dream",
    "fgsm",
    "filters",
    "first_with_filters",
    "guided_pixel",
    "inner_types",
    "patch",
    "pgd",
    "pgd_held",
    "random_pixel",
    "range_test",
    "saliency",
    "scores",
    "searched_pixel",
    "stick",
    "subject",
    "surface",
]
