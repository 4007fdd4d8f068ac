"""A file's own network: coding, exactness, hostile bytes, and all that reads, cuts and joins such files."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import coded, moving_picture, restless, same, tuned
from test_enhancement_engine import NARROW, ODD, base_frame, extreme, noise
from test_serving import segments_of, serving

import viddiff
from viddiff.cli import main
from viddiff.codec.base_bit_depth import BASE_BIT_DEPTH
from viddiff.codec.enhancement_weights import EnhancementWeights, save
from viddiff.codec.enhancer import Enhancer
from viddiff.codec.file_network import HASH_BYTES, adapted, network_hash, pack_network, unpack_network
from viddiff.codec.load_weights import load_weights
from viddiff.codec.open_decoder import open_decoder
from viddiff.container.format import MAX_NETWORK, NETWORK, Header, Writer
from viddiff.container.reader import Reader
from viddiff.encoder.options import EncodeOptions
from viddiff.errors import BitstreamError, CheckpointError
from viddiff.frame import Frame
from viddiff.media.av1_headers import Coding
from viddiff.networks.bounds import UNIT
from viddiff.networks.enhancement_config import EnhancementConfig
from viddiff.pipeline.serial import decode
from viddiff.pipeline.weights_search import released_weights

pytestmark = pytest.mark.usefixtures("strong_corrections")


def equal(a: EnhancementWeights, b: EnhancementWeights) -> bool:
    return all(np.array_equal(a.integers[name], b.integers[name]) for name in a.integers)


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    return moving_picture(48, 32, 10)


@pytest.fixture(scope="module")
def origin() -> Enhancer:
    return Enhancer(restless())


@pytest.fixture(scope="module")
def own(origin: Enhancer) -> Enhancer:
    """The network of a file."""
    return adapted(origin, pack_network(origin.weights, tuned(origin.weights)))


@pytest.fixture(scope="module")
def whole(own: Enhancer, origin: Enhancer, frames: list[Frame]) -> bytes:
    """A file with three GOPs and a network, which changes every frame."""
    data, shown, _ = coded(own, frames, options=EncodeOptions(gop=4))
    _, without, _ = coded(origin, frames, options=EncodeOptions(gop=4))
    assert not any(same([a], [b]) for a, b in zip(shown, without, strict=True))
    return data


@pytest.fixture(scope="module")
def folder(whole: bytes, origin: Enhancer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file `own.vdf`, and the weights that it names."""
    folder = tmp_path_factory.mktemp("own")
    save(folder / "origin.safetensors", origin.weights)
    (folder / "own.vdf").write_bytes(whole)
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.mark.parametrize("step", [1, 4, 64])
@pytest.mark.parametrize("config", [ODD, NARROW], ids=lambda config: config.name)
def test_networks_are_read_as_written(config: EnhancementConfig, step: int) -> None:
    origin = extreme(config, 1, calm=True)
    new = tuned(origin, seed=step, step=step)
    payload = pack_network(origin, new)
    assert not equal(origin, new)
    assert equal(unpack_network(origin, payload), new)
    assert network_hash(payload) == new.hash()


def test_size_follows_the_changes() -> None:
    """No changes take next to nothing, coarse ones as much as fine ones."""
    origin = extreme(NARROW, 1, calm=True)
    layers = len(origin.config.layers())
    assert len(pack_network(origin, origin)) <= HASH_BYTES + layers // 8 + 4
    fine, coarse = (len(pack_network(origin, tuned(origin, step=step))) for step in (1, 8))
    assert abs(fine - coarse) < 0.2 * fine
    assert fine < len(pack_network(origin, tuned(origin, largest=30)))


def test_exponents_do_not_change() -> None:
    origin = restless()
    other = EnhancementWeights(
        origin.config, {**origin.integers, "tail.exponent": origin.integers["tail.exponent"] + np.int8(1)}
    )
    with pytest.raises(ValueError, match="tail"):
        pack_network(origin, other)


@pytest.mark.parametrize("config", [ODD, NARROW], ids=lambda config: config.name)
def test_engine_is_the_module(config: EnhancementConfig) -> None:
    """Of a file's network, and not of the one that it is made from."""
    weights = extreme(config, 1, calm=True)
    network = pack_network(weights, tuned(weights, step=4))
    fast, exact = (adapted(Enhancer(weights, engine=engine), network) for engine in ("compiled", "torch"))
    frame, *others = (noise(35, 37, BASE_BIT_DEPTH, n) for n in range(3))
    coding, differs = Coding(120, False), False
    for shown in (base_frame(frame, coding), base_frame(frame, coding, *others)):
        found, expected = fast.correction(shown, 140), exact.correction(shown, 140)
        assert all(np.array_equal(*pair) for pair in zip(found.planes, expected.planes, strict=True))
        before = Enhancer(weights).correction(shown, 140)
        differs |= not np.array_equal(found.planes[0], before.planes[0])
    assert differs


