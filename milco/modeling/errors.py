"""The error of this package. A published model stands alone: it has a copy of milco/errors.py in this file's place."""

from milco.errors import MilcoError

__all__ = ["MilcoError"]
