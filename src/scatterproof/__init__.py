"""Can a pirate put a scattered model together again for less than it costs to train it?"""

from importlib.metadata import version

__version__ = version("scatterproof")
