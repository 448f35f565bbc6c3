"""TRPO: trust region policy optimisation (Schulman et al. 2015)."""

from algorithms.parts.policy_gradient import PairConfig, PolicyGradient


class TRPO(PolicyGradient):
    """The natural policy gradient with a step that is checked before it is taken (appendix C).

        g <- (1/B) sum_t A_t grad log pi(a_t|s_t)
        x <- (F + lambda I)^-1 g                     conjugate gradients
        beta <- sqrt(2 delta / x^T (F + lambda I) x)
        for j = 0, 1, ..., 9:                        step_rule=line_search, ten trials
            theta <- theta_old + 0.8^j beta x
            stop if D(theta) <= delta and L(theta) > L(theta_old)
        none passed: theta <- theta_old

    It differs from NPG by the last four lines alone. With `algorithm.line_search_start=kl` the first trial has
    D(theta) = delta instead, by bisection.
    """

    Config = PairConfig
