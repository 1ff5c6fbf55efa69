"""Who gets in and how far, at the broker that `fleetmark broker` makes of enrolled devices."""

from datetime import timedelta

import pytest

from enrolled_centre import COLLECTOR, KINDS, Centre, shown
from fleetmark_collector.enrolment.authority import Authority, now_utc
from fleetmark_collector.enrolment.enrolling import Enrolment, Wish
from fleetmark_collector.enrolment.running import tell_broker
from servers import each_closed, wait_for

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def centre(tmp_path_factory):
    centre = Centre(tmp_path_factory.mktemp("centre")).start()
    yield centre
    centre.broker.kill()


@pytest.fixture
def connect(centre):
    """Connect to the centre; the connections end with the test."""
    with each_closed(centre.connect) as client:
        yield client


@pytest.mark.parametrize("device", KINDS)
def test_an_enrolled_device_gets_in_and_is_confined_to_its_own_name(connect, device):
    (other,) = set(KINDS) - {device}
    base, others = f"fleetmark/v1/lab/{device}", f"fleetmark/v1/lab/{other}"
    collector = connect(COLLECTOR, topics="fleetmark/v1/#")
    nosy = connect(device, topics="#")
    for topic in (f"{others}/data", f"{others}/status", f"{base}/ack", f"{base}/jobs/j"):
        # Each on a connection of its own: some Mosquittos end it.
        connect(device).say(topic, b"forged", retain=True)
    retained = {f"{others}/jobs/1": b"not for it", f"{base}/jobs/1": b"for it"}
    for topic, payload in retained.items():
        collector.say(topic, payload, retain=True)
    collector.say(f"{others}/ack", b"not for it")
    connect(device).say(f"{base}/data", b"itself")
    wait_for(lambda: collector.got and nosy.got, what="what each may hear")
    for topic in retained:
        collector.say(topic, b"", retain=True)
    assert collector.got == [(f"{base}/data", b"itself")]
    assert nosy.got[0] == (f"{base}/jobs/1", b"for it")
    assert {topic for topic, _ in nosy.got} == {f"{base}/jobs/1"}


def test_whoever_has_a_certificate_cannot_come_under_anothers_name(connect):
    collector = connect(COLLECTOR, topics="fleetmark/v1/#")
    # The name of the certificate counts, whatever is said beside it.
    impostor = connect("by-certificate", user="by-password", password="a guess")
    impostor.say("fleetmark/v1/lab/by-password/data", b"forged")
    connect("by-certificate").say("fleetmark/v1/lab/by-certificate/data", b"itself")
    wait_for(lambda: collector.got, what="the device's word")
    assert collector.got == [("fleetmark/v1/lab/by-certificate/data", b"itself")]


def test_a_certificate_opens_nothing_where_passwords_are_asked_for_nor_the_other_way(
    connect, centre
):
    assert connect("by-certificate", port=centre.port).answer == "Not authorized"
    assert not connect("by-password", port=centre.certificates_port).is_in
    assert not connect(COLLECTOR, port=centre.certificates_port).is_in


def test_a_certificate_of_another_ca_does_not_get_in(connect, tmp_path):
    elsewhere = Enrolment.open(tmp_path / "elsewhere")
    kit = elsewhere.enroll("by-certificate", Wish(host="localhost")).directory
    assert not connect(**shown(kit)).is_in


def test_the_brokers_own_certificate_is_no_devices(connect, centre):
    path = centre.enrolment.keep.path
    server = (str(path("broker/server.crt")), str(path("broker/server.key")))
    assert not connect(pair=server).is_in


def test_an_expired_certificate_does_not_get_in(connect, centre):
    last_month = Enrolment(centre.enrolment.keep, lambda: now_utc() - timedelta(days=30))
    last_month.enroll("late", Wish(days=29))
    tell_broker(centre.enrolment.keep)
    assert not connect("late").is_in


def test_a_certificate_of_who_is_not_enrolled_has_no_topics(connect, centre, tmp_path):
    issued = Authority(centre.enrolment.keep, now_utc).issue("nobody", now_utc() + timedelta(1))
    pair = (tmp_path / "nobody.crt", tmp_path / "nobody.key")
    pair[0].write_text(issued.certificate)
    pair[1].write_text(issued.key)
    collector = connect(COLLECTOR, topics="fleetmark/v1/#")
    nobody = connect(pair=tuple(map(str, pair)), topics="fleetmark/v1/+/nobody/#")
    nobody.say("fleetmark/v1/lab/nobody/data", b"unknown")
    collector.say("fleetmark/v1/lab/nobody/ack", b"unheard")
    connect("by-certificate").say("fleetmark/v1/lab/by-certificate/data", b"known")
    wait_for(lambda: collector.got, what="the enrolled one's word")
    assert collector.got == [("fleetmark/v1/lab/by-certificate/data", b"known")]
    assert nobody.got == []
