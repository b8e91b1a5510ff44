"""The whole engine in one thread on a simulated disk and virtual time; `python -m` runs it."""
