"""TIMIT's files: audio in both forms, labels, phones and speakers; errors name the damaged file."""

from __future__ import annotations

import numpy as np
import pytest
from timit_helpers import riff, sphere

from keras_rwinit.data import DamagedFileError
from keras_rwinit.data.timit import FOLDED_PHONES, PHONES, fold, speakers
from keras_rwinit.data.timit.audio import read_audio
from keras_rwinit.data.timit.labels import phones_of_frames, read_labels

SAMPLES = np.array([0, 1, -1, 256, -32768, 32767, 10, 2560], np.int16)
WHOLE = sphere(SAMPLES)


@pytest.mark.parametrize(
    "content",
    [
        sphere(SAMPLES),
        sphere(SAMPLES, "10"),
        sphere(SAMPLES, sample_coding="-s3 pcm"),
        sphere(SAMPLES, channel_count=None),
        sphere(SAMPLES, sample_checksum=f"-i {SAMPLES.astype(int).sum() % 65536}"),
        sphere(SAMPLES, **{"; a comment": "of many words"}),
        riff(SAMPLES),
    ],
    ids=["low byte first", "high byte first", "pcm", "no channels", "checksum", "comment", "RIFF"],
)
def test_every_form_gives_the_samples(content):
    found = read_audio(content, "SX1.WAV")
    assert found.dtype == np.int16
    np.testing.assert_array_equal(found, SAMPLES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must begin with NIST_1A.*an empty file"),
        (b"OggS....", "must begin with NIST_1A .SPHERE. or RIFF.*OggS"),
        (WHOLE[:-1], "says 8 samples, 16 bytes. Received: 15 bytes"),
        (WHOLE + b"\0\0", "says 8 samples, 16 bytes. Received: 18 bytes"),
        (WHOLE[:700], "second line must be its size, at most the file's 700 bytes.*1024"),
        (WHOLE[:10], "second line must be its size"),
        (WHOLE.replace(b"   1024", b"   many"), "second line must be its size.*many"),
        (WHOLE.replace(b"end_head", b"end_hear"), "does not end with end_head"),
        (sphere(SAMPLES, sample_count="-i -8"), "says -8 samples"),
        (sphere(SAMPLES, sample_count="-i eight"), "sample_count must be an integer.*'eight'"),
        (sphere(SAMPLES, sample_count=None), "must have the field sample_count"),
        (sphere(SAMPLES, sample_rate="-s5 16000"), "must have the field sample_rate"),
        (sphere(SAMPLES, sample_byte_format=None), "must have the field sample_byte_format"),
        (sphere(SAMPLES, sample_rate="-i 8000"), "has sample_rate=16000. Received: sample_rate=8000"),
        (sphere(SAMPLES, sample_n_bytes="-i 1"), "has sample_n_bytes=2. Received: sample_n_bytes=1"),
        (sphere(SAMPLES, channel_count="-i 2"), "has channel_count=1. Received: channel_count=2"),
        (sphere(SAMPLES, sample_byte_format="-s1 1"), "must be 01 .* or 10. Received: 1; convert"),
        (sphere(SAMPLES, sample_checksum="-i 7"), "sample_checksum=7. Received: samples that add up to"),
        (
            sphere(SAMPLES, sample_coding="-s26 pcm,embedded-shorten-v2.00"),
            "must be plain pcm. Received: sample_coding=pcm,embedded-shorten-v2.00; .*w_decode.*sph2pipe",
        ),
        (sphere(SAMPLES, sample_count="-i --8"), "sample_count must be an integer. Received: '--8'"),
        (sphere(SAMPLES, sample_count="-i " + "8" * 200), "sample_count must be an integer"),
        (sphere(SAMPLES[:0]), "holds no samples"),
        (riff(SAMPLES[:0]), "holds no samples"),
        (riff(SAMPLES, rate=44_100), "has sample_rate=16000. Received: sample_rate=44100"),
        (riff(SAMPLES, channels=2), "has channel_count=1. Received: channel_count=2"),
        (riff(SAMPLES, width=4), "has sample_n_bytes=2. Received: sample_n_bytes=4"),
        (riff(SAMPLES)[:-2], "says 8 samples, 16 bytes. Received: 14 bytes"),
        (riff(SAMPLES)[:20], "RIFF header is damaged"),
        (b"RIFF\0\0\0\0AVI ", "RIFF header is damaged"),
    ],
)
def test_damaged_audio_is_named_and_the_damage_told(content, message):
    with pytest.raises(DamagedFileError, match=f"^TRAIN/SX1.WAV: .*{message}"):
        read_audio(content, "TRAIN/SX1.WAV")


