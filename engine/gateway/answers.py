"""⑩ What goes out: results, channels and balances in either form of the wire."""

from collections.abc import Sequence
from typing import Any, Final

from engine.channels.intake.router import ClaimLike
from engine.channels.intake.submission import Submission
from engine.channels.intake.views import BalanceSeen
from engine.channels.messages import Answer, ChannelView, Status
from engine.core.rejections import (
    IN_DROPS,
    NOT_NOW,
    RETRYABLE,
    RejectCode,
    Rejected,
    message_for,
)
from engine.gateway.forms import Form, Malformed
from engine.gateway.problems import RETRY_AFTER_MS

STATUS_WORDS: Final = {
    Status.ACCEPTED: "accepted",
    Status.DUPLICATE: "duplicate",
    Status.BUFFERED: "buffered",
    Status.REJECTED: "rejected",
}


def position_of(shard: int, number: int) -> str:
    """Return a position as the wire has it."""
    return f"{shard}-{number}"


def malformed(detail: str) -> Answer:
    """Return the answer to a claim that is none."""
    return Answer(Status.REJECTED, RejectCode.MALFORMED, detail=detail)


def results(
    claims: Sequence[ClaimLike | Malformed], submission: Submission, form: Form
) -> list[dict[str, Any]]:
    """Return the result objects of what came, in order."""
    return [
        result(None if isinstance(claim, Malformed) else claim, answer, shard, form)
        for claim, answer, shard in zip(claims, submission.answers, submission.shards, strict=True)
    ]


def result(claim: ClaimLike | None, answer: Answer, shard: int, form: Form) -> dict[str, Any]:
    """Return the result object of a claim; `claim` is None where none could be read."""
    fields: dict[str, Any] = {
        "channel_id": None if claim is None else form.octets(claim.channel_id),
        "sequence": answer.sequence or (claim.sequence if claim is not None else None),
        "amount": None if claim is None else form.drops(claim.amount),
        "status": STATUS_WORDS[answer.status],
    }
    if answer.code is not None:
        fields |= _refusal(answer, answer.code, form)
    if answer.status is Status.BUFFERED:
        fields |= {
            "expected": answer.expected,
            "actual": answer.actual,
            "missing": list(answer.missing),
        }
    fields["retryable"] = answer.code in RETRYABLE
    if answer.code in NOT_NOW:
        fields["retry_after_ms"] = RETRY_AFTER_MS
    if answer.position:
        fields["position"] = position_of(shard, answer.position)
    if answer.covered_by:
        fields["covered_by"] = answer.covered_by
    fields["claimed"] = form.drops(answer.claimed)
    fields["available"] = form.drops(answer.available)
    return fields


def _refusal(answer: Answer, code: RejectCode, form: Form) -> dict[str, Any]:
    rejected = Rejected(code, answer.expected, answer.actual, answer.detail)
    fields: dict[str, Any] = {"code": code.value, "message": message_for(rejected)}
    if answer.expected or answer.actual:
        in_drops = code in IN_DROPS
        fields["expected"] = form.drops(answer.expected) if in_drops else answer.expected
        fields["actual"] = form.drops(answer.actual) if in_drops else answer.actual
    return fields


def binary(answers: list[Answer], shards: list[int]) -> list[tuple[Any, ...]]:
    """Return the answers of a binary frame: `[status, code | nil, sequence, position | nil]`.

    Where a newer claim covers this one, its sequence follows.
    """
    return [
        (
            answer.status,
            answer.code,
            answer.sequence or None,
            f"{shard}-{answer.position}" if answer.position else None,
        )
        if not answer.covered_by
        else (
            answer.status,
            None,
            answer.sequence,
            f"{shard}-{answer.position}",
            answer.covered_by,
        )
        for answer, shard in zip(answers, shards, strict=True)
    ]


def channel(shard: int, view: ChannelView, form: Form) -> dict[str, Any]:
    """Return the channel object."""
    state, terms = view.channel, view.channel.terms
    return {
        "channel_id": form.octets(terms.channel_id),
        "state": state.state.value,
        "source": terms.source,
        "destination": terms.destination,
        "public_key": form.octets(terms.public_key),
        "capacity": form.drops(state.capacity),
        "settle_delay": terms.settle_delay_s,
        "expiration": None if state.expiration is None else form.time(state.expiration),
        "cancel_after": None if terms.cancel_after is None else form.time(terms.cancel_after),
        "sequencing": terms.sequencing.value,
        "sequence": state.sequence,
        "claimed": form.drops(state.claimed),
        "available": form.drops(state.available),
        "redeemed": form.drops(state.redeemed),
        "returned": form.drops(state.returned),
        "version": state.version,
        "updated_at": form.time(state.updated_at),
        "position": position_of(shard, view.position),
    }


def balance(seen: BalanceSeen, consistency: str, form: Form) -> dict[str, Any]:
    """Return the balance object."""
    return {
        "channel_id": form.octets(seen.channel_id),
        "claimed": form.drops(seen.claimed),
        "available": form.drops(seen.available),
        "redeemed": form.drops(seen.redeemed),
        "capacity": form.drops(seen.capacity),
        "sequence": seen.sequence,
        "position": position_of(seen.shard, seen.position),
        "consistency": consistency,
        "age_ms": round(seen.age_s * 1_000),
    }


def best_claim(shard: int, view: ChannelView, form: Form) -> dict[str, Any]:
    """Return the claim to redeem; the channel must have one."""
    amount, sequence = view.channel.best
    return {
        "channel_id": form.octets(view.channel.terms.channel_id),
        "public_key": form.octets(view.channel.terms.public_key),
        "amount": form.drops(amount),
        "signature": form.octets(view.channel.signature),
        "sequence": sequence,
        "position": position_of(shard, view.claim_position),
    }
