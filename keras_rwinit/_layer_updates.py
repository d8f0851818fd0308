"""The updates of `Layerwise`: another optimizer's rule, applied to all layers of a stack at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from keras_rwinit._keras.stacked import mark_stacked
from keras_rwinit._keras.types import Initializer, Tensor

__all__ = ["LayerUpdates", "OptimizerSpec"]

# Settings that `Layerwise` applies itself, at their values in the optimizers within it.
_SETTINGS_OF_LAYERWISE: dict[str, Any] = {
    "use_ema": False,
    "ema_overwrite_frequency": None,
    "loss_scale_factor": None,
    "gradient_accumulation_steps": None,
}


@dataclass(frozen=True)
class OptimizerSpec:
    """What an optimizer is made of.

    Args:
        kind: Its class.
        config: Its configuration.
        serialized: The optimizer as Keras saves it.
        learning_rate: A number, a schedule or a function.
    """

    kind: type[keras.optimizers.Optimizer]
    config: dict[str, Any]
    serialized: dict[str, Any]
    learning_rate: float | Callable[..., Any]

    @classmethod
    def of(cls, optimizer: keras.optimizers.Optimizer) -> OptimizerSpec:
        """Returns the spec of an optimizer; ValueError if its rule is more than its `update_step`."""
        for base in type(optimizer).__mro__:
            # The back ends' own classes update many variables at once, to the same effect.
            of_keras = base in keras.optimizers.Optimizer.__mro__ or "keras.src.backend" in base.__module__
            if "_backend_update_step" in vars(base) and not of_keras:
                raise _not_layer_by_layer(optimizer)
        rate = optimizer._learning_rate
        if isinstance(rate, keras.Variable):
            rate = float(rate.numpy())  # also within a distribution strategy
        serialized = keras.saving.serialize_keras_object(optimizer)
        return cls(type(optimizer), optimizer.get_config(), serialized, rate)

    @property
    def has_own_weight_decay(self) -> bool:
        """Whether its weight decay is not that of all optimizers."""
        return bool(self.kind._apply_weight_decay is not keras.optimizers.Optimizer._apply_weight_decay)

    def serialize(self, learning_rate: Any) -> dict[str, Any]:
        """Returns what Keras saves, with another learning rate."""
        config = {**self.serialized["config"], "learning_rate": learning_rate}
        return {**self.serialized, "config": config}

    def make(self, kind: type[keras.optimizers.Optimizer]) -> Any:
        """Returns an optimizer of class `kind` that keeps the state of its rule only."""
        changes = {name: value for name, value in _SETTINGS_OF_LAYERWISE.items() if name in self.config}
        return kind.from_config({**self.config, **changes})


class LayerUpdates:
    """The state and the steps of all variables of an optimizer.

    The object is no Keras optimizer: the state belongs to `owner`, and a file keeps it once.

    Args:
        owner: The `Layerwise` optimizer.
        spec: The optimizer whose rule it applies.
        plain: The variables that are no stacks.
    """

    def __init__(
        self,
        owner: keras.optimizers.Optimizer,
        spec: OptimizerSpec,
        plain: Sequence[keras.Variable],
    ) -> None:
        self._owner, self._spec = owner, spec
        self._plain = spec.make(spec.kind)
        before = len(self._plain.variables)
        if plain:
            self._plain.build(plain)
        for slot in self._plain.variables[before:]:
            owner._track_variable(slot)
        self._stacks: dict[int, _StackUpdate] = {}

    def add(self, index: int, stacked: keras.Variable) -> None:
        """Makes room for the state of a stack, which has the number `index` among the variables."""
        self._stacks[index] = _StackUpdate(self._owner, self._spec, stacked)

    def update(self, index: int, gradient: Tensor, variable: Any, learning_rate: Tensor) -> None:
        """Updates a variable and its state by a gradient."""
        if index in self._stacks:
            self._stacks[index].run(
                lambda rule, layer, gradient: rule.update_step(gradient, layer, learning_rate),
                variable,
                gradient,
            )
        else:
            _share_counters(self._owner, self._plain)
            self._plain.update_step(gradient, variable, learning_rate)

    def decay(self, index: int, variable: Any) -> None:
        """Applies the optimizer's own weight decay to a variable."""
        if index in self._stacks:
            self._stacks[index].run(lambda rule, layer, _: rule._apply_weight_decay([layer]), variable)
        else:
            _share_counters(self._owner, self._plain)
            self._plain._apply_weight_decay([variable])


