"""The shell around the core: actors, shards, the log, placement on Ray."""
