"""The model_args of timm's config.json, for all of its modules: read, and refused where they change the model."""

from collections.abc import Mapping
from typing import Any, TypeVar

from vitreous.model.config import as_pair, check_count
from vitreous.support.errors import InputError

READ = ("img_size", "num_heads", "global_pool")
IN_KEYS = (  # visible in the file's keys or shapes
    *("patch_size", "in_chans", "num_classes", "embed_dim", "depth", "qkv_bias", "mlp_ratio", "init_values"),
)
HARMLESS = (  # only for training, or for images of other sizes
    *("drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate"),
    *("dynamic_img_size", "dynamic_img_pad"),
)
POOLINGS = {"token": "class_token", "avg": "mean", "map": "attention"}
GLOBAL_POOLS = {pooling: name for name, pooling in POOLINGS.items()}
T = TypeVar("T")


def arguments_of(
    config_json: Mapping[str, Any],
    own: tuple[str, ...],
    *,
    nullable: tuple[str, ...] = (),
    idle: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The model_args of a config.json, without those that are null.

    Args:
        config_json: the config.
        own: the arguments that the module has beside those of all modules.
        nullable: those for which null is a value.
        idle: those that change nothing with this value, and only with it.

    Raises:
        InputError: they are not an object, or one of them changes the model in a way that vitreous does not support.
    """
    arguments = config_json.get("model_args")
    if arguments is None:
        return {}
    if not isinstance(arguments, dict):
        raise InputError(f"config.json has model_args {arguments!r:.100}", "they must be a JSON object")
    arguments = {name: value for name, value in arguments.items() if value is not None or name in nullable}
    known = (*READ, *own, *IN_KEYS, *HARMLESS)
    for name, value in arguments.items():
        if name not in known and (idle is None or name not in idle or value != idle[name]):
            cause = f"config.json has the unsupported model_args entry {name}={value!r:.100}"
            raise InputError(cause, f"supported are {', '.join(known)}")
    return arguments


def size_fields(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The image size and the number of heads, as far as the arguments give them. Raises InputError for other values."""
    fields: dict[str, Any] = {}
    try:
        if "img_size" in arguments:
            fields["image_size"] = as_pair("img_size", arguments["img_size"])
        if "num_heads" in arguments:
            check_count("num_heads", arguments["num_heads"])
            fields["num_heads"] = arguments["num_heads"]
    except InputError as error:
        raise no_vit(error) from error
    return fields


def pooling_fields(
    arguments: Mapping[str, Any], config_json: Mapping[str, Any], usual: str | None = None
) -> dict[str, Any]:
    """The pooling, or nothing if the config leaves it open, as for features: timm then returns all tokens.

    Args:
        arguments: the model_args, which come before the config's own value.
        config_json: the config.
        usual: the architecture's value in timm's words, for a config that has none.

    Raises:
        InputError: the pooling is of another kind.
    """
    pool = arguments.get("global_pool", config_json.get("global_pool"))
    pool = usual if pool is None else pool
    classes = config_json.get("num_classes", arguments.get("num_classes"))
    if pool is None or (pool == "" and classes == 0):
        return {}
    return {"pooling": meaning_of("global_pool", pool, POOLINGS)}


def meaning_of(field: str, value: Any, meanings: Mapping[str, T]) -> T:
    """What a value of config.json means to vitreous. Raises InputError if it is not supported."""
    for name, meaning in meanings.items():
        if value == name:
            return meaning
    raise InputError(f"config.json has {field} {value!r:.100}", f"supported are {', '.join(meanings)}")


def no_vit(error: InputError) -> InputError:
    """An error in a value, as one of model_args."""
    return InputError(f"config.json's model_args do not make a ViT: {error.cause}", error.hint)
