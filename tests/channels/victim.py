"""A shard in a process of its own, which does what it is told on standard input until it is killed.

Started by `test_kill` as `python -m tests.channels.victim DATADIR`; both sides speak lines of hex.
"""

import sys

from engine.channels.host import ShardHost, ShardSettings
from engine.channels.options import ShardOptions
from engine.validation.options import RiskOptions, ValidationOptions


def main() -> None:
    host = ShardHost(
        ShardSettings(
            number=0,
            datadir=sys.argv[1],
            shard=ShardOptions(tick_ms=2, segment_bytes=65_536, checkpoint_events=700),
            validation=ValidationOptions(),
            risk=RiskOptions(),
        )
    )
    for line in sys.stdin:
        step, *arguments = line.split()
        values = [parse(argument) for argument in arguments]
        sys.stdout.write(getattr(host, step)(*values).hex() + "\n")
        sys.stdout.flush()


def parse(argument: str) -> bytes | int | str:
    kind, _, text = argument.partition(":")
    return {"b": bytes.fromhex, "i": int, "s": str}[kind](text)


if __name__ == "__main__":
    main()