def test_labels_are_read_in_order_with_gaps_in_any_case_and_line_ending():
    found = read_labels(b"0 100 h#\r\n100 250 AX-H\r\n\r\n300 420 q\r\n", 500, "SX1.PHN")
    assert found == [(0, 100, "h#"), (100, 250, "ax-h"), (300, 420, "q")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "^SX1.PHN: it must hold at least one phone"),
        (b"\n \n", "^SX1.PHN: it must hold at least one phone"),
        (b"0 100\n", "line 1: a line must be two whole numbers.*'0 100'"),
        (b"0 100 h# x\n", "line 1: a line must be two whole numbers"),
        (b"0 100 h#\n100 2oo sh\n", "line 2: a line must be two whole numbers.*'100 2oo sh'"),
        (b"-1 100 h#\n", "line 1: a line must be two whole numbers"),
        (b"0.0 100 h#\n", "line 1: a line must be two whole numbers"),
        (b"0 \xb2 h#\n", "line 1: a line must be two whole numbers"),
        (b"0 100 hash\n", "line 1: a phone must be one of TIMIT's 61.*'0 100 hash'"),
        (b"0 100 sil\n", "line 1: a phone must be one of TIMIT's 61"),
        (b"0 100 h#\n100 100 sh\n", "line 2: a phone must end after it has begun"),
        (b"200 100 h#\n", "line 1: a phone must end after it has begun"),
        (b"0 100 h#\n90 200 sh\n", "line 2: a phone must not begin before the last has ended, at 100"),
        (b"100 200 h#\n0 100 sh\n", "line 2: a phone must not begin before the last"),
        (
            b"0 100 h#\n100 661 sh\n",
            "line 2: a phone must not end more than 10 ms past the recording, which has 500",
        ),
        (b"0 100 h#\n100 " + b"9" * 5000 + b" sh\n", "line 2: a line must be two whole numbers"),
        (bytes(range(256)), "line 1: a line must be two whole numbers"),
    ],
)
def test_damaged_labels_are_named_by_file_and_line(content, message):
    with pytest.raises(DamagedFileError, match=message) as raised:
        read_labels(content, 500, "SX1.PHN")
    assert str(raised.value).startswith("SX1.PHN")


def test_a_frame_has_the_phone_at_its_center_or_none():
    starts, stops, phones = np.array([100, 200, 400]), np.array([200, 300, 500]), np.array([5, 6, 7])
    centers = np.array([0, 99, 100, 199, 200, 299, 300, 399, 400, 499, 500, 900])
    expected = [-1, -1, 5, 5, 6, 6, -1, -1, 7, 7, -1, -1]
    assert phones_of_frames(starts, stops, phones, centers).tolist() == expected


class TestPhones:
    def test_sixty_one_fold_into_thirty_nine(self):
        assert (len(set(PHONES)), len(set(FOLDED_PHONES))) == (61, 39)
        assert set(FOLDED_PHONES) - {"sil"} <= set(PHONES)
        assert set(fold(np.arange(61)).tolist()) == {-1, *range(39)}

    @pytest.mark.parametrize(
        ("phones", "folded"),
        [
            ("aa ao", "aa"),
            ("ah ax ax-h", "ah"),
            ("er axr", "er"),
            ("hh hv", "hh"),
            ("ih ix", "ih"),
            ("l el", "l"),
            ("m em", "m"),
            ("n en nx", "n"),
            ("ng eng", "ng"),
            ("sh zh", "sh"),
            ("uw ux", "uw"),
            ("pcl tcl kcl bcl dcl gcl h# pau epi", "sil"),
        ],
    )
    def test_the_folding_of_lee_and_hon(self, phones, folded):
        for phone in phones.split():
            assert FOLDED_PHONES[fold(np.array(PHONES.index(phone)))] == folded

    def test_others_stay_and_the_glottal_stop_has_no_class(self):
        stay = "ae aw ay b ch d dh dx eh ey f g iy jh k ow oy p r s t th uh v w y z"
        for phone in stay.split():
            assert FOLDED_PHONES[fold(np.array(PHONES.index(phone)))] == phone
        assert fold(np.array([PHONES.index("q"), -1])).tolist() == [-1, -1]

    @pytest.mark.parametrize(
        ("phones", "message"),
        [
            ([60, 61], "from -1 to 60. Received: dtype int64, values from 60 to 61"),
            ([-2, 3], "Received: dtype int64, values from -2 to 3"),
            ([0.0], "Received: dtype float64"),
        ],
    )
    def test_what_is_no_index_is_refused(self, phones, message):
        with pytest.raises(ValueError, match=message):
            fold(np.array(phones))


class TestSpeakers:
    def test_core_test_and_development_sets(self):
        core, development = speakers._CORE_TEST.split(), speakers._DEVELOPMENT.split()
        assert (len(set(core)), len(set(development))) == (24, 50)
        assert not set(core) & set(development)
        # Two men and a woman of each of the eight dialect regions.
        assert [name[0] for name in core] == ["m", "m", "f"] * 8
        assert sum(name[0] == "f" for name in development) == 18

    def test_sentences_are_eight_a_speaker(self):
        assert speakers.SENTENCES["train"] == 8 * 462
        assert speakers.SENTENCES["core_test"] == 8 * 24
        assert speakers.SENTENCES["validation"] == 8 * 50
        assert sum(speakers.SENTENCES.values()) == 8 * (462 + 168)


def test_a_flipped_bit_anywhere_in_a_riff_file_is_damage_or_nothing():
    """In the sizes of chunks, Python's `wave` raises RuntimeError."""
    whole = riff(SAMPLES)
    for position in range(44):  # the header
        for bit in range(8):
            content = bytearray(whole)
            content[position] ^= 1 << bit
            try:
                samples = read_audio(bytes(content), "TRAIN/SX1.WAV")
            except DamagedFileError:
                continue
            np.testing.assert_array_equal(samples, SAMPLES)
