"""The start-up self-test: it passes here, and each of its vectors can fail it."""

import pickle
from pathlib import Path

import pytest
from nacl.bindings import crypto_sign_open

from engine.verify import errors
from engine.verify.errors import SelfTestFailedError
from engine.verify.schemes import verify
from engine.verify.selftest import VECTORS, Vector, run_self_test
from tests.verify import reference


def test_the_libraries_of_this_machine_pass():
    run_self_test(verify)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_every_vector_is_what_the_reference_says(vector: Vector):
    said = reference.verify(vector.public_key, vector.message, vector.signature)
    assert said is vector.good


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_one_vector_judged_wrongly_fails_the_test_and_is_named(vector: Vector):
    def wrong_once(public_key: bytes, message: bytes, signature: bytes) -> bool:
        said = verify(public_key, message, signature)
        asked = (public_key, message, signature)
        return said != (asked == (vector.public_key, vector.message, vector.signature))

    with pytest.raises(SelfTestFailedError) as failed:
        run_self_test(wrong_once)
    assert failed.value.vector == vector.name


def test_both_answers_and_both_curves_are_asked_for():
    kinds = {(vector.public_key[0] == 0xED, vector.good) for vector in VECTORS}
    assert len(kinds) == 4


@pytest.mark.parametrize("name", ["key + T2", "key + T8"])
def test_only_the_subgroup_test_can_refuse_the_mixed_keys(name: str):
    vector = next(vector for vector in VECTORS if vector.name == name)
    signed = vector.signature + vector.message
    assert crypto_sign_open(signed, vector.public_key[1:]) == vector.message


@pytest.mark.parametrize(
    "error",
    [
        errors.MalformedBatchError("3 items"),
        errors.SealRefusedError(errors.SealRefusal.PROBE),
        errors.SealKeyError(Path("seal.key"), "not 32 bytes"),
        errors.SelfTestFailedError("high S", False),
        errors.VerifierUnavailableError(3, "timed_out"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_survive_the_way_out_of_a_process(error: errors.VerifyError):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert copy.args == error.args
    assert vars(copy) == vars(error)
    assert str(copy) == str(error)
