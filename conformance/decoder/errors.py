"""The two ways in which decoding can end early."""


class InvalidError(Exception):
    """The bitstream breaks a rule of the standard."""


class UnsupportedError(Exception):
    """The bitstream has something that this decoder does not know, because it is reserved."""
