"""Compares a bundle with transformers: the same checkpoint, prompt, lengths and threads, in one process.

    python -m antiphon.scripts.benchmarks.transformers CHECKPOINT BUNDLE [--threads 2] [--runs 5]
        [--text-tokens 48] [--frames 160] [--json FILE]

Both answer a prompt of 32 tokens in float32 with exactly the given numbers of text tokens and frames; end
tokens are suppressed. A short probe selects the experts implementations of transformers that are within twice
the fastest. Of these the fastest counts, per stage. All figures are medians of warm runs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

PROMPT, LONG_PROMPT = 32, 512
EXPERTS = ("eager", "batched_mm", "grouped_mm")


def median(values: Iterable[float | None]) -> float:
    """The median of measurements, none of which may be missing."""
    present = list(values)
    assert None not in present
    return statistics.median([value for value in present if value is not None])


def median_seconds(work: Callable[[], Any], runs: int) -> float:
    """Median wall time of `work` after one warm-up run."""
    work()
    taken = []
    for _ in range(runs):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


class Ours:
    """The bundle, by stage and as a whole."""

    def __init__(self, bundle: str, threads: int, text_tokens: int, frames: int) -> None:
        from ...runtime.omni import load

        self.text_tokens, self.frames = text_tokens, frames
        self.omni = load(bundle, max_streams=1, threads=threads)
        self.prompt_ids = np.random.default_rng(0).integers(0, 500, LONG_PROMPT)

    def measure(self, runs: int) -> dict[str, float]:
        """Seconds: thinker_token, talker_frame, prefill_512, code2wav_offline_frame, code2wav_packet_frame,
        answer; and real_time_factor.
        """
        exact = {
            "greedy": True,
            "max_text_tokens": self.text_tokens,
            "min_text_tokens": self.text_tokens,
            "voice": None,
        }
        messages = _messages(self.omni)
        replies = [self.omni.generate(messages, **exact, modalities=("text",)) for _ in range(runs + 1)][1:]
        spoken = [
            self.omni.generate(messages, **exact, max_frames=self.frames, min_frames=self.frames)
            for _ in range(runs + 1)
        ][1:]
        assert all(
            len(reply.codes) == self.frames and len(reply.token_ids) == self.text_tokens for reply in spoken
        )
        codes = spoken[0].codes
        offline = median_seconds(lambda: self._vocode(codes, self.frames), runs) / self.frames
        packets = median_seconds(lambda: self._vocode(codes, 4), runs) / self.frames
        total = median(reply.timings.total for reply in spoken)
        return {
            "thinker_token": median(reply.timings.seconds_per_token for reply in replies),
            "talker_frame": median_seconds(lambda: self._speak(self.frames), runs) / self.frames,
            "prefill_512": median_seconds(self._prefill, runs),
            "code2wav_offline_frame": offline,
            "code2wav_packet_frame": packets,
            "answer": total,
            "real_time_factor": total / (self.frames * 0.08),
            **self._first_audio(messages, exact, spoken, runs),
        }

    def _first_audio(
        self, messages: Any, exact: dict[str, Any], spoken: list[Any], runs: int
    ) -> dict[str, float]:
        """Time to first audio, and the sum of its parts: prefill and first token, Talker prefill, one frame
        of predictor and Code2Wav."""
        first_token = median(
            self.omni.generate(messages, **exact, modalities=("text",)).timings.time_to_first_token
            for _ in range(runs)
        )
        one_frame = median_seconds(lambda: self._speak(1), runs)
        code2wav = median_seconds(lambda: self._vocode(spoken[0].codes[:1], 1), runs)
        return {
            "first_audio": median(reply.timings.time_to_first_audio for reply in spoken),
            "first_audio_parts": first_token + one_frame + code2wav,
        }

    def _prefill(self) -> None:
        context = self.omni.model.thinker.new_context()
        context.queue_text(self.prompt_ids)
        self.omni.model.thinker.prefill(context, lambda: None)

    def _vocode(self, codes: np.ndarray, packet: int) -> None:
        from ...runtime.stages.aria import Frame
        from ...runtime.stages.vocoder import Vocoder

        vocoder = Vocoder(self.omni.engines["code2wav"], self.omni.model.engine_lock, lambda: 0)
        frames = [Frame(index, row, 0) for index, row in enumerate(codes)]
        for start in range(0, len(frames), packet):
            vocoder.decode(frames[start : start + packet])

    def _speak(self, frames: int) -> None:
        """Run Talker and code predictor alone, with all text available."""
        import dataclasses

        from ...runtime.stages.aria import dual_track, speak
        from ...runtime.stages.talker import Talker
        from ...runtime.stages.talker_rows.joined_prompt import talker_prompt
        from ...runtime.stages.talker_rows.rows import SummedRows

        omni, manifest = self.omni, self.omni.manifest
        prompt_ids = [int(token) for token in omni.front_end.prompt(_messages(omni)).token_ids]
        sizes = omni.model.input_sizes("talker")
        voice, text_tokens = next(iter(manifest.voices.values())), self.text_tokens
        rows = SummedRows(
            lambda first: talker_prompt(
                prompt_ids,
                {},
                sizes["hidden"],
                [],
                manifest.ids,
                voice,
                first,
                omni.front_end,
                sizes["frame_rows"],
            ),
            manifest.id("tts_pad"),
        )
        talker = Talker(
            omni.engines,
            manifest,
            omni.model.engine_lock,
            rows,
            dual_track(),
            dataclasses.replace(manifest.sampling["talker"].greedy(), min_tokens=frames),
            manifest.sampling["predictor"].greedy(),
            0,
            lambda: 0,
        )

        class Text:
            left = iter(range(300, 300 + text_tokens))

            def next(self) -> int | None:
                return next(self.left, None)

        made = sum(1 for _ in speak(dual_track(), Text(), talker, manifest.id("tts_eos"), lambda _: frames))
        assert made == frames


class Theirs:
    """transformers with one experts implementation."""

    def __init__(self, checkpoint: str, experts: str, text_tokens: int, frames: int) -> None:
        import torch
        from transformers import Qwen3OmniMoeForConditionalGeneration

        self.torch, self.text_tokens, self.frames = torch, text_tokens, frames
        self.model = Qwen3OmniMoeForConditionalGeneration.from_pretrained(
            checkpoint, dtype=torch.float32, experts_implementation=experts
        ).eval()
        self.seconds: dict[str, float] = {}
        for name, owner, method in (
            ("thinker", self.model.thinker, "generate"),
            ("talker", self.model.talker, "generate"),
            ("code2wav", self.model.code2wav, "chunked_decode"),
        ):
            self._time(name, owner, method)

    def _time(self, name: str, owner: Any, method: str) -> None:
        call = getattr(owner, method)

        def timed(*arguments: Any, **options: Any) -> Any:
            began = time.perf_counter()
            result = call(*arguments, **options)
            self.seconds[name] = time.perf_counter() - began
            return result

        setattr(owner, method, timed)

    def probe(self, prompt_ids: np.ndarray) -> float:
        """Seconds of a short spoken answer, after warm-up."""
        return min(self._answer(prompt_ids, 4, 2)["answer"] for _ in range(2))

    def measure(self, prompt_ids: np.ndarray, long_prompt: np.ndarray, runs: int) -> dict[str, float]:
        """Seconds: thinker_token, talker_frame, prefill_512, code2wav_offline_frame, answer;
        and real_time_factor.
        """
        torch = self.torch
        first = [self._answer(prompt_ids, 1, 0) for _ in range(runs + 1)][1:]
        answers = [self._answer(prompt_ids, self.text_tokens, self.frames) for _ in range(runs + 1)][1:]
        ids = torch.from_numpy(np.asarray(long_prompt, np.int64))[None]

        def prefill() -> None:
            # The decoder alone: transformers' head would process all 512 rows, where only the last is needed.
            with torch.no_grad():
                self.model.thinker.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=True)

        def middle(name: str, among: list[dict[str, float]]) -> float:
            return statistics.median(answer[name] for answer in among)

        return {
            "thinker_token": (middle("thinker", answers) - middle("thinker", first)) / (self.text_tokens - 1),
            "talker_frame": middle("talker", answers) / self.frames,
            "prefill_512": median_seconds(prefill, runs),
            "code2wav_offline_frame": middle("code2wav", answers) / self.frames,
            "answer": middle("answer", answers),
            "real_time_factor": middle("answer", answers) / (self.frames * 0.08),
        }

    def _answer(self, prompt_ids: np.ndarray, tokens: int, frames: int) -> dict[str, float]:
        torch, config = self.torch, self.model.config
        ids = torch.from_numpy(np.asarray(prompt_ids, np.int64))[None]
        vocabulary, codebook = (
            config.talker_config.text_config.vocab_size,
            config.code2wav_config.codebook_size,
        )
        options: dict[str, Any] = {
            "thinker_max_new_tokens": tokens,
            "thinker_suppress_tokens": [config.im_end_token_id],
            "thinker_do_sample": False,
        }
        if frames:
            options |= {
                "talker_max_new_tokens": frames + 1,
                "talker_suppress_tokens": list(range(codebook, vocabulary)),
                "talker_do_sample": False,
            }
        self.seconds = {}
        began = time.perf_counter()
        with torch.no_grad():
            self.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                return_audio=bool(frames),
                thinker_eos_token_id=config.im_end_token_id,
                **options,
            )
        return {**self.seconds, "answer": time.perf_counter() - began}


def _messages(omni: Any) -> list[dict[str, str]]:
    """A user turn whose whole prompt has PROMPT tokens, or the smallest larger number possible."""
    from ..bench import _prompt

    return _prompt(omni, PROMPT)


def main() -> None:
    """Measure, print a table and write JSON if requested."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint")
    parser.add_argument("bundle")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--text-tokens", type=int, default=48)
    parser.add_argument("--frames", type=int, default=160)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    lengths = (arguments.text_tokens, arguments.frames)
    ours = Ours(arguments.bundle, arguments.threads, *lengths)
    own = ours.measure(arguments.runs)
    prompt_ids, long_prompt = ours.omni.front_end.prompt(_messages(ours.omni)).token_ids, ours.prompt_ids
    import torch

    torch.set_num_threads(arguments.threads)
    probed = {
        experts: Theirs(arguments.checkpoint, experts, *lengths).probe(prompt_ids) for experts in EXPERTS
    }
    worth = [experts for experts, seconds in probed.items() if seconds <= 2 * min(probed.values())]
    others = {
        experts: Theirs(arguments.checkpoint, experts, *lengths).measure(
            prompt_ids, long_prompt, arguments.runs
        )
        for experts in worth
    }
    fastest = {name: min(other[name] for other in others.values()) for name in next(iter(others.values()))}
    result = {
        "machine": platform.processor() or platform.machine(),
        "threads": arguments.threads,
        "runs": arguments.runs,
        "prompt_tokens": len(prompt_ids),
        "antiphon": own,
        "transformers": others,
        "probe_seconds": probed,
        "ratio": {name: fastest[name] / own[name] for name in fastest},
    }
    _print(result, fastest)
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=2)


def _print(result: dict[str, Any], fastest: dict[str, float]) -> None:
    from ..console import print_table

    own = result["antiphon"]
    rows = []
    for name, value in own.items():
        others = [_shown(name, other.get(name)) for other in result["transformers"].values()]
        rows.append(
            [name, _shown(name, value), *others, f"{fastest[name] / value:.2f}" if name in fastest else ""]
        )
    print(
        "probe of transformers, 4 tokens and 2 frames: "
        + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in result["probe_seconds"].items())
    )
    print_table(
        f"{result['threads']} threads, median of {result['runs']}",
        ("measure", "antiphon", *result["transformers"], "ratio"),
        rows,
    )


def _shown(name: str, value: float | None) -> str:
    return "" if value is None else f"{value:.3f}" if name == "real_time_factor" else f"{value * 1000:.2f} ms"


if __name__ == "__main__":
    main()
