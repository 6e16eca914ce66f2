"""A run as training leaves it, without the training: a random model's checkpoint, tokenizer, figures and manifest."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import torch

from foundation.reader import pin
from foundation.tables import TrainSettings
from foundation.workspace import Workspace
from trainer import checkpoint
from trainer.checkpoint import TrainState
from trainer.metrics import Metric, RoundPoint, RunInfo, append_metric, write_run_info
from trainer.model import Model
from trainer.optim import build_optimizers
from trainer.paths import TrainPaths, run_folder
from trainer.presets import recipe
from trainer.shape import ModelConfig
from trainer.tokenizer import load_tokenizer, save_tokenizer, tokenizer_sha, train_tokenizer

# One of each kind that can be exported: plain, grouped, with norms of its own, untied.
LLAMA = ModelConfig(vocabulary=700, layers=2, width=32, heads=4, kv_heads=4, ffn=48, context=96)
QWEN3 = LLAMA.model_copy(update={"kv_heads": 2, "qk_norm": True, "embedding_norm": True})
GPT2 = LLAMA.model_copy(
    update={"norm": "layernorm", "positions": "learned", "activation": "gelu", "bias": True, "tied": False}
)
SHAPES = {
    "llama": LLAMA,
    "llama, grouped, untied, another base": LLAMA.model_copy(
        update={"kv_heads": 2, "tied": False, "rope_base": 500_000.0}
    ),
    "llama, embedding norm": LLAMA.model_copy(update={"embedding_norm": True}),
    "llama, embedding norm, untied": LLAMA.model_copy(update={"embedding_norm": True, "tied": False}),
    "qwen3": LLAMA.model_copy(update={"qk_norm": True}),
    "qwen3, grouped, embedding norm": QWEN3,
    "qwen3, one head of keys": QWEN3.model_copy(update={"kv_heads": 1, "tied": False}),
    "gpt2": GPT2,
    "gpt2, tied": GPT2.model_copy(update={"tied": True}),
    "gpt2, grouped, no bias, embedding norm": GPT2.model_copy(
        update={"kv_heads": 2, "bias": False, "embedding_norm": True, "tied": True}
    ),
}


def random_model(config: ModelConfig, seed: int = 0) -> Model:
    """Weights large enough, and norms and biases odd enough, that a mistake in any of them shows."""
    torch.manual_seed(seed)
    model = Model(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
            elif name != "lm_head.weight" or not config.embedding_norm:  # that one is large as it is
                parameter.mul_(12.0 if not config.embedding_norm or "embedding" in name else 4.0)
    return model.eval()


def run_tokenizer(workspace: Workspace, run: str = "main") -> Path:
    """The run's own tokenizer, made if it is not there: all bytes, a few words, 700 tokens at most."""
    path = run_folder(workspace, run) / TrainPaths.of(workspace).tokenizer.name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        texts = ["The Battle of Stalingrad ended in February 1943.", "Who won? The Red Army did. été 北京"] * 40
        save_tokenizer(train_tokenizer(texts, 700), path)
    return path


def parrot(workspace: Workspace, text: str, *, endless: bool = False, context: int = 96) -> tuple[ModelConfig, Model]:
    """A model that answers every question with `text`, whose tokens must differ from each other; again and again if `endless`."""
    tokenizer = load_tokenizer(run_tokenizer(workspace))
    stop = tokenizer.token_to_id("<|im_end|>")
    first = tokenizer.encode("\n", add_special_tokens=False).ids  # the last one of every prompt
    said = tokenizer.encode(text, add_special_tokens=False).ids
    path = [*first, *said, said[0] if endless else stop]
    assert len(set(path)) == len(path) - endless and len(first) == 1, path
    config = ModelConfig(vocabulary=700, layers=1, width=704, heads=8, kv_heads=1, ffn=8, context=context, tied=False)
    model = Model(config)
    with torch.no_grad():
        for parameter in (model.embedding.weight, model.lm_head.weight):  # type: ignore[union-attr]
            parameter.zero_()
        for name, parameter in model.named_parameters():
            if name.endswith(("attention.out.weight", "ffn.down.weight")):
                parameter.zero_()
        model.embedding.weight[range(700), range(700)] = 1.0
        for this, then in itertools.pairwise(path):
            model.lm_head.weight[then, this] = 1.0  # type: ignore[union-attr]
    return config, model


def saved_run(
    workspace: Workspace,
    config: ModelConfig = QWEN3,
    *,
    run: str = "main",
    step: int = 7,
    model: Model | None = None,
    phrasing: float | None = None,
    **more: Any,
) -> tuple[Path, Model]:
    """The checkpoint's folder, and the model that is in it."""
    model = model or random_model(config, seed=step)
    folder = run_folder(workspace, run)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = run_tokenizer(workspace, run)
    manifest = workspace.train / "manifest.json"
    manifest.write_text(pin(workspace.store).model_dump_json() + "\n", "utf-8")
    state = TrainState(
        run=run,
        step=step,
        steps=100,
        cursor=4 * step,
        tokens=1000 * step,
        supervised=500 * step,
        phrasing=phrasing,
        model=config,
        tokenizer=tokenizer_sha(tokenizer),
        rng=checkpoint.random_state(),
        **{"identity": {"train.epochs": 4.0, "train.preset": "demo"}, **more},
    )
    optimizers = build_optimizers(model, recipe(TrainSettings()))
    return checkpoint.save(folder / "checkpoints", model, optimizers, state, keep=5, manifest=manifest), model


def told_run(workspace: Workspace, run: str = "main", step: int = 7) -> None:
    """What a run says of itself: losses up to `step` and beyond, and judgings at `step` and after it."""
    folder = run_folder(workspace, run)
    values: dict[str, Any] = {"run": run, "git": "abc1234", "preset": "demo", "parameters": 1, "vocabulary": 700}
    values |= {"context": 96, "batch": 2, "steps": 100, "epoch_tokens": 9, "device": "cpu", "precision": "float32"}
    write_run_info(folder, RunInfo(**values, attention="segments"))
    for number in range(1, step + 3):
        held_out = {"phrasing": 10.0 - number, "unseen": 20.0 - number} if number % 5 == 0 else {}
        append_metric(folder, Metric(step=number, epoch=0.1, tokens=1, supervised=1, loss=float(number), **held_out))
    points = [
        RoundPoint(round=1, step=step, pass_rate=0.245, low=0.191, high=0.309, baseline=0.01, stop_rate=0.99),
        RoundPoint(round=1, step=step, split="unseen", error="the judge was away"),
        RoundPoint(round=2, step=step + 2, pass_rate=0.9, low=0.8, high=0.95),
    ]
    (folder / "rounds.jsonl").write_text("".join(point.model_dump_json() + "\n" for point in points), "utf-8")
