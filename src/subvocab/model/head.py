"""The output head with one column for the rest of the vocabulary.

While a model computes its loss, logits are (…, |V′| + 1): the used tokens, and last the log-sum-exp
of the logits of all others, whose rows are frozen. Everywhere else (evaluation, generation, losses
of a user's own) they are those of all |V| tokens in their own order.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from subvocab.model.all_logits import Trained, all_logits
from subvocab.model.frozen import FrozenRows, RestDevice
from subvocab.model.partial import (
    PartialModule,
    make_whole_module,
    register_shifts,
)
from subvocab.model.rest import RestStatistics, Transform, rest_column, rows_per_tile
from subvocab.model.swap import swap_class
from subvocab.model.table import PartialTable
from subvocab.vocabulary.partial import ABSENT

logger = logging.getLogger("subvocab")

HeadMode = Literal["exact", "restricted", "whole"]
HEAD_MODES = ("exact", "restricted", "whole")
STEPS_BETWEEN_LOOKS = 100
TOKENS_LOOKED_AT = 64


@dataclass(frozen=True)
class LossLogits:
    """What a model asks of its head while it computes its loss.

    Attributes:
        transform: What the model would do to the logits.
        bias: What it would add to them, ``(full,)``: BART's ``final_logits_bias``.
        on_trial: Whether it is only found out what the model does to them.
    """

    transform: Transform = Transform()  # noqa: RUF009 - immutable
    bias: Tensor | None = None
    on_trial: bool = False


class PartialHead(PartialModule):
    """What every partial output head adds to the class it came from. Never instantiated.

    Attributes:
        mode: "exact" or "restricted".
        frozen: The rows outside V′.
        loss_logits: Set by the model's forward while it computes a loss, else None.
        produced: The last logits made for a loss, until the model has looked at them.
        version: How often they had been changed in place by then.
        ignored_mass: In restricted mode the probability of all tokens outside V′, as
            measured at the latest look.
    """

    keeps_shift = True
    out_features: int
    mode: HeadMode
    frozen: FrozenRows
    loss_logits: LossLogits | None = None
    produced: Tensor | None = None
    version: int = 0
    ignored_mass: float | None = None
    _steps = 0
    _whole_weight: tuple[Any, Any, Tensor] | None = None

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Multiply hidden states by the rows of V′, or of V.

        Args:
            *args: Hidden states ``(..., dim)``, and whatever else the class takes.
            **kwargs: The same by name.

        Returns:
            Logits: ``(..., partial + 1)`` while the model computes a loss (without the
            last column in restricted mode), else ``(..., full)``.
        """
        hidden = self.hidden_states(*args, **kwargs)
        self.frozen.table.check_weight(self.weight)
        if not len(self.frozen):
            return nn.functional.linear(hidden, self.weight, self.own_bias)
        if self.loss_logits is None:
            return cast("Tensor", self._all_logits(hidden))
        logits = self._loss_logits(hidden, self.loss_logits)
        # On trial a copy, since models may change logits in place; in earnest a look at the count.
        self.produced = logits.detach().clone() if self.loss_logits.on_trial else logits
        self.version = logits._version  # noqa: SLF001
        return logits

    def hidden_states(self, hidden: Tensor) -> Tensor:
        """Give what is multiplied by the rows.

        Args:
            hidden: What the module was called with.

        Returns:
            The same, for a linear layer.
        """
        return hidden

    @property
    def token_lookup(self) -> Tensor:
        """The mapping f, where the weight is."""
        return self.frozen.table.lookup_on(self.weight.device)

    @property
    def own_bias(self) -> nn.Parameter | None:
        """The biases of V′, if the head has any."""
        return self.bias if self.partial_bias is not None else None

    def shifts(self) -> tuple[Tensor | None, Tensor | None]:
        """Give what is added to rows and biases outside V′; frozen where those of V′ are.

        Returns:
            ``(dim,)`` and ``(1,)``, or None.
        """
        rows, biases = self.rest_shift, self.rest_bias_shift
        if rows is not None and not self.weight.requires_grad:
            rows = rows.detach()  # type: ignore[assignment]
        if biases is not None and not self.bias.requires_grad:
            biases = biases.detach()  # type: ignore[assignment]
        return rows, biases

    def train(self, mode: bool = True) -> Any:
        """Let go of the whole matrix, which evaluation puts together once.

        Args:
            mode: Whether to train.

        Returns:
            The module.
        """
        self._whole_weight = None
        return super().train(mode)

    def _loss_logits(self, hidden: Tensor, wanted: LossLogits) -> Tensor:
        """Give the logits of V′, and one for the rest."""
        used = self.used_logits(hidden, wanted)
        if self.mode == "restricted":
            if not wanted.on_trial:
                self._count_step(hidden, used, wanted)
            return used
        flat = hidden.reshape(-1, hidden.shape[-1])
        column = self.rest_logits(flat, wanted).view(*hidden.shape[:-1], 1)
        # In half precision the sum over a hundred thousand tokens would lose what it gained.
        return torch.cat([used.to(column.dtype), column], dim=-1)

    def used_logits(self, hidden: Tensor, wanted: LossLogits) -> Tensor:
        """Give the logits of V′.

        Args:
            hidden: ``(..., dim)``.
            wanted: What the model does to them.

        Returns:
            ``(..., partial)``, in the order of the ids.
        """
        used = nn.functional.linear(hidden, self.weight, self.own_bias)
        if wanted.bias is not None:
            used = used + wanted.bias[self.token_lookup != ABSENT].to(used.dtype)
        return wanted.transform(used)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def rest_logits(
        self, hidden: Tensor, wanted: LossLogits, statistics: RestStatistics | None = None
    ) -> Tensor:
        """Sum up the tokens outside V′.

        Args:
            hidden: ``(tokens, dim)``.
            wanted: What the model does to logits.
            statistics: To be filled in, if wanted.

        Returns:
            The log-sum-exp of their logits, ``(tokens,)``.
        """
        bias = None
        if self.partial_bias is not None:
            bias = self.partial_bias.of_rest(like=self.weight)
        if wanted.bias is not None:
            added = wanted.bias[self.token_lookup == ABSENT].to(self.weight)
            bias = added if bias is None else bias + added
        rows, biases = self.shifts()
        shift = None if rows is None else hidden @ rows.to(hidden.dtype)
        if biases is not None:
            shift = biases if shift is None else shift + biases
        chunks = self.frozen.chunks(
            rows_per_tile(len(hidden), hidden.device), bias, like=self.weight
        )
        return rest_column(
            hidden, chunks, shift=shift, transform=wanted.transform, statistics=statistics
        )

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    @torch.no_grad()
    def _count_step(self, hidden: Tensor, used: Tensor, wanted: LossLogits) -> None:
        """Measure now and then on a few tokens what a softmax over V′ leaves out, and log it."""
        self._steps += 1
        if self._steps % STEPS_BETWEEN_LOOKS != 1:
            return
        flat = hidden.reshape(-1, hidden.shape[-1])
        some = torch.arange(0, len(flat), max(1, len(flat) // TOKENS_LOOKED_AT), device=flat.device)
        rest = self.rest_logits(flat[some], wanted)
        kept = used.reshape(-1, used.shape[-1])[some].to(rest.dtype).logsumexp(-1)
        self.ignored_mass = float(torch.sigmoid(rest - kept).mean())
        logger.info(
            "The restricted softmax ignores %.2f %% of the probability: that of the %d tokens "
            "outside the partial vocabulary.",
            100 * self.ignored_mass,
            len(self.frozen),
        )

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _all_logits(self, hidden: Tensor) -> Tensor:
        """Give the logits of V, bit for bit those of the merged model."""
        with torch.no_grad():
            whole = self._whole()
            bias = None
            if self.partial_bias is not None:
                bias = self.partial_bias.whole_tensor(self.bias, shift=self.rest_bias_shift)
        trained = Trained(self.weight, self.own_bias, *self.shifts())
        return all_logits(hidden, trained, whole, bias, self.token_lookup)

    @torch.inference_mode(mode=False)
    def _whole(self) -> Tensor:
        """Put E together; in evaluation once, for as long as nothing in it changes."""
        used = self.token_lookup != ABSENT
        weight, shift = self.weight.detach(), self.rest_shift
        if self._whole_weight is not None:
            matrix, added, whole = self._whole_weight
            same = matrix is self.frozen.table.matrix and whole.dtype == weight.dtype
            same = same and whole.device == weight.device and torch.equal(whole[used], weight)
            if same and (shift is None or torch.equal(added, shift)):
                return whole
        self._whole_weight = None
        whole = weight.new_empty((self.frozen.table.vocabulary.full_vocab_size, weight.shape[1]))
        self.frozen.fill(whole, shift)
        whole[used] = weight
        if not self.training:
            added = None if shift is None else shift.detach().clone()
            self._whole_weight = (self.frozen.table.matrix, added, whole)
        return whole

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {
            "_whole_weight": None,
            "produced": None,
            "loss_logits": None,
        }


class PartialTiedProduct(PartialHead):
    """A head without a matrix of its own: it is handed the embedding and multiplies by it.

    DeBERTa ties its masked-language-model head so (``legacy=False``). The embedding keeps the
    shift, since the matrix stands there.
    """

    keeps_shift = False

    def hidden_states(self, hidden_states: Tensor, word_embeddings: nn.Module) -> Tensor:  # type: ignore[override]
        """Run what comes before the product.

        Args:
            hidden_states: From the encoder.
            word_embeddings: The embedding, by whose rows `PartialHead` multiplies.

        Returns:
            What is multiplied by the rows.
        """
        vars(self)["weight"] = word_embeddings.weight
        # The class's own forward, of a twin without a bias; the product changes nothing.
        twin = copy.copy(self)
        twin.__class__ = self.whole_class  # type: ignore[assignment]
        vars(twin).update(_parameters={}, bias=0.0)
        return self.whole_class.forward(twin, hidden_states, _identity(hidden_states))  # type: ignore[no-any-return]


def _identity(like: Tensor) -> Any:
    """Stand in for an embedding, so that a product with its rows gives back the other factor."""
    return SimpleNamespace(weight=torch.eye(like.shape[-1], dtype=like.dtype, device=like.device))


def make_partial_head(
    module: nn.Module,
    weight: nn.Parameter,
    table: PartialTable,
    *,
    mode: HeadMode,
    rest_device: RestDevice = None,
    rest_shift: nn.Parameter | None = None,
) -> None:
    """Turn an output head into a partial one, in place; its bias is left for `make_bias_partial`.

    Args:
        module: A linear layer over E, or a tied product.
        weight: E′, the same object for every module that shares the table.
        table: V′, and E on disk.
        mode: "exact" or "restricted".
        rest_device: Where the rows outside V′ stay.
        rest_shift: What is added to each of them, ``(dim,)``, or None.
    """
    if isinstance(module, nn.Linear):
        module.weight = weight
        module.out_features = len(table.vocabulary)
        swap_class(module, PartialHead)
        vars(module)["table"] = table
    else:
        swap_class(module, PartialTiedProduct)
        vars(module).update(weight=weight, table=None)
    # A restricted head reads them too seldom to keep them.
    place = "disk" if mode == "restricted" else rest_device
    vars(module).update(mode=mode, frozen=FrozenRows(table, place))
    register_shifts(module, rest_shift)


def make_whole_head(module: PartialHead, weight: nn.Parameter | None) -> None:
    """Undo `make_partial_head`.

    Args:
        module: A partial head.
        weight: E, the same object for every module that shares the table; None for a tied
            product, which has no matrix.
    """
    state = ("mode", "frozen", "_whole_weight", "produced", "version", "ignored_mass", "_steps")
    for name in state:
        vars(module).pop(name, None)
    vars(module).pop("weight", None)
    make_whole_module(module)
    if weight is not None:
        module.weight = weight
        module.out_features = weight.shape[0]
