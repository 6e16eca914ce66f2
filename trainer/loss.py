"""The LM head and its loss in one, for supervised positions alone and a few hundred of them at a time.

Shape letters: N tokens, S supervised ones of them, R of one chunk (`ROWS`, the last one filled up), C width, V vocabulary.
Guarantees: the logits of one chunk are all that is ever there of N x V; the loss is taken in float32 (float64 of float64
inputs), and summed in it; every chunk has the same shape; nothing is added up in an order that depends on threads.
Cost: three products of S x C x V, of which the two of the gradients are made together with the loss, where gradients are
wanted. Memory: R x V x 12 bytes (4 with a compiled `score`), 4 bytes a weight of the head, 2 or 4 x C bytes a supervised token.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from trainer.layout import IGNORE

ROWS = {"cpu": 256, "cuda": 1024}  # supervised positions projected at once: on a CPU, what its caches hold

Score = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(logits_RV, targets_R) -> (sum of the losses, the gradient of each logit in the logits' own type)."""


def score(logits_RV: Tensor, targets_R: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of targets that are not `IGNORE`, summed, and its gradient. Written to be compiled as one."""
    wide = torch.float64 if logits_RV.dtype == torch.float64 else torch.float32
    log_shares_RV = F.log_softmax(logits_RV, dim=-1, dtype=wide)
    counted_R1 = (targets_R != IGNORE)[:, None]
    target_R1 = targets_R.clamp(min=0)[:, None]
    loss = -(log_shares_RV.gather(1, target_R1) * counted_R1).sum()
    hit_RV = torch.arange(logits_RV.shape[1], device=logits_RV.device) == target_R1
    return loss, ((log_shares_RV.exp() - hit_RV.to(wide)) * counted_R1).to(logits_RV.dtype)


def score_plainly(logits_RV: Tensor, targets_R: Tensor) -> tuple[Tensor, Tensor]:
    """The same, in as few passes as operators run one by one allow."""
    wide = torch.float64 if logits_RV.dtype == torch.float64 else torch.float32
    log_shares_RV = F.log_softmax(logits_RV, dim=-1, dtype=wide)
    weight_R1 = -(targets_R != IGNORE).to(wide)[:, None]
    target_R1 = targets_R.clamp(min=0)[:, None]
    loss = (log_shares_RV.gather(1, target_R1) * weight_R1).sum()
    shares_RV = log_shares_RV.exp_().scatter_add_(1, target_R1, weight_R1)
    ignored_R = (targets_R == IGNORE).nonzero().squeeze(1)
    return loss, shares_RV.index_fill_(0, ignored_R, 0).to(logits_RV.dtype)


class _HeadLoss(torch.autograd.Function):
    """Gradients are made in forward, where the logits are at hand, and scaled in backward."""

    @staticmethod
    def forward(
        ctx: Any, hidden_NC: Tensor, head_VC: Tensor, supervised_S: Tensor, targets_S: Tensor, score_: Score
    ) -> Tensor:
        device, wanted = hidden_NC.device.type, any(ctx.needs_input_grad[:2])
        narrow = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_NC.dtype
        rows = ROWS.get(device, ROWS["cuda"])
        filler = -len(supervised_S) % rows
        targets_S = F.pad(targets_S, (0, filler), value=IGNORE)
        with torch.autocast(device, enabled=False):
            head, hidden_SC = head_VC.to(narrow), hidden_NC.to(narrow)[F.pad(supervised_S, (0, filler))]
            loss = hidden_NC.new_zeros((), dtype=torch.float64 if narrow == torch.float64 else torch.float32)
            d_hidden_SC, d_head_VC = torch.empty_like(hidden_SC), torch.zeros_like(head_VC)
            for start in range(0, len(hidden_SC), rows):
                hidden_RC = hidden_SC[start : start + rows]
                part, d_logits_RV = score_(hidden_RC @ head.T, targets_S[start : start + rows])
                loss += part
                if wanted:
                    torch.mm(d_logits_RV, head, out=d_hidden_SC[start : start + rows])
                    d_head_VC += d_logits_RV.T @ hidden_RC
            if wanted:
                d_hidden_NC = torch.zeros_like(hidden_NC)
                d_hidden_NC[supervised_S] = d_hidden_SC[: len(supervised_S)].to(hidden_NC.dtype)
                ctx.save_for_backward(d_hidden_NC, d_head_VC)
        return loss

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        d_hidden_NC, d_head_VC = ctx.saved_tensors
        return d_hidden_NC * scale.to(d_hidden_NC.dtype), d_head_VC * scale.to(d_head_VC.dtype), None, None, None


def head_loss(
    hidden_NC: Tensor, head_VC: Tensor, targets_N: Tensor, supervised_S: Tensor, score_: Score = score_plainly
) -> Tensor:
    """Sum of the cross-entropy over the tokens at `supervised_S`, those whose target is not `IGNORE`."""
    return _HeadLoss.apply(hidden_NC, head_VC, supervised_S, targets_N[supervised_S], score_)  # type: ignore[no-any-return, no-untyped-call]
