"""Exported models are the same models: `transformers` loads each, and computes and writes what ours does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from foundation.errors import UsageError
from foundation.records import messages_of
from foundation.workspace import Workspace
from tests.trainer.saved_run import GPT2, LLAMA, QWEN3, SHAPES, random_model, run_tokenizer, saved_run
from trainer.answer import Student, find_checkpoint, load_student, tokenizer_of
from trainer.attention import attend
from trainer.chatml import encode_prompt, encode_record
from trainer.export.hf import Source, exported_bytes, write_model
from trainer.export.layouts import layout_of
from trainer.generate import generate
from trainer.layout import Layout
from trainer.model import Model
from trainer.presets import PRESETS
from trainer.shape import ModelConfig

TOKENS = [3, 300, 41, 5, 5, 699, 0, 17, 256, 1, 2, 90] * 7
TEXTS = (
    "Who won at Stalingrad?",
    "In February 1943 — été, 北京 🙂 — twenty-one divisions",
    "\n two\nlines\n\n  and   spaces ",
    "",
    "1942",
)


def source_of(workspace: Workspace, config: ModelConfig) -> tuple[Source, Model]:
    path, model = saved_run(workspace, config)
    _, state = find_checkpoint(workspace, "main", path)
    return Source(path, config, tokenizer_of(workspace, path, state)), model


def our_logits(model: Model, tokens: list[int]) -> torch.Tensor:
    layout = Layout.of([len(tokens)], len(tokens))
    with torch.no_grad():
        hidden = model.hidden(
            torch.tensor(tokens), torch.arange(len(tokens)), lambda _, q, k, v: attend(q, k, v, layout, "mask")
        )
        return model.logits(hidden)


def their_model(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.mark.parametrize("name", SHAPES)
def test_logits_are_ours(workspace: Workspace, tmp_path: Path, name: str) -> None:
    config = SHAPES[name]
    source, model = source_of(workspace, config)
    (tmp_path / "out").mkdir()
    write_model(tmp_path / "out", source, "float32")
    theirs, information = _load(tmp_path / "out")
    assert not any(information.values()), information
    assert theirs.config.model_type == layout_of(config) == name.split(",")[0]
    assert theirs.dtype == torch.float32
    wanted = our_logits(model, TOKENS)
    with torch.no_grad():
        torch.testing.assert_close(theirs(torch.tensor([TOKENS])).logits[0], wanted, rtol=0, atol=1e-4)
    assert wanted.std() > 0.3, "logits that are all alike would show nothing"
    assert len({tuple(row.topk(3).indices.tolist()) for row in wanted}) > 20


@pytest.mark.parametrize("config", [LLAMA, GPT2], ids=["llama", "gpt2"])
def test_logits_of_small_numbers_are_ours(workspace: Workspace, tmp_path: Path, config: ModelConfig) -> None:
    """As weights are at the start, the embeddings so small that what is added to a norm's root shows."""
    torch.manual_seed(0)
    model = Model(config)
    path, _ = saved_run(workspace, config, model=model)
    (tmp_path / "out").mkdir()
    write_model(tmp_path / "out", Source(path, config, run_tokenizer(workspace)), "float32")
    with torch.no_grad():
        theirs = their_model(tmp_path / "out")(torch.tensor([TOKENS])).logits[0]
    torch.testing.assert_close(theirs, our_logits(model, TOKENS), rtol=0, atol=2e-6)


def test_every_preset_has_a_layout() -> None:
    found = {name: layout_of(preset.config) for name, preset in PRESETS.items()}
    wanted = {"demo": "qwen3", "smoke-10m": "llama", "wwii-183m": "gpt2", "ladder-350m": "qwen3", "ladder-7b": "llama"}
    assert {name: found[name] for name in wanted} == wanted


def _load(folder: Path) -> tuple[Any, dict[str, Any]]:
    from transformers import AutoModelForCausalLM

    model, information = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    return model.eval(), information


@pytest.mark.parametrize("config", [LLAMA, QWEN3, GPT2], ids=["llama", "qwen3", "gpt2"])
def test_it_writes_what_ours_writes(workspace: Workspace, tmp_path: Path, config: ModelConfig) -> None:
    """Tokenizer, template and generation settings too: from a question to a text, with their own means alone."""
    from transformers import AutoTokenizer

    source, model = source_of(workspace, config)
    (tmp_path / "out").mkdir()
    write_model(tmp_path / "out", source, "float32")
    student = load_student(workspace, "main", torch.device("cpu"))
    theirs, tokenizer = their_model(tmp_path / "out"), AutoTokenizer.from_pretrained(tmp_path / "out")
    question = "Who won at Stalingrad in 1943?"
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    prompt = inputs["input_ids"][0].tolist()
    assert prompt == student.prompt(question)
    room = config.context - len(prompt)
    ours = [token for _, token in generate(model, [prompt], limit=room, stop=student.stop)]
    # their warning: greedy ignores the temperature that the export sets
    written = theirs.generate(**inputs, do_sample=False, max_new_tokens=room)[0, len(prompt) :].tolist()
    assert written == ours
    assert len(set(ours)) > 3
    assert tokenizer.decode(written, skip_special_tokens=True).strip() == student.text(ours)


