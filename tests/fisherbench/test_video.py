"""Videos decoded again: pictures, captions, speed; and that watching changes nothing."""

import os
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

import evaluate
from fisherbench import load_policy, video
from fisherbench.video import Episode, captions, choose_renderer, film_strip, play, write_video
from tests.settings import PONG, run

LENGTHS = (3, 2)


@pytest.fixture(scope="module")
def pong(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pong")
    assert run(directory, "algorithm=ppo", *PONG, "total_steps=256") == 0
    return directory


def episode(colour: int, length: int, episode_return: float) -> Episode:
    frame = np.full((64, 81, 3), (colour, 0, 0), np.uint8)  # an odd width
    return Episode([cv2.imencode(".png", frame)[1].tobytes()] * length, episode_return, length)


def frames_of(path: Path) -> list[np.ndarray]:
    capture = cv2.VideoCapture(str(path))
    frames: list[np.ndarray] = []
    while True:
        there, frame = capture.read()
        if not there:
            return frames
        frames.append(frame)


@pytest.mark.parametrize("name", ["a.mp4", "a.gif"])
def test_a_video_has_every_picture_below_a_caption(tmp_path: Path, name: str) -> None:
    episodes = [episode(200, LENGTHS[0], 5.0), episode(50, LENGTHS[1], 7.0)]
    write_video(tmp_path / name, episodes, 4.0)  # and the last picture of each stays for two
    frames = frames_of(tmp_path / name)
    blue = [round(float(frame[-20:, :60, 0].mean())) for frame in frames]
    if name == "a.mp4":
        assert len(frames) == sum(LENGTHS) + 2 * 2
    assert blue[0] == pytest.approx(200, abs=12)
    assert blue[-1] == pytest.approx(50, abs=12)
    assert frames[0][:14].max() > 128  # text


def test_the_best_and_the_worst_are_marked() -> None:
    episodes = [episode(0, 1, r) for r in (3.0, 1234.5, -1.0)]
    assert captions(episodes) == ["1 of 3: 3.0", "2 of 3: 1,234.5, best", "3 of 3: -1.0, worst"]
    assert captions(episodes[:1]) == ["1 of 1: 3.0"]


def test_a_game_is_watched_and_its_run_stays_what_it_was(pong: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in pong.rglob("*") if path.is_file()}
    assert evaluate.main([f"run_dir={pong}", f"video={tmp_path / 'v.mp4'}", "episodes=1", "max_steps=5"]) == 0
    assert len(frames_of(tmp_path / "v.mp4")) >= 6
    assert {path: path.read_bytes() for path in pong.rglob("*") if path.is_file()} == before
    policy = load_policy(pong)
    assert video.frames_per_second(policy) == 15
    policy.config.evaluation.max_steps = 6
    figure = film_strip([policy, policy], pictures=3)
    assert len(figure.axes) == 6
    assert figure.axes[2].get_xlabel() == "step 6"


def test_episodes_repeat_and_differ_from_seed_to_seed(pong: Path) -> None:
    policy = load_policy(pong)
    (first,), (again,), (other,) = ([*play(policy, 1, seed, max_steps=3)] for seed in (1, 1, 2))
    assert first == again
    assert first.pictures != other.pictures


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["video=a.avi"], "video=a.avi: must end in .mp4 or .gif"),
        (["video=nowhere/a.gif"], "video=nowhere/a.gif: there is no folder nowhere"),
        (["video=a.gif", "episodes=0"], "episodes=0: must be at least 1 to be seen"),
        (["video=a.gif", "render=human"], "render=human: shows a policy and writes no video"),
        (["render=3d"], "render=3d: unknown; choose human"),
        (["render=human"], "render=human: there is no screen here"),
    ],
)
def test_what_cannot_be_watched_is_refused(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert evaluate.main(["run_dir=x", *arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"evaluate.py: {message}")
    assert said.count("\n") == 1


def test_a_renderer_is_tried_and_its_lack_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "")  # so that it is as before in the end, for processes of other tests
    monkeypatch.delenv("MUJOCO_GL")
    monkeypatch.setattr(video, "_TRIAL", "import os, sys; sys.exit(os.environ['MUJOCO_GL'] != 'osmesa')")
    choose_renderer()
    assert os.environ["MUJOCO_GL"] == "osmesa"
    monkeypatch.delenv("MUJOCO_GL")
    monkeypatch.setattr(video, "_TRIAL", "raise SystemExit(1)")
    with pytest.raises(ValueError, match=re.escape("apt-get install libegl1 libgl1-mesa-dri, or libosmesa6")):
        choose_renderer()
    monkeypatch.delenv("MUJOCO_GL", raising=False)
