"""The report, as text and in headless Chromium: no error, no request, controls that change the plot."""

import json
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

from analysis.__main__ import analyse
from analysis.report.overview import write_overview
from analysis.report.suite import in_script
from tests.analysis.synthetic import write_suite

LARGEST = 15 * 2**20
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)
browser = pytest.mark.skipif(not CHROMIUM, reason="no Chromium: neither chromium, chromium-browser nor google-chrome")

WATCH = """<script>
const wrong = [];
window.addEventListener("error", (event) => wrong.push(String(event.message)));
window.addEventListener("securitypolicyviolation", (event) => wrong.push(event.blockedURI));
console.error = (...said) => wrong.push(said.join(" "));
</script>"""
TRY = """<script>
const found = { started: performance.now(), wrong, changed: {} };
const drawn = () => JSON.stringify(document.getElementById("plot")?.data ?? null);
const TRIED = { x: "updates", quantity: "kl", smoothing: "3", runs: true, intervals: false };
for (const [id, value] of Object.entries(TRIED)) {
  const control = document.getElementById(id);
  if (!control) continue;
  const before = drawn();
  if (typeof value === "boolean") control.checked = value; else control.value = value;
  control.dispatchEvent(new Event("change", { bubbles: true }));
  found.changed[id] = drawn() !== before;
  if (id === "quantity") { control.value = "score"; control.dispatchEvent(new Event("change", { bubbles: true })); }
}
const background = () => getComputedStyle(document.body).backgroundColor;
const light = background();
document.getElementById("theme").click();
found.changed.theme = background() !== light;
const tables = [...document.querySelectorAll("table.sortable")];
const table = tables.find((one) => one.textContent.includes("Deterministic")); // final scores
const head = table.tHead.rows[0].cells[2];
const column = () => [...table.tBodies[0].rows].map((row) => parseFloat(row.cells[2].textContent.replace(",", "")));
head.querySelector("button").click();
found.sorted = [column(), head.getAttribute("aria-sort")];
found.plots = document.querySelectorAll(".plot .main-svg").length;
const loaded = performance.getEntriesByType("resource").map((one) => one.name);
found.requests = loaded.filter((name) => !name.startsWith("data:"));
found.wide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
found.unnamed = document.querySelectorAll("img:not([alt]), select:not([id]), [role=img]:not([aria-label])").length;
const said = document.createElement("pre");
said.id = "found";
said.textContent = JSON.stringify(found);
document.body.append(said);
</script>"""


@cache
def suite(root: Path) -> Path:
    suite_dir = write_suite(root, ["hopper", "halfcheetah"], ["adam_pg", "npg"], seeds=2, total_steps=60_000)
    plan = json.loads((suite_dir / "suite.json").read_text())
    plan["labels"] = {"npg": "</script><script>alert(1)</script>"}
    (suite_dir / "suite.json").write_text(json.dumps(plan))
    shutil.rmtree(suite_dir / "runs" / "hopper" / "npg" / "seed-1")
    analyse(suite_dir, 20)
    return suite_dir


@pytest.fixture(scope="module")
def suite_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return suite(tmp_path_factory.mktemp("report"))


def test_the_page_holds_what_it_shows_and_escapes_names(suite_dir: Path) -> None:
    page = (suite_dir / "report.html").read_text(encoding="utf-8")
    assert len(page.encode()) < LARGEST
    assert "alert(1)</script>" not in page
    assert "this decides nothing" in page
    assert "not started" in page  # of the run that is missing
    ours = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"(src|href)=\"(https?:)?//", ours)
    for link in re.findall(r'href="([^"#:]+)"', ours):
        assert (suite_dir / link).is_file(), link


def test_data_cannot_end_its_element() -> None:
    text = in_script({"name": "</script>\u2028"})
    assert "<" not in text
    assert json.loads(text) == {"name": "</script>\u2028"}


def test_equal_data_give_an_equal_page(suite_dir: Path) -> None:
    before = (suite_dir / "report.html").read_bytes()
    analyse(suite_dir, 20)
    assert (suite_dir / "report.html").read_bytes() == before


def opened(page: Path, width: int) -> dict[str, object]:
    """What a page says of itself after its controls were used, in a window of this width."""
    copy = page.with_name("tried.html")
    text = page.read_text(encoding="utf-8").replace("<head>", f"<head>{WATCH}", 1)
    copy.write_text(text.replace("</body>", f"{TRY}</body>"), encoding="utf-8")
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--window-size={width},900",
        "--virtual-time-budget=5000",
    ]
    blocked = "--host-resolver-rules=MAP * ~NOTFOUND"
    command = [CHROMIUM, *options, blocked, "--dump-dom", copy.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    copy.unlink()
    [found] = re.findall(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    answer: dict[str, object] = json.loads(found.replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&"))
    return answer


@browser
@pytest.mark.parametrize("width", [1200, 500])
def test_the_page_of_a_suite_in_a_browser(suite_dir: Path, width: int) -> None:
    found = opened(suite_dir / "report.html", width)
    assert found["wrong"] == []
    assert found["requests"] == []
    assert found["changed"] == dict.fromkeys(("x", "quantity", "smoothing", "runs", "intervals", "theme"), True)
    in_order = found["sorted"]
    assert isinstance(in_order, list)
    assert in_order == [sorted(in_order[0]), "ascending"]
    assert found["plots"]
    assert found["unnamed"] == 0
    assert not found["wide"]
    assert isinstance(found["started"], int | float)
    assert found["started"] < 10_000


@browser
def test_the_page_over_all_suites_in_a_browser(suite_dir: Path) -> None:
    page = write_overview(suite_dir.parent)
    found = opened(page, 1200)
    assert (found["wrong"], found["requests"], found["wide"]) == ([], [], False)
    assert found["plots"]
    assert found["changed"] == {"theme": True}


def test_a_suite_that_cannot_be_read_is_named_in_the_page_over_all(suite_dir: Path) -> None:
    broken = suite_dir.parent / "broken"
    broken.mkdir(exist_ok=True)
    (broken / "suite.json").write_text("{")
    text = write_overview(suite_dir.parent).read_text(encoding="utf-8")
    shutil.rmtree(broken)
    assert "<strong>Cannot be read:</strong>" in text
