"""A second opinion on every byte of a log. Shares nothing with the writer but the format."""
