"""Split of the parameters of a model: matrices for a ball, and the others."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import Module, Parameter

_Convolution = torch.nn.modules.conv._ConvNd
_Embeddings = (torch.nn.Embedding, torch.nn.EmbeddingBag)
_Norms = (
    torch.nn.LayerNorm,
    torch.nn.GroupNorm,
    torch.nn.modules.batchnorm._NormBase,
    *((torch.nn.RMSNorm,) if hasattr(torch.nn, "RMSNorm") else ()),
)
_Weighted = (torch.nn.Linear, torch.nn.Bilinear, _Convolution)

# Modules match by the last part of the name, bare parameters by any part between underscores.
_HEADS = re.compile(
    r"(?!.*(attn|attention|multi))(\w+_)?heads?(_\w+)?|classifier|logits|score|unembed(ding)?"
    r"|to_logits|output_(layer|projection)"
)
_ROUTERS = {"gate", "router", "gating", "switch", "wg"}
_PACKED = {"qkv", "wqkv", "c_attn", "in_proj", "qkv_proj", "to_qkv"}
_TABLE_MODULES = {"wte", "wpe", "embed", "embedding", "embeddings", "embed_tokens", "pos_embed"}
_TABLES = re.compile(
    r"(pos|position|positional|cls|class|token|tokens|embed|embeds|embedding|embeddings|register"
    r"|registers|mask|prompt|prompts|latent|latents|query|queries)(?=_|$)"
)
# Matched with any part of the name of a module between underscores.
_NORM_NAMES = re.compile(r"\w*norms?\d*|(ln|bn|gn)\d*")
# Biases named b1, b_in; a capital B, and lora_b, are matrices.
_BIASES = re.compile(r"b\d*(_\w+)?")
_GAINS = re.compile(
    r"(bias|biases|gain|gains|scale|scales|gamma|beta|alpha|temperature|norm|ls|gate|gates|router"
    r"|magnitude)(?=_|\d|$)"
)


@dataclass(frozen=True)
class Assignment:
    """Part of the split for one parameter, and the reason.

    Attributes
    ----------
    name : str
        Name of the parameter in the model.
    shape : tuple of int
        Shape of the parameter.
    role : str
        ``"hidden"`` (for the ball), ``"head"``, ``"embedding"`` or ``"other"``.
    layout : str
        Layout in which it is read as matrices, see `trsvd.optim.LAYOUTS`.
    why : str
        The reason.
    guess : bool
        True: decided by a name or a shape, not by the type of a module or an argument.

    See Also
    --------
    Split, split_parameters

    Examples
    --------
    >>> import torch
    >>> from trsvd.optim.torch import split_parameters
    >>> row = split_parameters(torch.nn.Linear(4, 3), head=None).assignments[0]
    >>> row.name, row.role, row.why
    ('weight', 'hidden', 'Linear')
    """

    name: str
    shape: tuple[int, ...]
    role: str
    layout: str
    why: str
    guess: bool


class Groups(list[dict[str, Any]]):
    """Parameter groups that are copied when iterated, since optimizers modify their groups.

    Parameters
    ----------
    groups : list of dict
        The groups.
    part : str
        Name of the part of the split.
    """

    def __init__(self, groups: list[dict[str, Any]], part: str) -> None:
        super().__init__(groups)
        self.part = part

    def __reduce__(self) -> tuple[Any, ...]:
        return Groups, (list(self), self.part)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter([dict(group) for group in super().__iter__()])


class Split:
    """Parameters of a model as parameter groups; the repr is a table.

    Iterating gives ``matrices`` and ``others``. The groups can be passed to several optimizers.

    Attributes
    ----------
    matrices : list of dict
        Hidden matrices, for an optimizer of `trsvd.optim.torch`. One group for each layout.
    others : list of dict
        Embeddings, the head, norms, gates and biases, for an optimizer such as AdamW.
    embeddings, head, rest : list of dict
        The parts of ``others``: the matrices of embeddings, the matrices of the head, and the
        others. Embeddings have the layout ``"in_out"``, for SCALE.
    assignments : tuple of Assignment
        One row for each parameter.

    See Also
    --------
    split_parameters, Assignment

    Examples
    --------
    >>> import torch
    >>> from trsvd.optim.torch import split_parameters
    >>> split = split_parameters(torch.nn.Linear(4, 3), head=None)
    >>> split
    name    shape  goes to   why
    weight  3 x 4  matrices  Linear
    bias    3      others    fewer than two dimensions
    no head: no layer is one by its name or place; head= names it
    """

    matrices: list[dict[str, Any]]
    others: list[dict[str, Any]]
    embeddings: list[dict[str, Any]]
    head: list[dict[str, Any]]
    rest: list[dict[str, Any]]
    assignments: tuple[Assignment, ...]

    def __init__(self, rows: list[tuple[Assignment, Parameter]]) -> None:
        self.assignments = tuple(row for row, _ in rows)
        self.matrices = _grouped(rows, "hidden", "matrices")
        self.embeddings = _grouped(rows, "embedding", "embeddings")
        self.head = _grouped(rows, "head", "head")
        self.rest = _grouped(rows, "other", "rest")
        others = [(row.name, param) for row, param in rows if row.role != "hidden"]
        self.others = Groups([{"params": others}] if others else [], "others")

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        return iter((self.matrices, self.others))

    @property
    def guesses(self) -> tuple[Assignment, ...]:
        """Rows that were guessed from a name or a shape."""
        return tuple(row for row in self.assignments if row.guess)

    def __repr__(self) -> str:
        merged: dict[tuple[str, ...], list[str]] = {}
        for row in self.assignments:
            name = _shown(row.name)
            alike = re.sub(r"(?<=\.)\d+(?=\.)|^\d+(?=\.\w+\.)", "*", name)
            goes = "matrices" if row.role == "hidden" else "others"
            why = row.why + (" (guess)" if row.guess else "")
            cells = (alike, " x ".join(map(str, row.shape)), goes, why)
            merged.setdefault(cells, []).append(name)
        lines = [("name", "shape", "goes to", "why")]
        for (alike, shape, goes, why), names in merged.items():
            label = f"{alike}  ({len(names)})" if len(names) > 1 else names[0]
            lines.append((label, shape, goes, why))
        widths = [max(len(line[i]) for line in lines) for i in range(3)]
        text = ["  ".join([*map(str.ljust, line[:3], widths), line[3]]).rstrip() for line in lines]
        if self.guesses:
            text.append(f"{len(self.guesses)} of {len(self.assignments)} are guesses from names")
        for part, found in (("matrices", self.matrices), ("others", self.others)):
            if not found:
                text.append(f"no {part}: leave their optimizer out")
        if not self.head:
            text.append("no head: no layer is one by its name or place; head= names it")
        return "\n".join(text)


def _shown(name: str) -> str:
    """Return the name of a parameter in the table: its layer and its tensor."""
    # layer.parametrizations.weight.original0 -> layer.weight (original0)
    found = re.fullmatch(r"(.*?\.)?parametrizations\.(\w+)\.original(\d*)", name)
    if found is None:
        return name
    layer, tensor, number = found.groups(default="")
    return f"{layer}{tensor}" + (f" (original{number})" if number else "")


def _grouped(
    rows: list[tuple[Assignment, Parameter]], role: str, part: str
) -> list[dict[str, Any]]:
    """Return the groups of a role, one for each layout."""
    groups: dict[str, list[tuple[str, Parameter]]] = {}
    for row, param in rows:
        if row.role == role:
            groups.setdefault(row.layout, []).append((row.name, param))
    return Groups(
        [
            {"params": params, "role": role} | ({} if layout == "auto" else {"layout": layout})
            for layout, params in sorted(groups.items())
        ],
        part,
    )


def split_parameters(
    model: Module, *, head: str | Module | None = "last", qkv: str = "one"
) -> Split:
    """Split the parameters of a model into hidden matrices and others.

    The others are embeddings, the head, norms, gates and biases. The type of the module decides:
    weights of linear layers, convolutions, attention and recurrent layers are matrices. Parameters
    of modules of unknown type are classified by name and shape, and marked as guesses.

    Parameters
    ----------
    model : torch.nn.Module
        The model. Parameters that do not require a gradient are left out.
    head : str, torch.nn.Module or None, default "last"
        The output layer: a module or its name. None: there is no head. ``"last"``: the first of the
        following that exists. The layer that shares its weight with an embedding. The layers with
        the name of a head, such as ``lm_head``. The last linear layer, unless it is in a numbered
        block, or as wide as an embedding (whose weight then serves as the head).
    qkv : str, default "one"
        Treat packed projections to queries, keys and values as ``"one"`` matrix or as ``"three"``.

    Returns
    -------
    Split
        The groups. Empty groups are left out; an empty part raises an error in an optimizer. A
        parameter that is shared with an embedding or the head is in the part of these.

    Raises
    ------
    TypeError
        If ``model`` is not a module, or ``head`` is not a module, a name or None.
    ValueError
        If ``head`` is not in the model or has no matrix, or ``qkv`` is neither ``"one"`` nor
        ``"three"``.

    See Also
    --------
    Split, CompositeOptimizer

    Examples
    --------
    >>> import torch
    >>> from trsvd.optim.torch import split_parameters
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
    >>> split = split_parameters(model, head="2")
    >>> split
    name      shape   goes to   why
    0.weight  16 x 8  matrices  Linear
    0.bias    16      others    fewer than two dimensions
    2.weight  4 x 16  others    head, as given
    2.bias    4       others    fewer than two dimensions
    >>> matrices, others = split
    """
    if not isinstance(model, Module):
        raise TypeError(f"model is a {type(model).__name__}; pass a torch.nn.Module")
    if qkv not in ("one", "three"):
        raise ValueError(f"qkv={qkv!r}; pass 'one' or 'three', the matrices of a packed projection")
    modules = dict(model.named_modules())
    found, reason, guess = _head(modules, head)
    aside = {id(param) for module in found for param in module.parameters()}
    places: dict[int, list[str]] = {}
    for name, param in model.named_parameters(remove_duplicate=False):
        places.setdefault(id(param), []).append(name)
    rows = []
    for name, param in model.named_parameters():
        if not param.requires_grad:
            continue
        if id(param) in aside and param.ndim > 1:
            answer = ("head", "auto", reason, guess)
        else:
            answers = [_judged(modules, place, param, qkv) for place in places[id(param)]]
            # A parameter is for the ball only if all of its places are.
            answer = next((each for each in answers if each[0] != "hidden"), answers[0])
        rows.append((Assignment(name, tuple(param.shape), *answer), param))
    return Split(rows)


# ---- the head -------------------------------------------------------------------------------


def _head(modules: dict[str, Module], head: Any) -> tuple[list[Module], str, bool]:
    """Return the modules of the head, the reason, and True if that is a guess."""
    if head is None:
        return [], "", False
    given = modules.get(head) if isinstance(head, str) else head
    if isinstance(given, Module):
        _check_head(modules, head, given)
        return [given], "head, as given", False
    if not isinstance(head, str):
        raise TypeError(
            f"head is a {type(head).__name__}; pass one module of the model, its name, 'last' or "
            "None"
        )
    if head != "last":
        raise ValueError(
            f"head={head!r} is not a module of the model; name one of {_some_names(modules)}"
        )
    tables = [module for module in modules.values() if isinstance(module, _Embeddings)]
    weights = {id(table.weight) for table in tables}
    layers = {
        name: m for name, m in modules.items() if isinstance(m, (torch.nn.Linear, _Convolution))
    }
    tied = [layer for layer in layers.values() if id(layer.weight) in weights]
    if tied:
        return tied, "head, tied to an embedding", False
    named = _named_heads(modules, layers)
    if named:
        return named, "head, by its name", True
    linear = [(name, m) for name, m in layers.items() if isinstance(m, torch.nn.Linear)]
    if not linear:
        return [], "", False
    name, last = linear[-1]
    inside = re.search(r"(^|\.)\d+\.", name) is not None
    width = {table.embedding_dim for table in tables}
    if inside or last.out_features in width:
        return [], "", False
    return [last], "head, the last linear layer", True


def _check_head(modules: dict[str, Module], head: Any, given: Module) -> None:
    """ValueError for a head that is not in the model or has no matrix."""
    if not any(module is given for module in modules.values()):
        raise ValueError(
            f"head={head!r} is not a module of the model, but perhaps of another one or of a copy; "
            f"pass a module of this model or its name, one of {_some_names(modules)}"
        )
    if not any(param.ndim > 1 for param in given.parameters()):
        raise ValueError(
            f"head={head!r} has no parameter of two dimensions; pass the layer of the outputs, or "
            "None if the model has no head"
        )


def _some_names(modules: dict[str, Module]) -> str:
    names = sorted(name for name in modules if name)
    return ", ".join(map(repr, names[:8])) + (", ..." if len(names) > 8 else "")


def _named_heads(modules: dict[str, Module], layers: dict[str, Module]) -> list[Module]:
    """Return the last layer of each module named as a head, outside of numbered blocks."""
    found: list[Module] = []
    for name in modules:
        *path, last = name.split(".")
        if not _HEADS.fullmatch(last.lower()) or any(part.isdigit() for part in path):
            continue
        if any(_HEADS.fullmatch(part.lower()) for part in path):
            continue
        inside = [m for key, m in layers.items() if key == name or key.startswith(f"{name}.")]
        blocks = [key for key in layers if re.match(rf"{re.escape(name)}\.\w+\.\d+\.", key)]
        if inside and not blocks and not isinstance(modules[name], torch.nn.MultiheadAttention):
            found.append(inside[-1])
    return found


# ---- one parameter --------------------------------------------------------------------------

_Answer = tuple[str, str, str, bool]


def _judged(modules: dict[str, Module], name: str, param: Parameter, qkv: str) -> _Answer:
    """Return role, layout, reason and a flag for guesses, for one place of a parameter."""
    path, _, local = name.rpartition(".")
    if ".parametrizations." in f".{path}.":
        path, _, tensor = f".{path}".rpartition(".parametrizations.")
        path, original, local = path.removeprefix("."), local, tensor
        chain: Any = modules[f"{path}.parametrizations.{tensor}".removeprefix(".")]
        kinds = {type(each).__name__ for each in chain}
        if original == "original0" and "_WeightNorm" in kinds:
            return "other", "auto", "magnitude of weight_norm", False
    if local.endswith("_g") and f"{local[:-2]}_v" in _names_of(modules[path]):
        return "other", "auto", "magnitude of weight_norm", False
    module = modules[path]
    if isinstance(module, _Embeddings):
        return "embedding", "in_out", "embedding", False
    if param.ndim < 2:
        return "other", "auto", "fewer than two dimensions", False
    if isinstance(module, _Norms):
        return "other", "auto", type(module).__name__, False
    if isinstance(module, torch.nn.MultiheadAttention):
        if local.startswith("bias"):
            return "other", "auto", "bias", False
        return _projection(type(module).__name__, local == "in_proj_weight", param, qkv)
    if isinstance(module, torch.nn.RNNBase):
        return "hidden", "auto", f"{type(module).__name__}, gates as one matrix", False
    if isinstance(module, _Weighted):
        return _weight(modules, path, module, param, qkv)
    return _guessed(module, path, local, param)


def _names_of(module: Module) -> set[str]:
    return {name for name, _ in module.named_parameters(recurse=False)}


def _projection(kind: str, packed: bool, param: Parameter, qkv: str) -> _Answer:
    """Return the answer for a projection of attention; a packed one is one or three matrices."""
    if not packed:
        return "hidden", "auto", kind, False
    if qkv == "three":
        return "hidden", "thirds", f"{kind}, packed q, k, v as three", False
    return "hidden", "auto", f"{kind}, packed q, k, v as one", False


def _weight(
    modules: dict[str, Module], path: str, module: Module, param: Parameter, qkv: str
) -> _Answer:
    """Return the answer for the weight of a linear layer or of a convolution."""
    kind, name = type(module).__name__, path.rpartition(".")[2].lower()
    if isinstance(module, _Convolution):
        return "hidden", "flatten", kind, False
    if not isinstance(module, torch.nn.Linear):
        return "hidden", "auto", kind, False
    if name in _ROUTERS and param.shape[0] < param.shape[1]:
        siblings = modules[path.rpartition(".")[0]].children()
        sizes = {len(each) for each in siblings if isinstance(each, torch.nn.ModuleList)}
        return "other", "auto", "gate of experts", param.shape[0] not in sizes
    if param.shape[0] == 1:
        return "other", "auto", "a gate, one row", True
    packed = name in _PACKED and param.shape[0] == 3 * param.shape[1]
    return _projection(kind, packed, param, qkv)


def _guessed(module: Module, path: str, local: str, param: Parameter) -> _Answer:
    """Return the answer for a parameter of another module, by names and shape."""
    kind, name = type(module).__name__, local.lower()
    shape = tuple(param.shape)
    # Skip the numbers of containers.
    place = next((part for part in reversed(path.lower().split(".")) if not part.isdigit()), "")
    if "norm" in kind.lower():
        return "other", "auto", f"{kind}, by its name", True
    if any(_NORM_NAMES.fullmatch(part) for part in place.split("_")):
        return "other", "auto", f"norm, by the name of its module, {place}", True
    if "embed" in kind.lower() or _found(_TABLES, name):
        return "other", "auto", "table or token, by its name", True
    if place in _TABLE_MODULES:
        return "other", "auto", f"table, by the name of its module, {place}", True
    if _found(_GAINS, name) or _BIASES.fullmatch(local):
        return "other", "auto", "gain, gate or bias, by its name", True
    if place in _ROUTERS and len(shape) == 2 and shape[0] < shape[1]:
        return "other", "auto", f"gate of experts, by the name of its module, {place}", True
    if len(shape) == 2 and any(
        each.ndim == 3 and each.shape[0] == shape[0] and shape[1] in each.shape[1:]
        for each in module.parameters(recurse=False)
    ):
        return "other", "auto", "one row for each matrix of a stack: a bias or gate", True
    if shape[0] == 1 or min(shape[-2:]) == 1 and len(shape) < 4:
        return "other", "auto", "a dimension of 1: it is broadcast", True
    if kind == "Conv1D" and name == "weight":  # the linear layer of GPT-2 in transformers
        return "hidden", "in_out", "Conv1D, kept as (in, out)", True
    if len(shape) == 3:
        experts = "expert" in f"{path}.{name}.{kind}".lower()
        return "hidden", "auto", "stack of experts" if experts else "stack of matrices", True
    if len(shape) > 3:
        return "hidden", "flatten", "four dimensions, as a convolution", True
    return "hidden", "auto", "bare parameter, two dimensions", True


def _found(pattern: re.Pattern[str], name: str) -> bool:
    """True if the pattern matches a part of the name between underscores."""
    return any(pattern.match(name, start) for start in _starts(name))


def _starts(name: str) -> list[int]:
    return [0, *(i + 1 for i, letter in enumerate(name) if letter == "_")]
