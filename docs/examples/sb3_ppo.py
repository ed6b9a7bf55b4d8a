"""Stable-Baselines3's PPO beside DSRM-HRL, on one platform and under one evaluation: python docs/examples/sb3_ppo.py

Run it from the repository, with stable-baselines3 installed (requirements-dev.txt). Options: --help.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))  # the repository, wherever the program is called from

import gymnasium
import stable_baselines3
from stable_baselines3.common.vec_env import VecEnv

import engine  # noqa: F401  # makes fairstate/World-v0 known
from engine.environments import measure
from engine.recorder import MemoryRecorder
from engine.run import run
from engine.spec import make, parse_sets


class Batched(VecEnv):
    """A native Gymnasium VectorEnv that starts sessions in the same step, as Stable-Baselines3 wants it."""

    def __init__(self, env: gymnasium.vector.VectorEnv[Any, Any, Any]) -> None:
        self.env = env
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> np.ndarray:
        seen, _ = self.env.reset(seed=self._seeds[0])
        self._reset_seeds()
        return seen

    def step_async(self, actions: np.ndarray) -> None:
        self.actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        seen, rewards, left, late, told = self.env.step(self.actions)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for row in (left | late).nonzero()[0]:
            infos[row] = {"terminal_observation": told["final_obs"][row], "TimeLimit.truncated": bool(late[row])}
        return seen, rewards.astype(np.float32), left | late, infos

    def close(self) -> None:
        self.env.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self.env, attr_name)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        setattr(self.env, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        return [getattr(self.env, method_name)(*args, **kwargs)] * self.num_envs

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs


def ppo(steps: int, seed: int, users: int = 64, **options: Any) -> dict[str, float]:
    """Train PPO for so many user-steps in the train world, and measure it in the test world."""
    env = gymnasium.make_vec("fairstate/World-v0", num_envs=users, autoreset="same_step", **options)
    agent = stable_baselines3.PPO(
        "MlpPolicy", Batched(env), n_steps=32, batch_size=512, n_epochs=4, gamma=0.9, learning_rate=1e-3, seed=seed,
        policy_kwargs={"log_std_init": -2.0}, device="cpu",
    )  # fmt: skip
    agent.learn(steps)
    return measure(env, lambda seen: agent.predict(seen, deterministic=True)[0])


def dsrm_hrl(steps: int, seed: int, settings: dict[str, dict[str, Any]], **options: Any) -> dict[str, float]:
    """The same budget for DSRM-HRL, evaluated with the same users under the same luck."""
    world = {name: options.pop(name) for name in ("slate", "max_len") if name in options}
    spec = make(method="dsrm_hrl", user_steps=steps, seed=seed, settings={**settings, "world": world}, **options)
    with tempfile.TemporaryDirectory() as folder:
        return run(spec, MemoryRecorder(), Path(folder)).metrics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200_000, help="user-steps of training (default 200000)")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--purifier", default="identity", help="of both; DSRM-HRL is at its best behind diffusion")
    parser.add_argument("--action", default="direction", help="PPO's: direction, residual or slate (docs/ecosystem.md)")
    parser.add_argument("--slate", type=int, default=10)
    parser.add_argument("--max-len", type=int, default=30)
    parser.add_argument("--set", action="append", default=[], metavar="dataset.OPTION=VALUE", help="of all but the method")
    args = parser.parse_args()
    shared = {"purifier": args.purifier, "slate": args.slate, "max_len": args.max_len, "settings": parse_sets(args.set)}
    found = {
        "PPO (Stable-Baselines3)": ppo(args.steps, args.seed, action=args.action, stage_seed=args.seed, **shared),
        "DSRM-HRL": dsrm_hrl(args.steps, args.seed, **shared),
    }
    for name, measures in found.items():
        print(f"{name:25} Len {measures['len']:5.2f}  R_cum {measures['r_cum']:5.2f}  AD {measures['ad']:.2f}")


if __name__ == "__main__":
    main()
