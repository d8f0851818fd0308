"""Frames of speech: log-mel at two rates, deltas and context windows, compared with slow formulas."""

from __future__ import annotations

import numpy as np
import pytest

from keras_rwinit.data import _frames, _log_mel
from keras_rwinit.data._frames import LabeledFrames


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-9000, 9000, samples).astype(np.int16)


def slow_log_mel(audio: np.ndarray, rate: int, bands: int) -> np.ndarray:
    """Computes the log-mel bands sample by sample and filter by filter, from the definition."""
    window, hop, points = rate * 25 // 1000, rate * 10 // 1000, 512

    def mel(frequency):
        return 2595 * np.log10(1 + frequency / 700)

    rows = []
    start = 0
    while True:
        frame = np.zeros(window)
        piece = audio[start : start + window].astype(float) / 32768
        frame[: len(piece)] = piece
        frame *= [0.5 - 0.5 * np.cos(2 * np.pi * n / window) for n in range(window)]
        n = np.arange(window)
        power = [abs(np.sum(frame * np.exp(-2j * np.pi * k * n / points))) ** 2 for k in range(257)]
        edges = 700 * (10 ** (np.arange(bands + 2) / (bands + 1) * mel(rate / 2) / 2595) - 1)
        row = []
        for low, center, high in zip(edges, edges[1:], edges[2:], strict=False):
            total = 0.0
            for k in range(257):
                f = k * rate / points
                if low < f <= center:
                    total += (f - low) / (center - low) * power[k]
                elif center < f < high:
                    total += (high - f) / (high - center) * power[k]
            row.append(np.log(max(total, 1e-8)))
        rows.append(row)
        if start + window >= len(audio):
            return np.array(rows)
        start += hop


def slow_deltas(c: np.ndarray) -> np.ndarray:
    last = len(c) - 1
    d = np.zeros_like(c)
    for t in range(len(c)):
        for n in (1, 2):
            d[t] += n * (c[min(t + n, last)] - c[max(t - n, 0)]) / (2 * (1**2 + 2**2))
    return d


@pytest.mark.parametrize("rate", [8000, 16_000])
@pytest.mark.parametrize("samples", [1, 700, 1601])
def test_features_are_log_mel_deltas_and_their_deltas(rate, samples):
    audio = noise(samples)
    spectrogram = slow_log_mel(audio, rate, 40)
    first = slow_deltas(spectrogram)
    expected = np.hstack([spectrogram, first, slow_deltas(first)])
    found = _frames.frame_features(audio, rate)
    assert found.dtype == np.float32
    # |log-mel| < 32: float32 is within 2^-20; the two sums of 257 terms differ by less.
    np.testing.assert_allclose(found, expected, atol=2.0**-20)


@pytest.mark.parametrize("rate", [8000, 16_000])
def test_every_filter_sees_a_frequency_of_the_transform(rate):
    assert (_log_mel._mel_filters(rate, 40) > 0).any(axis=0).all()


def test_deltas_of_a_constant_are_zero():
    np.testing.assert_array_equal(_frames.deltas(np.full((7, 3), -4.25)), 0.0)


@pytest.mark.parametrize("context", [0, 1, 5])
@pytest.mark.parametrize("frames", [1, 3, 20])
def test_a_window_is_the_neighbors_in_order_with_the_ends_repeated(frames, context):
    features = np.random.default_rng(1).standard_normal((frames, 4)).astype(np.float32)
    chosen = np.arange(frames)[::2]
    found = _frames.add_context(features, chosen, context)
    assert found.dtype == np.float32
    for row, t in zip(found, chosen, strict=True):
        expected = [features[min(max(t + k, 0), frames - 1)] for k in range(-context, context + 1)]
        np.testing.assert_array_equal(row, np.concatenate(expected))


def three_recordings() -> list[LabeledFrames]:
    """Each frame's feature is its number in the whole; every fifth frame has no label."""
    number, recordings = 0, []
    for count in (13, 1, 22):
        numbers = np.arange(number, number + count)
        labels = np.where(numbers % 5 == 0, -1, numbers).astype(np.int32)
        recordings.append(LabeledFrames(numbers.astype(np.float32)[:, None], labels))
        number += count
    return recordings


@pytest.mark.parametrize("every", [1, 2, 4, 100])
def test_one_of_every_few_labeled_frames_is_chosen_counted_through_all_recordings(every):
    x, y = _frames.make_windows(three_recordings(), every, context=2)
    labeled = np.concatenate([part.labels for part in three_recordings()])
    labeled = labeled[labeled >= 0]
    np.testing.assert_array_equal(y, labeled[::every])
    np.testing.assert_array_equal(x[:, 2], y)
    assert (x.dtype, y.dtype) == (np.float32, np.int32)


def test_no_window_reaches_into_another_recording_and_unlabeled_frames_are_context():
    x, y = _frames.make_windows(three_recordings(), context=2)
    rows = dict(zip(y.tolist(), x.tolist(), strict=True))
    assert rows[12] == [10, 11, 12, 12, 12]
    assert rows[13] == [13, 13, 13, 13, 13]
    assert rows[14] == [14, 14, 14, 15, 16]
    assert rows[6] == [4, 5, 6, 7, 8]
