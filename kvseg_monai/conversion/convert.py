"""Turn a MONAI transformer into its Key-Value form: ``to_kv(UNETR(...))``, or ``python -m kvseg_monai.convert``.

Converted are the self-attentions ``SABlock`` (ViT, ViTAutoEnc, UNETR, the spatial attention of diffusion networks and
autoencoders, ...) and ``WindowAttention`` (SwinUNETR). Each loses its query projection: C^2 weights, and C biases.
"""

import argparse
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from monai.bundle import ConfigParser
from monai.networks.blocks import PatchEmbeddingBlock, SABlock
from monai.networks.nets.swin_unetr import WindowAttention
from torch import Tensor, nn

from kvseg_monai.conversion.modules import KeyValueSABlock, KeyValueWindowAttention
from kvseg_monai.conversion.warm_start import key_value_form, measure_tokens
from kvseg_monai.errors import InputError
from kvseg_monai.utils.files import refuse_foreign
from kvseg_monai.utils.flags import as_flag
from kvseg_monai.utils.overlap import refuse_overlap
from kvseg_monai.utils.program import program
from kvseg_monai.utils.safetensors_file import written_with
from kvseg_monai.utils.settings import carried, read_settings
from kvseg_monai.utils.weights import load_weights, save_whole

logger = logging.getLogger(__name__)

KINDS = {SABlock: ("kv", "kv_pos"), WindowAttention: ("kv",)}  # a window has its own position bias


@dataclass(frozen=True)
class ConvertedBlock:
    """One converted attention.

    ``fit_error`` is ||Wq^T Wk - W^T W|| / ||Wq^T Wk||, on images that of the logits which the softmax sees (see
    :mod:`kvseg_monai.conversion.closest_key`); None without a warm start.
    """

    name: str
    source: str
    kind: str
    parameters_before: int
    parameters_after: int
    fit_error: float | None


@dataclass(frozen=True)
class Summary:
    """Summary of a conversion; prints as a table. ``left_alone`` names the attentions that keep their query."""

    blocks: tuple[ConvertedBlock, ...]
    left_alone: tuple[str, ...]
    parameters_before: int
    parameters_after: int

    def __str__(self) -> str:
        width = max(len("whole network"), *(len(block.name) for block in self.blocks))
        lines = [f"{'module':{width}}  {'from':15}  {'to':6}  {'before':>11}  {'after':>11}  fit error"]
        for block in self.blocks:
            error = "-" if block.fit_error is None else f"{block.fit_error:.4f}"
            sizes = f"{block.parameters_before:11,}  {block.parameters_after:11,}"
            lines.append(f"{block.name:{width}}  {block.source:15}  {block.kind:6}  {sizes}  {error:>9}")
        total = f"{self.parameters_before:11,}  {self.parameters_after:11,}"
        lines.append(f"{'whole network':{width}}  {'':15}  {'':6}  {total}  parameters")
        return "\n".join(lines + [f"left alone: {name}" for name in self.left_alone])


def to_kv(network: nn.Module, attention: str = "kv", warm_start: bool = True, images: Tensor | None = None) -> Summary:
    """Replace each MONAI self-attention of ``network`` by its Key-Value form, in place.

    Value and output projection are carried over unchanged, and so are position tables, masks, dropout, device, dtype
    and training mode. Load trained weights, and set up the optimizer, in this order: load, convert, optimizer.

    Args:
        network: any module with a ``SABlock`` or a ``WindowAttention`` somewhere below it.
        attention: ``kv``, or ``kv_pos`` (``SABlock`` alone), which adds 50 parameters per block.
        warm_start: take the key that is closest to the trained query and key (see
            :mod:`kvseg_monai.conversion.closest_key`); the position of ``kv_pos`` then starts as none at all. False
            draws the key afresh, as ``torch.nn.Linear``
            initialises itself, which is how both sources do it: right for a network that was never trained.
        images: a batch as in training, without labels, for the warm start: the key is then the closest on the tokens
            of these images, which is much closer. None fits the weights alone.

    Raises:
        InputError: when there is nothing to convert, or the kind does not exist for an attention found; the network is
            then as it was.

    Examples:
        >>> from monai.networks.nets import ViT
        >>> network = ViT(1, (32, 32), 16, 48, 96, num_layers=2, num_heads=4, spatial_dims=2)
        >>> summary = to_kv(network)
        >>> [(block.name, block.source, block.kind) for block in summary.blocks]
        [('blocks.0.attn', 'SABlock', 'kv'), ('blocks.1.attn', 'SABlock', 'kv')]
        >>> summary.parameters_before - summary.parameters_after  # 2 x 48²
        4608
    """
    found = list(_attentions(network))
    _check(network, found, attention)
    before, token_count = _count(network), _token_count(network)
    tokens = {}
    if warm_start and images is not None:
        tokens = measure_tokens(network, {source for _, source in found}, images)
    replaced: dict[nn.Module, nn.Module] = {}
    blocks = []
    for name, source in found:
        if source not in replaced:  # a module may sit in several places
            replaced[source], error = key_value_form(
                source, attention, warm_start=warm_start, token_count=token_count, tokens=tokens.get(source)
            )
            sizes = (_count(source), _count(replaced[source]))
            blocks.append(ConvertedBlock(name, type(source).__name__, attention, *sizes, error))
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, replaced[source])
    return Summary(tuple(blocks), tuple(_left_alone(network)), before, _count(network))


