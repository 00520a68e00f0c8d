import time

import pytest

from botd.system.clock import Clock, rfc3339


@pytest.mark.parametrize(
    ("wall", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1714564800.25, "2024-05-01T12:00:00.250Z"),
        (1.9996, "1970-01-01T00:00:02.000Z"),  # rounds into the next second
        (-0.5, "1969-12-31T23:59:59.500Z"),
        (253402300799.0, "9999-12-31T23:59:59.000Z"),
    ],
)
def test_a_time_is_written_in_utc_with_milliseconds(wall, text):
    assert rfc3339(wall) == text


@pytest.mark.parametrize("wall", [float("nan"), float("inf"), 1e300])
def test_what_is_no_time_is_refused(wall):
    with pytest.raises((ValueError, OverflowError)):
        rfc3339(wall)


def test_the_clock_is_the_boot_clock_and_names_the_boot():
    clock = Clock()
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= clock.boottime() <= time.clock_gettime(time.CLOCK_BOOTTIME)
    assert abs(clock.wall() - time.time()) < 60
    assert len(clock.boot_id()) == 36
    assert Clock().boot_id() == clock.boot_id()


@pytest.mark.parametrize("step", [365 * 86400.0, -365 * 86400.0])
def test_an_age_does_not_know_that_the_clock_was_set(step, tmp_path, monkeypatch):
    file = tmp_path / "clock"
    file.write_text("0 0")
    monkeypatch.setenv("BOTD_CLOCK", str(file))
    clock = Clock()
    wall, steady, boot = clock.wall(), clock.steady(), clock.boottime()
    assert abs(wall - steady) < 1
    file.write_text(f"{step} 0")
    assert abs(clock.wall() - wall - step) < 60
    assert 0 <= clock.steady() - steady < 60
    assert 0 <= clock.boottime() - boot < 60
    file.write_text("0 28800")
    assert 28800 <= clock.boottime() - boot < 28860
    assert 28800 <= clock.steady() - steady < 28860
