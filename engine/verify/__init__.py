"""Signatures exactly as the ledger checks them, and the pool that checks many."""
