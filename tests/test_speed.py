"""Measurement of speed and memory: how a run is measured, and what is computed from runs."""

from dataclasses import replace
from pathlib import Path

import pytest
import speed
from conftest import moving_picture

from viddiff.frame import VideoInfo
from viddiff.media.video_writer import VideoWriter

ONE = speed.Result(
    speed.Case("encode", "default", 1),
    {10: speed.Run(7.0, 6.0, 300.0), 40: speed.Run(22.0, 21.0, 310.0)},
)
TWO = speed.Result(
    speed.Case("encode", "default", 2),
    {10: speed.Run(5.0, 8.0, 600.0), 40: speed.Run(12.5, 23.0, 620.0)},
)
FAST = speed.Result(
    speed.Case("encode", "fast", 1), {10: speed.Run(4.0, 4.0, None), 40: speed.Run(4.0, 4.0, None)}
)


def test_what_longer_runs_take_more_is_the_rate_and_the_rest_is_start_up() -> None:
    assert (ONE.fps, ONE.startup_s, ONE.cpu_fps) == (2.0, 2.0, 2.0)
    assert (TWO.fps, TWO.startup_s, TWO.cpu_fps) == (4.0, 2.5, 2.0)
    assert (FAST.fps, FAST.startup_s) == (None, None)


def test_ratios_are_of_the_rates_that_are_known() -> None:
    assert speed.ratios([ONE, TWO, FAST]) == {"encode default, 2 workers / 1": 2.0}


def test_the_table_has_a_row_for_each_case() -> None:
    lines = speed.markdown([ONE, TWO, FAST], {"clip": "a"}).splitlines()
    assert lines[2] == "| encode | default | 1 | 2.00 | 2.00 | 2.00 | 300 | 310 |"
    assert lines[4] == "| encode | fast | 1 | – | – | – | – | – |"
    assert lines[-1] == "* clip: a"


def test_the_middle_of_runs_is_not_moved_by_one_that_was_disturbed() -> None:
    runs = [speed.Run(1.0, 1.0, 100.0), speed.Run(9.0, 1.1, 90.0), speed.Run(1.2, 1.2, 95.0)]
    assert speed.middle(runs) == speed.Run(1.2, 1.1, 100.0)


def test_a_command_is_measured_in_a_process_of_its_own() -> None:
    taken = speed.run(speed.viddiff("--help"))
    assert taken.wall_s > 0
    assert taken.cpu_s > 0
    assert taken.peak_mib is None or taken.peak_mib > 1


def test_a_command_that_fails_ends_the_measurement() -> None:
    with pytest.raises(SystemExit, match="No such command"):
        speed.run(speed.viddiff("nonsense"))


def test_other_codecs_run_beside(tmp_path: Path) -> None:
    """The base of the first case is what both decode; other codecs take the same frames."""
    with VideoWriter(tmp_path / "a.mkv", VideoInfo(64, 48), lossless=True) as writer:
        for number, frame in enumerate(moving_picture(64, 48, 6)):
            writer.write(replace(frame, pts=number))
    works = {"encode": ("fastest", "x265 medium", "SVT-AV1 preset 6"), "decode": ("--base-only", "dav1d")}
    cases = [speed.Case(work, coder, None) for work, coders in works.items() for coder in coders]
    results = speed.measure(cases, [2, 6], 1, [], tmp_path / "a.mkv")
    assert [result.case for result in results] == cases
    assert all(list(result.runs) == [2, 6] for result in results)


def test_ratios_to_other_codecs() -> None:
    runs = {10: speed.Run(1.0, 1.0, None), 40: speed.Run(4.0, 4.0, None)}
    other = speed.Result(speed.Case("encode", "x265 medium", None), runs)
    assert speed.ratios([ONE, other]) == {"encode default, 1 workers / x265 medium": 0.2}
