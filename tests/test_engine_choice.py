"""--engine chooses what computes the enhancement: the frames are the same, and PyTorch may stay away."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from conftest import moving_picture, same
from test_cli import write

import viddiff
from viddiff.cli import main
from viddiff.codec import enhancement_weights
from viddiff.codec.enhancement_module import weights_of
from viddiff.codec.enhancer import EngineName
from viddiff.networks.enhancement import EnhancementNetwork
from viddiff.networks.enhancement import condition_of as condition_in_torch
from viddiff.networks.enhancement_config import LARGE, SMALL, EnhancementConfig, condition_of
from viddiff.pipeline import device

HEAVY = ("numba", "torch", "torchvision", "cv2", "scipy", "matplotlib", "PIL")
FEW = EnhancementConfig(name="few", half=8, quarter=12, quarter_blocks=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with weights, in.mkv, and a.vdf of them whose frames are enhanced."""
    folder = tmp_path_factory.mktemp("engine")
    torch.manual_seed(3)
    network = EnhancementNetwork(FEW)
    enhancement_weights.save(folder / "few.safetensors", weights_of(network))
    write(folder / "in.mkv", moving_picture(80, 66, 12))
    viddiff.encode(folder / "in.mkv", folder / "a.vdf", weights=folder / "few.safetensors", workers=1)
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def loaded(folder: Path, *arguments: str) -> set[str]:
    """Heavy modules that a command has loaded when it ends."""
    code = f"""if True:
        import sys
        from viddiff.cli import main
        main({list(arguments)!r}, standalone_mode=False)
        print(*(set({HEAVY!r}) & set(sys.modules)), sep=",")
    """
    result = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return set(filter(None, result.stdout.splitlines()[-1].split(",")))


def test_commands_load_nothing_heavy(folder: Path, tmp_path: Path) -> None:
    weights = ("--weights", str(folder / "few.safetensors"), "--workers", "1")
    assert loaded(folder, "decode", "a.vdf", str(tmp_path / "a.y4m"), *weights) == set()
    assert (
        loaded(folder, "decode", "a.vdf", str(tmp_path / "b.y4m"), "--base-only", "--workers", "1") == set()
    )
    assert loaded(folder, "info", "a.vdf") == set()
    assert loaded(folder, "info", "--model") == set()
    assert loaded(folder, "base", "a.vdf", str(tmp_path / "c.mp4")) == set()
    assert "torch" in loaded(
        folder, "decode", "a.vdf", str(tmp_path / "d.y4m"), *weights, "--engine", "torch"
    )
    assert (tmp_path / "a.y4m").read_bytes() == (tmp_path / "d.y4m").read_bytes()
    assert (tmp_path / "a.y4m").read_bytes() != (tmp_path / "b.y4m").read_bytes(), "nothing is enhanced"


def test_programs_load_nothing_heavy(folder: Path) -> None:
    code = f"""if True:
        import sys, viddiff
        with viddiff.open("a.vdf", weights="few.safetensors") as video:
            assert len(list(video)) == 12
        assert not set({HEAVY!r}) & set(sys.modules)
    """
    result = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_engines_give_the_same_files_and_frames(folder: Path, tmp_path: Path) -> None:
    weights, files, shown = folder / "few.safetensors", list[bytes](), list[list[viddiff.Frame]]()
    engines: tuple[EngineName, ...] = ("compiled", "torch")
    for engine in engines:
        path = tmp_path / f"{engine}.vdf"
        viddiff.encode(folder / "in.mkv", path, weights=weights, workers=1, engine=engine)
        files.append(path.read_bytes())
        with viddiff.open(folder / "a.vdf", weights=weights, engine=engine) as video:
            shown.append(list(video))
    assert files[0] == files[1]
    assert same(shown[0], shown[1])


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("decode", "a.vdf", "--base-only", "--engine", "torch"), 2, "leave out --engine"),
        (("decode", "a.vdf", "--engine", "compiled", "--device", "cuda"), 2, "runs on a CPU"),
        (("encode", "in.mkv", "--base", "none", "--engine", "compiled"), 2, "needs an AV1 base"),
        (("decode", "a.vdf", "--engine", "other"), 2, "not one of"),
    ],
)
def test_engines_that_do_not_apply(
    folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: int, says: str
) -> None:
    monkeypatch.chdir(folder)
    result = run(*arguments)
    assert result.exit_code == code
    assert says in " ".join(result.stderr.split())


def test_files_without_a_base_need_pytorch(
    small_file: bytes, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.vdf").write_bytes(small_file)
    result = run("decode", "a.vdf", "a.y4m", "--weights", weights, "--engine", "compiled", "--workers", 1)
    assert result.exit_code == 1
    assert "Error: --engine compiled needs an AV1 base" in result.stderr
    result = run("decode", "a.vdf", "a.y4m", "--weights", weights, "--engine", "torch", "--workers", 1)
    assert result.exit_code == 0, result.stderr


def test_a_machine_without_a_driver_is_not_asked_by_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_driver_is_there", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device.choose_device("auto") == "cpu"
    assert device.choose_device("cuda") == "cuda"
    monkeypatch.setattr(device, "_driver_is_there", lambda: True)
    assert device.choose_device("auto") == "cuda"
    assert device.choose_device("auto", "compiled") == "cpu"
    assert device.choose_device("cpu") == "cpu"


@pytest.mark.parametrize("config", [SMALL, LARGE, FEW], ids=lambda config: config.name)
def test_plain_numbers_are_those_of_the_module(config: EnhancementConfig) -> None:
    layers, forms = EnhancementNetwork(config).layers(), config.layers()
    assert layers.keys() == forms.keys()
    for name, layer in layers.items():
        assert tuple(layer.weight.shape) == forms[name].shape
        assert layer.macs() == forms[name].macs
    assert config.parameters() == sum(p.numel() for p in EnhancementNetwork(config).parameters())


def test_conditions_are_those_of_torch() -> None:
    """One by one, and by the definition in PyTorch's own operations."""
    quantiser, gop = (
        x.ravel() for x in torch.meshgrid(torch.arange(256), torch.arange(0, 256, 5), indexing="ij")
    )
    intra = (quantiser + gop) % 2
    lead = (gop - quantiser).clamp(0, 96)

    def hats(x: torch.Tensor, knots: int) -> torch.Tensor:
        return (64 - (x[:, None] - 32 * torch.arange(knots)).abs() * 2).clamp(min=0)

    expected = torch.cat((hats(quantiser, 9), hats(lead, 4), 64 * intra[:, None]), 1)
    assert torch.equal(condition_in_torch(quantiser, gop, intra), expected.float())
    for n in range(0, len(gop), 997):
        found = condition_of(int(quantiser[n]), int(gop[n]), bool(intra[n]))
        assert found.tolist() == expected[n].tolist()
