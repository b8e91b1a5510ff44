"""What is read from the files of a shard for people and tools. A writer may be at work."""
