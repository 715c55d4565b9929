"""The options of a loss, in one frozen object."""

import math
import warnings
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from costbank.errors import UsageError

__all__ = [
    "EMO_MIXINGS",
    "RAISED_PERPLEXITY",
    "EMOOptions",
    "Mixing",
    "Objective",
    "PresetName",
    "Reduction",
    "Schedule",
]

Objective = Literal["neighbor_smoothing", "emo", "delta", "log", "kernel", "ce", "tailr", "mixce", "d2gpo"]
Mixing = Literal["emo1_clamped", "emo1", "emo2", "fixed", "interpolate"]
Reduction = Literal["mean", "sum", "none"]
PresetName = Literal["recommended", "paper", "published"]

EMO_MIXINGS = ("emo1_clamped", "emo1", "emo2")
"""Mixings that compute a weight from the distance."""
_WITHOUT_COSTS = ("delta", "ce", "tailr", "mixce")
_CROSS_ENTROPIES = ("ce", "tailr", "mixce")
_TARGETS = ("neighbor_smoothing", "log", "d2gpo")
RAISED_PERPLEXITY = {"emo1_clamped": "9 %", "emo2": "109 %"}
"""By how much mixings raised the held-out perplexity relative to cross-entropy (docs/study.md, from scratch)."""

_PRESETS: dict[str, dict[str, Any]] = {
    "recommended": {"objective": "neighbor_smoothing", "mixing": "interpolate", "weight": 0.1},
    "paper": {"objective": "emo", "mixing": "emo1"},
    "published": {"objective": "emo", "mixing": "emo1_clamped"},
}


@dataclass(frozen=True)
class Schedule:
    """A weight that changes from one value to another over training steps.

    Attributes:
        start: the weight up to step `begin`.
        end: the weight from step `begin + steps` on.
        steps: the number of steps that the change takes; 0 is a jump.
        begin: the step at which the change begins.
        shape: `linear`, or half a `cosine`.

    Raises:
        UsageError: a weight is negative or not finite, or a number of steps is negative.
    """

    start: float
    end: float
    steps: int
    begin: int = 0
    shape: Literal["linear", "cosine"] = "linear"

    def __post_init__(self) -> None:
        _check_number("Schedule.start", self.start)
        _check_number("Schedule.end", self.end)
        for name in ("steps", "begin"):
            _check_count(f"Schedule.{name}", getattr(self, name), least=0)
        _check_choice("Schedule.shape", self.shape, ("linear", "cosine"))

    def at(self, step: int) -> float:
        """The weight at a step, counted from 0."""
        if step < self.begin:
            return self.start
        done = 1.0 if self.steps == 0 else min(1.0, (step - self.begin) / self.steps)
        if self.shape == "cosine":
            done = (1 - math.cos(math.pi * done)) / 2
        return self.start + (self.end - self.start) * done


