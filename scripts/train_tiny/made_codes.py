"""The codes of a corpus as a trained Talker's predictor makes them: what Code2Wav will hear, so what it must learn from as well.

    python -m antiphon.scripts.train_tiny.made_codes CORPUS CODES.npz TALKER_RUN OUT.npz --checkpoint START

First codes are those of the recordings; the others are sampled, given the rows that a Talker reads whose frames were made the same way. Measured on 32 held-out
texts: a Code2Wav that only ever heard the codes of recordings says 65 % of the words wrong with these, and 15 % with those of the recordings.
OUT.npz is a file of train_tiny.codes; items that the Talker does not learn from keep their codes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...graphs.config import OmniConfig
from ...graphs.layers import rotary_tables, run_layers
from ...graphs.qwen3_5_omni.talker import Talker
from ...graphs.qwen3_omni_moe.predictor import PredictorStep
from ..console import progress_bar
from .codes import load_codes, save_codes
from .command import command
from .corpus import Corpus
from .differentiable import differentiable
from .run import trained
from .shape import SAMPLING
from .talker_training import Rows, Speech, asked_rows, new_modules, special_ids

PASSES = 2
"""The frames that are read are the recording's in the first pass, and those that were made in the pass before from then on."""
BATCH_ROWS = 3000


@torch.no_grad()
def sample_residuals(talker: Talker, predictor: PredictorStep, hidden: Tensor, first: Tensor, temperature: float, noise: torch.Generator) -> Tensor:
    """Frames int64 [frames, groups] with the first codes `first` [frames], whose others are sampled; `hidden` [frames, talker hidden] chose the first codes."""
    config, codebook = predictor.config, talker.codebook
    tables = torch.cat((talker.codec_embedding[:codebook], talker.residual_embedding))
    codes = first[:, None]
    nothing = [torch.zeros(0)] * (2 * len(predictor.layers))
    lengths = torch.zeros(len(first), dtype=torch.int64)
    for group in range(1, talker.groups):
        embedded = F.embedding(codes + torch.arange(group) * codebook, tables)
        x = torch.cat((hidden[:, None], embedded), dim=1)
        if predictor.projection is not None:
            x = predictor.projection(x)
        positions = torch.arange(group + 1, dtype=torch.float32).expand(1, len(x), group + 1)
        x, _ = run_layers(predictor.layers, x, rotary_tables(positions, config.rope, config.head_dim), lengths, lengths, nothing)
        logits = predictor.norm(x[:, -1]) @ predictor.heads[group - 1]
        chosen = torch.multinomial((logits.float() / temperature).softmax(1), 1, generator=noise)
        codes = torch.cat((codes, chosen), dim=1)
    return codes


def made_codes(speech: Speech, run: Path, config: OmniConfig, temperature: float, seed: int = 0) -> dict[int, np.ndarray]:
    """Codes [frames, groups] by item number, of the recordings as they are (the first variation of `speech`), by the Talker of `run`."""
    talker, predictor = new_modules(config)
    trained(run, {"talker": talker, "predictor": predictor})
    made = {number: speech.codes[number][0] for number in speech.numbers}
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad(), differentiable(), torch.autocast("cpu", torch.bfloat16), progress_bar() as report:
        for turn in range(PASSES):
            choice = np.random.default_rng([seed, turn])
            read = dict(made)
            batches = _batches(speech, read, choice)
            for done, (numbers, rows) in enumerate(batches):
                report(f"codes, pass {turn + 1} of {PASSES}", done, len(batches), None)
                wanted, spoken = asked_rows(talker, rows, torch.from_numpy(np.concatenate([one.frames for one in rows])))
                first = torch.from_numpy(np.concatenate([one.targets[:, 0] for one in rows]))
                codes = sample_residuals(talker, predictor, wanted[spoken], first, temperature, noise).numpy()
                for number, of_item in zip(numbers, np.split(codes, np.cumsum([len(one.targets) for one in rows])[:-1]), strict=True):
                    made[number] = of_item
    return made


def _batches(speech: Speech, read: dict[int, np.ndarray], choice: np.random.Generator) -> list[tuple[list[int], list[Rows]]]:
    """All items, those of similar length together, with the frames `read` as history."""
    examples: list[tuple[int, Rows]] = sorted(
        ((number, speech.example(number, choice, read[number])) for number in speech.numbers), key=lambda pair: _rows(pair)
    )
    batches: list[tuple[list[int], list[Rows]]] = [([], [])]
    for number, rows in examples:
        if batches[-1][0] and (len(batches[-1][0]) + 1) * len(rows.text_ids) > BATCH_ROWS:
            batches.append(([], []))
        batches[-1][0].append(number)
        batches[-1][1].append(rows)
    return batches


def _rows(pair: tuple[int, Rows]) -> int:
    return len(pair[1].text_ids)


def main() -> None:
    """Make them from the command line."""
    from tokenizers import Tokenizer

    from ...graphs.read_config import read_config

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("codes", type=Path, help="of train_tiny.codes, without variation")
    parser.add_argument("run", type=Path, help="folder of talker_training")
    parser.add_argument("output", type=Path)
    parser.add_argument("--checkpoint", type=Path, required=True, help="from train_tiny.shape: configuration and tokenizer")
    parser.add_argument("--temperature", type=float, default=SAMPLING["predictor_temperature"])
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    tokenizer: Any = Tokenizer.from_file(str(arguments.checkpoint / "tokenizer.json"))
    config, corpus = read_config(arguments.checkpoint), Corpus(arguments.corpus)
    codes = load_codes(arguments.codes, corpus)
    made = made_codes(Speech(corpus, [codes], tokenizer, special_ids(config, tokenizer)), arguments.run, config, arguments.temperature)
    save_codes(arguments.output, [made.get(number, rows).astype(np.uint8) for number, rows in enumerate(codes)])
    print(
        f"{len(made)} of {len(codes)} items; {np.mean([(made[n][:, 1:] == codes[n][:, 1:]).mean() for n in made]):.1%} of the sampled codes are the recording's"
    )


if __name__ == "__main__":
    command(main)
