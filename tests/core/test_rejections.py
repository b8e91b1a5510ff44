"""A refusal is a code for programs and one sentence for people."""

import pickle
import string

import pytest

from engine.core import rejections
from engine.core.rejections import RETRYABLE, RejectCode, Rejected, message_for
from tests.builders import text_table

CODES = text_table("""
    code                   retryable
    malformed              no
    unknown_channel        no
    not_active             no
    channel_expired        no
    amount_not_increasing  no
    amount_over_capacity   no
    sequence_gap           yes
    sequence_used          no
    sequence_conflict      no
    conflict               no
    clock_skew             no
    bad_signature          no
    wrong_key              yes
    risk_refused           no
    overloaded             yes
    unavailable            yes
    wrong_state            no
    storage_full           yes
""")


def test_the_codes_are_those_that_programs_know():
    assert [code.value for code in RejectCode] == [row["code"] for row in CODES]


@pytest.mark.parametrize("row", CODES, ids=lambda row: row["code"])
def test_a_code_says_whether_the_same_claim_may_be_sent_again(row):
    assert (RejectCode(row["code"]) in RETRYABLE) == (row["retryable"] == "yes")


@pytest.mark.parametrize("code", RejectCode)
def test_every_code_has_a_sentence_that_needs_nothing_else(code):
    message = message_for(Rejected(code, 41, 42, "what it is about"))
    assert message
    assert not set("{}") & set(message)


@pytest.mark.parametrize("code", RejectCode)
def test_a_sentence_that_names_numbers_says_both_ends(code):
    fields = {name for _, name, *_ in string.Formatter().parse(rejections._MESSAGES[code]) if name}
    assert fields in (set(), {"detail"}, {"expected", "actual"}, {"expected", "actual", "detail"})


def test_the_detail_is_never_read_as_a_format():
    refusal = Rejected(RejectCode.MALFORMED, detail="{expected.__class__} {0} %s")
    assert message_for(refusal).endswith("{expected.__class__} {0} %s")


def test_a_refusal_crosses_processes():
    refusal = Rejected(RejectCode.SEQUENCE_GAP, 149, 150)
    assert pickle.loads(pickle.dumps(refusal)) == refusal
