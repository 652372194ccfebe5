"""The one error that a user of the programs is meant to read."""


class MilcoError(Exception):
    """Something in the user's settings, data or machine is wrong; the message says what, where and what to do."""
