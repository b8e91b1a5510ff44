"""The edge: HTTP and WebSocket."""
