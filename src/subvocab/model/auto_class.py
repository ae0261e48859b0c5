"""What a class of transformers is asked before it loads: a configuration, and an empty model.

And what it would do by itself that cannot be done with the rows of V′, which is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils.peft_utils import ADAPTER_CONFIG_NAME

from subvocab.errors import CheckpointError, UnsupportedModelError, shortened

IN_MEMORY = "Load the model with transformers, then call `subvocab.shrink`."
REFUSED = {
    "variant": "Give a folder of its own for each variant.",
    "output_loading_info": "Load the model without it.",
    "gguf_file": "Save the model with `save_pretrained` first.",
    "quantization_config": IN_MEMORY,
    "load_in_4bit": IN_MEMORY,
    "load_in_8bit": IN_MEMORY,
}
"""Options of ``from_pretrained``, and what to do instead."""


def refuse_class(auto_class: Any) -> None:
    """Refuse what is no class of models.

    Args:
        auto_class: What shall load a model.

    Raises:
        UnsupportedModelError: If it is a name, or makes configurations or tokenizers.
    """
    makes_models = isinstance(auto_class, type) and (
        hasattr(auto_class, "from_config") or issubclass(auto_class, PreTrainedModel)
    )
    if not makes_models:
        raise UnsupportedModelError(
            f"`auto_class` is {shortened(repr(auto_class))}, expected a class of transformers that "
            "makes models. Pass the class itself, such as `AutoModelForCausalLM`."
        )


def refuse_options(options: Mapping[str, Any]) -> None:
    """Refuse what transformers' loading takes, and this does not do.

    Args:
        options: For ``from_pretrained`` of transformers.

    Raises:
        UnsupportedModelError: If one of them would load something else.
    """
    for name, cure in REFUSED.items():
        if options.get(name):
            raise UnsupportedModelError(
                f"`{name}` is `{shortened(options[name])}`, which cannot be done with the rows of "
                f"a partial vocabulary. {cure}"
            )
    if "state_dict" in options:
        raise UnsupportedModelError(
            "`state_dict` is given, but weights are read from the checkpoint. "
            "Leave it out, or load the model with transformers and call `subvocab.shrink`."
        )
    if options.get("use_safetensors") is False:
        raise UnsupportedModelError(
            "`use_safetensors` is False, but only safetensors are read. Load the model with "
            "transformers, and write it with `save_pretrained`."
        )


def refuse_adapter(folder: Path) -> None:
    """Refuse a model that transformers would load with an adapter on it.

    Args:
        folder: Where the model lies.

    Raises:
        UnsupportedModelError: If an adapter of PEFT lies there too.
    """
    if (folder / ADAPTER_CONFIG_NAME).exists():
        raise UnsupportedModelError(
            f"{folder} holds an adapter (`{ADAPTER_CONFIG_NAME}`), which would be left out, though "
            f"transformers puts it on the model. {IN_MEMORY}"
        )


def read_config(
    auto_class: Any, folder: Path, kwargs: dict[str, Any]
) -> tuple[PreTrainedConfig, dict[str, Any]]:
    """Read a model's configuration.

    Args:
        auto_class: The class that shall load the model.
        folder: Where it lies.
        kwargs: For ``from_pretrained`` of transformers.

    Returns:
        The configuration, and the options that were not for it.

    Raises:
        CheckpointError: If it is missing or damaged.
    """
    if isinstance(config := kwargs.pop("config", None), PreTrainedConfig):
        return config, kwargs
    source = getattr(auto_class, "config_class", None) or AutoConfig
    remote = kwargs.get("trust_remote_code")
    try:
        config, unused = source.from_pretrained(folder, return_unused_kwargs=True, **kwargs)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"The configuration in {folder} cannot be read: {shortened(error)}. Give a folder that "
            "`save_pretrained` wrote, `config.json` included."
        ) from error
    return config, unused if remote is None else {**unused, "trust_remote_code": remote}


def empty_model(
    auto_class: Any, config: PreTrainedConfig, *, trust_remote_code: bool | None
) -> PreTrainedModel:
    """Build a model without memory for its weights, to see what it is made of.

    Args:
        auto_class: The class that shall load the model.
        config: The model's.
        trust_remote_code: As for ``from_pretrained`` of transformers.

    Returns:
        The model, on the meta device.

    Raises:
        UnsupportedModelError: If the class makes no model of that kind.
    """
    options = {} if trust_remote_code is None else {"trust_remote_code": trust_remote_code}
    # A random head must come out as in ordinary loading: building twice may draw nothing.
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        if not hasattr(auto_class, "from_config"):
            return auto_class(config)  # type: ignore[no-any-return]
        try:
            return auto_class.from_config(config, **options)  # type: ignore[no-any-return]
        except (OSError, ValueError) as error:
            raise UnsupportedModelError(
                f"`{auto_class.__name__}` makes no model of a `{type(config).__name__}`: "
                f"{shortened(error)} Pass the class that fits the checkpoint."
            ) from error
