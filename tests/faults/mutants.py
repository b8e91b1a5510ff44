"""The safeguards, one by one: where each stands, and what the code would be without it.

A patch is as short as it can be, so that it survives changes around it; `test_mutations` says when
one does not fit any more. `tests` are those that should notice, the likeliest first.
"""

from typing import Final, NamedTuple

BYTES: Final = "tests/faults/test_bytes.py"
FRAMES: Final = "tests/wal/test_frame.py"
LOCK: Final = "tests/wal/test_lock.py"
LOG: Final = "tests/wal/test_log.py"
MANIFEST: Final = "tests/wal/test_manifest.py"
ORDER: Final = "tests/wal/test_order.py"
RECOVERY: Final = "tests/wal/test_recovery.py"
SEGMENTS: Final = "tests/wal/test_segments.py"
SNAPSHOTS: Final = "tests/wal/test_snapshot.py"
VERIFY: Final = "tests/wal/test_verification.py"
HOST: Final = "tests/channels/test_host.py"
SHARD: Final = "tests/channels/test_shard.py"
CLAIMS: Final = "tests/channels/test_order.py"
STATE: Final = "tests/channels/test_recovery.py"
ASLEEP: Final = "tests/channels/test_actors.py"
SEALS: Final = "tests/verify/test_seal.py"
RULES: Final = "tests/core/test_claim_rules.py"
CHECKPOINTS: Final = "tests/channels/test_checkpoint.py"
INCREMENTS: Final = "tests/wal/test_increments.py"
PACK: Final = "tests/wal/test_pack.py"
COPIES: Final = "tests/wal/test_copying.py"
INVARIANTS: Final = "tests/core/test_invariants.py"
NEWEST: Final = "tests/verify/test_newest.py"
COVERING: Final = "tests/channels/test_covering.py"
COVERED: Final = "tests/channels/test_covered.py"
HISTORIES: Final = "tests/channels/test_newest.py"
COVERED_STATE: Final = "tests/core/test_covering.py"


class Mutant(NamedTuple):
    """The code without one safeguard.

    Attributes:
        safeguard: what is removed, in words.
        file: where it stands, from the root of the repository.
        search: the text of it, which occurs once.
        replace: what stands there instead.
        tests: files that should notice.
    """

    safeguard: str
    file: str
    search: str
    replace: str
    tests: tuple[str, ...]


