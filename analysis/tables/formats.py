"""A table in three formats: CSV with every column, Markdown and LaTeX for reading.

Names, settings and reasons are other people's text. Here, and for figures in `mathtext`, it is made to mean nothing in
the format that it is written in, once and for all text alike.
"""

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.statistics import Estimate
from analysis.text import one_line

Record = Mapping[str, Any]
"""One row of a table's CSV file: strings, numbers, and None for null."""

DIGITS = 12
"""Significant digits in a CSV file: exp and log of one processor differ from those of another in the last of 16."""

WIDE = 12
"""Columns above which a LaTeX table is set in small type and tightly."""
LATEX = {
    "σ_τ": r"$\sigma_\tau$",
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "≥": r"$\geq$",
    "∞": r"$\infty$",
    "√": r"$\surd$",
    "½": r"$\frac{1}{2}$",
    "·": r"$\cdot$",
    "×": r"$\times$",
    "−": r"$-$",
    "–": "--",
    "⌊": r"$\lfloor$",
    "⌋": r"$\rfloor$",
    "δ": r"$\delta$",
    "λ": r"$\lambda$",
    "ρ": r"$\rho$",
    "σ": r"$\sigma$",
    "τ": r"$\tau$",
    "η": r"$\eta$",
    "θ": r"$\theta$",
    "‖": r"$\Vert$",
    "²": r"$^2$",
    "³": r"$^3$",
    "ᵀ": r"$^\top$",
    "÷": r"$\div$",
    "₁": r"$_1$",
    "₂": r"$_2$",
    "†": r"$\dagger$",
    "→": r"$\rightarrow$",
    "≤": r"$\leq$",
    "Δ": r"$\Delta$",
    "±": r"$\pm$",
    "“": "``",
    "”": "''",
}
MARKUP = re.compile(
    r"[\\`|$~]"
    r"|\*(?!\s|$|: )"  # one before a space or at the end opens no emphasis, and marks an entry
    r"|(?<![^\W_])_|_(?![^\W_])"  # within a word it is none
    r"|<(?=[A-Za-z/!?])|&(?=[A-Za-z#])"  # HTML
    r"|\](?=\()"  # a link
)
"""Where a character of a line means something in Markdown."""
FORMULA = ("=", "+", "-", "@")
"""First characters of what a spreadsheet computes."""


@dataclass(frozen=True)
class Table:
    """One table: `records` go to the CSV file, `header` and `rows` are what is read.

    `source` is a line under the caption that says where the table comes from. `words` are the headers of columns that
    hold words, which are left-aligned; numbers are right-aligned. In LaTeX a repeated entry of the first column is
    left out.
    """

    name: str
    title: str
    caption: str
    records: Sequence[Record]
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    source: str
    words: Sequence[str] = ("Environment", "Algorithm")

    def csv(self) -> str:
        """Every column, floats to `DIGITS` digits; null is an empty field, NaN is ``nan``, infinities are ``inf``.

        Text that a spreadsheet would compute has an apostrophe before it.
        """
        file = io.StringIO()
        writer = csv.DictWriter(file, list(self.records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _csv(value) for name, value in record.items()} for record in self.records)
        return file.getvalue()

    def markdown(self) -> str:
        """A pipe table under its caption and source."""
        alignment = [":--" if title in self.words else "--:" for title in self.header]
        lines = [self.header, alignment, *([markdown(entry) for entry in row] for row in self.rows)]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"{markdown(self.caption)}\n\n{self.source}\n\n{table}\n"

    def latex(self, suite: str = "") -> str:
        """A ``table`` environment that needs the package booktabs only, labelled by suite and name."""
        columns = "".join("l" if title in self.words else "r" for title in self.header)
        body = []
        previous = None
        for row in self.rows:
            if previous is not None and row[0] != previous:
                body.append(r"\addlinespace")
            shown = [row[0] if row[0] != previous else "", *row[1:]]
            body.append(" & ".join(latex(entry) for entry in shown) + r" \\")
            previous = row[0]
        lines = [
            "% needs \\usepackage{booktabs}",
            r"\begin{table}[t]",
            r"\centering\scriptsize\setlength{\tabcolsep}{3pt}" if len(self.header) > WIDE else r"\centering\small",
            rf"\caption{{{latex(self.caption)}}}",
            rf"\label{{tab:{re.sub('[^A-Za-z0-9.]+', '-', f'{suite}-{self.name}'.strip('-'))}}}",
            rf"{{\tiny {latex(self.source)}\par}}",
            rf"\begin{{tabular}}{{@{{}}{columns}@{{}}}}",
            r"\toprule",
            " & ".join(latex(entry) for entry in self.header) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
        return "\n".join(lines) + "\n"


def latex(text: str) -> str:
    """`text` on one line, with LaTeX's special characters and this package's symbols escaped, minus signs as such."""
    signed = re.sub(r"(?<![\w-])-(?=[\d∞])", "−", one_line(text))
    return re.sub("|".join(map(re.escape, LATEX)), lambda match: LATEX[match.group()], signed)


def markdown(text: str) -> str:
    """`text` on one line, with what would be Markdown or HTML in it escaped."""
    return MARKUP.sub(lambda match: "\\" + match.group(), one_line(text))


def mathtext(text: str) -> str:
    """`text` on one line, without formulas to Matplotlib, which ends at one that it cannot read."""
    return one_line(text).replace("\\", "∖").replace("$", r"\$")


def _csv(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, str):
        line = one_line(value)
        return f"'{line}" if line.startswith(FORMULA) else line
    return value


def number(value: float | None, digits: int = 3) -> str:
    """`value` to at least `digits` significant digits, integers above that whole; null is –."""
    if value is None:
        return "–"
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value == 0:
        return "0"
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])  # of the rounded value
    if exponent < -3 or exponent > 15:
        mantissa, _, power = f"{value:.{digits - 2}e}".partition("e")
        return f"{mantissa}e{int(power)}"
    return f"{value:.{max(0, digits - 1 - exponent)}f}"


def percent(share: float | None) -> str:
    """A share in percent to one decimal; null is –."""
    return "–" if share is None else f"{100 * share:.{0 if share in (0, 1) else 1}f} %"


def thousands(steps: float | None) -> str:
    """Environment steps in thousands: 43k."""
    if steps is None:
        return "–"
    return f"{steps / 1000:.1f}k" if steps < 10_000 else f"{steps / 1000:,.0f}k"


def interval(value: float | None, low: float | None, high: float | None) -> str:
    """``value [low, high]``, or the value alone where there is no interval."""
    return number(value) if low is None or high is None else f"{number(value)} [{number(low)}, {number(high)}]"


def spread(record: Record, name: str = "score") -> str:
    """A value of a record with its interval in brackets, or with the range of the runs, too few for one, as such."""
    prefix = "" if name == "score" else f"{name}_"
    low, high = record[f"{prefix}min"], record[f"{prefix}max"]
    if low is None or high is None:
        return interval(record[name], record[f"{prefix}low"], record[f"{prefix}high"])
    return f"{number(record[name])} (range {number(low)} to {number(high)})"


def ends(estimate: Estimate | None, name: str = "score") -> Record:
    """The columns of an estimate as `spread` reads them."""
    prefix = "" if name == "score" else f"{name}_"
    columns: dict[str, Any] = dict.fromkeys((name, *(f"{prefix}{end}" for end in ("low", "high", "min", "max"))))
    if estimate is not None:
        low, high = ("low", "high") if estimate.is_interval else ("min", "max")
        columns |= {name: estimate.value, f"{prefix}{low}": estimate.low, f"{prefix}{high}": estimate.high}
    return columns
