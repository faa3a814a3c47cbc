"""The weight average of a checkpoint as a model: what is exported, validated and listened to."""

from __future__ import annotations

from model.audiocalm import AudioCALM
from model.config import model_config_from_dict
from pipeline.training.checkpoint import AVERAGE, opened
from pipeline.training.checkpoint_store import CheckpointStore
from pipeline.training.lora import add_adapters, filled_from_base
from pipeline.training.settings import LoraSettings


def averaged_model(store: CheckpointStore, step: int) -> AudioCALM:
    """The model with the weight average of a checkpoint, float32, in eval mode.

    Adapters are merged: the average of the adapters is added to the weights below.

    Raises:
        IncompleteError: If there is no such checkpoint, or it was altered.
        SettingsError: If it holds adapters and the extra `lora` is missing.
    """
    state = store.state(step)
    model = AudioCALM(model_config_from_dict(state["model"]))
    lora = state.get("lora")
    if lora is not None:
        with filled_from_base(store, model) as fill:
            for module in model.modules():
                fill(module)
        adapters = add_adapters(model, LoraSettings.model_validate(lora))
    with opened(store, step) as reader:
        weights = reader.whole(set(model.state_dict()))
        for name, parameter in model.named_parameters():
            # Parameters without an average are frozen, and those below adapters are filled.
            if name not in weights and parameter.requires_grad:
                weights[name] = reader.parameter(AVERAGE, name, parameter.shape)
    model.load_state_dict(weights, strict=lora is None)
    if lora is not None:
        adapters.merge_and_unload()
        model.requires_grad_(True)
    return model.eval()
