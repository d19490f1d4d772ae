"""Search across modalities: an `Index` holds one vector for every modality of every row."""

from motet.index.adding import Added
from motet.index.filter import Filter, parse_filter
from motet.index.index import Index

__all__ = ["Added", "Filter", "Index", "parse_filter"]
