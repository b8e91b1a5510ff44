"""The payments store on LMDB; `layout.py` says where everything lies."""

from engine.payments.kv.opening import open_store

__all__ = ["open_store"]
