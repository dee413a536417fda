"""The version of the package: that of pyproject.toml, which a test compares."""

__version__ = "0.1.0"
