"""Loaders, standardization and checks of `keras_rwinit.data`."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from keras_rwinit import data
from keras_rwinit.data import _frames, _log_mel, _spoken_digit

# Rounding to float32 multiplies a value by 1 + d, |d| <= 2^-24. A column z with rms 1 then keeps
# |mean| <= 2^-24 mean|z| <= 2^-24 and rms within 1 +- 2^-24; the factor covers float64 rounding.
ROUNDING = 2.0**-24 * 1.001

PNG_SIZES = {"train": 30, "test": 10}
SPEAKERS = ("jackson", "theo")
SPOKEN = ("spoken_digit", "spoken_digit_frames")


def column_errors(z: np.ndarray) -> tuple[float, float]:
    z = z.astype(np.float64)
    return float(np.abs(z.mean(axis=0)).max()), float(np.abs(z.std(axis=0) - 1.0).max())


@pytest.fixture
def offset_data() -> tuple[np.ndarray, np.ndarray]:
    """More rows than one block, offsets and scales from 1e-3 to 1e4, a shifted test set."""
    random = np.random.default_rng(0)
    scale, offset = np.array([1e-3, 1.0, 1e4]), np.array([1.0, -1e3, 1e4])
    train = offset + scale * random.standard_normal((10_000, 3))
    test = offset + scale * (3.0 + 2.0 * random.standard_normal((500, 3)))
    return train, test


class TestStandardize:
    def test_zero_mean_and_unit_variance_up_to_float32_rounding(self, offset_data):
        (z,) = data.standardize(offset_data[0])
        assert z.dtype == np.float32
        mean_error, std_error = column_errors(z)
        assert mean_error <= ROUNDING
        assert std_error <= ROUNDING

    def test_float32_statistics_would_fail_that_tolerance(self, offset_data):
        train = offset_data[0].astype(np.float32)
        mean_error, std_error = column_errors((train - train.mean(axis=0)) / train.std(axis=0))
        assert max(mean_error, std_error) > 10 * ROUNDING

    def test_test_set_uses_training_statistics(self, offset_data):
        train, test = offset_data
        expected = (test - train.mean(axis=0)) / train.std(axis=0)
        z_train, z_test = data.standardize(train, test)
        np.testing.assert_allclose(z_test, expected, rtol=2 * ROUNDING, atol=1e-9)
        np.testing.assert_array_equal(z_train, data.standardize(train)[0])

    def test_test_statistics_would_give_another_answer(self, offset_data):
        train, test = offset_data
        with_test_statistics = (test - test.mean(axis=0)) / test.std(axis=0)
        _, z_test = data.standardize(train, test)
        assert np.abs(z_test - with_test_statistics).max(axis=0).min() > 1.0

    @pytest.mark.parametrize("exponent", [-1000, -60, 60, 1000])
    def test_a_power_of_two_cancels_exactly(self, offset_data, exponent):
        train, test = offset_data
        expected = data.standardize(train, test)
        scaled = data.standardize(np.ldexp(train, exponent), np.ldexp(test, exponent))
        for one, other in zip(expected, scaled, strict=True):
            np.testing.assert_array_equal(one, other)

    def test_values_at_the_float64_limit(self):
        (z,) = data.standardize([[1.7e308], [-1.7e308]])
        np.testing.assert_array_equal(z, [[1.0], [-1.0]])

    @pytest.mark.parametrize("value", [0.0, 0.1, -3.7, 1e30])
    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
    def test_constant_dimension_is_exactly_zero_everywhere(self, value, dtype):
        with np.errstate(over="ignore"):
            value = np.minimum(np.dtype(dtype).type(value), np.finfo(dtype).max)
        train = np.full((1000, 2), value, dtype)
        train[:, 1] = np.arange(1000)
        test = np.array([[5.0, 1.0], [0.0, 2.0]], dtype)
        for z in data.standardize(train, test):
            assert not z[:, 0].any()
            assert not np.signbit(z[:, 0]).any()
            assert z[:, 1].all()

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_variation_by_rounding_alone_counts_as_constant(self, dtype):
        number = np.dtype(dtype).type
        column = np.array([number(0.1) + number(0.2), 0.3, np.nextafter(number(0.3), number(1))])
        assert np.ptp(column.astype(dtype)) > 0
        (z,) = data.standardize(column.astype(dtype)[:, None])
        np.testing.assert_array_equal(z, 0.0)

    @pytest.mark.parametrize(
        "column",
        [
            np.array([1.0, 1.0 + 64 * np.finfo(np.float32).eps], np.float32),
            np.array([10**6, 10**6 + 1]),
            np.array([1e-300, 2e-300]),
            np.array([False, True]),
        ],
        ids=["64 roundings", "integers", "tiny", "bool"],
    )
    def test_small_but_real_variation_is_kept(self, column):
        (z,) = data.standardize(column[:, None])
        np.testing.assert_array_equal(z, [[-1.0], [1.0]])

    def test_a_pixel_lit_in_one_image_is_kept(self):
        train = np.zeros((5000, 1), np.float32)
        train[17] = 1 / 255
        mean_error, std_error = column_errors(data.standardize(train)[0])
        assert mean_error <= ROUNDING
        assert std_error <= ROUNDING

    def test_arguments_are_left_alone(self, offset_data):
        train, _ = offset_data
        before = train.copy()
        data.standardize(train)
        np.testing.assert_array_equal(train, before)

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ([np.zeros((0, 3))], r"at least one example.*shape \(0, 3\)"),
            ([np.zeros((3, 0))], r"at least one feature.*shape \(3, 0\)"),
            ([np.zeros(3)], r"`x_train` must have rank 2.*shape \(3,\).*flatten"),
            ([np.zeros((2, 4, 4))], r"rank 2.*shape \(2, 4, 4\).*reshape"),
            ([[[0.0], [np.nan]]], r"`x_train` must be finite.*1 NaN and 0 inf.*x_train\[1, 0\]"),
            ([[[np.inf], [-np.inf]]], r"must be finite.*0 NaN and 2 inf.*drop"),
            ([np.zeros((2, 2), complex)], r"real numbers.*complex128.*astype"),
            ([[["a"], ["b"]]], r"real numbers.*dtype <U1"),
            ([[[1.0], [1.0, 2.0]]], r"rectangular.*unequal length"),
            (
                [np.eye(3), np.zeros((2, 4))],
                r"as many features as `x_train`, 3.*4 in `others\[0\]",
            ),
            ([np.eye(3), np.eye(3), [[np.nan] * 3]], r"`others\[1\]` must be finite.*3 NaN"),
            ([np.eye(3), np.zeros((0, 3))], r"`others\[0\]` must hold at least one example"),
        ],
    )
    def test_bad_arrays(self, arrays, message):
        with pytest.raises(ValueError, match=f"(?s){message}"):
            data.standardize(*arrays)


class TestValidate:
    @pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64"])
    def test_accepts_any_integer_labels_and_any_rank(self, dtype):
        data.validate(np.zeros((3, 2, 2)), np.array([0, 1, 2], dtype), classes=3)

    @pytest.mark.parametrize(
        ("x", "y", "classes", "message"),
        [
            ([[np.nan]], [0], 2, r"`x` must be finite.*1 NaN and 0 infinite.*x\[0, 0\]"),
            ([[0.0], [-np.inf]], [0, 1], 2, r"0 NaN and 1 infinite.*x\[1, 0\]"),
            (np.zeros((0, 2)), [], 2, r"at least one example"),
            (np.zeros(3), [0, 1, 1], 2, r"features along the others.*shape \(3,\).*x\[None, :\]"),
            (np.eye(3), [0, 1], 2, r"equally many examples.*3 inputs and 2 labels"),
            (np.eye(3), [], 2, r"equally many examples.*3 inputs and 0 labels"),
            (np.eye(3), np.eye(3, dtype=int), 3, r"vector of labels.*\(3, 3\).*argmax"),
            (np.eye(2), [0.0, 1.0], 2, r"integer labels.*float64.*astype"),
            (np.eye(2), ["a", "b"], 2, r"integer labels.*<U1.*number the classes"),
            (np.eye(2), [False, True], 2, r"integer labels.*bool"),
            (np.eye(2), [0, 2], 2, r"labels from 0 to 1.*from 0 to 2.*classes=3 or more"),
            (np.eye(2), [-1, 1], 2, r"labels from 0 to 1.*from -1 to 1.*relabel"),
            (np.eye(2), [0, 0], 0, r"`classes` must be an integer.*classes=0"),
            (np.eye(2), [0, 0], 2.0, r"`classes` must be an integer.*classes=2.0"),
            (np.eye(2), [0, 0], True, r"`classes` must be an integer.*classes=True"),
        ],
    )
    def test_bad_arguments(self, x, y, classes, message):
        with pytest.raises(ValueError, match=f"(?s){message}"):
            data.validate(x, np.asarray(y), classes)


@pytest.fixture(scope="module")
def digits() -> data.Dataset:
    return data.load("digits", standardize=False)


class TestDigits:
    def test_sizes_types_and_range(self, digits):
        assert (digits.name, digits.classes, digits.features) == ("digits", 10, 64)
        assert digits.x_train.shape == (1438, 64)
        assert digits.x_test.shape == (359, 64)
        assert digits.x_train.dtype == digits.x_test.dtype == np.float32
        assert digits.y_train.dtype == digits.y_test.dtype == np.int32
        assert (digits.x_train.min(), digits.x_train.max()) == (0.0, 1.0)

    def test_split_is_stratified(self, digits):
        train, test = np.bincount(digits.y_train), np.bincount(digits.y_test)
        assert (train + test).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
        # The nearest integer to a fifth is at most half an example away.
        assert np.abs(test - (train + test) / 5).max() <= 0.5

    def test_the_two_sets_are_the_whole_corpus(self, digits):
        sklearn_datasets = pytest.importorskip("sklearn.datasets")
        pixels, labels = sklearn_datasets.load_digits(return_X_y=True)
        ours = np.column_stack(
            [
                np.concatenate([digits.x_train, digits.x_test]) * 16,
                np.concatenate([digits.y_train, digits.y_test]),
            ]
        )
        theirs = np.column_stack([pixels, labels])
        np.testing.assert_array_equal(ours[np.lexsort(ours.T)], theirs[np.lexsort(theirs.T)])

    def test_split_is_the_same_at_every_call_whatever_the_global_seed(self, digits):
        state = np.random.get_state()
        try:
            np.random.seed(5)
            again = data.load(standardize=False)
        finally:
            np.random.set_state(state)
        np.testing.assert_array_equal(again.x_test, digits.x_test)
        np.testing.assert_array_equal(again.y_train, digits.y_train)
        # Published results rest on this split: changing it takes a release note.
        assert digits.y_test[:12].tolist() == [4, 6, 0, 6, 9, 5, 6, 9, 3, 1, 0, 6]

    def test_standardized_by_default(self, digits):
        standard = data.load("digits")
        constant = np.ptp(digits.x_train, axis=0) == 0
        mean_error, std_error = column_errors(standard.x_train[:, ~constant])
        assert mean_error <= ROUNDING
        assert std_error <= ROUNDING
        assert constant.any()
        assert not standard.x_train[:, constant].any()
        assert not standard.x_test[:, constant].any()

    def test_without_scikit_learn(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "sklearn", None)
        with pytest.raises(ImportError, match="pip install scikit-learn"):
            data.load("digits")


class TestDataset:
    def build(self, **changes):
        x, y = np.eye(6, dtype=np.float32), np.arange(6, dtype=np.int32)
        fields = {"x_train": x, "y_train": y, "x_test": x, "y_test": y, "classes": 6}
        return data.Dataset("six", **(fields | changes))

    def test_repr_leaves_the_arrays_out(self):
        assert repr(self.build()) == "Dataset(name='six', classes=6)"

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"x_train": np.eye(6)}, r"`x_train` must be float32.*float64.*astype"),
            ({"y_test": np.arange(6)}, r"`y_test` int32.*int64"),
            ({"x_test": np.zeros((6, 5), np.float32)}, r"equally many features.*6 and 5"),
            ({"x_train": np.zeros((6, 2, 3), np.float32)}, r"shape \(6, 2, 3\).*reshape"),
            ({"classes": 5}, r"labels from 0 to 4.*from 0 to 5"),
        ],
    )
    def test_bad_arrays(self, changes, message):
        with pytest.raises(ValueError, match=f"(?s){message}"):
            self.build(**changes)

    @pytest.mark.parametrize("batch_size", [0, -1, 2.0, None])
    def test_bad_batch_size(self, batch_size):
        with pytest.raises(ValueError, match="`batch_size` must be an integer of at least 1"):
            self.build().to_tf(batch_size)

    def test_without_tensorflow(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "tensorflow", None)
        with pytest.raises(ImportError, match="`pip install tensorflow`"):
            self.build().to_tf(2)


class TestToTf:
    @pytest.fixture(autouse=True)
    def needs_tensorflow(self):
        pytest.importorskip("tensorflow")

    def epochs(self, pipeline, number=1):
        return [
            [np.concatenate(parts) for parts in zip(*pipeline.as_numpy_iterator(), strict=True)]
            for _ in range(number)
        ]

    def test_every_example_in_order_and_the_rest_in_the_last_batch(self, digits):
        train, test = digits.to_tf(100)
        assert [len(y) for _, y in train.as_numpy_iterator()] == [100] * 14 + [38]
        for pipeline, x, y in (
            (train, digits.x_train, digits.y_train),
            (test, digits.x_test, digits.y_test),
        ):
            ((inputs, labels),) = self.epochs(pipeline)
            assert (inputs.dtype, labels.dtype) == (np.float32, np.int32)
            np.testing.assert_array_equal(inputs, x)
            np.testing.assert_array_equal(labels, y)

    def test_seeded_shuffle_repeats_over_pipelines_and_differs_between_epochs(self, digits):
        first = self.epochs(digits.to_tf(500, shuffle_seed=7)[0], 2)
        second = self.epochs(digits.to_tf(500, shuffle_seed=7)[0], 2)
        other = self.epochs(digits.to_tf(500, shuffle_seed=8)[0])
        for one, two in zip(first, second, strict=True):
            np.testing.assert_array_equal(one[0], two[0])
            np.testing.assert_array_equal(one[1], two[1])
        assert (first[0][1] != first[1][1]).any()
        assert (first[0][1] != other[0][1]).any()

    def test_shuffling_keeps_inputs_with_their_labels(self, digits):
        ((inputs, labels),) = self.epochs(digits.to_tf(500, shuffle_seed=7)[0])
        shuffled = np.column_stack([inputs, labels])
        ordered = np.column_stack([digits.x_train, digits.y_train])
        np.testing.assert_array_equal(shuffled[np.lexsort(shuffled.T)], ordered[np.lexsort(ordered.T)])

    def test_the_test_set_is_never_shuffled(self, digits):
        ((_, labels),) = self.epochs(digits.to_tf(50, shuffle_seed=7)[1])
        np.testing.assert_array_equal(labels, digits.y_test)


def test_importing_is_light_and_digits_need_no_tensorflow():
    """The package's own `__init__` may import Keras, so a bare parent stands in for it."""
    script = """
import sys, types
parent = types.ModuleType("keras_rwinit")
parent.__path__ = [sys.argv[1]]
sys.modules["keras_rwinit"] = parent
import keras_rwinit.data as data
def loaded(*names):
    return [name for name in names if name in sys.modules]
assert not loaded("tensorflow", "keras", "tensorflow_datasets", "sklearn", "requests")
data.load("digits")
assert not loaded("tensorflow", "keras", "tensorflow_datasets", "requests")
"""
    package = Path(data.__file__).parent.parent
    command = [sys.executable, "-c", script, str(package)]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_available_names():
    images = ("digits", "mnist", "fashion_mnist", "kmnist")
    assert data.available() == (*images, *SPOKEN, "timit")


