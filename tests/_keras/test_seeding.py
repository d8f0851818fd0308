"""Seeds: of one initializer, of many layers, on every back end."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np
import pytest
from keras_helpers import Array, to_numpy

from keras_rwinit._keras.seeding import layer_initializers, layer_seeds, with_seed
from keras_rwinit.initializers import RandomWalk, RandomWalkLinear, RandomWalkReLU, RandomWalkTanh

pytestmark = pytest.mark.backends

every_class = pytest.mark.parametrize(
    "cls", [RandomWalk, RandomWalkLinear, RandomWalkReLU, RandomWalkTanh], ids=lambda cls: cls.__name__
)
every_distribution = pytest.mark.parametrize(
    "distribution", ["normal", "truncated_normal", "uniform", "orthogonal"]
)

# gain 1.5, seed 2024, shape (2, 3): from NumPy's generator, without the package.
EXPECTED = {
    "normal": [
        [1.091267466545105, 1.7415192127227783, 1.2162797451019287],
        [-1.032212734222412, -1.4772875308990479, 0.07127249985933304],
    ],
    "uniform": [
        [0.6460455656051636, -1.049643635749817, -0.7001179456710815],
        [1.1003086566925049, 1.8216931819915771, -1.3145242929458618],
    ],
    "truncated_normal": [
        [0.5232385396957397, -0.9015790820121765, -0.5702953338623047],
        [0.955085813999176, 2.3281142711639404, -1.2065308094024658],
    ],
    "orthogonal": [
        [0.91008460521698, 1.014341115951538, -1.2320138216018677],
        [1.4801901578903198, -1.066636562347412, 0.21522897481918335],
    ],
}


def draw(initializer: Any, shape: tuple[int, ...] = (20, 5)) -> Array:
    return to_numpy(initializer(shape))


@every_distribution
def test_kernels_are_the_same_on_every_back_end(distribution: str) -> None:
    kernel = draw(RandomWalk(distribution=distribution, gain=1.5, seed=2024), (2, 3))
    assert kernel.dtype == np.float32
    if distribution == "orthogonal":  # by way of LAPACK, whose last bit depends on the machine
        np.testing.assert_allclose(kernel, EXPECTED[distribution], rtol=1e-6)
    else:
        np.testing.assert_array_equal(kernel, np.float32(EXPECTED[distribution]))


@every_distribution
@every_class
def test_seeds(cls: Any, distribution: str) -> None:
    first = draw(cls(distribution=distribution, seed=1))
    np.testing.assert_array_equal(first, draw(cls(distribution=distribution, seed=1)))
    assert not np.isin(first, draw(cls(distribution=distribution, seed=2))).any()
    unseeded = cls(distribution=distribution)
    keras.utils.set_random_seed(11)
    one, two = draw(unseeded), draw(unseeded)
    assert not np.isin(one, two).any()
    keras.utils.set_random_seed(11)
    np.testing.assert_array_equal(one, draw(cls(distribution=distribution)))
    np.testing.assert_array_equal(two, draw(unseeded))


@every_distribution
@every_class
def test_a_seed_generator_moves_on(cls: Any, distribution: str) -> None:
    generator = keras.random.SeedGenerator(4)
    initializer = cls(distribution=distribution, seed=generator)
    one, two = draw(initializer), draw(initializer)
    assert not np.isin(one, two).any()
    assert not np.isin(draw(cls(distribution=distribution, seed=generator)), [one, two]).any()
    again = cls(distribution=distribution, seed=keras.random.SeedGenerator(4))
    np.testing.assert_array_equal([one, two], [draw(again), draw(again)])


@pytest.mark.parametrize("seed", [0, -1, 2**31, 2**70])
def test_any_integer_is_a_seed(seed: int) -> None:
    kernel = draw(RandomWalk(seed=seed))
    np.testing.assert_array_equal(kernel, draw(RandomWalk(seed=seed)))
    assert not np.isin(kernel, draw(RandomWalk(seed=seed + 1))).any()


@every_class
def test_a_second_kernel_of_one_seed_and_shape_warns(cls: Any) -> None:
    initializer = cls(seed=1)
    first = draw(initializer, (20, 5))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        draw(initializer, (21, 5))
        draw(initializer, (20, 5, 1))
        draw(cls(seed=1), (20, 5))
    with pytest.warns(UserWarning, match=rf"{cls.__name__}\(seed=1\).*second kernel of shape \(20, 5\)"):
        second = draw(initializer, (20, 5))
    np.testing.assert_array_equal(first, second)


def test_equal_layers_sharing_an_instance_warn_and_without_a_seed_do_not() -> None:
    shared = RandomWalkReLU(seed=1)
    keras.layers.Dense(4, kernel_initializer=shared).build((None, 4))
    with pytest.warns(UserWarning, match="Equal layers do not make a random walk"):
        keras.layers.Dense(4, kernel_initializer=shared).build((None, 4))
    unseeded = RandomWalkReLU()
    one, two = (keras.layers.Dense(4, kernel_initializer=unseeded) for _ in range(2))
    one.build((None, 4))
    two.build((None, 4))
    assert not np.isin(to_numpy(one.kernel), to_numpy(two.kernel)).any()


def test_layer_seeds() -> None:
    """The first do not depend on the count, all differ, and so do those of another root."""
    seeds = layer_seeds(0, 20_000)
    assert seeds[:4] == layer_seeds(0, 4) == [821328062, 1328280175, 1835232288, 194700753]
    assert len(set(seeds)) == 20_000
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert not set(layer_seeds(0, 1000)) & set(layer_seeds(1, 1000))
    assert layer_seeds(0, 0) == []
    assert layer_seeds(np.int64(3), 2) == layer_seeds(3, 2)
    for seed in ("a", 1.5, True):
        with pytest.raises(ValueError, match="`seed` must be an integer or None. Received: seed="):
            layer_seeds(seed, 2)


def test_layer_seeds_without_a_root_follow_keras() -> None:
    keras.utils.set_random_seed(3)
    first, second = layer_seeds(None, 5), layer_seeds(None, 5)
    assert first != second
    keras.utils.set_random_seed(3)
    assert layer_seeds(None, 5) == first


@pytest.mark.parametrize(
    "make",
    [
        RandomWalkReLU,
        keras.initializers.HeNormal,
        keras.initializers.GlorotUniform,
        keras.initializers.Orthogonal,
        keras.initializers.TruncatedNormal,
    ],
)
def test_a_copy_with_a_seed(make: Any) -> None:
    """Same class, same settings, the seed given; the original is left as it was."""
    original = make(seed=4)
    copy = with_seed(original, 5)
    assert type(copy) is type(original)
    assert copy.get_config() == {**original.get_config(), "seed": 5}
    assert original.get_config()["seed"] == 4
    np.testing.assert_array_equal(draw(copy), draw(make(seed=5)))


def test_initializers_without_a_seed_stay_as_they_are() -> None:
    zeros = keras.initializers.Zeros()
    assert with_seed(zeros, 1) is zeros

    def function(shape: tuple[int, ...], dtype: Any = None) -> Any:
        return keras.ops.ones(shape, dtype)

    assert with_seed(function, 1) is function
    assert layer_initializers(function, 3) == [function] * 3


@pytest.mark.parametrize("seed", [None, 7, keras.random.SeedGenerator(7)], ids=["none", "int", "generator"])
@pytest.mark.parametrize(
    "make", [RandomWalkTanh, keras.initializers.HeUniform], ids=lambda make: make.__name__
)
def test_no_two_layers_share_a_kernel(make: Any, seed: Any) -> None:
    kernels = [draw(one, (20, 2)) for one in layer_initializers(make(seed=seed), 50)]
    assert len({row.tobytes() for kernel in kernels for row in kernel}) == 50 * 20


def function(a: Any) -> Any:
    return keras.ops.tanh(a)


class Callable:
    def __call__(self, a: Any) -> Any:
        return keras.ops.tanh(a)


@pytest.mark.parametrize("activation", [function, Callable(), lambda a: keras.ops.tanh(a)])
def test_layers_of_an_activation_that_cannot_be_serialized(activation: Any) -> None:
    """Giving each layer a seed needs no round trip through a config."""
    kernels = [draw(one) for one in layer_initializers(RandomWalk(activation, depth=50, seed=1), 3)]
    for kernel, seed in zip(kernels, layer_seeds(1, 3), strict=True):
        np.testing.assert_array_equal(kernel, draw(RandomWalk(activation, depth=50, seed=seed)))


def test_a_root_seed_repeats_all_layers_and_depth_adds_at_the_end() -> None:
    short, long = (
        [draw(one, (4, 4)) for one in layer_initializers(RandomWalkReLU(seed=7), count)] for count in (3, 5)
    )
    np.testing.assert_array_equal(short, long[:3])