def converted(
    network: nn.Module,
    attention: str = "kv",
    warm_start: bool | str = True,
    weights: str | None = None,
    images: Tensor | None = None,
) -> nn.Module:
    """Convert ``network`` and return it: a ``_target_`` for the ``network_def`` of a bundle. Logs the summary.

    Args:
        network: see :func:`to_kv`.
        attention: see :func:`to_kv`.
        warm_start: see :func:`to_kv`; False where a checkpoint of the converted network is loaded afterwards.
        weights: state dict of the unconverted network, loaded strictly before the conversion; None loads nothing.
        images: see :func:`to_kv`.

    Raises:
        InputError: see :func:`to_kv`; or ``warm_start`` is neither true nor false.

    Examples:
        >>> from monai.networks.nets import ViT
        >>> network = ViT(1, (32, 32), 16, 48, 96, num_layers=1, num_heads=4, spatial_dims=2)
        >>> network = converted(network, warm_start=False)
        >>> type(network.blocks[0].attn).__name__
        'KeyValueSABlock'
    """
    warm_start = as_flag(warm_start, "warm_start")
    if weights is not None:
        load_weights(network, weights)
    logger.info("converted to its Key-Value form:\n%s", to_kv(network, attention, warm_start, images))
    return network


def _attentions(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield what can be converted; a subclass with a forward of its own computes something that we do not know."""
    for name, module in network.named_modules(remove_duplicate=False):
        if any(isinstance(module, kind) and type(module).forward is kind.forward for kind in KINDS):
            yield name, module


def _check(network: nn.Module, found: list[tuple[str, nn.Module]], attention: str) -> None:
    allowed = sorted({kind for kinds in KINDS.values() for kind in kinds})
    if attention not in allowed:
        raise InputError(f"attention is {attention!r}; a conversion makes {' or '.join(allowed)}")
    classes = " and ".join(source.__name__ for source in KINDS)
    if not found:
        raise InputError(f"{type(network).__name__} has nothing to convert; converted are MONAI's {classes}")
    if found[0][0] == "":
        raise InputError(f"the network is itself a {type(network).__name__}; hand in the module that contains it")
    for name, module in found:
        kinds = next(kinds for source, kinds in KINDS.items() if isinstance(module, source))
        if attention not in kinds:
            raise InputError(
                f"attention is {attention!r}, but {name} is a {type(module).__name__}, which has a position of its "
                f"own; it converts to {' or '.join(kinds)}"
            )


def _left_alone(network: nn.Module) -> list[str]:
    """Return name and class of attentions that keep their query: cross-attention, and classes that we do not know."""
    done = (KeyValueSABlock, KeyValueWindowAttention)
    return [
        f"{name} ({type(module).__name__})"
        for name, module in network.named_modules()
        if "attention" in type(module).__name__.lower() or isinstance(module, tuple(KINDS))
        if not any(isinstance(part, done) for part in module.modules())
    ]


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _token_count(network: nn.Module) -> int:
    """Return the tokens for which positions are kept ready; any other number is encoded when it comes."""
    counts = [module.n_patches for module in network.modules() if isinstance(module, PatchEmbeddingBlock)]
    return int(counts[0]) if counts else 1


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=program("kvseg_monai.convert"), description=main.__doc__)
    parser.add_argument(
        "--config_file",
        required=True,
        nargs="+",
        help="bundle configuration with the unconverted network; a later file is laid over those before it",
    )
    parser.add_argument("--net_id", default="network_def", help="the network in it (default: %(default)s)")
    parser.add_argument("--weights", type=Path, required=True, help="trained state dict of that network")
    parser.add_argument(
        "--target", type=Path, required=True, help="where the converted state dict goes: .pt or .safetensors"
    )
    parser.add_argument("--attention", default="kv", help="kv or kv_pos (default: %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace a target that this command made")
    options = parser.parse_args(arguments)
    for path in (*options.config_file, options.target.parent):
        if not Path(path).exists():
            raise InputError(f"{path} does not exist; give a file or folder that does")
    sources = {"weights": options.weights, **{f"config_file {file}": file for file in options.config_file}}
    _refuse_existing(options.target, overwrite=options.overwrite)
    targets = written_with(options.target)
    for path in targets:
        refuse_overlap(sources=sources, targets={"target": path})
    for path in targets:
        _refuse_existing(path, overwrite=options.overwrite)
    refuse_foreign(targets)
    return options


def _refuse_existing(path: Path, *, overwrite: bool) -> None:
    if path.exists() and not (overwrite and path.is_file()):
        raise InputError(f"{path} is there already; give another --target, or --overwrite to replace a file")


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert trained weights of a network that a configuration defines, and print what was done."""
    options = _options(arguments)
    config = ConfigParser()
    config.read_config(options.config_file)
    if config.get(options.net_id) is None:
        raise InputError(f"{options.config_file[-1]} has no {options.net_id}; name its network with --net_id")
    network = config.get_parsed_content(options.net_id)
    load_weights(network, options.weights)
    print(to_kv(network, options.attention))
    save_whole(network.state_dict(), options.target, settings=carried(read_settings(options.weights)))
    return 0
