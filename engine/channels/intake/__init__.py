"""The gateway's side of the shell: claims gather here, go to their shards, and get their answers.

Nothing here runs in the process of a shard.
"""
