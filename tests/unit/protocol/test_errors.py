"""Errors carry what their readers need, each under a code of its own."""

import re

import pytest

from fleetmark_protocol import errors
from fleetmark_protocol.errors import FleetmarkError, all_errors

KINDS = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, FleetmarkError)
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_has_a_code_and_a_remedy_of_its_own_and_says_what_it_is(kind):
    assert re.fullmatch(r"[A-Z][A-Z_]*", vars(kind)["code"])
    assert vars(kind)["remedy"].endswith(".")
    assert kind.__doc__


def test_no_two_errors_share_a_code():
    assert len({kind.code for kind in KINDS}) == len(KINDS)


def test_every_error_is_found_by_its_code():
    found = all_errors()
    assert all(found[kind.code] is kind for kind in KINDS)
    assert list(found) == sorted(found)


def test_a_hint_is_shown_beneath_the_message():
    assert str(errors.ConfigError("no such file")) == "no such file"
    assert (
        str(errors.ConfigError("no such file", hint="make it")) == "no such file\n  hint: make it"
    )


def test_a_partial_write_says_which_records_can_never_be_written():
    error = errors.PartialWrite("2 of 3", accepted=[0, 2], rejected={1: "too large"})
    assert (error.accepted, error.rejected) == ([0, 2], {1: "too large"})
    assert not error.retryable


@pytest.mark.parametrize(
    ("kind", "retryable"),
    [
        (errors.StoreUnavailable, True),
        (errors.OutboxFull, True),
        (errors.DownloadFailed, True),
        (errors.Interrupted, True),
        (errors.BackendCrashed, True),
        (errors.OutOfMemory, False),
        (errors.ModelRejected, False),
        (errors.ConfigError, False),
    ],
)
def test_whether_to_try_again_is_a_property_of_the_type(kind, retryable):
    assert kind.retryable is retryable
