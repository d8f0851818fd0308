"""Synthetic corpora in TIMIT's layout; `python tests/timit_helpers.py` rewrites the builder's dummy_data.

They contain only names of TIMIT. The sound is computed in integers, so that it is the same on every
machine.
"""

from __future__ import annotations

import io
import shutil
import wave
from pathlib import Path

import numpy as np

DUMMY_DATA = Path(__file__).resolve().parent.parent / "keras_rwinit" / "data" / "timit" / "dummy_data"

# Part, region, speaker, sentence, form of the audio, and phones of 400 samples each.
SENTENCES = [
    ("TRAIN", 1, "FCJF0", "SA1", "sphere", "h# sh h#"),
    ("TRAIN", 1, "FCJF0", "SI1027", "sphere", "h# sh iy q ae dcl h#"),
    ("TRAIN", 1, "FCJF0", "SX37", "sphere", "h# s ix tcl t h#"),
    ("TRAIN", 8, "MBCG0", "SX57", "big-endian sphere", "h# zh ax-h n pau h#"),
    ("TEST", 1, "MDAB0", "SI1039", "riff", "h# hv ao r q h#"),
    ("TEST", 1, "MDAB0", "SX49", "sphere", "h# eng kcl k h#"),
    ("TEST", 1, "FAKS0", "SI943", "sphere", "h# w el epi h#"),
    ("TEST", 1, "MSJS1", "SX9", "riff", "h# dx axr ux h#"),
]
COUNTS = {"train": 3, "validation": 1, "core_test": 2, "other_test": 1}
_PHONE_SAMPLES = 400
_UNLABELED_SAMPLES = 70


def sound(phones: list[str], seed: int) -> np.ndarray:
    """Returns a noisy saw-tooth, with another frequency for every phone, and a short unlabeled end."""
    random = np.random.RandomState(seed)
    samples = random.randint(-40, 41, len(phones) * _PHONE_SAMPLES + _UNLABELED_SAMPLES)
    for position, phone in enumerate(phones):
        here = slice(position * _PHONE_SAMPLES, (position + 1) * _PHONE_SAMPLES)
        period = 20 + 3 * sum(map(ord, phone)) % 97
        if phone != "h#":
            samples[here] += np.arange(_PHONE_SAMPLES) % period * (6000 // period) - 3000
    return samples.astype(np.int16)


def labels(phones: list[str]) -> bytes:
    """Returns a .PHN file."""
    return "".join(
        f"{position * _PHONE_SAMPLES} {(position + 1) * _PHONE_SAMPLES} {phone}\n"
        for position, phone in enumerate(phones)
    ).encode()


def sphere(samples: np.ndarray, order: str = "01", **changes: str | None) -> bytes:
    """Returns a SPHERE file; a change is the type and value of a header field, or None to leave it out."""
    fields: dict[str, str | None] = {
        "database_id": "-s5 DUMMY",
        "channel_count": "-i 1",
        "sample_count": f"-i {len(samples)}",
        "sample_rate": "-i 16000",
        "sample_n_bytes": "-i 2",
        "sample_byte_format": f"-s2 {order}",
        "sample_sig_bits": "-i 16",
    } | changes
    lines = [f"{name} {value}" for name, value in fields.items() if value is not None]
    header = "\n".join(["NIST_1A", "   1024", *lines, "end_head", ""]).encode()
    return header.ljust(1024, b" ") + samples.astype({"01": "<i2", "10": ">i2"}[order]).tobytes()


def riff(samples: np.ndarray, rate: int = 16_000, channels: int = 1, width: int = 2) -> bytes:
    """Returns a RIFF file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setframerate(rate)
        writer.setnchannels(channels)
        writer.setsampwidth(width)
        writer.writeframes(samples.astype("<i2").tobytes())
    return file.getvalue()


def write_corpus(directory: Path) -> Path:
    """Writes TIMIT/TRAIN and TIMIT/TEST into a directory and returns that directory."""
    for seed, (part, region, speaker, name, form, said) in enumerate(SENTENCES):
        phones = said.split()
        samples = sound(phones, seed)
        audio = riff(samples) if form == "riff" else sphere(samples, "10" if "big" in form else "01")
        speaker_directory = directory / "TIMIT" / part / f"DR{region}" / speaker
        speaker_directory.mkdir(parents=True, exist_ok=True)
        (speaker_directory / f"{name}.WAV").write_bytes(audio)
        (speaker_directory / f"{name}.PHN").write_bytes(labels(phones))
    return directory


if __name__ == "__main__":
    shutil.rmtree(DUMMY_DATA, ignore_errors=True)
    write_corpus(DUMMY_DATA)
