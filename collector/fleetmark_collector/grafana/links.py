"""Ways from one dashboard to another: from a device's name to it, from a campaign to its cells."""

from collections.abc import Mapping

from grafana_foundation_sdk.models import dashboard as sdk

from fleetmark_collector.grafana.names import CAMPAIGN, COMPARE, DEVICE, TAG

Link = Mapping[str, str]


def device_of_row() -> Link:
    """From a row of a table to its device, over the same time."""
    return _device("${__data.fields.fleet}", "${__data.fields.device}")


def device_of_series() -> Link:
    """From a line or bar to its device, over the same time."""
    return _device("${__field.labels.fleet}", "${__field.labels.device}")


def campaign_of_row() -> list[Link]:
    """From a row of a table to its campaign.

    The time is not taken along: what a campaign measured lies where it lies.
    """
    return _campaign("${__data.fields.campaign_id}")


def campaign_of_series() -> list[Link]:
    """From a line or bar to its campaign."""
    return _campaign("${__field.labels.campaign_id}")


def this_campaign() -> list[sdk.DashboardLink]:
    """From a dashboard with a chosen campaign to the others about it."""
    return [
        _to(title, f"/d/{uid}?var-campaign=${{campaign}}")
        for title, uid in (("This campaign", CAMPAIGN), ("Compare its cells", COMPARE))
    ]


def all_dashboards() -> sdk.DashboardLink:
    """The menu at the top: every dashboard of ours."""
    return sdk.DashboardLink(
        title="fleetmark",
        type_val=sdk.DashboardLinkType.DASHBOARDS,
        icon="external link",
        tooltip="The other dashboards of fleetmark",
        url="",
        tags=[TAG],
        as_dropdown=True,
        target_blank=False,
        include_vars=False,
        keep_time=False,
    )


def _to(title: str, url: str) -> sdk.DashboardLink:
    return sdk.DashboardLink(
        title=title,
        type_val=sdk.DashboardLinkType.LINK,
        icon="dashboard",
        tooltip=title,
        url=url,
        tags=[],
        as_dropdown=False,
        target_blank=False,
        include_vars=False,
        keep_time=False,
    )


def _device(fleet: str, device: str) -> Link:
    url = f"/d/{DEVICE}?var-fleet={fleet}&var-device={device}&${{__url_time_range}}"
    return {"title": "This device", "url": url}


def _campaign(campaign: str) -> list[Link]:
    return [
        {"title": "This campaign", "url": f"/d/{CAMPAIGN}?var-campaign={campaign}"},
        {"title": "Compare its cells", "url": f"/d/{COMPARE}?var-campaign={campaign}"},
    ]
