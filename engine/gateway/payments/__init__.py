"""Payments over HTTP and WebSocket: `/v1/payments…`, and payments that a WebSocket follows."""
