"""Work beside a shard, in processes of low priority that a shard starts and ends."""
