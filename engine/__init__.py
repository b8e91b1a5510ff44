"""paychan: the state of payment channels, kept right."""

__version__ = "0.1.0"
