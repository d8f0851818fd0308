"""The tensorflow-datasets builder of TIMIT: TFDS's own test, and what it leaves out or rejects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timit_helpers

from keras_rwinit.data import DamagedFileError, DatasetNotFoundError

pytest.importorskip("tensorflow")
tfds = pytest.importorskip("tensorflow_datasets")
pytest.importorskip("dill", reason="TFDS tests builders with dill, which it does not require itself")

from keras_rwinit.data.timit import Timit  # noqa: E402


@pytest.mark.slow
class TimitBuilderTest(tfds.testing.DatasetBuilderTestCase):
    """TFDS's own test of every builder, on dummy_data."""

    DATASET_CLASS = Timit
    SPLITS = timit_helpers.COUNTS


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return timit_helpers.write_corpus(tmp_path / "corpus")


def prepare(tmp_path: Path, corpus: Path, config: str = "undamaged"):
    builder = Timit(data_dir=tmp_path / "prepared", config=config)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=corpus))
    return builder


@pytest.fixture(scope="module")
def undamaged(tmp_path_factory: pytest.TempPathFactory):
    """The builder of the whole synthetic corpus, prepared once."""
    directory = tmp_path_factory.mktemp("undamaged")
    return prepare(directory, timit_helpers.write_corpus(directory / "corpus"))


def examples(builder, split: str) -> dict[tuple[str, str], dict]:
    found = tfds.as_numpy(builder.as_dataset(split=split))
    return {(e["speaker"].decode(), e["sentence"].decode()): e for e in found}


def test_dummy_data_is_what_its_generator_writes(corpus):
    written, committed = (
        {path.relative_to(directory): path.read_bytes() for path in directory.rglob("*") if path.is_file()}
        for directory in (corpus, timit_helpers.DUMMY_DATA)
    )
    assert written == committed
    assert sum(map(len, committed.values())) < 64_000


def test_an_example_is_the_sound_and_its_phones(undamaged):
    builder = undamaged
    found = {**examples(builder, "train"), **examples(builder, "validation+core_test+other_test")}
    assert len(found) == 7
    for seed, (_, region, speaker, name, _, said) in enumerate(timit_helpers.SENTENCES):
        if name == "SA1":
            continue
        example, phones = found[speaker, name], said.split()
        np.testing.assert_array_equal(example["audio"], timit_helpers.sound(phones, seed))
        assert example["audio"].dtype == np.int16
        names = builder.info.features["phones"]["label"].names
        assert [names[label] for label in example["phones"]["label"]] == phones
        assert example["phones"]["start"].tolist() == [400 * i for i in range(len(phones))]
        assert example["phones"]["stop"].tolist() == [400 * (i + 1) for i in range(len(phones))]
        assert example["dialect_region"] == region - 1
        assert example["audio/filename"].decode() == f"{name}.WAV"
    assert builder.info.metadata["skipped"] == []
    reader = tfds.builder_from_directory(builder.data_dir)
    assert reader.info.features["audio"].sample_rate == 16_000
    assert examples(reader, "train").keys() == {("FCJF0", "SI1027"), ("FCJF0", "SX37"), ("MBCG0", "SX57")}


def test_names_in_lower_case_in_another_directory_with_riff_copies_beside_give_the_same(
    tmp_path, corpus, undamaged
):
    expected = examples(undamaged, "train")
    other = tmp_path / "other" / "LDC93S1" / "data" / "timit"
    for path in sorted(corpus.rglob("*.*")):
        moved = other.joinpath(*(part.lower() for part in path.relative_to(corpus / "TIMIT").parts))
        moved.parent.mkdir(parents=True, exist_ok=True)
        moved.write_bytes(path.read_bytes())
        moved.with_name(f"{moved.name}.wav").write_bytes(b"a copy that is not read")
        moved.with_name(f"._{moved.name}").write_bytes(b"of another system")
    found = examples(prepare(tmp_path, tmp_path / "other"), "train")
    assert found.keys() == expected.keys()
    for key in found:
        np.testing.assert_array_equal(found[key]["audio"], expected[key]["audio"])


def test_a_riff_copy_is_read_where_the_original_is_not_there(tmp_path, corpus):
    for path in list(corpus.rglob("*.WAV")):
        path.rename(path.with_name(f"{path.name}.wav"))
    assert len(examples(prepare(tmp_path, corpus), "train")) == 3


def damage(corpus: Path) -> list[Path]:
    """Truncates one file, misspells a phone and removes a file: two splits, three sentences."""
    speaker = corpus / "TIMIT" / "TRAIN" / "DR1" / "FCJF0"
    cut, misspelled = speaker / "SI1027.WAV", speaker / "SX37.PHN"
    missing = corpus / "TIMIT" / "TEST" / "DR1" / "MDAB0" / "SX49.WAV"
    cut.write_bytes(cut.read_bytes()[:-2])
    misspelled.write_bytes(misspelled.read_bytes().replace(b"ix", b"xi"))
    missing.unlink()
    return [cut, misspelled, missing]


def test_all_damaged_files_of_a_split_are_named(tmp_path, corpus):
    cut, misspelled, _ = damage(corpus)
    with pytest.raises(DamagedFileError) as raised:
        prepare(tmp_path, corpus)
    message = str(raised.value)
    assert "2 of 3 sentences are damaged" in message
    assert f"{cut}: its header says" in message
    assert f"{misspelled}, line 3: a phone must be one of" in message
    assert "skip_damaged" in message
    assert not Timit(data_dir=tmp_path / "prepared").is_prepared()


def test_damaged_sentences_are_left_out_on_request_and_recorded(tmp_path, corpus, caplog):
    cut, misspelled, missing = damage(corpus)
    builder = prepare(tmp_path, corpus, "skip_damaged")
    assert examples(builder, "train").keys() == {("MBCG0", "SX57")}
    assert examples(builder, "core_test").keys() == {("MDAB0", "SI1039")}
    again = Timit(data_dir=tmp_path / "prepared", config="skip_damaged")
    skipped = "\n".join(again.info.metadata["skipped"])
    assert len(again.info.metadata["skipped"]) == 3
    for expected in (str(cut), str(misspelled), f"{missing.parent}: the sentence sx49 has no audio"):
        assert expected in skipped
    assert "2 of 3 sentences are damaged and left out" in caplog.text


@pytest.mark.parametrize("directory", ["empty", "misplaced"])
def test_a_directory_without_the_corpus(tmp_path, directory):
    manual = tmp_path / directory
    (manual / "TRAIN" / "music").mkdir(parents=True)
    with pytest.raises(DatasetNotFoundError, match=f"no TIMIT in manual_dir, {manual}.*LDC93S1.*/DR1/"):
        prepare(tmp_path, manual)


def test_tfds_itself_says_what_to_obtain_where_there_is_no_directory(tmp_path):
    with pytest.raises(AssertionError, match=r"(?s)does not exist or is empty.*LDC93S1.*SI1027\.WAV"):
        prepare(tmp_path, tmp_path / "nowhere")


def test_tfds_knows_it_by_name(tmp_path):
    assert tfds.builder("timit", data_dir=tmp_path).builder_config.name == "undamaged"
