"""Versions of what is installed."""

from importlib import metadata


def installed(library: str) -> str:
    """The version of a library; `not installed` where there is none, as for a source tree that is run in place."""
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "not installed"
