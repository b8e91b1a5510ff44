"""Write payments the way lnd keeps them, for tests: each layout, each kind of record.

Written from the description of the layouts, apart from the reader, so each checks the other.
"""

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.payments import Attempt, CreationInfo, DuplicatePayment, Failure, Hop, Route, Settle
from engine.payments.records import PaymentRecord
from tests.payments.lnd.writer import Tree, write_file

Row = tuple[int, bytes]


def u64(number: int) -> bytes:
    return struct.pack(">Q", number)


def big_size(number: int) -> bytes:
    if number < 0xFD:
        return bytes([number])
    for mark, code, highest in ((0xFD, "H", 1 << 16), (0xFE, "I", 1 << 32)):
        if number < highest:
            return bytes([mark]) + struct.pack(">" + code, number)
    return b"\xff" + u64(number)


def counted(data: bytes) -> bytes:
    if len(data) < 0xFD:
        return bytes([len(data)]) + data
    return b"\xfd" + struct.pack("<H", len(data)) + data


def short(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8)


def stream(records: Mapping[int, bytes]) -> bytes:
    return b"".join(
        big_size(kind) + big_size(len(value)) + value for kind, value in sorted(records.items())
    )


def hop_records(hop: Hop) -> Iterable[Row]:
    if hop.mpp is not None:
        yield 8, hop.mpp.payment_addr + short(hop.mpp.total_msat)
    if hop.encrypted_data is not None:
        yield 10, hop.encrypted_data
    if hop.blinding_point is not None:
        yield 12, hop.blinding_point
    if hop.amp is not None:
        yield 14, hop.amp.root_share + hop.amp.set_id + short(hop.amp.child_index)
    if hop.metadata is not None:
        yield 16, hop.metadata
    if hop.blinded_total_msat:
        yield 18, short(hop.blinded_total_msat)
    yield from hop.custom_records.items()


def hop_bytes(hop: Hop, rows: Iterable[Row] | None = None) -> bytes:
    # lnd takes them from a map: the order is any.
    found = list(reversed([*(hop_records(hop) if rows is None else rows)]))
    head = struct.pack(
        ">B33sQIQBI",
        *(33, hop.pub_key, hop.channel_id, hop.outgoing_time_lock, hop.amount_to_forward_msat),
        *(hop.legacy_payload, len(found)),
    )
    return head + b"".join(u64(kind) + counted(value) for kind, value in found)


def route_bytes(route: Route, hops: Iterable[bytes] | None = None) -> bytes:
    parts = [hop_bytes(hop) for hop in route.hops] if hops is None else list(hops)
    head = struct.pack(
        ">IQB33sI",
        *(route.total_time_lock, route.total_amount_msat, 33, route.source_pub_key, len(parts)),
    )
    return head + b"".join(parts)


def attempt_bytes(attempt: Attempt, route: bytes | None = None) -> bytes:
    way = attempt.route
    data = attempt.session_key + (route_bytes(way) if route is None else route)
    data += struct.pack(">q", attempt.attempted_at_ns)
    if attempt.payment_hash is None:
        return data
    records = {0: big_size(way.first_hop_amount_msat), **way.first_hop_wire_records}
    return data + attempt.payment_hash + stream(records)


def settle_bytes(settle: Settle) -> bytes:
    return settle.preimage + struct.pack(">q", settle.settled_at_ns)


def failure_bytes(failure: Failure) -> bytes:
    message = counted(failure.message or b"")
    end = struct.pack(">BI", failure.reason, failure.source_index)
    return struct.pack(">q", failure.failed_at_ns) + message + end


def creation_bytes(info: CreationInfo) -> bytes:
    head = struct.pack(
        ">32sQqI",
        *(info.identifier, info.value_msat, info.created_at_ns, len(info.payment_request)),
    )
    return head + info.payment_request + stream(info.first_hop_custom_records)


