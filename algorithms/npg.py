"""NPG: the natural policy gradient (Kakade 2001)."""

from algorithms.parts.policy_gradient import PairConfig, PolicyGradient


class NPG(PolicyGradient):
    """Steepest ascent in the Fisher metric, with a step of fixed length in that metric (Rajeswaran et al. 2017).

        g <- (1/B) sum_t A_t grad log pi(a_t|s_t)
        x <- (F + lambda I)^-1 g                     conjugate gradients
        beta <- sqrt(2 delta / x^T (F + lambda I) x)
        theta <- theta + beta x                      step_rule=normalised

    `step_rule=lr` is Kakade's own update, theta + alpha x with a fixed alpha.
    """

    Config = PairConfig
