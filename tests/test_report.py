"""The report of a comparison: one file that needs nothing else, also in a real browser where there is one."""

import base64
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from browser import find_browser
from conftest import moving_picture
from PIL import Image
from test_compare import store, timed, worse

import viddiff
from viddiff.comparison.charts import _MOST_POINTS, COLOURS, bits_chart
from viddiff.comparison.curves import bd_rates, curves
from viddiff.comparison.report import report
from viddiff.comparison.results import Comparison
from viddiff.frame import Frame, VideoInfo
from viddiff.media.other_codecs import OTHER_CODECS
from viddiff.media.video_reader import VideoReader

pytest.importorskip("matplotlib")
HOSTILE = "<script>alert(1)</script>$x_1$&.mkv"
FRAMES = 60


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A reference with one very bad frame in each second of the others, and hostile names."""
    folder = tmp_path_factory.mktemp("videos")
    frames = timed(moving_picture(96, 80, FRAMES))
    bad = [
        replace(f, y=np.bitwise_xor(f.y, np.uint8(64))) if n % 25 == 20 else f
        for n, f in enumerate(worse(frames))
    ]
    paths = folder / "ref.mkv", folder / "good.mkv", folder / "bad.mkv"
    for path, content in zip(paths, (frames, worse(frames), bad[:-2]), strict=True):
        store(path, content)
    return paths[0], paths[1], paths[2].rename(folder / HOSTILE.replace("/", "|"))


@pytest.fixture(scope="module")
def comparison(videos: tuple[Path, Path, Path]) -> Comparison:
    return viddiff.compare(videos[0], videos[1:], metrics=["xpsnr"])


@pytest.fixture(scope="module")
def page(videos: tuple[Path, Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    found = viddiff.compare(videos[0], videos[1:], metrics=["ssim", "xpsnr"], html=path)
    assert not found.complete, "two frames are missing"
    return path


class Elements(HTMLParser):
    """Elements of a page with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_it_needs_nothing_from_elsewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    elements = Elements(text)
    loading = {"src", "href", "xlink:href", "data", "poster", "srcset", "action", "background"}
    for tag, attributes in elements.found:
        assert tag not in {"link", "iframe", "object", "embed", "base"}
        for name in loading & set(attributes):
            assert attributes[name].startswith(("data:image/webp;base64,", "#")), (
                tag,
                name,
                attributes[name][:60],
            )
    for address in re.findall(r"url\(\s*['\"]?([^)]*)", text):
        assert address.startswith("#")
    assert "@import" not in text
    policies = [a for _, a in elements.found if a.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policies[0]["content"]


def test_it_shows_scores_curves_and_the_worst_frames(page: Path) -> None:
    elements = Elements(page.read_text(encoding="utf-8"))
    tags = [tag for tag, _ in elements.found]
    assert tags.count("svg") == 6, "three scores and bits by time, two scores by rate"
    for words in (
        "good.mkv",
        "XPSNR 6:1:1",
        "5th percentile",
        "2 frames of the reference have no frame here",
    ):
        assert words in elements.text
    assert re.search(r"frame 20, 0.80 s: XPSNR Y \d", elements.text)
    assert re.search(r"frame 45, 1.80 s: XPSNR Y \d", elements.text)


def test_its_pictures_are_the_frames(page: Path) -> None:
    images = [a for tag, a in Elements(page.read_text(encoding="utf-8")).found if tag == "img"]
    data = [base64.b64decode(image["src"].partition(",")[2]) for image in images]
    pictures = [np.asarray(Image.open(io.BytesIO(piece))).astype(int) for piece in data]
    assert {picture.shape for picture in pictures} == {(80, 96, 3)}
    decoded, original = pictures[-2:]
    assert abs(decoded - original).mean() > 0
    assert [image["class"] for image in images] == ["decoded", "original"] * (len(images) // 2)


def test_names_of_files_are_no_markup(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    elements = Elements(text)
    assert [tag for tag, _ in elements.found].count("script") == 1
    assert HOSTILE.replace("/", "|") in elements.text


def test_identifiers_are_unique(page: Path) -> None:
    names = [a["id"] for _, a in Elements(page.read_text(encoding="utf-8")).found if "id" in a]
    assert len(names) == len(set(names))


def test_a_long_video_makes_no_larger_page(comparison: Comparison) -> None:
    """Its curves show the mean and the range of several frames in each place."""
    file = comparison.files[0]
    table = file.frames
    long = 20 * _MOST_POINTS
    many = type(table)(table.measures)
    for number in range(long):
        many.add(number, number, number / 25)
        many.score({measure.name: 30.0 + number % 7 for measure in table.measures})
    many.file_bits = np.full(long, 1000.0)
    chart = bits_chart([replace(file, frames=many)])
    assert len(chart) < 400_000


def test_qualities_of_a_codec_make_a_curve(videos: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """Files of one codec against encodes by another: curves, BD-rates, and what was asked of it."""
    with VideoReader(videos[0]) as reader:
        frames = list(reader)
    paths = [encode(frames, tmp_path / f"{crf}.mkv", crf) for crf in (20, 28, 36)]
    target = tmp_path / "report.html"
    found = viddiff.compare(videos[0], paths, metrics=["psnr"], against=["x264"], gop=12, html=target)
    assert [(curve.title, curve.other, len(curve.points)) for curve in found.curves] == [
        ("h264", False, 3),
        ("x264, preset medium", True, 4),
    ]
    (rate,) = found.bd_rates
    assert (rate.test, rate.anchor, rate.measure) == ("h264", "x264, preset medium", "psnr_611")
    assert rate.percent is not None
    assert -10 < rate.percent < 10, "it is the same codec"
    assert found.facts["x264"] == (
        "libx264, preset medium, CRF 19, 23, 27, 31, at most 12 frames between keyframes"
    )
    assert "PyAV" in found.facts["libav"]
    text = Elements(target.read_text(encoding="utf-8")).text
    assert "BD-rate" in text
    assert f"{rate.percent:+.1f} %" in text
    assert "3 files are compared with it, frame by frame, and so are 4 encodes of it by other codecs" in text
    page = target.read_text(encoding="utf-8")
    of_files, of_curves = (
        [n for n in range(8) if f"background:{COLOURS[n]}" in part] for part in halves(page)
    )
    assert (of_files, of_curves) == ([0, 1, 2], [3, 4]), "a colour means one thing"
    best, *others = found.files
    video = replace(best.video, seconds=best.video.seconds / 4)
    short = replace(best, video=video, video_bytes=best.video_bytes // 4)
    (again,) = bd_rates(curves([short, *others], found.others))
    assert again.percent == pytest.approx(rate.percent, abs=0.1), "a part of a file has the same rate"
    alone = curves(found.files, ())
    assert bd_rates(alone) == (), "there is nothing to compare it with"


def halves(page: str) -> tuple[str, str]:
    """The table of results, and the section of curves."""
    before, _, behind = page.partition('id="curves"')
    return before, behind.partition("</section>")[0]


def test_what_is_true_of_several_files_is_said_once(comparison: Comparison) -> None:
    one, other = comparison.files
    alike = [replace(file, notes=("it was scaled to 96x80",)) for file in (one, other)]
    text = Elements(report(replace(comparison, files=tuple(alike))).decode()).text
    assert text.count("it was scaled to 96x80") == 1
    assert f"{one.video.name}, {other.video.name}: it was scaled" in text


def encode(frames: list[Frame], path: Path, crf: int) -> Path:
    """Frames as H.264."""
    height, width = frames[0].y.shape
    info = VideoInfo(width, height, time_base=Fraction(1, 1000))
    OTHER_CODECS["x264"].encode(frames, info, crf, 12, path)
    return path


def test_a_browser_shows_it_and_the_slider_moves(page: Path, tmp_path: Path) -> None:
    """A script of the test moves the first slider, presses a button, and writes down what it sees."""
    browser = find_browser()
    probe = """<script>
      window.addEventListener("load", () => {
        const pair = document.querySelector(".pair"), slider = pair.querySelector("input");
        const original = pair.querySelector(".original"), seen = {};
        seen.pictures = [...document.images].every(image => image.complete && image.naturalWidth === 96);
        const charts = [...document.querySelectorAll("svg")];
        seen.charts = charts.every(svg => svg.getBoundingClientRect().height > 100);
        slider.value = 20;
        slider.dispatchEvent(new Event("input", {bubbles: true}));
        seen.cut = getComputedStyle(original).clipPath;
        pair.querySelector("button[data-mode=apart]").click();
        seen.blend = getComputedStyle(original).mixBlendMode;
        const loaded = performance.getEntriesByType("resource");
        seen.loaded = loaded.filter(entry => !entry.name.startsWith("data:")).length;
        seen.wide = document.documentElement.scrollWidth <= innerWidth;
        document.title = JSON.stringify(seen);
      });
    </script></body>"""
    copy = tmp_path / "page.html"
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", probe), encoding="utf-8")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000"]
    done = subprocess.run(
        [*command, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", copy.as_uri()],
        capture_output=True,
        text=True,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    (title,) = re.findall(r"<title>(.*?)</title>", done.stdout)
    seen = json.loads(unescape(title))
    assert seen == {
        "pictures": True,
        "charts": True,
        "cut": "inset(0px 80% 0px 0px)",
        "blend": "difference",
        "loaded": 0,
        "wide": True,
    }


def test_without_matplotlib_it_is_explained(
    videos: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(viddiff.ViddiffError, match=r"--html needs matplotlib: pip install 'viddiff\[plot\]'"):
        viddiff.compare(videos[0], videos[1], metrics=["psnr"], html=tmp_path / "a.html")


def test_no_pictures_without_colours(comparison: Comparison) -> None:
    """A report of a comparison that kept no pictures has no section for them."""
    assert b"worst frames" not in report(comparison)