@pytest.mark.parametrize("name", ["cifar10", "", None, ["mnist"]])
def test_unknown_name(name):
    with pytest.raises(ValueError, match=r"one of digits, mnist, .*Received: name="):
        data.load(name)


class TestLogMel:
    @pytest.mark.parametrize("samples", [1, 199, 200, 201, 280, 281, 20_000])
    def test_fixed_size_whatever_the_length(self, samples):
        features = _log_mel.log_mel(np.random.default_rng(0).integers(-900, 900, samples))
        assert features.shape == (_log_mel.FRAMES * _log_mel.BANDS,)
        assert features.dtype == np.float32
        assert np.isfinite(features).all()

    def test_silence_is_the_floor(self):
        features = _log_mel.log_mel(np.zeros(4000, np.int64))
        np.testing.assert_array_equal(features, np.float32(np.log(1e-8)))

    @pytest.mark.parametrize("frequency", [250.0, 1000.0, 2500.0])
    def test_a_tone_peaks_in_the_band_around_it(self, frequency):
        tone = 8000 * np.sin(2 * np.pi * frequency * np.arange(4000) / 8000)
        features = _log_mel.log_mel(tone.astype(np.int64)).reshape(_log_mel.FRAMES, -1)
        mel = 2595 * np.log10(1 + np.array([frequency, 4000.0]) / 700)
        nearest = round(mel[0] / mel[1] * (_log_mel.BANDS + 1)) - 1
        assert (features[1:-1].argmax(axis=1) == nearest).all()

    def test_twice_the_amplitude_is_two_ln_2_more(self):
        noise = np.random.default_rng(1).integers(-8000, 8000, 4000)
        difference = _log_mel.log_mel(2 * noise) - _log_mel.log_mel(noise)
        # |log-mel| < 16 here, so each float32 is within 2^-21 of its value.
        np.testing.assert_allclose(difference, 2 * np.log(2), atol=2 * 2.0**-21)

    def test_filters_add_up_to_one_between_the_outer_centers(self):
        total = _log_mel._mel_filters().sum(axis=1)
        frequency = np.fft.rfftfreq(512, 1 / 8000)
        inside = (frequency > 60) & (frequency < 3700)
        np.testing.assert_allclose(total[inside], 1.0, rtol=1e-12)
        assert (_log_mel._mel_filters() > 0).any(axis=0).all()

    def test_the_last_sample_counts(self):
        audio = np.zeros(281, np.int64)
        silent = _log_mel.log_mel(audio)
        audio[-1] = 30_000
        assert (_log_mel.log_mel(audio) != silent).any()

    @pytest.mark.parametrize("frames", [2, 32, 33, 90])
    def test_time_is_interpolated_linearly_from_first_to_last_frame(self, frames):
        ramp = np.linspace(-3.0, 5.0, frames)[:, None] * np.ones(_log_mel.BANDS)
        expected = np.linspace(-3.0, 5.0, _log_mel.FRAMES)
        np.testing.assert_allclose(_log_mel._resample(ramp)[:, 0], expected, atol=1e-13)


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
    """Random images whose first pixel is their number, and one pixel that is always dark."""
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


