"""`train.py -m algorithm=ppo,trpo ...`: every combination as the run that it is alone, in a process of its own.

One after the other, and whatever becomes of one, the next is trained. A signal reaches the run that trains, which saves
its state; the others are not started.
"""

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from types import FrameType

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser

from command.interrupt import die_with_parent
from command.refusals import COMPOSING, refuse
from tracking.identity import REPOSITORY

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def sweep(arguments: Sequence[str]) -> int:
    """Train every combination of these overrides; returns the exit code, the first that is not 0."""
    try:
        runs = combinations(arguments)
    except (*COMPOSING, ValueError) as error:
        return refuse(error)
    codes = []
    with _Child() as child:
        for number, overrides in enumerate(runs, start=1):
            print(f"train.py: run {number} of {len(runs)}: {' '.join(overrides)}", file=sys.stderr, flush=True)
            codes.append(child.run([sys.executable, str(REPOSITORY / "train.py"), *overrides]))
            if child.stopped_by:
                return 128 + child.stopped_by
    ended = Counter(codes)
    failed = ", ".join(f"{count} with exit code {code}" for code, count in sorted(ended.items()) if code)
    print(
        f"train.py: {ended[0]} of {len(runs)} runs have ended well" + (f"; {failed}" if failed else ""), file=sys.stderr
    )
    return next((code for code in codes if code), 0)


def combinations(arguments: Sequence[str]) -> list[list[str]]:
    """The overrides of every run.

    Raises:
        ValueError: two runs would have one run_dir, or an argument says how Hydra itself runs.
    """
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        parsed = OverridesParser.create(loader).parse_overrides(list(arguments))
        for override in parsed:
            if override.key_or_group.replace("/", ".").split(".")[0] == "hydra":
                raise ValueError(
                    f"{override.input_line}: with -m runs train one after the other; several at a time are a suite, "
                    "conf/suite/NAME.yaml, for snakemake"
                )
        runs: list[list[str]] = BasicSweeper.split_arguments(parsed, None)[0]
        places = Counter(compose("config", overrides).run_dir for overrides in runs)
    shared, count = places.most_common(1)[0]
    if count > 1:
        swept = [override.key_or_group for override in parsed if override.is_sweep_override()]
        differing = "-".join(f"${{{key}}}" for key in swept if key not in ("env", "algorithm", "seed"))
        place = f"results/adhoc/runs/${{env.name}}/${{algorithm.name}}/{differing or 'NAME'}/seed-${{seed}}"
        raise ValueError(f"run_dir={shared}: {count} of these runs would share it; add 'run_dir={place}'")
    return runs


class _Child:
    """Runs processes, one at a time, that get every signal of this one."""

    def __init__(self) -> None:
        self.stopped_by = 0
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, command: Sequence[str]) -> int:
        """The exit code of the command, 128 + n for a signal n."""
        if self.stopped_by:
            return 128 + self.stopped_by
        # In a session of its own it sees no Ctrl-C of the terminal, only what it gets from here.
        self._process = subprocess.Popen(command, start_new_session=True, preexec_fn=die_with_parent())
        if self.stopped_by:  # between the two lines above
            self._process.send_signal(self.stopped_by)
        code = self._process.wait()
        self._process = None
        return code if code >= 0 else 128 - code

    def _forward(self, number: int, _frame: FrameType | None) -> None:
        self.stopped_by = self.stopped_by or number
        if self._process is not None:
            self._process.send_signal(number)

    def __enter__(self) -> "_Child":
        self._before = {
            number: signal.signal(number, self._forward)
            for number in _SIGNALS
            if signal.getsignal(number) is not signal.SIG_IGN  # as nohup sets SIGHUP
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
