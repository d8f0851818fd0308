"""The record that every loader returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from keras_rwinit._checks import check_count

from ._checks import validate

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["Dataset"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training set and a test set of labeled, flattened examples.

    Args:
        name: What reports call it.
        x_train: Training inputs, float32, shape (examples, features).
        y_train: Training labels, int32, shape (examples,), from 0 to `classes - 1`.
        x_test: Test inputs, float32, shape (examples, features).
        y_test: Test labels, int32, shape (examples,).
        classes: Number of classes.

    Raises:
        ValueError: If an array breaks the rules above; see `validate`.

    Example:
        >>> import numpy as np
        >>> from keras_rwinit.data import Dataset
        >>> x, y = np.eye(4, dtype="float32"), np.arange(4, dtype="int32")
        >>> Dataset("identity", x, y, x, y, classes=4).features
        4
    """

    name: str
    x_train: NDArray[np.float32] = field(repr=False)
    y_train: NDArray[np.int32] = field(repr=False)
    x_test: NDArray[np.float32] = field(repr=False)
    y_test: NDArray[np.int32] = field(repr=False)
    classes: int

    def __post_init__(self) -> None:
        for part in ("train", "test"):
            x, y = getattr(self, f"x_{part}"), getattr(self, f"y_{part}")
            validate(x, y, self.classes)
            if x.ndim != 2 or x.dtype != np.float32 or y.dtype != np.int32:
                raise ValueError(
                    f"`x_{part}` must be float32 of shape (examples, features) and `y_{part}` "
                    f"int32. Received: {x.dtype} of shape {x.shape} and {y.dtype}; pass "
                    "`x.reshape(len(x), -1).astype('float32')` and `y.astype('int32')`."
                )
        if self.x_train.shape[1] != self.x_test.shape[1]:
            raise ValueError(
                "`x_train` and `x_test` must have equally many features. Received: "
                f"{self.x_train.shape[1]} and {self.x_test.shape[1]}."
            )

    @property
    def features(self) -> int:
        """Number of input dimensions."""
        return int(self.x_train.shape[1])

    def to_tf(
        self, batch_size: int, *, shuffle_seed: int | None = None
    ) -> tuple[tf.data.Dataset, tf.data.Dataset]:
        """Returns the training and the test set as batched `tf.data.Dataset` pipelines.

        Each element is a pair of tensors, float32 (batch, features) and int32 (batch,). The last
        batch holds what is left over. Whole batches are gathered by index, so shuffling keeps
        `examples` integers in its buffer, not a second copy of the data. Pass `shuffle=False` to
        `model.fit`, which otherwise warns that it cannot shuffle a pipeline.

        Args:
            batch_size: Examples a batch, at least 1.
            shuffle_seed: Seed of the training order, which is drawn anew for every epoch; two
                pipelines of one seed give the same sequence of epochs, provided that TensorFlow's
                global seed (`tf.random.set_seed`) is the same too. `None`: no shuffling. The test
                set is never shuffled.

        Returns:
            The pair `(train, test)`.

        Raises:
            ValueError: If `batch_size` is not a positive integer.
            ImportError: If TensorFlow is not installed.

        Example:
            >>> from keras_rwinit.data import load
            >>> train, test = load("digits").to_tf(100, shuffle_seed=0)
            >>> len(train), len(test)
            (15, 4)
        """
        batch_size = check_count("batch_size", batch_size)
        tf = _import_tensorflow()
        order = tf.data.Dataset.range(len(self.x_train))
        if shuffle_seed is not None:
            order = order.shuffle(len(self.x_train), seed=shuffle_seed, reshuffle_each_iteration=True)
        test_order = tf.data.Dataset.range(len(self.x_test))
        return (
            _gather(order.batch(batch_size), self.x_train, self.y_train),
            _gather(test_order.batch(batch_size), self.x_test, self.y_test),
        )


def _gather(indices: tf.data.Dataset, x: NDArray[np.float32], y: NDArray[np.int32]) -> tf.data.Dataset:
    import tensorflow as tf

    inputs, labels = tf.constant(x), tf.constant(y)
    batches = indices.map(lambda i: (tf.gather(inputs, i), tf.gather(labels, i)))
    return batches.prefetch(tf.data.AUTOTUNE)


def _import_tensorflow() -> Any:
    try:
        import tensorflow as tf
    except ImportError as error:
        raise ImportError(
            "`Dataset.to_tf` needs TensorFlow: `pip install tensorflow`. The arrays themselves "
            "(`x_train`, `y_train`, `x_test`, `y_test`) go into `model.fit` on every back end."
        ) from error
    return tf
