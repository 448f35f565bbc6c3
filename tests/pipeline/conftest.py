"""A small repository with the real pipeline and tracking, and a stand-in for the training script."""

import shutil
import signal
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background inherit that it is ignored

# Ends as the setting `mode` says and keeps the contract of train.py: lock, identity, status.json last.
FAKE_TRAIN = """
import json, os, signal, sys, time
from pathlib import Path

from tracking.lock import RunLocked, acquire
from tracking.manifest import read_manifest, write_status

settings = dict(argument.split("=", 1) for argument in sys.argv[1:])
mode, run_dir = settings.get("mode", "finish"), Path(settings["run_dir"])
identity = settings.get("identity", "a" * 64)
print("threads", os.environ["OMP_NUM_THREADS"], os.environ["MKL_NUM_THREADS"], "pid", os.getpid())
if mode == "replaced":
    sys.exit(6)
if mode in ("refuse", "refuse_late"):
    sys.exit(2 if print("total_steps: 5 is too few", file=sys.stderr) is None else 0)
if mode == "import_error":
    import a_module_that_is_not_there
try:
    acquire(run_dir)
except RunLocked as error:
    print(error)
    sys.exit(4)
manifest = read_manifest(run_dir)
if manifest is not None and manifest["identity"]["hash"] != identity:
    print("holds another run")
    sys.exit(3)
parts = {"config": {}, "code": {}, "versions": {}, "device": "cpu"}
manifest = {"state": "running", "reason": None, "identity": {"hash": identity, "parts": parts}}
(run_dir / "manifest.json").write_text(json.dumps(manifest))
with (run_dir / "attempts").open("a") as attempts:
    attempts.write("x")
if mode == "finish_second" and (run_dir / "attempts").stat().st_size < 2:
    sys.exit("bad luck")
if mode == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
if mode == "terminated":
    os.kill(os.getpid(), signal.SIGTERM)
if mode in ("sleep", "stubborn"):
    def stop(number, frame):
        print("saved")
        sys.exit(128 + number)
    signal.signal(signal.SIGTERM, stop)
    (run_dir / "pid").write_text(str(os.getpid()))
    time.sleep(60)
if mode == "slow" or (mode == "slow_first" and (run_dir / "attempts").stat().st_size < 2):
    (run_dir / "pid").write_text(str(os.getpid()))
    (run_dir / "checkpoint").write_text("half way")
    time.sleep(1.5 if mode == "slow" else 120)
if mode == "shortage":
    write_status(run_dir, "failed", "OSError: No space left on device", identity, 2048, None)
if mode.startswith("shortage"):
    print("checkpoint: No space left on device")
    sys.exit(5)
if mode == "fail" or (mode == "fail_first" and (run_dir / "attempts").stat().st_size < 2):
    write_status(run_dir, "failed", "parameters are not finite", identity, 2048, None)
    sys.exit(1)
if mode != "silent":
    write_status(run_dir, "finished", None, identity, 4096, 1.5)
"""

CONFIG = """
defaults:
  - _self_
  - critic: plain
  - algorithm: ???
  - env: ???
  - fisher: plain
  - tracker: files
  - optional env_algorithm: ${env}_${algorithm}
mode: finish
seed: 0
total_steps: 4096
run_dir: results/adhoc
identity: null
device: cpu
direction: natural
env: {kind: gym}
checkpoint: {interval: 60}
evaluation: {episodes: 5}
"""

# Refuses what train.py would refuse before any compute: the setting `mode` says so.
FAKE_CHECK = """
import json, sys

runs = json.load(sys.stdin)
with open("checked", "a") as file:
    print(len(runs), file=file)
json.dump(["total_steps: 5 is too few" if "mode=refuse" in run else None for run in runs], sys.stdout)
"""

FAKE_ANALYSIS = """
import json, sys
from pathlib import Path

results = Path(sys.argv[1])
rows = []
for cell in json.loads((results / "suite.json").read_text())["cells"]:
    status = json.loads((Path(cell["run_dir"]) / "status.json").read_text())
    rows.append(f"{cell['env']} {cell['variant']} {cell['seed']} {status['status']} {status['reason']}")
(results / "tables").mkdir(exist_ok=True)
(results / "tables" / "index.md").write_text("\\n".join(rows))
(results / "report.html").touch()
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with two algorithms and three environments; the path holds a space."""
    root = tmp_path / "fisher bench"
    for room in ("command", "pipeline", "tracking", "profiles"):
        shutil.copytree(ROOT / room, root / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Snakefile", root)
    for directory in (
        "conf/algorithm",
        "conf/env",
        "conf/suite",
        "conf/tracker",
        "algorithms",
        "analysis",
        "envs",
        "training",
    ):
        (root / directory).mkdir(parents=True)
    for algorithm in ("adam_pg", "trpo"):
        (root / "conf" / "algorithm" / f"{algorithm}.yaml").write_text(f"name: {algorithm}\nclip: 0.2\n")
        (root / "algorithms" / f"{algorithm}.py").write_text(f'"""The algorithm {algorithm}."""\n')
    (root / "conf" / "algorithm" / "half.yaml").touch()  # without algorithms/half.py
    (root / "algorithms" / "shared.py").touch()  # without conf/algorithm/shared.yaml
    for kind, file in (("critic", "algorithms/critics/{}.py"), ("fisher", "algorithms/fisher/metrics/{}.py")):
        for name in ("plain", "kfac"):
            for path in (root / "conf" / kind / f"{name}.yaml", root / file.format(name)):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            (root / "conf" / kind / f"{name}.yaml").write_text(f"name: {name}\n")
    (root / "conf" / "config.yaml").write_text(CONFIG)
    for env in ("halfcheetah", "hopper", "gym"):
        (root / "conf" / "env" / f"{env}.yaml").write_text("id: null\n")
    (root / "conf" / "tracker" / "files.yaml").write_text("name: files\n")
    (root / "training" / "loop.py").touch()
    (root / "envs" / "gym.py").touch()
    (root / "train.py").write_text(FAKE_TRAIN)
    (root / "command" / "check.py").write_text(FAKE_CHECK)
    (root / "analysis" / "__main__.py").write_text(FAKE_ANALYSIS)
    return root
