"""The options of `engine train` and `runs_db enqueue`, in one place, and the habit of answering bad input in one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from engine import spec
from engine.options import BadInput


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line and exits with 2; long options are never guessed from a prefix."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **kwargs})

    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{self.prog}: {message}")


def add_spec_options(parser: argparse.ArgumentParser, *, evaluates: bool = True) -> None:
    """The options that make a RunSpec (docs: CLI contract). `evaluates`: the command meets test users at the end."""
    parser.add_argument("--dataset", default="synthetic", help="a name, or a path to a .csv or .parquet log")
    parser.add_argument("--method", default="dsrm_hrl")
    parser.add_argument("--purifier", help="default: diffusion for dsrm_hrl, identity for all others")
    parser.add_argument("--seed", type=int, default=11, help="of training; the world has dataset.seed")
    parser.add_argument("--episodes", type=int, default=20_000, help="training sessions (default 20000)")
    parser.add_argument("--user-steps", type=int, help="the budget in steps of single users, instead of --episodes")
    if evaluates:
        parser.add_argument(
            "--evaluation-episodes", type=int, default=1000, help="distinct test users met at the end (default 1000)"
        )
    parser.add_argument("--max-len", type=int, help="short for --set world.max_len=…")
    parser.add_argument("--slate", type=int, help="short for --set world.slate=…")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.OPTION=VALUE", dest="sets")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; part of the spec (default 1)")


def spec_from(args: argparse.Namespace) -> spec.RunSpec:
    """The checked RunSpec of parsed options. Raises BadInput."""
    settings: dict[str, dict[str, Any]] = {section: dict(values) for section, values in spec.parse_sets(args.sets).items()}
    for name in ("max_len", "slate"):
        if getattr(args, name) is not None:
            settings.setdefault("world", {})[name] = getattr(args, name)
    met = {"evaluation_episodes": args.evaluation_episodes} if "evaluation_episodes" in args else {}
    return spec.make(
        dataset=args.dataset,
        method=args.method,
        purifier=args.purifier,
        seed=args.seed,
        episodes=args.episodes,
        user_steps=args.user_steps,
        device=args.device,
        threads=args.threads,
        settings=settings,
        **met,
    )


def seeds_of(text: str, name: str = "--seeds") -> list[int]:
    """`"11,15,19"` → [11, 15, 19]. Raises BadInput."""
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        raise BadInput(f"{name} {text!r} is not legal: it must be whole numbers with commas, as in 11,15,19") from None
    if min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise BadInput(f"{name} {text!r} is not legal: seeds must be 0 or more, each given once")
    return seeds


def say(text: str) -> None:
    """A line for people: stderr, so that stdout stays machine-readable."""
    print(text, file=sys.stderr, flush=True)


def guarded(main: Callable[[], int]) -> int:
    """Exit status of `main`, with BadInput told in one line as status 2."""
    try:
        return main()
    except BadInput as error:
        say(f"error: {' '.join(str(error).split())}")
        return 2
    except KeyboardInterrupt:
        say("stopped")
        return 1
    except BrokenPipeError:
        return 0
