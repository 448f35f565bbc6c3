from benchmarks.throughput import Timing, row


def test_the_ratio_is_taken_within_each_pair() -> None:
    ours = [Timing(rate, 80, {}) for rate in (100.0, 300.0, 600.0)]
    peers = [Timing(rate, 160, {}) for rate in (100.0, 100.0, 300.0)]
    assert row("trpo", "TRPO", ours, peers) == ["trpo", "TRPO", "300", "100", "2.00 [1.00, 3.00]", "80 / 160"]
