"""`Timit`, the tensorflow-datasets builder of TIMIT; importing it registers `timit` with TFDS."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from numpy.typing import NDArray

from .._tfds import DatasetNotFoundError
from .audio import SAMPLE_RATE
from .corpus import HOW_TO_OBTAIN, Sentence, find_corpus, read_sentence, sentences
from .damage import DamagedFileError
from .phones import PHONES
from .speakers import SENTENCES, split_of

__all__ = ["Timit"]

_REGIONS = (
    "New England",
    "Northern",
    "North Midland",
    "South Midland",
    "Southern",
    "New York City",
    "Western",
    "Army Brat",
)
# The message names at most this many damaged files.
_NAMED = 10

# One example by feature, as TFDS encodes it.
Example: TypeAlias = dict[str, Any]

_CITATION = """\
@misc{garofolo1993timit,
  title={{TIMIT} Acoustic-Phonetic Continuous Speech Corpus},
  author={Garofolo, John S. and Lamel, Lori F. and Fisher, William M. and Fiscus, Jonathan G. and
          Pallett, David S. and Dahlgren, Nancy L. and Zue, Victor},
  howpublished={Linguistic Data Consortium, LDC93S1},
  year={1993},
  doi={10.35111/17gk-bn40}
}"""


class Timit(tfds.core.GeneratorBasedBuilder):
    """Sentences of American English read aloud, with the time of every phone, 16 kHz.

    | split | speakers | sentences | |
    |---|---|---|---|
    | train | 462 | 3696 | the corpus's TRAIN |
    | validation | 50 | 400 | Halberstadt's development set, out of TEST |
    | core_test | 24 | 192 | the corpus's core test set, out of TEST |
    | other_test | 94 | 752 | the rest of TEST |

    The complete test set is `validation+core_test+other_test`. No split contains the two SA
    sentences, which all speakers read. An example holds the samples (`audio`), the phones in order
    (`phones`: `start`, `stop` in samples, `label` among 61), `speaker`, `dialect_region`,
    `sentence`, and `audio/filename`.

    Damaged files raise an error that names them. The configuration `skip_damaged` leaves their
    sentences out instead and lists them in `info.metadata["skipped"]`.

    Args:
        file_format: Format of the prepared files, as `tfds.core.DatasetBuilder` takes it. `None`: TFDS's
            default.
        **kwargs: The other arguments of `tfds.core.DatasetBuilder`: `data_dir`, the directory of prepared
            sets, and `config`, `"undamaged"` (the default) or `"skip_damaged"`.

    Raises:
        DatasetNotFoundError: (a ValueError) On preparation, `manual_dir` has no corpus. The message says how
            to obtain it and where to put it.
        DamagedFileError: (a ValueError) On preparation, files are damaged; it names them.

    Example:
        >>> import tempfile
        >>> from keras_rwinit.data.timit import Timit
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     builder = Timit(data_dir=directory)
        ...     builder.name, builder.info.features["phones"]["label"].num_classes
        ('timit', 61)

        `builder.download_and_prepare()` reads the corpus, and `builder.as_dataset("train")` the sentences.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Initial release."}  # noqa: RUF012  as TFDS declares it
    MANUAL_DOWNLOAD_INSTRUCTIONS = HOW_TO_OBTAIN
    BUILDER_CONFIGS = [  # noqa: RUF012
        tfds.core.BuilderConfig(name="undamaged", description="A damaged file is an error that names it."),
        tfds.core.BuilderConfig(name="skip_damaged", description="Sentences of damaged files are left out."),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description="TIMIT: read American English, transcribed phone by phone (LDC93S1).",
            homepage="https://catalog.ldc.upenn.edu/LDC93S1",
            citation=_CITATION,
            features=tfds.features.FeaturesDict(
                {
                    "audio": tfds.features.Audio(dtype=np.int16, sample_rate=SAMPLE_RATE, encoding="bytes"),
                    "audio/filename": tfds.features.Text(),
                    "dialect_region": tfds.features.ClassLabel(names=_REGIONS),
                    "phones": tfds.features.Sequence(
                        {
                            "start": np.int32,
                            "stop": np.int32,
                            "label": tfds.features.ClassLabel(names=PHONES),
                        }
                    ),
                    "sentence": tfds.features.Text(),
                    "speaker": tfds.features.Text(),
                }
            ),
            metadata=tfds.core.MetadataDict(skipped=[]),
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[str, Example]]]:
        corpus = find_corpus(dl_manager.manual_dir)
        if corpus is None:
            raise DatasetNotFoundError(
                f"There is no TIMIT in manual_dir, {dl_manager.manual_dir}. {HOW_TO_OBTAIN}"
            )
        of_split: dict[str, list[Sentence]] = {name: [] for name in SENTENCES}
        for sentence in sentences(corpus):
            of_split[split_of(sentence.part, sentence.speaker)].append(sentence)
        return {name: self._generate_examples(found) for name, found in of_split.items() if found}

    def _generate_examples(self, found: list[Sentence]) -> Iterator[tuple[str, Example]]:
        damaged: list[str] = []
        for sentence in found:
            try:
                samples, segments = read_sentence(sentence)
            except DamagedFileError as error:
                damaged.append(str(error))
                continue
            speaker, name = sentence.speaker.upper(), sentence.name.upper()
            yield (
                f"{speaker}_{name}",
                {
                    "audio": _as_bytes(samples),
                    "audio/filename": sentence.audio.name if sentence.audio else "",
                    "dialect_region": sentence.region - 1,
                    "phones": [{"start": s.start, "stop": s.stop, "label": s.phone} for s in segments],
                    "sentence": name,
                    "speaker": speaker,
                },
            )
        self._report_damage(damaged, len(found))

    def _report_damage(self, damaged: list[str], sentences: int) -> None:
        """Raises an error with the damaged files, or records them if they are to be skipped.

        It runs after all files of a split have been read, so that one message names all of them.
        """
        if not damaged:
            return
        count = f"{len(damaged)} of {sentences} sentences are damaged"
        if self.builder_config.name != "skip_damaged":
            more = f"\n... and {len(damaged) - _NAMED} more" if len(damaged) > _NAMED else ""
            raise DamagedFileError(
                f"{count}:\n"
                + "\n".join(damaged[:_NAMED])
                + more
                + "\nRepair them, or leave these sentences "
                'out: `data.load_timit(skip_damaged=True)`, or the configuration "timit/skip_damaged".'
            )
        self.info.metadata["skipped"].extend(damaged)
        logging.warning("%s and left out:\n%s", count, "\n".join(damaged))


def _as_bytes(samples: NDArray[np.int16]) -> NDArray[np.object_]:
    """Returns the samples as TFDS stores a feature with `encoding="bytes"`.

    `Audio` applies its encoding to files but not to arrays, and without one every negative sample
    takes ten bytes on disk.
    """
    return np.array(samples.astype("<i2").tobytes(), dtype=object)
