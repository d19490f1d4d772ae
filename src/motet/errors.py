"""The one family of errors. Every message says where, what, why, and the way out.

`exit_code` is what the command line returns for it.
"""

from __future__ import annotations


class MotetError(Exception):
    """Base of everything that Motet raises on purpose."""

    exit_code = 1


class ConfigError(MotetError):
    """Wrong use: an option, a config key, an argument or a missing extra."""

    exit_code = 2


class DataError(MotetError):
    """The data cannot be used as it is. `rule` names in a word or two what was broken, for reports."""

    exit_code = 3

    def __init__(self, message: str, *, rule: str = "unusable") -> None:
        super().__init__(message)
        self.rule = rule


class MismatchError(MotetError):
    """Data or config differ from those of the run, model or index being continued."""

    exit_code = 4


class StorageError(MotetError):
    """No space, or a write failed; what was there before is whole."""

    exit_code = 5


class Interrupted(MotetError):
    """Stopped by a signal after saving; run again with --resume."""

    exit_code = 75


def missing_extra(extra: str, package: str, purpose: str) -> ConfigError:
    """The error for an optional dependency that is not installed."""
    return ConfigError(
        f"{purpose} needs the package {package!r}, which is not installed. "
        f"Install it with: pip install 'motet[{extra}]'"
    )