def duplicate_tree(duplicate: DuplicatePayment) -> Tree:
    head = struct.pack(
        ">32sQqI",
        duplicate.identifier,
        duplicate.value_msat,
        duplicate.created_at_ns // 1_000_000_000,
        len(duplicate.payment_request),
    )
    tree = Tree({b"payment-sequence-key": u64(duplicate.sequence_number)})
    tree[b"payment-creation-info"] = head + duplicate.payment_request
    if duplicate.settle is not None:
        is_old = not duplicate.settle.settled_at_ns
        settled = duplicate.settle.preimage if is_old else settle_bytes(duplicate.settle)
        tree[b"payment-settle-info"] = settled
    if duplicate.failure_reason is not None:
        tree[b"payment-fail-info"] = bytes([duplicate.failure_reason])
    if duplicate.attempt is not None:
        old = duplicate.attempt
        tree[b"payment-attempt-info"] = (
            u64(old.attempt_index) + old.session_key + route_bytes(old.route)
        )
    return tree


@dataclass
class Node:
    """The part of an lnd node's file that is about payments, as buckets."""

    root: Tree
    version: int

    @classmethod
    def new(cls, version: int = 35, attempt_bound: int = 1000, payment_bound: int = 1000) -> "Node":
        root = Tree({b"metadata": Tree({b"dbp": struct.pack(">I", version)})})
        root[b"next-payment-id-key"] = Tree(sequence=attempt_bound)
        root[b"payments-root-bucket"] = Tree(sequence=payment_bound)
        root[b"payments-index-bucket"] = Tree()
        # A node has much besides; the payments are found among it.
        root[b"graph-node"] = Tree({bytes([n]) * 33: b"node" * 20 for n in range(200)})
        root[b"spend-hints"] = Tree({b"hint": b"\0" * 4})
        return cls(root, version)

    @property
    def payments(self) -> Tree:
        return self.root.tree(b"payments-root-bucket")

    @property
    def index(self) -> Tree:
        return self.root.tree(b"payments-index-bucket")

    def add(self, record: PaymentRecord) -> Tree:
        """Write a payment with its duplicates; return its bucket."""
        identifier = record.info.identifier
        bucket = self.payments.tree(identifier)
        bucket[b"payment-sequence-key"] = u64(record.sequence_number)
        bucket[b"payment-creation-info"] = creation_bytes(record.info)
        if record.failure_reason is not None:
            bucket[b"payment-fail-info"] = bytes([record.failure_reason])
        for attempt in record.attempts:
            self.add_attempt(bucket, attempt)
        for duplicate in record.duplicates:
            key = u64(duplicate.sequence_number)
            bucket.tree(b"payment-duplicate-bucket")[key] = duplicate_tree(duplicate)
            self.point(duplicate.sequence_number, identifier)
        self.point(record.sequence_number, identifier)
        return bucket

    def point(self, number: int, identifier: bytes) -> None:
        """Write an entry of the index."""
        self.index[u64(number)] = b"\0" + counted(identifier)

    def add_attempt(self, bucket: Tree, attempt: Attempt, info: bytes | None = None) -> None:
        values = {"info": attempt_bytes(attempt) if info is None else info}
        if attempt.settle is not None:
            values["settle"] = settle_bytes(attempt.settle)
        if attempt.failure is not None:
            values["fail"] = failure_bytes(attempt.failure)
        attempts = bucket.tree(b"payment-htlcs-bucket")
        key = u64(attempt.attempt_index)
        for name, value in values.items():
            if self.version >= 23:
                attempts[{"info": b"ai", "settle": b"si", "fail": b"fi"}[name] + key] = value
            else:
                part = "attempt" if name == "info" else name
                attempts.tree(key)[f"htlc-{part}-info".encode()] = value

    def write(self, path: Path, page_size: int = 4096, **options: bool) -> Path:
        return write_file(path, self.root, page_size, **options)


def node_of(records: Iterable[PaymentRecord], version: int = 35, **bounds: int) -> Node:
    """Return a node with these payments."""
    node = Node.new(version, **bounds)
    for record in records:
        node.add(record)
    return node
