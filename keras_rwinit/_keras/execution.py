"""How the present thread executes what a model computes: uncompiled, outside traces, in double precision."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias, TypeVar

import keras

from .threads import replace_function
from .types import Tensor

__all__ = ["call_outside_traces", "double_precision", "has_value", "in_stateless_scope", "uncompiled"]

R = TypeVar("R")


def double_precision() -> contextlib.AbstractContextManager[object]:
    """Returns a context in which float64 stays float64: JAX computes in float32 by default."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.enable_x64(True)
    return contextlib.nullcontext()


def has_value(tensor: Tensor) -> bool:
    """Returns whether a tensor has a value that can be read, which those of a traced function do not have."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return not isinstance(tensor, jax.core.Tracer)
    if backend == "tensorflow":
        return hasattr(tensor, "numpy")
    if backend == "torch":
        try:
            return bool(tensor.data_ptr() or tensor.numel() == 0)
        except RuntimeError:  # of a tensor inside `torch.vmap`
            return False
    return True


def in_stateless_scope() -> bool:
    """Returns whether Keras runs in a `StatelessScope`, where an initializer's values are placeholders."""
    try:  # not part of Keras's public interface
        from keras.src.backend.common import stateless_scope
    except ImportError:
        return False
    return bool(stateless_scope.in_stateless_scope())


def call_outside_traces(function: Callable[[], R]) -> R:
    """Calls a function outside the graph or trace that the caller may be in, so that tensors have values.

    On PyTorch it may take gradients, whatever mode the caller is in.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        with jax.ensure_compile_time_eval():
            return function()
    if backend == "torch":
        import torch

        with torch.inference_mode(False), torch.enable_grad():
            return function()
    if backend == "tensorflow":
        import tensorflow as tf

        if not (tf.executing_eagerly() and _records_gradients()):
            # A new thread has no graph, and its tapes record, which those inside `tf.init_scope` do not.
            with ThreadPoolExecutor(1) as executor:
                return executor.submit(function).result()
    return function()


def _records_gradients() -> bool:
    """Returns whether TensorFlow's tapes record: not inside `tf.init_scope`, where Keras draws variables."""
    import tensorflow as tf

    x = tf.constant(0.0)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.identity(x)
    return tape.gradient(y, x) is not None


@contextlib.contextmanager
def uncompiled(*, inline: bool = False) -> Iterator[None]:
    """Lets the present thread run operation by operation: no function is rematerialized or compiled.

    A value inside a function that the back end traces is out of reach. On TensorFlow, a function that is
    traced on copies of a model's weights would also keep them, and be called with them ever after. All other
    threads compile and rematerialize as before, except that on PyTorch those that begin to compile meanwhile
    run uncompiled.

    Args:
        inline: Whether `jax.jit` and JAX's loops run operation by operation too, which is slow.
    """
    with contextlib.ExitStack() as stack:
        switch_off = _UNCOMPILED.get(keras.backend.backend())
        for context in switch_off(inline) if switch_off else []:
            stack.enter_context(context)
        yield


Contexts: TypeAlias = list[contextlib.AbstractContextManager[object]]


def _same_function(function: Callable[..., Any] | None = None, **options: object) -> Any:
    """Stands for `tf.recompute_grad` and `jax.checkpoint`, which are also decorators with options."""
    return _same_function if function is None else function


def _uncompiled_tensorflow(inline: bool) -> Contexts:
    import tensorflow as tf

    compiled = type(tf.function(lambda: None))
    original = compiled.__call__

    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        # TensorFlow's own functions, such as that of `tf.vectorized_map`, may be written for a graph alone.
        if str(getattr(self.python_function, "__module__", "")).startswith("tensorflow."):
            return original(self, *args, **kwargs)
        return self.python_function(*args, **kwargs)

    return [
        replace_function(compiled, "__call__", run),
        replace_function(tf, "recompute_grad", _same_function),
    ]


def _uncompiled_jax(inline: bool) -> Contexts:
    import jax

    contexts: Contexts = [replace_function(jax, name, _same_function) for name in ("checkpoint", "remat")]
    # What was made before keeps the first trace of its function. Each call begins with this one, which is not
    # public, and a function that JAX has never met is traced anew.
    module = sys.modules.get("jax._src.ad_checkpoint")
    split = getattr(module, "_remat_static_argnums", None)

    def renew(*arguments: Any) -> tuple[Callable[..., Any], Any]:
        function, rest = split(*arguments)  # type: ignore[misc]
        return (lambda *args, **kwargs: function(*args, **kwargs)), rest

    if split is not None:
        contexts.append(replace_function(module, "_remat_static_argnums", renew))
    return [*contexts, jax.disable_jit()] if inline else contexts


def _uncompiled_torch(inline: bool) -> Contexts:
    import torch
    import torch.utils.checkpoint

    module = torch.utils.checkpoint

    def run(
        function: Callable[..., Any],
        *args: Any,
        use_reentrant: object = None,
        context_fn: object = None,
        determinism_check: object = None,
        debug: object = None,
        early_stop: object = None,
        preserve_rng_state: object = None,
        **kwargs: Any,
    ) -> Any:
        return function(*args, **kwargs)

    contexts: Contexts = [
        replace_function(module, "checkpoint", run),
        # Those who imported `checkpoint` by its name come past here, if they want the reentrant kind.
        replace_function(module.CheckpointFunction, "apply", lambda function, keep, *args: function(*args)),
    ]
    if "torch._dynamo" in sys.modules:  # only then has anything been compiled
        contexts.append(torch.compiler.set_stance("force_eager"))
    return contexts


_UNCOMPILED = {
    "tensorflow": _uncompiled_tensorflow,
    "jax": _uncompiled_jax,
    "torch": _uncompiled_torch,
}
