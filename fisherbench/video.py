"""Watching a policy: episodes drawn, written as a video, or laid out as a film strip.

Episodes have random streams of their own, and nothing of a run is written to: watching changes no result.
"""

import importlib
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import gymnasium as gym
import numpy as np
from gymnasium.envs.mujoco import MujocoEnv
from matplotlib.figure import Figure

from envs.atari import AtariConfig
from envs.tasks import RenderMode, check_simulation
from fisherbench.policy import LoadedPolicy

SUFFIXES = (".mp4", ".gif")
LARGEST_FPS = 30.0
PAUSE = 0.5  # s that the last picture of an episode stays
STREAM = 0x71DE0  # of what is watched; evaluation has others
_BACKENDS = ("egl", "osmesa")
_TRIAL = (
    "import gymnasium; env = gymnasium.make('InvertedPendulum-v5', render_mode='rgb_array'); env.reset(); env.render()"
)


@dataclass(frozen=True)
class Episode:
    """What was seen of an episode: pictures as PNG, what it returned, and how many steps it took."""

    pictures: list[bytes]
    episode_return: float
    length: int


def choose_renderer() -> None:
    """Set MUJOCO_GL, unless it is set, to the first way that draws without a screen here, as a process shows.

    Raises:
        ValueError: none does; says what to install.
    """
    if os.environ.get("MUJOCO_GL"):
        return
    for backend in _BACKENDS:
        tried = subprocess.run(
            [sys.executable, "-c", _TRIAL],
            env=os.environ | {"MUJOCO_GL": backend},
            capture_output=True,
            timeout=120,
            check=False,
        )
        if tried.returncode == 0:
            os.environ["MUJOCO_GL"] = backend
            return
    raise ValueError(
        "video: MuJoCo can draw neither with EGL nor with OSMesa here; install one of them, on Debian and Ubuntu "
        "apt-get install libegl1 libgl1-mesa-dri, or libosmesa6"
    )


def check_screen() -> None:
    """Raise ValueError where no window can be opened."""
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise ValueError("render=human: there is no screen here (DISPLAY is not set); give video=FILE.mp4 instead")


def play(
    policy: LoadedPolicy, episodes: int, seed: int = 0, render_mode: RenderMode = "rgb_array", max_steps: int = 10_000
) -> Iterator[Episode]:
    """Episodes of the most likely actions, one after the other; with `human` in a window and without pictures.

    Raises:
        ValueError: the task cannot be drawn.
        FloatingPointError: the simulation diverged.
    """
    env = policy.make_env(render_mode)
    try:
        if isinstance(env.unwrapped, MujocoEnv) and render_mode == "rgb_array":
            choose_renderer()
        every = math.ceil(_fps(policy, env) / LARGEST_FPS)
        for child in np.random.SeedSequence(seed, spawn_key=(STREAM,)).spawn(episodes):
            observation, _ = env.reset(seed=int(child.generate_state(1)[0]))
            pictures, total, length, over = [], 0.0, 0, False
            while not over:
                if render_mode == "rgb_array" and length % every == 0:
                    pictures.append(_picture(policy, env))
                observation, reward, terminated, truncated, _ = env.step(policy.act(np.asarray(observation)))
                total, length = total + float(reward), length + 1
                over = terminated or truncated or length >= max_steps
            if render_mode == "rgb_array":
                pictures.append(_picture(policy, env))
            check_simulation()
            yield Episode(pictures, total, length)
    finally:
        env.close()


def frames_per_second(policy: LoadedPolicy) -> float:
    """Pictures per second of `play` at which a task goes at its own speed."""
    env = policy.make_env()
    fps = _fps(policy, env)
    env.close()
    return fps / math.ceil(fps / LARGEST_FPS)


def _fps(policy: LoadedPolicy, env: gym.Env[Any, Any]) -> float:
    """Steps of the policy per second of the task's time."""
    task = policy.config.env
    if isinstance(task, AtariConfig):
        return 60 / task.frame_skip
    return float(env.metadata.get("render_fps") or LARGEST_FPS)


