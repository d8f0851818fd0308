"""Data sets that are read through tensorflow-datasets, made here in a small form instead of downloaded."""

from __future__ import annotations

import os
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from data_helpers import ROUNDING, column_errors

from keras_rwinit import data
from keras_rwinit.data import _frames, _log_mel, _spoken_digit

PNG_SIZES = {"train": 30, "test": 10}
SPEAKERS = ("jackson", "theo")
IMAGES = ("mnist", "fashion_mnist", "kmnist")
SPOKEN = ("spoken_digit", "spoken_digit_frames")


@pytest.mark.parametrize(
    ("filename", "is_test"),
    [
        ("0_jackson_0.wav", True),
        ("9_theo_4.wav", True),
        ("7_lucas_5.wav", False),
        ("3_george_40.wav", False),
        ("3_george_14.wav", False),
    ],
)
def test_official_split_of_spoken_digit(filename, is_test):
    assert _spoken_digit._is_test(filename) is is_test


@pytest.mark.parametrize("filename", ["jackson_0.wav", "0_jackson.wav", "0_jackson_1.mp3", ""])
def test_a_filename_without_an_index(filename):
    with pytest.raises(ValueError, match=r"\{digit\}_\{speaker\}_\{index\}\.wav.*Received"):
        _spoken_digit._is_test(filename)