MUTANTS: Final = (
    # What is on disk before what
    Mutant(
        "the data sync of a frame", "wal/writer.py",
        "self._files.sync(self._handle, data_only=data_only)", "pass", (ORDER, LOG),
    ),
    Mutant(
        "the directory sync of the MANIFEST", "wal/manifest.py",
        "    sync_directory(files, directory)\n", "", (ORDER,),
    ),
    Mutant(
        "the look at LOCK before the MANIFEST is touched", "wal/manifest.py",
        "    check()\n    temporary", "    temporary", (LOCK,),
    ),
    Mutant(
        "the look at LOCK right before the MANIFEST is replaced", "wal/manifest.py",
        "    check()\n    files.rename", "    files.rename", (LOCK,),
    ),
    Mutant(
        "the directory sync of a new segment", "wal/writer.py",
        "        sync_directory(files, directory)\n", "        pass\n", (ORDER,),
    ),
    Mutant(
        "the sync of the MANIFEST's draft", "wal/files.py",
        "        write_all(files, handle, data, 0)\n        files.sync(handle)\n",
        "        write_all(files, handle, data, 0)\n", (ORDER,),
    ),
    Mutant(
        "the sync of a checkpoint", "wal/snapshots/snapshot.py",
        "        files.sync(handle)\n", "", (ORDER,),
    ),
    Mutant(
        "the sync of what a dead writer left", "wal/recovery.py",
        "        sync_directory(files, path)\n", "        pass\n", (ORDER,),
    ),
    Mutant(
        "the MANIFEST before the first frame of a segment", "wal/live.py",
        "        self._keep(msgspec.structs.replace(manifest, live=self._writer.entry))\n"
        "        self.counters.rotations += 1",
        "        self.manifest = msgspec.structs.replace(manifest, live=self._writer.entry)\n"
        "        self.counters.rotations += 1", (ORDER, RECOVERY),
    ),
    Mutant(
        "the rest of a short write", "wal/files.py",
        "    while taken < len(data):", "    while False:", (LOG,),
    ),
    # What a frame must be
    Mutant(
        "the checksum of a frame's header", "wal/frame.py",
        "    if _crc(head) != crc:", "    if False:", (FRAMES, BYTES),
    ),
    Mutant(
        "the checksum of a payload", "wal/frame.py",
        "    if _extend(header.crc, body[:end]) != header.body_crc:", "    if False:",
        (FRAMES, BYTES),
    ),
    Mutant(
        "the chain", "wal/frame.py",
        "    if digest.digest() != after:", "    if False:", (FRAMES, BYTES),
    ),
    Mutant(
        "the zeros of the padding", "wal/frame.py",
        "    if any(body[end:]):", "    if False:", (FRAMES, BYTES),
    ),
    Mutant(
        "the bounds of lengths before allocation", "wal/frame.py",
        "    if not _in_bounds(header):", "    if False:", (FRAMES, BYTES),
    ),
    Mutant(
        "the declared size before decompression", "wal/frame.py",
        "            or inside.content_size != header.raw_bytes\n", "", (FRAMES,),
    ),
    Mutant(
        "the end of the payload behind its zstd frame", "wal/frame.py",
        "allow_extra_data=False", "allow_extra_data=True", (FRAMES,),
    ),
    Mutant(
        "unknown flags refuse a frame", "wal/frame.py",
        " or flags & ~FLAGS_KNOWN", "", (FRAMES, BYTES),
    ),
    Mutant(
        "the number of a frame", "wal/segment.py",
        "if header.durable_lsn != self.lsn - 1 or (header.lsn != self.lsn and not packed):",
        "if False:", (BYTES, RECOVERY),
    ),
    Mutant(
        "the epoch and segment of a frame", "wal/segment.py",
        "if header.segment != self.header.number or header.epoch != self.header.epoch:",
        "if False:", (BYTES, RECOVERY),
    ),
    Mutant(
        "the place of a segment", "wal/segment.py",
        "        if self.header.link(link.name) != link:", "        if False:",
        (BYTES, SEGMENTS),
    ),
    Mutant(
        "nothing follows the seal of a segment", "wal/segment.py",
        "        if self.sealed:", "        if False:", (BYTES, RECOVERY),
    ),
    # What a start believes
    Mutant(
        "the watermark of an idle writer", "wal/log.py",
        "        if not self._live.unproven:", "        if True:", (LOG,),
    ),
    Mutant(
        "a later frame proves an earlier one", "wal/judgement.py",
        "    if not ours or header.durable_lsn >= scan.lsn:", "    if not ours:",
        (BYTES, RECOVERY),
    ),
    Mutant(
        "what the MANIFEST knows to be durable", "wal/judgement.py",
        "    if known_durable_lsn >= scan.lsn:", "    if False:", (RECOVERY,),
    ),
    Mutant(
        "what was written as it stands is no torn write", "wal/judgement.py",
        "    if bad.whole:", "    if False:", (BYTES, RECOVERY),
    ),
    Mutant(
        "more follows than a torn frame can leave", "wal/judgement.py",
        "    if end - scan.offset > FRAME_BYTES_MAX:", "    if False:", (RECOVERY,),
    ),
    Mutant(
        "a tail is kept before it is cut", "wal/recovery.py",
        "            quarantined.append(_keep_tail(files, directory, tail))",
        "            pass", (RECOVERY,),
    ),
    Mutant(
        "the hash of the MANIFEST", "wal/manifest.py",
        "sha256(checked).digest() != digest", "False", (MANIFEST, BYTES),
    ),
    Mutant(
        "the joints of the MANIFEST", "wal/manifest.py",
        "    _check_joints(manifest)\n", "", (MANIFEST,),
    ),
    Mutant(
        "the size of a sealed segment", "wal/survey.py",
        "        if size != entry.size:", "        if False:", (BYTES, SEGMENTS),
    ),
    Mutant(
        "the hash of a sealed segment", "wal/survey.py",
        "    if digest.digest() != entry.sha256:", "    if False:", (BYTES, SEGMENTS),
    ),
    Mutant(
        "a log newer than its MANIFEST is refused", "wal/survey.py",
        "    if newest_frame_of(files, directory / path) > findings.end_lsn:", "    if False:",
        (BYTES, SEGMENTS),
    ),
    Mutant(
        "a start begins a new epoch", "wal/recovery.py",
        "    epoch = findings.manifest.epoch + 1", "    epoch = findings.manifest.epoch or 1",
        (LOG, SEGMENTS),
    ),
    Mutant(
        "one writer at a time", "wal/files.py",
        "fcntl.LOCK_EX | fcntl.LOCK_NB", "fcntl.LOCK_SH | fcntl.LOCK_NB", (LOG,),
    ),
    Mutant(
        "a checkpoint is read back before it is named", "wal/snapshots/snapshot.py",
        "    if _digest(files, temporary) != (entry.size, entry.sha256):", "    if False:",
        (SNAPSHOTS,),
    ),
    Mutant(
        "a checkpoint is verified before it serves", "wal/snapshots/snapshot.py",
        'return "" if found == (entry.size, entry.sha256) else "length or hash"', 'return ""',
        (BYTES, SNAPSHOTS),
    ),
    Mutant(
        "the MANIFEST tells how far an idle log goes", "wal/log.py",
        "                self._live.tell_manifest_in_time()", "                pass",
        ("tests/wal/test_proof.py",),
    ),
    # What is let go, and what takes its place
    Mutant(
        "the log is cut below a base only", "wal/live.py",
        "for one in manifest.sealed[:-1] if one.last_lsn > below.lsn)",
        "for one in manifest.sealed[:-1] if False)", (INCREMENTS, CHECKPOINTS),
    ),
    Mutant(
        "the base before is read back before the log is cut below it", "wal/snapshots/base.py",
        "    if not older or verify_snapshot(files, directory, older[-1]):", "    if not older:",
        (INCREMENTS, CHECKPOINTS),
    ),
    Mutant(
        "a packed segment is compared record by record", "wal/pack.py",
        "            if one != other:", "            if False:", (PACK,),
    ),
    Mutant(
        "a packed segment is read back from the disk", "wal/pack.py",
        "    if digest.digest() != packed.sha256:", "    if False:", (PACK,),
    ),
    Mutant(
        "a checkpoint holds what its head says", "engine/channels/checkpoint.py",
        "    if found != (head.position, head.channels, head.claimed_sum):", "    if False:",
        (CHECKPOINTS, STATE),
    ),
    Mutant(
        "a head says of any sum what 64 bits hold", "engine/channels/checkpoint.py",
        "    return claimed & 0xFFFF_FFFF_FFFF_FFFF", "    return claimed", (CHECKPOINTS,),
    ),
    Mutant(
        "whether there is room is said between steps", "engine/channels/host.py",
        "            self._space.look()  # a disk",
        "            self._space.look(); self._say_whether_there_is_room()  # a disk", (HOST,),
    ),
    Mutant(
        "an increment builds on what is there", "engine/channels/checkpoint.py",
        "    if head.since != (state.position if state.actors else 0):", "    if False:",
        (CHECKPOINTS, STATE),
    ),
    Mutant(
        "what changed since the checkpoint stays awake", "engine/channels/actors.py",
        "actor.position > min(self._unused_since, checkpoint)",
        "actor.position > self._unused_since", (ASLEEP,),
    ),
    Mutant(
        "a channel that is changed is one that is kept", "engine/channels/actors.py",
        "        self._kept[channel_id] = actor\n", "", (ASLEEP,),
    ),
    Mutant(
        "claims of the log are checked again in replay", "engine/channels/recovery.py",
        "                    if refusal is not None:", "                    if False:",
        (STATE,),
    ),
    Mutant(
        "a repair puts the MANIFEST aside before it writes another", "wal/repairs/repair.py",
        "        self.quarantine.keep_manifest()\n", "", ("tests/wal/test_repair.py",),
    ),
    Mutant(
        "a copy is made into an empty place only", "wal/backup.py",
        "        if present:", "        if False:", (COPIES,),
    ),
    Mutant(
        "the hash of a segment that is copied", "wal/backup.py",
        "            if not self._brought(segment.path, segment.size, segment.sha256):",
        "            if self._brought(segment.path, segment.size, segment.sha256) is None:",
        (COPIES,),
    ),
    # What the verifier sees alone
    Mutant(
        "the chain, in the verifier", "wal/verifier/segment.py",
        "        if sha256(self.chain + head + payload).digest() != chain:", "        if False:",
        (BYTES,),
    ),
    Mutant(
        "the seal of a segment, in the verifier", "wal/verifier/segment.py",
        '        if (seal["frames"], seal["records"], seal["chain"]) !=',
        '        if False and (seal["frames"], seal["records"], seal["chain"]) !=', (BYTES,),
    ),
    Mutant(
        "the hash of a sealed segment, in the verifier", "wal/verifier/verification.py",
        '        if fetch.digest(entry["size"]) != entry["sha256"]:', "        if False:",
        (BYTES, VERIFY),
    ),
    Mutant(
        "files that the MANIFEST should name, in the verifier", "wal/verifier/verification.py",
        "for path in strays if sound and ", "for path in strays if False and ", (BYTES,),
    ),
    # What ends a process
    Mutant(
        "a log that failed is never used again", "wal/log.py",
        "        self._alive = False\n", "        pass\n", (LOG, RECOVERY),
    ),
    Mutant(
        "a step that failed ends the process", "engine/channels/host.py",
        "            except BaseException as error:"
        "  # whatever it was, memory may be ahead of the disk\n"
        "                self._on_failure(error)",
        "            except BaseException:  # and life goes on\n"
        "                return b''", (HOST,),
    ),
    Mutant(
        "the end of a process is the end", "engine/channels/host.py",
        "os._exit(EXIT_STEP_FAILED)", "pass", (HOST,),
    ),
    Mutant(
        "no answer before the disk", "engine/channels/shard.py",
        "        self._commit_staged()\n        return Reply(None, answers, self.collect(gateway))",
        "        return Reply(None, answers, self.collect(gateway))", (SHARD,),
    ),
    # What a shard believes
    Mutant(
        "the seal on verdicts", "engine/verify/seal.py",
        "    if not compare_digest(mac, _mac(key, blob, verdicts)):", "    if False:",
        (SEALS, SHARD),
    ),
    Mutant(
        "the batch carries its probes", "engine/verify/seal.py",
        "    if not ends_with_probes(blob):", "    if False:", (SEALS, SHARD),
    ),
    Mutant(
        "the known-bad probe of the verifiers", "engine/verify/batch.py",
        "        and verdicts.endswith(PROBE_VERDICTS)\n", "", (SEALS, "tests/verify/test_pool.py"),
    ),
    Mutant(
        "a verifier whose answer makes no sense is not believed", "engine/verify/pool.py",
        "are_plausible(answer[:-SEAL_BYTES], count, known)", "answer",
        ("tests/verify/test_pool.py",),
    ),
    Mutant(
        "the self-test of a verifier", "engine/verify/worker.py",
        "        run_self_test(self._checker.verify)\n", "", ("tests/verify/test_worker.py",),
    ),
    Mutant(
        "the epoch a gateway must know", "engine/channels/shard.py",
        "        if epoch != self.epoch:", "        if False:", (SHARD,),
    ),
    Mutant(
        "batches are taken in turn", "engine/channels/shard.py",
        "        if turn != self._turns.get(gateway):", "        if False:", (SHARD,),
    ),
    Mutant(
        "a bad signature is refused", "engine/channels/shard.py",
        "        if not good:", "        if False:", (SHARD,),
    ),
    Mutant(
        "the key is the channel's own", "engine/validation/rules.py",
        "    if public_key != channel.terms.public_key:", "    if False:", (SHARD,),
    ),
    Mutant(
        "a claim is answered as it was the first time", "engine/validation/pipeline.py",
        "        if seen is not None:\n            return seen\n        if channel.state",
        "        if channel.state", (CLAIMS,),
    ),
    Mutant(
        "the same number with another amount is a conflict", "engine/validation/pipeline.py",
        "        if first.amount != claim.amount:", "        if False:", (CLAIMS,),
    ),
    # What a newer claim covers
    Mutant(
        "a claim that is no part of a run is decided on its own signature",
        "engine/channels/covering.py",
        "verdicts[index] = is_signed(items[index])", "verdicts[index] = 1", (COVERING, HISTORIES),
    ),
    Mutant(
        "a run ends with a claim that was checked", "engine/channels/covering.py",
        "if newest == COVERED or not covered or", "if not covered or", (COVERING,),
    ),
    Mutant(
        "no run while a claim is held", "engine/channels/covering.py",
        " or pipeline.held.holds(channel.terms.channel_id):", ":", (COVERING, HISTORIES),
    ),
    Mutant(
        "no run past the rules of risk", "engine/channels/covering.py",
        "pipeline.risk.rules or ", "", (COVERING,),
    ),
    Mutant(
        "no run past a skewed clock", "engine/channels/covering.py",
        "        if refuse_skew(claim, at, self._pipeline.options.clock_skew_max_s) is not None:",
        "        if False:", (COVERING,),
    ),
    Mutant(
        "a run is of claims with the channel's own key", "engine/channels/covering.py",
        "if refuse_key(channel, items[index].public_key) is None", "if True", (COVERING,),
    ),
    Mutant(
        "no claim covers those of another key", "engine/verify/newest.py",
        "(item.channel_id, item.public_key), []", '(item.channel_id, b""), []', (NEWEST,),
    ),
    Mutant(
        "no claim covers those of another channel", "engine/verify/newest.py",
        "(item.channel_id, item.public_key), []", '(b"", item.public_key), []', (NEWEST,),
    ),
    Mutant(
        "the largest claim is the one that is checked", "engine/verify/newest.py",
        "        indexes.sort(key=lambda index: items[index].amount)\n", "", (NEWEST,),
    ),
    Mutant(
        "a bad claim covers nothing", "engine/verify/newest.py",
        "            if verdicts[index]:\n                break", "            break", (NEWEST,),
    ),
    Mutant(
        "where every signature is checked no claim is covered", "engine/verify/batch.py",
        'EVERY_VERDICTS: Final = b"\\0\\1"', 'EVERY_VERDICTS: Final = b"\\0\\1\\2"',
        (NEWEST, COVERING),
    ),
    Mutant(
        "a covered claim and its proof share a frame", "engine/channels/covered.py",
        "            if proved <= event.amount:", "            if False:", (COVERED,),
    ),
    Mutant(
        "a run ends with the claim that it named", "engine/core/transition.py",
        "    if proven is not None and sequence != proven.covered_by and", "    if False and",
        (COVERED_STATE,),
    ),
    Mutant(
        "a channel keeps the newest signature that was checked", "engine/core/transition.py",
        "signature=channel.signature, proven=proven", "proven=proven", (COVERED_STATE, HISTORIES),
    ),
    Mutant(
        "what is redeemed is what was checked", "engine/core/channel.py",
        "return (proven.amount, proven.sequence) if proven else (self.claimed, self.sequence)",
        "return self.claimed, self.sequence", (COVERED_STATE, HISTORIES),
    ),
    Mutant(
        "the place of the best claim is that of a checked one", "engine/channels/actor.py",
        "            if kind is ClaimReceived:\n", "            if True:\n",
        (HISTORIES,),
    ),
    # What a channel may become
    Mutant(
        "claims in sequence", "engine/core/transition.py",
        "    if command.sequence != channel.sequence + 1:", "    if False:", (RULES,),
    ),
    Mutant(
        "amounts that rise", "engine/core/transition.py",
        "    if command.amount <= channel.claimed:", "    if False:", (RULES,),
    ),
    Mutant(
        "amounts within the capacity", "engine/core/transition.py",
        "    if command.amount > channel.capacity:", "    if False:", (RULES,),
    ),
    Mutant(
        "accounts that add up", "engine/core/invariants.py",
        "    if available + unredeemed + redeemed + returned != capacity:", "    if False:",
        (INVARIANTS,),
    ),
    Mutant(
        "each event makes the next version", "engine/core/invariants.py",
        "    if channel.version != before.version + 1:", "    if False:", (INVARIANTS,),
    ),
    Mutant(
        "invariants after every event", "engine/core/transition.py",
        "    check(channel, after)\n", "", (INVARIANTS, STATE),
    ),
)  # fmt: skip
