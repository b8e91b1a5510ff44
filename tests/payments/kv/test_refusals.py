"""A refusal counts only once what it rests on is kept."""

from pathlib import Path

import lmdb
import pytest

from engine.payments.errors import PaymentDBCode, PaymentDBError, StoreError
from engine.payments.kv.commits import GroupCommit, Waiting
from engine.payments.kv.environment import Environment


def test_a_refusal_that_rests_on_a_commit_that_failed_is_not_given(tmp_path: Path):
    def begins(transaction) -> None:
        transaction.put(b"payment", b"begun")

    def refused(transaction) -> None:
        if transaction.get(b"payment"):
            raise PaymentDBError(PaymentDBCode.PAYMENT_EXISTS)

    def fails(transaction) -> None:
        raise lmdb.DiskError("No space left on device")

    environment = Environment(tmp_path, read_only=False)
    group = GroupCommit(environment)
    batch = [Waiting(call) for call in (begins, refused, fails)]
    group._lead(batch)
    for waiting in batch:
        with pytest.raises(StoreError):
            waiting.answer()
    environment.close()
