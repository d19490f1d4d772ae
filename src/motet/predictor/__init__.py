"""A trained model in use: what the command line, the index and servers call."""

from motet.predictor.api import fit, load
from motet.predictor.inputs import Entry, is_table
from motet.predictor.predictor import Predictor

__all__ = ["Entry", "Predictor", "fit", "is_table", "load"]
