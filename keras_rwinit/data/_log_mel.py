"""Log-mel spectrograms in NumPy, frame by frame or resampled to a fixed size."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

__all__ = ["BANDS", "FRAMES", "SAMPLE_RATE", "hop_samples", "log_mel", "log_mel_frames", "window_samples"]

SAMPLE_RATE = 8000
BANDS = 32
FRAMES = 32

# The power of two above the longest window, 400 samples at 16 kHz.
_FFT = 512
# About the power that rounding to 16 bits adds to one band. It is the floor of the logarithm, which
# would be infinite for digital silence.
_FLOOR = 1e-8

Array = NDArray[np.float64]


def log_mel(audio: NDArray[np.integer]) -> NDArray[np.float32]:
    """Returns the log-mel spectrogram of a recording, resampled in time to `FRAMES` frames.

    Samples are divided by 2^15. Frames of 25 ms (200 samples at 8 kHz) every 10 ms (80 samples),
    with zeros after the end so that every sample is in a frame and nothing is trimmed, are
    multiplied by a periodic Hann window; the power of their 512-point DFT is summed in `BANDS`
    triangular filters of height 1, evenly spaced from 0 to 4 kHz on the mel scale

        mel(f) = 2595 log10(1 + f / 700 Hz),

    and the natural logarithm of max(power, 1e-8) is taken. The sequence of frames is then
    interpolated linearly at `FRAMES` evenly spaced times from its first to its last frame, so a
    recording of any length gives one vector of `FRAMES * BANDS` features.

    Args:
        audio: 16-bit samples at 8 kHz, shape (samples,), at least one.

    Returns:
        float32, shape (FRAMES * BANDS,): the bands of the first frame, low to high, then those of
        the second, and so on; in nats.

    References:
        S. B. Davis and P. Mermelstein, "Comparison of parametric representations for monosyllabic
        word recognition in continuously spoken sentences", IEEE Transactions on Acoustics, Speech
        and Signal Processing 28, 1980.
    """
    return _resample(log_mel_frames(audio, SAMPLE_RATE, BANDS)).astype(np.float32).ravel()


def log_mel_frames(audio: NDArray[np.integer], sample_rate: int, bands: int) -> Array:
    """Returns the log-mel spectrogram of a recording before any resampling; see `log_mel`.

    Args:
        audio: 16-bit samples, shape (samples,), at least one.
        sample_rate: Samples per second: 8000 or 16,000. The filters reach to half of it.
        bands: Number of filters.

    Returns:
        float64, shape (frames, bands), in nats; a frame starts every `hop_samples(sample_rate)`.
    """
    window, hop = window_samples(sample_rate), hop_samples(sample_rate)
    weighted = _frames(audio / 2.0**15, window, hop) * _hann(window)
    power = np.abs(np.fft.rfft(weighted, _FFT)) ** 2
    return np.log(np.maximum(power @ _mel_filters(sample_rate, bands), _FLOOR))


def window_samples(sample_rate: int) -> int:
    """Returns the number of samples in a frame, 25 ms."""
    return sample_rate // 40


def hop_samples(sample_rate: int) -> int:
    """Returns the number of samples between the starts of two frames, 10 ms."""
    return sample_rate // 100


def _frames(signal: Array, window: int, hop: int) -> Array:
    """Returns all frames, shape (frames, window), with zeros after the end of the signal."""
    # Rounded up, so that every sample is in a frame.
    hops = -(-max(len(signal) - window, 0) // hop)
    padded = np.pad(signal, (0, window + hops * hop - len(signal)))
    return np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]


@functools.cache
def _hann(window: int) -> Array:
    """Returns the periodic Hann window."""
    return 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(window) / window)


@functools.cache
def _mel_filters(sample_rate: int = SAMPLE_RATE, bands: int = BANDS) -> Array:
    """Returns the filters' weights, shape (_FFT // 2 + 1, bands)."""
    frequency = np.fft.rfftfreq(_FFT, 1.0 / sample_rate)[:, None]
    top = 2595.0 * np.log10(1.0 + sample_rate / 2.0 / 700.0)
    edges = 700.0 * (10.0 ** (np.linspace(0.0, top, bands + 2) / 2595.0) - 1.0)
    left, center, right = edges[:-2], edges[1:-1], edges[2:]
    rising = (frequency - left) / (center - left)
    falling = (right - frequency) / (right - center)
    return np.maximum(np.minimum(rising, falling), 0.0)


def _resample(spectrogram: Array) -> Array:
    """Interpolates linearly in time at `FRAMES` evenly spaced positions, the ends included."""
    position = np.linspace(0.0, len(spectrogram) - 1.0, FRAMES)
    before = np.floor(position).astype(int)
    after = np.minimum(before + 1, len(spectrogram) - 1)
    weight = (position - before)[:, None]
    resampled: Array = (1.0 - weight) * spectrogram[before] + weight * spectrogram[after]
    return resampled
