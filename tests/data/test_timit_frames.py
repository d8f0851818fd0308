"""`load_timit`: frames and labels compared with the corpus, and errors about an incomplete corpus."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import timit_helpers

from keras_rwinit import data
from keras_rwinit.data import _frames, _timit
from keras_rwinit.data.timit import FOLDED_PHONES, PHONES, fold

pytest.importorskip("tensorflow")
pytest.importorskip("tensorflow_datasets")

TRAIN = {"FCJF0 SI1027", "FCJF0 SX37", "MBCG0 SX57"}
CORE_TEST = {"MDAB0 SI1039", "MDAB0 SX49"}
VALIDATION = {"FAKS0 SI943"}
COMPLETE_TEST = CORE_TEST | VALIDATION | {"MSJS1 SX9"}


@pytest.fixture
def complete(monkeypatch):
    """Lets the synthetic corpus count as complete."""
    monkeypatch.setattr(_timit, "SENTENCES", timit_helpers.COUNTS)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """Directory in which the synthetic corpus is prepared once, and the corpus gone; to be read only."""
    directory = tmp_path_factory.mktemp("prepared")
    corpus = timit_helpers.write_corpus(directory / "downloads" / "manual")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_timit, "SENTENCES", timit_helpers.COUNTS)
        data.load_timit(directory)
    corpus.rename(directory / "away")
    return directory


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Directory of the corpus below `tmp_path`, where TFDS looks for it."""
    return timit_helpers.write_corpus(tmp_path / "downloads" / "manual")