@pytest.mark.parametrize("engine", ["compiled", "torch"])
def test_decoder_shows_the_encoders_reconstruction(own: Enhancer, frames: list[Frame], engine: str) -> None:
    """It knows only the weights that the file names. With updates of last layers, too."""
    for preset in ("default", "slower"):
        data, shown, _ = coded(own, frames, options=EncodeOptions(gop=8, preset=preset))
        header = Reader(io.BytesIO(data)).header
        assert header.network == own.network
        assert header.model_hash == own.hash == restless().hash() != network_hash(own.network)
        fresh = Enhancer(restless(), engine=engine)  # type: ignore[arg-type]
        assert same(list(decode(io.BytesIO(data), fresh)), shown)


def test_every_gop_alone(folder: Path, own: Enhancer, whole: bytes) -> None:
    shown = list(decode(io.BytesIO(whole), own.origin or own))
    with viddiff.open(folder / "own.vdf", weights=folder / "origin.safetensors") as video:
        for number in (9, 5, 0):
            assert np.array_equal(video[number].y, shown[number].y)


def test_the_network_is_made_once(origin: Enhancer, own: Enhancer, whole: bytes) -> None:
    assert adapted(origin, own.network) is adapted(origin, own.network)


def test_damage_of_the_network(whole: bytes, origin: Enhancer, folder: Path, tmp_path: Path) -> None:
    """Then only the base can be shown, and messages say so."""
    network = Reader(io.BytesIO(whole)).header.network
    assert network is not None
    at = whole.index(network)
    data = bytearray(whole)
    data[at + 40] ^= 1
    header = Reader(io.BytesIO(data)).header
    assert header.network is None
    with pytest.raises(CheckpointError, match="--base-only"):
        open_decoder(header, origin)
    damaged = tmp_path / "damaged.vdf"
    damaged.write_bytes(data)
    weights = ("--weights", folder / "origin.safetensors")
    for options in ((), ("--strict",)):
        result = run("decode", damaged, tmp_path / "out.y4m", *weights, *options)
        assert result.exit_code == 1
        assert ("is damaged" if options else "--base-only") in result.output
        assert not (tmp_path / "out.y4m").exists()
    bare = run("decode", damaged, tmp_path / "bare.y4m", "--base-only")
    assert bare.exit_code == 3, bare.output
    whole_bare = run("decode", folder / "own.vdf", tmp_path / "whole.y4m", "--base-only")
    assert whole_bare.exit_code == 0, whole_bare.output
    assert (tmp_path / "bare.y4m").read_bytes() == (tmp_path / "whole.y4m").read_bytes()
    assert run("cut", damaged, tmp_path / "part.vdf").exit_code == 1
    assert not (tmp_path / "part.vdf").exists()


def test_hostile_networks_end_in_our_errors(own: Enhancer) -> None:
    """Truncated and changed at many places: another network is never taken for the file's."""
    assert own.origin is not None
    payload, weights = own.network, own.origin.weights
    rng = np.random.default_rng(0)
    for at in (0, 1, HASH_BYTES - 1, HASH_BYTES, *range(HASH_BYTES + 1, len(payload), 16)):
        with pytest.raises(BitstreamError):
            unpack_network(weights, payload[:at])
    for at in rng.integers(0, len(payload), 60).tolist():
        data = bytearray(payload)
        data[at] ^= 1 << int(rng.integers(8))
        with pytest.raises(BitstreamError):
            unpack_network(weights, bytes(data))
    for seed in range(20):
        with pytest.raises(BitstreamError):
            unpack_network(weights, np.random.default_rng(seed).bytes(200) + b"\1")


def test_sums_stay_exact() -> None:
    """A network whose sums could leave the exact range is refused, although its hash is right."""
    origin = restless()
    integers = dict(origin.integers)
    integers["head.bias"] = (integers["head.bias"] % UNIT + (1 << 24) - 2 * UNIT).astype(np.int32)
    integers["head.bias"] += (origin.integers["head.bias"] - integers["head.bias"]) % UNIT
    beyond = object.__new__(EnhancementWeights)
    object.__setattr__(beyond, "config", origin.config)
    object.__setattr__(beyond, "integers", integers)
    with pytest.raises(BitstreamError, match="out of range"):
        unpack_network(origin, pack_network(origin, beyond))


def test_container_holds_what_the_header_announces(whole: bytes) -> None:
    header = Reader(io.BytesIO(whole)).header
    announced = Header.unpack(header.pack())
    assert announced.network is None
    assert Header.unpack(replace(header, network=b"").pack()).network == b""
    for network in (None, bytes(MAX_NETWORK + 1)):
        with pytest.raises(BitstreamError, match="own network"):
            Writer(io.BytesIO(), replace(header, network=network))
    out = io.BytesIO()
    Writer(out, replace(header, network=b"")).finish()
    without = out.getvalue()
    chunk = whole[whole.index(header.network or b"") - 3 :][: len(header.network or b"") + 7]
    assert chunk[0] == NETWORK
    start = without.index(header.pack()[:9].replace(b"\x0c", b"\x04")) + len(header.pack()) + 4
    with pytest.raises(BitstreamError, match="0x07 is unknown or misplaced"):
        list(Reader(io.BytesIO(without[:start] + chunk + without[start:])))


