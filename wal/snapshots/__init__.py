"""Snapshots: written beside the log, chosen by a start, merged into bases."""
