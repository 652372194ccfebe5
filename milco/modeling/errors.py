"""The error of this package. A published model does not need this package: it contains a copy of milco/errors.py
instead of this file."""

from milco.errors import MilcoError

__all__ = ["MilcoError"]
