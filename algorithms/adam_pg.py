"""Adam-PG: the policy gradient stepped by a first-order optimiser. The baseline without geometry."""

from dataclasses import dataclass

from omegaconf import MISSING

from algorithms.parts.policy_gradient import PairConfig, PolicyGradient


@dataclass
class AdamPGConfig(PairConfig):
    """Settings of Adam-PG.

    Attributes:
        optimiser: `adam`, `rmsprop` or `sgd`; its direction is the default of `direction`.
    """

    optimiser: str = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.optimiser not in ("adam", "rmsprop", "sgd"):
            raise ValueError(f"algorithm.optimiser={self.optimiser}: choose one of adam, rmsprop, sgd")


class AdamPG(PolicyGradient):
    """Policy gradient with generalised advantages (Sutton et al. 2000; Schulman et al. 2016) and Adam's step.

    g <- (1/B) sum_t A_t grad log pi(a_t|s_t)
    x <- m / (sqrt(v) + epsilon)                 Adam's moments of g
    theta <- theta + alpha x
    """

    Config = AdamPGConfig