def test_it_stops_where_ours_stops(workspace: Workspace, tmp_path: Path) -> None:
    """The end of an answer is known to `generate` by the export alone."""
    config = LLAMA.model_copy(update={"tied": False})
    model = random_model(config)
    saved_run(workspace, config, model=model)
    student = load_student(workspace, "main", torch.device("cpu"))
    prompt = student.prompt("Who?")
    free = [token for _, token in generate(student.model, [prompt], limit=20, stop=-1)]
    third = next(place for place in range(3, 20) if free[place] not in free[:place])
    with torch.no_grad():  # the token that comes there becomes the one that ends answers
        rows = model.lm_head.weight  # type: ignore[union-attr]
        rows[[student.stop, free[third]]] = rows[[free[third], student.stop]].clone()
    path, _ = saved_run(workspace, config, model=model, step=8)
    _, state = find_checkpoint(workspace, "main", path)
    (tmp_path / "out").mkdir()
    write_model(tmp_path / "out", Source(path, config, tokenizer_of(workspace, path, state)), "float32")
    written = their_model(tmp_path / "out").generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=30)
    assert written[0, len(prompt) :].tolist() == [*free[:third], student.stop]


@pytest.mark.parametrize("config", [LLAMA, QWEN3, GPT2], ids=["llama", "qwen3", "gpt2"])
def test_the_tokenizer_gives_the_same_ids(workspace: Workspace, tmp_path: Path, config: ModelConfig) -> None:
    """Whatever tokenizer `transformers` thinks a model of that type has."""
    from transformers import AutoTokenizer

    source, _ = source_of(workspace, config)
    (tmp_path / "out").mkdir()
    write_model(tmp_path / "out", source, "float32")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    student: Student = load_student(workspace, "main", torch.device("cpu"))
    for text in TEXTS:
        ids = student.tokenizer.encode(text, add_special_tokens=False).ids
        assert theirs.encode(text) == ids
        assert theirs.decode(ids) == text
    turns = [("user", TEXTS[0]), ("assistant", TEXTS[1]), ("user", TEXTS[2]), ("assistant", ""), ("user", TEXTS[4])]
    messages = messages_of(turns)  # type: ignore[arg-type]
    plain = [{"role": role, "content": content} for role, content in turns]
    whole = theirs.apply_chat_template(plain, return_dict=True)["input_ids"]
    assert whole == encode_record(student.tokenizer, messages, ())[0]
    asked = theirs.apply_chat_template(plain, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert asked == encode_prompt(student.tokenizer, messages)
    assert theirs.eos_token_id == student.stop
    assert theirs.pad_token_id == student.tokenizer.token_to_id("<|endoftext|>")
    assert theirs.model_max_length == 96


def test_it_draws_as_chat_does(workspace: Workspace, tmp_path: Path) -> None:
    source, _ = source_of(workspace, QWEN3)
    (tmp_path / "out").mkdir()
    write_model(tmp_path / "out", source, "float32")
    found = their_model(tmp_path / "out").generation_config
    assert (found.do_sample, found.top_k, found.temperature, found.top_p) == (True, 40, 0.75, 1.0)
    stop = load_student(workspace, "main", torch.device("cpu")).stop
    assert found.eos_token_id == stop
    assert "max_new_tokens" not in json.loads((tmp_path / "out/generation_config.json").read_text())


@pytest.mark.parametrize(
    "change",
    [
        {"positions": "learned"},
        {"norm": "layernorm"},
        {"activation": "gelu"},
        {"positions": "learned", "norm": "layernorm"},
        {"positions": "learned", "norm": "layernorm", "activation": "gelu", "qk_norm": True},
    ],
)
def test_a_shape_that_no_layout_has_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="no layout can say this shape") as told:
        layout_of(LLAMA.model_copy(update=change))
    assert "GPT-2 is learned, layernorm and gelu" in told.value.mend


@pytest.mark.parametrize("config", [LLAMA, QWEN3, GPT2], ids=["llama", "qwen3", "gpt2"])
def test_a_large_one_is_split_over_files(workspace: Workspace, tmp_path: Path, config: ModelConfig) -> None:
    source, model = source_of(workspace, config)
    (tmp_path / "out").mkdir()
    write_model(tmp_path / "out", source, "float32", shard_bytes=60_000)
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    assert len(files) > 2
    assert [path.name for path in files] == [
        f"model-{n:05d}-of-{len(files):05d}.safetensors" for n in range(1, len(files) + 1)
    ]
    largest = max(value.nbytes for path in files for value in load_file(path).values())
    assert all(sum(value.nbytes for value in load_file(path).values()) <= max(60_000, largest) for path in files)
    with torch.no_grad():
        logits = their_model(tmp_path / "out")(torch.tensor([TOKENS])).logits[0]
    torch.testing.assert_close(logits, our_logits(model, TOKENS), rtol=0, atol=1e-4)


def test_bfloat16_is_half_as_large_and_near(workspace: Workspace, tmp_path: Path) -> None:
    source, model = source_of(workspace, QWEN3)
    for dtype in ("float32", "bfloat16"):
        (tmp_path / dtype).mkdir()
        sizes = write_model(tmp_path / dtype, source, dtype)  # type: ignore[arg-type]
        wanted = exported_bytes(QWEN3, dtype)  # type: ignore[arg-type]
        assert sizes["model.safetensors"] == pytest.approx(wanted, rel=0.03)
    halves, wholes = (load_file(tmp_path / dtype / "model.safetensors") for dtype in ("bfloat16", "float32"))
    assert halves.keys() == wholes.keys()
    assert all(torch.equal(halves[name], whole.bfloat16()) for name, whole in wholes.items())
    theirs = their_model(tmp_path / "bfloat16")
    assert theirs.dtype == torch.bfloat16
    with torch.no_grad():
        logits = theirs(torch.tensor([TOKENS])).logits[0].float()
    torch.testing.assert_close(logits, our_logits(model, TOKENS), rtol=0, atol=1.0)
