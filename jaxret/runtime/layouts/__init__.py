"""Layouts of checkpoints: jaxret's own, and those of the libraries that publish retrievers."""

from jaxret.runtime.layouts.description import Description, Layout, Part
from jaxret.runtime.layouts.loading import loaded_params
from jaxret.runtime.layouts.registry import LAYOUTS, describe, layout_of, load_pretrained, save_pretrained

__all__ = [
    "LAYOUTS",
    "Description",
    "Layout",
    "Part",
    "describe",
    "layout_of",
    "load_pretrained",
    "loaded_params",
    "save_pretrained",
]
