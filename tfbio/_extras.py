"""Optional packages: a missing one is reported with the command that installs it."""

import importlib.util


class MissingExtraError(ImportError):
    """Raised when an optional package is needed and not installed."""


def require(package: str, extra: str) -> None:
    """Check that an optional package is installed, without importing it.

    Args:
        package: The name that it is imported by.
        extra: The extra of tfbio that installs it.

    Raises:
        MissingExtraError: If it is not installed.

    Example:
        >>> require("optunas", extra="search")
        Traceback (most recent call last):
        tfbio._extras.MissingExtraError: optunas is not installed. Run: pip install "tfbio[search]"
    """
    if importlib.util.find_spec(package) is None:
        raise MissingExtraError(f'{package} is not installed. Run: pip install "tfbio[{extra}]"')
