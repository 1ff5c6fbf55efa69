"""Names by which Grafana knows our things: links and alerts depend on them, so they stay."""

from typing import Final

GRAFANA_VERSION: Final = "12.4.3"
"""The Grafana that deploy/compose.yaml runs."""

CHECKED_VERSIONS: Final = ("11.6.0", GRAFANA_VERSION, "13.2.3")
"""Whose published schemas a test holds the dashboards against."""

OLDEST_GRAFANA: Final = (11, 6)
"""What the dashboards are written for, and `push` refuses to go below; Grafana migrates older
dashboards by itself, never newer ones."""

DATASOURCE_UID: Final = "fleetmark-influxdb"
DATASOURCE_NAME: Final = "fleetmark InfluxDB"
DATASOURCE_TYPE: Final = "influxdb"

FOLDER_UID: Final = "fleetmark"
FOLDER_TITLE: Final = "fleetmark"

ALERT_FOLDER_UID: Final = "fleetmark-alerts"
ALERT_FOLDER_TITLE: Final = "fleetmark alerts"
"""A folder of its own: Grafana makes it by its title where rules come from a file, and would make a
second one beside a folder of the same title that dashboards were put into by uid."""

ALERT_GROUP: Final = "fleetmark"

FLEET: Final = "fleetmark-fleet"
DEVICE: Final = "fleetmark-device"
COMPARE: Final = "fleetmark-compare"
CAMPAIGN: Final = "fleetmark-campaign"
COLLECTOR: Final = "fleetmark-collector"

TAG: Final = "fleetmark"
"""Every dashboard has this tag; the links at the top are found by it."""
