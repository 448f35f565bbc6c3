"""Table of the claims on trial: measure, interval, rule and verdict."""

from collections.abc import Sequence
from typing import Any

from analysis.claims import NOT_MEASURED, Claim, Measured, tried
from analysis.groups import Results
from analysis.statistics import MIN_RUNS
from analysis.tables.formats import Record, Table, interval
from analysis.tables.words import closing_words


def claims(results: Results) -> Table:
    """A row for every part of a claim that was measured, and one for each that was not."""
    records = [record for claim, parts in tried(results) for record in _records(claim, parts)]
    caption = (
        f"Claims on trial in suite {results.suite.name}, by rules fixed before the runs (docs/plan.md). Supported: the "
        "whole interval meets the rule; contradicted: the whole interval fails it; undecided: neither, or fewer than "
        f"{MIN_RUNS} runs, of which there is no interval. Of several parts all have to be supported, and one decides "
        f"against. {closing_words(results)}"
    )
    header = ["", "Claim", "Part", "Measure", "Rule", "Verdict", "Of the claim"]
    rows = [_row(record) for record in records]
    return Table("claims", "Claims on trial", caption, records, header, rows, results.source, header)


def _records(claim: Claim, parts: Sequence[Measured]) -> list[dict[str, Any]]:
    common = {
        "number": claim.number,
        "claim": claim.text,
        "source": claim.source,
        "measured_by": claim.measured_by,
        "rule": str(claim.rule) if claim.rule else None,
        "bound": claim.rule.bound if claim.rule else None,
    }
    nothing = dict.fromkeys(("part", "value", "low", "high", "tasks"))
    if not parts:
        return [{**common, **nothing, "verdict": NOT_MEASURED, "claim_verdict": NOT_MEASURED, "needs": claim.needs}]
    return [
        {
            **common,
            "part": part.part,
            "value": part.value,
            "low": part.low,
            "high": part.high,
            "tasks": " ".join(part.envs),
            "verdict": claim.verdict_of(part),
            "claim_verdict": claim.verdict(parts),
            "needs": claim.needs,
        }
        for part in parts
    ]


def _row(record: Record) -> list[str]:
    measured = record["value"] is not None
    return [
        str(record["number"]),
        str(record["claim"]),
        str(record["part"]) if measured else f"needs {record['needs']}",
        interval(record["value"], record["low"], record["high"]),
        str(record["rule"] or "–"),
        str(record["verdict"]),
        str(record["claim_verdict"]),
    ]
