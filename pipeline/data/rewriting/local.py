"""A causal language model from a folder, through its own chat template."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from pipeline.data.rewriting.chat import ChatRequest, Reply, Unanswered
from pipeline.data.rewriting.settings import LocalModelSettings

_WEIGHTS = ".safetensors"
_TEXTS = frozenset({".json", ".jinja", ".txt", ".model"})
_CHUNK_BYTES = 1 << 22


def local_model_name(folder: str | Path) -> str:
    """Name of the model in a folder: the folder's own name and a digest of all its files.

    Raises:
        ValueError: If the folder holds no safetensors weights.
    """
    root = Path(folder).expanduser()
    names = sorted(p for p in root.glob("*") if p.suffix in _TEXTS | {_WEIGHTS})
    if not any(path.suffix == _WEIGHTS for path in names):
        raise ValueError(
            f"{root} holds no .safetensors weights; rewrite.model is the folder of a causal "
            "language model as published, downloaded beforehand"
        )
    digest = hashlib.sha256()
    for path in names:
        digest.update(path.name.encode() + b"\0")
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
    return f"{root.name}@{digest.hexdigest()[:16]}"


class LocalChatModel:
    """Runs the model of a folder, some questions in one batch.

    With a temperature above 0 an answer depends on the batch that it was made in; the cache keeps
    it from then on.

    Args:
        folder: Published folder: config, safetensors weights, tokenizer with a chat template.
        settings: Device, dtype, batch.
        name: See `local_model_name`.

    Raises:
        ValueError: If `transformers` is missing, the folder cannot be read, or its tokenizer has
            no chat template.
    """

    def __init__(self, folder: str | Path, settings: LocalModelSettings, name: str) -> None:
        try:
            from transformers import AutoModelForCausalLM, AutoTokenizer
        except ImportError as error:
            raise ValueError(
                "a local model needs the package transformers; install the extra `hf`"
            ) from error
        source = {"local_files_only": True, "trust_remote_code": False}
        path = str(Path(folder).expanduser())
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(
                path, padding_side="left", **source
            )
            model = AutoModelForCausalLM.from_pretrained(
                path, use_safetensors=True, dtype=settings.dtype, **source
            )
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"cannot read a causal language model from {path}: {error}") from error
        if not self._tokenizer.chat_template:
            raise ValueError(
                f"the tokenizer in {path} has no chat template; take an instruction-tuned model"
            )
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._model: Any = model.to(settings.device).eval()
        self._settings = settings
        self.name = name

    def answer(
        self, requests: Sequence[ChatRequest], keep: Callable[[int, Reply], None]
    ) -> list[Reply | Unanswered]:
        """See `ChatModel`.

        Raises:
            ValueError: If a question carries audio.
        """
        if any(request.audio for request in requests):
            raise ValueError("local models take text only; serve one that listens by an endpoint")
        answers: list[Reply | Unanswered] = []
        size = self._settings.batch_size
        for start in range(0, len(requests), size):
            for reply in self._generate(requests[start : start + size]):
                keep(len(answers), reply)
                answers.append(reply)
        return answers

    @torch.inference_mode()
    def _generate(self, requests: Sequence[ChatRequest]) -> list[Reply]:
        first = requests[0]
        # Only `chat_template_kwargs` of the extra fields has a meaning without a server.
        texts = [
            self._tokenizer.apply_chat_template(
                list(request.messages),
                tokenize=False,
                add_generation_prompt=True,
                **request.extra.get("chat_template_kwargs", {}),
            )
            for request in requests
        ]
        batch = self._tokenizer(
            texts, return_tensors="pt", padding=True, add_special_tokens=False
        ).to(self._model.device)
        sampling: dict[str, Any] = {"do_sample": first.temperature > 0}
        if first.temperature > 0:
            sampling["temperature"] = first.temperature
        devices = [self._model.device] if self._model.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(int(first.key(self.name)[:15], 16))
            output = self._model.generate(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                max_new_tokens=first.max_tokens,
                pad_token_id=self._tokenizer.pad_token_id,
                **sampling,
            )
        return [self._reply(ids) for ids in output[:, batch["input_ids"].shape[1] :].tolist()]

    def _reply(self, ids: list[int]) -> Reply:
        ends = self._model.generation_config.eos_token_id
        stops = {ends} if isinstance(ends, int) else set(ends or ())
        length = next((i for i, token in enumerate(ids) if token in stops), None)
        text = self._tokenizer.decode(ids[:length], skip_special_tokens=True)
        return Reply(text, is_cut_off=length is None)
