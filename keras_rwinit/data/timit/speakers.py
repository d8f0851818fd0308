"""The split of every speaker: training, core test, validation or other test set."""

from __future__ import annotations

__all__ = ["SENTENCES", "split_of"]

# Two men and a woman of each dialect region, from the corpus's testset.doc.
_CORE_TEST = """
    mdab0 mwbt0 felc0  mtas1 mwew0 fpas0  mjmp0 mlnt0 fpkt0  mlll0 mtls0 fjlm0
    mbpm0 mklt0 fnlp0  mcmj0 mjdh0 fmgd0  mgrt0 mnjm0 fdhc0  mjln0 mpam0 fmld0
"""
# A. K. Halberstadt, "Heterogeneous acoustic measurements and multiple classifiers for speech
# recognition", PhD thesis, MIT, 1998.
_DEVELOPMENT = """
    faks0 fdac1 fjem0 mgwt0 mjar0 mmdb1 mmdm2 mpdf0 fcmh0 fkms0 mbdg0 mbwm0 mcsh0 fadg0 fdms0 fedw0 mgjf0
    mglb0 mrtk0 mtaa0 mtdt0 mthc0 mwjg0 fnmr0 frew0 fsem0 mbns0 mmjr0 mdls0 mdlf0 mdvc0 mers0 fmah0 fdrw0
    mrcs0 mrjm4 fcal1 mmwh0 fjsj0 majc0 mjsw0 mreb0 fgjd0 fjmg0 mroa0 mteb0 mjfc0 mrjr0 fmml0 mrws1
"""

# Number of sentences in the whole corpus, eight for each speaker without the SA sentences.
SENTENCES = {"train": 3696, "validation": 400, "core_test": 192, "other_test": 752}


def split_of(part: str, speaker: str) -> str:
    """Returns the split that a speaker's sentences belong to.

    Args:
        part: "train" or "test", the directory of the corpus.
        speaker: Name in lower case.

    Example:
        >>> from keras_rwinit.data.timit.speakers import split_of
        >>> split_of("train", "fcjf0"), split_of("test", "mdab0"), split_of("test", "faks0")
        ('train', 'core_test', 'validation')
    """
    if part == "train":
        return "train"
    if speaker in _CORE_TEST.split():
        return "core_test"
    return "validation" if speaker in _DEVELOPMENT.split() else "other_test"