@pytest.fixture
def tfds():
    pytest.importorskip("tensorflow")
    return pytest.importorskip("tensorflow_datasets")


@pytest.fixture
def no_download_needed(tfds, monkeypatch):
    """TFDS's own builders and files, over examples made here instead of downloaded ones."""
    for name in ("mnist", "fashion_mnist", "kmnist"):
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


@pytest.fixture
def host_answers(monkeypatch):
    requests = pytest.importorskip("requests")
    answer = types.SimpleNamespace(close=lambda: None)
    monkeypatch.setattr(requests, "head", lambda url, timeout: answer)


@pytest.fixture
def no_network(tfds, monkeypatch):
    """No host answers, and TFDS must not be left to find that out by its own long retries."""
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
    @pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist"])
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

    def test_prepared_set_needs_no_network_and_no_permission(
        self, tmp_path, no_download_needed, host_answers, tfds, request
    ):
        prepared = data.load("mnist", tmp_path)
        request.getfixturevalue("no_network")
        again = data.load("mnist", tmp_path, download=False)
        np.testing.assert_array_equal(again.x_train, prepared.x_train)
        assert not again.x_test[:, 1].any()
        varying = np.ptp(again.x_train, axis=0) > 0
        assert varying.sum() == 783
        mean_error, std_error = column_errors(again.x_train[:, varying])
        assert mean_error <= ROUNDING
        assert std_error <= ROUNDING

    def test_spoken_digit(self, tmp_path, tfds, no_download_needed):
        tfds.builder("spoken_digit", data_dir=tmp_path).download_and_prepare()
        loaded = data.load("spoken_digit", tmp_path, standardize=False)
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

    def test_spoken_digit_frames_are_split_by_recording(self, tmp_path, tfds, no_download_needed):
        tfds.builder("spoken_digit", data_dir=tmp_path).download_and_prepare()
        loaded = data.load("spoken_digit_frames", tmp_path, standardize=False)
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
                    inputs = _frames.in_context(features, np.arange(len(features)))
                    expected.append(np.insert(inputs, 0, example["label"], axis=1))
            found = np.column_stack([y, x])
            np.testing.assert_array_equal(sort_rows(found), sort_rows(np.concatenate(expected)))

    def test_preparing_spoken_digit_names_what_it_needs(
        self, tmp_path, no_download_needed, host_answers, monkeypatch
    ):
        monkeypatch.setitem(sys.modules, "pydub", None)
        with pytest.raises(ImportError, match=r'pydub: `pip install "keras-rwinit\[data\]"'):
            data.load("spoken_digit", tmp_path)

    @pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist", *SPOKEN])
    def test_absent_and_not_to_be_downloaded(self, name, tmp_path, no_network):
        name_of_set = name.removesuffix("_frames")
        message = f'"{name_of_set}" is not prepared in {tmp_path}.*download=False.*TFDS_DATA_DIR'
        with pytest.raises(data.DatasetNotFoundError, match=message):
            data.load(name, tmp_path, download=False)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist", *SPOKEN])
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

    def test_folder_of_the_environment_variable(self, tmp_path, no_network, monkeypatch):
        monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
        with pytest.raises(data.DatasetNotFoundError, match=f"not prepared in {tmp_path}"):
            data.load("mnist")

    @pytest.mark.parametrize("download", [False, True])
    def test_empty_version_folder_is_not_prepared(self, tmp_path, no_network, download):
        folder = tmp_path / "mnist" / "3.0.1"
        folder.mkdir(parents=True)
        with pytest.raises(data.DatasetNotFoundError, match=f"{folder} is incomplete.*Delete"):
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
    def test_damaged_set(self, tmp_path, no_download_needed, host_answers, file, keep):
        data.load("mnist", tmp_path)
        damaged = tmp_path / "mnist" / "3.0.1" / file
        content = damaged.read_bytes()
        damaged.unlink()
        if keep is not None:
            damaged.write_bytes(content[: int(keep * len(content))])
        with pytest.raises(data.DatasetNotFoundError, match=r'"mnist" in .* is incomplete or dam'):
            data.load("mnist", tmp_path)

    @pytest.mark.parametrize("name", ["mnist", "spoken_digit"])
    def test_set_cut_between_two_records(self, name, tmp_path, tfds, no_download_needed):
        import tensorflow as tf

        tfds.builder(name, data_dir=tmp_path).download_and_prepare()
        (file,) = tmp_path.glob(f"{name}/*/*train.tfrecord*")
        records = list(tf.data.TFRecordDataset(str(file)).as_numpy_iterator())
        with tf.io.TFRecordWriter(str(file)) as writer:
            for record in records[:-1]:
                writer.write(record)
        with pytest.raises(data.DatasetNotFoundError, match="incomplete or damaged"):
            data.load(name, tmp_path)

    @pytest.mark.parametrize("module", ["tensorflow_datasets", "tensorflow"])
    def test_without_the_extra(self, module, monkeypatch, tmp_path):
        monkeypatch.setitem(sys.modules, module, None)
        message = rf'{module} is missing: `pip install "keras-rwinit\[data\]"`'
        with pytest.raises(ImportError, match=message):
            data.load("mnist", tmp_path)


def sort_rows(rows: np.ndarray) -> np.ndarray:
    return rows[np.lexsort(rows.T)]


def prepared_folder(name: str) -> str:
    """Returns the folder of real data that TFDS_DATA_DIR names, or skips."""
    pytest.importorskip("tensorflow_datasets")
    folder = os.environ.get("TFDS_DATA_DIR")
    if not folder:
        pytest.skip("TFDS_DATA_DIR is not set: no real data to read")
    if not Path(folder, name).is_dir():
        pytest.skip(f"TFDS_DATA_DIR holds no prepared {name}")
    return folder


class TestRealData:
    def test_mnist(self):
        folder = prepared_folder("mnist")
        raw = data.load("mnist", folder, download=False, standardize=False)
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
        loaded = data.load("spoken_digit", prepared_folder("spoken_digit"), download=False)
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
        folder = prepared_folder("spoken_digit")
        loaded = data.load("spoken_digit_frames", folder, download=False)
        assert loaded.x_train.shape == (90_124, 1320)
        assert loaded.x_test.shape == (9_875, 1320)
        mean_error, std_error = column_errors(loaded.x_train)
        assert mean_error <= ROUNDING
        assert std_error <= ROUNDING
