"""Small trials of the recipe, one change at a time: `python -m models.tinybooru.trials`.

Every trial has the same CPU seconds on one thread, so a change that makes a step more expensive has to earn it; they
mean nearly the same on a busy machine. What a change is worth is the held-out loss, written to trials.json as trials
end; those that stand there are not run again unless named. Processors differ in how many images they see in that time,
so a trial must be compared with the first one on its own processor.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.record import processor
from models.tinybooru.corpus import Corpus, load_corpus
from models.tinybooru.denoiser import DenoiserRecipe, DenoiserTraining
from models.tinybooru.tokenizer import train_tokenizer
from models.tinybooru.train import DATA, preset_texts
from pipeline.errors import run_stage
from pipeline.storage.files import write_atomically

RESULTS = Path(__file__).parent / "trials.json"
CPU_SECONDS = 240
# The rate stays on its plateau, so that a trial says what the next steps would go on from.
START = DenoiserRecipe(
    "4x4 patches, (48, 128)",
    channels=(48, 128),
    steps=100_000,
    text_encoder_steps=100_000,
    learning_rate=1.5e-3,
    warmup=30,
    ema=0.95,
)
AVERAGES = (0.9, 0.95, 0.97, 0.985)

TRIALS: dict[str, DenoiserRecipe] = {
    recipe.name: recipe
    for recipe in (
        START,
        replace(START, name="v prediction", prediction="v_prediction"),
        replace(START, name="noise prediction, min-SNR", prediction="epsilon", weighting="min_snr"),
        replace(START, name="weight: plain x0 error", weighting="x0"),
        replace(START, name="weight: min-SNR", weighting="min_snr"),
        replace(START, name="noise: cosine schedule", beta_schedule="squaredcos_cap_v2"),
        replace(START, name="8x8 patches, (96, 160)", patch=8, channels=(96, 160)),
        replace(START, name="8x8 patches, (96, 160), batch 128", patch=8, channels=(96, 160), batch=128),
        replace(START, name="8x8 patches, (128, 192)", patch=8, channels=(128, 192)),
        replace(START, name="8x8 patches, (160)", patch=8, channels=(160,)),
        replace(START, name="4x4 patches, (64, 128)", channels=(64, 128)),
        replace(START, name="4x4 patches, (32, 128)", channels=(32, 128)),
        replace(START, name="4x4 patches, (48, 96)", channels=(48, 96)),
        replace(
            START, name="4x4 patches, (48, 96, 160), two with attention", channels=(48, 96, 160), attention_levels=2
        ),
        replace(START, name="2x2 patches, (32, 48, 128)", patch=2, channels=(32, 48, 128)),
        replace(START, name="rate 3e-3", learning_rate=3e-3),
        replace(START, name="AdamW", optimiser="adamw"),
        replace(START, name="batch 32", batch=32),
        replace(START, name="text: a table of tokens", text_layers=0),
        replace(START, name="text width 64", text_width=64),
        replace(START, name="whole prompt dropped 20 %", whole_prompt_dropout=0.2),
        replace(START, name="no tag dropped", tag_dropout=0.0),
    )
}


class Trial(DenoiserTraining):
    """A run that keeps averages of several lengths, which begin as plain means: a trial is short."""

    def prepare(self) -> None:
        """Start the averages."""
        self.means = {keep: {n: p.detach().clone() for n, p in self.weights.items()} for keep in AVERAGES}

    def train_step(self) -> float:
        loss = super().train_step()
        with torch.no_grad():
            for longest, average in self.means.items():
                # The plain mean of all steps until there are more of them than the average is long.
                keep = min(longest, self.step / (1 + self.step))
                for name, p in self.weights.items():
                    average[name].lerp_(p, 1 - keep)
        return loss

    def held_out_of(self, weights: dict[str, torch.Tensor], captioned: bool = True) -> float:
        """Held-out loss with other weights in place of the current ones."""
        own = {name: p.detach().clone() for name, p in self.weights.items()}
        with torch.no_grad():
            for name, p in self.weights.items():
                p.copy_(weights[name])
            loss = self.held_out_loss(captioned=captioned)
            for name, p in self.weights.items():
                p.copy_(own[name])
        return loss


def run_trial(recipe: DenoiserRecipe, corpus: Corpus, held_out: Corpus) -> dict[str, Any]:
    """Train for CPU_SECONDS and measure."""
    tokenizer = train_tokenizer([*corpus.captions(), *preset_texts()])
    device = torch.device("cpu")
    trial = Trial(recipe, tokenizer, corpus, held_out, None, Path("unused"), device, compiled=False)
    trial.prepare()
    spent, losses = 0.0, {}
    marks = [CPU_SECONDS / 4, CPU_SECONDS / 2, CPU_SECONDS]
    with tqdm(total=CPU_SECONDS, desc=recipe.name, unit="CPU s", disable=None) as bar:
        while marks:
            started = time.process_time()
            trial.train_step()
            taken = time.process_time() - started
            spent += taken
            bar.update(min(taken, CPU_SECONDS - bar.n))
            if spent >= marks[0]:
                losses[f"{marks.pop(0):g}"] = round(trial.held_out_loss(), 4)
    averaged = {keep: trial.held_out_of(average) for keep, average in trial.means.items()}
    best = min(averaged, key=lambda keep: averaged[keep])
    return {
        "trial": recipe.name,
        "machine": processor(),
        "parameters": sum(p.numel() for p in trial.unet.parameters()),
        "cpu_seconds": round(spent, 1),
        "steps": trial.step,
        "images": trial.step * recipe.batch,
        "held_out": losses,
        "held_out_averaged": {str(keep): round(loss, 4) for keep, loss in averaged.items()},
        "held_out_without_prompt": round(trial.held_out_of(trial.means[best], captioned=False), 4),
    }


def read_results() -> list[dict[str, Any]]:
    """The trials that have ended."""
    return json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m models.tinybooru.trials", description=__doc__)
    parser.add_argument("trials", nargs="*", choices=[*TRIALS, []], help="which (default: those not in trials.json)")
    chosen = parser.parse_args().trials
    torch.set_num_threads(1)
    results = read_results()
    corpus, held_out = load_corpus(DATA / "train"), load_corpus(DATA / "validation")
    for name in chosen or [name for name in TRIALS if name not in {result["trial"] for result in results}]:
        result = run_trial(TRIALS[name], corpus, held_out)
        print(json.dumps(result), flush=True)
        # Read again: two of these may run at once, a thread each.
        here = name, result["machine"]
        results = [r for r in read_results() if (r["trial"], r["machine"]) != here] + [result]
        write_atomically(RESULTS, (json.dumps(results, indent=1) + "\n").encode())
    print(f"{len(results)} trials in {RESULTS}")


if __name__ == "__main__":
    run_stage(main)