def test_cut_and_join(folder: Path, frames: list[Frame], origin: Enhancer, tmp_path: Path) -> None:
    """Parts carry the network. Files of other networks do not fit."""
    own, weights = folder / "own.vdf", folder / "origin.safetensors"
    again = tmp_path / "again.vdf"
    viddiff.cut(own, tmp_path / "a.vdf", end=4)
    viddiff.cut(own, tmp_path / "b.vdf", start=4)
    viddiff.join([tmp_path / "a.vdf", tmp_path / "b.vdf"], again)
    with (
        viddiff.open(own, weights=weights) as one,
        viddiff.open(tmp_path / "again.vdf", weights=weights) as two,
    ):
        assert all(np.array_equal(a.y, b.y) for a, b in zip(one, two, strict=True))
    other = adapted(origin, pack_network(origin.weights, tuned(origin.weights, seed=2)))
    for name, enhancer in (("other", other), ("none", origin)):
        path = tmp_path / f"{name}.vdf"
        path.write_bytes(coded(enhancer, frames, options=EncodeOptions(gop=4))[0])
        result = run("join", own, path, tmp_path / "joined.vdf")
        assert result.exit_code == 1
        assert "own network" in result.output
        assert not (tmp_path / "joined.vdf").exists()


def test_commands_show_the_file(folder: Path, tmp_path: Path) -> None:
    """info names the network; thumbnails, processes and pipes show what the decoder shows."""
    own, weights = folder / "own.vdf", folder / "origin.safetensors"
    values = json.loads(run("info", own, "--json").output)
    network = Reader(io.BytesIO(own.read_bytes())).header.network or b""
    assert values["network"] == {"bytes": len(network) + 7, "hash": network_hash(network).hex()}
    assert run("decode", own, tmp_path / "one.y4m", "--weights", weights).exit_code == 0
    assert run("decode", own, tmp_path / "two.y4m", "--weights", weights, "--workers", 2).exit_code == 0
    assert (tmp_path / "one.y4m").read_bytes() == (tmp_path / "two.y4m").read_bytes()
    with open(own, "rb") as pipe:
        viddiff.decode(io.BytesIO(pipe.read()), tmp_path / "three.y4m", weights=weights)
    assert (tmp_path / "one.y4m").read_bytes() == (tmp_path / "three.y4m").read_bytes()
    viddiff.thumbnail(own, tmp_path / "picture.png", weights=weights)
    assert run("base", own, tmp_path / "base.mkv").exit_code == 0


def test_comparing_seeking_and_playing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All see what the file's network makes, not what the released one would."""
    (own,) = (Path(__file__).parent / "data" / "golden").glob("base-network-*.vdf")
    enhancer = load_weights(released_weights("av1"))
    shown = list(decode(io.BytesIO(own.read_bytes()), enhancer))
    assert run("decode", own, tmp_path / "all.mkv", "--lossless").exit_code == 0
    compared = viddiff.compare(tmp_path / "all.mkv", own, metrics=["psnr"], workers=1)
    assert compared.complete
    assert compared.files[0].identical == len(shown)
    assert run("decode", own, tmp_path / "part.y4m", "--start", 5, "--frames", 2).exit_code == 0
    samples = b"".join(plane.tobytes() for frame in shown[5:7] for plane in frame.planes)
    assert (tmp_path / "part.y4m").read_bytes().replace(b"FRAME\n", b"").endswith(samples)
    assert run("thumbnail", own, tmp_path / "own.png").exit_code == 0
    with serving(own) as server:
        played = segments_of(server, "pictures")
    monkeypatch.setattr("viddiff.codec.open_decoder.adapted", lambda released, _: released)
    assert not same(list(decode(io.BytesIO(own.read_bytes()), enhancer)), shown)
    assert run("thumbnail", own, tmp_path / "released.png").exit_code == 0
    assert (tmp_path / "own.png").read_bytes() != (tmp_path / "released.png").read_bytes()
    with serving(own) as server:
        assert segments_of(server, "pictures") != played


def test_damage_of_the_network_elsewhere(whole: bytes, folder: Path, tmp_path: Path) -> None:
    """One sentence says what still can be shown, and there is no file."""
    own, weights = tmp_path / "own.vdf", ("--weights", folder / "origin.safetensors")
    data = bytearray(whole)
    data[whole.index(Reader(io.BytesIO(whole)).header.network or b"") + 40] ^= 1
    own.write_bytes(data)
    for command in (("thumbnail", own, tmp_path / "a.png"), ("compare", own, folder / "own.vdf")):
        result = run(*command, *weights)
        assert result.exit_code == 1, command
        assert "--base-only" in result.output.splitlines()[-1]
    assert json.loads(run("info", own, "--json").output)["network"] == {"bytes": None, "hash": None}
    assert [path.name for path in tmp_path.iterdir()] == ["own.vdf"]