def _picture(policy: LoadedPolicy, env: gym.Env[Any, Any]) -> bytes:
    setting = policy.config.env.setting
    try:
        frame: Any = env.render()
    except Exception as error:  # a renderer may raise whatever it likes
        text = " ".join(str(error).split())
        raise ValueError(f"{setting}: cannot be drawn: {type(error).__name__}: {text}") from error
    if not isinstance(frame, np.ndarray) or frame.ndim != 3 or frame.dtype != np.uint8:
        raise ValueError(f"{setting}: gives no pictures; it has no render mode rgb_array")
    return cv2.imencode(".png", frame[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def _pixels(picture: bytes) -> np.ndarray:
    """(height, width, RGB), bytes."""
    decoded = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    return np.ascontiguousarray(decoded[..., ::-1])


def captions(episodes: Sequence[Episode]) -> list[str]:
    """What stands in each episode's pictures: its number and return, and which was the best and which the worst."""
    returns = [episode.episode_return for episode in episodes]
    marks = dict.fromkeys(range(len(returns)), "")
    if len(set(returns)) > 1:
        marks |= {int(np.argmin(returns)): ", worst", int(np.argmax(returns)): ", best"}
    return [f"{i + 1} of {len(returns)}: {r:,.1f}{marks[i]}" for i, r in enumerate(returns)]


def check_video(path: Path) -> None:
    """Raise ValueError for a file that no video can be written to."""
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"video={path}: must end in {' or '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise ValueError(f"video={path}: there is no folder {path.parent}")


def write_video(path: Path, episodes: Sequence[Episode], fps: float) -> None:
    """Write episodes one after the other, each with its caption; the file's ending, .mp4 or .gif, says as what.

    Raises:
        ValueError: neither of them, or it cannot be written.
    """
    check_video(path)
    frames = _captioned(episodes, max(1, round(PAUSE * fps)))
    if path.suffix.lower() == ".gif":
        image = importlib.import_module("PIL.Image")
        first, *others = (image.fromarray(frame).quantize() for frame in frames)
        first.save(path, save_all=True, append_images=others, duration=round(1000 / fps), loop=0)
        return
    first_frame = next(frames)
    height, width = (side + side % 2 for side in first_frame.shape[:2])  # which the format asks for
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, (width, height))
    if not writer.isOpened():
        raise ValueError(f"video={path}: cannot be written; choose a writable place, or a .gif")
    for frame in (first_frame, *frames):
        padded = np.zeros((height, width, 3), np.uint8)
        padded[: frame.shape[0], : frame.shape[1]] = frame[..., ::-1]
        writer.write(padded)
    writer.release()


def _captioned(episodes: Sequence[Episode], pause: int) -> Iterator[np.ndarray]:
    for episode, caption in zip(episodes, captions(episodes), strict=True):
        for picture in [*episode.pictures, *[episode.pictures[-1]] * pause]:
            yield _with_caption(_pixels(picture), caption)


def _with_caption(frame: np.ndarray, caption: str) -> np.ndarray:
    """The frame below a line of text as wide as it."""
    height = max(14, frame.shape[0] // 16)
    scale, (width, _), _ = 1.0, *cv2.getTextSize(caption, cv2.FONT_HERSHEY_SIMPLEX, 1.0, 1)
    scale = min(height / 32, (frame.shape[1] - 4) / width)
    line = np.zeros((height, frame.shape[1], 3), np.uint8)
    cv2.putText(line, caption, (2, height * 3 // 4), cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), 1, cv2.LINE_AA)
    return np.concatenate((line, frame))


def film_strip(policies: Sequence[LoadedPolicy], pictures: int = 6, seed: int = 0) -> Figure:
    """A row for each policy: so many pictures, evenly spread over one episode. Errors as `play`."""
    figure = Figure(figsize=(1.6 * pictures, 1.85 * len(policies)), layout="constrained")
    axes = figure.subplots(len(policies), pictures, squeeze=False)
    for row, policy in zip(axes, policies, strict=True):
        [episode] = play(policy, 1, seed, max_steps=policy.config.evaluation.max_steps)
        at = np.linspace(0, len(episode.pictures) - 1, pictures).round().astype(int)
        for axis, index in zip(row, at, strict=True):
            axis.imshow(_pixels(episode.pictures[index]))
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            step = round(index / max(1, len(episode.pictures) - 1) * episode.length)
            axis.set_xlabel(f"step {step:,}", fontsize=7)
        name = policy.config.algorithm.label or policy.config.algorithm.name
        row[0].set_title(
            f"{policy.config.env.name}, {name}: return {episode.episode_return:,.1f}", fontsize=8, loc="left"
        )
    return figure
