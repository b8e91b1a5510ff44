"""Say how a log is kept: sizes, ages and limits, each with its unit."""

import msgspec

MIB = 1 << 20


class LogOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of one log.

    Attributes:
        shard_id: whose log it is; in every segment, and in the chain from its first value on.
        segment_bytes: a segment is sealed before it grows beyond this; 8 KiB to 256 MiB. A frame
            that would not fit an empty segment gets one to itself, as large as it needs.
        segment_age_s: the first commit after this age seals the segment; 1 s to 7 days.
        snapshots_kept: older ones are removed when a new one was verified; 1 to 100.
        zstd_level: -7 to 19; -1 finds what repeats and is done with signatures, where nothing does,
            in a fifth of the time of level 1.
        spare_in_background: prepare the next segment in a thread. Off: when it is needed.
        codec_id: written into each segment; one that says otherwise is refused.
        schema_version: of the records; written into each segment, judged by the codec's owner.
    """

    shard_id: int = 0
    segment_bytes: int = 64 * MIB
    segment_age_s: int = 900
    snapshots_kept: int = 3
    zstd_level: int = -1
    spare_in_background: bool = True
    codec_id: int = 0
    schema_version: int = 0

    def __post_init__(self) -> None:
        # Not `msgspec.Meta`: that is checked when bytes are decoded, not when Python builds one.
        for name, low, high in _BOUNDS:
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must be {low} to {high}, not {getattr(self, name)}")


_BOUNDS = (
    ("shard_id", 0, (1 << 32) - 1),
    ("segment_bytes", 8192, 256 * MIB),
    ("segment_age_s", 1, 7 * 86_400),
    ("snapshots_kept", 1, 100),
    ("zstd_level", -7, 19),
    ("codec_id", 0, (1 << 16) - 1),
    ("schema_version", 0, (1 << 16) - 1),
)
