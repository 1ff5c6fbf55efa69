"""What an answer to a write means; the answers are those of the servers named beside them."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from pydantic import SecretStr

from fleetmark_collector.config import InfluxSettings
from fleetmark_collector.sinks.influxdb.answers import Verdict, judge
from fleetmark_collector.sinks.influxdb.connection import Answer
from fleetmark_protocol.errors import ConfigError, StoreUnavailable

SETTINGS = InfluxSettings("http://127.0.0.1:8086", "db/rp", org="lab", token=SecretStr("sesame"))


def said(status: int, body: str = "", **headers: str) -> Answer:
    renamed = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, renamed, body.encode())


def test_only_204_is_a_yes():
    assert judge(said(204), SETTINGS) == Verdict("accepted")


@pytest.mark.parametrize("status", [200, 201, 202])
def test_another_2xx_is_no_yes(status):
    with pytest.raises(StoreUnavailable, match=str(status)):
        judge(said(status, "<html>please log in</html>"), SETTINGS)


@pytest.mark.parametrize(
    ("answer", "reason", "dropped"),
    [
        (  # InfluxDB 1.6.7
            said(
                400,
                '{"error":"partial write: field type conflict: input field \\"x\\" on measurement '
                '\\"m\\" is type string, already exists as type float dropped=2"}',
            ),
            "field type conflict",
            2,
        ),
        (  # InfluxDB 1.6.7
            said(400, '{"error":"partial write: points beyond retention policy dropped=37"}'),
            "beyond retention policy",
            37,
        ),
        (  # InfluxDB 1.6.7, where the rest was written: it counts none of what it cannot read
            said(
                400,
                '{"error":"partial write: unable to parse \'m x=abc 1\': invalid boolean\\nunable '
                "to parse 'rubbish': missing fields dropped=0\"}",
            ),
            "missing fields",
            None,
        ),
        (  # InfluxDB 1.6.7, where nothing could be read
            said(400, '{"error":"unable to parse \'m x=abc 1\': invalid boolean"}'),
            "unable to parse: invalid boolean",
            None,
        ),
        (  # InfluxDB 2.7
            said(
                422,
                '{"code":"unprocessable entity","message":"failure writing points to database: '
                'partial write: field type conflict: input field \\"x\\" on measurement '
                '\\"m\\" is type string, already exists as type float dropped=1"}',
            ),
            "field type conflict",
            None,
        ),
        (  # InfluxDB 2.7
            said(400, '{"code":"invalid","message":"unable to parse \'m x=\': missing field"}'),
            "missing field",
            None,
        ),
        (  # InfluxDB 3 Core 3.0 to 3.4
            said(
                400,
                '{"error":"partial write of line protocol occurred","data":[{"original_line":"m '
                'x=1","line_number":2,"error_message":"invalid column type for column"}]}',
            ),
            "invalid column type",
            None,
        ),
        (  # InfluxDB 3 Core 3.5 to 3.9: a 500
            said(
                500,
                '{"code":"internal error","message":"partial write of line protocol occurred"}',
            ),
            "partial write of line protocol",
            None,
        ),
        (  # VictoriaMetrics
            said(400, 'remoteAddr: "127.0.0.1:1"; requestURI: /api/v2/write; too long line\n'),
            "too long line",
            None,
        ),
    ],
    ids=["1 type", "1 age", "1 some", "1 all", "2 type", "2 parse", "3.4", "3.9", "vm"],
)
def test_lines_that_a_server_refuses_are_told_with_its_reason(answer, reason, dropped):
    verdict = judge(answer, SETTINGS)
    assert verdict.kind == "refused"
    assert reason in verdict.reason
    assert verdict.dropped == dropped
    assert not verdict.is_limit


@pytest.mark.parametrize(
    "message",
    [
        "partial write: max-series-per-database limit exceeded: (1000000) dropped=20",
        'partial write: max-values-per-tag limit exceeded (100000/100000): measurement=\\"m\\" '
        'tag=\\"t\\" value=\\"v\\" dropped=1',
        "partial write: shard 12 is pending deletion dropped=3",
        "Update to schema would exceed number of columns per table limit of 500 columns",
    ],
    ids=["1 series", "1 tag values", "1 shard", "3 columns"],
)
def test_a_limit_of_the_servers_is_told_from_a_bad_line(message):
    assert judge(said(400, f'{{"error":"{message}"}}'), SETTINGS).is_limit


def test_a_reason_does_not_hold_the_line_however_long_it_is():
    line = "m s=" + "x" * 100_000
    verdict = judge(said(400, f'{{"error":"unable to parse \'{line}\': no good"}}'), SETTINGS)
    assert verdict.reason == "unable to parse: no good"


def test_a_request_that_is_too_large_is_told_apart():
    answer = said(413, '{"error":"Request Entity Too Large"}')
    assert judge(answer, SETTINGS).kind == "too_large"
    assert judge(said(413, "<html>nginx</html>"), SETTINGS).kind == "too_large"


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (said(401, '{"error":"authorization failed"}'), "store.token_file"),
        (said(401, '{"code":"unauthorized","message":"unauthorized access"}'), "store.token_file"),
        (said(403, '{"code":"forbidden","message":"insufficient permissions"}'), "store.bucket"),
        (said(404, '{"error":"database not found: \\"db\\""}'), "store.bucket (db/rp)"),
        (said(404, '{"code":"not found","message":"bucket \\"db\\" not found"}'), "store init"),
        (said(404, '{"code":"not found","message":"organization name"}'), "store.org (lab)"),
        (said(500, '{"error":"retention policy not found: rp"}'), "store.bucket"),
        (said(405, "Method Not Allowed"), "store.url"),
        (said(302, "", Location="https://login/"), "https://login/"),
    ],
    ids=["1", "2 token", "2 rights", "1 db", "2 bucket", "2 org", "1 rp", "method", "moved"],
)
def test_what_no_trying_mends_names_the_setting_to_mend(answer, hint):
    with pytest.raises(ConfigError) as caught:
        judge(answer, SETTINGS)
    assert hint in caught.value.hint
    assert "sesame" not in str(caught.value)


def test_without_credentials_the_hint_says_that_some_are_asked_for():
    with pytest.raises(ConfigError) as caught:
        judge(said(401), InfluxSettings("http://127.0.0.1:8086", "db"))
    assert "username" in caught.value.hint
    assert "token_file" in caught.value.hint


@pytest.mark.parametrize(
    "answer",
    [
        said(500, '{"error":"timeout"}'),
        said(500, '{"error":"engine: cache-max-memory-size exceeded: (102259/100000)"}'),
        said(502, "<html>Bad Gateway</html>"),
        said(503, '{"error":"hinted handoff queue not empty"}'),
        said(504),
        said(408),
        said(429, '{"code":"too many requests","message":"write limit"}'),
        said(418),
    ],
    ids=lambda answer: f"{answer.status}",
)
def test_what_may_pass_is_something_to_try_again(answer):
    with pytest.raises(StoreUnavailable) as caught:
        judge(answer, SETTINGS)
    assert caught.value.retry_after_s is None


def test_how_long_to_wait_is_taken_from_the_answer_in_seconds_or_as_a_date():
    with pytest.raises(StoreUnavailable) as caught:
        judge(said(429, Retry_After="17"), SETTINGS)
    assert caught.value.retry_after_s == 17
    then = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    with pytest.raises(StoreUnavailable) as caught:
        judge(said(503, Retry_After=then), SETTINGS)
    assert 80 < caught.value.retry_after_s <= 100


@pytest.mark.parametrize("value", ["soon", "-5", "", "Mon, 99 Foo"])
def test_a_wait_that_cannot_be_read_is_none(value):
    with pytest.raises(StoreUnavailable) as caught:
        judge(said(503, Retry_After=value), SETTINGS)
    assert caught.value.retry_after_s is None


@pytest.mark.parametrize("body", ["[]", "null", "1", '"x"', "{}", '{"error":null}', "\xff"])
def test_whatever_a_body_is_the_status_counts(body):
    assert judge(said(400, body), SETTINGS).kind == "refused"
