"""Atari 2600 games from pixels, preprocessed by Gymnasium's own wrappers.

Two choices are made for snapshots. Games are stepped one by one: ale-py's native vector environment is a little faster
on one thread and cannot be saved. Threads would not help single ones, since ALE holds the interpreter's lock; processes
do (`envs/workers.py`), and a grid of runs shares the cores anyway. And actions stick in Gymnasium's wrapper: ALE, whose
law is the same, keeps the action it repeats where no snapshot reaches.
"""

import difflib
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import cv2
import gymnasium as gym
import numpy as np
from ale_py import ALEInterface, LoggerMode
from ale_py.env import AtariEnv
from gymnasium.wrappers import AtariPreprocessing, StickyAction
from omegaconf import MISSING

from envs.tasks import LIFE_LOST, EnvConfig, RenderMode, TaskRefused

# A copy restored from ale-py 0.12.1's state of these went another way; 25 copies each of all others did not.
NOT_SAVED = ("miniature_golf", "tic_tac_toe_3d")
# Nor these, restored where a reset has taken no action yet: a flag of theirs is not in the state (ALE's issue 412).
NOT_SAVED_BEFORE_ACTIONS = ("qbert", "tetris")

ALEInterface.setLoggerMode(LoggerMode.Error)  # no banner
cv2.setNumThreads(1)  # a run keeps to its threads, and frames are too small to share


@dataclass
class AtariConfig(EnvConfig):
    """One game. A step is one action of the agent and `frame_skip` frames.

    Attributes:
        game: name in ale-py, as space_invaders.
        sticky_actions: probability that a frame repeats the action of the frame before (Machado et al. 2018).
        frame_skip: frames per step; an observation is the maximum of the last two.
        noop_max: an episode starts with 1 to so many frames without action; 0: none.
        screen_size: pixels of a side.
        stack: observations seen together.
        life_loss: whether a lost life is terminal for learning (Mnih et al. 2015); the game and its score go on.
        max_frames: of an episode, which is then truncated.
        full_action_space: all 18 actions instead of those that do something in the game.
        kwargs: mode and difficulty of the game.
    """

    game: str = MISSING
    sticky_actions: float = 0.25
    frame_skip: int = 4
    noop_max: int = 30
    screen_size: int = 84
    stack: int = 4
    life_loss: bool = False
    max_frames: int = 108_000
    full_action_space: bool = False
    kwargs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.game not in games():
            near = difflib.get_close_matches(self.game, games(), n=3) or ["pong"]
            raise TaskRefused(f"{self.setting}: no such game; nearest: {', '.join(near)}")
        if not 0 <= self.sticky_actions < 1:
            raise ValueError(f"env.sticky_actions={self.sticky_actions}: must lie in [0, 1)")
        for name, least in {"frame_skip": 1, "noop_max": 0, "screen_size": 1, "stack": 1, "max_frames": 1}.items():
            if getattr(self, name) < least:
                raise ValueError(f"env.{name}={getattr(self, name)}: must be at least {least}")
        for name, value in self.kwargs.items():
            if name == "continuous":
                raise ValueError(f"env.kwargs.continuous={value}: only ALE's discrete actions are supported")
            if name not in ("mode", "difficulty"):
                raise ValueError(f"env.kwargs.{name}={value}: unknown; choose mode or difficulty of the game")

    @property
    def setting(self) -> str:
        return f"env.game={self.game}"

    @property
    def hides_state(self) -> bool:
        return self.game in NOT_SAVED or (self.noop_max == 0 and self.game in NOT_SAVED_BEFORE_ACTIONS)

    def make_one(self, render_mode: RenderMode | None = None) -> gym.Env[Any, Any]:
        game = _Game(
            self.game,
            obs_type="grayscale",
            frameskip=1,
            repeat_action_probability=0.0,
            full_action_space=self.full_action_space,
            max_num_frames_per_episode=self.max_frames,
            render_mode=render_mode,
            **self.kwargs,
        )
        if self.noop_max and game.get_action_meanings()[0] != "NOOP":
            raise TaskRefused(f"{self.setting}: has no action that does nothing; set env.noop_max=0 or another game")
        env: gym.Env[Any, Any] = game
        if self.sticky_actions:
            env = StickyAction(env, self.sticky_actions)
        env = AtariPreprocessing(env, self.noop_max, self.frame_skip, self.screen_size)
        return _MarkLostLives(_Stack(env, self.stack), self.life_loss)


@cache
def games() -> list[str]:
    """Names of the games that one player can play."""
    return [spec.kwargs["game"] for spec in gym.registry.values() if spec.namespace == "ALE"]


class _Game(AtariEnv):
    """Does not copy the screen of every frame: AtariPreprocessing reads the two of a step that it needs itself."""

    def _get_obs(self) -> Any:
        return None


class _Stack(gym.Wrapper[Any, Any, Any, Any]):
    """The last `size` frames as one array, (size, height, width); FrameStackObservation in a form that can be saved."""

    def __init__(self, env: gym.Env[Any, Any], size: int) -> None:
        super().__init__(env)
        assert env.observation_space.shape is not None
        shape = (size, *env.observation_space.shape)
        self.observation_space = gym.spaces.Box(0, 255, shape, np.uint8)
        self.frames = np.zeros(shape, np.uint8)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        frame, reward, terminated, truncated, info = self.env.step(action)
        self.frames = np.concatenate((self.frames[1:], frame[None]))
        return self.frames, reward, terminated, truncated, info

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        frame, info = self.env.reset(**kwargs)
        self.frames = np.repeat(frame[None], len(self.frames), 0)
        return self.frames, info


class _MarkLostLives(gym.Wrapper[Any, Any, Any, Any]):
    """Leaves of the info dictionary whether a life was lost, if anyone wants to know."""

    def __init__(self, env: gym.Env[Any, Any], enabled: bool) -> None:
        super().__init__(env)
        self.enabled, self.lives = enabled, 0

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        lives_before, self.lives = self.lives, info["lives"]
        lost = self.enabled and self.lives < lives_before
        return observation, reward, terminated, truncated, {LIFE_LOST: True} if lost else {}

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(**kwargs)
        self.lives = info["lives"]
        return observation, {}
