"""The `paychan` command: one module per noun."""
