"""What wheel and sdist hold, and that importing the package imports nothing heavy."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "keras_rwinit", "models", "tuning")


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Runs a command, which must succeed, and returns its standard output."""
    finished = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    return finished.stdout


def pip(*arguments: str | Path, cwd: Path) -> None:
    run(sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments, cwd=cwd, PIP_NO_INDEX="1")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that the build leaves nothing in the repository."""
    for needed in ("pip", "setuptools"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"a wheel is built by {needed}, which is not installed")
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheels")
    skipped = shutil.ignore_patterns("__pycache__")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=skipped)
        else:
            shutil.copy(ROOT / name, source)
    pip("wheel", ".", "--no-deps", "--no-build-isolation", "--wheel-dir", target, cwd=source)
    (built,) = target.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_one_top_level_name(wheel: Path, names: list[str]) -> None:
    version = importlib.import_module("keras_rwinit").__version__
    metadata = f"keras_rwinit-{version}.dist-info"
    assert {name.split("/")[0] for name in names} == {"keras_rwinit", metadata}
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read(f"{metadata}/top_level.txt").decode().split() == ["keras_rwinit"]
        assert "keras-rwinit = keras_rwinit.cli:main" in archive.read(f"{metadata}/entry_points.txt").decode()
    assert f"{metadata}/licenses/LICENSE" in names


@pytest.mark.slow
def test_the_sdist_holds_every_tracked_file(tmp_path: Path) -> None:
    """It passes the tests that it has, which read documents, examples and benchmarks as well."""
    pytest.importorskip("build")
    if not (ROOT / ".git").exists():
        pytest.skip("git knows which files are tracked")
    tracked = set(run("git", "ls-files", cwd=ROOT).splitlines())
    for name in tracked:
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "source" / name)
    command = (sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", tmp_path)
    run(*command, cwd=tmp_path / "source")
    (built,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(built) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert tracked - held <= {".gitignore"}


def test_the_wheel_holds_every_module(names: list[str]) -> None:
    own = {path.relative_to(ROOT).as_posix() for path in (ROOT / "keras_rwinit").rglob("*.py")}
    for directory in ("models", "tuning"):
        own |= {
            f"keras_rwinit/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / directory).rglob("*.py")
        }
    assert {name for name in names if name.endswith(".py")} == own
    assert "keras_rwinit/py.typed" in names
    dummy_data = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("keras_rwinit/data/timit/**/*.WAV")}
    assert dummy_data
    assert dummy_data <= set(names)
    assert {"keras_rwinit/models/model_zoo.py", "keras_rwinit/tuning/hypermodel.py"} <= set(names)


HEAVY = {"jax", "keras_tuner", "matplotlib", "tensorflow", "tensorflow_datasets", "torch", "typer"}
IMPORTED = f"""
import sys
import keras
before = set(sys.modules)
import keras_rwinit
print("brought:", *sorted({HEAVY!r} & (set(sys.modules) - before)))
print("in all:", *sorted({HEAVY!r} & set(sys.modules)))
"""
USED = """
from keras_rwinit import model_zoo
print(len(model_zoo.deep_mlp(depth=5).get_weights()), model_zoo.__name__, keras_rwinit.__file__)
"""


@pytest.mark.slow
def test_the_installed_wheel_works_from_any_directory(wheel: Path, tmp_path: Path) -> None:
    target, elsewhere = tmp_path / "target", tmp_path / "elsewhere"
    elsewhere.mkdir()
    pip("install", "--no-deps", "--target", target, wheel, cwd=elsewhere)
    out = run(sys.executable, "-c", IMPORTED + USED, cwd=elsewhere, PYTHONPATH=str(target))
    brought, _, used = out.splitlines()[-3:]
    assert brought.split() == ["brought:"]
    weights, module, file = used.split(maxsplit=2)
    assert int(weights) == 6
    assert module == "keras_rwinit.models.model_zoo"
    assert Path(file).resolve().is_relative_to(target.resolve())
    assert {path.name for path in target.iterdir() if path.suffix != ".dist-info"} - {"bin", "Scripts"} == {
        "keras_rwinit"
    }


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--editable"]], ids=["installed", "editable"])
def test_a_python_started_in_the_checkout_finds_everything(options: list[str], tmp_path: Path) -> None:
    """After each of the two commands of the README, whose folder is a checkout."""
    checkout, environment = tmp_path / "checkout", tmp_path / "environment"
    for name in (*SOURCES, "tests"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        (checkout / name).parent.mkdir(exist_ok=True)
        copy(ROOT / name, checkout / name)
    venv.create(environment, symlinks=True)
    python = environment / "bin" / "python"
    # The packages of this environment, but not its editable installations, whose finders a .pth file starts.
    (packages,) = (environment / "lib").glob("python*/site-packages")
    (packages / "outer.pth").write_text("\n".join(path for path in sys.path if "site-packages" in path))
    pip("--python", python, "install", "--no-deps", "--no-build-isolation", *options, ".", cwd=checkout)
    imports = (
        "from keras_rwinit import model_zoo, tuning; import keras_rwinit.models; print(model_zoo.__file__)"
    )
    assert Path(run(python, "-c", imports, cwd=checkout).splitlines()[-1]).is_relative_to(checkout)
    assert "1.4" in run(python, "-m", "keras_rwinit", "gain", cwd=checkout)
    collected = run(python, "-m", "pytest", "--collect-only", "-q", "-n", "0", "tests/theory", cwd=checkout)
    assert "tests collected" in collected or "deselected" in collected


@pytest.mark.parametrize(("directory", "name"), [("models", "model_zoo"), ("tuning", "tuning")])
def test_the_bare_directory_names_the_right_import(
    directory: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.delitem(sys.modules, directory, raising=False)
    with pytest.raises(ImportError, match=f"from keras_rwinit import {name}"):
        importlib.import_module(directory)
    assert directory not in sys.modules


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_importing_the_package_imports_nothing_heavy_beyond_keras(backend: str, tmp_path: Path) -> None:
    """Keras itself imports matplotlib, and JAX on PyTorch, where they are installed."""
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    out = run(sys.executable, "-c", IMPORTED, cwd=tmp_path, KERAS_BACKEND=backend)
    brought, everything = out.splitlines()[-2:]
    assert brought.split() == ["brought:"]
    assert backend in everything.split()
    assert "tensorflow" not in everything.split()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "installed", "way_out"),
    [
        (
            "jax",
            False,
            "(No module named 'jax'): pip install \"keras-rwinit[jax]\", or set KERAS_BACKEND to another",
        ),
        ("jax", True, '(jaxlib is too old): pip install "keras-rwinit[jax]", or'),
        ("jx", False, "(Unable to import backend : jx): set KERAS_BACKEND to one of"),
    ],
)
def test_a_missing_back_end_is_one_short_error(
    backend: str, installed: bool, way_out: str, tmp_path: Path
) -> None:
    """A package of that name that fails takes the place of one that is not there, or is broken."""
    broken = (
        'ImportError("jaxlib is too old")' if installed else "ModuleNotFoundError(\"No module named 'jax'\")"
    )
    (tmp_path / "jax.py").write_text(f"raise {broken}")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", "import keras_rwinit"],
        env={**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    trace = done.stderr[done.stderr.rindex("Traceback") :].splitlines()
    assert trace[-1].startswith(f"ImportError: Keras cannot import its back end {backend} {way_out}")
    assert len(trace) < 10
    assert ("direct cause" in done.stderr) == (backend == "jx" or installed)