class _StackUpdate:
    """One variable of many layers: its state, and the rule for one layer that is vectorized over all."""

    def __init__(
        self, owner: keras.optimizers.Optimizer, spec: OptimizerSpec, stacked: keras.Variable
    ) -> None:
        self._owner = owner
        # A layer's variable: only its shape and its names matter.
        self._layer = keras.Variable(
            keras.ops.zeros(stacked.shape[1:], stacked.dtype), trainable=True, name=stacked.name
        )
        self._layer._path = stacked.path  # by which optimizers exclude variables
        self._rule = spec.make(type(f"Layer{spec.kind.__name__}", (_OneLayer, spec.kind), {}))
        self._rule.build([self._layer])
        if self._rule.assigned:
            raise _not_layer_by_layer(self._rule)
        self._slots = [slot for slot, _ in self._rule.slots]
        self._stacked_slots = [
            self._add_slot(stacked, slot, initializer) for slot, initializer in self._rule.slots
        ]

    def _add_slot(
        self, stacked: keras.Variable, slot: keras.Variable, initializer: Initializer | str
    ) -> keras.Variable:
        if slot.shape == self._layer.shape and slot.dtype == stacked.dtype:
            # Shared among devices as the stack is.
            added = self._owner.add_variable_from_reference(stacked, slot.name, initializer)
        else:
            shape = (stacked.shape[0], *slot.shape)
            name = f"{stacked.path.replace('/', '_')}_{slot.name}"
            added = self._owner.add_variable(shape, initializer, slot.dtype, name=name)
        return mark_stacked(added)

    def run(
        self,
        step: Callable[[Any, keras.Variable, Tensor], None],
        variable: Any,
        gradient: Tensor | None = None,
    ) -> None:
        """Lets `step(rule, layer, gradient)` change every layer's weights and state."""
        # Read here: inside the map, an outer scope of JAX's training step is out of sight.
        _share_counters(self._owner, self._rule)
        counters = [
            (counter, keras.ops.convert_to_tensor(counter))
            for counter in (self._rule._iterations, self._rule._learning_rate)
            if isinstance(counter, keras.Variable)
        ]
        variables = [self._layer, *self._slots]

        def change(tensors: list[Tensor]) -> list[Tensor]:
            *values, gradient = tensors
            mapping = [*counters, *zip(variables, values, strict=True)]
            with keras.StatelessScope(state_mapping=mapping) as scope:
                step(self._rule, self._layer, gradient)
            return [scope.get_current_value(one) for one in variables]

        targets = [variable, *self._stacked_slots]
        tensors = [keras.ops.stop_gradient(keras.ops.convert_to_tensor(target)) for target in targets]
        tensors.append(tensors[0] if gradient is None else keras.ops.convert_to_tensor(gradient))
        for target, value in zip(targets, keras.ops.vectorized_map(change, tensors), strict=True):
            self._owner.assign(target, value)


class _OneLayer:
    """Mixed into an optimizer's class: it runs inside a vectorized map, on tensors, and notes its state."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.slots: list[tuple[keras.Variable, Initializer | str]] = []
        self.assigned = False

    def add_variable(
        self, shape: Any, initializer: Initializer | str = "zeros", dtype: Any = None, **kwargs: Any
    ) -> keras.Variable:
        slot = super().add_variable(shape, initializer, dtype, **kwargs)  # type: ignore[misc]
        self.slots.append((slot, initializer))
        return slot

    def add_variable_from_reference(
        self, reference_variable: keras.Variable, name: str = "", initializer: Initializer | str = "zeros"
    ) -> keras.Variable:
        return self.add_variable(
            reference_variable.shape, initializer, reference_variable.dtype, name=name or "var"
        )

    def assign(self, variable: keras.Variable, value: Tensor) -> None:
        self.assigned = True
        variable.assign(keras.ops.cast(value, variable.dtype))

    def assign_add(self, variable: keras.Variable, value: Tensor) -> None:
        self.assign(variable, keras.ops.add(variable, value))

    def assign_sub(self, variable: keras.Variable, value: Tensor) -> None:
        self.assign(variable, keras.ops.subtract(variable, value))

    def _var_key(self, variable: keras.Variable) -> int:
        return id(variable)


def _share_counters(owner: keras.optimizers.Optimizer, rule: Any) -> None:
    """Gives `rule` the owner's count of steps and its learning rate, which may have been replaced."""
    rule._iterations, rule._learning_rate = owner._iterations, owner._learning_rate
    # Optimizers count their updates. Set before `build`, it would make the rule add up gradients, too.
    rule.gradient_accumulation_steps = owner.gradient_accumulation_steps


def _not_layer_by_layer(optimizer: Any) -> ValueError:
    name = type(optimizer).__name__.removeprefix("Layer")
    return ValueError(
        f"{name} keeps more state than `update_step` changes, which Layerwise cannot divide among layers. It "
        "needs no Layerwise if it computes entry by entry, as Nadam and ScheduleFreeAdamW do. Received: "
        f"inner_optimizer={name}"
    )
