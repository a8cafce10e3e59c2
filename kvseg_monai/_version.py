"""The package's version, in one place; importing it costs nothing."""

__version__ = "0.2.0"
