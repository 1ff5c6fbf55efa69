"""A centre with schedules for tests: a real state file, and a clock that stands where it is put."""

from fakes.fake_fleet import CAMPAIGN, FakeDevice
from fleetmark_collector.campaigns.firing import Scheduler
from fleetmark_collector.campaigns.recurrence import moment, zone_named
from fleetmark_collector.campaigns.schedule_keys import ScheduleKeys
from fleetmark_collector.campaigns.schedule_tables import ScheduleRow
from fleetmark_collector.campaigns.schedules import ScheduleStore
from fleetmark_collector.campaigns.state import CampaignStore

UTC = zone_named("UTC")
BEGIN = moment("2026-12-01T12:00", UTC)


class Centre:
    """Its own registry of devices, too; `scheduler` is that of the collector that leads."""

    def __init__(self, tmp_path):
        self.file = tmp_path / "state.db"
        self.now_ns = BEGIN
        self.devices = [FakeDevice("pi")]
        self.fence = lambda _: None
        self.schedules = ScheduleStore(self.file)
        self.campaigns = CampaignStore(self.file, self.clock)
        self.scheduler = self.collector()

    def clock(self):
        return self.now_ns

    def list(self):
        return self.devices

    def collector(self):
        return Scheduler(self.file, self, self.clock, lambda db: self.fence(db))

    def restart(self):
        self.scheduler.close()
        self.scheduler = self.collector()

    def close(self):
        self.scheduler.close()
        self.schedules.close()
        self.campaigns.close()

    def add(self, name="nightly", text=CAMPAIGN, **changes):
        keys = ScheduleKeys(**{"cron": "0 2 * * *", **changes})
        row = ScheduleRow(
            name=name,
            file_name="nightly.yaml",
            file_text=text,
            keys=keys.model_dump_json(),
            created_ns=self.now_ns,
            next_ns=keys.recurrence.next(self.now_ns),
            waiting_ns=None,
        )
        self.schedules.add(row)
        return row

    def at(self, text, zone=UTC):
        """Tick at a time."""
        self.now_ns = moment(text, zone)
        self.scheduler.tick()

    @property
    def started(self):
        return [row.campaign_id for row in self.campaigns.campaigns()]

    def outcomes(self, name="nightly"):
        return [run.outcome for run, _ in reversed(self.schedules.runs(name, 100))]

    def end(self, campaign_id):
        self.campaigns.stop(campaign_id, "cancel")
        assert self.campaigns.campaign(campaign_id).state.terminal
