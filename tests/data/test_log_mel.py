"""Log-mel spectrograms of whole recordings, resampled to a fixed size."""

from __future__ import annotations

import numpy as np
import pytest

from keras_rwinit.data import _log_mel


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