def recordings(names: set[str]) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Returns features and phones (-1 for none) of every frame of some sentences, by speaker."""
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for seed, (_, _, speaker, name, _, said) in enumerate(timit_helpers.SENTENCES):
        if f"{speaker} {name}" in names:
            phones = said.split()
            features = _frames.frame_features(timit_helpers.sound(phones, seed), 16_000)
            centers = 160 * np.arange(len(features)) + 200
            labels = [PHONES.index(phones[c // 400]) if c < 400 * len(phones) else -1 for c in centers]
            found.setdefault(speaker, []).append((features, np.array(labels)))
    return found


def rows(names: set[str], folded: bool = True) -> np.ndarray:
    """Returns label and input of all labeled frames, in a fixed order."""
    found = []
    for features, labels in (pair for pairs in recordings(names).values() for pair in pairs):
        classes = fold(labels) if folded else labels
        inputs = _frames.add_context(features, np.flatnonzero(classes >= 0))
        found.append(np.column_stack([classes[classes >= 0], inputs]))
    return in_order(np.concatenate(found).astype(np.float32))


def in_order(found: np.ndarray) -> np.ndarray:
    return found[np.lexsort(found.T)]


def joined(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return in_order(np.column_stack([y, x]).astype(np.float32))


@pytest.mark.usefixtures("complete")
class TestFrames:
    def test_inputs_and_labels_are_those_of_the_corpus(self, prepared):
        loaded = data.load_timit(prepared, every=1, standardize=False)
        assert (loaded.name, loaded.classes, loaded.features) == ("timit", 39, 11 * 3 * 40)
        np.testing.assert_array_equal(joined(loaded.x_train, loaded.y_train), rows(TRAIN))
        np.testing.assert_array_equal(joined(loaded.x_test, loaded.y_test), rows(CORE_TEST))

    def test_sixty_one_phones_keep_the_glottal_stop(self, prepared):
        loaded = data.load_timit(prepared, phones=61, every=1, standardize=False)
        assert loaded.classes == 61
        np.testing.assert_array_equal(joined(loaded.x_train, loaded.y_train), rows(TRAIN, folded=False))
        assert PHONES.index("q") in loaded.y_train
        folded = data.load_timit(prepared, every=1)
        assert len(folded.y_train) == len(loaded.y_train) - (loaded.y_train == PHONES.index("q")).sum()

    @pytest.mark.slow
    def test_by_default_every_fourth_training_frame_and_all_of_the_test_set(self, prepared):
        loaded, every = data.load_timit(prepared, standardize=False), data.load_timit(prepared, every=1)
        everything = data.load_timit(prepared, every=1, standardize=False)
        np.testing.assert_array_equal(loaded.x_train, everything.x_train[::4])
        np.testing.assert_array_equal(loaded.y_train, everything.y_train[::4])
        np.testing.assert_array_equal(loaded.x_test, everything.x_test)
        np.testing.assert_array_equal(every.y_test, everything.y_test)

    def test_load_by_name_is_the_same(self, prepared):
        by_name, loaded = data.load("timit", prepared), data.load_timit(prepared)
        assert by_name.classes == len(FOLDED_PHONES)
        np.testing.assert_array_equal(by_name.x_train, loaded.x_train)
        np.testing.assert_array_equal(by_name.y_test, loaded.y_test)
        np.testing.assert_allclose(by_name.x_train.mean(axis=0, dtype=float), 0.0, atol=1e-6)

    @pytest.mark.parametrize(
        ("test", "names"), [("validation", VALIDATION), ("complete_test", COMPLETE_TEST)]
    )
    def test_other_test_sets(self, prepared, test, names):
        loaded = data.load_timit(prepared, test=test, standardize=False)
        np.testing.assert_array_equal(joined(loaded.x_test, loaded.y_test), rows(names))

    def test_by_speaker_every_speaker_has_zero_mean_and_unit_variance(self, prepared):
        loaded = data.load_timit(prepared, every=1, by_speaker=True, standardize=False)
        found = joined(loaded.x_train, loaded.y_train)[:, 1 + 5 * 120 : 1 + 6 * 120]
        expected = []
        for own in recordings(TRAIN).values():
            together = np.concatenate([features for features, _ in own]).astype(float)
            varying = np.ptp(together, axis=0) > 0
            centered = (together - together.mean(0)) / np.where(varying, together.std(0), 1.0)
            classes = fold(np.concatenate([labels for _, labels in own]))
            expected.append(centered[classes >= 0])
        expected = np.concatenate(expected)
        np.testing.assert_allclose(np.sort(found, axis=0), np.sort(expected, axis=0), atol=1e-5)

    def test_once_prepared_the_corpus_is_not_needed(self, prepared, tmp_path, corpus):
        """`prepared` no longer has its corpus; in `tmp_path` the frames come out of the corpus."""
        first = data.load_timit(tmp_path)
        again = data.load_timit(prepared, download=False)
        np.testing.assert_array_equal(again.x_train, first.x_train)

    def test_the_corpus_may_lie_elsewhere(self, tmp_path, corpus, capfd):
        elsewhere = corpus.rename(tmp_path / "elsewhere")
        data.load_timit(tmp_path, manual_dir=elsewhere)
        written = capfd.readouterr()
        assert written.out == ""
        assert "Generating" not in written.err

    def test_a_half_prepared_set_is_named(self, prepared, tmp_path):
        shutil.copytree(prepared / "timit", tmp_path / "timit")
        directory = tmp_path / "timit" / "undamaged" / "1.0.0"
        (directory / "timit-train.tfrecord-00000-of-00001").unlink()
        with pytest.raises(data.DatasetNotFoundError, match=f"{directory} is incomplete or damaged"):
            data.load_timit(tmp_path)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"phones": 48}, "`phones` must be 39, the folded ones, or 61.*phones=48"),
            ({"test": "test"}, "`test` must be one of core_test, validation, complete_test.*'test'"),
            ({"every": 0}, "`every` must be an integer of at least 1"),
        ],
    )
    def test_bad_arguments(self, tmp_path, arguments, message):
        with pytest.raises(ValueError, match=message):
            data.load_timit(tmp_path, **arguments)


class TestWithoutACompleteCorpus:
    @pytest.mark.parametrize("load", [data.load_timit, lambda directory: data.load("timit", directory)])
    def test_it_says_what_to_obtain_and_where_to_put_it(self, tmp_path, load):
        manual = tmp_path / "downloads" / "manual"
        message = f"not prepared in {tmp_path}.*{manual}. .*LDC93S1.*manual_dir/TIMIT/TRAIN/DR1/FCJF0.*PHN"
        with pytest.raises(data.DatasetNotFoundError, match=message):
            load(tmp_path)
        assert not list(tmp_path.iterdir())

    def test_forbidden_to_prepare(self, tmp_path, corpus):
        with pytest.raises(data.DatasetNotFoundError, match=r"download=False forbids.*LDC93S1"):
            data.load_timit(tmp_path, download=False)

    @pytest.mark.usefixtures("corpus")
    def test_an_incomplete_corpus_is_refused_and_its_counts_told(self, tmp_path):
        message = r"incomplete corpus\. Received: 3 of 3696 sentences of train, 2 of 192 .*skip_damaged=True"
        for _ in range(2):
            with pytest.raises(data.DatasetNotFoundError, match=message):
                data.load_timit(tmp_path)

    @pytest.mark.usefixtures("corpus")
    def test_and_taken_on_request(self, tmp_path):
        with pytest.warns(UserWarning, match="has 3 of 3696 sentences of train, 2 of 192 .*core_test"):
            loaded = data.load_timit(tmp_path, every=1, skip_damaged=True, standardize=False)
        np.testing.assert_array_equal(joined(loaded.x_train, loaded.y_train), rows(TRAIN))

    @pytest.mark.usefixtures("complete", "corpus")
    def test_nothing_is_said_where_nothing_is_left_out(self, tmp_path):
        data.load_timit(tmp_path, skip_damaged=True)

    @pytest.mark.usefixtures("complete")
    def test_damaged_files_are_an_error_or_left_out_and_named(self, tmp_path, corpus):
        damaged = corpus / "TIMIT" / "TRAIN" / "DR1" / "FCJF0" / "SX37.PHN"
        damaged.write_bytes(damaged.read_bytes() + b"9999 99999 h#\n")
        for load in (data.load_timit, lambda directory: data.load("timit", directory)):
            with pytest.raises(
                data.DamagedFileError, match=f"1 of 3 sentences.*\n{damaged}, line 7: .*past the rec"
            ):
                load(tmp_path)
        for _ in range(2):
            with pytest.warns(UserWarning, match=f"2 of 3 sentences of train.*1 damaged:\n{damaged}, line 7"):
                loaded = data.load_timit(tmp_path, every=1, skip_damaged=True, standardize=False)
        expected = rows(TRAIN - {"FCJF0 SX37"})
        np.testing.assert_array_equal(joined(loaded.x_train, loaded.y_train), expected)

    @pytest.mark.usefixtures("corpus")
    @pytest.mark.parametrize("metadata", ["{", "{}", "[]", '{"skipped": 3}'])
    def test_damaged_metadata_name_the_directory(self, tmp_path, metadata):
        with pytest.warns(UserWarning, match="has 3 of 3696 sentences"):
            data.load_timit(tmp_path, skip_damaged=True)
        for file in tmp_path.rglob("metadata.json"):
            file.write_text(metadata)
        with pytest.raises(data.DatasetNotFoundError, match=f"in {tmp_path}.* is incomplete or damaged"):
            data.load_timit(tmp_path, skip_damaged=True)

    @pytest.mark.usefixtures("complete")
    def test_a_test_set_of_which_nothing_is_there(self, tmp_path, corpus):
        (corpus / "TIMIT" / "TEST").rename(tmp_path / "TEST")
        with pytest.raises(data.DatasetNotFoundError, match="Received: 0 of 2 sentences of core_test"):
            data.load_timit(tmp_path)
        with pytest.raises(data.DatasetNotFoundError, match="No sentence of core_test"):
            data.load_timit(tmp_path, skip_damaged=True)

    def test_a_directory_that_cannot_be_written(self, tmp_path, corpus, monkeypatch):
        from keras_rwinit.data.timit import Timit

        def full(self, **arguments):
            raise OSError("No space left on device")

        monkeypatch.setattr(Timit, "download_and_prepare", full)
        with pytest.raises(data.DatasetNotFoundError, match="failed with OSError: No space left"):
            data.load_timit(tmp_path)