@dataclass(frozen=True)
class EMOOptions:
    """Options of all losses.

    With p the softmax of the logits, t the label and κ_i = c(i, t) its costs, `objective` is the value D of a token:

    - `neighbor_smoothing`: −Σ q_i log p_i with q over the label's neighbors, from `open_smoothing`: label smoothing
      towards similar tokens;
    - `emo`: Σ p_i κ_i, the Earth Mover's Distance to the label (arXiv 2310.04691);
    - `delta`: 1 − p_t, which is `emo` if every wrong token costs 1;
    - `log`: −log Σ p_i s_i with s_i = max(0, 1 − κ_i)^`log_power`, whose gradient does not vanish at improbable labels;
    - `kernel`: ½ ‖Σ p_i e_i − e_t‖², a proper score;
    - `ce`: cross-entropy alone; `tailr`: cross-entropy times sg(p_t / (γ + (1 − γ) p_t)), at least
      `tailr_least` (Ji et al. 2023, γ = `tailr_gamma`); `mixce`: cross-entropy times η + (1 − η) sg(p_t) (Zhang et al.
      2023, η = `mixce_ratio`);
    - `d2gpo`: −Σ q_i log p_i, q = softmax(N(r_i; 0, σ) / T) with r_i the rank of i among the label's neighbors (0 for
      the label), σ = `d2gpo_std` and T = `d2gpo_temperature` (Li et al. 2020).

    With CE the cross-entropy and sg the stop-gradient, `mixing` combines CE and D for each token:

    - `emo1`: ½ (CE + sg(CE / (D + 1e-10)) · D), as in the paper; its value is CE;
    - `emo1_clamped`: the same with a ratio of at most 3, so that gradients do not explode if D is tiny, as in the
      published package;
    - `emo2`: sg(D / (CE + 1e-10)) · CE + D; its value is 2 D;
    - `fixed`: CE + weight · D;
    - `interpolate`: (1 − weight) · CE + weight · D; with a weight of 1, D alone.

    `neighbor_smoothing`, `log` and `d2gpo` are cross-entropies themselves and support only the last two.

    Attributes:
        objective: see above.
        mixing: see above.
        weight: for `fixed` and `interpolate`; with a `Schedule`, calls need a `step`.
        entropy_gate: None, or a perplexity G: the weight is multiplied by min(1, H / log G) with H the entropy of p, so
            that tokens that are predicted with certainty have no part of D. H gets no gradient. Without Triton kernels,
            it takes one more pass over each block.
        ignore_index: labels of this value are ignored; any integer, inside the vocabulary or not.
        reduction: `mean` over the tokens that are not ignored (weighted if there are weights), `sum`, or `none` for a
            loss for each token.
        shift: whether position i predicts label i + 1, as in Hugging Face models, where labels are the input ids.
        softcap: logits z first become softcap · tanh(z / softcap) (Gemma 2).
        temperature: the divisor of logits, after the softcap. The temperature of the targets of `neighbor_smoothing` is
            that of `open_smoothing`; that of `d2gpo` is `d2gpo_temperature`, and a warning says so if only this one is
            given.
        z_loss: the factor of the squared log-sum-exp that is added (PaLM, arXiv 2204.02311).
        label_smoothing: ε; the target of cross-entropy is (1 − ε) · label + ε · uniform.
        target_mass: `excluded`, or `detached` to add p_t to the value of D but not to its gradient, as in the EMO
            authors' models, for exact parity with them.
        chunk_rows: tokens in a block; default: 256 on a CPU, elsewhere as many as take 512 MiB of logits.
        skip_ignored: leave out ignored tokens before anything is computed. For that `linear_emo_loss` waits for an
            accelerator. With False it does not wait, an ignored token takes as long as another, and dense costs are
            computed for each token, also if labels are equal. The values are equal up to rounding. While a CUDA graph
            is captured, and in `emo_loss` on an accelerator, ignored tokens stay in any case.
        kernels: `auto` runs on Triton's kernels on CUDA, and on PyTorch's operations elsewhere; `torch` and `triton`
            choose. With kernels, logits of hidden states have the type of the head's products, as in
            `torch.nn.Linear`. float64 needs PyTorch's operations.
        accumulate: the type of sums and of the softmax.
        weight_gradient: how the gradient of a head's bfloat16 weight is summed over n blocks. `wide`: in the type of
            sums, which takes 4 bytes a number in float32. `nearest` and `stochastic`: in bfloat16, 2 bytes a number.
            `nearest` rounds each partial sum to the nearest number; the error is at most n · 2⁻⁸ of the largest
            partial sum (Higham 2002, Accuracy and Stability of Numerical Algorithms, section 4.2). `stochastic` rounds
            up or down at random: a rounding may be twice as large, but its mean is 0, so that the error grows as
            √n (Connolly, Higham & Mary 2021, doi 10.1137/20M1334796). Two runs give the same bits. Weights of other
            types have `wide`.
        nan_logits: `refuse` raises an error; `pass` gives a NaN loss, for gradient scalers of float16 training.
        log_power: γ of `log`.
        tailr_gamma: γ of `tailr`; its authors used 1e-7 to 0.8.
        tailr_least: the least weight of `tailr`; its authors used 0.2 or 0.3.
        mixce_ratio: η of `mixce`; its authors used 0.1 to 0.7.
        d2gpo_std: σ of `d2gpo`, in ranks; 6 σ neighbors are needed.
        d2gpo_temperature: T of `d2gpo`; its authors use the weights 0.1 T² for it and 0.9 for cross-entropy.

    Raises:
        UsageError: a value is invalid, or two options contradict each other.
    """

    objective: Objective = "emo"
    mixing: Mixing = "emo1_clamped"
    weight: float | Schedule = 1.0
    entropy_gate: float | None = None
    ignore_index: int = -100
    reduction: Reduction = "mean"
    shift: bool = False
    softcap: float | None = None
    temperature: float = 1.0
    z_loss: float = 0.0
    label_smoothing: float = 0.0
    target_mass: Literal["excluded", "detached"] = "excluded"
    chunk_rows: int | None = None
    skip_ignored: bool = True
    kernels: Literal["auto", "torch", "triton"] = "auto"
    accumulate: Literal["float32", "float64"] = "float32"
    weight_gradient: Literal["wide", "nearest", "stochastic"] = "wide"
    nan_logits: Literal["refuse", "pass"] = "refuse"
    log_power: float = 1.0
    tailr_gamma: float = 0.1
    tailr_least: float = 0.0
    mixce_ratio: float = 0.5
    d2gpo_std: float = 1.0
    d2gpo_temperature: float = 2.0

    def __post_init__(self) -> None:
        for name, kind in (("objective", Objective), ("mixing", Mixing), ("reduction", Reduction)):
            _check_choice(name, getattr(self, name), get_args(kind))
        _check_choice("target_mass", self.target_mass, ("excluded", "detached"))
        _check_choice("accumulate", self.accumulate, ("float32", "float64"))
        _check_choice("kernels", self.kernels, ("auto", "torch", "triton"))
        _check_choice("weight_gradient", self.weight_gradient, ("wide", "nearest", "stochastic"))
        _check_choice("nan_logits", self.nan_logits, ("refuse", "pass"))
        most = 1.0 if self.mixing == "interpolate" else math.inf
        weights = (self.weight.start, self.weight.end) if isinstance(self.weight, Schedule) else (self.weight,)
        for weight in weights:
            _check_number("weight", weight, most=most)
        for name in ("temperature", "log_power", "d2gpo_std", "d2gpo_temperature"):
            _check_number(name, getattr(self, name), above=True)
        if self.entropy_gate is not None:
            _check_number("entropy_gate", self.entropy_gate)
            if self.entropy_gate <= 1:
                raise UsageError(
                    f"entropy_gate is {self.entropy_gate}", "give a perplexity above 1, such as 20, or None"
                )
        if self.softcap is not None:
            _check_number("softcap", self.softcap, above=True)
        _check_number("z_loss", self.z_loss)
        for name in ("label_smoothing", "tailr_gamma", "tailr_least", "mixce_ratio"):
            _check_number(name, getattr(self, name), most=1.0)
        if self.chunk_rows is not None:
            _check_count("chunk_rows", self.chunk_rows, least=1)
        if not isinstance(self.skip_ignored, bool):
            raise UsageError(f"skip_ignored is {self.skip_ignored!r}", "give True or False")
        if isinstance(self.ignore_index, bool) or not isinstance(self.ignore_index, int):
            raise UsageError(f"ignore_index is {self.ignore_index!r}", "give the integer that marks ignored labels")
        if self.objective in _TARGETS and self.mixing not in ("fixed", "interpolate"):
            raise UsageError(
                f"mixing is {self.mixing!r}, but the objective {self.objective!r} is itself a cross-entropy",
                f"give mixing='interpolate' and a weight, or an objective that is a cost, such as objective='emo', for "
                f"{self.mixing!r}",
            )
        is_weighted = self.mixing in ("fixed", "interpolate") or self.is_cross_entropy
        if self.weight != EMOOptions.weight and not is_weighted:
            raise UsageError(
                f"weight is {self.weight}, but mixing {self.mixing!r} computes its own weights",
                "use mixing='fixed' or mixing='interpolate', or omit the weight",
            )
        if self.entropy_gate is not None and (self.mixing not in ("fixed", "interpolate") or self.is_cross_entropy):
            raise UsageError(
                "entropy_gate changes the weight of an objective, and there is none",
                "use mixing='fixed' or mixing='interpolate' with an objective other than a cross-entropy",
            )
        if self.target_mass == "detached" and self.objective != "emo":
            raise UsageError(
                f"target_mass='detached' does not apply to the objective {self.objective!r}",
                "omit it, or use objective='emo'",
            )
        if self.objective in _CROSS_ENTROPIES[1:] and self.label_smoothing:
            raise UsageError(
                f"label_smoothing cannot be combined with the objective {self.objective!r}",
                "leave it at 0, or use objective='ce'",
            )
        self._warn_of_temperature()

    def _warn_of_temperature(self) -> None:
        own = self.d2gpo_temperature
        if self.objective == "d2gpo" and self.temperature != 1.0 and own == EMOOptions.d2gpo_temperature:
            warnings.warn(
                f"temperature={self.temperature:g} divides the logits; the temperature of the targets of 'd2gpo' is "
                f"d2gpo_temperature, which is {own:g}",
                stacklevel=4,
            )

    @classmethod
    def preset(cls, name: PresetName, **changes: Any) -> "EMOOptions":
        """The options of a known combination, with single options changed by name.

        - `recommended`: `neighbor_smoothing` with `interpolate` and a weight of 0.1; the default of losses from a bank;
        - `paper`: `emo` with `emo1` (arXiv 2310.04691);
        - `published`: `emo` with `emo1_clamped`, as mode 1 of the published EMO package and as `EMOOptions()`.

        Raises:
            UsageError: there is no such preset, or an option is invalid.
        """
        _check_choice("preset", name, tuple(_PRESETS))
        values: dict[str, Any] = {**_PRESETS[name], **changes}
        return cls(**values)

    @property
    def needs_costs(self) -> bool:
        """Whether the objective needs costs."""
        return self.objective not in _WITHOUT_COSTS

    @property
    def value_name(self) -> str:
        """What logs call the value of the objective: `emd` for an Earth Mover's Distance, or `objective_value`."""
        return "emd" if self.objective in ("emo", "delta") else "objective_value"

    @property
    def is_cross_entropy(self) -> bool:
        """Whether the objective is only a cross-entropy, weighted or not, so there is nothing to mix."""
        return self.objective in _CROSS_ENTROPIES

    def at(self, step: int | None) -> "EMOOptions":
        """These options at a training step, with a number as weight.

        Raises:
            UsageError: the weight follows a schedule, but no step is given.
        """
        if not isinstance(self.weight, Schedule):
            return self
        if step is None:
            raise UsageError("the weight follows a schedule, but no step is given", "call the loss with step=n")
        return replace(self, weight=self.weight.at(step))


def _check_number(name: str, value: object, above: bool = False, most: float = math.inf) -> None:
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if not (math.isfinite(number) and (number > 0 if above else number >= 0) and number <= most):
        limits = f"{'above' if above else 'of at least'} 0{f' and at most {most:g}' if most < math.inf else ''}"
        raise UsageError(f"{name} is {value!r}", f"give a finite number {limits}")


def _check_count(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"{name} is {value!r}", f"give a whole number of {least} or more")


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(f"{name} is {value!r}", f"give one of: {', '.join(choices)}")
