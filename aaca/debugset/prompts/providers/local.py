"""`LocalConcepts`: a language model in a folder of this machine, through transformers."""

from functools import cached_property
from pathlib import Path
from typing import Any

from aaca.debugset.prompts.providers.base import ConceptProvider
from aaca.debugset.prompts.question import question
from aaca.runtime.errors import AacaError, ConfigError
from aaca.runtime.files import digest, file_sha256

KEY = "prompts.provider.folder"


class LocalConcepts(ConceptProvider):
    """Lets a causal language model write the answer, greedily; nothing is downloaded and no code of the folder runs.

    Args:
        folder: with the config, the weights and the tokenizer, as `save_pretrained` writes them.
        max_new_tokens: at most so long an answer.

    """

    offline = True

    def __init__(self, folder: str, max_new_tokens: int = 200) -> None:
        self.folder, self.max_new_tokens = Path(folder).expanduser(), max_new_tokens
        if not (self.folder / "config.json").is_file():
            raise ConfigError(
                f"{KEY}: no model in {self.folder}; expected a folder with config.json, weights, tokenizer"
            )
        if max_new_tokens < 1:
            raise ConfigError(f"prompts.provider.max_new_tokens: {max_new_tokens}; expected 1 or more")

    @property
    def name(self) -> str:
        """The folder's name and the first digits of its content's digest."""
        return f"{self.folder.resolve().name} ({digest(self._files)[:8]})"

    def ask(self, class_name: str, n: int, complaint: str) -> str:
        """The model's continuation of the question."""
        import torch

        tokenizer, model = self._loaded
        asked = question(class_name, n, complaint).text
        if tokenizer.chat_template:
            # in one message: some templates know no system role
            asked = tokenizer.apply_chat_template(
                [{"role": "user", "content": asked}], tokenize=False, add_generation_prompt=True
            )
        tokens = tokenizer(asked, return_tensors="pt", add_special_tokens=not tokenizer.chat_template).to(model.device)
        length = tokens["input_ids"].shape[1]
        room = getattr(model.config, "max_position_embeddings", None)
        if room is not None and length + self.max_new_tokens > room:
            raise AacaError(
                f"prompts.provider: {self.name}: the model reads {room} tokens; the question has {length}, and the "
                f"answer may have {self.max_new_tokens}; lower prompts.provider.max_new_tokens= or use another model"
            )
        end = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        with torch.inference_mode():
            written = model.generate(
                tokens["input_ids"],
                attention_mask=tokens["attention_mask"],
                max_new_tokens=self.max_new_tokens,
                do_sample=False,
                num_beams=1,
                pad_token_id=end,
            )
        return str(tokenizer.decode(written[0, length:], skip_special_tokens=True))

    def fingerprint(self) -> dict[str, Any]:
        """The folder's files by content, and the answer's length."""
        return {"provider": "local", "files": self._files, "max_new_tokens": self.max_new_tokens}

    def close(self) -> None:
        """Let go of the model."""
        self.__dict__.pop("_loaded", None)

    @cached_property
    def _files(self) -> dict[str, str]:
        return {path.name: file_sha256(path) for path in sorted(self.folder.iterdir()) if path.is_file()}

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        device = "cuda" if torch.cuda.is_available() else "cpu"
        only_here: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            tokenizer = AutoTokenizer.from_pretrained(self.folder, **only_here)
            model: Any = AutoModelForCausalLM.from_pretrained(self.folder, **only_here)
            model = model.to(device).eval()
        except Exception as error:  # transformers lets through whatever its many loaders raise
            reason = " ".join(str(error).split())[:160]
            raise AacaError(
                f"{KEY}: {self.folder} cannot be loaded ({type(error).__name__}: {reason}); expected a causal language "
                "model as save_pretrained writes it"
            ) from error
        return tokenizer, model
