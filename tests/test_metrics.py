"""Squared errors, PSNR and the Bjøntegaard delta rate."""

import math

import numpy as np
import pytest

from viddiff.frame import Frame
from viddiff.metrics.bd_rate import bd_rate
from viddiff.metrics.psnr import Distortion, psnr, squared_errors

RATES = [100.0, 180.0, 330.0, 640.0]
PSNRS = [30.0, 33.1, 35.9, 38.2]


def flat(y: int, u: int, v: int, dtype: type = np.uint8) -> Frame:
    return Frame(np.full((18, 20), y, dtype), np.full((9, 10), u, dtype), np.full((9, 10), v, dtype))


def test_squared_errors_do_not_wrap_around() -> None:
    assert squared_errors(flat(0, 255, 7), flat(255, 0, 5)) == (255.0**2, 255.0**2, 4.0)
    assert squared_errors(flat(0, 1023, 0, np.uint16), flat(1023, 0, 0, np.uint16)) == (
        1023.0**2,
        1023.0**2,
        0.0,
    )


def test_squared_errors_refuse_frames_of_another_form() -> None:
    with pytest.raises(ValueError, match="differ in form"):
        squared_errors(flat(0, 0, 0), flat(0, 0, 0, np.uint16))
    with pytest.raises(ValueError, match="differ in form"):
        squared_errors(flat(0, 0, 0), Frame(*(np.zeros((16, 16), np.uint8),) * 3))


def test_psnr_uses_the_peak_of_the_bit_depth() -> None:
    assert psnr(255.0**2, 8) == 0
    assert psnr(1023.0**2 / 100, 10) == pytest.approx(20)
    assert psnr(0, 8) == math.inf


def test_psnr_611_averages_errors_over_frames_before_the_logarithm() -> None:
    distortion = Distortion(8)
    distortion.add(flat(0, 0, 0), flat(1, 2, 4))
    distortion.add(flat(0, 0, 0), flat(3, 2, 0))
    assert distortion.mse == (5, 4, 8)
    y, u, v = psnr(5, 8), psnr(4, 8), psnr(8, 8)
    assert distortion.psnr_yuv == (y, u, v)
    assert distortion.psnr_611 == pytest.approx((6 * y + u + v) / 8)
    with pytest.raises(ValueError, match="no frame"):
        _ = Distortion(8).psnr_611


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.0, 1.1, 3.0])
def test_bd_rate_of_a_constant_factor(factor: float) -> None:
    assert bd_rate(RATES, PSNRS, [r * factor for r in RATES], PSNRS) == pytest.approx(100 * (factor - 1))


def test_bd_rate_of_straight_lines_over_their_common_range() -> None:
    # log rate = psnr / 2 against psnr / 2 + (psnr - 30) / 10, common range 30..34: mean difference 0.2
    anchor = [28.0, 31.0, 34.0]
    test = [30.0, 32.0, 33.0, 36.0]
    change = bd_rate([math.exp(x / 2) for x in anchor], anchor, [math.exp(0.6 * x - 3) for x in test], test)
    assert change == pytest.approx(100 * math.expm1(0.2))


def test_bd_rate_interpolates_with_monotone_cubics() -> None:
    # By hand: through (0, 0), (1, 1), (3, 2) the slopes are 7/6, 9/13 and 1/6.
    first = 1 / 2 + (7 / 6 - 9 / 13) / 12
    second = 3 + 4 * (9 / 13 - 1 / 6) / 12
    change = bd_rate([1.0, math.exp(2)], [0.0, 3.0], [1.0, math.exp(1), math.exp(2)], [0.0, 1.0, 3.0])
    assert change == pytest.approx(100 * math.expm1((first + second - 3) / 3))


@pytest.mark.parametrize("shift", [-0.7, 0.0, 1.3])
def test_bd_rate_is_that_of_the_bjontegaard_package(shift: float) -> None:
    bjontegaard = pytest.importorskip("bjontegaard")
    rates, psnrs = [90.0, 210.0, 300.0, 710.0, 1500.0], [30.5, 33.2, 34.4, 38.0, 40.1]
    other = [p + shift for p in psnrs]
    options = {"method": "pchip", "require_matching_points": False, "min_overlap": 0}
    there = bjontegaard.bd_rate(RATES, PSNRS, rates, other, **options)
    assert bd_rate(RATES, PSNRS, rates, other) == pytest.approx(there, rel=1e-9)


def test_bd_rate_is_antisymmetric_and_ignores_the_order_of_points() -> None:
    other = [95.0, 170.0, 350.0, 600.0]
    there = bd_rate(RATES, PSNRS, other, PSNRS)
    back = bd_rate(other[::-1], PSNRS[::-1], RATES, PSNRS)
    assert there != 0
    assert (1 + there / 100) * (1 + back / 100) == pytest.approx(1)


@pytest.mark.parametrize(
    ("rates", "psnrs", "message"),
    [
        ([1.0, 2.0], [50.0, 60.0], "do not overlap"),
        ([1.0, 2.0], [20.0, 30.0], "do not overlap"),
        ([1.0], [33.0], "two or more"),
        ([1.0, 2.0, 3.0], [33.0, 35.0], "two or more"),
        ([0.0, 2.0], [31.0, 35.0], "positive"),
        ([1.0, 2.0], [31.0, math.inf], "finite"),
        ([1.0, 3.0, 2.0], [31.0, 33.0, 35.0], "does not rise"),
        ([1.0, 2.0, 3.0], [31.0, 31.0, 35.0], "does not rise"),
    ],
)
def test_bd_rate_refuses_curves_that_cannot_be_compared(
    rates: list[float], psnrs: list[float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        bd_rate(RATES, PSNRS, rates, psnrs)
