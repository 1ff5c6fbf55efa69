"""Identifiers: what is one, and that the composed ones have room for their parts."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from fleetmark_protocol import ids

JOB_ID: TypeAdapter[str] = TypeAdapter(ids.JobId)
TRIAL_ID: TypeAdapter[str] = TypeAdapter(ids.TrialId)
NAME: TypeAdapter[str] = TypeAdapter(ids.Name)


def lawful(adapter, text):
    try:
        adapter.validate_python(text)
    except ValidationError:
        return False
    return True


@given(st.text(max_size=70) | st.from_regex(r"[a-z0-9_.-]{0,4}[\n]?", fullmatch=True))
def test_the_functions_and_the_models_agree_on_what_is_an_id(text):
    assert ids.is_name(text) == lawful(NAME, text)
    assert ids.is_job_id(text) == lawful(JOB_ID, text)


def test_the_longest_parts_make_a_lawful_job_id_and_trial_id():
    job_id = f"{'c' * 63}.{'d' * 63}.{10**9}"
    assert lawful(JOB_ID, job_id)
    assert lawful(TRIAL_ID, f"{job_id}.{'w' * 63}.{10_000}.{10_000}")


def test_a_lawful_id_fits_a_file_name():
    assert lawful(TRIAL_ID, "t" * 255)
    assert not lawful(TRIAL_ID, "t" * 256)


@pytest.mark.parametrize("text", [".", "..", ".hidden", "a/b", "a\\b", "", "-rf"])
def test_no_id_can_leave_a_directory_or_look_like_a_flag(text):
    assert not ids.is_job_id(text)
    assert not lawful(TRIAL_ID, text)


def test_new_uuids_differ_and_are_lawful():
    first, second = ids.new_uuid(), ids.new_uuid()
    assert first != second
    assert lawful(TypeAdapter(ids.Uuid), first)
    assert uuid.UUID(first).version == 4


def test_an_upper_case_uuid_is_refused_as_it_would_be_a_second_name_of_one_outbox():
    assert not lawful(TypeAdapter(ids.Uuid), ids.new_uuid().upper())