def tiny_images(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns random images whose first pixel is their number and whose second pixel is always dark."""
    number = PNG_SIZES[split]
    images = np.random.default_rng(number).integers(0, 256, (number, 28, 28, 1), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(number)
    images[:, 0, 1, 0] = 0
    return images, np.arange(number) % 10


def generate_images(split):
    for number, (image, label) in enumerate(zip(*tiny_images(split), strict=True)):
        yield number, {"image": image, "label": label}


def generate_recordings():
    random = np.random.default_rng(0)
    for label in range(10):
        for speaker in SPEAKERS:
            for index in range(3, 7):
                name = f"{label}_{speaker}_{index}"
                audio = random.integers(-3000, 3000, random.integers(1000, 5000))
                example = {"audio": audio, "audio/filename": f"{name}.wav", "label": label}
                yield name, example


@pytest.fixture(scope="module")
def tfds():
    pytest.importorskip("tensorflow")
    return pytest.importorskip("tensorflow_datasets")


@pytest.fixture(scope="module")
def no_download_needed(tfds):
    """Replaces the examples that the builders of TFDS download by the ones of this file."""
    with pytest.MonkeyPatch.context() as patch:
        replace_examples(tfds, patch)
        yield


def replace_examples(tfds, monkeypatch):
    for name in IMAGES:
        monkeypatch.setattr(
            tfds.builder_cls(name),
            "_split_generators",
            lambda self, manager: {split: generate_images(split) for split in PNG_SIZES},
        )
    monkeypatch.setattr(
        tfds.builder_cls("spoken_digit"),
        "_split_generators",
        lambda self, manager: {"train": generate_recordings()},
    )


@pytest.fixture(scope="module")
def prepared(tfds, no_download_needed, tmp_path_factory):
    """Directory in which mnist and spoken_digit are prepared; tests that change it change a copy."""
    directory = tmp_path_factory.mktemp("prepared")
    for name in ("mnist", "spoken_digit"):
        tfds.builder(name, data_dir=directory).download_and_prepare()
    return directory


@pytest.fixture
def copy_of_prepared(prepared, tmp_path):
    return Path(shutil.copytree(prepared, tmp_path / "copy"))


@pytest.fixture
def host_answers(monkeypatch):
    requests = pytest.importorskip("requests")
    answer = types.SimpleNamespace(close=lambda: None)
    monkeypatch.setattr(requests, "head", lambda url, timeout: answer)


@pytest.fixture
def no_network(tfds, monkeypatch):
    """No host answers; TFDS, which would retry for minutes, must not be asked to download."""
    requests = pytest.importorskip("requests")

    def head(url, timeout):
        raise requests.ConnectionError("no network")

    monkeypatch.setattr(requests, "head", head)
    monkeypatch.setattr(
        tfds.core.DatasetBuilder,
        "download_and_prepare",
        lambda self: pytest.fail("TFDS was asked to download"),
    )


class TestTfds:
    @pytest.mark.parametrize("name", IMAGES)
    def test_images(self, name, tmp_path, no_download_needed, host_answers, capfd):
        loaded = data.load(name, tmp_path, standardize=False)
        assert loaded.name == name
        for x, y, split in (
            (loaded.x_train, loaded.y_train, "train"),
            (loaded.x_test, loaded.y_test, "test"),
        ):
            images, labels = tiny_images(split)
            numbers = np.round(x[:, 0] * 255).astype(int)
            assert sorted(numbers) == list(range(PNG_SIZES[split]))
            expected = images[numbers].reshape(-1, 784).astype(np.float32) / np.float32(255)
            np.testing.assert_array_equal(x, expected)
            np.testing.assert_array_equal(y, labels[numbers])
        written = capfd.readouterr()
        assert written.out == ""
        assert "Dl Completed" not in written.err
        assert "WARNING:absl" not in written.err

    def test_prepared_set_needs_no_network_and_no_permission(self, prepared, no_network):
        first = data.load("mnist", prepared)
        again = data.load("mnist", prepared, download=False)
        np.testing.assert_array_equal(again.x_train, first.x_train)
        assert not again.x_test[:, 1].any()
        varying = np.ptp(again.x_train, axis=0) > 0
        assert varying.sum() == 783
        mean_error, std_error = column_errors(again.x_train[:, varying])
        assert mean_error <= ROUNDING
        assert std_error <= ROUNDING

    def test_spoken_digit(self, prepared):
        loaded = data.load("spoken_digit", prepared, standardize=False)
        recordings = [example for _, example in generate_recordings()]
        assert loaded.x_train.shape == loaded.x_test.shape == (40, 1024)
        for x, y, indices in (
            (loaded.x_train, loaded.y_train, "56"),
            (loaded.x_test, loaded.y_test, "34"),
        ):
            assert np.bincount(y).tolist() == [4] * 10
            expected = [
                np.append(_log_mel.log_mel(example["audio"]), example["label"])
                for example in recordings
                if example["audio/filename"][-5] in indices
            ]
            found = np.column_stack([x, y])
            np.testing.assert_array_equal(sort_rows(found), sort_rows(np.array(expected)))

    def test_spoken_digit_frames_are_split_by_recording(self, prepared):
        loaded = data.load("spoken_digit_frames", prepared, standardize=False)
        assert (loaded.name, loaded.classes, loaded.features) == ("spoken_digit_frames", 10, 11 * 120)
        recordings = [example for _, example in generate_recordings()]
        for x, y, indices in (
            (loaded.x_train, loaded.y_train, "56"),
            (loaded.x_test, loaded.y_test, "34"),
        ):
            expected = []
            for example in recordings:
                if example["audio/filename"][-5] in indices:
                    features = _frames.frame_features(example["audio"], 8000)
                    inputs = _frames.add_context(features, np.arange(len(features)))
                    expected.append(np.insert(inputs, 0, example["label"], axis=1))
            found = np.column_stack([y, x])
            np.testing.assert_array_equal(sort_rows(found), sort_rows(np.concatenate(expected)))

    def test_preparing_spoken_digit_names_what_it_needs(
        self, tmp_path, no_download_needed, host_answers, monkeypatch
    ):
        monkeypatch.setitem(sys.modules, "pydub", None)
        with pytest.raises(ImportError, match=r'pydub: `pip install "keras-rwinit\[data\]"'):
            data.load("spoken_digit", tmp_path)

    @pytest.mark.parametrize("name", [*IMAGES, *SPOKEN])
    def test_absent_and_not_to_be_downloaded(self, name, tmp_path, no_network):
        name_of_set = name.removesuffix("_frames")
        message = f'"{name_of_set}" is not prepared in {tmp_path}.*download=False.*TFDS_DATA_DIR'
        with pytest.raises(data.DatasetNotFoundError, match=message):
            data.load(name, tmp_path, download=False)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("name", [*IMAGES, *SPOKEN])
    def test_absent_and_no_network(self, name, tmp_path, no_network):
        name_of_set = name.removesuffix("_frames")
        message = f'"{name_of_set}" is not prepared in {tmp_path}.*failed with ConnectionError.*copy'
        with pytest.raises(ValueError, match=message):
            data.load(name, tmp_path)
        assert not list(tmp_path.iterdir())

    def test_download_that_breaks_off(self, tmp_path, tfds, host_answers, monkeypatch):
        def fail(self, manager):
            raise OSError("connection reset")

        monkeypatch.setattr(tfds.builder_cls("mnist"), "_split_generators", fail)
        with pytest.raises(data.DatasetNotFoundError, match="failed with OSError") as raised:
            data.load("mnist", tmp_path)
        assert isinstance(raised.value.__cause__, OSError)
        with pytest.raises(data.DatasetNotFoundError, match="is not prepared"):
            data.load("mnist", tmp_path, download=False)

    def test_files_downloaded_earlier_need_no_host(self, tmp_path, no_download_needed, monkeypatch):
        requests = pytest.importorskip("requests")
        monkeypatch.setattr(requests, "head", lambda *a, **k: pytest.fail("asked a host"))
        finished = tmp_path / "downloads" / "mnist" / "train-images.gz"
        finished.parent.mkdir(parents=True)
        finished.touch()
        assert len(data.load("mnist", tmp_path).x_train) == PNG_SIZES["train"]

    def test_directory_of_the_environment_variable(self, tmp_path, no_network, monkeypatch):
        monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
        with pytest.raises(data.DatasetNotFoundError, match=f"not prepared in {tmp_path}"):
            data.load("mnist")

    @pytest.mark.parametrize("download", [False, True])
    def test_empty_version_directory_is_not_prepared(self, tmp_path, no_network, download):
        directory = tmp_path / "mnist" / "3.0.1"
        directory.mkdir(parents=True)
        with pytest.raises(data.DatasetNotFoundError, match=f"{directory} is incomplete.*Delete"):
            data.load("mnist", tmp_path, download=download)

    @pytest.mark.parametrize(
        ("file", "keep"),
        [
            ("mnist-train.tfrecord-00000-of-00001", 0.5),
            ("mnist-test.tfrecord-00000-of-00001", None),
            ("dataset_info.json", 0.5),
            ("dataset_info.json", None),
        ],
    )
    def test_damaged_set(self, copy_of_prepared, file, keep):
        damaged = copy_of_prepared / "mnist" / "3.0.1" / file
        content = damaged.read_bytes()
        damaged.unlink()
        if keep is not None:
            damaged.write_bytes(content[: int(keep * len(content))])
        with pytest.raises(data.DatasetNotFoundError, match=r'"mnist" in .* is incomplete or dam'):
            data.load("mnist", copy_of_prepared)

    @pytest.mark.parametrize("name", ["mnist", "spoken_digit"])
    def test_set_cut_between_two_records(self, name, copy_of_prepared):
        import tensorflow as tf

        (file,) = copy_of_prepared.glob(f"{name}/*/*train.tfrecord*")
        records = list(tf.data.TFRecordDataset(str(file)).as_numpy_iterator())
        with tf.io.TFRecordWriter(str(file)) as writer:
            for record in records[:-1]:
                writer.write(record)
        with pytest.raises(data.DatasetNotFoundError, match="incomplete or damaged"):
            data.load(name, copy_of_prepared)

    @pytest.mark.parametrize("module", ["tensorflow_datasets", "tensorflow"])
    def test_without_the_extra(self, module, monkeypatch, tmp_path):
        monkeypatch.setitem(sys.modules, module, None)
        message = rf'{module} is missing: `pip install "keras-rwinit\[data\]"`'
        with pytest.raises(ImportError, match=message):
            data.load("mnist", tmp_path)


def sort_rows(rows: np.ndarray) -> np.ndarray:
    return rows[np.lexsort(rows.T)]


def prepared_directory(name: str) -> str:
    """Returns the directory of real data that TFDS_DATA_DIR names, or skips."""
    pytest.importorskip("tensorflow_datasets")
    directory = os.environ.get("TFDS_DATA_DIR")
    if not directory:
        pytest.skip("TFDS_DATA_DIR is not set: no real data to read")
    if not Path(directory, name).is_dir():
        pytest.skip(f"TFDS_DATA_DIR holds no prepared {name}")
    return directory


class TestRealData:
    def test_mnist(self):
        directory = prepared_directory("mnist")
        raw = data.load("mnist", directory, download=False, standardize=False)
        assert np.bincount(raw.y_train).tolist() == [
            *(5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)
        ]
        assert np.bincount(raw.y_test).tolist() == [*(980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009)]
        # The mean and deviation of all training pixels that the literature quotes.
        assert abs(raw.x_train.mean(dtype=np.float64) - 0.1307) < 5e-5
        assert abs(raw.x_train.std(dtype=np.float64) - 0.3081) < 5e-5
        standard = data.load("mnist", download=False)
        varying = np.ptp(raw.x_train, axis=0) > 0
        assert varying.sum() == 717
        mean_error, std_error = column_errors(standard.x_train[:, varying])
        assert mean_error <= ROUNDING
        assert std_error <= ROUNDING
        assert raw.x_test[:, ~varying].any()
        assert not standard.x_test[:, ~varying].any()

    def test_spoken_digit(self):
        loaded = data.load("spoken_digit", prepared_directory("spoken_digit"), download=False)
        assert loaded.x_train.shape == (2250, 1024)
        assert np.bincount(loaded.y_train).tolist() == [225] * 10
        assert np.bincount(loaded.y_test).tolist() == [25] * 10
        mean_error, std_error = column_errors(loaded.x_train)
        assert mean_error <= ROUNDING
        assert std_error <= ROUNDING
        # Even the nearest class mean must beat chance, 0.1, by ten standard errors of 250 draws.
        means = np.stack([loaded.x_train[loaded.y_train == label].mean(0) for label in range(10)])
        distance = np.square(loaded.x_test[:, None] - means).sum(axis=-1)
        correct = (distance.argmin(axis=1) == loaded.y_test).mean()
        assert correct > 0.1 + 10 * np.sqrt(0.1 * 0.9 / 250)

    def test_spoken_digit_frames(self):
        directory = prepared_directory("spoken_digit")
        loaded = data.load("spoken_digit_frames", directory, download=False)
        assert loaded.x_train.shape == (90_124, 1320)
        assert loaded.x_test.shape == (9_875, 1320)
        mean_error, std_error = column_errors(loaded.x_train)
        assert mean_error <= ROUNDING
        assert std_error <= ROUNDING
