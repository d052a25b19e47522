import pytest
import yaml

from agd_core.basics.errors import InputError
from flows.lab.deploying import shipped
from flows.lab.timezone import VARIABLE, schedule_timezone


def test_the_nightly_schedule_takes_the_zone_from_the_environment():
    declared = yaml.safe_load(shipped("prefect.yaml").read_text())["deployments"]
    zones = [schedule["timezone"] for one in declared for schedule in one.get("schedules", ())]
    assert zones == [f"{{{{ ${VARIABLE} }}}}"]


@pytest.mark.parametrize(
    ("named", "zone", "localtime", "found"),
    [
        ("Asia/Tokyo", "Europe/Paris", "/usr/share/zoneinfo/America/New_York", "Asia/Tokyo"),
        ("", "Europe/Paris", "/usr/share/zoneinfo/America/New_York", "Europe/Paris"),
        ("", ":Europe/Paris", "/usr/share/zoneinfo/America/New_York", "Europe/Paris"),
        ("", "", "/usr/share/zoneinfo/America/New_York", "America/New_York"),
        ("", "", "no-zone", "UTC"),
        ("", "CET-1CEST", "no-zone", "UTC"),
    ],
)
def test_the_zone_is_the_named_one_else_the_machines_else_utc(monkeypatch, tmp_path, named, zone, localtime, found):
    link = tmp_path / "localtime"
    link.symlink_to(localtime)
    monkeypatch.setattr("flows.lab.timezone._LOCALTIME", link)
    monkeypatch.setenv(VARIABLE, named)
    monkeypatch.setenv("TZ", zone)
    assert schedule_timezone() == found


def test_a_zone_that_does_not_exist_is_refused(monkeypatch):
    monkeypatch.setenv(VARIABLE, "Berlin")
    with pytest.raises(InputError, match="AGD_TIMEZONE is 'Berlin'; allowed are names such as UTC"):
        schedule_timezone()
